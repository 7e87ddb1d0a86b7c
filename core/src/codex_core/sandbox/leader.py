"""Lead a terminal session for one command, so that Ctrl-Z and the rest of job control work in it.

A program of its own, run as ``python -I -S leader.py TTY LIFELINE LC_CTYPE PROGRAM WORD...`` by a
process that has just become the leader of a new session.  It is needed because the kernel discards
SIGTSTP, SIGTTIN and SIGTTOU for the process group of a session leader (it is "orphaned", POSIX
11.1.4): a command that leads its session itself cannot be stopped from the keyboard.

To its parent it looks like the command: it stops when the command stops, and ends as the command
ended, by exit code or by signal.  Signals sent to it go on to the command's process group, with two
meanings of their own:

* SIGCONT: go on, in the foreground of the terminal.  The command starts in the background; one that
  touches the terminal before this is stopped by the kernel as in any shell.
* SIGURG, then SIGCONT: go on, in the background.

LIFELINE is an inherited descriptor: when its other end closes, the command's process group is
killed.  LC_CTYPE is ``=VALUE`` as the command shall have it, or empty for unset: Python itself sets
it in some locales (PEP 538).
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

_FORWARDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGWINCH, signal.SIGALRM),
)
_CANNOT_EXECUTE = 126


def main(tty: str, lifeline: int, lc_ctype: str, program: str, words: list[str]) -> int:
    """Run the command; its exit code.  Does not return if a signal ended it."""
    terminal = _take_terminal(tty)
    os.set_inheritable(lifeline, False)  # noqa: FBT003 -- takes no keyword
    mailbox = _open_mailbox()
    if lc_ctype:
        os.environ["LC_CTYPE"] = lc_ctype[1:]
    else:
        os.environ.pop("LC_CTYPE", None)
    try:
        # Python ignores the first two, and the third is ignored above: the command must not.
        defaults = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU)
        command = os.posix_spawn(program, words, os.environ, setpgroup=0, setsigdef=defaults)
    except OSError as error:
        sys.stderr.write(f"codex: {program}: {error.strerror}\n")
        return _CANNOT_EXECUTE
    return _mirror(_wait(command, terminal, mailbox, lifeline))


def _take_terminal(tty: str) -> int:
    terminal = os.open(tty, os.O_RDWR | os.O_CLOEXEC)  # on Linux and Solaris this is enough
    try:
        os.tcgetpgrp(terminal)
    except OSError:  # the BSDs want to be asked
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # we hand the terminal over while in its background
    return terminal


def _open_mailbox() -> int:
    """Signals arrive as bytes on the descriptor that this gives."""
    mailbox, letters = os.pipe()
    os.set_blocking(mailbox, False)
    os.set_blocking(letters, False)
    signal.set_wakeup_fd(letters)
    for number in (*_FORWARDED, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:
            signal.signal(number, lambda _number, _frame: None)
    return mailbox


def _wait(command: int, terminal: int, mailbox: int, lifeline: int) -> int:
    """Relay between parent and command until the command has ended; its wait status."""
    foreground = False
    poll = select.poll()
    poll.register(mailbox, select.POLLIN)
    poll.register(lifeline, 0)  # hang-up only
    while True:
        for fd, _ in poll.poll():
            if fd == lifeline:
                poll.unregister(lifeline)
                _send(command, signal.SIGKILL)
        letters = _read(mailbox)
        for number in letters:
            if number in _FORWARDED:
                _send(command, number)
        if signal.SIGCONT in letters:
            foreground = signal.SIGURG not in letters
            _continue(command, terminal, command if foreground else os.getpgrp())
        pid, status = os.waitpid(command, os.WNOHANG | os.WUNTRACED)
        if not pid:
            continue
        if not os.WIFSTOPPED(status):
            _send(command, signal.SIGKILL)  # what is left of the group
            return status
        if foreground and os.WSTOPSIG(status) in (signal.SIGTTIN, signal.SIGTTOU):
            # It reached for the terminal in the moment before it was given to it.
            _continue(command, terminal, command)
        else:
            os.kill(os.getpid(), signal.SIGSTOP)


def _continue(command: int, terminal: int, foreground: int) -> None:
    with suppress(OSError):  # the terminal may have hung up
        os.tcsetpgrp(terminal, foreground)
    _send(command, signal.SIGCONT)


def _send(command: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone, or it changed its user
        os.killpg(command, number)


def _read(mailbox: int) -> bytes:
    try:
        return os.read(mailbox, 512)
    except BlockingIOError:
        return b""


def _mirror(status: int) -> int:
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command's own core is the one of interest
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    os._exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:]))
