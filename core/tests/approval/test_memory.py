from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codex_core.approval.memory import Grant, SessionMemory, add_rule, granted, remove_rule
from codex_core.approval.rules import parse_rules
from codex_core.errors import ConfigError, UsageError
from codex_core.types import NETWORK_TOOL, Action, Decision, Verdict

if TYPE_CHECKING:
    from pathlib import Path

ACTION = Action(("make", "a b"), "/ws")
ASKED = Verdict(Decision.PROMPT, "why")
OUTSIDE = replace(ASKED, unsandboxed=True)
PATCH = Action(("apply_patch", "..."), "/ws", tool="apply_patch", writes=("/ws/a", "/ws/b"))
HOST = Action(("a.test:443",), "/ws", tool=NETWORK_TOOL, command=("curl", "a.test"))


def grant(action: Action, verdict: Verdict = ASKED, program: str | None = "/usr/bin/make") -> Grant:
    return granted(action, verdict, program=program)


def test_a_session_remembers_exactly_what_was_asked() -> None:
    memory = SessionMemory()
    memory.allow(grant(ACTION))
    assert memory.covers(grant(replace(ACTION, call_id="2", justification="again")))
    for other in (replace(ACTION, argv=("make", "a", "b")), replace(ACTION, cwd="/ws/sub"), PATCH, HOST):
        assert not memory.covers(grant(other))


def test_another_program_of_that_name_is_asked_about_again() -> None:
    memory = SessionMemory()
    memory.allow(grant(ACTION))
    assert not memory.covers(grant(ACTION, program="/usr/local/bin/make"))
    assert not memory.covers(grant(ACTION, program=None))


@pytest.mark.parametrize("action", [ACTION, PATCH])
def test_leave_to_stay_inside_is_not_leave_to_go_outside(action: Action) -> None:
    memory = SessionMemory()
    memory.allow(grant(action))
    assert not memory.covers(grant(action, OUTSIDE))
    memory.allow(grant(action, OUTSIDE))
    assert memory.covers(grant(action, OUTSIDE))


def test_leave_to_change_files_is_for_these_files_whatever_the_patch() -> None:
    memory = SessionMemory()
    memory.allow(grant(PATCH))
    assert memory.covers(grant(replace(PATCH, argv=("apply_patch", "other"), writes=("/ws/b",))))
    assert not memory.covers(grant(replace(PATCH, writes=("/ws/b", "/ws/c"))))
    assert grant(PATCH).rule() is None


def test_leave_to_reach_a_host_is_for_every_command() -> None:
    memory = SessionMemory()
    memory.allow(grant(HOST))
    assert memory.covers(grant(replace(HOST, cwd="/ws/sub", command=("wget", "a.test"))))
    assert not memory.covers(grant(replace(HOST, argv=("a.test:80",))))


def test_always_is_a_rule_that_names_every_word_the_program_and_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "rules" / "approved.toml"
    table = grant(ACTION, OUTSIDE).rule()
    assert table is not None
    assert add_rule(str(path), table) == 1
    (rule,) = parse_rules(path.read_text(), str(path))
    assert rule.names(ACTION.argv)
    assert (rule.decision, rule.cwd, rule.unsandboxed) == (Decision.ALLOW, "/ws", True)
    assert rule.program == os.path.realpath("/usr/bin/make")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_always_for_a_host_is_a_rule_about_the_host(tmp_path: Path) -> None:
    table = grant(HOST).rule()
    assert table is not None
    path = tmp_path / "approved.toml"
    add_rule(str(path), table)
    (rule,) = parse_rules(path.read_text(), "f")
    assert (rule.hosts, rule.decision, rule.pattern) == (("a.test:443",), Decision.ALLOW, ())


def test_rules_are_added_and_removed_by_their_lines_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "approved.toml"
    path.write_text('# mine\n[[rule]]\npattern = ["a"] # why\ndecision = "allow"\n')
    second = add_rule(str(path), {"pattern": ["b"], "decision": "allow"})
    third = add_rule(str(path), {"pattern": ["c"], "decision": "forbid"})
    sources = [rule.source for rule in parse_rules(path.read_text(), "f")]
    assert sources == ["f:2", f"f:{second}", f"f:{third}"]
    remove_rule(str(path), second)
    assert [rule.prefix for rule in parse_rules(path.read_text(), "f")] == ["a", "c"]
    assert path.read_text().startswith("# mine\n[[rule]]\n")
    assert "# why" in path.read_text()


@pytest.mark.parametrize(
    ("text", "error"),
    [("[[rule", ConfigError), ("rule = " + "[" * 300 + "]" * 300, ConfigError), ("rule = 5", UsageError)],
)
def test_a_file_that_holds_no_rules_is_an_error_in_one_line(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = tmp_path / "approved.toml"
    path.write_text(text)
    with pytest.raises(error, match=r"approved\.toml"):
        remove_rule(str(path), 1)


@pytest.mark.parametrize("line", [0, 1, 3, 99])
def test_a_line_where_no_rule_begins_removes_nothing(tmp_path: Path, line: int) -> None:
    path = tmp_path / "approved.toml"
    path.write_text('\n[[rule]]\npattern = ["a"]\ndecision = "allow"\n')
    with pytest.raises(UsageError, match="no rule begins at"):
        remove_rule(str(path), line)


def test_a_file_that_cannot_be_written_is_named_and_left_whole(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("")
    with pytest.raises(ConfigError, match="rules"):
        add_rule(str(tmp_path / "rules" / "approved.toml"), {"pattern": ["b"], "decision": "allow"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["rules"]
