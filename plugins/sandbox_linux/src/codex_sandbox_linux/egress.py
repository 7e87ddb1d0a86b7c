"""Outside: the process that the commands of filtered jails reach the network through.

It listens on sockets that the jails have made on their own loopback, so nothing of it runs inside, and
nothing outside can connect to it.  It ends with its owner.  One for each launcher; asyncio, one thread.

What it accepts: HTTP proxy requests and SOCKS5 on one port, told apart by the first byte; connections
that the supervisor has led here, on another; DNS.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import marshal
import resource
import socket
import struct
from typing import TYPE_CHECKING, Final, NoReturn

from codex_core.sandbox.domains import Rules

from codex_sandbox_linux import channel, dns, gateway, helper, kernel
from codex_sandbox_linux.desk import Desk, RefusedError
from codex_sandbox_linux.http_head import CHUNKED, HEAD_LIMIT, HeadError, answer, parse_chunk_size, parse_head
from codex_sandbox_linux.relay import relay
from codex_sandbox_linux.resolver import ResolveError, Resolver, read_exactly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


MOST_CONNECTIONS: Final = 256
"""For one jail; more wait in the queue of the listening socket, where they cost this process nothing."""
_MOST_QUESTIONS: Final = 64
_HEAD_PATIENCE: Final = 20.0
"""Seconds that a program has to say what it wants."""
_IDLE: Final = 600.0
_BREATH: Final = 0.1
_PIECE: Final = 65536
_DATAGRAM: Final = 1500

_SOCKS5: Final = 5
_NO_LOGIN: Final = 0
_NOT_ACCEPTED: Final = 0xFF
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_OK, _FAILED, _NOT_ALLOWED, _NO_NETWORK, _NO_HOST, _CLOSED, _NO_COMMAND, _NO_KIND = 0, 1, 2, 3, 4, 5, 7, 8


class _Gateway:
    """Serves one jail."""

    def __init__(self, rules: Rules, resolver: Resolver, kinds: list[str], descriptors: list[int]) -> None:
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for one in sockets:
            one.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._link, *self._listening = sockets
        self._kinds = kinds
        self._loop = asyncio.get_running_loop()
        self._desk = Desk(rules, resolver, self._link)
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = True
        self._loop.add_reader(self._link.fileno(), self._hear)
        self._accept_all()

    def _accept_all(self) -> None:
        self._accepting = True
        serve = {gateway.PROXY: self._proxy, gateway.TRANSPARENT: self._led, gateway.DNS_TCP: self._dns_stream}
        for kind, listening in zip(self._kinds, self._listening, strict=True):
            if kind == gateway.DNS_UDP:
                self._loop.add_reader(listening.fileno(), self._dns_datagram, listening)
            else:
                self._loop.add_reader(listening.fileno(), self._accept, listening, serve[kind])

    def _pause(self) -> None:
        self._accepting = False
        for kind, listening in zip(self._kinds, self._listening, strict=True):
            if kind != gateway.DNS_UDP:
                self._loop.remove_reader(listening.fileno())

    def _hear(self) -> None:
        command = self._desk.command
        if not self._desk.hear():
            self.close()
        elif self._desk.command != command:
            for task in self._tasks:
                task.cancel()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for one in (self._link, *self._listening):
            if one.fileno() >= 0:
                self._loop.remove_reader(one.fileno())
                self._loop.remove_writer(one.fileno())
                one.close()

    def _accept(self, listening: socket.socket, serve: Callable[[socket.socket], Awaitable[None]]) -> None:
        # What the owner said before this connection was made is heard before it is served: that another command
        # runs, and where the supervisor leads it.
        self._hear()
        if listening.fileno() < 0:
            return
        if len(self._tasks) >= MOST_CONNECTIONS:
            self._pause()
            return
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptors left: the rest waits
            self._pause()
            self._loop.call_later(_BREATH, self._resume)
            return
        self._start(_served(accepted, serve))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()
        self._resume()

    def _resume(self) -> None:
        if not self._accepting and self._link.fileno() >= 0:
            self._accept_all()

    # -- connections that the supervisor has led here ------------------------------------------------

    async def _led(self, accepted: socket.socket) -> None:
        family = "4" if accepted.family == socket.AF_INET else "6"
        kind, host, port = self._desk.targets.pop((family, accepted.getpeername()[1]), ("", "", 0))
        if kind == gateway.TRANSPARENT:
            await self._transparent(accepted, host, port)
        elif kind == gateway.PROXY:
            await self._proxy(accepted)
        elif kind == gateway.DNS_TCP:
            await self._dns_stream(accepted)
        else:  # from somebody else
            _reset(accepted)

    async def _transparent(self, accepted: socket.socket, host: str, port: int) -> None:
        try:
            with await self._desk.open(host, port) as opened:
                await relay(accepted, opened, _IDLE)
        except (RefusedError, ResolveError, OSError):
            _reset(accepted)

    # -- proxies -------------------------------------------------------------------------------------

    async def _proxy(self, accepted: socket.socket) -> None:
        loop = self._loop
        try:
            async with asyncio.timeout(_HEAD_PATIENCE):
                first = await loop.sock_recv(accepted, 1)
                is_socks = first == bytes([_SOCKS5])
                wanted = await _socks_request(accepted) if is_socks else None
                head = await _read_head(accepted, first) if first and not is_socks else None
            if wanted is not None:
                await self._socks(accepted, *wanted)
            elif head is not None:
                await self._http(accepted, *head)
        except HeadError as error:
            await _say(accepted, answer(error.status, str(error)))

    async def _socks(self, accepted: socket.socket, host: str, port: int) -> None:
        try:
            opened = await self._desk.open(host, port)
        except RefusedError:
            return await _say(accepted, _socks_reply(_NOT_ALLOWED))
        except ResolveError:
            return await _say(accepted, _socks_reply(_NO_HOST))
        except OSError as error:
            codes = {errno.ECONNREFUSED: _CLOSED, errno.ENETUNREACH: _NO_NETWORK, errno.EHOSTUNREACH: _NO_HOST}
            return await _say(accepted, _socks_reply(codes.get(error.errno or 0, _FAILED)))
        with opened:
            await self._loop.sock_sendall(accepted, _socks_reply(_OK))
            await relay(accepted, opened, _IDLE)
        return None

    async def _http(self, accepted: socket.socket, head_bytes: bytes, rest: bytes) -> None:
        head = parse_head(head_bytes)
        try:
            opened = await self._desk.open(head.host, head.port)
        except RefusedError as error:
            return await _say(accepted, answer("403 Forbidden", str(error)))
        except ResolveError as error:
            return await _say(accepted, answer("502 Bad Gateway", str(error)))
        except TimeoutError:
            return await _say(accepted, answer("504 Gateway Timeout", f"{head.host} does not answer"))
        except OSError as error:
            return await _say(accepted, answer("502 Bad Gateway", f"{head.host}: {error.strerror}"))
        with opened:
            if head.forward:
                await self._forward(accepted, opened, head.forward, head.length, rest)
            else:
                await self._loop.sock_sendall(accepted, b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._loop.sock_sendall(opened, rest)
                await relay(accepted, opened, _IDLE)
        return None

    async def _forward(
        self, accepted: socket.socket, opened: socket.socket, head: bytes, length: int, rest: bytes
    ) -> None:
        """Send one request on, and whatever comes back; what follows the request is dropped."""
        await self._loop.sock_sendall(opened, head)
        body = self._loop.create_task(_send_body(_Source(accepted, rest), opened, length))
        answered = self._loop.create_task(relay(accepted, opened, _IDLE, both=False))
        try:
            await asyncio.wait({body, answered}, return_when=asyncio.FIRST_COMPLETED)
            if body.done() and body.exception() is None:
                await asyncio.wait({answered})
        finally:
            for task in (body, answered):
                task.cancel()
            await asyncio.gather(body, answered, return_exceptions=True)

    # -- names ---------------------------------------------------------------------------------------

    def _dns_datagram(self, listening: socket.socket) -> None:
        self._hear()
        try:
            message, sender = listening.recvfrom(_DATAGRAM)
            question = dns.parse_question(message)
        except (OSError, ValueError):
            return
        if len(self._tasks) < MOST_CONNECTIONS + _MOST_QUESTIONS:
            self._start(self._answer(listening, question, sender))

    async def _answer(self, listening: socket.socket, question: dns.Question, sender: tuple[str, int]) -> None:
        reply = await self._desk.look_up(question)
        with contextlib.suppress(OSError):
            listening.sendto(reply, sender)

    async def _dns_stream(self, accepted: socket.socket) -> None:
        while True:
            async with asyncio.timeout(_HEAD_PATIENCE):
                length = int.from_bytes(await read_exactly(accepted, 2), "big")
                question = dns.parse_question(await read_exactly(accepted, length))
                reply = await self._desk.look_up(question)
                await self._loop.sock_sendall(accepted, len(reply).to_bytes(2, "big") + reply)


async def _served(accepted: socket.socket, serve: Callable[[socket.socket], Awaitable[None]]) -> None:
    with accepted, contextlib.suppress(OSError, ValueError):  # a program that breaks off, or talks nonsense
        accepted.setblocking(False)  # noqa: FBT003 - the standard library's signature
        await serve(accepted)


def _reset(accepted: socket.socket) -> None:
    """Let the program see a broken connection, and not an empty answer."""
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _say(accepted: socket.socket, text: bytes) -> None:
    """Send the last word, and take what the program still has to say: unread bytes would break it off."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_HEAD_PATIENCE):
        await loop.sock_sendall(accepted, text)
        accepted.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(accepted, _PIECE):
            continue


