"""End all processes below this one, which collects orphans (PR_SET_CHILD_SUBREAPER) or is an init process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_BREATH: Final = 0.0002
"""Seconds that killed processes get to be gone before the next look."""
_PATIENCE: Final = 2.0
"""Seconds of chasing processes that change their number faster than /proc can be read."""


def kill_below(*, at_once: bool, without: Container[int] = ()) -> Iterator[tuple[int, int]]:
    """Kill and collect everything below; yields pid and wait status of each child that ended.

    *at_once* says that this process can signal nothing else, because of a pid namespace or of Landlock:
    then one system call reaches everything, however fast it forks.  Elsewhere it is a chase, given up
    after two seconds; the trees of the processes in *without* are left alone.
    """
    deadline = time.monotonic() + _PATIENCE
    while (_kill_everything() if at_once else _kill_descendants(without)) and time.monotonic() < deadline:
        yield from ended_children()
        time.sleep(_BREATH)


def ended_children() -> Iterator[tuple[int, int]]:
    """Collect the children that have ended or stopped, with their wait status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _kill_everything() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # orphans come to us: without children there is nothing below
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    return True


def _kill_descendants(without: Container[int]) -> bool:
    own_group = os.getpgrp()
    below = descendants(os.getpid(), without)
    for pid, group in below:
        # The whole group dies at once, whatever it forks in the meantime.
        for target in (-group, pid) if group not in {0, 1, own_group} else (pid,):
            try:
                os.kill(target, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
    return bool(below)


def descendants(ancestor: int, without: Container[int] = ()) -> list[tuple[int, int]]:
    """List pid and process group of the processes below *ancestor*, but for the trees of *without*."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in without:
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append((int(name), int(fields[2])))
    found: list[tuple[int, int]] = []
    waiting = [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [pid for pid, _ in below]
    return found
