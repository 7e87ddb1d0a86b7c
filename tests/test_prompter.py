"""``codex run --prompter json``: an editor answers, and the command keeps its own streams."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CODEX = [sys.executable, "-I", "-m", "codex_core.cli.main"]
FULL = ("run", "-a", "untrusted", "-s", "danger-full-access")
YES = '{"type": "approval_response", "id": 1, "choice": "once"}\n'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / ".git").mkdir(parents=True)
    home = str(tmp_path / "home")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "CODEX_HOME": home}


def start(words: Sequence[str], tmp_path: Path, environ: dict[str, str], *kept: int) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*CODEX, *words],
        cwd=tmp_path / "project",
        env=environ,
        pass_fds=kept,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def over_a_socket(
    command: Sequence[str], choice: str, tmp_path: Path, environ: dict[str, str]
) -> tuple[dict[str, Any], int, str, str]:
    """Run a command and answer the question about it; the question, the exit code, and what it wrote."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start(
            [*FULL, "--prompter", f"json:{theirs.fileno()}", "--", *command], tmp_path, environ, theirs.fileno()
        )
        theirs.close()
        with ours.makefile("rw", encoding="utf-8") as stream:
            question = json.loads(stream.readline())
            stream.write(json.dumps({"type": "approval_response", "id": question["id"], "choice": choice}) + "\n")
            stream.flush()
            out, err = process.communicate("its own input\n", timeout=60)
    return question, process.returncode, out, err


def test_an_answer_on_a_socket_leaves_the_command_its_streams(tmp_path: Path, environ: dict[str, str]) -> None:
    command = ["sh", "-c", "cat; echo err >&2; exit 3"]
    question, code, out, err = over_a_socket(command, "once", tmp_path, environ)
    assert (code, out, err) == (3, "its own input\n", "err\n")
    assert question["command"] == command
    assert question["remembers"]["folder"] == str(tmp_path / "project")
    assert question["rule_file"] == str(tmp_path / "home" / "rules" / "approved.toml")


@pytest.mark.parametrize("choice", ["no", "stop", "nonsense"])
def test_anything_but_a_yes_runs_nothing(tmp_path: Path, environ: dict[str, str], choice: str) -> None:
    _, code, _, err = over_a_socket(["touch", "made"], choice, tmp_path, environ)
    assert code == 126
    assert err == "codex: not permitted: rejected by user\n"
    assert not (tmp_path / "project" / "made").exists()


def test_always_is_a_rule_and_the_next_run_asks_nobody(tmp_path: Path, environ: dict[str, str]) -> None:
    assert over_a_socket(["touch", "made"], "always", tmp_path, environ)[1] == 0
    (tmp_path / "project" / "made").unlink()
    done = subprocess.run([*CODEX, *FULL, "--", "touch", "made"], cwd=tmp_path / "project", env=environ, check=False)
    assert done.returncode == 0
    assert (tmp_path / "project" / "made").exists()


def test_the_command_cannot_answer_for_the_person(tmp_path: Path, environ: dict[str, str]) -> None:
    look = [sys.executable, "-c", "import os, sys; os.fstat(int(sys.argv[1]))"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = str(theirs.fileno())
        # What inherits it has it.
        assert subprocess.run([*look, number], pass_fds=[theirs.fileno()], check=False).returncode == 0
        process = start(
            [*FULL, "--prompter", f"json:{number}", "--", *look, number], tmp_path, environ, theirs.fileno()
        )
        ours.sendall(YES.encode())
        assert "Bad file descriptor" in process.communicate(timeout=60)[1]


def test_two_pipes_do_as_well(tmp_path: Path, environ: dict[str, str]) -> None:
    answers, answering = os.pipe()
    asking, questions = os.pipe()
    os.write(answering, YES.encode())
    os.close(answering)
    words = [*FULL, "--prompter", f"json:{answers},{questions}", "--", "echo", "ran"]
    process = start(words, tmp_path, environ, answers, questions)
    os.close(answers)
    os.close(questions)
    assert process.communicate(timeout=60)[0] == "ran\n"
    with open(asking, encoding="utf-8") as stream:
        assert [json.loads(line)["shown"] for line in stream] == ["echo ran"]


def test_on_standard_streams_the_last_line_is_the_result(tmp_path: Path, environ: dict[str, str]) -> None:
    process = start([*FULL, "--json", "--prompter", "json", "--", "sh", "-c", "cat; echo ran"], tmp_path, environ)
    out, err = process.communicate(YES + "not for the command\n", timeout=60)
    question, result = map(json.loads, out.splitlines())
    assert (question["type"], result["stdout"], err) == ("approval_request", "ran\n", "")


def test_an_editor_that_has_gone_is_a_no(tmp_path: Path, environ: dict[str, str]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        words = [*FULL, "--prompter", f"json:{theirs.fileno()}", "--", "touch", "made"]
        process = start(words, tmp_path, environ, theirs.fileno())
        _, err = process.communicate(timeout=60)
    assert process.returncode == 126
    assert err.startswith("codex: not permitted: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "project" / "made").exists()


@pytest.mark.parametrize(
    "who",
    [
        "json",
        "json:1",
        "json:77",
        "json:3,4,5",
        "json:x",
        "json:²",
        "json:" + "9" * 5000,
        "json:",
        "json:-1",
        "editor",
        "",
    ],
)
def test_who_cannot_be_asked_is_a_usage_error(tmp_path: Path, environ: dict[str, str], who: str) -> None:
    process = start([*FULL, "--prompter", who, "--", "touch", "made"], tmp_path, environ)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("codex: --prompter")
    assert err.count("\n") == 1
