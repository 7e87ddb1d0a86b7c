from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from codex_core.approval.assess import Assessment, assess
from codex_core.approval.rules import Rule, Rules, now, parse_rules
from codex_core.errors import ConfigError
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Action, Decision, Network, Operation, SafetyClass, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

POLICY = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, "/usr/src", ("/usr/src",), ())
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


def rules(text: str) -> Rules:
    return Rules(parse_rules(text, "/r.toml"))


def look(line: str, text: str, *, cwd: str = "/usr/src", shell: bool = True) -> Assessment:
    argv = ("bash", "-lc", line) if shell else tuple(line.split())
    return assess(Action(argv, cwd), POLICY, rules(text), environ=ENVIRON)


ALLOW_MAKE = '[[rule]]\npattern = ["make", ["test", "lint"]]\ndecision = "allow"\njustification = "our targets"\n'
FORBID_PUSH = '[[rule]]\npattern = ["git", "push"]\ndecision = "forbid"\njustification = "people push"\n'


def test_a_rule_that_allows_makes_safe_and_says_why_and_from_where() -> None:
    safety = look("make test", ALLOW_MAKE).safety
    assert (safety.level, safety.ruled, safety.reason, safety.source) == (
        SafetyClass.SAFE,
        Decision.ALLOW,
        "our targets",
        "/r.toml:1",
    )
    assert not safety.unsandboxed


@pytest.mark.parametrize(
    "line", ["make", "make install", "make testing", "./make test", "/usr/bin/make test", "Make test"]
)
def test_a_rule_that_allows_fits_exactly(line: str) -> None:
    assert look(line, ALLOW_MAKE).safety.ruled is None


def test_every_program_of_a_line_has_to_be_allowed_or_safe() -> None:
    assert look("cd sub && make test 2>x", ALLOW_MAKE).safety.ruled is None
    assert look("ls && make test | head -5", ALLOW_MAKE).safety.ruled is Decision.ALLOW
    assert look("make test && git push", ALLOW_MAKE).safety.ruled is None
    assert look("make test; make install", ALLOW_MAKE).safety.ruled is None


@pytest.mark.parametrize(
    "line",
    [
        "git push",
        "/usr/bin/git push origin",
        "ls && git push",
        "if true; then git push; fi",
        "echo $(git push)",
        "env A=b git push",
        "sudo -u x git push",
        "bash -c 'git push'",
        "eval git push",
        "xargs git push",
        "X=push; git $X",
        "git {push,pull}",
        'g"i"t pu\\sh',
        "find . -exec git push ;",
        "ssh h 'git push'",
    ],
)
def test_a_rule_that_forbids_finds_its_command_wherever_it_hides(line: str) -> None:
    safety = look(line, FORBID_PUSH).safety
    assert (safety.ruled, safety.reason) == (Decision.FORBID, "people push")


def test_what_is_nested_too_deeply_to_be_checked_is_forbidden_where_rules_restrict() -> None:
    line = "nice " * 40 + "git push"
    assert look(line, FORBID_PUSH).safety.ruled is Decision.FORBID
    assert look(line, ALLOW_MAKE).safety.ruled is None


def test_the_strictest_rule_wins_whatever_the_order() -> None:
    prompt = '[[rule]]\npattern = ["make"]\ndecision = "prompt"\n'
    for text in (ALLOW_MAKE + prompt, prompt + ALLOW_MAKE):
        assert look("make test", text).safety.ruled is Decision.PROMPT


def test_danger_takes_a_rule_that_names_every_word() -> None:
    loose = '[[rule]]\npattern = ["rm", "-rf", "build"]\ndecision = "allow"\n'
    assert look("rm -rf build", loose).safety.level is SafetyClass.DANGEROUS
    exact = loose + "exact = true\n"
    assert look("rm -rf build", exact).safety.ruled is Decision.ALLOW
    assert look("rm -rf build /", exact).safety.level is SafetyClass.DANGEROUS


