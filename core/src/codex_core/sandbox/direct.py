"""Run commands without confinement: what ``danger-full-access`` means."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from codex_core.errors import CommandNotExecutableError, CommandNotFoundError, SandboxUnavailableError
from codex_core.types import Ended, Promise, Strength

if TYPE_CHECKING:
    from codex_core.errors import CodexError
    from codex_core.types import Command, Denial

_STRENGTH = Strength(
    backend="none",
    rung="none",
    kept=frozenset(),
    lost={
        promise: "danger-full-access applies nothing"
        if promise is not Promise.PROCESS_TREE
        else "only the command's process group ends with it: a process that left the group goes on"
        for promise in Promise
    },
)
_LEADER = os.path.join(os.path.dirname(__file__), "leader.py")


class DirectLauncher:
    """Starts each command in a session of its own, with nothing else around it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[_DirectRunning] = set()
        self._closed = False

    @property
    def strength(self) -> Strength:
        """Nothing is kept."""
        return _STRENGTH

    def start(
        self, command: Command, stdin: int, stdout: int, stderr: int, *, tty: str | None = None
    ) -> _DirectRunning:
        """Start a command; see :meth:`codex_core.types.Launcher.start`.

        With *tty* the command starts in the background of that terminal, as
        :mod:`codex_core.sandbox.leader` describes.
        """
        with self._lock:
            if self._closed:
                raise SandboxUnavailableError("the launcher is closed")
            running = _DirectRunning(command, (stdin, stdout, stderr), tty)
            self._running = {one for one in self._running if not one.over} | {running}
            return running

    def close(self) -> None:
        """Kill what still runs and wait for it; idempotent."""
        with self._lock:
            self._closed = True
            left, self._running = self._running, set()
        for running in left:
            running.kill()
        for running in left:
            running.wait()


