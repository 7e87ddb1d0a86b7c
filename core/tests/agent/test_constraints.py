"""What an administrator constrains holds in a session, whatever was configured, asked for or approved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from codex_core.agent.session import Session
from codex_core.approval.prompt import Answer, Choice
from codex_core.config import load_config
from codex_core.discovery import Plugin
from codex_core.errors import ConfigError, NotPermittedError, PluginLoadError, SandboxUnavailableError, UsageError
from codex_core.events import ToolDecision
from codex_core.hookspecs import ApprovalPolicy, Exporter, Observer, SandboxBackend, hookimpl
from codex_core.host import Choice as PluginChoice
from codex_core.host import Host
from codex_core.types import Decision, Strength, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from codex_core.approval.prompt import Question
    from codex_core.config import Loaded
    from codex_core.events import Event
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Action


class Lenient(ApprovalPolicy):
    """Lets everything run outside the sandbox."""

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:  # noqa: ARG002 - the hook's parameters
        return Verdict(Decision.ALLOW, "sure", "test", unsandboxed=True)


class Sink:
    dropped = 0

    def export(self, event: Event) -> None:
        pass

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        pass


class Remembering(Exporter):
    """Keeps the settings that it is opened with."""

    settings: ClassVar[dict[str, Any]] = {}

    @hookimpl
    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> Sink:  # noqa: ARG002 - as above
        Remembering.settings = dict(settings)
        return Sink()


class Unused(SandboxBackend):
    """Is never asked for a launcher."""

    @hookimpl
    def probe(self) -> Strength:
        return Strength("unused", "none", frozenset())


class Watching(Observer):
    """Keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    @hookimpl
    def on_event(self, event: Event) -> None:
        self.seen.append(event)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Loaded]:
    """Load the configuration of a machine of its own, with these constraints and these words of the user's."""
    home, root, work = (tmp_path / name for name in ("home", "root", "work"))
    (home / ".codex").mkdir(parents=True)
    (root / "etc" / "codex").mkdir(parents=True)
    work.mkdir()

    def load(requirements: str = "", user: str = "", **environ: str) -> Loaded:
        (home / ".codex" / "config.toml").write_text(user)
        (root / "etc" / "codex" / "requirements.toml").write_text(requirements)
        return load_config(cwd=str(work), environ={"HOME": str(home), **environ}, system_root=str(root))

    return load


def host() -> Host:
    made = Host()
    made.approval_policies.register(Lenient(), "lenient")
    made.exporters.register(Remembering(), "none")
    made.sandbox_backends.register(Unused(), "linux")
    return made


@pytest.mark.parametrize(
    "line", ['minimum_strength = ["writes"]', "allow_network_access = false", 'allowed_domains = ["example.com"]']
)
def test_no_approval_lets_a_command_run_outside_what_the_sandbox_has_to_keep(
    load: Callable[..., Loaded], line: str
) -> None:
    with Session(load(), host=host()) as session:
        assert session.run(["true"]).returncode == 0
    with (
        Session(load(line), host=host()) as session,
        pytest.raises(
            NotPermittedError, match=r"^not permitted: a run without .* is not allowed: .*requirements\.toml"
        ),
    ):
        session.run(["true"])


def test_the_exporter_gets_its_headers_with_the_variables_in_them(load: Callable[..., Loaded]) -> None:
    user = '[otel]\nexporter = { none = { headers = { X = "${TOKEN}" } } }\n'
    with Session(load(user=user, TOKEN="abc"), host=host()):
        assert Remembering.settings == {"headers": {"x": "abc"}}


def test_a_variable_that_is_not_set_stops_the_start(load: Callable[..., Loaded]) -> None:
    user = '[otel]\nexporter = { none = { headers = { X = "${TOKEN}" } } }\n'
    with pytest.raises(ConfigError, match=r"config\.toml:2:.*the environment variable TOKEN is not set"):
        Session(load(user=user), host=host())


