"""Rules, approvals and questions as a user meets them, with every distribution installed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from codex_approval_policies import Never, OnFailure, OnRequest, Untrusted
from codex_core import open_session
from codex_core.agent.review import Reviewer
from codex_core.approval.prompt import Answer, Choice, Question, question_text
from codex_core.approval.rules import Rule, Rules
from codex_core.errors import NotPermittedError
from codex_core.host import Host
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Action, Decision, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CODEX = [sys.executable, "-I", "-m", "codex_core.cli.main"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / ".git").mkdir(parents=True)
    home = str(tmp_path / "home")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "CODEX_HOME": home}


@pytest.fixture
def check(tmp_path: Path, environ: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """Ask ``codex rules check`` about a line that a model's shell tool would run."""

    def _check(line: str, policy: str = "untrusted") -> dict[str, Any]:
        done = subprocess.run(
            [*CODEX, "rules", "check", "--json", "-a", policy, "--", "bash", "-lc", line],
            cwd=tmp_path / "project",
            env=environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return dict(json.loads(done.stdout))

    return _check


@pytest.mark.parametrize(
    ("line", "decisions", "kind"),
    [
        #                            untrusted, on-request, on-failure, never
        ("ls -la | head -5", ["allow", "allow", "allow", "allow"], "safe"),
        ("make test", ["prompt", "allow", "allow", "allow"], "ask"),
        ("git status", ["prompt", "allow", "allow", "allow"], "ask"),
        ("ls && rm -rf x", ["prompt", "prompt", "allow", "forbid"], "forbid"),
    ],
)
def test_a_line_is_judged_by_what_it_runs_and_by_the_policy(
    check: Callable[..., dict[str, Any]], line: str, decisions: list[str], kind: str
) -> None:
    answers = [check(line, policy) for policy in ("untrusted", "on-request", "on-failure", "never")]
    assert [answer["decision"] for answer in answers] == decisions
    assert {answer["class"] for answer in answers} == {kind}


def test_the_answer_names_the_programs_and_the_sources(check: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    (rules / "mine.toml").write_text('[[rule]]\npattern = ["git", "push"]\ndecision = "forbid"\njustification = "no"\n')
    answer = check("ls; git push origin")
    assert answer["decision"] == "forbid"
    assert answer["programs"] == [["ls"], ["git", "push", "origin"]]
    assert {"text": "no", "source": f"{rules}/mine.toml:1"} in answer["reasons"]


class Person:
    """Answers as told, and keeps the questions."""

    def __init__(self, *choices: Choice) -> None:
        self.choices = list(choices)
        self.questions: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        return Answer(self.choices.pop(0))


def session(tmp_path: Path, environ: dict[str, str], person: Person) -> Any:  # noqa: ANN401 - a session
    overrides = ["approval_policy=untrusted", "sandbox_mode=danger-full-access"]
    return open_session(str(tmp_path / "project"), overrides=overrides, prompter=person, environ=environ)


def test_a_yes_for_the_session_is_asked_once_and_forgotten_with_it(tmp_path: Path, environ: dict[str, str]) -> None:
    person = Person(Choice.SESSION, Choice.NO)
    with session(tmp_path, environ, person) as first:
        assert [first.run(["printf", "a"]).stdout for _ in range(2)] == [b"a", b"a"]
        with pytest.raises(NotPermittedError):
            first.run(["printf", "b"])
    assert len(person.questions) == 2
    with session(tmp_path, environ, Person(Choice.NO)) as second, pytest.raises(NotPermittedError):
        second.run(["printf", "a"])


def test_a_yes_for_always_is_a_rule_that_can_be_revoked(tmp_path: Path, environ: dict[str, str]) -> None:
    person = Person(Choice.ALWAYS)
    with session(tmp_path, environ, person) as first:
        first.run(["printf", "a"])
    assert person.questions[0].rule_file == f"{tmp_path}/home/rules/approved.toml"
    with session(tmp_path, environ, Person()) as second:
        assert second.run(["printf", "a"]).stdout == b"a"
    words = [*CODEX, "approvals", "revoke", "1"]
    subprocess.run(words, cwd=tmp_path / "project", env=environ, check=True, capture_output=True)
    with session(tmp_path, environ, Person(Choice.NO)) as third, pytest.raises(NotPermittedError):
        third.run(["printf", "a"])


def answer_on_a_terminal(
    words: list[str], cwd: Path, environ: dict[str, str], *answers: tuple[str, str]
) -> tuple[int, str]:
    """Run codex on a terminal of its own; type each answer when its text is seen; the exit code and the screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(CODEX[0], [*CODEX, *words], environ)
    shown = ""
    waiting = list(answers)
    try:
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part.decode(errors="replace")
            if waiting and waiting[0][0] in shown:
                os.write(terminal, waiting.pop(0)[1].encode())
    finally:
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), shown


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 3), ("n\n", 126), ("\n", 126), ("\x04", 126), ("\x03", 126), ("q\n", 126)]
)
def test_codex_run_asks_on_the_terminal(tmp_path: Path, environ: dict[str, str], answer: str, code: int) -> None:
    words = ["run", "-a", "untrusted", "-s", "danger-full-access", "--", "sh", "-c", "exit 3"]
    ended, shown = answer_on_a_terminal(words, tmp_path / "project", environ, ("[y/s/a/N/q]", answer))
    assert ended == code, shown
    assert "sh -c 'exit 3'" in shown


def test_escape_sequences_of_a_command_do_not_reach_the_terminal(tmp_path: Path, environ: dict[str, str]) -> None:
    words = ["run", "-a", "untrusted", "--", "printf", "\x1b[2J\x1b[1;1Hharmless", "\u202exr- mr"]
    _, shown = answer_on_a_terminal(words, tmp_path / "project", environ, ("[y/s/a/N/q]", "n\n"))
    assert "\x1b[2J" not in shown
    assert r"\x1b[2J\x1b[1;1Hharmless" in shown
    assert r"\u202exr- mr" in shown


def test_the_example_of_rules_loads_and_does_what_it_says(check: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    example = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "rules.toml")
    with open(example, encoding="utf-8") as file:
        (rules / "example.toml").write_text(file.read())
    assert check("make test && ls")["decision"] == "allow"
    assert check("make install")["decision"] == "prompt"
    fetching = check("git fetch origin")
    assert (fetching["decision"], fetching["unsandboxed"]) == ("allow", True)
    assert check("cd infra && sudo terraform apply", "on-failure")["decision"] == "forbid"


PATCH = "*** Begin Patch\n*** Add File: {}\n+\x1b[2Jtext\n*** End Patch\n"


def patching(tmp_path: Path, environ: dict[str, str], person: Person, *overrides: str) -> Any:  # noqa: ANN401 - a session
    (tmp_path / "home" / "config.toml").write_text(
        "[sandbox_workspace_write]\nexclude_slash_tmp = true\nexclude_tmpdir_env_var = true\n"
    )
    return open_session(str(tmp_path / "project"), overrides=overrides, prompter=person, environ=environ)


def test_a_patch_inside_the_workspace_is_applied_unasked(tmp_path: Path, environ: dict[str, str]) -> None:
    with patching(tmp_path, environ, Person()) as here:
        assert here.apply_patch(PATCH.format("sub/new")) == (("A", "sub/new"),)
    assert (tmp_path / "project" / "sub" / "new").read_text() == "\x1b[2Jtext\n"


def test_a_patch_outside_is_asked_about_and_shown(tmp_path: Path, environ: dict[str, str]) -> None:
    person = Person(Choice.NO, Choice.ONCE)
    with patching(tmp_path, environ, person) as here:
        with pytest.raises(NotPermittedError):
            here.apply_patch(PATCH.format("../out"))
        assert not (tmp_path / "out").exists()
        here.apply_patch(PATCH.format("../out"))
    assert (tmp_path / "out").exists()
    assert Choice.ALWAYS not in person.questions[0].offers
    shown = question_text(person.questions[0])
    assert "*** Add File: ../out" in shown
    assert r"+\x1b[2Jtext" in shown


@pytest.mark.parametrize("target", [".git/hooks/pre-commit", ".codex/config.toml", "../home/config.toml"])
def test_a_patch_of_what_is_protected_is_not_even_asked_about(
    tmp_path: Path, environ: dict[str, str], target: str
) -> None:
    roots = f'sandbox_workspace_write.writable_roots=["{tmp_path}"]'
    with patching(tmp_path, environ, Person(), roots) as here, pytest.raises(NotPermittedError):
        here.apply_patch(PATCH.format(target))


def test_in_a_read_only_session_under_never_nothing_is_patched(tmp_path: Path, environ: dict[str, str]) -> None:
    overrides = ("sandbox_mode=read-only", "approval_policy=never")
    with patching(tmp_path, environ, Person(), *overrides) as here, pytest.raises(NotPermittedError, match="read-only"):
        here.apply_patch(PATCH.format("new"))


WORDS = st.sampled_from(["ls", "make", "git", "status", "push", "rm", "-rf", "x", "cat", "a"])
COMMANDS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
LINES = st.lists(COMMANDS.map(" ".join), min_size=1, max_size=3).map(" && ".join)
ACTIONS = st.builds(
    Action,
    argv=COMMANDS | LINES.map(lambda line: ("bash", "-lc", line)) | LINES.map(lambda line: ("pwsh", "-c", line)),
    cwd=st.just("/usr/src"),
    escalated=st.booleans(),
)
RULES = st.builds(
    Rule,
    decision=st.sampled_from(Decision),
    source=st.text("abc", min_size=1, max_size=3),
    pattern=st.lists(st.frozensets(WORDS, min_size=1, max_size=2), min_size=1, max_size=3).map(tuple),
    exact=st.booleans(),
    unsandboxed=st.booleans(),
)


@given(
    action=ACTIONS,
    policies=st.lists(st.sampled_from([Untrusted, OnRequest, OnFailure, Never]), min_size=1, max_size=2, unique=True),
    mode=st.sampled_from(SandboxMode),
    some=st.lists(RULES, max_size=3),
    more=RULES,
)
def test_another_rule_that_forbids_never_lets_anything_run_that_did_not(
    action: Action, policies: list[type[Any]], mode: SandboxMode, some: list[Rule], more: Rule
) -> None:
    host = Host()
    for policy in policies:
        host.approval_policies.register(policy(), policy.mode)
    confined = SandboxPolicy(mode, "/usr/src", (), ())
    forbid = replace(more, decision=Decision.FORBID, unsandboxed=False)
    before, after = (
        Reviewer(host, confined, Rules(tuple(rules)), {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}).review(action)
        for rules in (some, [*some, forbid])
    )
    assert after.decision >= before.decision
    assert before.unsandboxed or not after.unsandboxed or after.decision is not Decision.ALLOW
