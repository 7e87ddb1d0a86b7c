"""Change files as a patch says: all of them or none, each at once, and never through a link.

Every folder on the way is opened without following links, and what is done is done in the folder that
was opened.  A second process that puts a link in the place of a folder meanwhile gains nothing.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.agent.patch import AddFile, DeleteFile, UpdateFile, new_file, updated
from codex_core.errors import NotPermittedError, PatchError
from codex_core.types import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from codex_core.agent.patch import Change
    from codex_core.sandbox.policy import SandboxPolicy

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_RIGHTS = 0o7777


@dataclass(frozen=True, slots=True)
class _Place:
    """A name in a folder that is held open."""

    folder: int
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class _Original:
    """A file as it was found."""

    content: bytes
    status: os.stat_result

    def is_still_at(self, place: _Place) -> bool:
        try:
            now = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        except OSError:
            return False
        return all(
            getattr(now, name) == getattr(self.status, name) for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
        )


def absolute(path: str, cwd: str) -> str:
    """Give the path that a patch means, run in *cwd*; ``..`` goes up by name, not through links."""
    return os.path.normpath(os.path.join(cwd, path))


def apply(
    changes: Sequence[Change], *, cwd: str, policy: SandboxPolicy, anywhere: bool = False
) -> tuple[tuple[str, str], ...]:
    """Apply *changes*, and give what was done: ``A``, ``M`` or ``D``, and the path as the patch spells it.

    With *anywhere*, because a person said so, files outside the writable roots may be changed too.

    Raises PatchError where a change does not fit or the disk refuses, NotPermittedError where *policy*
    does; all files are then as before.
    """
    with ExitStack() as held:
        work = _Work(held, policy, anywhere=anywhere)
        try:
            for change in changes:
                work.prepare(change, cwd)
            work.commit()
        except OSError as error:
            work.undo()
            raise PatchError(f"{work.at}: {error.strerror}; nothing was changed") from error
        except BaseException:
            work.undo()
            raise
        work.tidy()
        return tuple(work.done)


def preview(changes: Sequence[Change], *, cwd: str, policy: SandboxPolicy) -> str:
    """Give what *changes* would do to the files as they are now, as a unified diff; nothing is written.

    Raises as :func:`apply`, so that nobody is asked about a patch that does not fit.
    """
    with ExitStack() as held:
        work = _Work(held, policy, anywhere=True)
        try:
            return "\n".join(line for change in changes for line in work.difference(change, cwd))
        except OSError as error:
            raise PatchError(f"{work.at}: {error.strerror}; nothing was changed") from error


class _Work:
    def __init__(self, held: ExitStack, policy: SandboxPolicy, *, anywhere: bool) -> None:
        self.held = held
        self.policy = policy
        self.anywhere = anywhere
        self.at = ""
        """The file that is being worked on."""
        self.staged: list[_Place] = []
        """Temporary files that have not taken their place yet."""
        self.folders: list[tuple[int, str]] = []
        """Folders that were made."""
        self.steps: list[tuple[str, Callable[[], None]]] = []
        """What takes each file to its place, and the path of that."""
        self.undoing: list[Callable[[], None]] = []
        self.done: list[tuple[str, str]] = []

    def prepare(self, change: Change, cwd: str) -> None:
        """Read what is there, make what shall be, and put it beside its place."""
        if isinstance(change, AddFile):
            self.create(self.place(absolute(change.path, cwd), make=True), new_file(change), None)
            self.done.append(("A", change.path))
        elif isinstance(change, DeleteFile):
            place = self.place(absolute(change.path, cwd), _operation(change))
            self.remove(place, self.read(place))
            self.done.append(("D", change.path))
        else:
            self.update(change, cwd)
            self.done.append(("M", change.move_to or change.path))

    def update(self, change: UpdateFile, cwd: str) -> None:
        place = self.place(absolute(change.path, cwd), _operation(change))
        original = self.read(place)
        content = updated(original.content, change) if change.hunks else original.content
        if change.move_to is None:
            self.replace(place, content, original)
            return
        self.create(self.place(absolute(change.move_to, cwd), make=True), content, original)
        self.remove(place, original)

    def difference(self, change: Change, cwd: str) -> Iterator[str]:
        path = absolute(change.path, cwd)
        if isinstance(change, AddFile):
            yield from _diff("/dev/null", path, b"", new_file(change))
            return
        before = self.read(self.place(path, _operation(change))).content
        if isinstance(change, DeleteFile):
            yield from (f"--- {path}", "+++ /dev/null", f"(all of its {len(before)} bytes go)")
            return
        after = updated(before, change) if change.hunks else before
        yield from _diff(path, absolute(change.move_to or change.path, cwd), before, after)

    def place(self, path: str, operation: Operation = Operation.WRITE, *, make: bool = False) -> _Place:
        """Open the folder of *path*, and with *make* create it; raises NotPermittedError."""
        self.at = path
        denial = self.policy.check(operation, path)
        if denial is not None and not (self.anywhere and denial.cure):
            raise NotPermittedError(f"patch rejected: {path}: {denial.rule}")
        parts = [part for part in os.path.dirname(path).split(os.sep) if part]
        folder = self.hold(os.open(os.sep, _FOLDER))
        for at, part in enumerate(parts):
            here = os.sep + os.sep.join(parts[: at + 1])
            if make:
                self.make_folder(folder, part)
            try:
                folder = self.hold(os.open(part, _FOLDER, dir_fd=folder))
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENOTDIR} and os.path.islink(here):
                    raise PatchError(
                        f"{here} is a link: name the file by its real path, {os.path.realpath(path)}"
                    ) from error
                raise
        return _Place(folder, os.path.basename(path), path)

    def hold(self, descriptor: int) -> int:
        self.held.callback(os.close, descriptor)
        return descriptor

    def make_folder(self, folder: int, name: str) -> None:
        try:
            os.mkdir(name, dir_fd=folder)
        except FileExistsError:
            return
        self.folders.append((folder, name))

    def read(self, place: _Place) -> _Original:
        try:
            descriptor = os.open(
                place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.folder
            )
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PatchError(f"{place.path} is a link: name the file that it leads to") from error
            raise
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise PatchError(f"{place.path} is no regular file")
        with open(descriptor, "rb") as file:
            return _Original(file.read(), status)

    def stage(self, place: _Place, content: bytes, like: _Original | None) -> _Place:
        """Write *content* to a temporary file beside *place*, with the rights that it shall have."""
        temporary = _Place(place.folder, f".{secrets.token_hex(8)}.patch", place.path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary.name, flags, 0o666 if like is None else 0o600, dir_fd=place.folder)
        self.staged.append(temporary)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if like is not None:
                with suppress(PermissionError):
                    os.fchown(descriptor, like.status.st_uid, like.status.st_gid)
                os.fchmod(descriptor, like.status.st_mode & _RIGHTS)
            os.fsync(descriptor)
        return temporary

    def create(self, place: _Place, content: bytes, like: _Original | None) -> None:
        if _exists(place):
            raise PatchError(f"{place.path} exists already: update it, or delete it first")
        temporary = self.stage(place, content, like)

        def step() -> None:
            _link_or_move(temporary, place)
            self.undoing.append(lambda: os.unlink(place.name, dir_fd=place.folder))

        self.steps.append((place.path, step))

    def replace(self, place: _Place, content: bytes, original: _Original) -> None:
        temporary = self.stage(place, content, original)

        def step() -> None:
            self.insist(place, original)
            os.rename(temporary.name, place.name, src_dir_fd=temporary.folder, dst_dir_fd=place.folder)
            self.undoing.append(lambda: self.restore(place, original))

        self.steps.append((place.path, step))

    def remove(self, place: _Place, original: _Original) -> None:
        def step() -> None:
            self.insist(place, original)
            os.unlink(place.name, dir_fd=place.folder)
            self.undoing.append(lambda: self.restore(place, original))

        self.steps.append((place.path, step))

    def insist(self, place: _Place, original: _Original) -> None:
        if not original.is_still_at(place):
            raise PatchError(f"{place.path} changed meanwhile; nothing was changed")

    def restore(self, place: _Place, original: _Original) -> None:
        temporary = self.stage(place, original.content, original)
        os.rename(temporary.name, place.name, src_dir_fd=temporary.folder, dst_dir_fd=place.folder)

    def commit(self) -> None:
        for path, step in self.steps:
            self.at = path
            step()
        self.undoing.clear()

    def undo(self) -> None:
        """Take back what was done, the last first; what cannot be taken back is left, and the rest goes on."""
        while self.undoing:
            with suppress(OSError):
                self.undoing.pop()()
        self.tidy()
        for folder, name in reversed(self.folders):
            with suppress(OSError):
                os.rmdir(name, dir_fd=folder)

    def tidy(self) -> None:
        for temporary in self.staged:
            with suppress(OSError):
                os.unlink(temporary.name, dir_fd=temporary.folder)


def _operation(change: Change) -> Operation:
    """Say what becomes of the file that a change names first."""
    goes = isinstance(change, DeleteFile) or (isinstance(change, UpdateFile) and change.move_to is not None)
    return Operation.REMOVE if goes else Operation.WRITE


def _diff(old: str, new: str, before: bytes, after: bytes) -> Iterator[str]:
    import difflib

    was, now = (content.decode(errors="surrogateescape").split("\n") for content in (before, after))
    yield from (f"--- {old}", f"+++ {new}")
    yield from list(difflib.unified_diff(was, now, lineterm=""))[2:]


def _exists(place: _Place) -> bool:
    try:
        os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _link_or_move(temporary: _Place, place: _Place) -> None:
    """Give a file its name, only if nothing has that name; where there are no hard links, as nearly as can be."""
    try:
        os.link(temporary.name, place.name, src_dir_fd=temporary.folder, dst_dir_fd=place.folder)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise PatchError(f"{place.path} appeared meanwhile; nothing was changed") from error
        if error.errno not in _NO_HARD_LINKS or _exists(place):
            raise
        os.rename(temporary.name, place.name, src_dir_fd=temporary.folder, dst_dir_fd=place.folder)
