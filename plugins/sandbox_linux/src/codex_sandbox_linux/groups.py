"""Outside: let the kernel count for a jail as a whole, by control groups where they are ours to make (cgroups(7)).

Version 2 only.  Groups can be made below the one that this process was started in, where systemd or an administrator
has delegated it.  What one counts is exact: memory that is shared or swapped out, the time of processes that nobody
waited for, threads.  Nothing here is touched as long as no limit asks for it.

::

    BASE                  the group that codex was started in
      codex-outside       codex and its helpers: a group that hands controllers down holds no processes itself
      codex-jail-RANDOM   one jail, with one command at a time

A jail's group is locked (flock(2)) by the process that made it.  So one whose lock can be had was left behind by a
process that was killed, whatever its number was and in whichever pid namespace, and is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from codex_sandbox_linux import kernel
from codex_sandbox_linux.ending import descendants
from codex_sandbox_linux.usage import INTERVAL

if TYPE_CHECKING:
    from collections.abc import Collection

    from codex_core.types import Limits

_OUTSIDE: Final = "codex-outside"
_JAIL: Final = "codex-jail-"
_CONTROLLERS: Final = {"memory": "memory", "processes": "pids"}
"""The limits that need one; what is used of the processor is counted for every group."""
_EVENTS: Final = {"memory": ("memory.events", "oom"), "processes": ("pids.events", "max")}
_LITTLE: Final = 1 << 20
_PATIENCE: Final = 2.0
"""Seconds in which what was killed has to be gone."""
_BREATH: Final = 0.001
_TRIES: Final = 5
_CURE: Final = "start codex with `systemd-run --user --scope -p Delegate=yes`"


@dataclass(frozen=True, slots=True)
class Groups:
    """What control groups can do for the jails of one launcher."""

    base: str = ""
    kept: frozenset[str] = frozenset()
    """The fields of :class:`codex_core.types.Limits` that a group keeps."""
    why: str = ""
    """What stands in the way of the others."""

    def enclose(self, pidfd: int, limits: Limits) -> Group | None:
        """Put a process, and with it all that it will start, into a group of its own; None where none is of use.

        What it holds already is not counted.  Raises OSError.
        """
        if not self.kept:
            return None
        group = Group(self.base, limits, self.kept)
        try:
            group.take(pidfd)
        except BaseException:
            group.close()
            raise
        return group


def find(limits: Limits) -> Groups:
    """Find out, by doing it, which of *limits* control groups can keep here; remove what killed processes have left."""
    wanted = {name for name in ("cpu_time", *_CONTROLLERS) if getattr(limits, name) is not None}
    if not wanted:
        return Groups()
    try:
        base = _base()
        _sweep(base)
        missing = _enable(base, {controller for name, controller in _CONTROLLERS.items() if name in wanted})
        kept = frozenset(name for name in wanted if _CONTROLLERS.get(name) not in missing)
        Group(base, limits, kept).close()
    except OSError as error:
        return Groups(why=f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    why = f"{base} has no controller for it" if missing else ""
    return Groups(base, kept, why)


class Group:
    """The control group of one jail."""

    def __init__(self, base: str, limits: Limits, kept: Collection[str]) -> None:
        """Make an empty group below *base* that keeps those *limits* whose names are in *kept*; raises OSError."""
        self._folder, self._lock = _make(base)
        self._limits = limits
        self._events: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._cpu = self._timer = self._killing = -1
        try:
            # Opened before anything runs in it: where there are no namespaces, a command can close the file to us.
            with contextlib.suppress(FileNotFoundError):
                self._killing = os.open(f"{self._folder}/cgroup.kill", os.O_WRONLY)
            self._confine(kept)
        except BaseException:
            self.close()
            raise

    def _confine(self, kept: Collection[str]) -> None:
        for name in _EVENTS.keys() & kept:
            self._events[name] = os.open(f"{self._folder}/{_EVENTS[name][0]}", os.O_RDONLY)
            self._before[name] = self._counted(name)
        if "memory" in kept:
            _write(f"{self._folder}/memory.max", f"{self._limits.memory}")
            with contextlib.suppress(FileNotFoundError):  # a kernel that does not account for swap
                _write(f"{self._folder}/memory.swap.max", "0")
            _write(f"{self._folder}/memory.oom.group", "1")
        if "processes" in kept:
            _write(f"{self._folder}/pids.max", f"{1 + (self._limits.processes or 0)}")  # the jail itself is one
        if "cpu_time" in kept:
            self._cpu = os.open(f"{self._folder}/cpu.stat", os.O_RDONLY)
            self._timer = kernel.timer()

    def take(self, pidfd: int) -> None:
        """Move a process into this group; raises OSError."""
        _write(f"{self._folder}/cgroup.procs", str(_pid(pidfd)))
        _pid(pidfd)  # it is still there, so the number was its own

    def watch(self, epoll: select.epoll) -> None:
        """Let *epoll* say when :meth:`exceeded` is to be asked."""
        for descriptor in self._events.values():
            epoll.register(descriptor, select.EPOLLPRI)
        if self._timer >= 0:
            epoll.register(self._timer, select.EPOLLIN)

    def begin(self) -> None:
        """Count for a new command."""
        for name in self._events:
            self._before[name] = self._counted(name)
        if self._timer >= 0:
            self._before["cpu_time"] = self._counted("cpu_time")
            kernel.set_timer(self._timer, INTERVAL)

    def exceeded(self) -> str:
        """Name the limit that the command has gone over; empty where it has not."""
        for name in self._events:
            if self._counted(name) > self._before[name]:
                return name
        if self._timer >= 0:
            with contextlib.suppress(BlockingIOError):
                os.read(self._timer, 8)
            spent = (self._counted("cpu_time") - self._before["cpu_time"]) / 1_000_000
            if spent > (self._limits.cpu_time or 0):
                return "cpu_time"
        return ""

    def end(self) -> None:
        """Stop counting: the command has ended."""
        if self._timer >= 0:
            kernel.set_timer(self._timer, 0)

    def is_burdened(self) -> bool:
        """Whether what ended commands have left in memory, as files in /tmp may be, would count for the next one."""
        if "memory" not in self._events:
            return False
        return _field(_read(f"{self._folder}/memory.stat"), "shmem") > _LITTLE

    def _counted(self, name: str) -> int:
        descriptor, field = (self._cpu, "usage_usec") if name == "cpu_time" else (self._events[name], _EVENTS[name][1])
        return _field(os.pread(descriptor, 4096, 0).decode("ascii"), field)

    def kill(self) -> None:
        """Kill everything in the group at once."""
        with contextlib.suppress(OSError):  # it was removed with the launcher
            _kill(self._folder, self._killing)

    def close(self) -> None:
        """Kill what is in the group, wait for its end, and remove the group."""
        _remove(self._folder, self._killing)
        for descriptor in (*self._events.values(), self._cpu, self._timer, self._killing, self._lock):
            if descriptor >= 0:
                os.close(descriptor)


def _base() -> str:
    """Find the folder of the group that codex was started in."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split() for line in file if " - cgroup2 " in line]
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "")
    if not mounts or not own:
        raise _refusal("no control groups of version 2 are mounted here")
    root, point = mounts[0][3:5]
    relative = os.path.relpath(own, root)
    if relative.startswith(".."):
        raise _refusal(f"the control group of this process is not to be seen below {point}")
    folder = os.path.normpath(os.path.join(point, relative))
    return os.path.dirname(folder) if os.path.basename(folder) == _OUTSIDE else folder