async def _read_head(accepted: socket.socket, received: bytes) -> tuple[bytes, bytes]:
    """Read up to the empty line; gives the head and what came behind it.  Raises HeadError."""
    while b"\r\n\r\n" not in received:
        if len(received) > HEAD_LIMIT:
            raise HeadError("the head of the request is too long", "431 Request Header Fields Too Large")
        piece = await asyncio.get_running_loop().sock_recv(accepted, HEAD_LIMIT)
        if not piece:
            raise ConnectionResetError
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


class _Source:
    """A connection, read by lines and counted pieces."""

    def __init__(self, connection: socket.socket, received: bytes) -> None:
        self._connection = connection
        self._received = received

    async def _fill(self) -> None:
        if not self._received:
            self._received = await asyncio.get_running_loop().sock_recv(self._connection, _PIECE)
            if not self._received:
                raise ConnectionResetError

    async def some(self, most: int) -> bytes:
        await self._fill()
        piece, self._received = self._received[:most], self._received[most:]
        return piece

    async def line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            await self._fill()
            line += await self.some(self._received.find(b"\n") + 1 or len(self._received))
            if len(line) > HEAD_LIMIT:
                raise HeadError("a line is too long")
        if not line.endswith(b"\r\n"):
            raise HeadError("a line has another end than CR LF")
        return line[:-2]


