"""Outside: look up the addresses of names.

The C library's resolver blocks, and cannot be given up; so names are looked up here, in /etc/hosts and
at the servers that /etc/resolv.conf names.  What else nsswitch.conf may list is not asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from codex_core.sandbox.domains import LOCALHOST

from codex_sandbox_linux import dns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.sandbox.addresses import Address

_PATIENCE: Final = 3.0
"""Seconds that one server gets for one answer."""
_ROUNDS: Final = 2
_MOST_SERVERS: Final = 3  # MAXNS, as in resolv.conf(5)
_LONGEST_TTL: Final = 60
_SHORTEST_TTL: Final = 1
_MOST_KEPT: Final = 1024
_DATAGRAM: Final = 4096
_PORT: Final = 53


class ResolveError(Exception):
    """A name has no address, or nobody says which."""


class Resolver:
    """Looks up names; each is asked for once, however many wait for it."""

    def __init__(self, nameservers: Sequence[tuple[str, int]] = ()) -> None:
        """Ask *nameservers*, addresses and ports, or those of /etc/resolv.conf."""
        self._nameservers = tuple(nameservers)
        self._kept: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._asking: dict[str, asyncio.Task[tuple[Address, ...]]] = {}

    async def resolve(self, name: str) -> tuple[Address, ...]:
        """Give the addresses of *name*, IPv4 first; raises ResolveError where there is none."""
        if name == LOCALHOST or name.endswith("." + LOCALHOST):
            return ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")
        until, addresses = self._kept.get(name, (0.0, ()))
        if time.monotonic() < until:
            return addresses
        asking = self._asking.get(name)
        if asking is None:
            asking = asyncio.get_running_loop().create_task(self._look_up(name))
            self._asking[name] = asking
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        addresses = await asyncio.shield(asking)
        if not addresses:
            raise ResolveError(f"the name {name} has no address")
        return addresses

    async def _look_up(self, name: str) -> tuple[Address, ...]:
        listed = _listed(name)
        if listed:
            return listed
        answers = await asyncio.gather(self._ask(name, dns.A), self._ask(name, dns.AAAA), return_exceptions=True)
        good = [answer for answer in answers if isinstance(answer, dns.Answer)]
        addresses = tuple(address for answer in good for address in answer.addresses)
        if len(good) < len(answers) and not addresses:
            raise ResolveError(f"no server answers for the name {name}")
        if addresses:
            ttl = min(answer.ttl for answer in good if answer.addresses)
            while len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[name] = time.monotonic() + min(max(ttl, _SHORTEST_TTL), _LONGEST_TTL), addresses
        return addresses

    async def _ask(self, name: str, kind: int) -> dns.Answer:
        for _ in range(_ROUNDS):
            for server in self._nameservers or _configured():
                try:
                    async with asyncio.timeout(_PATIENCE):
                        answer = await _exchange(server, name, kind, socket.SOCK_DGRAM)
                    if answer.truncated:
                        async with asyncio.timeout(_PATIENCE):
                            answer = await _exchange(server, name, kind, socket.SOCK_STREAM)
                except (OSError, TimeoutError, ValueError):
                    continue
                if answer.code in {dns.NO_ERROR, dns.NO_SUCH_NAME}:
                    return answer
        raise ResolveError(name)


async def _exchange(server: tuple[str, int], name: str, kind: int, transport: socket.SocketKind) -> dns.Answer:
    """Ask one server; raises OSError or ValueError.  Who may answer is bound by address, port and number."""
    family, _, _, _, address = socket.getaddrinfo(*server, type=transport, flags=socket.AI_NUMERICHOST)[0]
    loop = asyncio.get_running_loop()
    identity = int.from_bytes(os.urandom(2), "big")
    message = dns.query(identity, name, kind)
    with socket.socket(family, transport) as asking:
        asking.setblocking(False)  # noqa: FBT003 - the standard library's signature
        await loop.sock_connect(asking, address)
        if transport is socket.SOCK_STREAM:
            await loop.sock_sendall(asking, len(message).to_bytes(2, "big") + message)
            length = int.from_bytes(await read_exactly(asking, 2), "big")
            return dns.parse_answer(await read_exactly(asking, length), identity, name, kind)
        await loop.sock_sendall(asking, message)
        while True:
            try:
                return dns.parse_answer(await loop.sock_recv(asking, _DATAGRAM), identity, name, kind)
            except ValueError:  # somebody guesses: the right answer may still come
                continue


async def read_exactly(connection: socket.socket, count: int) -> bytes:
    """Read *count* bytes; raises EOFError, an OSError where they do not come."""
    received = b""
    while len(received) < count:
        piece = await asyncio.get_running_loop().sock_recv(connection, count - len(received))
        if not piece:
            raise ConnectionResetError
        received += piece
    return received


def _configured() -> tuple[tuple[str, int], ...]:
    found = [words[1] for words in _lines("/etc/resolv.conf") if words[0] == "nameserver" and len(words) > 1]
    return tuple((address, _PORT) for address in found[:_MOST_SERVERS] or ["127.0.0.1"])


def _listed(name: str) -> tuple[Address, ...]:
    found = []
    for address, *names in _lines("/etc/hosts"):
        if name in {one.lower().removesuffix(".") for one in names}:
            try:
                found.append(ipaddress.ip_address(address))
            except ValueError:
                continue
    return tuple(found)


def _lines(path: str) -> list[list[str]]:
    """Give the words of each line, without comments; none where the file cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return []
    return [words for words in lines if words]
