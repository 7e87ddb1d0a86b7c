"""Outside: the unix sockets of other programs that the policy lets commands reach."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from codex_sandbox_linux import kernel
from codex_sandbox_linux.plan import is_below

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy

_Identity = tuple[int, int] | None


class AllowedSockets:
    """Knows the listed sockets by their inode, found without following links.

    A server that starts again makes a new one, so the path is looked up at every question.  Where a command
    could put something else in its place, below a writable root, only what stood there at the start counts.
    """

    def __init__(self, policy: SandboxPolicy) -> None:
        """Look at all that exist."""
        roots = policy.writable_roots
        self._paths = [path for path in policy.allowed_unix_sockets if not any(is_below(path, root) for root in roots)]
        self._kept: list[int] = []
        """Open, so that no other file gets their inode numbers."""
        for path in set(policy.allowed_unix_sockets) - set(self._paths):
            try:
                self._kept.append(_open(path))
            except OSError:
                continue

    def hold(self, descriptor: int) -> bool:
        """Whether an opened file (O_PATH) is one of them."""
        wanted = _identity(descriptor)
        return wanted is not None and (
            any(_identity(kept) == wanted for kept in self._kept) or any(_look(path) == wanted for path in self._paths)
        )

    def close(self) -> None:
        """Let go; idempotent."""
        while self._kept:
            os.close(self._kept.pop())


def _open(path: str) -> int:
    folder = kernel.open_folder(os.path.dirname(path))
    try:
        return os.open(os.path.basename(path), os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def _look(path: str) -> _Identity:
    try:
        opened = _open(path)
    except OSError:
        return None
    try:
        return _identity(opened)
    finally:
        os.close(opened)


def _identity(descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None