async def _send_body(source: _Source, opened: socket.socket, length: int) -> None:
    """Send exactly one body; raises OSError or HeadError."""
    loop = asyncio.get_running_loop()
    if length != CHUNKED:
        await _send_counted(source, opened, length)
        return
    while True:
        size = parse_chunk_size(await source.line())
        await loop.sock_sendall(opened, b"%x\r\n" % size)
        if size == 0:
            while await source.line():  # trailers are not passed on
                continue
            await loop.sock_sendall(opened, b"\r\n")
            return
        await _send_counted(source, opened, size)
        if await source.line():
            raise HeadError("a chunk is longer than it says")
        await loop.sock_sendall(opened, b"\r\n")


async def _send_counted(source: _Source, opened: socket.socket, count: int) -> None:
    while count:
        piece = await source.some(count)
        await asyncio.get_running_loop().sock_sendall(opened, piece)
        count -= len(piece)


async def _socks_request(accepted: socket.socket) -> tuple[str, int] | None:
    """Shake hands (RFC 1928); where the program wants to go, None where it has been told that that is not possible."""
    loop = asyncio.get_running_loop()
    methods = await read_exactly(accepted, (await read_exactly(accepted, 1))[0])
    if _NO_LOGIN not in methods:
        await loop.sock_sendall(accepted, bytes([_SOCKS5, _NOT_ACCEPTED]))
        return None
    await loop.sock_sendall(accepted, bytes([_SOCKS5, _NO_LOGIN]))
    version, command, _, kind = await read_exactly(accepted, 4)
    if version != _SOCKS5 or command != _CONNECT:
        await loop.sock_sendall(accepted, _socks_reply(_NO_COMMAND))
        return None
    if kind == _NAME:
        host = (await read_exactly(accepted, (await read_exactly(accepted, 1))[0])).decode("latin-1")
        if ":" in host:  # an address has a kind of its own
            host = repr(host)
    elif kind == _IPV4:
        host = socket.inet_ntop(socket.AF_INET, await read_exactly(accepted, 4))
    elif kind == _IPV6:
        host = socket.inet_ntop(socket.AF_INET6, await read_exactly(accepted, 16))
    else:
        await loop.sock_sendall(accepted, _socks_reply(_NO_KIND))
        return None
    return host, int.from_bytes(await read_exactly(accepted, 2), "big")


def _socks_reply(code: int) -> bytes:
    return bytes([_SOCKS5, code, 0, _IPV4]) + bytes(6)


async def _main(control: socket.socket, rules: Rules, resolver: Resolver) -> None:
    """Take jails from the owner until it is gone."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    control.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def hear() -> None:
        try:
            packet, descriptors = channel.receive(control, 4096)
        except BlockingIOError:
            return
        except OSError:  # no descriptors left: this jail stays without a network
            return
        if packet:
            _Gateway(rules, resolver, packet.decode().split("\0"), descriptors)
        elif not over.done():
            over.set_result(None)

    loop.add_reader(control.fileno(), hear)
    await over


def serve() -> NoReturn:
    """Be the process."""
    control = helper.control()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, (lists,) = channel.receive(control, 1)
    with open(lists, "rb") as file:
        allowed, denied, nameservers = marshal.load(file)  # noqa: S302 - from our owner
    asyncio.run(_main(control, Rules.parse(allowed, denied), Resolver(nameservers)))
    helper.leave()
