"""Outside: protected names that do not exist yet, and what happens to them when they appear.

They cannot be mounted over without leaving something in the user's tree.  So the few folders where
such a name would count are watched (inotify(7)), and looked at once more when the command has ended:
what has appeared is moved to the quarantine in the home of codex and reported.  Nothing is lost, and
no tool outside the sandbox finds it where it would be believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from codex_core.types import Denial, Operation

from codex_sandbox_linux.plan import is_below

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy

_IN_CREATE_OR_MOVED_TO: Final = 0x100 | 0x80
_IN_ONLYDIR: Final = 0x0100_0000
_IN_NONBLOCK_CLOEXEC: Final = 0o2004000
_EVENT: Final = struct.Struct("<iIII")  # watch, mask, cookie, length of the name
_READ_SIZE: Final = 65536

_Identity = tuple[int, int] | None


class Watch:
    """Watches one policy's protected paths.  Safe to use from several threads."""

    def __init__(self, policy: SandboxPolicy) -> None:
        """Watch for paths that appear."""
        self._policy = policy
        self._replaced = False
        self._lock = threading.Lock()
        self._folders: dict[int, str] = {}
        self._leftovers: list[tuple[str, str]] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(_IN_NONBLOCK_CLOEXEC)
        self._known = self._look()
        self._arm()

    def fileno(self) -> int:
        """Give a descriptor that polls readable when something appeared; -1 where the host has no watches left."""
        return int(self._inotify)

    def look_for_replacements(self) -> None:
        """Also watch for something else in the place of a path that exists.

        Where it is mounted read-only, that can only have been put there by moving a folder above it away.
        """
        self._replaced = True

    def close(self) -> None:
        """Stop watching."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1

    def has_changed(self) -> bool:
        """Whether, since the last look, protected paths were made, removed or replaced by somebody outside."""
        with self._lock:
            before, self._known = self._known, self._look()
            return before != self._known

    def handle(self) -> list[Denial]:
        """Move away what has appeared, without waiting."""
        with self._lock:
            return [self._quarantine(path) for path in self._appeared()]

    def settle(self) -> list[Denial]:
        """Do the same, and finish what could not be finished while the command was running."""
        denials = self.handle()
        with self._lock:
            for hidden, target in self._leftovers:
                with contextlib.suppress(OSError):
                    shutil.move(hidden, target)
            self._leftovers.clear()
        return denials

    def _look(self) -> dict[str, _Identity]:
        return {path: _identity(path) for path in self._policy.protected}

    def _arm(self) -> None:
        folders = {root for root in self._policy.writable_roots if os.path.isdir(root)}
        folders |= {_nearest_folder(path) for path, identity in self._known.items() if identity is None}
        for folder in folders:
            mask = _IN_CREATE_OR_MOVED_TO | _IN_ONLYDIR
            watch = self._libc.inotify_add_watch(self._inotify, os.fsencode(folder), ctypes.c_uint32(mask))
            if watch >= 0:
                self._folders[watch] = folder

    def _appeared(self) -> list[str]:
        names = self._read_names()
        appeared = {path for path in names if self._known.get(path) is None}
        for path, identity in self._known.items():
            now = _identity(path)
            if now is not None and now != identity and (identity is None or self._replaced):
                appeared.add(path)
        if names or appeared:
            self._arm()
        return sorted(path for path in appeared if os.path.lexists(path))

    def _read_names(self) -> list[str]:
        """Give the paths of protected names that were made directly in a writable root, in whatever case."""
        found: list[str] = []
        while True:
            try:
                events = os.read(self._inotify, _READ_SIZE)
            except OSError:
                return found
            offset = 0
            while offset < len(events):
                watch, _, _, length = _EVENT.unpack_from(events, offset)
                name = os.fsdecode(events[offset + _EVENT.size :][:length].rstrip(b"\0"))
                offset += _EVENT.size + length
                folder = self._folders.get(watch, "")
                if folder in self._policy.writable_roots and name.casefold() in self._policy.protected_names:
                    found.append(os.path.join(folder, name))

    def _quarantine(self, path: str) -> Denial:
        name = os.path.basename(path)
        hidden = f"{path}.quarantined-{os.urandom(4).hex()}"
        folder = os.path.join(self._policy.quarantine, f"{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(4).hex()}")
        target = os.path.join(folder, name)
        try:
            os.rename(path, hidden)  # at once, and possible wherever the name could be made
            os.makedirs(folder, mode=0o700)
            os.rename(hidden, target)
        except OSError as error:
            if error.errno == errno.EXDEV:  # copied when nobody can write to it any more
                self._leftovers.append((hidden, target))
            else:
                target = hidden
        self._known.update({closed: _identity(closed) for closed in self._known if is_below(folder, closed)})
        rule = f"{name} is protected; what was made there has been moved to {target}"
        return Denial(Operation.WRITE, path, rule, "make it yourself, outside the sandbox")


def _identity(path: str) -> _Identity:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _nearest_folder(path: str) -> str:
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    return folder
