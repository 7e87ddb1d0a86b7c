from __future__ import annotations

from typing import Any

import pytest
from codex_core.config import Override
from codex_core.config.layers import Layer
from codex_core.config.model import WebSearch
from codex_core.config.requirements import STRICTEST_FIRST, Constraints, requirement
from codex_core.errors import ConfigError
from codex_core.types import ApprovalMode, Promise, SandboxMode, Strength
from hypothesis import given
from hypothesis import strategies as st

GUARDED = """\
allowed_sandbox_modes = ["read-only", "workspace-write"]
allowed_approval_policies = ["untrusted", "on-request"]
"""
YOLO = [
    Override(("sandbox_mode",), "danger-full-access", "--yolo"),
    Override(("approval_policy",), "never", "--yolo"),
]


def refusal(machine: Any, *overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        machine.load(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# They bind every layer and every flag


def test_yolo_works_without_constraints_and_is_refused_with_them(machine: Any) -> None:
    assert machine.load(*YOLO).config.sandbox_mode is SandboxMode.DANGER_FULL_ACCESS
    machine.requirements(GUARDED)
    assert refusal(machine, *YOLO) == (
        f'flags: sandbox_mode = "danger-full-access" is not allowed: {machine.requirements_file}:1:1 allows '
        '"read-only", "workspace-write"; only the administrator of this machine may change that'
    )


@pytest.mark.parametrize("word", ["sandbox_mode=danger-full-access", "approval_policy=never"])
def test_a_forbidden_override_is_refused(machine: Any, word: str) -> None:
    machine.load(word)
    machine.requirements(GUARDED)
    assert refusal(machine, word).startswith("overrides: ")


@pytest.mark.parametrize("kind", ["user", "managed"])
def test_a_forbidden_value_in_a_file_is_replaced_by_a_stricter_one_with_a_warning(machine: Any, kind: str) -> None:
    getattr(machine, kind)('sandbox_mode = "danger-full-access"\napproval_policy = "never"\n')
    machine.requirements(GUARDED)
    loaded = machine.load()
    assert loaded.config.sandbox_mode is SandboxMode.WORKSPACE_WRITE
    assert loaded.config.approval_policy is ApprovalMode.ON_REQUEST
    path = machine.user_file if kind == "user" else machine.managed_file
    assert loaded.warnings[0] == (
        f'{path}:1:1: sandbox_mode = "danger-full-access" is not allowed: {machine.requirements_file}:1:1 allows '
        '"read-only", "workspace-write"; only the administrator of this machine may change that; '
        '"workspace-write" holds instead'
    )
    origin = loaded.origins["sandbox_mode"]
    assert (origin.layer, origin.path, origin.line) == ("requirements", str(machine.requirements_file), 1)


def test_a_profile_is_bound_as_well(machine: Any) -> None:
    machine.user('profile = "p"\n[profiles.p]\napproval_policy = "never"\n')
    machine.requirements(GUARDED)
    assert machine.load().config.approval_policy is ApprovalMode.ON_REQUEST


def test_a_value_is_never_replaced_by_a_looser_one(machine: Any) -> None:
    machine.user('sandbox_mode = "read-only"\n')
    machine.requirements('allowed_sandbox_modes = ["danger-full-access"]\n')
    assert f"{machine.user_file}:1:1: sandbox_mode" in refusal(machine)


def test_a_forbidden_flag_under_a_managed_value_is_not_what_holds_and_stops_nothing(machine: Any) -> None:
    machine.managed('sandbox_mode = "read-only"\napproval_policy = "untrusted"\n')
    machine.requirements(GUARDED)
    assert machine.load(*YOLO).config.sandbox_mode is SandboxMode.READ_ONLY


def test_the_default_of_a_folder_is_tightened_and_the_note_says_so(machine: Any) -> None:
    (machine.cwd / ".git").mkdir()
    machine.requirements('allowed_sandbox_modes = ["read-only"]\n')
    loaded = machine.load()
    assert loaded.config.sandbox_mode is SandboxMode.READ_ONLY
    assert loaded.warnings == ()
    assert loaded.defaults_note.startswith("read-only and on-request (the administrator allows no more), because ")


def test_web_search_may_always_be_off_and_both_spellings_are_bound(machine: Any) -> None:
    machine.requirements('allowed_web_search_modes = ["cached"]\n')
    assert machine.load().config.web_search is WebSearch.DISABLED
    machine.user("[features]\nweb_search_request = true\n")
    config = machine.load().config
    assert (config.web_search, config.features.web_search_request) == (WebSearch.CACHED, True)
    assert "web_search" in refusal(machine, "web_search=live")
    assert machine.load().constraints.check("features.web_search_request", value=True) is not None


@pytest.mark.parametrize("line", ["allow_network_access = false", 'allowed_domains = ["example.com"]'])
def test_the_network_can_be_closed_for_good(machine: Any, line: str) -> None:
    machine.user("[sandbox_workspace_write]\nnetwork_access = true\n")
    assert machine.load().config.sandbox_workspace_write.network_access
    machine.requirements(line)
    assert not machine.load().config.sandbox_workspace_write.network_access
    assert "network_access = true is not allowed" in refusal(machine, "sandbox_workspace_write.network_access=true")
    assert "danger-full-access" in refusal(machine, "sandbox_mode=danger-full-access")


def test_telemetry_can_be_made_mandatory(machine: Any) -> None:
    machine.requirements('allowed_exporters = ["otlp-http"]\n')
    assert 'otel.exporter = "none" is not allowed' in refusal(machine)
    machine.managed('[otel]\nexporter = "otlp-http"\n')
    machine.user('[otel]\nexporter = "none"\n')
    assert machine.load("otel.exporter=none").config.otel.exporter == "otlp-http"


def test_a_promise_that_is_required_cannot_be_given_up(machine: Any) -> None:
    machine.user('[sandbox_linux]\nallow_degraded = ["protected_paths", "ipc"]\n')
    machine.requirements('minimum_strength = ["protected_paths", "writes"]\n')
    loaded = machine.load()
    assert loaded.config.backend_table("linux").allow_degraded == (Promise.IPC,)
    assert 'sandbox_linux.allow_degraded = "protected_paths" is not allowed' in loaded.warnings[0]
    assert "sandboxed modes only" in refusal(machine, "sandbox_mode=danger-full-access")


def test_the_strength_of_a_sandbox_is_judged_before_it_is_used(machine: Any) -> None:
    machine.requirements('minimum_strength = ["writes", "network"]\n')
    constraints = machine.load().constraints
    assert constraints.check_strength(Strength("linux", "floor", frozenset({Promise.WRITES, Promise.NETWORK}))) is None
    weak = Strength("linux", "floor", frozenset({Promise.WRITES}))
    assert str(constraints.check_strength(weak)) == (
        f"a run without network (linux/floor) is not allowed: {machine.requirements_file}:1:1 allows none that loses "
        "writes, network; only the administrator of this machine may change that"
    )


def test_plugins_may_come_from_named_distributions_only(machine: Any) -> None:
    machine.requirements('allowed_plugins = ["Codex_Sandbox.Linux"]\n')
    constraints = machine.load().constraints
    assert constraints.check_plugin("codex-sandbox-linux") is None
    assert 'a plugin from "evil" is not allowed' in str(constraints.check_plugin("evil"))


def test_domains_are_compared_as_names_not_as_text(machine: Any) -> None:
    machine.requirements('allowed_domains = ["*.Example.com", "example.net"]\n')
    check = machine.load().constraints.check
    key = "sandbox_workspace_write.allowed_domains"
    for allowed in ("a.example.com", "*.b.example.com", "Example.NET."):
        assert check(key, [allowed]) is None
    for refused in ("example.com", "badexample.com", "*.com", "*", "example.net.evil"):
        assert check(key, [refused]) is not None


def test_restrictions_of_commands_are_handed_on_with_their_place(machine: Any) -> None:
    machine.requirements(
        '[[rules]]\nprefix = ["git", ["push", "send-pack"]]\ndecision = "forbid"\nreason = "reviewed only"\n'
    )
    (rule,) = machine.load().constraints.rules
    assert (rule.prefix, rule.decision, rule.reason) == ((("git",), ("push", "send-pack")), "forbid", "reviewed only")
    assert rule.place == f"{machine.requirements_file}:1:1"


# They bind later changes


def test_every_choice_inside_a_session_can_be_asked_about(machine: Any) -> None:
    machine.requirements(GUARDED)
    constraints = machine.load().constraints
    assert constraints.check("approval_policy", ApprovalMode.UNTRUSTED) is None
    violation = constraints.check("approval_policy", ApprovalMode.NEVER)
    assert violation is not None
    assert violation.place == f"{machine.requirements_file}:2:1"
    assert constraints.check("model", "anything") is None


# A file that cannot be kept stops the run


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("allowed_sandbox_modes = ", ":1:25: Invalid value"),
        ('allowed_sandbox_modes = ["read_only"]', ':1:26: allowed_sandbox_modes[0]: "read_only" is not allowed'),
        ('allowed_sandbox_mode = ["read-only"]', ":1:1: unknown key allowed_sandbox_mode; did you mean"),
        ('[[rules]]\nprefix = ["git"]\ndecision = "allow"', ':3:1: rules[0].decision: "allow" is not allowed'),
        ('[[rules]]\nprefix = []\ndecision = "forbid"', ":2:1: rules[0].prefix: "),
        ('[[rules]]\ndecision = "forbid"', ":1:1: rules[0].prefix is missing"),
        ("allowed_sandbox_modes = []", ": leave no value for sandbox_mode"),
        ('minimum_strength = ["all"]', ':1:21: minimum_strength[0]: "all" is not allowed'),
    ],
)
def test_a_broken_file_of_constraints_stops_the_run(machine: Any, text: str, says: str) -> None:
    machine.requirements(text)
    assert refusal(machine).startswith(f"{machine.requirements_file}{says}")


