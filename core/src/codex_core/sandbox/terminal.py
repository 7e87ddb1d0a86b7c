"""Run one command on the caller's own standard descriptors, as if nothing stood between.

Where none of them is a terminal, they are passed on as they are and signals are forwarded.  Where
one is, the command gets a pseudo-terminal of its own in its place: it never holds the caller's, so
it cannot type into it or change it for whoever comes after.  We copy between the two and take part
in the job control of the caller's shell on the command's behalf.

Two states, as ``sudo`` has them:

* background: the caller's terminal is left alone, output is copied to it.  A command that wants to
  read its terminal or change it is stopped by the kernel, and we hear of it.
* foreground: the caller's terminal is in raw mode and what is typed goes to the command.  We enter
  it at once where both input and output are terminals, and else when the command asks, so that
  ``codex run -- ls | less`` leaves the keyboard to ``less``.  There, in a pipeline, Ctrl-C and its
  like still reach all of its members.

Only for the main thread, as signal handlers are installed.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from codex_core.errors import CommandNotExecutableError, CommandNotFoundError
from codex_core.sandbox.runner import contacts, end
from codex_core.types import CommandResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any, Self

    from codex_core.types import Command, Ended, Launcher, Running

_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_HANDLED = (*_FORWARDED, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
_CHUNK = 1 << 16
# More than a pseudo-terminal holds: a bound for what a process that escaped may go on writing.
_DRAIN_MAX = 1 << 20


class Interlude:
    """Lends the caller's terminal, while a command runs on it, to another thread that has a question; a context.

    Meanwhile what is typed is not the command's, and its output waits.  Raises EOFError where the command has ended.
    """

    def __init__(self) -> None:
        self._over = False
        self._turn = threading.Lock()
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self.wanted = False
        """Whether somebody has a question."""

    def __enter__(self) -> None:
        self._turn.acquire()
        self._want(wanted=True)
        self._free.wait()
        if self._over:
            self.__exit__()
            raise EOFError("the command has ended")

    def __exit__(self, *_: object) -> None:
        self._want(wanted=False)
        self._turn.release()

    def _want(self, *, wanted: bool) -> None:
        with self._lock:
            self.wanted = wanted
            if self._wake is not None:
                self._wake()

    def use(self, wake: Callable[[], None] | None) -> None:
        """Take the terminal into use, and hear by *wake* of whoever wants it; or leave it for good, with None."""
        with self._lock:
            self._wake, self._over = wake, wake is None
        self.lend(lent=wake is None)

    def lend(self, *, lent: bool) -> None:
        """Say whether the terminal is left alone just now."""
        (self._free.set if lent else self._free.clear)()


def attach(
    launcher: Launcher,
    command: Command,
    *,
    timeout: float | None = None,
    interlude: Interlude | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> CommandResult:
    """Run *command* on descriptors 0, 1 and 2 until its process tree is gone.

    The result carries no output: it went where it belongs; *on_output* is shown what goes to a terminal.
    After *timeout* seconds the tree is killed.  The terminal is restored on every way out, and lent by
    *interlude*.

    Raises what :meth:`~codex_core.types.Launcher.start` raises.
    """
    began = time.monotonic()
    deadline = None if timeout is None else began + timeout
    shared = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)
    with _Mailbox() as mailbox:
        if shared is None:
            running = launcher.start(command, 0, 1, 2)
            ended, timed_out = _drive(running, mailbox, _PassThrough(running, mailbox), deadline)
        else:
            pipeline = not (os.isatty(0) and os.isatty(1))
            with _Terminal(shared, pipeline=pipeline) as terminal:
                stdio = [terminal.slave if os.isatty(fd) else fd for fd in (0, 1, 2)]
                interlude = interlude or Interlude()
                interlude.use(mailbox.wake)
                try:
                    running = launcher.start(command, *stdio, tty=os.ttyname(terminal.slave))
                    relay = _Relay(running, mailbox, terminal, interlude, on_output)
                    ended, timed_out = _drive(running, mailbox, relay, deadline)
                finally:
                    terminal.restore()
                    interlude.use(None)
    return CommandResult(
        ended=ended,
        duration=time.monotonic() - began,
        strength=launcher.strength,
        timed_out=timed_out,
        denials=running.denials(),
        contacts=contacts(running),
    )


def _drive(
    running: Running, mailbox: _Mailbox, wiring: _PassThrough | _Relay, deadline: float | None
) -> tuple[Ended, bool]:
    timed_out = False
    try:
        while True:
            wait = None if deadline is None or timed_out else max(0.0, deadline - time.monotonic()) * 1000
            _move(wiring, (running.fileno(), mailbox.fd), wait)
            for number in mailbox.read():
                wiring.received(number)
            if (ended := running.advance()) is not None:
                wiring.finish()
                return ended, timed_out
            while (stop := running.stopped()) is not None:
                wiring.stopped(stop)
            if wait is not None and deadline is not None and time.monotonic() >= deadline:
                timed_out = True
                running.kill()
    except (CommandNotFoundError, CommandNotExecutableError):
        raise  # nothing runs
    except BaseException:
        end(running)
        raise


def _move(wiring: _PassThrough | _Relay, others: tuple[int, int], wait: float | None) -> None:
    """Wait for news on any descriptor, and let *wiring* deal with those that are its own."""
    poll = select.poll()
    for fd in others:
        poll.register(fd, select.POLLIN)
    wanted = wiring.interests()
    for fd, events in wanted.items():
        poll.register(fd, events)
    for fd, events in poll.poll(wait):
        if fd in wanted:
            wiring.ready(fd, events)


class _PassThrough:
    """The command holds the caller's descriptors; only signals are to be passed on."""

    def __init__(self, running: Running, mailbox: _Mailbox) -> None:
        self._running = running
        self._mailbox = mailbox

    def interests(self) -> dict[int, int]:
        return {}

    def ready(self, fd: int, events: int) -> None:
        """Not called, as nothing is of interest."""

    def stopped(self, number: int) -> None:
        """Leave it: whoever stopped the command without us will continue it."""

    def received(self, number: int) -> None:
        if number in _FORWARDED:
            self._running.signal(number)
        elif number == signal.SIGTSTP:
            # The kernel discards SIGTSTP itself for the leader of a session.
            self._running.signal(signal.SIGSTOP)
            self._mailbox.stop_here(os.getpid(), number)
            self._running.signal(signal.SIGCONT)
        elif number == signal.SIGCONT:
            self._running.signal(signal.SIGCONT)

    def finish(self) -> None:
        """Nothing is under way."""


