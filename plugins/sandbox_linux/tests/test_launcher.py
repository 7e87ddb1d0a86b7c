"""Commands behave as without a sandbox, end completely, and leave nothing behind."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import CommandNotExecutableError, CommandNotFoundError, SandboxUnavailableError
from codex_core.types import Ended, SandboxMode
from codex_sandbox_linux.forge import HelperForge
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.sandbox_linux.tests.conftest import Box, Fifo, User

FORGES = pytest.mark.parametrize("forge", ["local", "helper"])


# How a command begins


@pytest.mark.parametrize("code", [0, 1, 37, 126, 127, 255])
def test_the_exit_code_is_passed_on(any_box: Box, code: int) -> None:
    any_box.open()
    assert any_box.run(["sh", "-c", f"exit {code}"]).ended == Ended(exit_code=code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGINT])
def test_death_by_a_signal_is_passed_on(any_box: Box, number: signal.Signals) -> None:
    any_box.open()
    result = any_box.run(["sh", "-c", f"ulimit -c 0; kill -{int(number)} $$"])
    assert result.ended == Ended(signal=number)
    assert result.returncode == 128 + number


@FORGES
def test_bytes_pass_unchanged_through_all_three_streams(any_box: Box, forge: str) -> None:
    data = bytes(range(256)) * 2048
    any_box.open(forge=forge)
    source = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d); sys.stderr.buffer.write(d[::-1])"
    result = any_box.py(source, stdin=data)
    assert (result.stdout, result.stderr, result.returncode) == (data, data[::-1], 0)


def test_the_end_of_the_input_is_seen(any_box: Box) -> None:
    any_box.open()
    assert any_box.run(["cat"]).ended == Ended(exit_code=0)


def test_output_beyond_the_bound_is_counted_and_does_not_hold_the_command(any_box: Box) -> None:
    any_box.open()
    result = any_box.run(["head", "-c", "5000000", "/dev/zero"], limit=1000)
    assert (len(result.stdout), result.dropped, result.returncode) == (1000, 4_999_000, 0)


SHOW = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"


@pytest.mark.parametrize("forge", ["local", "helper"])
@pytest.mark.parametrize(
    "words",
    [
        ["", " ", "--", "-c", "--help", "two\nlines", "$HOME", "*", "'\"\\"],
        ["\udcff\udcfe", "ä", "\udce4", "\U0001f600"],
        ["x" * 100_000],
        ["y"] * 5000,
        ["x" * 100_000, *["y"] * 5000],
        ["z" * (65536 - 500), "end"],
        ["z" * 65536],
    ],
    ids=["odd", "not UTF-8", "100 kB", "5000", "both", "just in a packet", "just not in a packet"],
)
def test_words_arrive_as_they_were_given(any_box: Box, words: list[str], forge: str) -> None:
    any_box.open(forge=forge)
    result = any_box.py(SHOW, *words)
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"\0".join(map(os.fsencode, words))


def test_a_command_that_the_kernel_would_not_take_is_not_executable(any_box: Box) -> None:
    any_box.open()
    with pytest.raises(CommandNotExecutableError, match=os.strerror(errno.E2BIG)):
        any_box.run(["true", "x" * 10_000_000])
    with pytest.raises(CommandNotExecutableError, match=os.strerror(errno.E2BIG)):
        any_box.run(["true", *["x" * 100_000] * 100])
    assert any_box.run(["true"]).returncode == 0


def test_the_environment_is_the_given_one_and_nothing_else(any_box: Box) -> None:
    any_box.open()
    environment = {"PATH": os.defpath, "EMPTY": "", "EQUALS": "a=b=c", "BYTES": "\udcff", "\udce4": "name"}
    result = any_box.run(["env", "-0"], env=environment)
    given = {os.fsencode(name) + b"=" + os.fsencode(value) for name, value in environment.items()}
    assert set(result.stdout.rstrip(b"\0").split(b"\0")) == given


def test_an_empty_environment_stays_empty(any_box: Box) -> None:
    any_box.open()
    assert any_box.run([shutil.which("env") or "/usr/bin/env"], env={}).stdout == b""


def test_the_working_directory_is_the_given_one(any_box: Box) -> None:
    odd = os.path.join(any_box.ws, "it's \udcff *")
    os.mkdir(odd)
    any_box.open()
    for folder in (any_box.ws, odd, "/", "/etc"):
        assert any_box.run(["pwd", "-P"], cwd=folder).stdout == os.fsencode(folder) + b"\n"


def test_a_program_is_looked_up_in_the_path_of_the_command(any_box: Box) -> None:
    for folder in ("first", "second"):
        any_box.write(f"ws/{folder}/tool", f"#!/bin/sh\necho {folder}\n", 0o755)
    any_box.write("ws/first/plain", "not executable\n", 0o644)
    any_box.write("ws/second/plain", "#!/bin/sh\necho second\n", 0o755)
    os.makedirs(f"{any_box.ws}/first/folder")
    any_box.open()
    path = f"{any_box.ws}/missing:{any_box.ws}/first:{any_box.ws}/second:{os.defpath}"
    assert any_box.run(["tool"], env={"PATH": path}).stdout == b"first\n"
    assert any_box.run(["plain"], env={"PATH": path}).stdout == b"second\n"
    with pytest.raises(CommandNotFoundError):
        any_box.run(["folder"], env={"PATH": path})
    with pytest.raises(CommandNotFoundError):
        any_box.run(["tool"])
    assert any_box.run(["tool"], env={"PATH": "first"}).stdout == b"first\n", "relative to the working directory"
    assert any_box.run(["./tool"], cwd=f"{any_box.ws}/second").stdout == b"second\n"
    assert any_box.run(["true"], env={}).returncode == 0, "the system's own path where there is none"


def test_what_cannot_be_run_is_told_apart(any_box: Box) -> None:
    plain = any_box.write("ws/plain", "#!/bin/sh\n", 0o644)
    bad = any_box.write("ws/bad", "#!/does/not/exist\n", 0o755)
    any_box.open()
    for argv, cwd, error in (
        (["does-not-exist"], "", CommandNotFoundError),
        ([f"{any_box.ws}/missing"], "", CommandNotFoundError),
        ([f"{plain}/below"], "", CommandNotExecutableError),
        ([plain], "", CommandNotExecutableError),
        ([any_box.ws], "", CommandNotExecutableError),
        (["true"], f"{any_box.ws}/missing", CommandNotFoundError),
        (["true"], plain, CommandNotFoundError),
        ([""], "", CommandNotFoundError),
    ):
        with pytest.raises(error) as caught:
            any_box.run(argv, cwd=cwd)
        assert "\n" not in str(caught.value)
    with pytest.raises(CommandNotFoundError):
        any_box.run([bad])
    assert any_box.run(["true"]).returncode == 0, "the launcher goes on"


def test_a_working_directory_that_was_deleted_is_named(any_box: Box) -> None:
    folder = os.path.join(any_box.ws, "gone")
    os.mkdir(folder)
    any_box.open()
    assert any_box.run(["true"], cwd=folder).returncode == 0
    os.rmdir(folder)
    with pytest.raises(CommandNotFoundError, match="gone"):
        any_box.run(["true"], cwd=folder)


def test_a_script_without_an_interpreter_line_is_run_by_the_shell(any_box: Box) -> None:
    script = any_box.write("ws/script", 'echo "$1"\n', 0o755)
    any_box.open()
    assert any_box.run([script, "a word"]).stdout == b"a word\n"


def test_a_file_that_is_no_program_is_handled_as_a_shell_would(any_box: Box) -> None:
    path = any_box.write("ws/empty", "", 0o755)
    any_box.open()
    assert any_box.run([path]).returncode == 0


def test_broken_pipes_end_programs_as_everywhere(any_box: Box) -> None:
    any_box.open()
    result = any_box.run(["bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}"])
    assert result.stdout == b"y\n141\n"


def test_no_more_signals_are_ignored_or_blocked_than_without_a_sandbox(any_box: Box) -> None:
    """But for two signals that posix_spawn of glibc leaves ignored, and which glibc keeps to itself."""
    show = ["grep", "^Sig[BIC]", "/proc/self/status"]
    internal = 1 << 31 | 1 << 32

    def masks(lines: bytes) -> list[int]:
        return [int(line.split()[1], 16) & ~internal for line in lines.splitlines()]

    outside = any_box.free(show).stdout
    any_box.open()
    assert masks(any_box.run(show).stdout) == masks(outside)


def test_limits_and_priorities_of_its_own_can_be_lowered(any_box: Box) -> None:
    any_box.open()
    assert any_box.run(["bash", "-c", "ulimit -n 64 && ulimit -c 0 && umask 022 && nice true"]).returncode == 0


# How a command ends


def detach(box: Box, fifo: Callable[[str], Fifo]) -> tuple[Fifo, list[str]]:
    """Give the command of a program whose grandchild, which has left its session, holds a pipe open."""
    pipe = fifo(os.path.join(box.ws, "pipe"))
    box.user.owns(box.base)
    source = (
        "import os, sys, time\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        pipe = open(sys.argv[1], 'w'); pipe.write('.'); pipe.flush(); os.write(write, b'.'); time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.close(write)\n"
        "assert os.read(read, 1)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    return pipe, box.program(source, pipe.path)


@FORGES
def test_daemons_end_with_the_command_that_started_them(box: Box, fifo: Callable[[str], Fifo], forge: str) -> None:
    pipe, argv = detach(box, fifo)
    assert box.free([*argv, "0"]).returncode == 0
    assert pipe.read() == b"."
    assert pipe.read(0.2) is None, "without a sandbox it lives on"
    box.end_strays()
    assert pipe.read() == b""
    box.open(forge=forge)
    assert box.run([*argv, "0"]).ended == Ended(exit_code=0)
    assert pipe.read() == b"."
    assert pipe.read() == b""


def test_an_output_that_a_grandchild_keeps_open_holds_nobody(any_box: Box) -> None:
    any_box.open()
    result = any_box.run(["sh", "-c", "echo begun; setsid sleep 600 & exit 3"])
    assert (result.stdout, result.returncode) == (b"begun\n", 3)


@FORGES
def test_a_timeout_ends_the_whole_tree(box: Box, fifo: Callable[[str], Fifo], forge: str) -> None:
    pipe, argv = detach(box, fifo)
    box.open(forge=forge)
    result = box.run([*argv, "600"], timeout=2)
    assert result.timed_out
    assert result.returncode == 128 + signal.SIGKILL
    assert pipe.read() == b"."
    assert pipe.read() == b""
    assert box.run(["true"]).returncode == 0, "the launcher goes on"


@FORGES
def test_kill_ends_the_whole_tree(box: Box, fifo: Callable[[str], Fifo], forge: str) -> None:
    pipe, argv = detach(box, fifo)
    box.open(forge=forge)
    box.start([*argv, "600"])
    assert pipe.read() == b"."
    box.ask("kill")
    assert box.wait()[0] == Ended(signal=signal.SIGKILL)
    assert pipe.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_are_delivered_to_the_group_of_the_command(
    any_box: Box, fifo: Callable[[str], Fifo], number: signal.Signals
) -> None:
    pipe = fifo(os.path.join(any_box.ws, "pipe"))
    any_box.open()
    any_box.start(["sh", "-c", f"ulimit -c 0; sleep 600 & echo >{pipe.path}; wait"])
    assert pipe.read()
    any_box.ask("signal", int(number))
    ended = any_box.wait()[0]
    assert ended is not None
    assert ended.returncode == 128 + number


def test_a_command_that_ignores_signals_is_killed(any_box: Box, fifo: Callable[[str], Fifo]) -> None:
    pipe = fifo(os.path.join(any_box.ws, "pipe"))
    any_box.open()
    any_box.start(["sh", "-c", f"trap '' INT TERM HUP; echo >{pipe.path}; while :; do sleep 1; done"])
    assert pipe.read()
    any_box.ask("signal", int(signal.SIGTERM))
    assert any_box.wait(0.3)[0] is None
    any_box.ask("kill")
    assert any_box.wait()[0] == Ended(signal=signal.SIGKILL)


# Nothing is left behind


@FORGES
def test_three_hundred_commands_leave_nothing_behind(box: Box, forge: str) -> None:
    box.open(forge=forge)
    argv = ["sh", "-c", "setsid sleep 600 & true"]
    box.ask("run_many", box.command(argv), 5, 1)
    before, files = box.census(), box.files()
    assert box.ask("run_many", box.command(argv), 300, 1) == [0] * 300
    assert (box.census(), box.files()) == (before, files)


def test_jails_that_nobody_uses_end_and_one_at_work_does_not(
    box: Box, fifo: Callable[[str], Fifo], eventually: Callable[[Callable[[], object]], None]
) -> None:
    box.open(forge="helper", longest_idle=0.3)
    assert box.ask("run_many", box.command(["true"]), 1, 3) == [0] * 3
    began = fifo(f"{box.ws}/began")
    box.start(["sh", "-c", "echo > began; exec sleep 600"])
    box.drive(began)
    [helper] = box.children()
    eventually(lambda: len(box.children(helper)) == 1)
    assert box.wait(1.0)[0] is None, "the command goes on, longer than any jail may be idle"
    box.ask("kill")
    assert box.wait()[0] == Ended(signal=signal.SIGKILL)
    eventually(lambda: box.children(helper) == [])
    assert box.run(["echo", "again"]).stdout == b"again\n"


def test_fifty_commands_at_once_leave_nothing_behind(box: Box) -> None:
    before = box.census()
    files = box.files()
    box.open(forge="helper")
    assert box.ask("run_many", box.command(["sh", "-c", "setsid sleep 600 & sleep 0.05"]), 2, 50) == [0] * 100
    assert box.census()["zombies"] == 0
    box.close()
    assert (box.census(), box.files()) == (before, files)


def test_closing_waits_for_the_thread_whose_command_it_ends(any_box: Box) -> None:
    any_box.open()
    assert any_box.policy is not None
    launcher = LinuxLauncher(any_box.policy, HelperForge())
    started, seen = threading.Event(), list[Ended | None]()

    def work() -> None:
        with open(os.devnull, "r+b", buffering=0) as null:
            running = launcher.start(any_box.command(["sleep", "600"]), *(null.fileno(),) * 3)
            started.set()
            time.sleep(0.2)  # the other thread closes
            poll = select.poll()
            poll.register(running.fileno(), select.POLLIN)
            while running.advance() is None:
                poll.poll(10_000)
            seen.append(running.advance())

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    launcher.close()
    thread.join(10)
    assert seen == [Ended(signal=signal.SIGKILL)]
    with pytest.raises(SandboxUnavailableError, match="closed"):
        launcher.start(any_box.command(["true"]), 0, 1, 2)


def test_failures_leave_nothing_behind(box: Box) -> None:
    box.open(forge="helper")
    for _ in range(2):
        before = box.census()
        for argv in (["missing"], ["/etc"], ["true", "x" * 3_000_000]):
            with pytest.raises((CommandNotFoundError, CommandNotExecutableError)):
                box.run(argv)
        box.run(["sleep", "600"], timeout=0.05)
        box.run(["true"])
    assert box.census() == before


def test_a_refused_launcher_leaves_nothing_behind(box_without: Callable[[str], Box]) -> None:
    box = box_without("landlock")
    before = box.census()
    for forge in ("local", "helper"):
        with pytest.raises(SandboxUnavailableError):
            box.open(forge=forge)
    assert box.census() == before


@FORGES
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_owner_is_killed_nothing_stays(
    box: Box, fifo: Callable[[str], Fifo], forge: str, number: signal.Signals, eventually: Callable[..., None]
) -> None:
    pipe, argv = detach(box, fifo)
    files = box.files()
    box.open(forge=forge)
    box.start([*argv, "600"])
    assert pipe.read() == b"."
    below = box.descendants()
    assert below
    box.owner.send_signal(number)
    box.owner.wait(10)
    assert pipe.read() == b""
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below))
    assert box.files() == files


def test_when_the_helper_is_killed_nothing_stays_and_the_launcher_says_so(
    box: Box, fifo: Callable[[str], Fifo], eventually: Callable[..., None]
) -> None:
    pipe, argv = detach(box, fifo)
    box.open(forge="helper")
    box.start([*argv, "600"])
    assert pipe.read() == b"."
    below = box.descendants()
    os.kill(box.children()[0], signal.SIGKILL)
    ended = box.wait()[0]
    assert ended is not None
    assert ended.returncode != 0
    assert pipe.read() == b""
    with pytest.raises(SandboxUnavailableError) as caught:
        box.run(["true"])
    assert "\n" not in str(caught.value)
    box.close()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below))


@FORGES
def test_when_the_jail_is_killed_the_command_ends_and_the_launcher_goes_on(
    box: Box, fifo: Callable[[str], Fifo], forge: str
) -> None:
    pipe, argv = detach(box, fifo)
    box.open(forge=forge)
    box.start([*argv, "600"])
    assert pipe.read() == b"."
    jail = _first_jail(box, forge)
    os.kill(jail, signal.SIGKILL)
    ended = box.wait()[0]
    assert ended == Ended(signal=signal.SIGKILL)
    assert pipe.read() == b""
    assert box.run(["echo", "again"]).stdout == b"again\n"


@FORGES
def test_when_an_idle_jail_is_killed_the_next_command_runs(
    box: Box, forge: str, eventually: Callable[[Callable[[], object]], None]
) -> None:
    box.open(forge=forge)
    assert box.run(["true"]).returncode == 0
    jail = _first_jail(box, forge)
    os.kill(jail, signal.SIGKILL)
    eventually(lambda: _is_dead(jail))
    assert box.run(["echo", "again"]).stdout == b"again\n"


@FORGES
def test_a_command_that_is_killed_just_after_its_end_takes_nobody_along(box: Box, forge: str) -> None:
    box.open(forge=forge)
    for _ in range(5):
        box.start(["true"])
        time.sleep(0.05)  # the jail has told the end by now, and nobody has heard it
        box.ask("kill")
        assert box.wait() == (Ended(0), ())
        assert box.run(["echo", "again"]).stdout == b"again\n"


@FORGES
def test_a_start_that_breaks_off_leaves_neither_its_command_nor_its_jail(
    box: Box, forge: str, eventually: Callable[[Callable[[], object]], None]
) -> None:
    box.open(forge=forge)
    jail = box.children()[0] if forge == "local" else box.children(box.children()[0])[0]
    box.ask("break_at", "channel.send_command")
    with pytest.raises(RuntimeError, match="send_command"):
        box.start(["sleep", "60"])
    eventually(lambda: _is_dead(jail))
    assert box.run(["mkdir", ".git"]).denials  # what waits for the end of all commands is not held up
    assert os.listdir(box.ws) == []


def _first_jail(box: Box, forge: str) -> int:
    (below,) = box.children()
    return below if forge == "local" else box.children(below)[0]


def _is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_closing_a_launcher_ends_what_runs_in_it(box: Box, fifo: Callable[[str], Fifo]) -> None:
    pipe, argv = detach(box, fifo)
    before = box.census()
    box.open(forge="helper")
    box.start([*argv, "600"])
    assert pipe.read() == b"."
    box.close()
    assert pipe.read() == b""
    assert {name: count for name, count in box.census().items() if name in {"processes", "zombies"}} == {
        name: before[name] for name in ("processes", "zombies")
    }


# What the sandbox is for


@pytest.mark.parametrize("mode", [SandboxMode.READ_ONLY, SandboxMode.WORKSPACE_WRITE])
def test_writes_end_where_the_policy_says(box: Box, mode: SandboxMode) -> None:
    source = "import sys\ntry: open(sys.argv[1], 'w'); print('written')\nexcept OSError as e: print(e.strerror)"
    assert box.free_py(source, f"{box.outside}/file").stdout == b"written\n"
    os.unlink(f"{box.outside}/file")
    box.open(mode)
    box.py(source, f"{box.outside}/file")
    box.py(source, f"{box.ws}/file")
    assert os.listdir(box.outside) == []
    assert os.listdir(box.ws) == (["file"] if mode is SandboxMode.WORKSPACE_WRITE else [])
    if mode is SandboxMode.WORKSPACE_WRITE:
        status = os.stat(f"{box.ws}/file")
        assert (status.st_uid, status.st_gid) == (box.user.uid, box.user.uid)


def test_files_of_other_users_keep_their_owners(root_user: User, box_as: Callable[[User], Box]) -> None:
    """Root inside sees all ids as they are: git, for one, refuses repositories of unknown owners."""
    box = box_as(root_user)
    path = box.write("ws/file")
    os.chown(path, 4242, 4343)
    box.open()
    assert box.run(["stat", "-c", "%u:%g", path]).stdout == b"4242:4343\n"
