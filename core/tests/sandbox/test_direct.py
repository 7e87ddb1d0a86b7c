from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import (
    CodexError,
    CommandNotExecutableError,
    CommandNotFoundError,
    SandboxUnavailableError,
)
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.runner import run
from codex_core.types import Command, Ended, Promise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def launcher() -> Iterator[DirectLauncher]:
    launcher = DirectLauncher()
    yield launcher
    launcher.close()


def test_nothing_is_promised_and_every_loss_has_its_reason(launcher: DirectLauncher) -> None:
    assert launcher.strength.kept == frozenset()
    assert launcher.strength.lost.keys() == set(Promise)
    assert "process that left the group" in launcher.strength.lost[Promise.PROCESS_TREE]


def test_signals_that_python_ignores_are_as_any_program_expects_them(launcher: DirectLauncher) -> None:
    ignored = b"grep SigIgn /proc/self/status"
    result = run(launcher, Command(("sh", "-c", ignored.decode()), "/", PATH))
    mask = int(result.stdout.split()[1], 16)
    assert not mask & 1 << signal.SIGPIPE - 1
    assert not mask & 1 << signal.SIGXFSZ - 1
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN  # the test would not see a difference otherwise


def test_the_command_leads_a_session_of_its_own_without_our_descriptors(launcher: DirectLauncher) -> None:
    ours = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(ours, True)  # noqa: FBT003 - takes no keyword
    try:
        script = 'test "$(ps -o sid= -p $$)" -eq $$ && ls /proc/self/fd'
        result = run(launcher, Command(("sh", "-c", script), "/", PATH))
    finally:
        os.close(ours)
    assert result.returncode == 0
    assert str(ours) not in result.stdout.decode().split()


def test_words_and_variables_that_are_not_utf8_arrive_as_they_are(launcher: DirectLauncher) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    result = run(launcher, Command(("sh", "-c", 'printf %s "$1$ODD"', "sh", odd), "/", {**PATH, "ODD": odd}))
    assert result.stdout == b"\xff\xfe\xff\xfe"


def test_a_folder_and_a_program_that_are_not_utf8_work(launcher: DirectLauncher, tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"\xff")
    os.mkdir(folder)
    program = os.path.join(folder, b"\xfe")
    with open(program, "wb") as file:
        file.write(b"#!/bin/sh\npwd\n")
    os.chmod(program, 0o755)
    result = run(launcher, Command((os.fsdecode(b"./\xfe"),), os.fsdecode(folder), PATH))
    assert result.stdout == folder + b"\n"


def test_the_program_is_looked_up_in_the_path_of_the_command(launcher: DirectLauncher, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert run(launcher, Command(("only-here",), "/", {"PATH": str(tmp_path)})).stdout == b"found\n"
    with pytest.raises(CommandNotFoundError, match="only-here: command not found"):
        run(launcher, Command(("only-here",), "/", PATH))


def refused(launcher: DirectLauncher, argv: tuple[str, ...], cwd: str = "/") -> CodexError:
    with pytest.raises(CodexError) as caught:
        run(launcher, Command(argv, cwd, PATH))
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("argv", [("no-such-program",), ("/no/such/program",), ("",), (), ("/etc/passwd/x",)])
def test_a_program_that_does_not_exist_is_not_found(launcher: DirectLauncher, argv: tuple[str, ...]) -> None:
    assert isinstance(refused(launcher, argv), CommandNotFoundError)


def test_a_file_without_the_right_is_not_executable(launcher: DirectLauncher, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for program in (str(tmp_path / "plain"), str(tmp_path)):
        assert isinstance(refused(launcher, (program,)), CommandNotExecutableError)


def test_a_file_that_is_no_program_is_not_executable(launcher: DirectLauncher, tmp_path: Path) -> None:
    program = tmp_path / "garbage"
    program.write_bytes(b"\0\1\2")
    program.chmod(0o755)
    error = refused(launcher, (str(program),))
    assert isinstance(error, CommandNotExecutableError)
    assert "#! line" in str(error)


def test_a_script_whose_interpreter_is_missing_is_not_found_and_says_so(
    launcher: DirectLauncher, tmp_path: Path
) -> None:
    program = tmp_path / "script"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    error = refused(launcher, (str(program),))
    assert isinstance(error, CommandNotFoundError)
    assert "interpreter" in str(error)


def test_ten_megabytes_of_arguments_are_refused_in_one_line(launcher: DirectLauncher) -> None:
    error = refused(launcher, ("true", "x" * 10_000_000))
    assert isinstance(error, CommandNotExecutableError)
    assert "10000006 bytes" in str(error)


def test_a_nul_in_a_word_is_refused(launcher: DirectLauncher) -> None:
    assert isinstance(refused(launcher, ("true", "a\0b")), CommandNotExecutableError)


def test_a_working_directory_that_is_gone_is_named(launcher: DirectLauncher, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    error = refused(launcher, ("true",), str(gone))
    assert isinstance(error, CommandNotFoundError)
    assert str(gone) in str(error)


def test_closing_kills_what_runs_and_frees_everything_twice() -> None:
    before = set(os.listdir("/proc/self/fd"))
    launcher = DirectLauncher()
    null = os.open(os.devnull, os.O_RDWR)
    running = [launcher.start(Command(("sleep", "600"), "/", PATH), null, null, null) for _ in range(3)]
    os.close(null)
    launcher.close()
    launcher.close()
    assert [one.advance() for one in running] == [Ended(signal=signal.SIGKILL)] * 3
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(SandboxUnavailableError):
        run(launcher, Command(("true",), "/", PATH))


def test_signals_after_the_end_go_nowhere(launcher: DirectLauncher) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    running = launcher.start(Command(("true",), "/", PATH), null, null, null)
    os.close(null)
    while running.advance() is None:
        select.select([running.fileno()], [], [], 10)
    running.signal(signal.SIGKILL)
    running.kill()
    assert running.advance() == Ended(exit_code=0)


def test_where_the_system_has_no_pidfd_a_thread_waits(
    launcher: DirectLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    before = threading.active_count()
    descriptors = set(os.listdir("/proc/self/fd"))
    result = run(launcher, Command(("sh", "-c", "echo hi; kill -9 $$"), "/", PATH))
    assert (result.stdout, result.ended) == (b"hi\n", Ended(signal=signal.SIGKILL))
    assert run(launcher, Command(("sleep", "600"), "/", PATH), timeout=0.1).timed_out
    for thread in threading.enumerate():
        if thread.name.startswith("codex-wait"):
            thread.join(10)
    assert threading.active_count() == before
    assert set(os.listdir("/proc/self/fd")) == descriptors