class _DirectRunning:
    """One command under way."""

    def __init__(self, command: Command, stdio: tuple[int, int, int], tty: str | None) -> None:
        self._lock = threading.RLock()
        self._ended: Ended | None = None
        self._stops: deque[int] = deque()
        self._pid, self._lifeline = _spawn(command, stdio, tty)
        self._watcher: _Watcher | None = None
        try:
            if tty is None and hasattr(os, "pidfd_open"):
                self._fd = os.pidfd_open(self._pid)
            else:  # a pidfd does not tell of stops
                self._watcher = _Watcher(self._pid)
                self._fd = self._watcher.fd
        except (OSError, RuntimeError) as error:  # no descriptor or no thread left
            self._cut_lifeline()
            self._kill_group()
            os.waitpid(self._pid, 0)
            raise SandboxUnavailableError(f"cannot watch {command.argv[0]}: {error}") from error

    @property
    def over(self) -> bool:
        """Whether the end was seen, and everything freed."""
        return self._ended is not None

    def fileno(self) -> int:
        return self._fd

    def advance(self) -> Ended | None:
        with self._lock:
            if self._ended is None:
                status = self._poll() if self._watcher is None else self._watcher.poll(self._stops)
                if status is not None:
                    self._finish(status)
            return self._ended

    def _poll(self) -> int | None:
        if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self._kill_group()  # before its number can be used again
        return os.waitpid(self._pid, 0)[1]

    def _finish(self, status: int) -> None:
        if self._watcher is not None:
            self._kill_group()
        code = os.waitstatus_to_exitcode(status)
        self._ended = Ended(exit_code=code) if code >= 0 else Ended(signal=-code)
        os.close(self._fd)
        self._cut_lifeline()

    def wait(self) -> None:
        """Wait for the end of a command that was killed."""
        with self._lock:
            if self._ended is None:
                self._finish(os.waitpid(self._pid, 0)[1] if self._watcher is None else self._watcher.wait())

    def stopped(self) -> int | None:
        with self._lock:
            return self._stops.popleft() if self._stops else None

    def signal(self, number: int) -> None:
        with self._lock:
            if self._ended is None:
                self._send(number)

    def kill(self) -> None:
        with self._lock:
            if self._ended is not None:
                return
            if self._lifeline >= 0:
                self._cut_lifeline()
                self._send(signal.SIGCONT)  # a stopped leader would not see it
            else:
                self._kill_group()

    def denials(self) -> tuple[Denial, ...]:
        return ()

    def _cut_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _kill_group(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone, or it changed its user
            os.killpg(self._pid, number)


class _Watcher:
    """A thread that waits for one process; *fd* polls readable when :meth:`poll` has news."""

    def __init__(self, pid: int) -> None:
        self._statuses: deque[int] = deque()
        self.fd, self._letters = os.pipe()
        os.set_blocking(self.fd, False)
        self._thread = threading.Thread(target=self._watch, args=(pid,), name=f"codex-wait-{pid}", daemon=True)
        self._thread.start()

    def _watch(self, pid: int) -> None:
        while True:
            status = os.waitpid(pid, os.WUNTRACED)[1]
            self._statuses.append(status)
            if not os.WIFSTOPPED(status):
                os.close(self._letters)
                return
            os.write(self._letters, b".")

    def poll(self, stops: deque[int]) -> int | None:
        """Add new stops to *stops*; the wait status if the process has ended."""
        with suppress(BlockingIOError):
            os.read(self.fd, 64)
        while self._statuses:
            status = self._statuses.popleft()
            if not os.WIFSTOPPED(status):
                self._thread.join()
                return status
            stops.append(os.WSTOPSIG(status))
        return None

    def wait(self) -> int:
        self._thread.join()
        return self._statuses[-1]


def _spawn(command: Command, stdio: tuple[int, int, int], tty: str | None) -> tuple[int, int]:
    """Start the process; its number and the near end of its lifeline, -1 where it has none."""
    import subprocess  # slow to import, and unneeded where a sandbox is used

    words, near, far = list(command.argv), -1, -1
    try:
        program = _resolve(command)
        if tty is not None:
            far, near = os.pipe()
            lc_ctype = f"={command.env['LC_CTYPE']}" if "LC_CTYPE" in command.env else ""
            words = [sys.executable, "-I", "-S", _LEADER, tty, str(far), lc_ctype, program, *words]
            program = sys.executable
        process = subprocess.Popen(  # noqa: S603 -- running it is the point
            words,
            executable=program,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            cwd=command.cwd,
            env=command.env,
            start_new_session=True,
            pass_fds=(far,) if far >= 0 else (),
        )
    except BaseException as error:
        if near >= 0:
            os.close(near)
        if isinstance(error, (OSError, ValueError)):
            raise _refusal(error, command) from error
        raise
    finally:
        if far >= 0:
            os.close(far)
    process.returncode = 0  # we wait for it ourselves
    return process.pid, near


def _resolve(command: Command) -> str:
    """Find the program as ``execvp`` would."""
    os.stat(command.cwd)
    name = command.argv[0] if command.argv else ""
    folders = [""] if "/" in name else os.get_exec_path(command.env) if name else []
    found = [path for folder in folders if os.path.exists(path := os.path.join(command.cwd, folder, name))]
    for path in found:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    code = errno.EACCES if found else errno.ENOENT
    raise OSError(code, os.strerror(code), name)


def _refusal(error: OSError | ValueError, command: Command) -> CodexError:  # noqa: PLR0911 -- a table of causes
    """Say why a command did not start, as the error with the right exit code."""
    name = command.argv[0] if command.argv else ""
    if isinstance(error, ValueError):  # only a NUL, or a "=" in a variable's name
        return CommandNotExecutableError(f"{name}: {error}")
    if name == "":
        return CommandNotFoundError("no command was given")
    if error.filename == command.cwd and error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CommandNotFoundError(f"the working directory {command.cwd} does not exist; choose another with --cd")
    if error.filename == command.cwd:
        return CommandNotExecutableError(f"the working directory {command.cwd}: {error.strerror}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if "/" in name and os.path.exists(os.path.join(command.cwd, name)):
            return CommandNotFoundError(f"{name}: the interpreter that its first line names does not exist")
        return CommandNotFoundError(f"{name}: command not found")
    if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return SandboxUnavailableError(f"cannot start {name}: {error.strerror}")
    size = sum(len(os.fsencode(word)) + 1 for word in command.argv)
    reasons = {
        errno.E2BIG: f"the arguments ({size} bytes) are more than the system accepts",
        errno.ENOEXEC: "neither a program for this machine nor a script with a #! line",
    }
    return CommandNotExecutableError(f"{name}: {reasons.get(error.errno or 0, error.strerror)}")
