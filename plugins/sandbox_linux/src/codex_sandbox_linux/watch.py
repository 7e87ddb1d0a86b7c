"""Outside: protected names that do not exist yet, and what happens to them when they appear.

They cannot be mounted over without leaving something in the user's tree.  So the few folders where
such a name would count are watched (inotify(7)), and looked at once more when the command has ended:
what has appeared is renamed at once, moved to the quarantine in the home of codex when nothing runs any
more, and reported.  Nothing is lost, and no tool outside the sandbox finds it where it would be believed.

We act with rights that the command lacks, in folders where it can act too.  So every step goes through
the descriptor of a folder that was opened without following a link, nothing is made inside a writable
root while a command runs, and nothing is moved out of its folder while a process may be standing in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from codex_core.errors import SandboxUnavailableError
from codex_core.types import Denial, Operation

from codex_sandbox_linux import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codex_core.sandbox.policy import SandboxPolicy

_IN_CREATE_OR_MOVED_TO: Final = 0x100 | 0x80
_IN_Q_OVERFLOW: Final = 0x4000
_IN_ONLYDIR: Final = 0x0100_0000
_IN_NONBLOCK_CLOEXEC: Final = 0o2004000
_EVENT: Final = struct.Struct("<iIII")  # watch, mask, cookie, length of the name
_BARE: Final = ("HEAD", "objects", "refs")
"""What git takes for a repository (gitrepository-layout(5)), where it is named, and where it stands in a folder."""
_FEW_ENTRIES: Final = 1000
_FEW_BYTES: Final = 16 << 20
_FEW_LEVELS: Final = 50
_READ_SIZE: Final = 65536

_Identity = tuple[int, int] | None


class Watch:
    """Watches one policy's protected paths.  Safe to use from several threads."""

    def __init__(self, policy: SandboxPolicy) -> None:
        """Watch for paths that appear.

        Makes the home of codex where it is missing and a command could make it otherwise; raises
        SandboxUnavailableError where it cannot.
        """
        home = os.path.dirname(policy.quarantine)
        if home in policy.protected:
            try:
                os.makedirs(home, mode=0o700, exist_ok=True)
            except OSError as error:
                msg = f"the home of codex, {home!r}, cannot be made: {error.strerror}"
                raise SandboxUnavailableError(msg) from error
        self._policy = policy
        self._replaced = False
        self._lock = threading.Lock()
        self._folders: dict[int, str] = {}
        self._leftovers: list[tuple[str, str, str]] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = int(self._libc.inotify_init1(_IN_NONBLOCK_CLOEXEC))
        self._overflowed = self._inotify < 0
        self._parts = {root: [f"{root}/{name}" for name in _BARE] for root in policy.writable_roots}
        self._known = self._look()
        self._seen = self._glance()
        self._bare = self._bare_roots()
        self._arm()

    def fileno(self) -> int:
        """Give a descriptor that polls readable when something appeared; -1 where the host has no watches left."""
        return self._inotify

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
        """Whether, since the last look, protected paths were made, removed or replaced by somebody outside.

        To be asked only while no command runs.
        """
        with self._lock:
            self._bare = self._bare_roots()
            before, self._seen = self._seen, self._glance()
            if before == self._seen:
                return False
            self._known = self._look()
            return True

    def handle(self, *, ended: bool = False) -> list[Denial]:
        """Rename what has appeared, without waiting; look everywhere when the command has *ended*."""
        with self._lock:
            names = self._read_names()
            while ended and not self._overflowed and (more := self._read_names()) is not None:
                names = [*(names or []), *more]
            if names is None and not ended:
                return []
            return [self._disarm(path) for path in self._appeared(names or [])]

    def settle(self) -> None:
        """Move what was renamed to the quarantine; to be called when no command runs."""
        with self._lock:
            leftovers, self._leftovers = self._leftovers, []
            for folder, hidden, target in leftovers:
                with contextlib.suppress(OSError), _opened(folder) as parent, _writable(parent):
                    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                    with _opened_entry(hidden, parent) as entry, _writable(entry):  # moving changes its ".."
                        # Nobody is left who could swap the name: now a path will do.
                        _move(os.path.join(folder, hidden), target)

    def _look(self) -> dict[str, _Identity]:
        return {path: _identity(path) for path in self._policy.protected}

    def _glance(self) -> dict[str, tuple[_Identity, int]]:
        """Look without opening anything, for the time of change too: what is made anew may get the old number."""
        return {path: _quick_identity(path) for path in self._policy.protected}

    def _arm(self) -> None:
        folders = {root for root in self._policy.writable_roots if os.path.isdir(root)}
        folders |= {_nearest_folder(path) for path, identity in self._known.items() if identity is None}
        for folder in folders:
            mask = _IN_CREATE_OR_MOVED_TO | _IN_ONLYDIR
            watch = self._libc.inotify_add_watch(self._inotify, os.fsencode(folder), ctypes.c_uint32(mask))
            if watch >= 0:
                self._folders[watch] = folder

    def _changes(self) -> list[str]:
        """Give the protected paths that do not look as they did; a link on the way can be the reason."""
        return [path for path, before in self._known.items() if _quick_identity(path)[0] != before]

    def _appeared(self, names: list[str]) -> list[str]:
        appeared = {path for path in names if self._known.get(path) is None and _identity(path) is not None}
        for path in self._changes():
            before, now = self._known[path], _identity(path)
            if now is not None and now != before and (before is None or self._replaced):
                appeared.add(path)
        appeared |= {os.path.join(root, "HEAD") for root in self._bare_roots() - self._bare}
        if appeared:
            self._arm()
        return sorted(appeared)

    def _bare_roots(self) -> set[str]:
        """Give the writable roots that git takes for a repository themselves."""
        return {root for root, parts in self._parts.items() if all(map(os.path.lexists, parts))}

    def _read_names(self) -> list[str] | None:
        """Give the paths of protected names that were made directly in a writable root, in whatever case.

        None where nothing at all was made in any watched folder.
        """
        found: list[str] | None = None
        try:
            events = os.read(self._inotify, _READ_SIZE)
        except OSError:
            events = b""
        offset = 0
        while offset < len(events):
            found = found or []
            watch, mask, _, length = _EVENT.unpack_from(events, offset)
            name = os.fsdecode(events[offset + _EVENT.size :][:length].rstrip(b"\0"))
            offset += _EVENT.size + length
            self._overflowed |= bool(mask & _IN_Q_OVERFLOW)
            folder = self._folders.get(watch, "")
            if folder in self._policy.writable_roots and self._is_protected(name):
                found.append(os.path.join(folder, name))
        if self._overflowed:
            self._overflowed = self._inotify < 0
            found = (found or []) + [path for root in self._policy.writable_roots for path in self._listed(root)]
        return found

    def _listed(self, root: str) -> list[str]:
        try:
            return [os.path.join(root, name) for name in os.listdir(root) if self._is_protected(name)]
        except OSError:
            return []

    def _is_protected(self, name: str) -> bool:
        return name.casefold() in self._policy.protected_names

    def _disarm(self, path: str) -> Denial:
        folder, name = os.path.split(path)
        hidden = f"{name}.quarantined-{os.urandom(4).hex()}"
        moment = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(4).hex()}"
        target = os.path.join(self._policy.quarantine, moment, name)
        try:
            with _opened(folder) as parent, _writable(parent):
                os.rename(name, hidden, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            why = error.strerror
            rule = f"{name} is protected, and what was made there could not be moved away ({why}): do not trust it"
        else:
            self._leftovers.append((folder, hidden, target))
            rule = f"{name} is protected; what was made there is moved to {target}"
        return Denial(Operation.WRITE, path, rule, "make it yourself, outside the sandbox")


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = kernel.open_folder(folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened_entry(name: str, parent: int) -> Iterator[int]:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writable(descriptor: int) -> Iterator[None]:
    """Open a folder of ours that the command, which has the same user, may have closed; nothing for a file."""
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or mode & stat.S_IRWXU == stat.S_IRWXU or status.st_uid != os.geteuid():
        yield
        return
    path = f"/proc/self/fd/{descriptor}"  # chmod(2) takes no O_PATH descriptor
    os.chmod(path, mode | stat.S_IRWXU)
    try:
        yield
    finally:
        os.chmod(path, mode)


def _move(path: str, target: str) -> None:
    """Move to the quarantine; what is on another file system only if a copy of it costs little."""
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno == errno.EXDEV and _is_small(path):
            import shutil

            shutil.move(path, target)


def _is_small(path: str) -> bool:
    size, entries, depth = os.lstat(path).st_size, 1, path.count("/")
    for folder, folders, files in os.walk(path):
        entries += len(folders) + len(files)
        size += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
        if entries > _FEW_ENTRIES or size > _FEW_BYTES or folder.count("/") - depth > _FEW_LEVELS:
            return False
    return size <= _FEW_BYTES  # of a file, nothing was walked


def _quick_identity(path: str) -> tuple[_Identity, int]:
    """Give device and inode of what is at *path*, and when it was changed."""
    try:
        status = os.lstat(path)
    except OSError:
        return None, 0
    return (status.st_dev, status.st_ino), status.st_ctime_ns


def _identity(path: str) -> _Identity:
    """Give device and inode of what is at *path*; None where nothing is, or a link has come into the way."""
    folder, name = os.path.split(path)
    try:
        with _opened(folder) as parent:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _nearest_folder(path: str) -> str:
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    return folder
