"""Lead a terminal session for one command, so that Ctrl-Z and the rest of job control work in it.

A program of its own, run by a process that has just become the leader of a new session::

    python -I -S leader.py TTY CONTROL REPORT LC_CTYPE PROGRAM WORD...

It is needed because the kernel discards SIGTSTP, SIGTTIN and SIGTTOU for the process group of a
session leader (it is "orphaned", POSIX 11.1.4): a command that leads its session itself cannot be
stopped from the keyboard.  The command gets a process group of its own below this process, and
this process ends as the command ended, by exit code or by signal.

CONTROL and REPORT are two inherited pipes.  Each byte that is read from CONTROL is the number of a
signal for the command's process group, with these meanings beyond:

* SIGCONT: go on, in the foreground of the terminal.  The command starts in the background; one that
  touches the terminal before this is stopped by the kernel, as in any shell.
* SIGURG, then SIGCONT: go on, in the background.

End of file on CONTROL kills the group.  The first byte that is written to REPORT is 0 once the
command runs, or the error number (errno) why it does not.  Each one after that is the number of the
signal that stopped the command.

LC_CTYPE is ``=VALUE`` as the command shall have it, or empty for unset: Python itself sets it in
some locales (PEP 538).
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from contextlib import suppress

_CANNOT_EXECUTE = 126
# These come to us instead of the command until it is in the foreground, and when the terminal hangs up.
_KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
_FROM_TERMINAL = (*_KEYS, signal.SIGHUP, signal.SIGWINCH)


def main(tty: str, control: int, report: int, lc_ctype: str, argv: list[str]) -> int:
    """Run the command; its exit code.  Does not return if a signal ended it."""
    for fd in (control, report):
        os.set_inheritable(fd, False)  # noqa: FBT003 -- takes no keyword
    signals = _note_signals()
    terminal = _take_terminal(tty)
    if lc_ctype:
        os.environ["LC_CTYPE"] = lc_ctype[1:]
    else:
        os.environ.pop("LC_CTYPE", None)
    program, *words = argv
    try:
        # Python ignores the first two, and the third is ignored here: the command must not.
        defaults = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU)
        command = os.posix_spawn(program, words, os.environ, setpgroup=0, setsigdef=defaults)
    except OSError as error:
        os.write(report, bytes((error.errno or errno.EIO,)))
        return _CANNOT_EXECUTE
    os.write(report, b"\0")
    status = _Leader(terminal, command, report).lead(control, signals)
    return _end_alike(status)


def _take_terminal(tty: str) -> int:
    terminal = os.open(tty, os.O_RDWR)  # on Linux and Solaris this is enough
    try:
        os.tcgetpgrp(terminal)
    except OSError:  # the BSDs want to be asked
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    return terminal


def _note_signals() -> int:
    """Give a descriptor on which signals arrive as bytes."""
    signals, letters = os.pipe()
    os.set_blocking(signals, False)
    os.set_blocking(letters, False)
    signal.set_wakeup_fd(letters, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    for number in _FROM_TERMINAL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # we hand the terminal over while in its background
    return signals


class _Leader:
    def __init__(self, terminal: int, command: int, report: int) -> None:
        self._terminal = terminal
        self._command = command
        self._report = report
        self._foreground = False
        self._to_background = False
        self._early: list[int] = []

    def lead(self, control: int, signals: int) -> int:
        """Pass on what CONTROL says until the command has ended; its wait status."""
        poll = select.poll()
        poll.register(control, select.POLLIN)
        poll.register(signals, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                letters = os.read(fd, 512)
                if fd == signals:
                    self._pass_on(letters)
                    continue
                if not letters:
                    poll.unregister(control)
                    self._send(signal.SIGKILL)
                for number in letters:
                    self._obey(number)
            pid, status = os.waitpid(self._command, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                self._stopped(os.WSTOPSIG(status))
            elif pid:
                self._send(signal.SIGKILL)  # what is left of the group
                return status

    def _pass_on(self, letters: bytes) -> None:
        for number in letters:
            if number in _KEYS and not self._foreground:
                self._early.append(number)  # SIGCONT would discard a SIGTSTP that it has not acted on
            elif number in _FROM_TERMINAL:
                self._send(number)

    def _obey(self, number: int) -> None:
        if number == signal.SIGURG:
            self._to_background = True
        elif number == signal.SIGCONT:
            self._foreground, self._to_background = not self._to_background, False
            self._continue()
            while self._early:
                self._send(self._early.pop(0))
        else:
            self._send(number)

    def _stopped(self, number: int) -> None:
        if self._foreground and number in (signal.SIGTTIN, signal.SIGTTOU):
            self._continue()  # it reached for the terminal in the moment before it was given to it
        else:
            os.write(self._report, bytes((number,)))

    def _continue(self) -> None:
        with suppress(OSError):  # the terminal may have hung up
            os.tcsetpgrp(self._terminal, self._command if self._foreground else os.getpgrp())
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone, or it changed its user
            os.killpg(self._command, number)


def _end_alike(status: int) -> int:
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command's own core is the one of interest
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    os._exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
