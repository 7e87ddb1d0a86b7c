"""Outside: decide about, and dial, what the commands of one jail want to reach.

A name is looked up once for a connection; each of its addresses is judged, and the judged address is
the one that is dialled.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from codex_core.sandbox.domains import Ruling, entry, join_port, parse_host
from codex_core.types import QUESTION_PATIENCE

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
"""Different decisions about one command that are reported, of each kind: refusals hide nothing that was reached."""
_MOST_WAITING: Final = 4096
_TTL: Final = 60
_MOST_ASKED: Final = 16
"""Hosts that the owner is asked about for one command."""
_MOST_UNDECIDED: Final = 64
"""Connections that wait for an answer; the rest of what a jail may have is for others."""
_STAND_INS: Final = ipaddress.ip_network("198.18.0.0/15")
"""Addresses that lead nowhere (RFC 2544)."""


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
        self._reported: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}
        self._waiting: deque[bytes] = deque()
        self.command = "0"
        """The number of the command that now runs."""
        self.asks = False
        """Whether somebody can be asked about it."""
        self._answers: dict[tuple[str, int], asyncio.Future[tuple[bool, str]]] = {}
        self._undecided = 0
        self._stand_ins: dict[Address, str] = {}
        """Addresses given for names that were not looked up: the owner is asked when the port is known."""
        self.targets: dict[tuple[str, int], tuple[str, str, int]] = {}
        """Family and port of a socket inside -> what it is led to: a kind of service, an address and a port."""

    def forget(self, command: str) -> None:
        """Forget all about the last command; another one is about to run."""
        self.command = command
        self._pins.clear()
        self._reported = {True: set(), False: set()}
        self.targets.clear()
        self.asks = False
        self._answers.clear()
        self._stand_ins.clear()

    async def open(self, host: str, port: int) -> socket.socket:
        """Connect to *host*, as a program named it; raises RefusedError, ResolveError or OSError."""
        try:
            parsed = parse_host(host)
        except ValueError as error:
            raise RefusedError(self._refuse(ascii(host), port, Ruling(allowed=False, rule=str(error)))) from None
        if not isinstance(parsed, str):
            parsed = self._stand_ins.get(parsed, parsed)
        name, ruling = await self._decide(parsed, port)
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
        if isinstance(parsed, str) and not ruling.allowed and "." in parsed and self._is_asked_about(parsed, None):
            return self._stand_in(question, parsed)
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

    def _is_asked_about(self, host: Host, port: int | None) -> bool:
        """Whether the owner is asked about a host that is not allowed: neither a denied one nor a closed address."""
        if not self.asks or self._rules.denies(host, port):
            return False
        return isinstance(host, str) or self._judge_address(host, port).allowed

    def _stand_in(self, question: dns.Question, name: str) -> bytes:
        """Answer for a name that the owner is yet to be asked about, when it is known for which port."""
        if question.kind != dns.A:
            return dns.reply(question, dns.NO_ERROR)
        address = next((address for address, known in self._stand_ins.items() if known == name), None)
        if address is None:
            if len(self._stand_ins) >= _MOST_ASKED:
                return dns.reply(question, dns.REFUSED)
            address = _STAND_INS[len(self._stand_ins) + 1]
            self._stand_ins[address] = name
        return dns.reply(question, dns.NO_ERROR, (address,), _TTL)

    async def _decide(self, host: Host, port: int) -> tuple[str, Ruling]:
        """Judge a host, and ask the owner about one that no list names; whoever waits for that waits alone."""
        name, ruling = self._judge(host, port)
        led_there = () if isinstance(host, str) else tuple(self._pins.get(host, ()))
        if ruling.allowed or not all(self._is_asked_about(one, port) for one in (host, *led_there)):
            return name, ruling
        name = led_there[0] if led_there else name
        allowed, reason = await self._ask(name, port)
        return name, Ruling(allowed=True, rule=reason) if allowed else replace(ruling, rule=f"{ruling.rule}; {reason}")

    async def _ask(self, name: str, port: int) -> tuple[bool, str]:
        """Get the owner's word on a host, and from whom or why not; each is asked about once."""
        key = (name, port)
        if len(self._answers) >= _MOST_ASKED and key not in self._answers:
            return False, f"{_MOST_ASKED} others were asked about already"
        if self._undecided >= _MOST_UNDECIDED:
            return False, f"{_MOST_UNDECIDED} connections wait for an answer already"
        if key not in self._answers:
            self._answers[key] = asyncio.get_running_loop().create_future()
            self._send("\0".join(("ask", self.command, name, str(port))))
        self._undecided += 1
        try:
            # wait_for of Python 3.11 forgets that it is cancelled if the answer comes at the same time.
            async with asyncio.timeout(QUESTION_PATIENCE):
                return await asyncio.shield(self._answers[key])
        except TimeoutError:
            return False, f"nobody answered within {QUESTION_PATIENCE:g} s"
        finally:
            self._undecided -= 1

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
        reported = self._reported[ruling.allowed]
        if (host, port) in reported or len(reported) >= _MOST_REPORTS:
            return
        reported.add((host, port))
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
                packet, _ = channel.receive(self._link, 4096)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            verb, *words = packet.decode().split("\0")
            if verb == "command":
                self.forget(words[0])
            elif verb == "asks":
                self.asks = True
            elif verb == "answer":
                self._take_answer(*words)
            else:
                family, inside, address, port = words
                self.targets[family, int(inside)] = verb, address, int(port)

    def _take_answer(self, command: str, host: str, port: str, allowed: str, reason: str) -> None:
        waiting = self._answers.get((host, int(port)))
        if command == self.command and waiting is not None and not waiting.done():
            waiting.set_result((allowed == "1", reason))


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
            async with asyncio.timeout(_DIAL_PATIENCE):
                await asyncio.get_running_loop().sock_connect(opened, (str(address), port))
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
