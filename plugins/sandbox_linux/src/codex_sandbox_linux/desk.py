"""Outside: decide about, and dial, what the commands of one jail want to reach.

A name is looked up once for a connection; each of its addresses is judged, and the judged address is
the one that is dialled.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from codex_core.sandbox.domains import Ruling, entry, join_port, parse_host

from codex_sandbox_linux import channel, dns
from codex_sandbox_linux.resolver import ResolveError

if TYPE_CHECKING:
    from codex_core.sandbox.addresses import Address
    from codex_core.sandbox.domains import Host, Rules

    from codex_sandbox_linux.resolver import Resolver

_DIAL_PATIENCE: Final = 10.0
"""Seconds for one address."""
_MOST_DIALLED: Final = 4
_MOST_PINS: Final = 4096
_MOST_NAMES: Final = 16
_MOST_REPORTS: Final = 1024
"""Different decisions about one command that are reported."""
_MOST_WAITING: Final = 4096
_TTL: Final = 60


class RefusedError(Exception):
    """A host that the policy does not let be reached."""


class Desk:
    """Decides for one jail, and reports to its owner."""

    def __init__(self, rules: Rules, resolver: Resolver, link: socket.socket) -> None:
        """Report on *link*, which stays the caller's."""
        self._rules = rules
        self._resolver = resolver
        self._link = link
        self._pins: dict[Address, dict[str, None]] = {}
        self._reported: set[tuple[str, int, bool]] = set()
        self._waiting: deque[bytes] = deque()
        self.command = "0"
        """The number of the command that now runs."""
        self.targets: dict[tuple[str, int], tuple[str, int]] = {}
        """Family and port of a socket inside -> the address and port that its program connects to."""

    def forget(self, command: str) -> None:
        """Forget all about the last command; another one is about to run."""
        self.command = command
        self._pins.clear()
        self._reported.clear()
        self.targets.clear()

    async def open(self, host: str, port: int) -> socket.socket:
        """Connect to *host*, as a program named it; raises RefusedError, ResolveError or OSError."""
        try:
            parsed = parse_host(host)
        except ValueError as error:
            raise RefusedError(self._refuse(ascii(host), port, Ruling(allowed=False, rule=str(error)))) from None
        name, ruling = self._judge(parsed, port)
        if not ruling.allowed:
            raise RefusedError(self._refuse(name, port, ruling))
        addresses = (await self._resolver.resolve(parsed)) if isinstance(parsed, str) else (parsed,)
        opened = self._passable(name, port, addresses)
        self._report(name, port, ruling)
        return await _dial(opened, port)

    async def look_up(self, question: dns.Question) -> bytes:  # noqa: PLR0911 - each is another answer
        """Answer a question for the address of a name that may be reached on some port."""
        try:
            parsed = parse_host(question.name)
        except ValueError:
            return dns.reply(question, dns.REFUSED)
        ruling = self._rules.judge(parsed, None)
        if not isinstance(parsed, str) or not ruling.allowed:
            if "." in question.name:  # the name of the machine itself is asked for by many programs
                self._refuse(question.name, 0, ruling)
            return dns.reply(question, dns.REFUSED)
        if question.kind not in {dns.A, dns.AAAA}:
            return dns.reply(question, dns.NO_ERROR)
        try:
            addresses = self._passable(parsed, 0, await self._resolver.resolve(parsed))
        except RefusedError:
            return dns.reply(question, dns.REFUSED)
        except ResolveError:
            return dns.reply(question, dns.NO_SUCH_NAME)
        shown = addresses[: dns.MOST_ADDRESSES]
        if not all(self._pin(address, parsed) for address in shown):
            return dns.reply(question, dns.SERVER_FAILURE)
        return dns.reply(question, dns.NO_ERROR, shown, _TTL)

    def _judge(self, host: Host, port: int) -> tuple[str, Ruling]:
        """Judge a name; or an address, by itself and by the names that led to it."""
        for name in () if isinstance(host, str) else self._pins.get(host, ()):
            by_name = self._rules.judge(name, port)
            if by_name.allowed:
                return name, by_name
        return str(host), self._rules.judge(host, port)

    def _passable(self, name: str, port: int, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """Give the addresses that *name* may lead to; raises RefusedError where there is none."""
        rulings = {address: self._judge_address(address, port or None) for address in addresses}
        passable = tuple(address for address, ruling in rulings.items() if ruling.allowed)
        if not passable:
            first = next(iter(rulings.values()))
            rule = first.rule if name == str(addresses[0]) else f"{name} leads to {first.rule}"
            raise RefusedError(self._refuse(name, port, Ruling(allowed=False, rule=rule, cure=first.cure)))
        return passable

    def _judge_address(self, address: Address, port: int | None) -> Ruling:
        ruling = self._rules.judge_address(address, port)
        if ruling.allowed and not self._rules.lists(address, port) and _is_own(address):
            return Ruling(allowed=False, rule=f"{address} is this machine's own", cure=entry(address, port))
        return ruling

    # -- reports: to the owner, in order, without waiting --------------------------------------------

    def _refuse(self, host: str, port: int, ruling: Ruling) -> str:
        self._report(host, port, ruling)
        said = f"{join_port(host, port or None)} is not allowed: {ruling.rule}"
        return f"{said}; to allow it {ruling.cure}" if ruling.cure else said

    def _report(self, host: str, port: int, ruling: Ruling) -> None:
        key = (host, port, ruling.allowed)
        if key in self._reported or len(self._reported) >= _MOST_REPORTS:
            return
        self._reported.add(key)
        fields = ("decision", self.command, host, str(port), str(int(ruling.allowed)), ruling.rule, ruling.cure)
        self._send("\0".join(fields))

    def _pin(self, address: Address, name: str) -> bool:
        """Remember that *name* led to *address*, and tell the owner; whether that went through."""
        names = self._pins.setdefault(address, {})
        if name in names:
            return True
        if len(self._pins) > _MOST_PINS or len(names) >= _MOST_NAMES:
            return False
        if not self._send("\0".join(("pin", self.command, str(address), name))):
            return False
        names[name] = None
        return True

    def _send(self, text: str) -> bool:
        """Send to the owner, or keep it until the owner reads; whether it has been sent."""
        self._waiting.append(text.encode())
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
        return self._flush()

    def _flush(self) -> bool:
        loop = asyncio.get_running_loop()
        while self._waiting:
            try:
                self._link.send(self._waiting[0])
            except BlockingIOError:
                loop.add_writer(self._link.fileno(), self._flush)
                return False
            except OSError:  # the owner is gone, and soon so are we
                return False
            self._waiting.popleft()
        loop.remove_writer(self._link.fileno())
        return True

    def hear(self) -> bool:
        """Take what the owner says; False once it is gone."""
        while True:
            try:
                packet, _ = channel.receive(self._link, 1024)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            verb, *words = packet.decode().split("\0")
            if verb == "target":
                family, inside, address, port = words
                self.targets[family, int(inside)] = address, int(port)
            else:
                self.forget(words[0])


def _is_own(address: Address) -> bool:
    """Whether *address* is one of this machine's: only such a one can be bound to (ip(7))."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


async def _dial(addresses: tuple[Address, ...], port: int) -> socket.socket:
    """Connect to the first address that answers; raises OSError."""
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for address in addresses[:_MOST_DIALLED]:
        opened: socket.socket | None = None
        try:
            opened = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)  # noqa: PLR2004 - IPv4
            opened.setblocking(False)  # noqa: FBT003 - the standard library's signature
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connecting = asyncio.get_running_loop().sock_connect(opened, (str(address), port))
            await asyncio.wait_for(connecting, _DIAL_PATIENCE)
        except (OSError, TimeoutError) as error:
            failure = error
            if opened is not None:
                opened.close()
            continue
        except BaseException:
            if opened is not None:
                opened.close()
            raise
        return opened
    raise failure
