from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codex_core.approval.memory import SessionMemory, add_rule, always, remove_rule
from codex_core.approval.rules import parse_rules
from codex_core.errors import ConfigError, UsageError
from codex_core.types import Action, Decision, Verdict

if TYPE_CHECKING:
    from pathlib import Path

ACTION = Action(("make", "a b"), "/ws")
ASKED = Verdict(Decision.PROMPT, "why")


def test_a_session_remembers_exactly_what_was_asked() -> None:
    memory = SessionMemory()
    memory.allow(ACTION, ASKED)
    assert memory.covers(replace(ACTION, call_id="2", justification="again"), ASKED)
    for other in (replace(ACTION, argv=("make", "a", "b")), replace(ACTION, cwd="/ws/sub"), replace(ACTION, tool="x")):
        assert not memory.covers(other, ASKED)


def test_leave_to_run_inside_is_not_leave_to_go_outside() -> None:
    memory = SessionMemory()
    memory.allow(ACTION, ASKED)
    assert not memory.covers(ACTION, replace(ASKED, unsandboxed=True))


def test_always_is_a_rule_that_names_every_word_and_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "rules" / "approved.toml"
    assert add_rule(str(path), always(ACTION, replace(ASKED, unsandboxed=True))) == 1
    (rule,) = parse_rules(path.read_text(), str(path))
    assert rule.names(ACTION.argv)
    assert (rule.decision, rule.cwd, rule.unsandboxed) == (Decision.ALLOW, "/ws", True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


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
