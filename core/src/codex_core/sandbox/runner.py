"""Run one command to its end with its output captured, streamed and bounded.

For a command on the caller's own terminal or pipes see :mod:`codex_core.sandbox.terminal`.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from codex_core.errors import CommandNotExecutableError, CommandNotFoundError
from codex_core.types import CommandResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from codex_core.types import Command, Contact, Ended, Launcher, Running

    OnOutput = Callable[[Literal["stdout", "stderr"], bytes], None]

OUTPUT_LIMIT = 1 << 20
"""Bytes kept of each stream unless the caller says otherwise."""

_CHUNK = 1 << 16
# The most that can still be in a pipe once every writer is gone: /proc/sys/fs/pipe-max-size, which
# an ordinary user cannot exceed.
_PIPE_MAX = 1 << 20
_GRACE = 5.0


def run(  # noqa: PLR0913 -- each keyword is one independent choice of the caller
    launcher: Launcher,
    command: Command,
    *,
    stdin: bytes | int | None = None,
    capture: bool = True,
    timeout: float | None = None,
    output_limit: int = OUTPUT_LIMIT,
    output_most: int | None = None,
    on_output: OnOutput | None = None,
) -> CommandResult:
    """Run *command* under *launcher* until its whole process tree is gone.

    *stdin* is the input itself, an open descriptor, or None for no input.  With *capture* the
    output goes through pipes: every piece is handed to *on_output* as it comes, the first
    *output_limit* bytes of each stream are kept in the result, and the rest is read, counted in
    ``dropped`` and thrown away.  A command that writes more than *output_most* bytes is ended, and the
    result names the limit ``output_size``.  Without *capture* the command writes to this process's own
    descriptors 1 and 2 and *on_output* is not called.

    After *timeout* seconds the tree is killed and the result says ``timed_out``.  An exception,
    KeyboardInterrupt and one out of *on_output* included, kills the tree before it goes on.

    Raises what :meth:`~codex_core.types.Launcher.start` raises.
    """
    began = time.monotonic()
    exchange = _Exchange(stdin, output_limit, on_output)
    running: Running | None = None
    try:
        running = launcher.start(command, *exchange.open(capture=capture))
        exchange.close_far_ends()
        ended, timed_out = _drive(running, exchange, None if timeout is None else began + timeout, output_most)
    except (CommandNotFoundError, CommandNotExecutableError):
        raise  # nothing runs
    except BaseException:
        if running is not None:
            end(running)
        raise
    finally:
        exchange.close()
    stdout, stderr = exchange.kept
    return CommandResult(
        ended=ended,
        duration=time.monotonic() - began,
        strength=launcher.strength,
        stdout=bytes(stdout),
        stderr=bytes(stderr),
        dropped=exchange.dropped,
        timed_out=timed_out,
        denials=running.denials(),
        contacts=contacts(running),
    )


def contacts(running: Running) -> tuple[Contact, ...]:
    """Give the hosts that a command asked a filter for; none where its launcher has no filter."""
    asked: Callable[[], tuple[Contact, ...]] = getattr(running, "contacts", tuple)
    return asked()


def end(running: Running, grace: float = _GRACE) -> Ended | None:
    """Kill the tree and wait for its end, *grace* seconds at most."""
    running.kill()
    if (ended := running.advance()) is not None:  # it may be over for long, and have no descriptor any more
        return ended
    deadline = time.monotonic() + grace
    poll = select.poll()
    poll.register(running.fileno(), select.POLLIN)
    while (ended := running.advance()) is None and (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
    return ended


def _drive(
    running: Running, exchange: _Exchange, deadline: float | None, output_most: int | None
) -> tuple[Ended, bool]:
    timed_out = False
    limit = ""
    watched = running.fileno()
    exchange.poll.register(watched, select.POLLIN)
    while True:
        wait = None if deadline is None or timed_out else max(0.0, deadline - time.monotonic()) * 1000
        heard = False  # more output is no news of the command itself
        for fd, _ in exchange.poll.poll(wait):
            heard |= fd == watched or not exchange.move(fd)
        if heard and (ended := running.advance()) is not None:
            exchange.drain()
            if output_most is not None and exchange.total > output_most:
                limit = "output_size"
            return replace(ended, limit=limit) if limit else ended, timed_out
        if output_most is not None and exchange.total > output_most and not limit:
            limit = "output_size"
            running.kill()
        if wait is not None and deadline is not None and time.monotonic() >= deadline:
            timed_out = True
            running.kill()


class _Exchange:
    """The near ends of a command's pipes, and what came out of them."""

    def __init__(self, stdin: bytes | int | None, limit: int, on_output: OnOutput | None) -> None:
        self.poll = select.poll()
        self.kept = (bytearray(), bytearray())
        self.dropped = 0
        self.total = 0
        self._stdin = stdin
        self._unsent = memoryview(stdin if isinstance(stdin, bytes) else b"")
        self._limit = limit
        self._on_output = on_output
        self._outputs: dict[int, int] = {}  # descriptor -> 0 for stdout, 1 for stderr
        self._input = -1
        self._far: list[int] = []

    def open(self, *, capture: bool) -> tuple[int, int, int]:
        """Make the pipes; the three descriptors for the command, which may be the caller's own."""
        stdin = self._stdin if isinstance(self._stdin, int) else self._open_input()
        return (stdin, self._open_output(0), self._open_output(1)) if capture else (stdin, 1, 2)

    def _open_input(self) -> int:
        if not self._unsent:
            far = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        else:
            far, self._input = os.pipe()
            os.set_blocking(self._input, False)
            self.poll.register(self._input, select.POLLOUT)
        self._far.append(far)
        return far

    def _open_output(self, stream: int) -> int:
        near, far = os.pipe()
        self._far.append(far)
        self._outputs[near] = stream
        os.set_blocking(near, False)
        self.poll.register(near, select.POLLIN)
        return far

    def close_far_ends(self) -> None:
        """Close what only the command needs, so that its end shows as end of file."""
        while self._far:
            os.close(self._far.pop())

    def close(self) -> None:
        """Close everything; idempotent."""
        self.close_far_ends()
        for fd in (*self._outputs, self._input):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd == self._input:
            self._input = -1
        elif self._outputs.pop(fd, None) is None:
            return
        if fd >= 0:
            self.poll.unregister(fd)
            os.close(fd)

    def move(self, fd: int) -> int:
        """Move one piece through a descriptor that is ready; the number of bytes, 0 if it was not."""
        if fd == self._input:
            return self._feed()
        try:
            piece = os.read(fd, _CHUNK)
        except BlockingIOError:
            return 0
        if not piece:
            self._close(fd)
            return 0
        self.total += len(piece)
        stream = self._outputs[fd]
        kept = self.kept[stream]
        room = max(0, self._limit - len(kept))
        kept += piece[:room]
        self.dropped += max(0, len(piece) - room)
        if self._on_output is not None:
            self._on_output("stderr" if stream else "stdout", piece)
        return len(piece)

    def _feed(self) -> int:
        try:
            sent = os.write(self._input, self._unsent[:_CHUNK])
        except BlockingIOError:
            return 0
        except BrokenPipeError:  # the command does not want the rest
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._close(self._input)
        return sent

    def drain(self) -> None:
        """Take what the command left in its pipes.

        The amount is bounded: a process that escaped the end of the tree may hold a pipe open, and
        even go on writing, without keeping us here.
        """
        for fd in tuple(self._outputs):
            taken = 0
            while taken < _PIPE_MAX and (moved := self.move(fd)):
                taken += moved
