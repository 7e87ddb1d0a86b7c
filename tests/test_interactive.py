"""``codex`` without a subcommand: a session in plain lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.testing.terminal import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Codex = Callable[..., subprocess.CompletedProcess[str]]

CODEX = (sys.executable, "-I", "-m", "codex_core.cli.main")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return project


@pytest.fixture
def codex(project: Path) -> Codex:
    """Give ``codex(*lines, words=())``: what comes of a session that is told these lines."""

    def codex(*lines: str, words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        home = str(project.parent / "home")
        return subprocess.run(
            [*CODEX, *words],
            cwd=project,
            env={"PATH": os.defpath, "HOME": home, "CODEX_HOME": home},
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            check=False,
        )

    return codex


def status(text: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in text.splitlines() if not line.startswith(("#", "/")))


def test_the_status_says_what_holds_and_who_says_so(codex: Codex, project: Path) -> None:
    (project.parent / "home" / "config.toml").write_text('\nsandbox_mode = "read-only"\n')
    said = status(codex("/status", words=("-a", "never")).stdout)
    assert said["folder"] == str(project)
    assert said["sandbox_mode"] == f"read-only (user {project.parent}/home/config.toml:2:1)"
    assert said["approval_policy"] == "never (flags)"
    assert said["web_search"] == "disabled (default)"
    assert said["may"] == "reach        nothing"


def test_a_preset_holds_from_the_next_command_on_and_ends_with_the_session(codex: Codex, project: Path) -> None:
    touch = f"!touch {project}/"
    done = codex("/approvals read-only", f"{touch}a", "/approvals auto", f"{touch}b", "/status", words=("-a", "never"))
    assert not (project / "a").exists()
    assert (project / "b").exists()
    assert "Read-only file system" in done.stderr
    assert status(done.stdout)["sandbox_mode"] == "workspace-write (session)"
    assert status(codex("/status", words=("-a", "never")).stdout)["sandbox_mode"] == "workspace-write (defaults)"


def test_the_list_marks_the_preset_that_holds(codex: Codex) -> None:
    marked = [line for line in codex("/approvals", "/approvals full-access").stdout.splitlines() if line[:1] == "*"]
    assert [line.split()[1] for line in marked] == ["auto", "full-access"]


def test_a_command_runs_as_an_agents_would_and_reads_none_of_the_lines(codex: Codex) -> None:
    done = codex("!cat; echo done; exit 3", "!echo next")
    assert done.stdout.splitlines()[1:] == ["done", "next"]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/stauts", "there is no /stauts; /help lists what there is"),
        ("/approvals all", "there is no preset all; there are: read-only, auto, full-access"),
        ("write me a poem", "no model can be asked in this release; `!` before a line runs it as a shell command"),
        ("!sudo rm -rf /nonexistent", "not permitted: there is no terminal to ask on"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_the_session_goes_on(codex: Codex, line: str, says: str) -> None:
    done = codex(line, "!echo still here")
    assert done.stdout.splitlines()[-1] == "still here"
    refusal = done.stderr.splitlines()[1]
    assert refusal.startswith(f"codex: {says}")


def test_a_session_that_cannot_start_says_why_and_exits_so(codex: Codex, project: Path) -> None:
    (project.parent / "home" / "config.toml").write_text("[otel]\nexporter = 'nowhere'\n")
    done = codex("/status")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def shell(project: Path) -> Iterator[Shell]:
    home = str(project.parent / "home")
    env = {"PATH": "/usr/bin:/bin", "HOME": home, "CODEX_HOME": home, "LC_ALL": "C.UTF-8"}
    with Shell(env, str(project)) as shell:
        yield shell


def test_on_a_terminal_ctrl_c_takes_a_line_back_and_ctrl_d_ends_the_session(shell: Shell) -> None:
    shell.line(" ".join(CODEX))
    shell.expect("codex> ")
    shell.send("!touch never")
    shell.expect("!touch never")
    time.sleep(0.3)
    shell.send("\x03")
    shell.expect("codex> ")
    shell.line("!test -t 0 && test ! -e never && echo ri''ght")
    shell.expect("\nright\r\n")
    shell.expect("codex> ")
    shell.send("\x04")
    shell.prompt()
    assert shell.answer("echo $?") == "0\r\n"


def test_on_a_terminal_ctrl_c_ends_the_command_and_not_the_session(shell: Shell) -> None:
    shell.line(" ".join(CODEX))
    shell.expect("codex> ")
    shell.line("!echo re''ady; exec sleep 600")
    shell.expect("\nready\r\n")
    shell.send("\x03")
    shell.expect("codex> ")
    shell.line("!echo al''ive")
    shell.expect("\nalive\r\n")


def test_a_question_is_asked_on_the_terminal_and_no_is_a_no(shell: Shell, project: Path) -> None:
    (project / "precious").mkdir()
    shell.line(" ".join(CODEX))
    shell.expect("codex> ")
    shell.line("!rm -rf precious")
    shell.expect(r"Allow it\? \[[^]]*\] ")
    shell.line("n")
    shell.expect("not permitted: rejected by user")
    assert (project / "precious").exists()


def test_every_change_is_an_event(project: Path) -> None:
    program = (
        "from codex_core import Host, Session, load_config\n"
        "from codex_core.hookspecs import Observer, hookimpl\n"
        "class Watcher(Observer):\n"
        "    @hookimpl\n"
        "    def on_event(self, event):\n"
        "        print(event.name, event.approval_policy, event.sandbox_policy, event.network_access)\n"
        "loaded = load_config(cwd='.')\n"
        "host = Host.for_config(loaded.config)\n"
        "host.observers.register(Watcher(), 'watcher')\n"
        "with Session(loaded, host=host) as session:\n"
        "    session.change({'sandbox_mode': 'read-only', 'approval_policy': 'never'})\n"
    )
    home = str(project.parent / "home")
    env = {"PATH": os.defpath, "HOME": home}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "codex.conversation_starts on-request workspace-write False",
        "codex.conversation_changes never read-only False",
    ], done.stderr
