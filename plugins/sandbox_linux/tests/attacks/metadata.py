"""Changing the mode, times, attributes or flags of a file outside by ways that are not a write.

Landlock has no right for any of these (landlock(7), current limitations): only a read-only mount stops them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import AT_FDCWD, call

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_AT_EMPTY_PATH = 0x1000
_FCHMODAT2, _SETXATTRAT, _FILE_GETATTR, _FILE_SETATTR = 452, 463, 468, 469
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_NODUMP = 0x80086601, 0x40086602, 0x40
_NO_DUMP = 0x80
"""FS_XFLAG_NODUMP, a flag that does nothing."""


def mode_by_a_descriptor_without_rights(world: World) -> None:
    """fchmodat2 (Linux 6.6) takes an O_PATH descriptor."""
    call(_FCHMODAT2, os.open(world.file, os.O_PATH), b"", 0o666, _AT_EMPTY_PATH)


def mode_by_the_path_of_a_descriptor(world: World) -> None:
    """The way of older kernels: chmod of a magic link."""
    os.chmod(f"/proc/self/fd/{os.open(world.file, os.O_PATH)}", 0o640)


def times_by_a_descriptor_for_reading(world: World) -> None:
    """futimens needs no descriptor for writing (utimensat(2))."""
    os.utime(os.open(world.file, os.O_RDONLY), (5, 5))


def an_attribute_by_the_new_call(world: World) -> None:
    """setxattrat (Linux 6.13), which older filters do not know."""
    value = ctypes.create_string_buffer(b"1")
    arguments = ctypes.create_string_buffer(struct.pack("<QII", ctypes.addressof(value), 1, 0))
    call(_SETXATTRAT, AT_FDCWD, os.fsencode(world.file), 0, b"user.attack", arguments, 16)


def a_flag_by_the_new_call(world: World) -> None:
    """file_setattr (Linux 6.17) sets the flags of an inode by its path."""
    attributes = ctypes.create_string_buffer(24)
    call(_FILE_GETATTR, AT_FDCWD, os.fsencode(world.file), attributes, 24, 0)
    attributes[0] = bytes([attributes[0][0] ^ _NO_DUMP])
    call(_FILE_SETATTR, AT_FDCWD, os.fsencode(world.file), attributes, 24, 0)


def a_flag_by_a_descriptor_for_reading(world: World) -> None:
    """ioctl_fs(2): FS_IOC_FSSETXATTR asks for ownership, not for a descriptor for writing."""
    descriptor = os.open(world.file, os.O_RDONLY)
    attributes = bytearray(28)
    fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, attributes)
    attributes[0] ^= _NO_DUMP
    fcntl.ioctl(descriptor, _FS_IOC_FSSETXATTR, bytes(attributes))


def an_attribute_by_a_descriptor_for_reading(world: World) -> None:
    """fsetxattr asks for the rights of the file, not of the descriptor."""
    os.setxattr(os.open(world.file, os.O_RDONLY), "user.attack", b"1")


def a_flag_by_the_old_call(world: World) -> None:
    """ioctl_iflags(2), FS_IOC_SETFLAGS: chattr(1) opens the file for reading."""
    descriptor = os.open(world.file, os.O_RDONLY)
    flags = struct.unpack("i", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, struct.pack("i", 0)))[0]
    fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("i", flags ^ _FS_NODUMP))


def times_of_a_listener(world: World) -> None:
    """A socket can be connected to on a read-only mount; it is a file all the same."""
    os.utime(world.socket, (7, 7))


def its_owner_by_a_descriptor_without_rights(world: World) -> None:
    """fchownat(2), AT_EMPTY_PATH: to the same owner, which changes the time of change."""
    call(260, os.open(world.file, os.O_PATH), b"", os.getuid(), os.getgid(), _AT_EMPTY_PATH)
