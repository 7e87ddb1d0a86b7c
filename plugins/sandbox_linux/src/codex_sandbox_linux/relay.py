"""Outside: move bytes between two connections, in both directions, without looking at them.

The bytes go from socket to pipe to socket inside the kernel (splice(2)).  A direction takes no more
than one pipe holds; while its sink does not take them, nothing is read from its source.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from typing import Final

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_PIECE: Final = 1 << 20
"""Bytes; a pipe of this size is had only within the user's allowance (pipe(7)), and a smaller one does too."""


class _Direction:
    """From one connection to the other, until the first has said all."""

    def __init__(self, relay: _Relay, source: socket.socket, sink: socket.socket) -> None:
        self._relay = relay
        self._loop = relay.loop
        self._source = source.fileno()
        self._sink = sink
        self._held = 0
        """Bytes in the pipe."""
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, _PIECE)
        self.finished = False

    def begin(self) -> None:
        self._loop.add_reader(self._source, self._pump)

    def _pump(self) -> None:
        try:
            if not self._held:  # one piece, and then it is the turn of others
                self._held = os.splice(self._source, self._write, _PIECE, flags=_FLAGS)
                self._relay.moved()
                if not self._held:
                    self._finish()
                    return
            while self._held:
                self._held -= os.splice(self._read, self._sink.fileno(), self._held, flags=_FLAGS)
        except BlockingIOError:
            self._wait()
        except OSError as error:
            self._relay.end(error)

    def _wait(self) -> None:
        if self._held:
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink.fileno(), self._resume)

    def _resume(self) -> None:
        self._relay.moved()
        self._loop.remove_writer(self._sink.fileno())
        self._loop.add_reader(self._source, self._pump)
        self._pump()

    def _finish(self) -> None:
        self._loop.remove_reader(self._source)
        self.finished = True
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._relay.half_done()

    def close(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink.fileno())
        os.close(self._read)
        os.close(self._write)


class _Relay:
    def __init__(self, one: socket.socket, other: socket.socket, *, both: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.last = self.loop.time()
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.directions = [_Direction(self, other, one)]
        try:
            if both:
                self.directions.append(_Direction(self, one, other))
        except OSError:
            self.directions[0].close()
            raise

    def moved(self) -> None:
        self.last = self.loop.time()

    def half_done(self) -> None:
        if all(direction.finished for direction in self.directions) and not self.over.done():
            self.over.set_result(None)

    def end(self, error: OSError) -> None:
        if not self.over.done():
            self.over.set_exception(error)


async def relay(one: socket.socket, other: socket.socket, idle: float, *, both: bool = True) -> None:
    """Move bytes until both have said all, or from *other* to *one* only; the sockets stay the caller's.

    Raises OSError where a connection breaks, and TimeoutError after *idle* seconds in which nothing moved.
    """
    moving = _Relay(one, other, both=both)
    try:
        for direction in moving.directions:
            direction.begin()
        while not moving.over.done():
            left = moving.last + idle - moving.loop.time()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait([moving.over], timeout=left)
        moving.over.result()
    finally:
        for direction in moving.directions:
            direction.close()
