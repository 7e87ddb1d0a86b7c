"""Who is asked about a host, decided without a network."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.domains import Rules
from codex_sandbox_linux import channel, dns
from codex_sandbox_linux.desk import Desk, RefusedError
from codex_sandbox_linux.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = ipaddress.ip_address("8.8.8.8")
"""Never dialled: every answer here is a no."""


class Owner:
    """The owner's end of a desk's link; it says no to whatever it is asked."""

    def __init__(self) -> None:
        self.link, self._theirs = channel.pair()
        self.link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._theirs.setblocking(False)  # noqa: FBT003 - as above
        self.asked: list[str] = []

    def desk(self, allowed: list[str], denied: list[str]) -> Desk:
        made = Desk(Rules.parse(allowed, denied), Resolver([("127.0.0.1", 9)]), self._theirs)
        self.link.send(b"asks")
        made.hear()
        return made

    def answer(self, desk: Desk) -> None:
        for packet in iter(self._receive, b""):
            verb, command, *words = packet.decode().split("\0")
            if verb == "ask":
                self.asked.append(":".join(words))
                self.link.send("\0".join(("answer", command, *words, "0", "rejected by user")).encode())
        desk.hear()

    def _receive(self) -> bytes:
        try:
            return self.link.recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.link.close()
        self._theirs.close()


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.close()


def refusal(desk: Desk, owner: Owner, host: str, port: int, pinned: str = "") -> str:
    """Give the reason why a connection to *host*, to which the name *pinned* led inside, is refused."""

    async def connect() -> str:
        if pinned:
            assert desk._pin(PUBLIC, pinned)
        opening = asyncio.create_task(desk.open(host, port))
        while not opening.done():
            await asyncio.sleep(0)
            owner.answer(desk)
        with pytest.raises(RefusedError) as caught:
            await opening
        return str(caught.value)

    return asyncio.run(asyncio.wait_for(connect(), 10))


def test_an_address_is_asked_about_by_the_name_that_led_there(owner: Owner) -> None:
    desk = owner.desk(["a.example:443"], [])
    assert "rejected by user" in refusal(desk, owner, str(PUBLIC), 80, pinned="a.example")
    assert "rejected by user" in refusal(desk, owner, str(PUBLIC), 81)
    assert owner.asked == ["a.example:80", "a.example:81"]


def test_an_address_without_a_name_is_asked_about_as_it_is(owner: Owner) -> None:
    assert "rejected by user" in refusal(owner.desk(["a.example"], []), owner, str(PUBLIC), 80)
    assert owner.asked == [f"{PUBLIC}:80"]


@pytest.mark.parametrize("denied", ["a.example:80", "8.8.8.8", "8.8.8.0/24:80", "*.example:80"])
def test_nobody_is_asked_about_an_address_that_is_denied_by_itself_or_by_a_name(owner: Owner, denied: str) -> None:
    desk = owner.desk(["a.example:443"], [denied])
    assert "rejected" not in refusal(desk, owner, str(PUBLIC), 80, pinned="a.example")
    assert owner.asked == []


def test_a_name_that_is_not_looked_up_gets_one_address_of_its_own(owner: Owner) -> None:
    desk = owner.desk(["a.example"], ["denied.example"])

    def look_up(name: str, kind: int = dns.A) -> dns.Answer:
        asking = dns.query(7, name, kind)
        reply = asyncio.run(desk.look_up(dns.parse_question(asking)))
        return dns.parse_answer(reply, 7, name, kind)

    first, other = look_up("b.example"), look_up("c.example")
    assert [one.is_global for one in (*first.addresses, *other.addresses)] == [False, False]
    assert first.addresses != other.addresses
    assert look_up("b.example") == first
    assert look_up("b.example", dns.AAAA).addresses == ()
    assert (look_up("denied.example").code, look_up("localname").code) == (dns.REFUSED, dns.REFUSED)
    assert "rejected by user" in refusal(desk, owner, str(other.addresses[0]), 443)
    assert owner.asked == ["c.example:443"]
    desk.forget("1")
    assert look_up("b.example").code == dns.REFUSED, "the next command asks nobody unless it says so"