def test_two_allowed_halves_do_not_make_a_dangerous_whole() -> None:
    allow = '[[rule]]\ndecision = "allow"\npattern = '
    text = f'{allow}["curl"]\n{allow}["sh"]\nexact = true\n'
    assert look("curl u", text).safety.ruled is Decision.ALLOW
    assert look("curl u | sh", text).safety.level is SafetyClass.DANGEROUS


def test_a_shell_is_not_allowed_by_its_name() -> None:
    text = '[[rule]]\npattern = ["bash"]\ndecision = "allow"\n'
    assert look("make install", text).safety.ruled is None


def test_a_whole_line_can_be_allowed_to_the_letter() -> None:
    text = '[[rule]]\npattern = ["bash", "-lc", "for f in *; do make $f; done"]\ndecision = "allow"\nexact = true\n'
    assert look("for f in *; do make $f; done", text).safety.ruled is Decision.ALLOW
    assert look("for f in *; do make  $f; done", text).safety.ruled is None


def test_a_rule_holds_in_its_folder_and_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    text = f'[[rule]]\npattern = ["make"]\ndecision = "allow"\ncwd = "{tmp_path}/a"\n'
    assert look("make", text, cwd=str(tmp_path / "a" / "b")).safety.ruled is Decision.ALLOW
    assert look("make", text, cwd=str(tmp_path)).safety.ruled is None
    forbid = text.replace("allow", "forbid")
    # After cd nobody knows the folder: what allows then fails, what forbids holds.
    assert look("cd a && make", text, cwd=str(tmp_path)).safety.ruled is None
    assert look("cd a && make", forbid, cwd=str(tmp_path)).safety.ruled is Decision.FORBID


def test_a_rule_for_a_file_does_not_allow_another_of_that_name(tmp_path: Path) -> None:
    text = f'[[rule]]\npattern = ["tool"]\ndecision = "allow"\nprogram = "{tmp_path}/bin/tool"\n'
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text("")
    action = Action(("tool",), "/usr/src")

    def ruled(folder: str) -> Decision | None:
        return assess(action, POLICY, rules(text), environ={"PATH": f"{tmp_path}/{folder}"}).safety.ruled

    assert ruled("bin") is Decision.ALLOW
    assert ruled("other") is None


def test_a_rule_ends() -> None:
    for date, ruled in (("2001-01-01", None), ("2901-01-01T00:00:00Z", Decision.ALLOW)):
        assert look("make test", ALLOW_MAKE + f"expires = {date}\n").safety.ruled is ruled
    assert now().tzinfo is UTC


def test_only_a_program_out_of_reach_leaves_the_sandbox(tmp_path: Path) -> None:
    text = '[[rule]]\npattern = ["ls"]\ndecision = "allow"\nunsandboxed = true\n'
    planted = tmp_path / "ls"
    planted.write_text("")
    reachable = replace(POLICY, writable_roots=(str(tmp_path),))
    outside = assess(Action(("ls", "/root"), "/usr/src"), POLICY, rules(text), environ=ENVIRON).safety
    assert outside.unsandboxed
    inside = assess(Action(("ls", "/root"), "/usr/src"), reachable, rules(text), environ={"PATH": str(tmp_path)}).safety
    assert (inside.ruled, inside.unsandboxed) == (Decision.ALLOW, False)


def test_every_program_has_to_leave_for_the_line_to_leave() -> None:
    text = '[[rule]]\npattern = ["make"]\ndecision = "allow"\nunsandboxed = true\n'
    assert not look("ls | make", text).safety.unsandboxed


