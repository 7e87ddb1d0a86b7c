"""What the attacks share: where they are, and system calls that Python does not know.

Each module is named for the promise that it attacks, and each public function is one attack.  It does
something that works without a sandbox, and raises OSError where that is refused.  Success is judged by
the test from outside, by what has changed there and who was reached.  What leaves no trace outside, such
as a descriptor, is told with :func:`gained`.  Every attack is harmless when it succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from dataclasses import dataclass

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
_FIRST_COMMON_NUMBER = 424
"""From pidfd_send_signal on, a system call has the same number on every machine."""


@dataclass(frozen=True)
class World:
    """What an attack may know."""

    ws: str
    """The workspace, with a repository in it."""
    outside: str
    """A folder of the same user with the file ``file`` and the unix listener ``socket``."""
    victim: int
    """A process of the same user outside."""
    jail: int
    """The process that stands for the jail where there is none, 0 in a jail: the parent is it."""
    port: int
    """A TCP port of the host's on all its addresses, IPv6 ones too."""
    abstract: str
    """The abstract name of a unix listener of the host's."""

    @property
    def file(self) -> str:
        """A file outside."""
        return f"{self.outside}/file"

    @property
    def socket(self) -> str:
        """A unix listener outside."""
        return f"{self.outside}/socket"

    @property
    def parent(self) -> int:
        """The jail, which starts the commands."""
        return self.jail or os.getppid()


def gained(evidence: object) -> None:
    """Say that something was got that cannot be seen from outside."""
    print("gained:", evidence, flush=True)


def call(number: int, *arguments: object) -> int:
    """Make a system call; those older than Linux 5.1 by their number on x86_64."""
    if number < _FIRST_COMMON_NUMBER and os.uname().machine != "x86_64":
        raise OSError(errno.ENOSYS, "written for x86_64")
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    return checked(result)


def checked(result: int) -> int:
    """Give what a function of the C library returned, or raise its error."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def unix_address(path: str) -> bytes:
    """Give a struct sockaddr_un without the NUL at its end (unix(7))."""
    return struct.pack("<H", socket.AF_UNIX) + os.fsencode(path)


def connect_raw(connecting: socket.socket, address: bytes) -> None:
    """Connect to an address that is given in bytes."""
    checked(LIBC.connect(connecting.fileno(), address, len(address)))


def connect(path: str) -> socket.socket:
    """Connect a unix socket."""
    connecting = socket.socket(socket.AF_UNIX)
    connecting.connect(path)
    return connecting


def serve(path: str) -> socket.socket:
    """Make a unix listener of the command's own that takes every connection."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)

    def accept() -> None:
        while True:
            listening.accept()

    threading.Thread(target=accept, daemon=True).start()
    return listening
