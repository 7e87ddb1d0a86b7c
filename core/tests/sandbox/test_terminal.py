from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.testing.terminal import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ATTACH = """
import os, sys
from codex_core.errors import CodexError
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.terminal import attach
from codex_core.types import Command

timeout = float(sys.argv[1]) or None
try:
    result = attach(DirectLauncher(), Command(tuple(sys.argv[2:]), os.getcwd(), os.environ), timeout=timeout)
except CodexError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
sys.exit(result.returncode)
"""
ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def attach(tmp_path: Path) -> list[str]:
    """Give the words that run a command with ``attach``; they want the timeout and the command."""
    (tmp_path / "attach.py").write_text(ATTACH)
    return [sys.executable, str(tmp_path / "attach.py")]


@pytest.fixture
def wrapped(attach: list[str]) -> str:
    """Give the start of a shell line that runs a command with ``attach``."""
    return " ".join([*attach, "0"])


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(ENV, str(tmp_path)) as shell:
        yield shell


@pytest.fixture
def piped(attach: list[str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a command with ``attach`` where no standard descriptor is a terminal."""

    def run(*argv: str, timeout: float = 0, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        words = [*attach, str(timeout), *argv]
        return subprocess.run(words, input=stdin, capture_output=True, cwd=tmp_path, env=ENV, timeout=60, check=False)

    return run


def test_pipes_are_passed_straight_through(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = piped("sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\xff")
    assert (done.stdout, done.stderr, done.returncode) == (b"in\xff", b"err\n", 7)


def test_death_by_a_signal_is_the_exit_code_of_a_shell(
    piped: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    assert piped("sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_a_command_after_its_timeout_is_dead(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    assert piped("sleep", "600", timeout=0.2).returncode == 128 + signal.SIGKILL


def test_a_missing_program_is_one_line(piped: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = piped("no-such-program")
    assert (done.returncode, done.stderr.count(b"\n")) == (127, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_go_on_to_the_command_which_decides(attach: list[str], tmp_path: Path, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*attach, "0", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=tmp_path, env=ENV
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"got\n"
        assert process.wait(30) == 9


def test_under_nohup_a_hang_up_stays_ignored(attach: list[str], tmp_path: Path) -> None:
    script = "echo ready; while [ ! -e go ]; do sleep 0.05; done; echo lived"
    with subprocess.Popen(
        ["nohup", *attach, "0", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=ENV,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        assert process.stdout.read() == b"lived\n"


def test_a_reader_that_goes_away_ends_the_writer(shell: Shell, wrapped: str) -> None:
    assert shell.answer(f"{wrapped} yes | head -n 2") == "y\r\ny\r\n"
    assert shell.answer(f"{wrapped} yes | head -n 1; echo ${{PIPESTATUS[0]}}") == f"y\r\n{128 + signal.SIGPIPE}\r\n"


def test_the_command_has_a_terminal_of_its_own(shell: Shell, wrapped: str) -> None:
    ours = shell.answer("tty")
    theirs = shell.answer(f"{wrapped} tty")
    assert theirs.startswith("/dev/pts/")
    assert theirs != ours


def test_size_and_resize_reach_the_command(shell: Shell, wrapped: str) -> None:
    assert shell.answer(f"{wrapped} stty size") == "24 80\r\n"
    shell.line(f'{wrapped} sh -c \'trap "stty size; exit" WINCH; echo re""ady; while :; do sleep 0.05; done\'')
    shell.expect("ready")
    shell.resize(31, 97)
    shell.expect("31 97")
    shell.prompt()


def test_ctrl_c_reaches_the_command_and_not_us(shell: Shell, wrapped: str) -> None:
    shell.line(f'{wrapped} sh -c \'trap "echo caught; exit 4" INT; echo re""ady; while :; do sleep 0.05; done\'')
    shell.expect("ready")
    shell.send("\x03")
    shell.expect("caught")
    shell.prompt()
    assert shell.answer("echo $?") == "4\r\n"


def test_ctrl_c_and_ctrl_backslash_end_an_ordinary_command(shell: Shell, wrapped: str) -> None:
    for key, number in (("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)):
        shell.line(f"{wrapped} sh -c 'echo re\"\"ady; exec sleep 600'")
        shell.expect("ready")
        shell.send(key)
        shell.prompt()
        assert shell.answer("echo $?") == f"{128 + number}\r\n"


def test_ctrl_z_stops_the_job_and_fg_continues_it(shell: Shell, wrapped: str) -> None:
    shell.line(f"{wrapped} cat")
    shell.send("one\n")
    shell.expect("one\r\none\r\n")
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    assert "Stopped" in shell.answer("jobs")
    shell.line("fg")
    shell.send("two\n")
    shell.expect("two\r\ntwo\r\n")
    shell.send("\x04")
    shell.prompt()
    assert shell.answer("echo $?") == "0\r\n"


def test_the_terminal_is_as_before_while_stopped_and_afterwards(shell: Shell, wrapped: str) -> None:
    before = shell.answer("stty -g")
    shell.line(f"{wrapped} sh -c 'stty raw -echo; echo re\"\"ady; kill -STOP $$; exit 3'")
    shell.expect("Stopped")
    shell.prompt()
    assert shell.answer("stty -g") == before
    shell.line("fg")
    shell.prompt()
    assert shell.answer("stty -g") == before


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 1", "exec no-such-program"])
def test_the_terminal_is_restored_however_the_command_ends(shell: Shell, wrapped: str, end: str) -> None:
    before = shell.answer("stty -g")
    shell.answer(f"{wrapped} sh -c 'stty raw -echo; {end}' 2>&1")
    assert shell.answer("stty -g") == before


def test_after_bg_a_command_that_reads_is_stopped_again(shell: Shell, wrapped: str) -> None:
    shell.line(f"{wrapped} cat")
    shell.send("one\n")
    shell.expect("one\r\none\r\n")
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    shell.line("bg")
    shell.prompt()
    wait_for(lambda: "Stopped" in shell.answer("jobs"))
    shell.line("fg")
    shell.send("two\n")
    shell.expect("two\r\ntwo\r\n")
    shell.send("\x04")
    shell.prompt()


def test_started_in_the_background_it_leaves_the_keyboard_alone(shell: Shell, wrapped: str) -> None:
    shell.line(f"{wrapped} sh -c 'while [ ! -e go ]; do sleep 0.05; done; echo fin\"\"ished; read line; echo $line' &")
    shell.prompt()
    assert shell.answer("echo typed") == "typed\r\n"
    assert shell.answer("touch go") == ""
    wait_for(lambda: "Stopped" in shell.answer("jobs"))
    shell.line("fg")
    shell.send("to it\n")
    shell.expect("to it\r\nto it\r\n")
    shell.prompt()


def test_in_a_pipeline_the_keyboard_goes_to_who_reads_it(shell: Shell, wrapped: str) -> None:
    # Our command does not read: the other end of the pipe has the keyboard.
    shell.line(f"{wrapped} echo piped | sh -c 'cat; read line </dev/tty; echo \"[$line]\"'")
    shell.expect("piped\r\n")
    shell.send("typed\n")
    shell.expect(r"\[typed\]\r\n")
    shell.prompt()
    # Our command reads: it has the keyboard.
    shell.line(f"{wrapped} sh -c 'read line; echo \"<$line>\"' | cat")
    shell.send("typed\n")
    shell.expect("<typed>\r\n")
    shell.prompt()


def test_in_a_pipeline_ctrl_c_reaches_every_member(shell: Shell, wrapped: str) -> None:
    shell.line(
        f'{wrapped} cat | sh -c \'trap "echo caught >&2; exit" INT; echo re""ady >&2; while :; do sleep 0.05; done\''
    )
    shell.expect("ready")
    shell.send("\x03")
    shell.expect("caught")
    shell.prompt()


def test_piped_input_and_a_terminal_for_output_keep_lines_whole(shell: Shell, wrapped: str) -> None:
    assert shell.answer(f"printf 'a\\nb\\n' | {wrapped} cat") == "a\r\nb\r\n"


def test_all_output_is_there_before_the_end_is_seen(shell: Shell, wrapped: str) -> None:
    lines = shell.answer(f"{wrapped} seq 1 20000").split()
    assert lines == [str(number) for number in range(1, 20001)]


def test_an_interactive_shell_inside_has_job_control(shell: Shell, wrapped: str) -> None:
    shell.line(f"{wrapped} bash --norc --noprofile --noediting -i")
    shell.line("PS1='IN''NER> '")
    shell.expect("INNER> ")
    shell.line("sleep 600")
    time.sleep(0.3)
    shell.send("\x1a")
    shell.expect("Stopped")
    # Until bash itself has noticed: with a stopped job it does not leave.
    shell.line("kill -9 %1; while jobs %1; do sleep 0.1; done >/dev/null 2>&1; echo in''side")
    shell.expect("inside")
    shell.line("exit 5")
    shell.prompt()
    assert shell.answer("echo $?") == "5\r\n"


def test_a_terminal_that_hangs_up_takes_the_command_along(tmp_path: Path, wrapped: str) -> None:
    with Shell(ENV, str(tmp_path)) as shell:
        shell.line(f"{wrapped} sh -c 'echo $$ >pid; exec sleep 600'")
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip().isdigit())
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
