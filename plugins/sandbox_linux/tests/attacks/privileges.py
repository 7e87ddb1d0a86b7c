"""Gaining rights, or leaving them to others: set-user-ID files, tracers, filters of the command's own."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import AT_FDCWD, LIBC, call, gained

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_OPENAT2 = 437
_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_PTRACE, _TRACEME, _SETOPTIONS = 101, 0, 0x4200
_SUSPEND_SECCOMP = 1 << 21


def a_set_user_id_file(world: World) -> None:
    """Root's is a way to root for every local user outside, as no mount is between it and them."""
    os.close(os.open(f"{world.ws}/program", os.O_CREAT | os.O_WRONLY, 0o600))
    os.chmod(f"{world.ws}/program", 0o4755)


def a_set_user_id_file_from_its_creation_on(world: World) -> None:
    """open(2) takes a mode as well."""
    os.umask(0)
    os.close(os.open(f"{world.ws}/program", os.O_CREAT | os.O_WRONLY, 0o4755))


def a_set_user_id_file_by_openat2(world: World) -> None:
    """openat2(2) has the mode in memory, where a seccomp filter cannot look."""
    os.umask(0)
    how = ctypes.create_string_buffer(struct.pack("<QQQ", os.O_CREAT | os.O_WRONLY, 0o4755, 0))
    call(_OPENAT2, AT_FDCWD, os.fsencode(f"{world.ws}/program"), how, 24)


def a_file_by_its_handle(world: World) -> None:
    """open_by_handle_at(2) passes by every folder and mount; with CAP_DAC_READ_SEARCH ("Shocker", 2014)."""
    handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
    call(303, AT_FDCWD, os.fsencode(world.file), handle, ctypes.byref(mount), 0)
    os.utime(call(304, os.open("/", os.O_RDONLY), handle, os.O_RDWR), (5, 5))


def an_answer_to_its_own_calls(world: World) -> None:
    """seccomp_unotify(2): a second listener below would answer in place of the supervisor."""
    del world
    LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which seccomp asks for
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))  # allow
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(program)))
    gained(call(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, filter_))


def a_child_without_filters(world: World) -> None:
    """ptrace(2), PTRACE_O_SUSPEND_SECCOMP switches the filters of a tracee off; with CAP_SYS_ADMIN."""
    del world
    child = os.fork()
    if child == 0:
        call(_PTRACE, _TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, 0)
    try:
        gained(call(_PTRACE, _SETOPTIONS, child, 0, _SUSPEND_SECCOMP))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
