"""System calls that are refused, written so that a filter could overlook them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import AT_FDCWD, LIBC, call, gained

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_SOCKET = 41
_NETLINK_SOCK_DIAG = 4
_OPEN_TREE, _FSOPEN, _OPEN_TREE_ATTR = 428, 430, 467
_PTRACE, _TRACEME, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 101, 0, 12, 13, 24, 0x4200
_TRACESYSGOOD, _KILL_WITH_TRACER = 1, 1 << 20
_RAX, _RDI, _ORIG_RAX = 10, 14, 15
"""Places in struct user_regs_struct."""
_GETPID, _ENOSYS = 39, 38


def a_family_of_sockets_with_a_high_bit(world: World) -> None:
    """The kernel reads an int; a filter that compares 64 bits is passed (as CVE-2019-10063)."""
    del world
    gained(call(_SOCKET, 1 << 32 | socket.AF_VSOCK, socket.SOCK_STREAM, 0))


def a_kind_of_socket_with_high_bits(world: World) -> None:
    """The same in the type: datagrams of AF_UNIX, which are sent anywhere without connect."""
    del world
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    gained(call(_SOCKET, socket.AF_UNIX, 1 << 40 | socket.SOCK_DGRAM | flags, 0))


def a_netlink_protocol_with_a_high_bit(world: World) -> None:
    """The same in the protocol: sock_diag lists all sockets (sock_diag(7))."""
    del world
    gained(call(_SOCKET, socket.AF_NETLINK, socket.SOCK_RAW, 1 << 32 | _NETLINK_SOCK_DIAG))


def a_mount_of_a_new_file_system(world: World) -> None:
    """fsopen (Linux 5.2), the first half of a mount."""
    del world
    gained(call(_FSOPEN, b"tmpfs", 0))


def a_detached_copy_of_a_mount(world: World) -> None:
    """open_tree with OPEN_TREE_CLONE (Linux 5.2)."""
    gained(call(_OPEN_TREE, AT_FDCWD, os.fsencode(world.ws), 1))


def a_detached_copy_with_other_attributes(world: World) -> None:
    """open_tree_attr (Linux 6.15), newer than most filters."""
    gained(call(_OPEN_TREE_ATTR, AT_FDCWD, os.fsencode(world.ws), 1, ctypes.create_string_buffer(32), 32))


def a_call_that_its_tracer_turns_into_another(world: World) -> None:
    """Before Linux 4.8 filters ran ahead of the tracer (seccomp(2), caveats); getpid becomes socket(AF_VSOCK)."""
    del world
    LIBC.ptrace.argtypes = [ctypes.c_long] * 4
    child = os.fork()
    if child == 0:
        call(_PTRACE, _TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        descriptor = LIBC.syscall(_GETPID, socket.AF_VSOCK, socket.SOCK_STREAM, 0)
        try:
            os._exit(0 if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:") else 1)
        except OSError:
            os._exit(1)
    os.waitpid(child, 0)
    LIBC.ptrace(_SETOPTIONS, child, 0, _TRACESYSGOOD | _KILL_WITH_TRACER)
    registers = (ctypes.c_ulonglong * 27)()
    while True:
        LIBC.ptrace(_SYSCALL, child, 0, 0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            break
        call(_PTRACE, _GETREGS, child, 0, registers)
        enters = ctypes.c_longlong(registers[_RAX]).value == -_ENOSYS
        if enters and (registers[_ORIG_RAX], registers[_RDI]) == (_GETPID, socket.AF_VSOCK):
            registers[_ORIG_RAX] = _SOCKET
            call(_PTRACE, _SETREGS, child, 0, registers)
    if status == 0:
        gained("a socket")
