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
        self._control = -1
        if tty is not None:
            self._pid, self._control, self._fd = _spawn_on_terminal(command, stdio, tty)
            return
        self._pid = _spawn(command, stdio, [], ())
        try:
            self._fd = os.pidfd_open(self._pid) if hasattr(os, "pidfd_open") else _watch(self._pid)
        except (OSError, RuntimeError) as error:  # no descriptor or no thread left
            self._send(signal.SIGKILL)
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
            if self._ended is None and self._control >= 0:
                self._take_reports()
            if self._ended is None and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self._finish()
            return self._ended

    def _take_reports(self) -> None:
        with suppress(BlockingIOError):
            self._stops.extend(os.read(self._fd, 64))

    def _finish(self) -> None:
        self._send(signal.SIGKILL)  # the rest of the group, before its number can be used again
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._ended = Ended(exit_code=code) if code >= 0 else Ended(signal=-code)
        os.close(self._fd)
        if self._control >= 0:
            os.close(self._control)

    def wait(self) -> None:
        """Wait for the end of a command that was killed."""
        with self._lock:
            if self._ended is None:
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
                self._finish()

    def stopped(self) -> int | None:
        with self._lock:
            return self._stops.popleft() if self._stops else None

    def signal(self, number: int) -> None:
        with self._lock:
            if self._ended is not None:
                return
            if self._control >= 0:
                with suppress(BrokenPipeError):  # the leader is at its end
                    os.write(self._control, bytes((number,)))
            else:
                self._send(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def denials(self) -> tuple[Denial, ...]:
        return ()

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone, or it changed its user
            os.killpg(self._pid, number)


def _watch(pid: int) -> int:
    """Give a descriptor that polls readable once the process has ended, where the system has none."""
    fd, letters = os.pipe()

    def watch() -> None:
        with suppress(ChildProcessError):  # seen and reaped by another thread already
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(letters)

    threading.Thread(target=watch, name=f"codex-wait-{pid}", daemon=True).start()
    return fd


def _spawn_on_terminal(command: Command, stdio: tuple[int, int, int], tty: str) -> tuple[int, int, int]:
    """Start the command below a leader; the process, and the near ends of its control and report."""
    lc_ctype = f"={command.env['LC_CTYPE']}" if "LC_CTYPE" in command.env else ""
    control_far, control = os.pipe()
    report, report_far = os.pipe()
    words = [sys.executable, "-I", "-S", _LEADER, tty, str(control_far), str(report_far), lc_ctype]
    try:
        try:
            pid = _spawn(command, stdio, words, (control_far, report_far))
        finally:
            os.close(control_far)
            os.close(report_far)
        # Until the session stands, the terminal does not know whom a Ctrl-Z is for.
        _await_start(command, pid, report)
    except BaseException:
        os.close(control)
        os.close(report)
        raise
    os.set_blocking(report, False)
    return pid, control, report


def _await_start(command: Command, pid: int, report: int) -> None:
    answer = os.read(report, 1)
    if answer == b"\0":
        return
    os.waitpid(pid, 0)
    if not answer:
        raise SandboxUnavailableError(f"cannot open a terminal session for {command.argv[0]}")
    raise _refusal(OSError(answer[0], os.strerror(answer[0]), command.argv[0]), command)


def _spawn(command: Command, stdio: tuple[int, int, int], prefix: list[str], pass_fds: tuple[int, ...]) -> int:
    """Start the command, or *prefix* with it as its arguments; the process."""
    import subprocess  # slow to import, and unneeded where a sandbox is used

    try:
        program = _resolve(command)
        words = [*prefix, program, *command.argv] if prefix else command.argv
        process = subprocess.Popen(  # noqa: S603 -- running it is the point
            words,
            executable=prefix[0] if prefix else program,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            cwd=command.cwd,
            env=command.env,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except (OSError, ValueError) as error:
        raise _refusal(error, command) from error
    process.returncode = 0  # we wait for it ourselves
    return process.pid


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
