"""The owner's side of the filter: its process, and what it says about each jail."""

from __future__ import annotations

import errno
import ipaddress
import marshal
import os
import select
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from codex_core.errors import SandboxUnavailableError
from codex_core.sandbox.addresses import plain
from codex_core.sandbox.domains import LOCALHOST, Rules, join_port
from codex_core.types import Contact, Denial, Operation

from codex_sandbox_linux import channel, gateway, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codex_core.sandbox.addresses import Address
    from codex_core.sandbox.policy import SandboxPolicy

_MOST_CONTACTS: Final = 1024
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
        """Hand over the sockets of a jail, which are closed here.  Raises SandboxUnavailableError."""
        ours, theirs = channel.pair()
        try:
            socket.send_fds(self._control, [kinds.encode()], [theirs.fileno(), *descriptors])
        except OSError as error:
            ours.close()
            raise SandboxUnavailableError(_GONE) from error
        finally:
            theirs.close()
            for descriptor in descriptors:
                os.close(descriptor)
        return Link(self._rules, ours)

    def close(self) -> None:
        """End it; idempotent."""
        if self._pid:
            self._control.close()
            pid, self._pid = self._pid, 0
            helper.collect(pid)


class Link:
    """What the filter says about one jail.  Its :meth:`fileno` polls readable when there is something."""

    def __init__(self, rules: Rules, link: socket.socket) -> None:
        self._rules = rules
        self._link = link
        link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._command = 0
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

    def _take(self, verb: str, fields: list[str]) -> None:
        if verb == "pin":
            address, name = fields
            self._pins.setdefault(ipaddress.ip_address(address), {})[name] = None
            return
        host, port, allowed, rule, cure = fields
        if allowed == "1":
            self._note(Contact(host, int(port), allowed=True, rule=rule))
        else:
            self._refuse(host, int(port), rule, cure)

    def _note(self, contact: Contact) -> None:
        if len(self.contacts) < _MOST_CONTACTS:
            self.contacts[contact] = None

    def _refuse(self, host: str, port: int, rule: str, cure: str) -> None:
        self._note(Contact(host, port, allowed=False, rule=rule))
        if len(self.denials) < _MOST_CONTACTS:
            self.denials[Denial(Operation.CONNECT, join_port(host, port or None), rule, cure)] = None

    def _allows(self, address: Address, port: int) -> bool:
        """Judge an address that a program connects to by itself, and by the names that led to it inside."""
        self.handle()  # what its names are has been said before the program could know the address
        host, ruling = str(address), self._rules.judge(address, port)
        if not ruling.allowed and address not in self._pins and not self._rules.denies(address, port):
            ruling = replace(ruling, rule=f"{ruling.rule}, and no name that is allowed led there")
        for name in self._pins.get(address, ()):
            if not ruling.allowed:
                host, ruling = name, self._rules.judge(name, port)
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

        Raises OSError where the target is not allowed.
        """
        if not target or connecting.type != socket.SOCK_STREAM:
            return raw
        host, _, number = target.rpartition(":")
        address, port = plain(ipaddress.ip_address(host.strip("[]"))), int(number)
        near = address.is_loopback or address.is_unspecified
        if near and (not self._rules.lists(address, port) or listens_inside(str(address), port)):
            return raw
        if not near and not self._allows(address, port):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        version = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        local = gateway.ADDRESSES[version]
        if connecting.family != version:  # an IPv6 socket that speaks IPv4
            local = f"::ffff:{local}"
        if not connecting.getsockname()[1]:
            connecting.bind((local, 0))
        outside = str(address)
        if near and self._rules.judge(LOCALHOST, port).allowed:  # whichever of this machine's two it listens on
            outside = LOCALHOST
        if not self._say("target", str(address.version), str(connecting.getsockname()[1]), outside, str(port)):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return _socket_address(connecting.family, local, gateway.TRANSPARENT_PORT)

    def forget(self) -> None:
        """Forget what belonged to the last command, and break off its connections."""
        self._command += 1
        self._pins.clear()
        self.contacts.clear()
        self.denials.clear()
        self._say("command", str(self._command))

    def _say(self, *words: str) -> bool:
        try:
            self._link.send("\0".join(words).encode())
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let the filter close everything of this jail."""
        self._link.close()


def _socket_address(family: int, host: str, port: int) -> bytes:
    """Make a sockaddr (ip(7), ipv6(7))."""
    head = struct.pack("<H", family) + port.to_bytes(2, "big")
    packed = socket.inet_pton(family, host)
    return head + packed + bytes(8) if family == socket.AF_INET else head + bytes(4) + packed + bytes(4)
