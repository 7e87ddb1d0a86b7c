"""Who is asked about a host, decided without a network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.domains import Rules
from codex_sandbox_linux import channel, dns
from codex_sandbox_linux.desk import Desk, RefusedError, _dial
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

    def hear(self) -> list[str]:
        """Give all that the desk has said."""
        return [packet.decode() for packet in iter(self._receive, b"")]

    def answer(self, desk: Desk) -> None:
        for packet in self.hear():
            verb, command, *words = packet.split("\0")
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


def code(desk: Desk, name: str) -> int:
    """Give what the desk answers to a question for a name."""
    return dns.parse_answer(asyncio.run(desk.look_up(question(name))), 7, name, dns.A).code


def question(name: str) -> dns.Question:
    return dns.parse_question(dns.query(7, name, dns.A))


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


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1"])
def test_nobody_is_asked_about_an_address_that_is_not_public(owner: Owner, address: str) -> None:
    assert "rejected" not in refusal(owner.desk(["a.example"], []), owner, address, 80)
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


def test_one_command_asks_about_sixteen_hosts_and_no_more(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])

    async def connect() -> list[str]:
        hosts = [f"b{number}.example" for number in (*range(17), 0)]
        opening = [asyncio.create_task(desk.open(host, 443)) for host in hosts]
        await asyncio.sleep(0)
        owner.answer(desk)
        return [str(one) for one in await asyncio.gather(*opening, return_exceptions=True)]

    *refused, seventeenth, again = asyncio.run(asyncio.wait_for(connect(), 10))
    assert all("rejected by user" in reason for reason in (*refused, again))
    assert "16 others were asked about already" in seventeenth
    assert len(owner.asked) == 16


def test_sixteen_names_get_an_address_before_they_are_asked_about_and_no_more(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])
    codes = [code(desk, f"b{number}.example") for number in range(17)]
    assert codes == [dns.NO_ERROR] * 16 + [dns.REFUSED]
    assert code(desk, "b0.example") == dns.NO_ERROR


def test_sixty_four_connections_wait_for_an_answer_and_the_next_does_not(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])

    async def connect() -> None:
        waiting = [asyncio.create_task(desk.open("b.example", 443)) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="64 connections wait for an answer already"):
            await asyncio.wait_for(desk.open("b.example", 443), 10)
        owner.answer(desk)
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert all("rejected by user" in str(one) for one in refused)
        asking = asyncio.create_task(desk.open("c.example", 443))
        await asyncio.sleep(0)
        owner.answer(desk)
        with pytest.raises(RefusedError, match="rejected by user"):
            await asyncio.wait_for(asking, 10)

    asyncio.run(connect())
    assert owner.asked == ["b.example:443", "c.example:443"]


def test_a_connection_that_is_broken_off_takes_the_answer_from_nobody(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])

    async def connect() -> None:
        one, other = (asyncio.create_task(desk.open("b.example", 443)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait({one})
        owner.answer(desk)
        with pytest.raises(RefusedError, match="rejected by user"):
            await asyncio.wait_for(other, 10)

    asyncio.run(connect())


def test_an_answer_about_the_command_before_opens_nothing(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])
    owner.link.send(b"command\x001")
    owner.link.send(b"asks")
    desk.hear()

    async def connect() -> None:
        asking = asyncio.create_task(desk.open("b.localhost", 1))
        await asyncio.sleep(0)
        owner.link.send(b"answer\x000\x00b.localhost\x001\x001\x00allowed by user")
        desk.hear()
        owner.answer(desk)
        owner.answer(desk)  # twice: the second comes too late, and harms nothing
        with pytest.raises(RefusedError, match="rejected by user"):
            await asyncio.wait_for(asking, 10)

    asyncio.run(connect())


def test_with_the_command_all_that_it_learnt_is_forgotten(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])
    assert "rejected by user" in refusal(desk, owner, str(PUBLIC), 80, pinned="b.example")
    owner.link.send(b"transparent\x004\x0040000\x00127.0.0.1\x0080")
    assert desk.hear()
    assert desk.targets == {("4", 40000): ("transparent", "127.0.0.1", 80)}
    owner.link.send(b"command\x001")
    owner.link.send(b"asks")
    assert desk.hear()
    assert desk.targets == {}
    assert "rejected by user" in refusal(desk, owner, str(PUBLIC), 80)
    assert owner.asked == ["b.example:80", f"{PUBLIC}:80"]


def test_each_decision_is_reported_once_for_a_command_and_a_thousand_at_most(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])
    desk.forget("1")
    for name in ("b.example", "b.example", *(f"c{number}.example" for number in range(1100))):
        code(desk, name)
        owner.asked += owner.hear()
    assert len(owner.asked) == len(set(owner.asked)) == 1024
    desk.forget("2")
    code(desk, "b.example")
    assert [one.split("\0")[:3] for one in owner.hear()] == [["decision", "2", "b.example"]]


def test_an_address_stands_for_sixteen_names_at_most(owner: Owner) -> None:
    desk = owner.desk(["*.localhost", "127.0.0.1"], [])
    assert [code(desk, f"b{number}.localhost") for number in range(17)] == [dns.NO_ERROR] * 16 + [dns.SERVER_FAILURE]
    assert code(desk, "b0.localhost") == dns.NO_ERROR


def test_an_address_of_which_the_owner_has_not_been_told_is_not_given(owner: Owner) -> None:
    desk = owner.desk(["*.localhost", "127.0.0.1"], [])
    desk.forget("1")

    async def look_up(name: str) -> int:
        return dns.parse_answer(await desk.look_up(question(name)), 7, name, dns.A).code

    async def ask() -> None:
        for number in range(1024):  # the owner does not read
            await look_up(f"denied{number}.example")
        for _ in range(5000):
            assert await look_up("b.localhost") == dns.SERVER_FAILURE
        assert len(desk._waiting) <= 4096
        while desk._waiting:
            owner.hear()
            await asyncio.sleep(0)
        owner.hear()
        assert await look_up("b.localhost") == dns.NO_ERROR
        assert owner.hear() == ["pin\x001\x00127.0.0.1\x00b.localhost"]

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_of_many_addresses_four_are_tried() -> None:
    with socket.create_server(("127.0.0.9", 0)) as server:
        port = server.getsockname()[1]
        addresses = tuple(ipaddress.ip_address(f"127.0.0.{number}") for number in (2, 3, 4, 5, 9))
        asyncio.run(_dial(addresses[1:], port)).close()
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(_dial(addresses, port))


def test_an_answer_counts_for_its_command_and_a_name_that_was_given_an_address_too(owner: Owner) -> None:
    desk = owner.desk(["a.example"], [])

    async def connect(host: str) -> str:
        opening = asyncio.create_task(desk.open(host, 443))
        await asyncio.sleep(0)
        owner.answer(desk)
        with pytest.raises(RefusedError) as caught:
            await asyncio.wait_for(opening, 10)
        return str(caught.value)

    async def commands() -> None:
        await desk.look_up(question("b.example"))
        for command in ("1", "2"):
            assert "rejected by user" in await connect("198.18.0.1")
            assert "rejected by user" in await connect("b.example")
            assert len(owner.asked) == int(command)
            owner.link.send(f"command\0{command}".encode())
            owner.link.send(b"asks")
            desk.hear()
            assert "rejected by user" not in await connect("198.18.0.1")
            await desk.look_up(question("b.example"))

    asyncio.run(commands())
    assert owner.asked == ["b.example:443"] * 2


def test_a_connection_that_ends_with_its_command_says_nothing_about_the_next_though_its_answer_comes_at_the_same_time(
    owner: Owner,
) -> None:
    desk = owner.desk(["a.example:443"], [])

    async def connect() -> None:
        opening = asyncio.create_task(desk.open("b.example", 80))
        await asyncio.sleep(0)
        assert owner.hear()
        owner.link.send(b"answer\x000\0b.example\x0080\x000\0rejected by user")
        owner.link.send(b"command\x001")
        desk.hear()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(connect())
    assert owner.hear() == []