def test_rules_about_hosts_know_names_and_all_below() -> None:
    text = '[[rule]]\nhosts = ["Example.com.", "*.example.org"]\ndecision = "allow"\n'
    loaded = rules(text)
    assert [
        bool(loaded.about_host(host)) for host in ("example.com", "a.example.com", "a.b.example.org", "example.org")
    ] == [
        True,
        False,
        True,
        False,
    ]
    assert not loaded.about(("example.com",), None)
    for target, ruled in (("example.com:443", Decision.ALLOW), ("evil.com:443", None), ("[::1]:80", None)):
        action = Action((target,), "/usr/src", tool="network")
        assert assess(action, POLICY, loaded, environ=ENVIRON).safety.ruled is ruled


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]\n", "decision"),
        ('\n\n[[rule]]\npattern = ["a"]\ndecision = "maybe"\n', "/r.toml:3: decision is one of"),
        ('[[rule]]\ndecision = "allow"\n', "pattern"),
        ('[[rule]]\npattern = []\ndecision = "allow"\n', "pattern"),
        ('[[rule]]\npattern = [[]]\ndecision = "allow"\n', "pattern"),
        ('[[rule]]\npattern = [1]\ndecision = "allow"\n', "pattern"),
        ('[[rule]]\npattern = "a"\ndecision = "allow"\n', "pattern"),
        ('[[rule]]\npattern = ["a"]\nhosts = ["b"]\ndecision = "allow"\n', "either"),
        ('[[rule]]\nhosts = ["http://b"]\ndecision = "allow"\n', "without a scheme"),
        ('[[rule]]\nhosts = ["b_ü"]\ndecision = "allow"\n', "not ASCII"),
        ('[[rule]]\nhosts = ["127.1"]\ndecision = "allow"\n', "not an address in its usual form"),
        ('[[rule]]\nhosts = ["b"]\ndecision = "prompt"\n', "allows or forbids"),
        ('[[rule]]\nhosts = ["b"]\ndecision = "allow"\ncwd = "/src"\n', "beside hosts only"),
        ('[[rule]]\nhosts = ["b"]\ndecision = "allow"\nunsandboxed = true\n', "beside hosts only"),
        ('[[rule]]\nhosts = ["b"]\ndecision = "allow"\nmatch = ["b"]\n', "beside hosts only"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nprefix = 1\n', "no key 'prefix'"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nexpires = "soon"\n', "expires"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\ncwd = "sub"\n', "cwd is an absolute path"),
        ('[[rule]]\npattern = ["a"]\ndecision = "forbid"\nunsandboxed = true\n', "unsandboxed"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nexact = 1\n', "exact"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nmatch = ["b"]\n', "'b' is not matched"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nnot_match = ["a b"]\n', "'a b' is matched"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nmatch = [""]\n', "not matched"),
        ('[[rule]]\npattern = ["a"]\ndecision = "allow"\nmatch = ["\'"]\n', "quotation"),
        ("rule = 1\n", "[[rule]]"),
        ("rules = []\n", "[[rule]]"),
        ("[[rule]\n", "/r.toml"),
        ("rule = [1]\n", "table"),
    ],
)
def test_a_broken_rule_is_one_line_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("/r.toml")
    assert str(caught.value).isprintable()


def test_rules_of_a_workspace_only_tighten() -> None:
    loaded = parse_rules(ALLOW_MAKE + FORBID_PUSH, "/r.toml", only_tighten=True)
    assert [rule.decision for rule in loaded] == [Decision.FORBID]


WORDS = st.sampled_from(["ls", "make", "git", "push", "rm", "-rf", "x", "cat", "a"])
COMMANDS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
LINES = st.lists(COMMANDS.map(" ".join), min_size=1, max_size=3).map(" && ".join)
RULES = st.builds(
    Rule,
    decision=st.sampled_from(Decision),
    source=st.text("abc", min_size=1, max_size=3),
    pattern=st.lists(st.frozensets(WORDS, min_size=1, max_size=2), min_size=1, max_size=3).map(tuple),
    exact=st.booleans(),
    unsandboxed=st.booleans(),
)


