"""Opening devices that act on the whole machine; nothing is written to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import gained

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World


def a_serial_line(world: World) -> None:
    """Often the console of a virtual machine."""
    _open(world, "/dev/ttyS0", os.O_RDWR)


def forgetting_caches(world: World) -> None:
    """proc_sys_vm(5)."""
    _open(world, "/proc/sys/vm/drop_caches", os.O_WRONLY)


def swapping(world: World) -> None:
    """proc_sys_vm(5)."""
    _open(world, "/proc/sys/vm/swappiness", os.O_WRONLY)


def merging_memory(world: World) -> None:
    """Kernel samepage merging tells what other processes hold (by the time that a write takes)."""
    _open(world, "/sys/kernel/mm/ksm/run", os.O_WRONLY)


def being_spared_when_memory_ends(world: World) -> None:
    """proc_pid_oom_score_adj(5)."""
    _open(world, "/proc/self/oom_score_adj", os.O_WRONLY)


def _open(world: World, path: str, flags: int) -> None:
    del world
    gained(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