@pytest.mark.parametrize(
    ("namespace", "error"),
    [
        ("codex_core.approval_policies", PluginLoadError),
        ("codex_core.exporters", PluginLoadError),
        ("codex_core.sandbox_backends", SandboxUnavailableError),
    ],
)
def test_a_plugin_of_a_distribution_that_is_not_allowed_is_not_loaded(
    load: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch, namespace: str, error: type[Exception]
) -> None:
    found = Plugin("x", "no_such_module:X", namespace, "acme", "1.0", "/")
    monkeypatch.setattr("codex_core.discovery.find", lambda *_: found)
    constraints = load('allowed_plugins = ["codex-sandbox-linux"]').constraints
    with pytest.raises(error, match='a plugin from "acme" is not allowed'):
        Host.load([PluginChoice(namespace, "x", "key", "why")], constraints.check_plugin)


def test_a_gate_of_a_distribution_that_is_not_allowed_forbids(
    load: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = "codex_core.tool_gates"
    found = Plugin("x", "no_such_module:X", namespace, "acme", "1.0", "/")
    monkeypatch.setattr("codex_core.discovery.find", lambda *_: found)
    constraints = load('allowed_plugins = ["codex-sandbox-linux"]').constraints
    loaded = Host.load([PluginChoice(namespace, "x", "key", "why")], constraints.check_plugin)
    verdict = loaded.gate_tool("web_search", {})
    assert verdict is not None
    assert verdict.decision is Decision.FORBID


READ_ONLY = {"sandbox_mode": "read-only"}
FULL = {"sandbox_mode": "danger-full-access", "approval_policy": "never"}


def test_a_session_may_change_managed_values_and_the_next_one_starts_with_them_again(
    load: Callable[..., Loaded], tmp_path: Path
) -> None:
    (tmp_path / "root" / "etc" / "codex" / "managed_config.toml").write_text('sandbox_mode = "read-only"\n')
    with Session(load(), host=host()) as session:
        assert session.policy.mode == "read-only"
        session.change({"sandbox_mode": "workspace-write"})
        assert session.policy.mode == "workspace-write"
        assert session.loaded.origins["sandbox_mode"].layer == "session"
    with Session(load(), host=host()) as session:
        assert session.policy.mode == "read-only"
        assert session.loaded.origins["sandbox_mode"].layer == "managed"


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ('allowed_sandbox_modes = ["read-only"]', {"sandbox_mode": "workspace-write"}),
        ('allowed_approval_policies = ["untrusted"]', {"approval_policy": "never"}),
        ('allowed_web_search_modes = ["cached"]', {"web_search": "live"}),
        ('minimum_strength = ["writes"]', FULL),
        ("allow_network_access = false", {"sandbox_workspace_write": {"network_access": True}}),
        ('allowed_domains = ["a.example"]', {"sandbox_workspace_write": {"allowed_domains": ["b.example"]}}),
    ],
)
def test_a_change_that_the_constraints_do_not_allow_is_refused_and_changes_nothing(
    load: Callable[..., Loaded], line: str, values: dict[str, Any]
) -> None:
    user = 'approval_policy = "untrusted"\nsandbox_mode = "read-only"\nweb_search = "disabled"\n'
    with Session(load("", user), host=host()) as session:
        session.change(values)  # without constraints it can be done
    with Session(load(line, user), host=host()) as session:
        before = session.loaded
        with pytest.raises(ConfigError, match=r"requirements\.toml:1:1 allows .*; only the administrator"):
            session.change(values)
        assert session.loaded is before
        assert (session.config, session.policy.mode) == (before.config, "read-only")


@pytest.mark.parametrize("values", [{"otel": {"exporter": "x"}}, {"plugins": {}}, {"profile": "x"}, {"nonsense": 1}])
def test_what_only_a_new_session_can_change_is_refused(load: Callable[..., Loaded], values: dict[str, Any]) -> None:
    with Session(load(), host=host()) as session, pytest.raises(UsageError, match="start a new one"):
        session.change(values)


@pytest.mark.parametrize("values", [{"sandbox_mode": "all"}, {"sandbox_workspace_write": {"writable_roots": ["\0"]}}])
def test_a_wrong_value_changes_nothing(load: Callable[..., Loaded], values: dict[str, Any]) -> None:
    with Session(load(), host=host()) as session:
        before = session.loaded
        with pytest.raises(ConfigError, match=r"^session: "):
            session.change(values)
        assert session.loaded is before


