"""Outside: say which write a jail's command was refused, as a fact.

The kernel tells nobody but the program, and programs tell little.  So, only when it is asked for, the
filter also stops every call that would change a file by its path, and what the call names is held
against the policy that the kernel enforces.  The call then goes on; whether the address is changed in
the meantime matters to the report alone.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from codex_core.types import Denial, Operation

from codex_sandbox_linux import kernel

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy

_CWD: Final = -1
"""In the place of an argument that names a folder: the call has none."""
_AT_FDCWD: Final = -100
_LONGEST_PATH: Final = 4096


@dataclass(frozen=True, slots=True)
class Observed:
    """A call that changes files by path."""

    numbers: dict[str, int]
    paths: tuple[tuple[int, int], ...]
    """Pairs of arguments: folder and path."""
    expects: bool | None = None
    """Whether the path has to exist, or must not; otherwise the call fails for its own reasons."""
    operation: Operation = Operation.WRITE


def _call(x86_64: int, aarch64: int, *paths: tuple[int, int], expects: bool | None = None) -> Observed:
    return Observed({"x86_64": x86_64, "aarch64": aarch64}, paths, expects)


def _removal(x86_64: int, aarch64: int, *paths: tuple[int, int], expects: bool | None = None) -> Observed:
    return Observed({"x86_64": x86_64, "aarch64": aarch64}, paths, expects, Operation.REMOVE)


_MISSING: Final = -1
CALLS: Final = {
    "open": _call(2, _MISSING, (_CWD, 0)),
    "creat": _call(85, _MISSING, (_CWD, 0)),
    "openat": _call(257, 56, (0, 1)),
    "mkdir": _call(83, _MISSING, (_CWD, 0), expects=False),
    "mkdirat": _call(258, 34, (0, 1), expects=False),
    "mknod": _call(133, _MISSING, (_CWD, 0), expects=False),
    "mknodat": _call(259, 33, (0, 1), expects=False),
    "rmdir": _removal(84, _MISSING, (_CWD, 0), expects=True),
    "unlink": _removal(87, _MISSING, (_CWD, 0), expects=True),
    "unlinkat": _removal(263, 35, (0, 1), expects=True),
    "rename": _removal(82, _MISSING, (_CWD, 0), (_CWD, 1)),
    "renameat": _removal(264, 38, (0, 1), (2, 3)),
    "renameat2": _removal(316, 276, (0, 1), (2, 3)),
    "link": _call(86, _MISSING, (_CWD, 1), expects=False),
    "linkat": _call(265, 37, (2, 3), expects=False),
    "symlink": _call(88, _MISSING, (_CWD, 1), expects=False),
    "symlinkat": _call(266, 36, (1, 2), expects=False),
    "truncate": _call(76, 45, (_CWD, 0), expects=True),
    "chmod": _call(90, _MISSING, (_CWD, 0), expects=True),
    "fchmodat": _call(268, 53, (0, 1), expects=True),
    "chown": _call(92, _MISSING, (_CWD, 0), expects=True),
    "lchown": _call(94, _MISSING, (_CWD, 0), expects=True),
    "fchownat": _call(260, 54, (0, 1), expects=True),
    "utime": _call(132, _MISSING, (_CWD, 0), expects=True),
    "utimes": _call(235, _MISSING, (_CWD, 0), expects=True),
    "utimensat": _call(280, 88, (0, 1), expects=True),
    "setxattr": _call(188, 5, (_CWD, 0), expects=True),
    "lsetxattr": _call(189, 6, (_CWD, 0), expects=True),
    "removexattr": _call(197, 14, (_CWD, 0), expects=True),
    "lremovexattr": _call(198, 15, (_CWD, 0), expects=True),
}
OPENS: Final = {"open": 1, "openat": 2}
"""Calls that change nothing unless the flags, in this argument, ask for writing."""

_BY_NUMBER: Final = {
    call.numbers[kernel.MACHINE]: call for call in CALLS.values() if kernel.MACHINE in kernel.SUPPORTED_MACHINES
}


def is_observed(number: int) -> bool:
    """Whether a system call is one of :data:`CALLS`."""
    return number in _BY_NUMBER


def refused(policy: SandboxPolicy, thread: int, number: int, arguments: list[int]) -> list[Denial]:
    """Say what *policy* refuses of one call of a thread that waits for its supervisor."""
    denials = []
    call = _BY_NUMBER[number]
    for folder, path in call.paths:
        try:
            target = _target(thread, None if folder == _CWD else arguments[folder], arguments[path])
        except OSError:  # the program will be told by the kernel
            continue
        if not target or (call.expects is not None and os.path.lexists(target) is not call.expects):
            continue
        denial = policy.check(call.operation, target)
        # Devices are not in the policy; the harmless ones are open in every mode.
        if denial is not None and not target.startswith(("/dev/", "/proc/")):
            denials.append(denial)
    return denials


def _target(thread: int, folder: int | None, address: int) -> str:
    path = _read_path(thread, address)
    if not path or path.startswith("/"):
        return path
    descriptor = None if folder is None else _as_int(folder)
    base = "cwd" if descriptor in {None, _AT_FDCWD} else f"fd/{descriptor}"
    return os.path.join(os.readlink(f"/proc/{thread}/{base}"), path)


def _as_int(argument: int) -> int:
    low = argument & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


def _read_path(thread: int, address: int) -> str:
    """Read a NUL-terminated path; the page after it may not be there."""
    found = b""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        while b"\0" not in found and len(found) < _LONGEST_PATH:
            piece = memory.read(4096 - (address + len(found)) % 4096)
            if not piece:  # the caller is gone
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
            found += piece
    return os.fsdecode(found.partition(b"\0")[0])
