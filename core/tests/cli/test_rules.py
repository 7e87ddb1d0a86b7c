from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]
    Codex = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def codex(tmp_path: Path, home: Path) -> Codex:
    """Run ``codex`` with a home and a folder of its own."""
    (tmp_path / "project").mkdir()

    def run(*words: str) -> Done:
        return subprocess.run(
            [sys.executable, "-I", "-m", "codex_core.cli.main", *words],
            cwd=tmp_path / "project",
            env={"PATH": "/usr/bin:/bin", "CODEX_HOME": str(home), "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def listed(codex: Codex) -> list[dict[str, object]]:
    done = codex("rules", "list", "--json")
    assert done.returncode == 0, done
    return list(json.loads(done.stdout))


def test_a_rule_is_added_listed_and_removed(codex: Codex, home: Path) -> None:
    added = codex("rules", "add", "forbid", "--justification", "people do", "--", "git", "push")
    place = f"{home}/rules/user.toml:1"
    assert added.stdout == f"added {place}\n"
    assert listed(codex) == [
        {
            "source": place,
            "decision": "forbid",
            "about": "git push",
            "exact": False,
            "cwd": "",
            "program": "",
            "expires": None,
            "unsandboxed": False,
            "justification": "people do",
        }
    ]
    assert codex("rules", "list").stdout == f"{place}  forbid  git push  (people do)\n"
    assert codex("rules", "remove", place).stdout == f"removed {place}\n"
    assert codex("rules", "list").stdout == "no rules\n"


def test_the_conditions_of_a_rule_can_be_given(codex: Codex, tmp_path: Path) -> None:
    codex("rules", "add", "allow", "--exact", "--in", "sub", "--expires", "2901-01-01", "--unsandboxed", "--", "make")
    (rule,) = listed(codex)
    assert (rule["exact"], rule["cwd"], rule["unsandboxed"]) == (True, str(tmp_path / "project" / "sub"), True)
    assert str(rule["expires"]).startswith("2901-01-01")


def test_rules_of_a_workspace_count_only_when_it_is_trusted_and_only_tighten(codex: Codex, tmp_path: Path) -> None:
    folder = tmp_path / "project" / ".codex" / "rules"
    folder.mkdir(parents=True)
    rules = '[[rule]]\npattern = ["a"]\ndecision = "allow"\n[[rule]]\npattern = ["b"]\ndecision = "forbid"\n'
    (folder / "project.toml").write_text(rules)
    assert listed(codex) == []
    trust = f'projects."{tmp_path}/project".trust_level="trusted"'
    done = codex("rules", "-c", trust, "list", "--json")
    assert [rule["about"] for rule in json.loads(done.stdout)] == ["b"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("rules", "add", "allow"), "needs a command"),
        (("rules", "check"), "needs a command"),
        (("rules", "list", "--", "x"), "takes no command"),
        (("rules", "remove", "x"), "FILE:LINE"),
        (("rules", "remove", "x:²"), "FILE:LINE"),
        (("rules", "remove", "/nowhere:1"), "no rule begins at"),
        (("rules", "add", "allow", "--expires", "soon", "--", "x"), "--expires"),
        (("rules", "add", "forbid", "--unsandboxed", "--", "x"), "unsandboxed"),
        (("approvals", "revoke", "1"), "no approval 1"),
    ],
)
def test_what_makes_no_sense_is_one_line(codex: Codex, words: tuple[str, ...], says: str) -> None:
    done = codex(*words)
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert done.stderr.startswith("codex: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["[[rule]]\n", "\xff", "[[rule]]\npattern = [1]\ndecision = 'allow'\n"])
def test_a_broken_file_of_rules_stops_the_run_and_is_named(codex: Codex, home: Path, content: str) -> None:
    (home / "rules").mkdir()
    (home / "rules" / "broken.toml").write_bytes(content.encode("latin-1"))
    done = codex("rules", "list")
    assert done.returncode == 1
    assert f"{home}/rules/broken.toml" in done.stderr


def test_approvals_are_listed_and_revoked_one_by_one_or_all(codex: Codex, home: Path) -> None:
    (home / "rules").mkdir()
    rule = '[[rule]]\npattern = ["{}"]\ndecision = "allow"\nexact = true\n'
    (home / "rules" / "approved.toml").write_text("".join(rule.format(name) for name in "abc"))
    codex("rules", "add", "allow", "--", "mine")
    assert [line.split()[0] for line in codex("approvals", "list").stdout.splitlines()] == ["1", "2", "3"]
    assert codex("approvals", "revoke", "2").stdout == "revoked: b\n"
    assert [one["about"] for one in json.loads(codex("approvals", "list", "--json").stdout)] == ["a", "c"]
    codex("approvals", "revoke", "--all")
    assert codex("approvals", "list").stdout == "nothing is allowed always\n"
    assert [one["about"] for one in listed(codex)] == ["mine"]


def test_help_shows_examples(codex: Codex) -> None:
    for name in ("rules", "approvals"):
        assert "examples:" in codex(name, "--help").stdout
