"""The owner's side of the filter: its process, and what it says about each jail."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import marshal
import os
import select
import socket
import struct
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from codex_core.errors import SandboxUnavailableError
from codex_core.sandbox.addresses import plain
from codex_core.sandbox.domains import LOCALHOST, Rules, join_port
from codex_core.types import Contact, Decision, Denial, Operation

from codex_sandbox_linux import channel, gateway, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codex_core.sandbox.addresses import Address
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Verdict

_MOST_REFUSED: Final = 1024
"""Hosts that are written down for one command; of those that were reached, the filter says no more than as many."""
_LONGEST_REASON: Final = 500
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_GONE: Final = "the process that filters the network has ended unexpectedly: start codex again"


class Filter:
    """The process that dials for all jails of one launcher."""

    def __init__(self, policy: SandboxPolicy, nameservers: Sequence[tuple[str, int]] = ()) -> None:
        """Start it for the lists of *policy*.

        It asks *nameservers*, addresses and ports, or those that this machine is configured with.
        """
        self._rules = Rules.parse(policy.allowed_domains, policy.denied_domains)
        self._pid, self._control = helper.start("egress")
        with open(os.memfd_create("lists"), "w+b") as file:  # they may be longer than a packet
            marshal.dump((policy.allowed_domains, policy.denied_domains, tuple(nameservers)), file)
            file.seek(0)
            socket.send_fds(self._control, [b"l"], [file.fileno()])

    def check(self) -> None:
        """Raise SandboxUnavailableError if it is gone."""
        if self._has_ended():
            raise SandboxUnavailableError(_GONE)

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._control, 0)  # POLLHUP is always reported
        return bool(poll.poll(0))

    def admit(self, kinds: str, descriptors: Sequence[int]) -> Link:
        """Hand over the sockets of a jail, and take over those that connections are led to.

        Raises SandboxUnavailableError.
        """
        ours, theirs = channel.pair()
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        gates = [one for kind, one in zip(kinds.split("\0"), sockets, strict=True) if kind == gateway.TRANSPARENT]
        try:
            socket.send_fds(self._control, [kinds.encode()], [theirs.fileno(), *descriptors])
        except OSError as error:
            for one in (ours, *sockets):
                one.close()
            raise SandboxUnavailableError(_GONE) from error
        finally:
            theirs.close()
        return Link(self._rules, ours, sockets, gates, isolated=len(gates) < len(sockets))

    def close(self) -> None:
        """End it; idempotent."""
        if self._pid:
            self._control.close()
            pid, self._pid = self._pid, 0
            helper.collect(pid)


class Link:
    """What the filter says about one jail.  Its :meth:`fileno` polls readable when there is something."""

    def __init__(
        self,
        rules: Rules,
        link: socket.socket,
        listening: Sequence[socket.socket],
        gates: Sequence[socket.socket],
        *,
        isolated: bool,
    ) -> None:
        """Take over what the filter listens on; *gates* are those of them on which it accepts what is led there.

        They are held as long as the jail lives: nobody takes over the port of a filter that has ended.  *isolated*
        says that the loopback is the jail's own.
        """
        self._rules = rules
        self._link = link
        self._listening = listening
        self._gates = {one.family: one for one in gates}
        self.isolated = isolated
        for one in (link, *listening):
            one.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._command = 0
        self._ask: Callable[[str, int], Verdict] | None = None
        self._pins: dict[Address, dict[str, None]] = {}
        self.contacts: dict[Contact, None] = {}
        """In order, each once, and so many at most."""
        self.denials: dict[Denial, None] = {}

    def fileno(self) -> int:
        """Give a descriptor that polls readable when :meth:`handle` has something to do."""
        return self._link.fileno()

    def handle(self) -> bool:
        """Take what has been said; False once the filter is gone."""
        while True:
            try:
                packet, _ = channel.receive(self._link, 4096)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            verb, command, *fields = packet.decode(errors="replace").split("\0")
            if command == str(self._command):  # and not about the command before
                self._take(verb, fields)

    def begin(self, ask: Callable[[str, int], Verdict] | None) -> None:
        """Let a command begin about which *ask* can be asked."""
        self._ask = ask
        if ask is not None:
            self._say("asks")

    def _take(self, verb: str, fields: list[str]) -> None:
        if verb == "pin":
            address, name = fields
            self._pins.setdefault(ipaddress.ip_address(address), {})[name] = None
            return
        if verb == "ask":
            if self._ask is not None:
                arguments = (str(self._command), self._ask, fields[0], int(fields[1]))
                threading.Thread(target=self._put, args=arguments, daemon=True).start()
            return
        host, port, allowed, rule, cure = fields
        if allowed == "1":
            self.contacts[Contact(host, int(port), allowed=True, rule=rule)] = None
        else:
            self._refuse(host, int(port), rule, cure)

    def _put(self, command: str, ask: Callable[[str, int], Verdict], host: str, port: int) -> None:
        """Put a question, and pass the answer on; it may take as long as a person thinks."""
        try:
            verdict = ask(host, port)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no yes
            allowed, reason = False, str(error)
        else:
            allowed = verdict.decision is Decision.ALLOW
            reason = f"allowed by {verdict.source}" if allowed else verdict.reason
        self._say("answer", command, host, str(port), str(int(allowed)), _one_line(reason))

    def _refuse(self, host: str, port: int, rule: str, cure: str) -> None:
        if len(self.denials) < _MOST_REFUSED:
            self.contacts[Contact(host, port, allowed=False, rule=rule)] = None
            self.denials[Denial(Operation.CONNECT, join_port(host, port or None), rule, cure)] = None

    def _allows(self, address: Address, port: int) -> bool:
        """Judge an address that a program connects to by itself, and by the names that led to it inside.

        One that no list names is left to the filter where somebody can be asked.
        """
        self.handle()  # what its names are has been said before the program could know the address
        host, ruling = str(address), self._rules.judge(address, port)
        if not ruling.allowed and address not in self._pins and not self._rules.denies(address, port):
            ruling = replace(ruling, rule=f"{ruling.rule}, and no name that is allowed led there")
        for name in self._pins.get(address, ()):
            if not ruling.allowed:
                host, ruling = name, self._rules.judge(name, port)
        if not ruling.allowed and self._ask is not None and not self._rules.denies(address, port):
            return True
        if not ruling.allowed:
            self._refuse(host, port, ruling.rule, ruling.cure)
        return ruling.allowed

    def way(
        self, connecting: socket.socket, raw: bytes, target: str, listens_inside: Callable[[str, int], bool]
    ) -> bytes:
        """Give the address to connect a socket to: in the place of a *target* outside, where the filter listens.

        *raw* is the address that the program gave, *target* the same as ``host:port``, empty if it is none.  The
        filter is told first which connection will come, and from where, so that it never has to guess.  A loopback
        address is outside if it is listed and nobody inside listens there.

        Where the loopback is the host's, so is everything there, and the filter's proxy and name server are reached
        by this way too.

        Raises OSError where the target is not allowed.
        """
        if not target or connecting.type != socket.SOCK_STREAM:
            if self.isolated:
                return raw
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        host, _, number = target.rpartition(":")
        address, port = plain(ipaddress.ip_address(host.strip("[]"))), int(number)
        near = address.is_loopback or address.is_unspecified
        listed = near and self._rules.lists(address, port)
        if near and self.isolated and (not listed or listens_inside(str(address), port)):
            return raw
        kind = gateway.TRANSPARENT if self.isolated else gateway.kind_of(str(address), port)
        if kind == gateway.TRANSPARENT and not listed and not self._allows(address, port):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        version = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        if version not in self._gates:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        local = gateway.ADDRESSES[version]
        if connecting.family != version:  # an IPv6 socket that speaks IPv4
            local = f"::ffff:{local}"
        if not connecting.getsockname()[1]:
            connecting.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 0)  # the port has to be known now
            connecting.bind((local, 0))
        outside = str(address)
        if near and self._rules.judge(LOCALHOST, port).allowed:  # whichever of this machine's two it listens on
            outside = LOCALHOST
        if not self._say(kind, str(address.version), str(connecting.getsockname()[1]), outside, str(port)):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return _socket_address(connecting.family, local, self._gates[version].getsockname()[1])

    def forget(self) -> bool:
        """Forget what belonged to the last command, and break off its connections; whether the filter does so too.

        What the command, which has ended, still asked for in a queue would be served as the next one's.
        """
        self._command += 1
        self._ask = None
        self._pins.clear()
        self.contacts.clear()
        self.denials.clear()
        try:
            for one in self._listening if self.isolated else ():
                _empty(one)
        except OSError:  # no descriptors left
            return False
        return self._say("command", str(self._command))

    def _say(self, *words: str) -> bool:
        try:
            self._link.send("\0".join(words).encode())
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let the filter close everything of this jail; idempotent."""
        for one in (self._link, *self._listening):
            one.close()


def _empty(listening: socket.socket) -> None:
    """Throw away what waits for a socket; raises OSError."""
    with contextlib.suppress(BlockingIOError):
        while True:
            if listening.type == socket.SOCK_STREAM:
                listening.accept()[0].close()
            else:
                listening.recv(1)


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())[:_LONGEST_REASON]


def _socket_address(family: int, host: str, port: int) -> bytes:
    """Make a sockaddr (ip(7), ipv6(7))."""
    head = struct.pack("<H", family) + port.to_bytes(2, "big")
    packed = socket.inet_pton(family, host)
    return head + packed + bytes(8) if family == socket.AF_INET else head + bytes(4) + packed + bytes(4)
