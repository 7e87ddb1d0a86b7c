"""Inside: keep the limits of one command and everything that it starts.

The kernel keeps what it knows for each process (setrlimit(2)).  What counts for all of them together
is looked at twenty times a second: control groups could keep it, but are seldom given to a user.
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


def confine(limits: Limits) -> None:
    """Set, for this process and all that come from it, the limits that the kernel keeps."""
    for kind, most in ((resource.RLIMIT_NOFILE, limits.open_files), (resource.RLIMIT_FSIZE, limits.file_size)):
        if most is not None:
            _, hard = resource.getrlimit(kind)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (bound, bound))


class Meter:
    """Adds up what the processes of one command use."""

    def __init__(self, limits: Limits) -> None:
        """Begin to count for a command that is about to start."""
        self._limits = limits
        self._before = _reaped_seconds()
        self.is_needed = any(most is not None for most in (limits.cpu_time, limits.memory, limits.processes))

    def exceeded(self) -> str:
        """Name the limit that is exceeded; empty where none is."""
        count, pages, ticks = 0, 0, 0
        own = int(os.readlink("/proc/self"))  # not what getpid(2) says where /proc is that of the host
        for pid, _ in descendants(own):
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    times = file.read().rpartition(b")")[2].split()[11:15]
                with open(f"/proc/{pid}/statm", "rb") as file:
                    _, resident, shared, *_ = file.read().split()
            except OSError:  # it has just ended
                continue
            count += 1
            pages += int(resident) - int(shared)
            ticks += sum(map(int, times))
        seconds = ticks / _TICK + _reaped_seconds() - self._before
        used = (("cpu_time", seconds), ("memory", pages * _PAGE), ("processes", count))
        for name, amount in used:
            most = getattr(self._limits, name)
            if most is not None and amount > most:
                return name
        return ""


def _reaped_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
