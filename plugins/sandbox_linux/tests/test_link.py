"""What the owner takes from the filter, and where it leads connections, decided without a jail."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.domains import Rules
from codex_core.types import Decision, Verdict
from codex_sandbox_linux import channel, gateway
from codex_sandbox_linux.filtering import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = "8.8.8.8"
"""Never dialled: a way is only found, not gone."""
REFUSAL = "0\0no entry matches\0add it"


class Filter:
    """The other end of a link, which says what a test wants it to say."""

    def __init__(self) -> None:
        ours, self.control = channel.pair()
        self.control.settimeout(10)
        self.gates = {one.family: one for _, one in gateway.open_all(alone=False)}
        self.gate = self.gates[socket.AF_INET].getsockname()
        rules = Rules.parse(["a.example:80"], ["8.8.4.4"])
        gates = [self.gates[socket.AF_INET]]
        self.link = Link(rules, ours, gates, gates, isolated=True)
        self.floor = Link(rules, ours, gates, gates, isolated=False)
        """The same where the loopback is the host's."""
        self.link.forget()
        self.hear()

    def say(self, *words: str) -> None:
        self.control.send("\0".join(words).encode())

    def hear(self) -> list[str]:
        return self.control.recv(4096).decode().split("\0")

    def close(self) -> None:
        self.link.close()
        for one in (self.control, *self.gates.values()):
            one.close()


@pytest.fixture
def other() -> Iterator[Filter]:
    made = Filter()
    yield made
    made.close()


def way(link: Link, host: str, port: int = 80, kind: int = socket.SOCK_STREAM) -> object:
    """Give where a connection to *host* is led, or the error that it gets."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as connecting:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            raw = link.way(connecting, b"as it was", target, lambda *_: False)
        except OSError as error:
            return error.errno
    if raw == b"as it was":
        return raw
    return socket.inet_ntoa(raw[4:8]), struct.unpack(">H", raw[2:4])[0]


def test_an_address_is_open_once_an_allowed_name_has_led_there_and_until_the_command_ends(other: Filter) -> None:
    assert way(other.link, PUBLIC) == errno.EACCES
    other.say("pin", "1", PUBLIC, "a.example")
    assert way(other.link, PUBLIC) == other.gate
    assert way(other.link, PUBLIC, 81) == errno.EACCES
    other.link.forget()
    assert way(other.link, PUBLIC) == errno.EACCES


def test_what_is_said_about_the_command_before_counts_for_nothing(other: Filter) -> None:
    other.say("decision", "1", "b.example", "80", *REFUSAL.split("\0"))
    assert other.link.handle()
    assert [denial.target for denial in other.link.denials] == ["b.example:80"]
    other.link.forget()
    other.say("decision", "1", "b.example", "80", *REFUSAL.split("\0"))
    other.say("pin", "1", PUBLIC, "a.example")
    assert other.link.handle()
    assert (other.link.denials, other.link.contacts) == ({}, {})
    assert way(other.link, PUBLIC) == errno.EACCES


def test_a_thousand_hosts_are_remembered_and_no_more(other: Filter) -> None:
    for number in range(1100):
        other.say("decision", "1", f"b{number}.example", "80", *REFUSAL.split("\0"))
        assert other.link.handle()
    assert (len(other.link.denials), len(other.link.contacts)) == (1024, 1024)


def test_what_no_list_names_is_left_to_the_filter_where_somebody_can_be_asked_and_what_is_denied_never(
    other: Filter,
) -> None:
    assert way(other.link, PUBLIC) == errno.EACCES
    other.link.begin(lambda *_: Verdict(Decision.ALLOW, "", "user"))
    assert way(other.link, PUBLIC) == other.gate
    assert way(other.link, "8.8.4.4") == errno.EACCES
    other.link.forget()
    assert way(other.link, PUBLIC) == errno.EACCES, "the next command asks nobody unless it says so"


@pytest.mark.parametrize(("decision", "allowed"), [*((one, one is Decision.ALLOW) for one in Decision), (None, False)])
def test_only_a_yes_allows_and_its_words_are_one_field(
    other: Filter, decision: Decision | None, *, allowed: bool
) -> None:
    def ask(host: str, port: int) -> Verdict:
        if decision is None:
            raise RuntimeError(f"{host}\0{port}\n" + "x" * 5000)
        return Verdict(decision, "a\0b\nc", "user")

    other.link.begin(ask)
    assert other.hear() == ["asks"]
    other.say("ask", "1", "b.example", "80")
    assert other.link.handle()
    verb, command, host, port, answer, reason = other.hear()
    assert (verb, command, host, port, answer) == ("answer", "1", "b.example", "80", str(int(allowed)))
    assert "\n" not in reason
    assert len(reason) <= 500


def test_without_a_filter_that_hears_it_no_connection_is_led(other: Filter) -> None:
    other.say("pin", "1", PUBLIC, "a.example")
    assert way(other.link, PUBLIC) == other.gate
    other.control.close()
    assert way(other.link, PUBLIC) == errno.ENETUNREACH
    assert not other.link.handle()


def test_without_a_gate_for_its_family_a_connection_goes_nowhere(other: Filter) -> None:
    other.say("pin", "1", "2606:4700::1111", "a.example")
    assert way(other.link, "2606:4700::1111") == errno.ENETUNREACH


def test_where_the_loopback_is_the_hosts_nothing_passes_as_it_was(other: Filter) -> None:
    assert way(other.link, "127.0.0.1", kind=socket.SOCK_DGRAM) == b"as it was"
    assert way(other.link, "127.0.0.1") == b"as it was"
    assert way(other.link, PUBLIC, kind=socket.SOCK_DGRAM) == b"as it was"
    assert way(other.floor, "127.0.0.1", gateway.PROXY_PORT, socket.SOCK_DGRAM) == errno.EACCES
    assert way(other.floor, "127.0.0.1") == errno.EACCES
    assert way(other.floor, "127.0.0.1", gateway.PROXY_PORT) == other.gate
    assert way(other.floor, "127.0.0.2", gateway.PROXY_PORT) == errno.EACCES
