"""``codex run`` and ``codex sandbox`` on a real terminal, under a real shell with job control."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.testing.terminal import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CODEX = f"{sys.executable} -I -m codex_core.cli.main"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return project


@pytest.fixture
def shell(project: Path) -> Iterator[Shell]:
    home = str(project.parent / "home")
    env = {"PATH": "/usr/bin:/bin", "HOME": home, "CODEX_HOME": home, "LC_ALL": "C.UTF-8"}
    with Shell(env, str(project)) as shell:
        yield shell


@pytest.fixture(params=["run -a never -s workspace-write", "run --yolo", "sandbox linux -s workspace-write"])
def codex(request: pytest.FixtureRequest) -> str:
    """Give the start of a shell line that runs a command."""
    return f"{CODEX} {request.param} --"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def test_the_command_has_another_terminal_of_the_same_size(shell: Shell, codex: str) -> None:
    ours = shell.answer("tty")
    theirs, size = shell.answer(f"{codex} sh -c 'tty; stty size'").splitlines()
    assert theirs.startswith("/dev/")
    assert theirs != ours.strip()
    assert size == "24 80"


def test_a_resize_reaches_the_command(shell: Shell, codex: str) -> None:
    shell.line(f'{codex} sh -c \'trap "stty size; exit" WINCH; echo re""ady; while :; do sleep 0.05; done\'')
    shell.expect("ready")
    time.sleep(0.2)
    shell.resize(31, 97)
    shell.expect("31 97")
    shell.prompt()


def test_ctrl_c_ends_the_command(shell: Shell, codex: str) -> None:
    shell.line(f"{codex} sh -c 'echo re\"\"ady; exec sleep 600'")
    shell.expect("ready")
    time.sleep(0.2)
    shell.send("\x03")
    shell.prompt()
    assert shell.answer("echo $?") == f"{128 + signal.SIGINT}\r\n"


def test_ctrl_z_fg_and_bg_work_as_without_the_wrapper(shell: Shell, codex: str) -> None:
    before = shell.answer("stty -g")
    shell.line(f"{codex} sh -c 'echo re\"\"ady; exec cat'")
    shell.expect("ready")
    time.sleep(0.2)
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    assert shell.answer("stty -g") == before
    shell.line("fg")
    time.sleep(0.2)
    shell.send("one\n")
    shell.expect("one\r\none\r\n")
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    shell.line("bg")  # it reads, so it is stopped again
    shell.prompt()
    wait_for(lambda: "Stopped" in shell.answer("jobs"))
    shell.line("fg")
    time.sleep(0.2)
    shell.send("two\n")
    shell.expect("two\r\ntwo\r\n")
    shell.send("\x04")
    shell.prompt()
    assert shell.answer("stty -g") == before


def test_in_the_background_it_leaves_the_keyboard_alone(shell: Shell, codex: str) -> None:
    shell.line(f"{codex} sh -c 'sleep 0.5; echo fin\"\"ished' &")
    shell.prompt()
    assert shell.answer("echo typed").count("typed") == 1
    shell.line("wait")
    shell.expect("finished")


def test_pipes_end_as_they_do_without_the_wrapper(shell: Shell, codex: str) -> None:
    assert shell.answer(f"{codex} yes | head -n 2") == "y\r\ny\r\n"
    assert shell.answer(f"printf 'a\\nb\\n' | {codex} cat") == "a\r\nb\r\n"
    shell.line(f"{codex} sh -c 'echo re\"\"ady >&2; exec cat' | head -n 1")
    shell.expect("ready")
    time.sleep(0.5)
    shell.send("line\n")
    shell.expect("line\r\nline\r\n")
    time.sleep(0.2)
    shell.send("next\n")
    shell.prompt()


def test_in_a_pipeline_the_keyboard_goes_to_who_reads_it(shell: Shell, codex: str) -> None:
    shell.line(f"{codex} echo piped | sh -c 'cat; read line </dev/tty; echo \"[$line]\"'")
    shell.expect("piped\r\n")
    shell.send("typed\n")
    shell.expect(r"\[typed\]\r\n")
    shell.prompt()


def test_all_output_is_there_before_the_end_is_seen(shell: Shell, codex: str) -> None:
    assert shell.answer(f"{codex} seq 1 20000").split() == [str(number) for number in range(1, 20001)]


def test_an_interactive_shell_inside_has_job_control(shell: Shell, codex: str) -> None:
    shell.line(f"{codex} bash --norc --noprofile --noediting -i")
    shell.line("PS1='IN''NER> '")
    shell.expect("INNER> ")
    shell.line("sleep 600")
    time.sleep(0.5)
    shell.send("\x1a")
    shell.expect("Stopped")
    # Until bash itself has noticed: with a stopped job it does not leave.
    shell.line("kill -9 %1; while jobs %1; do sleep 0.1; done >/dev/null 2>&1; echo in''side")
    shell.expect("inside")
    shell.line("exit 5")
    shell.prompt()
    assert shell.answer("echo $?") == "5\r\n"


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_vim_edits_stops_and_leaves_the_terminal_as_it_was(shell: Shell, codex: str, project: Path) -> None:
    before = shell.answer("stty -g")
    shell.line(f"TERM=xterm {codex} vim -u NONE -i NONE note")
    shell.expect(r'"note" \[New')
    time.sleep(0.5)
    shell.send("ihello\x1b")
    time.sleep(1)
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    assert shell.answer("stty -g") == before
    shell.line("fg")
    time.sleep(0.5)
    shell.send(":wq\r")
    shell.prompt()
    assert (project / "note").read_text() == "hello\n"
    assert shell.answer("stty -g") == before


def test_a_refusal_leaves_the_terminal_as_it_was(shell: Shell, codex: str) -> None:
    before = shell.answer("stty -g")
    assert "codex: no-such-program" in shell.answer(f"{codex} no-such-program")
    assert shell.answer("stty -g") == before


def test_a_question_is_asked_on_the_terminal(shell: Shell, project: Path) -> None:
    for answer, made in (("n", False), ("y", True)):
        shell.line(f"{CODEX} run -a untrusted -s workspace-write -- touch made")
        shell.expect("touch made")
        shell.expect(r"\] ?$")
        time.sleep(0.6)
        shell.line(answer)
        shell.prompt()
        assert (project / "made").exists() == made


QUESTION = r"\[y/s/a/N/q\] $"


def ask(shell: Shell) -> None:
    """Start a command that is asked about, and wait until the question stands."""
    shell.line(f"{CODEX} run -a untrusted -s workspace-write -- touch made")
    shell.expect(QUESTION)
    time.sleep(0.6)


def test_a_question_survives_a_stop_and_keys_typed_to_the_shell_do_not_answer_it(shell: Shell, project: Path) -> None:
    ask(shell)
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    assert shell.answer("echo y") == "y\r\n"
    assert not (project / "made").exists()
    shell.line("fg")
    time.sleep(0.6)
    shell.line("y")
    shell.prompt()
    assert (project / "made").exists()


def test_a_hang_up_at_the_question_runs_nothing(shell: Shell, project: Path) -> None:
    ask(shell)
    shell.hang_up()
    with pytest.raises(AssertionError, match="the shell ended"):
        shell.expect("never")
    assert not (project / "made").exists()


def test_in_the_background_nobody_is_asked_and_nothing_runs(shell: Shell, project: Path) -> None:
    shell.line(f"{CODEX} run -a untrusted -s workspace-write -- touch made & wait $!; echo co''de $?")
    shell.expect("there is no terminal to ask on")
    shell.expect("code 126")
    assert not (project / "made").exists()


def test_ctrl_c_at_the_question_leaves_the_terminal_as_it_was(shell: Shell, project: Path) -> None:
    before = shell.answer("stty -g")
    ask(shell)
    shell.send("\x03")
    shell.expect("rejected by user")
    shell.prompt()
    assert shell.answer("echo $?; stty -g") == f"126\r\n{before}"
    assert not (project / "made").exists()
