"""A command that goes over a limit is ended with all that it started, and the result names the limit."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.policy import SandboxSettings, build_policy
from codex_core.sandbox.runner import run
from codex_core.types import Command, Limits, SandboxMode
from codex_sandbox_linux.forge import HelperForge
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from codex_core.types import CommandResult

    from plugins.sandbox_linux.tests.conftest import Box, Fifo

HOG = "held = []\nfor _ in range(600): held.append(bytearray(b'x') * 1_000_000)"
HOGS = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        held = bytearray(b'x') * 60_000_000
        time.sleep(20)
        os._exit(0)
time.sleep(20)
"""
FORKS = "import os, time\nfor _ in range(200):\n    if os.fork() == 0: time.sleep(20)\ntime.sleep(20)"
BURN = "import os\nos.fork()\nend = __import__('time').time() + 20\nwhile __import__('time').time() < end: pass"
BURN_CHILDREN = """
import subprocess, sys
for _ in range(200):
    subprocess.run([sys.executable, '-I', '-S', '-c', 'sum(range(4_000_000))'])
"""


MANY = "import os, time\nfor made in range(300):\n    if os.fork() == 0: time.sleep(20)\nprint(made + 1)"
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
MAP = """
import mmap, sys
held = mmap.mmap(-1, int(sys.argv[1]) << 20)
for at in range(0, len(held), 4096): held[at] = 1
"""
"""Memory that no process has for itself."""
THREADS = "import threading, time\nfor _ in range(60): threading.Thread(target=time.sleep, args=(20,)).start()"
DAEMON = """
import os, sys, time
end = os.open(sys.argv[1], os.O_WRONLY)
ready, begun = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(end, b'x')
        os.write(begun, b'x')
        time.sleep(30)
    os._exit(0)
os.read(ready, 1)
while sys.argv[2] == 'stay': pass
"""


def limited(folder: Path, script: str, limits: Limits) -> CommandResult:
    settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, exclude_slash_tmp=True, limits=limits)
    policy = build_policy(settings, cwd=str(folder), environ={}, codex_home=str(folder.parent / "home"))
    launcher = LinuxLauncher(policy, HelperForge())
    try:
        command = Command((sys.executable, "-I", "-S", "-c", script), str(folder), {"PATH": os.defpath})
        return run(launcher, command, timeout=60, output_most=limits.output_size)
    finally:
        launcher.close()


@pytest.mark.parametrize(
    ("script", "limits", "name"),
    [
        (HOG, Limits(memory=200 << 20), "memory"),
        (HOGS, Limits(memory=200 << 20), "memory"),
        (FORKS, Limits(processes=20), "processes"),
        (BURN, Limits(cpu_time=0.4), "cpu_time"),
        (BURN_CHILDREN, Limits(cpu_time=0.4), "cpu_time"),
        ("import sys\nwhile True: sys.stdout.write('y' * 9999)", Limits(output_size=1 << 20), "output_size"),
        ("open('big', 'wb').write(bytes(3 << 20))", Limits(file_size=1 << 20), "file_size"),
    ],
)
def test_what_goes_over_a_limit_is_ended_and_the_limit_is_named(
    tmp_path: Path, script: str, limits: Limits, name: str
) -> None:
    result = limited(tmp_path, f"import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n{script}", limits)
    assert (result.ended.limit, result.timed_out) == (name, False)
    assert result.returncode != 0


def test_what_stays_below_every_limit_runs_undisturbed(tmp_path: Path) -> None:
    limits = Limits(cpu_time=30, memory=1 << 30, processes=100, open_files=256, file_size=1 << 30, output_size=1 << 20)
    result = limited(tmp_path, "import time\ntime.sleep(0.3)\nprint('done')", limits)
    assert (result.ended.limit, result.returncode, result.stdout) == ("", 0, b"done\n")