def test_one_change_stays_when_another_follows(load: Callable[..., Loaded]) -> None:
    with Session(load(), host=host()) as session:
        session.change(READ_ONLY)
        session.change({"approval_policy": "untrusted"})
        assert (session.config.sandbox_mode, session.config.approval_policy) == ("read-only", "untrusted")
        session.change({"sandbox_mode": "workspace-write"})
        assert session.config.sandbox_mode == "workspace-write"


def test_nothing_is_changed_while_a_command_runs_or_after_the_end(load: Callable[..., Loaded]) -> None:
    refused: list[str] = []

    def change(stream: str, data: bytes) -> None:  # noqa: ARG001 - the signature of on_output
        with pytest.raises(UsageError) as caught:
            session.change(READ_ONLY)
        refused.append(str(caught.value))

    with Session(load(), host=host()) as session:
        session.run(["echo", "now"], on_output=change)
        assert refused == ["change it when no command is running"]
        session.change(READ_ONLY)
    with pytest.raises(UsageError, match="the session is closed"):
        session.change(READ_ONLY)


def test_what_was_allowed_for_the_session_is_asked_again_after_a_change(load: Callable[..., Loaded]) -> None:
    asked: list[str] = []

    class Asks(ApprovalPolicy):
        @hookimpl
        def review(self, action: Action, policy: SandboxPolicy) -> Verdict:  # noqa: ARG002 - the hook's parameters
            return Verdict(Decision.PROMPT, "hm", "test", unsandboxed=True)

    class Yes:
        def ask(self, question: Question) -> Answer:
            asked.append(question.action.argv[0])
            return Answer(Choice.SESSION)

    made = Host()
    made.approval_policies.register(Asks(), "asks")
    made.exporters.register(Remembering(), "none")
    made.sandbox_backends.register(Unused(), "linux")
    with Session(load(), Yes(), host=made) as session:
        for _ in range(2):
            session.run(["true"])
        assert asked == ["true"]
        session.change(READ_ONLY)
        session.run(["true"])
        assert asked == ["true", "true"]


def test_what_a_command_left_does_not_decide_what_runs_outside_after_it(
    load: Callable[..., Loaded], tmp_path: Path
) -> None:
    left = tmp_path / "work" / "left.sh"
    left.write_text("echo taken over\n")
    command = ["/bin/bash", "-c", "echo mine"]
    with Session(load(user='sandbox_mode = "danger-full-access"\n', BASH_ENV=str(left)), host=host()) as session:
        assert session.run(command).stdout == b"taken over\nmine\n"
    with Session(load(user='sandbox_mode = "workspace-write"\n', BASH_ENV=str(left)), host=host()) as session:
        assert session.run(command).stdout == b"mine\n"


def test_a_requirement_switches_questions_off(load: Callable[..., Loaded]) -> None:
    loaded = load('allowed_questions = ["rules"]', "[ask_about]\npatches = true\nrules = true\n")
    asked = loaded.config.ask_about
    assert (asked.rules, asked.patches, asked.network, asked.commands, asked.escalation) == (True, *[False] * 4)
    assert [warning for warning in loaded.warnings if "allowed_questions" in warning or "ask_about.patches" in warning]


def test_a_refusal_for_a_requirement_is_a_decision_that_names_it(load: Callable[..., Loaded]) -> None:
    watching = Watching()
    made = host()
    made.observers.register(watching, "watching")
    with Session(load('minimum_strength = ["writes"]'), host=made) as session, pytest.raises(NotPermittedError):
        session.run(["true"])
    decisions = [event for event in watching.seen if isinstance(event, ToolDecision)]
    assert decisions[-1].decision == "denied"
    assert "requirements.toml:1" in decisions[-1].decided_by


@pytest.mark.parametrize("line", ["allow_network_access = false", 'allowed_domains = ["example.com"]'])
def test_a_rule_cannot_open_hosts_that_a_requirement_closes(
    load: Callable[..., Loaded], tmp_path: Path, line: str
) -> None:
    rules = tmp_path / "home" / ".codex" / "rules"
    rules.mkdir()
    (rules / "r.toml").write_text('[[rule]]\nhosts = ["b.test"]\ndecision = "allow"\n')
    with Session(load(), host=host()):
        pass
    with pytest.raises(ConfigError, match=r"r\.toml:1: .*requirements\.toml:1"):
        Session(load(line), host=host())
