"""Inside: keep the limits of one command and everything that it starts.

The kernel keeps what it knows for each process (setrlimit(2)).  What counts for all of them together is looked at
twenty times a second, unless a control group keeps it (:mod:`codex_sandbox_linux.groups`).
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Final

from codex_sandbox_linux.ending import descendants

if TYPE_CHECKING:
    from codex_core.types import Limits

INTERVAL: Final = 0.05
"""Seconds between two looks."""
LIMITS: Final = ("wall_time", "cpu_time", "memory", "processes", "open_files", "file_size", "output_size")
"""The fields of :class:`codex_core.types.Limits`, in the order of their numbers on the channel."""
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGESIZE")


def confine(limits: Limits, *, counted_apart: bool) -> None:
    """Set, for this process and all that come from it, the limits that the kernel keeps.

    Where the processes of this user here are *counted_apart* from those elsewhere, in a user namespace, a bomb gets
    no further than one above its limit, and the next look ends it.  For root the kernel does not do that.
    """
    bomb = 2 + limits.processes if counted_apart and limits.processes is not None else None
    kinds = (
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NPROC, bomb),
    )
    for kind, most in kinds:
        if most is not None:
            _, hard = resource.getrlimit(kind)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (bound, bound))


class Meter:
    """Adds up what the processes of one command use."""

    def __init__(self, limits: Limits) -> None:
        """Begin to count for a command that is about to start."""
        self._limits = limits
        self.is_needed = any(most is not None for most in (limits.cpu_time, limits.memory, limits.processes))
        self._before = _reaped_seconds() if self.is_needed else 0.0

    def exceeded(self) -> str:
        """Name the limit that is exceeded; empty where none is."""
        threads, resident, ticks = 0, 0, 0
        private: dict[int, int] = {}
        own = int(os.readlink("/proc/self"))  # not what getpid(2) says where /proc is that of the host
        most = self._limits.processes
        if most is not None and own == 1 and sum(map(str.isdigit, os.listdir("/proc"))) - 1 > most:
            return "processes"  # a bomb grows faster than its processes can be looked at one by one
        for pid, _ in descendants(own):
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                with open(f"/proc/{pid}/statm", "rb") as file:
                    _, pages, shared, *_ = map(int, file.read().split())
            except OSError:  # it has just ended
                continue
            threads += int(fields[17])
            resident += pages * _PAGE
            private[pid] = (pages - shared) * _PAGE
            ticks += sum(map(int, fields[11:15]))
        memory = resident  # with files: only where that is too much is it worth to know better
        if self._limits.memory is not None and memory > self._limits.memory:
            memory = sum(_held(pid, least) for pid, least in private.items())
        seconds = ticks / _TICK + _reaped_seconds() - self._before
        used = (("cpu_time", seconds), ("memory", memory), ("processes", threads))
        for name, amount in used:
            most = getattr(self._limits, name)
            if most is not None and amount > most:
                return name
        return ""


def _held(pid: int, least: int) -> int:
    """Give the memory of a process that is not files, with its part of what it shares; *least* if it is not told."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            kilobytes = {line.split()[0]: int(line.split()[1]) for line in file.readlines()[1:]}
    except OSError:  # it has ended, or has closed itself (PR_SET_DUMPABLE)
        return least
    return 1024 * (kilobytes[b"Pss_Anon:"] + kilobytes[b"Pss_Shmem:"] + kilobytes[b"SwapPss:"])


def _reaped_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