def test_a_file_of_constraints_that_everybody_may_write_stops_the_run(machine: Any) -> None:
    machine.requirements("")
    machine.load()
    machine.requirements_file.chmod(0o646)
    assert "everybody may write to it" in refusal(machine)


@pytest.mark.parametrize("variable", ["CODEX_REQUIREMENTS", "XDG_CONFIG_DIRS", "XDG_CONFIG_HOME", "USER", "LOGNAME"])
def test_no_variable_moves_the_managed_files(machine: Any, variable: str) -> None:
    machine.requirements(GUARDED)
    machine.environ[variable] = str(machine.home)
    assert refusal(machine, *YOLO)


# Constraints form a meet semilattice


def _constraints(values: dict[str, Any]) -> Constraints:
    return Constraints((requirement(Layer("requirements", 0, values)),))


def _subsets(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True)


files = st.fixed_dictionaries(
    {},
    optional={
        "allowed_sandbox_modes": _subsets(STRICTEST_FIRST["sandbox_mode"]),
        "allowed_approval_policies": _subsets(STRICTEST_FIRST["approval_policy"]),
        "allowed_web_search_modes": _subsets(STRICTEST_FIRST["web_search"]),
        "allowed_exporters": _subsets(("none", "otlp-http")),
        "allowed_plugins": _subsets(("a", "b")),
        "allowed_domains": _subsets(("a.com", "*.a.com", "*")),
        "allow_network_access": st.booleans(),
        "minimum_strength": _subsets(tuple(map(str, Promise))),
    },
)
sets = st.lists(files, max_size=3).map(
    lambda many: Constraints(tuple(one for values in many for one in _constraints(values).requirements))
)
CHOICES: list[tuple[str, Any]] = [
    *((key, value) for key, order in STRICTEST_FIRST.items() for value in order),
    *(("otel.exporter", name) for name in ("none", "otlp-http", "mine")),
    *(("sandbox_workspace_write.network_access", value) for value in (True, False)),
    *(("sandbox_workspace_write.allowed_domains", [name]) for name in ("a.com", "b.a.com", "b.com", "*.a.com")),
    *(("sandbox_linux.allow_degraded", [str(promise)]) for promise in Promise),
]