class _Relay:
    """Copies between the caller's terminal and the command's, and takes part in job control."""

    def __init__(
        self,
        running: Running,
        mailbox: _Mailbox,
        terminal: _Terminal,
        interlude: Interlude,
        on_output: Callable[[bytes], None] | None,
    ) -> None:
        self._running = running
        self._on_output = on_output
        self._mailbox = mailbox
        self._terminal = terminal
        self._interlude = interlude
        self._lent = False
        self._raw_again = False
        self._to_command = bytearray()
        self._to_terminal = bytearray()
        self._hung_up = False
        if terminal.ours and not terminal.pipeline:
            self._enter_foreground()

    def interests(self) -> dict[int, int]:
        """Give the poll events that are wanted now, by descriptor."""
        if self._interlude.wanted is not self._lent:
            self._lend_or_take_back()
        if self._lent:
            return {}
        wanted = {self._terminal.master: 0, self._terminal.fd: 0}
        if len(self._to_terminal) < _CHUNK:
            wanted[self._terminal.master] |= select.POLLIN
        if self._to_command:
            wanted[self._terminal.master] |= select.POLLOUT
        if self._terminal.raw and len(self._to_command) < _CHUNK:
            wanted[self._terminal.fd] |= select.POLLIN
        if self._to_terminal:
            wanted[self._terminal.fd] |= select.POLLOUT
        if self._hung_up or not wanted[self._terminal.fd]:
            del wanted[self._terminal.fd]
        return wanted

    def _lend_or_take_back(self) -> None:
        self._lent = self._interlude.wanted
        if self._lent:
            self._flush()
            self._raw_again = self._terminal.raw
            self._terminal.restore()
        self._interlude.lend(lent=self._lent)
        if not self._lent and self._raw_again and self._terminal.ours:
            self._terminal.make_raw()

    def ready(self, fd: int, events: int) -> None:
        if fd == self._terminal.master:
            if events & select.POLLIN:
                self._take_output()
            if events & select.POLLOUT:
                _write(fd, self._to_command)
        else:
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._take_input()
            if events & select.POLLOUT:
                self._put_output()

    def _take_input(self) -> None:
        try:
            typed = os.read(self._terminal.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            typed = b""
        self._to_command += typed
        if not typed:
            self._hang_up()

    def _take_output(self) -> int:
        try:
            piece = os.read(self._terminal.master, _CHUNK)
        except OSError:  # nothing there now
            return 0
        if self._on_output is not None:
            self._on_output(piece)
        if not self._hung_up:
            self._to_terminal += piece
        return len(piece)

    def _put_output(self) -> None:
        try:
            _write(self._terminal.fd, self._to_terminal)
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        """Tell the command that the caller's terminal is gone, and let it decide as it would have."""
        self._hung_up = True
        self._to_terminal.clear()
        self._running.signal(signal.SIGHUP)

    def received(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._terminal.copy_size()
        elif number == signal.SIGCONT:
            self._resume()
        else:
            self._running.signal(number)

    def stopped(self, number: int) -> None:
        """Stop as the command did, unless it only waits for a terminal that we can give it."""
        wants_terminal = number in (signal.SIGTTIN, signal.SIGTTOU)
        if wants_terminal and self._terminal.raw:
            return  # said before our SIGCONT arrived; a second one would undo a later stop
        if wants_terminal and self._terminal.ours:
            self._enter_foreground()
            return
        self._take_output()
        self._flush()
        self._terminal.restore()
        self._mailbox.stop_here(0, number)  # the whole job, as its shell sees it
        self._resume()

    def _resume(self) -> None:
        """Go on after a stop, in the place that our shell has given us meanwhile."""
        if self._terminal.ours and (self._terminal.raw or not self._terminal.pipeline):
            self._enter_foreground()
        else:
            self._terminal.raw = False  # whoever has it now has set it as he wants it
            self._running.signal(signal.SIGURG)
            self._running.signal(signal.SIGCONT)

    def _enter_foreground(self) -> None:
        self._terminal.copy_size()
        if self._lent:
            self._raw_again = True
        else:
            self._terminal.make_raw()
        self._running.signal(signal.SIGCONT)

    def _flush(self) -> None:
        poll = select.poll()
        poll.register(self._terminal.fd, select.POLLOUT)
        poll.register(self._mailbox.fd, select.POLLIN)
        while self._to_terminal and not self._hung_up:
            poll.poll()
            if any(number in _FORWARDED for number in self._mailbox.read()):
                self._to_terminal.clear()  # the terminal is stalled, and somebody has had enough
            self._put_output()

    def finish(self) -> None:
        """Bring the last output out."""
        taken = 0
        while taken < _DRAIN_MAX and (piece := self._take_output()):
            taken += piece
            self._flush()
        self._flush()


def _write(fd: int, waiting: bytearray) -> None:
    """Write what the descriptor takes now, and remove it from *waiting*."""
    with suppress(BlockingIOError):
        del waiting[: os.write(fd, waiting[:_CHUNK])]


class _Terminal:
    """The caller's terminal and the one that we open for the command."""

    def __init__(self, shared: int, *, pipeline: bool) -> None:
        import termios  # not everywhere, and only needed here

        self.raw = False
        self.pipeline = pipeline
        self._group = os.getpgrp()
        self.fd = _reopen(shared)
        try:
            self._attributes = termios.tcgetattr(self.fd)
            self.master, self.slave = os.openpty()
        except BaseException:
            os.close(self.fd)
            raise
        os.set_blocking(self.master, False)
        self._copy_attributes(alone=self.ours)
        self.copy_size()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()
        for fd in (self.fd, self.master, self.slave):
            os.close(fd)

    @property
    def ours(self) -> bool:
        """Whether we are in the foreground of it; always, where it is not our controlling terminal."""
        try:
            return os.tcgetpgrp(self.fd) == self._group
        except OSError:
            return True

    def _copy_attributes(self, *, alone: bool) -> None:
        """Give the command's terminal the settings of the caller's.

        Only one of the two may turn newlines into what the screen needs: the caller's does, unless
        the command has it *alone* and it is raw.
        """
        import termios

        iflag, oflag, *others = self._attributes
        if self.pipeline or not alone:
            oflag &= ~termios.OPOST
        termios.tcsetattr(self.slave, termios.TCSANOW, [iflag, oflag, *others])
        self._given = termios.tcgetattr(self.slave)

    def copy_size(self) -> None:
        """Give the command's terminal the size of the caller's."""
        import termios

        with suppress(termios.error):  # one of them has hung up
            termios.tcsetwinsize(self.master, termios.tcgetwinsize(self.fd))

    def make_raw(self) -> None:
        """Let every key through as it is.

        In a pipeline the keys that send signals keep doing that, to all of its members, and
        newlines of the other members stay newlines.
        """
        import termios

        if not self.raw:
            with suppress(termios.error):
                self._attributes = termios.tcgetattr(self.fd)
                if termios.tcgetattr(self.slave) == self._given:
                    # The command has not chosen otherwise; and before, in the background, what we
                    # gave it were the settings of somebody else, such as a shell that edits a line.
                    self._copy_attributes(alone=True)
        iflag, oflag, cflag, lflag, ispeed, ospeed, characters = self._attributes
        iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.INPCK | termios.ISTRIP)
        iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        if not self.pipeline:
            lflag &= ~termios.ISIG
            oflag &= ~termios.OPOST
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        characters = characters.copy()
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        self.raw = True
        self._set([iflag, oflag, cflag, lflag, ispeed, ospeed, characters])

    def restore(self) -> None:
        """Put the caller's terminal back as it was."""
        if self.raw:
            self.raw = False
            self._set(self._attributes)

    def _set(self, attributes: list[Any]) -> None:
        import termios

        while True:
            try:
                termios.tcsetattr(self.fd, termios.TCSADRAIN, attributes)
            except termios.error as error:
                if error.args[0] == errno.EINTR:
                    continue
            return  # set, or hung up


def _reopen(shared: int) -> int:
    """Open the terminal anew: a description of our own can be non-blocking without harm to others."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK
    try:
        os.tcgetpgrp(shared)
    except OSError:
        controlling = False
    else:
        controlling = True
    try:
        return os.open("/dev/tty" if controlling else os.ttyname(shared), flags)
    except OSError:  # not ours to open, or not in this mount namespace
        return os.dup(shared)


class _Mailbox:
    """Signals as bytes on a descriptor, instead of their usual effect, while the context lasts.

    A signal that is ignored stays ignored, here and in the command: ``nohup`` depends on it.
    """

    def __enter__(self) -> Self:
        self.fd, self._letters = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._letters, False)
        self._previous = {
            number: handler
            for number in _HANDLED
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
        }
        self._previous_fd = signal.set_wakeup_fd(self._letters, warn_on_full_buffer=False)
        for number in self._previous:
            signal.signal(number, _note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self.fd)
        os.close(self._letters)

    def wake(self) -> None:
        """Have the descriptor polled readable, without a signal."""
        with suppress(BlockingIOError):  # it is
            os.write(self._letters, b"\0")

    def read(self) -> list[int]:
        """Take the signals that came since the last call."""
        try:
            return [number for number in os.read(self.fd, 4096) if number in self._previous]
        except BlockingIOError:
            return []

    def stop_here(self, target: int, number: int) -> None:
        """Send ourselves (0: our whole process group) a stop signal and return when we may go on.

        That is at once in an orphaned process group, where nobody could continue us.
        """
        handler = signal.signal(number, signal.SIG_DFL) if number != signal.SIGSTOP else None
        os.kill(target, number)
        if handler is not None:
            signal.signal(number, handler)
        letters = self.read()
        for letter in letters:
            if letter != signal.SIGCONT:  # the caller goes on anyway
                os.write(self._letters, bytes((letter,)))


def _note(number: int, frame: FrameType | None) -> None:
    """Have a handler, so that the number is written to the wake-up descriptor."""
