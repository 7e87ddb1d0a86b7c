"""Which hosts a command may reach: patterns, and the decision about one host and port.  Pure.

==================  ==================================================================================
pattern             matches
==================  ==================================================================================
``example.com``     exactly this name
``*.example.com``   every name below it, and not itself
``*`` or ``**``     every name; addresses that nobody has looked up by a name are not names
``192.0.2.7``       this address; IPv6 too, ``2001:db8::7``
``192.0.2.0/24``    the addresses of this network
``localhost``       this machine's own loopback addresses, outside the sandbox
==================  ==================================================================================

Each may end in ``:PORT`` (an IPv6 address then stands in brackets); without it every port matches.
What is denied wins over what is allowed.  Case and one dot at the end make no difference.

Hosts are read strictly.  What two programs could read differently is refused and not guessed at:
bytes outside ASCII, ``@``, ``%``, spaces, and addresses in any spelling but the usual one, such as
``127.1``, ``0x7f000001`` and ``0177.0.0.1``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.sandbox.addresses import closed, facets, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codex_core.sandbox.addresses import Address, Network

    Host = str | Address

ALLOWED_KEY = "sandbox_workspace_write.allowed_domains"
DENIED_KEY = "sandbox_workspace_write.denied_domains"
LOCALHOST = "localhost"

_LABEL_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_DIGITS = frozenset("0123456789")
_LONGEST_NAME = 253
_LONGEST_LABEL = 63
_LAST_PORT = 65535
_WEB_PORTS = (80, 443)


def parse_host(text: str) -> Host:
    """Read a name, in lower case and without the dot at the end, or an address.

    Raises ValueError, whose text says in one line what is wrong.
    """
    if not text.isascii():
        raise ValueError(f"{text!r} is not ASCII{_ascii_form(text)}")
    if ":" in text:
        return plain(_address(text))
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(map(_is_label, labels)):
        raise ValueError(f"{text!r} is not the name of a host")
    last = labels[-1]
    if _DIGITS.issuperset(last) or last.startswith("0x"):  # read as an address by some programs, however it is written
        return _address(name)
    return name


def _is_label(label: str) -> bool:
    return 0 < len(label) <= _LONGEST_LABEL and _LABEL_SIGNS.issuperset(label) and "-" not in (label[0], label[-1])


def _address(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        raise ValueError(f"{text!r} is not an address in its usual form")
    return address


def _ascii_form(text: str) -> str:
    try:
        return f": write it as {text.encode('idna').decode()!r}"
    except UnicodeError:
        return ""


def split_port(text: str) -> tuple[str, int | None]:
    """Split ``host[:port]``, where an IPv6 address with a port stands in brackets, into the two.

    The host is not looked at.  Raises ValueError.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and rest[0] != ":"):
            raise ValueError(f"{text!r} has brackets that hold no IPv6 address")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, _port(port)


def _port(text: str) -> int:
    if not text or not _DIGITS.issuperset(text) or text[0] == "0" or len(text) > 5 or int(text) > _LAST_PORT:  # noqa: PLR2004 - digits
        raise ValueError(f"{text!r} is not a port")
    return int(text)