def allowed(constraints: Constraints) -> frozenset[str]:
    choices = {f"{key} {value}" for key, value in CHOICES if constraints.check(key, value) is None}
    plugins = {f"plugin {name}" for name in ("a", "b", "c") if constraints.check_plugin(name) is None}
    strengths = {
        f"without {promise}"
        for promise in Promise
        if constraints.check_strength(Strength("x", "y", frozenset(Promise) - {promise})) is None
    }
    return frozenset(choices | plugins | strengths)


@given(sets, sets)
def test_together_constraints_allow_what_both_allow_and_nothing_else(one: Constraints, other: Constraints) -> None:
    assert allowed(one & other) == allowed(one) & allowed(other) == allowed(other & one)


@given(sets)
def test_no_constraints_change_nothing_and_the_same_ones_twice_neither(one: Constraints) -> None:
    assert allowed(one & Constraints()) == allowed(Constraints() & one) == allowed(one & one) == allowed(one)


@given(sets, files)
def test_one_more_file_never_allows_more(one: Constraints, more: dict[str, Any]) -> None:
    assert allowed(one & _constraints(more)) <= allowed(one)


@given(sets, st.data())
def test_what_replaces_a_value_is_allowed_and_never_looser(one: Constraints, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(STRICTEST_FIRST)))
    order = STRICTEST_FIRST[key]
    value = data.draw(st.sampled_from(order))
    instead = one.stricter(key, value)
    if instead is None:
        assert all(one.check(key, stricter) for stricter in order[: order.index(value) + 1])
    else:
        assert one.check(key, instead) is None
        assert order.index(instead) <= order.index(value)
        assert (instead == value) == (one.check(key, value) is None)