@given(line=LINES, some=st.lists(RULES, max_size=4), more=RULES)
def test_another_rule_that_forbids_or_asks_never_loosens(line: str, some: list[Rule], more: Rule) -> None:
    strict = replace(more, decision=max(more.decision, Decision.PROMPT), unsandboxed=False)
    action = Action(("bash", "-lc", line), "/usr/src")
    before = assess(action, POLICY, Rules(tuple(some)), environ=ENVIRON).safety
    after = assess(action, POLICY, Rules((*some, strict)), environ=ENVIRON).safety
    if before.ruled is not Decision.ALLOW and before.level is not SafetyClass.SAFE:
        assert after.ruled is not Decision.ALLOW
    assert (after.ruled or Decision.ALLOW) >= (before.ruled or Decision.ALLOW)
    assert before.unsandboxed or not after.unsandboxed


HOSTS = st.sampled_from(["a.test", "*.test", "b.a.test:443", "*", "192.0.2.7", "192.0.2.0/24", "localhost:80"])
TARGETS = ["a.test", "a.test:443", "b.a.test:443", "b.a.test:80", "c.example:1", "192.0.2.7:80", "localhost:80", "x y"]
HOST_RULES = st.builds(
    Rule,
    decision=st.sampled_from([Decision.ALLOW, Decision.FORBID]),
    source=st.text("abc", min_size=1, max_size=3),
    hosts=st.lists(HOSTS, min_size=1, max_size=2).map(tuple),
)
NETWORKS = st.sampled_from([(Network.OFF, ()), (Network.FILTERED, ("a.test",)), (Network.ON, ())])


def reached(some: Iterable[Rule], network: tuple[Network, tuple[str, ...]]) -> set[str]:
    """Give the targets that commands may reach under rules."""
    policy = Rules(tuple(some)).reaching(replace(POLICY, network=network[0], allowed_domains=network[1]))
    return {target for target in TARGETS if policy.check(Operation.CONNECT, target) is None}


@given(some=st.lists(HOST_RULES, max_size=4), more=HOST_RULES, network=NETWORKS, data=st.data())
def test_a_rule_that_closes_hosts_never_opens_one_and_their_order_never_matters(
    some: list[Rule], more: Rule, network: tuple[Network, tuple[str, ...]], data: st.DataObject
) -> None:
    closing = replace(more, decision=Decision.FORBID)
    before, after = reached(some, network), reached([*some, closing], network)
    assert after <= before
    assert not any(closing in Rules((closing,)).about_host(target) for target in after if target != "x y")
    assert reached(data.draw(st.permutations(some)), network) == before


def test_rules_open_hosts_in_a_sandbox_without_a_network_and_leave_the_rest_closed() -> None:
    allow = rules('[[rule]]\nhosts = ["a.test:443"]\ndecision = "allow"\n').rules
    assert reached([], (Network.OFF, ())) == set()
    assert reached(allow, (Network.OFF, ())) == {"a.test", "a.test:443"}


def test_a_rule_that_closes_a_host_filters_a_network_that_was_open() -> None:
    forbid = rules('[[rule]]\nhosts = ["*.test"]\ndecision = "forbid"\n').rules
    opened = reached(forbid, (Network.ON, ()))
    assert "c.example:1" in opened
    assert not any(".test" in target for target in opened)


@given(line=LINES, some=st.lists(RULES, max_size=4), data=st.data())
def test_the_order_of_rules_never_matters(line: str, some: list[Rule], data: st.DataObject) -> None:
    unique = [replace(rule, source=f"{at}") for at, rule in enumerate(some)]
    shuffled = data.draw(st.permutations(unique))
    action = Action(("bash", "-lc", line), "/usr/src")
    first, second = (assess(action, POLICY, Rules(tuple(order)), environ=ENVIRON) for order in (unique, shuffled))
    assert first == second


def test_an_instant_is_compared_with_its_zone() -> None:
    (rule,) = parse_rules(ALLOW_MAKE + "expires = 2030-01-01T00:00:00+02:00\n", "/r.toml")
    assert rule.expires == datetime(2029, 12, 31, 22, tzinfo=UTC)
    assert os.path.isabs(rule.source.rpartition(":")[0])