def _enable(base: str, wanted: set[str]) -> set[str]:
    """Let groups below *base* have the controllers *wanted*; those that it cannot give."""
    if not os.access(f"{base}/cgroup.procs", os.W_OK):
        raise _refusal(f"the control group {base} is not delegated to this user: {_CURE}")
    available = wanted & set(_read(f"{base}/cgroup.controllers").split())
    new = available - set(_read(f"{base}/cgroup.subtree_control").split())
    if new:
        if os.path.exists(f"{base}/cgroup.type"):  # it is not the root of all, which may hold processes
            _move_out(base)
        _write(f"{base}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(new)))
    return wanted - available


def _move_out(base: str) -> None:
    """Leave *base*, with what this process has started, for a group beside the jails."""
    ours = {os.getpid(), *(pid for pid, _ in descendants(os.getpid()))}
    there = set(map(int, _read(f"{base}/cgroup.procs").split()))
    if there - ours:
        raise _refusal(f"the control group {base} holds other processes than codex: {_CURE}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{base}/{_OUTSIDE}")
    for pid in there:
        with contextlib.suppress(ProcessLookupError):
            _write(f"{base}/{_OUTSIDE}/cgroup.procs", str(pid))


def _make(base: str) -> tuple[str, int]:
    """Make a group that nobody else takes for one that was left behind; its folder, and a descriptor with the lock."""
    for _ in range(_TRIES):
        folder = f"{base}/{_JAIL}{os.urandom(6).hex()}"
        os.mkdir(folder)
        with contextlib.suppress(FileNotFoundError, BlockingIOError):  # somebody sweeps at this very moment
            return folder, _locked(folder)
        _remove(folder)
    raise _refusal(f"control groups below {base} are locked by somebody else")


def _locked(folder: str) -> int:
    """Lock a group for as long as this process lives; raises BlockingIOError where another one does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(base: str) -> None:
    """Remove the groups of processes that were killed."""
    for name in os.listdir(base):
        if name.startswith(_JAIL):
            with contextlib.suppress(OSError):  # somebody uses it, or has just removed it
                lock = _locked(f"{base}/{name}")
                _remove(f"{base}/{name}")
                os.close(lock)


def _remove(folder: str, killing: int = -1) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            os.rmdir(folder)
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
        else:
            return
        with contextlib.suppress(OSError):
            _kill(folder, killing)
        time.sleep(_BREATH)


def _kill(folder: str, killing: int) -> None:
    """Kill everything in a group, however fast it forks where the kernel has cgroup.kill (Linux 5.14).

    *killing* is that file, opened, or -1; raises OSError.
    """
    try:
        if killing >= 0:
            os.write(killing, b"1")
        else:
            _write(f"{folder}/cgroup.kill", "1")
    except FileNotFoundError:
        for pid in map(int, _read(f"{folder}/cgroup.procs").split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pid(pidfd: int) -> int:
    """Give the number of a process as it is in our pid namespace; raises ProcessLookupError once it is gone."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
    if pid <= 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), "jail")
    return pid


def _field(text: str, name: str) -> int:
    return next(int(value) for key, value in map(str.split, text.splitlines()) if key == name)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _refusal(reason: str) -> OSError:
    return OSError(errno.ENOTSUP, reason)
