"""Try many operations on files, each taken back at once, and say how each ended: ``attempts.py QUESTIONS [FOLDER...]``.

QUESTIONS is a pickled list of ``(kind, path, other path)``.  The answer, on stdout, is the error number of each, 0
where it succeeded.  With folders, in which the packages are, it first gives up all capabilities: then root
outside may do what root inside may do, as far as owners and modes decide.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import socket
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Undo = Callable[[], object]

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_EXCHANGE = 2
_PATIENCE = 5.0


def read(path: str, _: str) -> None:
    if os.path.isdir(path):
        os.listdir(path)
    else:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def write(path: str, _: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))


def cut(path: str, _: str) -> None:
    os.truncate(path, os.stat(path).st_size)


def mode(path: str, _: str) -> None:
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode))


def times(path: str, _: str) -> None:
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def attribute(path: str, _: str) -> Undo:
    os.setxattr(path, "user.attempt", b"1")
    return lambda: os.removexattr(path, "user.attempt")


def nameless(folder: str, _: str) -> None:
    os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))


def create(path: str, _: str) -> Undo | None:
    existed, end = os.path.exists(path), os.path.realpath(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK))
    return None if existed else lambda: os.unlink(end)


def file(path: str, _: str) -> Undo:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    return lambda: os.unlink(path)


def folder(path: str, _: str) -> Undo:
    os.mkdir(path)
    return lambda: os.rmdir(path)


def pipe(path: str, _: str) -> Undo:
    os.mkfifo(path)
    return lambda: os.unlink(path)


def symlink(path: str, _: str) -> Undo:
    os.symlink("somewhere", path)
    return lambda: os.unlink(path)


def link(path: str, other: str) -> Undo:
    os.link(path, other, follow_symlinks=False)
    return lambda: os.unlink(other)


def move(path: str, other: str) -> Undo:
    back, there = _entry(path), _entry(other)
    os.rename(path, other)
    return lambda: os.rename(there, back)


def swap(path: str, other: str) -> Undo:
    back, there = _entry(path), _entry(other)
    _exchange(path, other)
    return lambda: _exchange(there, back)


def remove(path: str, _: str) -> Undo:
    path = _entry(path)
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(path)
        return lambda: _make_folder(path, mode)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        os.unlink(path)
        return lambda: os.symlink(target, path)
    with open(path, "rb") as original:
        content = original.read()
    os.unlink(path)
    return lambda: _write(path, content, mode)


def appear(path: str, other: str) -> None:
    """Not taken back: the sandbox must not let it stay."""
    if other:
        os.makedirs(f"{other}/hooks")
        os.rename(other, path)
    else:
        os.symlink("somewhere", path)


def connect(path: str, _: str) -> None:
    with socket.socket(socket.AF_UNIX) as connecting:
        connecting.settimeout(_PATIENCE)
        connecting.connect(path)


def dial(host: str, port: str) -> None:
    socket.create_connection((host, int(port)), _PATIENCE).close()


def _exchange(path: str, other: str) -> None:
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(other), _EXCHANGE) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _make_folder(path: str, mode: int) -> None:
    os.mkdir(path)
    os.chmod(path, mode)


def _write(path: str, content: bytes, mode: int) -> None:
    with open(path, "wb") as again:
        again.write(content)
    os.chmod(path, mode)


def _entry(path: str) -> str:
    """Spell a path without the name itself on the way to it."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _answer(attempt: Callable[[str, str], Undo | None], path: str, other: str) -> int:
    try:
        undo = attempt(path, other)
    except OSError as error:
        return error.errno or -1
    if undo is not None:
        try:
            undo()
        except OSError as error:
            raise SystemExit(f"{attempt.__name__} {path!r} {other!r} cannot be taken back: {error}") from error
    return 0


def main(questions: str, *folders: str) -> None:
    if folders:
        sys.path[:0] = folders
        from codex_sandbox_linux import kernel

        kernel.drop_capabilities()
    with open(questions, "rb") as asked:
        json.dump([_answer(globals()[kind], path, other) for kind, path, other in pickle.load(asked)], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
