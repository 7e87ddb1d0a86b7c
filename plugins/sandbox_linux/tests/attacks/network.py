"""Reaching a TCP server of the host while the network is off, beside the plain way (tcp(7), ip(7))."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_MPTCP, _SCTP, _SMC = 262, 132, 256
_MSG_FASTOPEN = 0x20000000


def multipath_tcp(world: World) -> None:
    """Landlock's TCP rights end at IPPROTO_TCP: landlock(7) does not cover MPTCP."""
    _connect_by(world, _MPTCP)


def sctp(world: World) -> None:
    """Streams of another protocol, where the kernel has it."""
    _connect_by(world, _SCTP)


def smc_in_place_of_tcp(world: World) -> None:
    """Shared Memory Communications, which falls back to TCP inside of the kernel."""
    _connect_by(world, _SMC)


def an_address_of_ipv4_in_ipv6(world: World) -> None:
    """::ffff:127.0.0.1 is 127.0.0.1 (RFC 4291, 2.5.5.2)."""
    client = socket.socket(socket.AF_INET6)
    client.settimeout(3)
    client.connect(("::ffff:127.0.0.1", world.port))


def no_address_at_all(world: World) -> None:
    """Linux takes 0.0.0.0 for this host."""
    client = socket.socket()
    client.settimeout(3)
    client.connect(("0.0.0.0", world.port))


def the_first_bytes_without_connect(world: World) -> None:
    """TCP Fast Open: sendto(2) with MSG_FASTOPEN connects."""
    socket.socket().sendto(b"x", _MSG_FASTOPEN, ("127.0.0.1", world.port))
    time.sleep(0.1)


def _connect_by(world: World, protocol: int) -> None:
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    client.settimeout(3)
    client.connect(("127.0.0.1", world.port))