def test_open_files_are_limited_for_each_process(tmp_path: Path) -> None:
    opening = "held = [open('/dev/null') for _ in range(100)]"
    subprocess.run([sys.executable, "-c", opening], check=True)
    result = limited(tmp_path, opening, Limits(open_files=64))
    assert b"Too many open files" in result.stderr


def test_the_owner_stays_within_its_own_memory_when_a_command_prints_without_end(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = limited(tmp_path, "import sys\nfor _ in range(300): sys.stdout.write('y' * 1_000_000)", Limits())
    assert result.dropped > 250_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_fork_bomb_is_ended_while_other_commands_run(box: Box) -> None:
    assert box.free_py(MANY).stdout == b"300\n"
    box.open(limits=Limits(processes=40))
    assert box.run(["echo", "before"]).stdout == b"before\n"
    box.start(box.program(BOMB))
    assert box.run(["echo", "meanwhile"]).stdout == b"meanwhile\n"
    ended, _ = box.wait()
    assert ended is not None
    assert ended.limit == "processes"
    assert box.run(["echo", "after"]).stdout == b"after\n"


def test_threads_count_as_processes(box: Box) -> None:
    box.open(limits=Limits(processes=40))
    assert box.py(THREADS).ended.limit == "processes"


def test_each_command_has_the_whole_limit_of_processor_time(box: Box) -> None:
    burn = "import time\nwhile time.process_time() < {}: pass"
    box.open(limits=Limits(cpu_time=1))
    assert [box.py(burn.format(0.6)).ended.limit for _ in range(3)] == [""] * 3
    assert box.py(burn.format(20)).ended.limit == "cpu_time"


def test_memory_that_is_shared_counts_once(box: Box) -> None:
    assert box.free_py(MAP, "300").returncode == 0
    box.open(limits=Limits(memory=200 << 20))
    assert box.py(f"{MAP}\nimport time\ntime.sleep(20)", "300").ended.limit == "memory"
    several = (
        f"{MAP}\nimport os, time\nfor _ in range(3):\n    if os.fork() == 0: break\nsum(held[::4096])\ntime.sleep(1)"
    )
    assert box.py(several, "120").returncode == 0


@pytest.mark.parametrize("words", [["yes"], ["head", "-c", "10G", "/dev/zero"]], ids=["yes", "10 GB"])
def test_output_without_end_is_ended_at_its_limit(box: Box, words: list[str]) -> None:
    box.open()
    assert box.run(["sh", "-c", f"{' '.join(words)} | head -c 50000000"]).dropped > 48_000_000
    box.open(limits=Limits(output_size=5_000_000))
    result = box.run(words)
    assert (result.ended.limit, result.timed_out) == ("output_size", False)
    assert len(result.stdout) + result.dropped < 100_000_000  # some is on its way while it is being ended


def test_a_file_of_10_gb_stays_below_its_limit(box: Box) -> None:
    path = f"{box.ws}/big"
    assert box.free(["head", "-c", "3M", "/dev/zero"]).dropped == 2 << 20
    box.open(limits=Limits(file_size=1 << 20))
    result = box.run(["sh", "-c", "exec head -c 10G /dev/zero > big"])
    assert (result.ended.limit, os.path.getsize(path)) == ("file_size", 1 << 20)


def test_a_daemon_that_forks_twice_ends_with_its_command(box: Box, fifo: Callable[[str], Fifo]) -> None:
    for words, limits in ((["go"], None), (["stay"], Limits(cpu_time=0.5))):
        control, gone = fifo(f"{box.base}/{words[0]}"), fifo(f"{box.ws}/{words[0]}")
        assert box.free_py(DAEMON, control.path, "go").returncode == 0
        assert (control.read(), control.read(0.2)) == (b"x", None), "it goes on"
        box.end_strays()
        box.open(limits=limits)
        assert box.py(DAEMON, gone.path, *words).ended.limit == ("" if limits is None else "cpu_time")
        assert (gone.read(), gone.read()) == (b"x", b"")
