"""Inside new namespaces, with all capabilities: make the whole tree read-only but for the writable roots.

Order matters: mounts come before Landlock, which forbids them, and before capabilities are dropped.
Nothing is ever mounted on a path that did not exist, so nothing is left behind in the user's tree.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from codex_sandbox_linux import kernel
from codex_sandbox_linux.plan import is_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codex_sandbox_linux.plan import Plan

HARMLESS_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a mount point
TERMINAL: Final = "/dev/console"
"""Where a command finds the terminal that it runs on."""
_RESOLV_CONF: Final = "/etc/resolv.conf"
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x41


def write_id_maps(pid: int) -> None:
    """Map the ids of a new user namespace onto themselves (user_namespaces(7)).

    Root maps all ids that exist here, so that files keep their owners (git refuses a repository whose
    owner it cannot see); anybody else may map only the own id, and must give up setgroups(2) first.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        maps = [("uid_map", _all_ids("uid_map")), ("gid_map", _all_ids("gid_map"))]
    else:
        maps = [("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")]
    for name, text in maps:
        # One write for all lines: the kernel accepts exactly one.
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _all_ids(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return "\n".join(f"{first} {first} {count}" for first, _, count in ranges)


def build(plan: Plan) -> bool:
    """Lay out the mounts of *plan*; whether /proc shows only the jail's own processes.

    Raises OSError where this host does not allow it.
    """
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    for root in plan.writable:
        kernel.bind(root)
    for root in sorted(plan.pinned, key=len):
        kernel.bind(root)
    reopened = [
        point for point, readonly in _mounts() if not readonly and any(is_below(point, root) for root in plan.writable)
    ]
    kernel.change_mount("/", add=kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NODEV, recursive=True)
    for point in reopened:
        kernel.change_mount(point, remove=kernel.MOUNT_ATTR_RDONLY)
    for name in HARMLESS_DEVICES:
        _open_device(f"/dev/{name}")
    for path in plan.readonly:
        kernel.bind(path)
        kernel.change_mount(path, add=kernel.MOUNT_ATTR_RDONLY, recursive=True)
    if plan.filtered:
        _ask_us_for_names()
    _private_terminals(plan.terminal)
    _private_shared_memory(plan.writable)
    if plan.clone_flags & kernel.CLONE_NEWNET:
        _loopback_up()
    return _private_proc()


def _mounts() -> Iterator[tuple[str, bool]]:
    """Give every mount point and whether it is read-only (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split(b" ", 6)
            point = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
            yield point, b"ro" in fields[5].split(b",")


def _open_device(path: str) -> None:
    if os.path.exists(path) and not os.path.islink(path):
        kernel.bind(path)
        kernel.change_mount(path, remove=kernel.MOUNT_ATTR_NODEV)


def _private_shared_memory(writable: tuple[str, ...]) -> None:
    """Give the jail a /dev/shm of its own, in which only the writable trees below the old one are left."""
    if not os.path.isdir(SHARED_MEMORY) or SHARED_MEMORY in writable:
        return
    kept = {root: kernel.clone_tree(root) for root in writable if is_below(root, SHARED_MEMORY)}
    kernel.mount("tmpfs", SHARED_MEMORY, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777,size=25%")
    for root, tree in kept.items():
        os.makedirs(root)
        kernel.attach_tree(tree, root)
        os.close(tree)


def _private_terminals(terminal: str) -> None:
    if terminal and os.path.exists(TERMINAL):
        # Its own name is covered by the new /dev/pts below; ttyname(3) looks for it here next.
        kernel.mount(terminal, TERMINAL, None, kernel.MS_BIND)
        kernel.change_mount(TERMINAL, remove=kernel.MOUNT_ATTR_NODEV)
    if os.path.isdir("/dev/pts"):
        quiet = kernel.MS_NOSUID | kernel.MS_NOEXEC
        kernel.mount("devpts", "/dev/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0600")
        if not os.path.islink("/dev/ptmx"):
            kernel.mount("/dev/pts/ptmx", "/dev/ptmx", None, kernel.MS_BIND)


def _ask_us_for_names() -> None:
    """Mount a file over /etc/resolv.conf that names the loopback address, where :mod:`gateway` listens.

    It takes the place of what a link leads to, and comes from a file system that is nowhere else.  Where there is
    nothing to mount over, the C library asks the loopback address anyway (resolv.conf(5)).
    """
    if not os.path.exists(_RESOLV_CONF) or not os.path.isdir(SHARED_MEMORY):
        return
    kernel.mount("tmpfs", SHARED_MEMORY, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=4k")
    path = os.path.join(SHARED_MEMORY, "resolv.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write("nameserver 127.0.0.1\n")
    kernel.mount(path, _RESOLV_CONF, None, kernel.MS_BIND)
    kernel.change_mount(os.path.realpath(_RESOLV_CONF), add=kernel.MOUNT_ATTR_RDONLY)
    kernel.unmount(SHARED_MEMORY)


def _private_proc() -> bool:
    """Mount a /proc that knows only this pid namespace; read-only, since root could write below /proc/sys."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    try:
        kernel.mount("proc", "/proc", "proc", flags)
        kernel.change_mount("/proc", add=kernel.MOUNT_ATTR_RDONLY)
    except PermissionError:  # parts of the old one are masked, as containers do
        return False
    return True


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
