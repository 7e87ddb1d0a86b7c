"""Names are looked up at servers that may lie, be slow, or say too much."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from codex_sandbox_linux import dns
from codex_sandbox_linux.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codex_core.sandbox.addresses import Address

RIGHT, WRONG = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 66))
_TRUNCATED = 0x02


class Server:
    """Answers each question with whatever messages a function makes of it; by TCP always with the right address."""

    def __init__(self, answers: Callable[[dns.Question], list[bytes]]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.tcp.getsockname()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(self.address)
        self._threads = [threading.Thread(target=serve) for serve in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def _datagrams(self) -> None:
        while message := self.udp.recvfrom(4096):
            if not message[0]:
                return
            question = dns.parse_question(message[0])
            self.asked.append(question.name)
            for answer in self._answers(question):
                self.udp.sendto(answer, message[1])

    def _streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self.tcp.accept()[0] as accepted:
                    reply = right(dns.parse_question(accepted.recv(4096)[2:]))[0]
                    accepted.sendall(len(reply).to_bytes(2, "big") + reply)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self.address)
        self.tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self.tcp.close()
        self.udp.close()


def right(question: dns.Question) -> list[bytes]:
    return [dns.reply(question, dns.NO_ERROR, [RIGHT], 1_000_000)]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Give ``serve(answers)``: a name server."""
    with contextlib.ExitStack() as stack:

        def make(answers: Callable[[dns.Question], list[bytes]] = right) -> Server:
            made = Server(answers)
            stack.callback(made.close)
            return made

        yield make


def resolve(resolver: Resolver, *names: str) -> list[tuple[Address, ...]]:
    async def look_up() -> list[tuple[Address, ...]]:
        return list(await asyncio.gather(*map(resolver.resolve, names)))

    return asyncio.run(asyncio.wait_for(look_up(), 20))


def test_an_answer_that_somebody_guessed_does_not_count(serve: Callable[..., Server]) -> None:
    def guessed(question: dns.Question) -> list[bytes]:
        wrong = dns.reply(question, dns.NO_ERROR, [WRONG], 60)
        other = dns.reply(dns.parse_question(dns.query(question.identity, "b.example", question.kind)), 0, [WRONG], 60)
        return [bytes([wrong[0] ^ 1]) + wrong[1:], other, b"", *right(question)]

    assert resolve(Resolver([serve(guessed).address]), "a.example") == [(RIGHT,)]


def test_what_is_cut_off_is_asked_for_again_by_a_stream(serve: Callable[..., Server]) -> None:
    def cut(question: dns.Question) -> list[bytes]:
        message = dns.reply(question, dns.NO_ERROR, [WRONG], 60)
        return [message[:2] + bytes([message[2] | _TRUNCATED]) + message[3:-2]]

    assert resolve(Resolver([serve(cut).address]), "a.example") == [(RIGHT,)]


def test_a_server_that_fails_is_passed_over(serve: Callable[..., Server]) -> None:
    broken = serve(lambda question: [dns.reply(question, dns.SERVER_FAILURE, [WRONG], 60)])
    assert resolve(Resolver([broken.address, serve().address]), "a.example") == [(RIGHT,)]


def test_a_name_is_asked_for_once_and_kept_for_a_minute_at_most(serve: Callable[..., Server]) -> None:
    server = serve()
    resolver = Resolver([server.address])
    assert resolve(resolver, "a.example", "a.example", "a.example") == [(RIGHT,)] * 3
    assert resolve(resolver, "a.example") == [(RIGHT,)]
    assert len(server.asked) == 2, "for either family"
    assert resolver._kept["a.example"][0] <= time.monotonic() + 60


def test_a_thousand_names_are_kept_and_no_more(serve: Callable[..., Server]) -> None:
    resolver = Resolver([serve().address])
    for first in range(0, 1040, 20):
        resolve(resolver, *(f"a{first + number}.example" for number in range(20)))
    assert len(resolver._kept) == 1024
    assert "a1039.example" in resolver._kept