def join_port(host: str, port: int | None) -> str:
    """Write ``host:port``, with brackets where they are needed."""
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One entry of a list of domains; see the module for the forms."""

    name: str
    """``example.com``, ``*.example.com``, ``*``, or empty for addresses."""
    network: Network | None = None
    port: int | None = None

    def __str__(self) -> str:
        """Write it in its one canonical form."""
        if self.network is None:
            return join_port(self.name, self.port)
        one = self.network.prefixlen == self.network.max_prefixlen
        return join_port(str(self.network.network_address) if one else str(self.network), self.port)

    def matches(self, host: Host, port: int | None) -> bool:
        """Say whether it speaks of *host* and *port*; without a port, of the host on some port."""
        if port is not None and self.port not in {None, port}:
            return False
        if isinstance(host, str):
            if self.name.startswith("*"):
                return host.endswith(self.name[1:])
            return host == self.name
        return self.network is not None and host.version == self.network.version and host in self.network

    def covers(self, other: Pattern) -> bool:
        """Say whether it matches all that *other* matches."""
        if self.port not in {None, other.port}:
            return False
        if self.network is None or other.network is None:
            return self.network is other.network and self.matches(other.name, None)
        return other.network.version == self.network.version and other.network.subnet_of(self.network)  # type: ignore[arg-type] # the same version


def parse_pattern(text: str) -> Pattern:
    """Read one entry of a list of domains; raises ValueError, whose text says in one line what is wrong."""
    if "://" in text:
        raise ValueError(f"{text!r}: only hosts are listed, without a scheme and a path")
    host, port = split_port(text)
    if "/" in host:
        return Pattern("", _network(host), port)
    if host in {"*", "**"}:
        return Pattern("*", None, port)
    below = host.startswith("*.")
    if "*" in host.removeprefix("*."):
        raise ValueError(f"{text!r}: a * stands alone, or in front as in '*.example.com'")
    parsed = parse_host(host.removeprefix("*."))
    if isinstance(parsed, str):
        return Pattern(f"*.{parsed}" if below else parsed, None, port)
    if below:
        raise ValueError(f"{text!r}: a * does not go with an address; write a network as in '192.0.2.0/24'")
    return Pattern("", ipaddress.ip_network(parsed), port)


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in text or not _DIGITS.issuperset(text.rpartition("/")[2]):
        raise ValueError(f"{text!r} is not a network")
    if network.network_address != _address(text.partition("/")[0]):
        raise ValueError(f"{text!r} has bits behind its prefix; {str(network)!r} is the network")
    return network


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decision about one host."""

    allowed: bool
    rule: str
    """What decided, for people."""
    cure: str = ""
    """The change of the configuration that would allow it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The two lists, ready to decide."""

    allowed: tuple[Pattern, ...]
    denied: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, allowed: Iterable[str], denied: Iterable[str] = ()) -> Rules:
        """Read both lists; raises ValueError."""
        return cls(tuple(map(parse_pattern, allowed)), tuple(map(parse_pattern, denied)))

    def decide(self, host: str, port: int | None) -> Ruling:
        """Judge a host as somebody named it; without a port, whether it may be reached on any.  Never raises."""
        try:
            return self.judge(parse_host(host), port)
        except ValueError as error:
            return Ruling(allowed=False, rule=str(error))

    def judge(self, host: Host, port: int | None) -> Ruling:
        """Judge a host that has been read."""
        if port is not None and not 0 < port <= _LAST_PORT:
            return Ruling(allowed=False, rule=f"{port} is not a port")
        denied = self._first_denied(host, port)
        if denied is not None:
            return denied
        for pattern in self.allowed:
            if pattern.matches(host, port):
                return Ruling(allowed=True, rule=f"{str(pattern)!r} is in allowed_domains")
        return Ruling(allowed=False, rule="no entry of allowed_domains matches", cure=entry(host, port))

    def _first_denied(self, host: Host, port: int | None) -> Ruling | None:
        for pattern in self.denied:
            if pattern.matches(host, port) and (port is not None or pattern.port is None):
                rule = f"{str(pattern)!r} is in denied_domains"
                return Ruling(allowed=False, rule=rule, cure=f"take {str(pattern)!r} out of {DENIED_KEY}")
        return None

    def denies(self, host: Host, port: int | None) -> bool:
        """Say whether the host is listed as denied."""
        return self._first_denied(host, port) is not None

    def judge_address(self, address: Address, port: int | None) -> Ruling:
        """Judge where an allowed name leads: to public addresses, and to others if these are listed."""
        address = plain(address)
        for facet in facets(address):
            denied = self._first_denied(facet, port)
            if denied is not None:
                return denied
        if self.lists(address, port):
            return Ruling(allowed=True, rule=f"{address} is listed in allowed_domains")
        kind = closed(address)
        if kind:
            return Ruling(allowed=False, rule=f"{address} is {kind}", cure=entry(address, port))
        return Ruling(allowed=True, rule="it is a public address")

    def lists(self, address: Address, port: int | None) -> bool:
        """Say whether the address itself is allowed, and not only the names that lead to it."""
        return any(
            pattern.matches(address, port)
            or (pattern.name == LOCALHOST and address.is_loopback and pattern.matches(LOCALHOST, port))
            for pattern in self.allowed
        )


def entry(host: Host, port: int | None) -> str:
    """Say what to add to the configuration for this host."""
    shown = join_port(str(host), None if port in _WEB_PORTS else port)
    return f"add {shown!r} to {ALLOWED_KEY}"
