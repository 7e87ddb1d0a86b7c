"""A command that goes over a limit is ended with all that it started, and the result names the limit."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.policy import SandboxSettings, build_policy
from codex_core.sandbox.runner import run
from codex_core.types import Command, Limits, SandboxMode
from codex_sandbox_linux.forge import HelperForge
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from pathlib import Path

    from codex_core.types import CommandResult

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


def test_nothing_of_a_command_that_was_ended_for_a_limit_goes_on(tmp_path: Path) -> None:
    marker = tmp_path / "ticks"
    detached = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        while True:\n            open({str(marker)!r}, 'a').write('.'); time.sleep(0.01)\n"
        "    os._exit(0)\nend = time.time() + 20\nwhile time.time() < end: pass"
    )
    result = limited(tmp_path, detached, Limits(cpu_time=0.4))
    assert result.ended.limit == "cpu_time"
    size = marker.stat().st_size
    assert size > 0
    time.sleep(0.3)
    assert marker.stat().st_size == size
