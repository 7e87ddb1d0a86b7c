"""The system calls that Python does not wrap, each as a typed function that raises OSError.

Numbers are those of the 64-bit x86 and Arm kernels (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h); both have the same number for every call newer than 2019.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINE: Final = os.uname().machine
SUPPORTED_MACHINES: Final = ("x86_64", "aarch64")

_NUMBERS: Final = {
    "x86_64": {"clone": 56, "capset": 126, "seccomp": 317},
    "aarch64": {"clone": 220, "capset": 91, "seccomp": 277},
}.get(MACHINE, {})
_SYS_CLOSE_RANGE: Final = 436
_SYS_PIDFD_GETFD: Final = 438
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_MOUNT_SETATTR: Final = 442
_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18

MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NODEV: Final = 4
_MNT_DETACH: Final = 2

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4

# PyDLL keeps the interpreter lock during the call: a child of clone(2) then starts with the lock held,
# as a child of os.fork() does.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_blocking_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _syscall(number: int, *arguments: object) -> int:
    words = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
    return int(_libc.syscall(ctypes.c_long(number), *words))


def clone(flags: int) -> int:
    """Fork into new namespaces (clone(2) with CLONE_NEW* *flags*); 0 in the child, its pid in the parent.

    Call it from a single-threaded process only.
    """
    if not flags:
        return os.fork()
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _syscall(_NUMBERS["clone"], flags | 17, 0, 0, 0, 0)  # 17 is SIGCHLD
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number), "clone")
    return pid


def prctl(option: int, value: int = 0) -> None:
    """Call prctl with one argument (prctl(2))."""
    _checked(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def drop_capabilities() -> None:
    """Empty the bounding, ambient, inheritable, permitted and effective sets (capabilities(7))."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) and ctypes.get_errno() not in {errno.EPERM, errno.EINVAL}:
            _checked(-1, "drop capability bounding set")
    _libc.prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x2008_0522, 0), 8)  # _LINUX_CAPABILITY_VERSION_3, self
    nothing = ctypes.create_string_buffer(24)
    _checked(_syscall(_NUMBERS["capset"], ctypes.byref(header), ctypes.byref(nothing)), "capset")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount *source*, a file system of *kind*, at *target* (mount(2))."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _checked(_libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]), f"mount {target}")


def unmount(target: str) -> None:
    """Detach what is mounted at *target* (umount2(2)); what is in use elsewhere stays."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount2 {target}")


def bind(path: str) -> None:
    """Bind *path* onto itself with all that is mounted below it, without following a final symlink."""
    tree = clone_tree(path)
    try:
        attach_tree(tree, path)
    finally:
        os.close(tree)


def clone_tree(path: str) -> int:
    """Give a detached copy of what is mounted at and below *path* (open_tree(2)); a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE | _AT_SYMLINK_NOFOLLOW
    encoded = ctypes.c_char_p(os.fsencode(path))
    return _checked(_syscall(_SYS_OPEN_TREE, _AT_FDCWD, encoded, flags), f"open_tree {path}")


def attach_tree(tree: int, path: str) -> None:
    """Mount a detached tree at *path* (move_mount(2))."""
    empty, encoded = ctypes.c_char_p(b""), ctypes.c_char_p(os.fsencode(path))
    moved = _syscall(_SYS_MOVE_MOUNT, tree, empty, _AT_FDCWD, encoded, _MOVE_MOUNT_F_EMPTY_PATH)
    _checked(moved, f"move_mount {path}")


def change_mount(path: str, *, add: int = 0, remove: int = 0, recursive: bool = False) -> None:
    """Add and remove MOUNT_ATTR_* attributes of the mount at *path* (mount_setattr(2))."""
    attributes = ctypes.create_string_buffer(struct.pack("<QQQQ", add, remove, 0, 0), 32)
    flags = _AT_SYMLINK_NOFOLLOW | (_AT_RECURSIVE if recursive else 0)
    encoded = ctypes.c_char_p(os.fsencode(path))
    result = _syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, encoded, flags, ctypes.byref(attributes), 32)
    _checked(result, f"mount_setattr {path}")


def close_from(first: int) -> None:
    """Close every descriptor from *first* on (close_range(2))."""
    _checked(_syscall(_SYS_CLOSE_RANGE, first, 0xFFFF_FFFF, 0), "close_range")


def open_folder(path: str) -> int:
    """Open an absolute folder without following any link on the way; an O_PATH descriptor.

    openat2(2) with RESOLVE_NO_SYMLINKS would do the same, but is closed inside a sandbox like ours.

    Raises OSError: ENOTDIR or ELOOP where there is a link.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    opened = os.open("/", flags)
    for name in filter(None, path.split("/")):
        try:
            below = os.open(name, flags, dir_fd=opened)
        finally:
            os.close(opened)
        opened = below
    return opened


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Duplicate another process's descriptor (pidfd_getfd(2))."""
    return _checked(_syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0), "pidfd_getfd")


def timer() -> int:
    """Make a timer that is not set (timerfd_create(2)); a descriptor."""
    monotonic, nonblocking_and_cloexec = 1, 0o2004000
    return _checked(int(_libc.timerfd_create(monotonic, nonblocking_and_cloexec)), "timerfd_create")


def set_timer(descriptor: int, seconds: float) -> None:
    """Let a timer go off every so many *seconds*, or with 0 not any more."""
    whole, nanoseconds = int(seconds), int(seconds % 1 * 1_000_000_000)
    interval = ctypes.create_string_buffer(struct.pack("<qqqq", *(whole, nanoseconds) * 2), 32)
    _checked(int(_libc.timerfd_settime(descriptor, 0, interval, None)), "timerfd_settime")


def landlock_abi() -> int:
    """Give the Landlock ABI version of this kernel, 0 where it is missing or switched off."""
    return max(0, _syscall(_SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1))


def landlock_ruleset(handled: Sequence[int]) -> int:
    """Create a ruleset that handles file, network and scope rights, in this order; a descriptor."""
    attributes = ctypes.create_string_buffer(struct.pack(f"<{len(handled)}Q", *handled), 8 * len(handled))
    created = _syscall(_SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), 8 * len(handled), 0)
    return _checked(created, "landlock_create_ruleset")


def landlock_restrict_self(ruleset: int) -> None:
    """Put this process under *ruleset* for good."""
    _checked(_syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")


SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 32


def seccomp_load(program: bytes, flags: int = 0) -> int:
    """Load a BPF *program* (8 bytes an instruction) as seccomp filter; with NEW_LISTENER a descriptor."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    loaded = _syscall(_NUMBERS["seccomp"], 1, flags, ctypes.create_string_buffer(head, len(head)))
    return _checked(loaded, "seccomp")


def connect(descriptor: int, address: bytes) -> None:
    """Connect a socket to the raw bytes of a sockaddr (connect(2))."""
    buffer = ctypes.create_string_buffer(address, len(address))
    _checked(int(_blocking_libc.connect(descriptor, buffer, len(address))), "connect")


def controlling_terminal(descriptor: int) -> None:
    """Make a terminal the controlling one of this session leader (ioctl_tty(2))."""
    import fcntl

    fcntl.ioctl(descriptor, 0x540E, 0)  # TIOCSCTTY


if sys.byteorder != "little":
    msg = "only little-endian machines are supported"
    raise ImportError(msg)
