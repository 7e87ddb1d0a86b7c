from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import CommandNotFoundError
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.runner import run
from codex_core.types import Command, Ended
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def launcher() -> Iterator[DirectLauncher]:
    launcher = DirectLauncher()
    yield launcher
    launcher.close()


def sh(script: str, cwd: str = "/") -> Command:
    return Command(("/bin/sh", "-c", script), cwd, {"PATH": "/usr/bin:/bin"})


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_output_exit_code_and_duration_come_back(launcher: DirectLauncher) -> None:
    result = run(launcher, sh("echo out; echo err >&2; exit 7"))
    assert (result.stdout, result.stderr, result.ended, result.returncode) == (
        b"out\n",
        b"err\n",
        Ended(exit_code=7),
        7,
    )
    assert result.duration > 0
    assert result.strength is launcher.strength


@pytest.mark.parametrize("pause", [0.0, 0.005])
def test_more_output_than_may_be_is_named_also_where_the_command_is_over_by_then(
    launcher: DirectLauncher, pause: float
) -> None:
    for _ in range(20):
        result = run(launcher, sh("head -c 3000 /dev/zero"), output_most=1000, on_output=lambda *_: time.sleep(pause))
        assert result.ended.limit == "output_size"
    assert run(launcher, sh("head -c 1000 /dev/zero"), output_most=1000).ended.limit == ""


def test_a_signal_is_told_apart_from_an_exit_code(launcher: DirectLauncher) -> None:
    result = run(launcher, sh("kill -TERM $$"))
    assert result.ended == Ended(signal=signal.SIGTERM)
    assert result.returncode == 128 + signal.SIGTERM


def test_without_stdin_the_command_reads_the_end_of_file(launcher: DirectLauncher) -> None:
    assert run(launcher, sh("cat; echo end")).stdout == b"end\n"


def test_stdin_bytes_larger_than_any_pipe_arrive_whole(launcher: DirectLauncher) -> None:
    sent = os.urandom(3 << 20)
    result = run(launcher, sh("cat"), stdin=sent, output_limit=len(sent))
    assert result.stdout == sent


def test_a_command_that_does_not_read_its_input_is_no_failure(launcher: DirectLauncher) -> None:
    assert run(launcher, sh("exec 0<&-; echo done"), stdin=bytes(1 << 20)).stdout == b"done\n"


def test_stdin_can_be_a_descriptor_which_stays_the_callers(launcher: DirectLauncher, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"from a file")
    with open(tmp_path / "input", "rb") as file:
        assert run(launcher, sh("cat"), stdin=file.fileno()).stdout == b"from a file"
        assert os.fstat(file.fileno()).st_size == len(b"from a file")


def test_output_beyond_the_bound_is_read_counted_and_thrown_away(launcher: DirectLauncher) -> None:
    result = run(launcher, sh("head -c 5000000 /dev/zero; head -c 10 /dev/zero >&2"), output_limit=1000)
    assert (len(result.stdout), len(result.stderr), result.dropped) == (1000, 10, 5_000_000 - 1000)


@settings(max_examples=10, deadline=None)
@given(limit=st.integers(0, 3000), size=st.integers(0, 3000))
def test_kept_and_dropped_add_up_to_what_was_written(limit: int, size: int) -> None:
    launcher = DirectLauncher()
    result = run(launcher, sh(f"head -c {size} /dev/zero"), output_limit=limit)
    launcher.close()
    assert len(result.stdout) == min(limit, size)
    assert len(result.stdout) + result.dropped == size


def test_all_output_is_streamed_also_what_is_not_kept(launcher: DirectLauncher) -> None:
    seen: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def note(stream: str, piece: bytes) -> None:
        seen[stream] += piece

    run(launcher, sh("echo one; echo two >&2"), on_output=note, output_limit=0)
    assert seen == {"stdout": b"one\n", "stderr": b"two\n"}


def test_output_is_streamed_while_the_command_runs(launcher: DirectLauncher, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def open_gate(_stream: str, _piece: bytes) -> None:
        gate.touch()

    # The command ends only because its first line was seen before it ended.
    script = f"echo first; while [ ! -e {gate} ]; do sleep 0.01; done; echo second"
    assert run(launcher, sh(script), on_output=open_gate, timeout=30).stdout == b"first\nsecond\n"


def test_without_capture_the_command_has_our_own_descriptors(
    launcher: DirectLauncher, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run(launcher, sh("echo here; echo there >&2"), capture=False)
    assert capfd.readouterr() == ("here\n", "there\n")
    assert (result.stdout, result.stderr) == (b"", b"")


def test_after_the_timeout_the_whole_group_is_dead(launcher: DirectLauncher) -> None:
    pids: list[int] = []
    result = run(
        launcher,
        sh("sleep 600 & echo $!; trap '' TERM; wait; sleep 600"),
        timeout=0.3,
        on_output=lambda _, piece: pids.append(int(piece)),
    )
    assert result.timed_out
    assert result.ended == Ended(signal=signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pids[0])


def test_a_command_that_ends_in_time_is_not_timed_out(launcher: DirectLauncher) -> None:
    assert not run(launcher, sh("true"), timeout=60).timed_out


# The second one goes on although nobody reads any more.
@pytest.mark.parametrize("busy", ["sleep 30", "sh -c 'trap \"\" PIPE; while :; do echo y; done' 2>/dev/null"])
def test_a_process_that_escapes_and_holds_the_pipe_does_not_hold_us(launcher: DirectLauncher, busy: str) -> None:
    # The escape works here, as nothing confines: the process outlives the command and its output stays open.
    result = run(launcher, sh(f"setsid {busy} & echo $!; sleep 0.2"), output_limit=100)
    escaped = int(result.stdout.split()[0])
    try:
        assert result.ended == Ended(exit_code=0)
        assert alive(escaped)
    finally:
        os.kill(escaped, signal.SIGKILL)


def test_an_interrupt_kills_the_tree_and_goes_on(launcher: DirectLauncher) -> None:
    pids: list[int] = []

    def interrupt(_stream: str, piece: bytes) -> None:
        pids.append(int(piece))
        raise KeyboardInterrupt

    before = descriptors()
    with pytest.raises(KeyboardInterrupt):
        run(launcher, sh("echo $$; sleep 600"), on_output=interrupt)
    assert not alive(pids[0])
    assert descriptors() == before


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("true", {}),
        ("cat", {"stdin": b"x"}),
        ("cat >/dev/null", {"stdin": bytes(1 << 20)}),
        ("sleep 9", {"timeout": 0}),
    ],
)
def test_no_descriptor_is_left(launcher: DirectLauncher, script: str, options: dict[str, object]) -> None:
    before = descriptors()
    run(launcher, sh(script), **options)  # type: ignore[arg-type]
    assert descriptors() == before


def test_a_command_that_does_not_start_leaves_no_descriptor(launcher: DirectLauncher) -> None:
    before = descriptors()
    with pytest.raises(CommandNotFoundError):
        run(launcher, Command(("no-such-program",), "/", {}), stdin=b"x")
    assert descriptors() == before


def test_fifty_commands_at_once_keep_their_outputs_apart(launcher: DirectLauncher) -> None:
    results: dict[int, bytes] = {}

    def one(number: int) -> None:
        results[number] = run(launcher, sh(f"echo {number}")).stdout

    before = descriptors()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(50)}
    assert descriptors() == before
