"""Inside: confine this process by a plan, prove it, then spawn one command after the other.

This process is small and single-threaded, and the init process of its pid namespace where there is
one: orphans come to it, and its end ends them all.  It is not dumpable, so that what it starts, which
shares its user and its Landlock domain, can neither trace it nor read its memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Final, NoReturn

from codex_sandbox_linux import channel, gateway, kernel, landlock_rules, namespaces, seccomp, self_test, usage
from codex_sandbox_linux.ending import ended_children, kill_below
from codex_sandbox_linux.plan import Rung
from codex_sandbox_linux.seccomp import Supervision

if TYPE_CHECKING:
    from collections.abc import Callable

    from codex_sandbox_linux.plan import Plan

    _Start = Callable[[bytes, list[bytes], dict[bytes, bytes], list[int]], int]

_NETLINK_SOCK_DIAG: Final = 4
_IGNORED: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_RESTORED: Final = (*_IGNORED, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


def main(plan: Plan, owner: socket.socket, beacon: str, *, parent: int) -> NoReturn:
    """Confine this process, which *parent* has just cloned, and serve *owner* until it is gone."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if plan.rung is Rung.FLOOR and os.getppid() != parent:  # it died before we could ask to die with it
            os._exit(1)
        os.setsid()
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        kept = os.dup2(owner.fileno(), 3, inheritable=False)
        owner.detach()
        kernel.close_from(4)
        owner = socket.socket(fileno=kept)
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor, inheritable=False)
        os.close(null)
        confine(plan, owner, beacon)
        _Server(plan, owner).serve()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the owner is told and nothing runs
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        try:
            channel.send_reply(owner, channel.BROKEN, number, describe(error))
        finally:
            os._exit(1)
    os._exit(0)


def describe(error: BaseException) -> str:
    """Say in one line what failed, and where."""
    if isinstance(error, OSError):
        return f"{error.filename or 'system call'}: {error.strerror}"
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def confine(plan: Plan, owner: socket.socket, beacon: str) -> None:
    """Give up, in the one order that works, everything that *plan* does not leave.

    Raises OSError, or SelfTestError where the confinement does not hold.
    """
    open_before = self_test.writable_folders(plan)
    if plan.clone_flags & kernel.CLONE_NEWUSER:
        _wait_for_id_maps(owner)
    private_proc = namespaces.build(plan) if plan.clone_flags else False
    if plan.filtered:
        _hand_out_gateway(owner, alone=bool(plan.clone_flags))
    kernel.drop_capabilities()
    landlock_rules.restrict(plan, kernel.landlock_abi())
    supervised = [] if plan.supervision is Supervision.NONE else [_diagnostics().detach()]
    listener = seccomp.load(plan.variant, plan.supervision)
    if listener is not None:
        supervised.append(listener)
        channel.send_reply(owner, channel.LISTENER, 0, descriptors=supervised)
    for descriptor in supervised:
        os.close(descriptor)
    self_test.prove(plan, open_before, beacon)
    usage.confine(plan.limits, counted_apart=plan.rung is Rung.NAMESPACES)
    found = channel.PRIVATE_PROC * private_proc | channel.OWN_SOCKETS * self_test.own_sockets_work()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # not before: our own connects were supervised until here
    channel.send_reply(owner, channel.READY, found)


def _hand_out_gateway(owner: socket.socket, *, alone: bool) -> None:
    made = gateway.open_all(alone=alone)
    kinds = "\0".join(kind for kind, _ in made)
    channel.send_reply(owner, channel.GATEWAY, 0, kinds, [one.fileno() for _, one in made])
    for _, one in made:
        one.close()


def _diagnostics() -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    except OSError as error:  # a jail above this one does not let us ask
        raise OSError(error.errno, error.strerror, "sock_diag") from error


def _wait_for_id_maps(owner: socket.socket) -> None:
    if not owner.recv(1):
        os._exit(1)


class _Server:
    """Runs one command at a time and leaves nothing of it behind."""

    def __init__(self, plan: Plan, owner: socket.socket) -> None:
        self._shared = _SharedObjects() if plan.clone_flags else None
        self._is_alone = bool(plan.clone_flags) or _cannot_signal_outside()
        self._owner = owner
        self._child = 0
        self._null = os.open("/dev/null", os.O_RDWR)
        self._limits = plan.limits
        self._meter = usage.Meter(plan.limits)
        self._terminal: _Terminal | None = None
        self._as_made = _scheduling()
        self._poll = select.poll()
        self._poll.register(owner, select.POLLIN)
        wakeup, self._wakeup_write = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(self._wakeup_write, False)
        self._wakeup = wakeup
        self._poll.register(wakeup, select.POLLIN)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, self._hang_up)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def serve(self) -> None:
        while True:
            metered = self._child and self._meter.is_needed
            for descriptor, _ in self._poll.poll(usage.INTERVAL * 1000 if metered else None):
                if descriptor == self._wakeup:
                    os.read(self._wakeup, 4096)
                    self._reap()
                elif not self._answer():
                    self._end_tree()
                    return
            if metered:
                self._keep_limits()

    def _keep_limits(self) -> None:
        exceeded = self._meter.exceeded()
        if exceeded and self._child:
            channel.send_reply(self._owner, channel.LIMITED, usage.LIMITS.index(exceeded))
            self._end_tree()

    def _answer(self) -> bool:
        request = channel.receive_request(self._owner)
        if request is None:
            return False
        kind, flags, count, words, descriptors = request
        if kind == channel.RUN:
            try:
                self._run(flags, words[0], words[1 : count + 1], words[count + 1 :], descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif kind == channel.SIGNAL:
            self._signal(count)
        return True

    def _run(self, flags: int, cwd: bytes, argv: list[bytes], environment: list[bytes], descriptors: list[int]) -> None:
        try:
            os.chdir(cwd)
        except OSError as error:
            self._finish(channel.NO_FOLDER, error.errno or 0)
            return
        self._meter = usage.Meter(self._limits)
        for number in range(3):
            if flags >> channel.SILENT_SHIFT & 1 << number:
                os.dup2(self._null, descriptors[number], inheritable=False)
        env = dict(item.split(b"=", 1) for item in environment)
        start = _start
        if flags & channel.TERMINAL:
            start, self._terminal = _start_on_terminal, _Terminal(descriptors[3])
        try:
            self._child = _first_that_runs(argv, env, lambda path: _or_by_shell(start, path, argv, env, descriptors))
        except OSError as error:
            self._finish(channel.NO_EXEC, error.errno or 0)

    def _reap(self) -> None:
        for pid, status in ended_children():
            if pid != self._child:
                continue
            if os.WIFSTOPPED(status):
                self._stopped(os.WSTOPSIG(status))
                continue
            self._child = 0
            self._end_tree()
            self._finish(channel.ENDED, status)

    def _stopped(self, number: int) -> None:
        if self._terminal is not None and self._terminal.is_foreground and number in (signal.SIGTTIN, signal.SIGTTOU):
            self._signal(signal.SIGCONT)  # it reached for the terminal just before it was given to it
        else:
            channel.send_reply(self._owner, channel.STOPPED, number)

    def _leave_terminal(self) -> None:
        if self._terminal is not None:
            os.close(self._terminal.descriptor)
            self._terminal = None

    def _finish(self, kind: int, value: int) -> None:
        """Say how the command ended, and look only then whether there can be another: nobody waits for that."""
        os.chdir("/")
        self._leave_terminal()
        channel.send_reply(self._owner, kind, value)
        if _scheduling() != self._as_made or (self._shared and self._shared.are_left()):
            os._exit(0)
        channel.send_reply(self._owner, channel.REUSABLE, 0)

    def _signal(self, number: int) -> None:
        if self._terminal is not None and self._child and not self._terminal.prepare(self._child, number):
            return
        if self._child:
            try:
                os.killpg(self._child, number)
            except ProcessLookupError:
                return

    def _hang_up(self, *_: object) -> None:
        self._signal(signal.SIGHUP)

    def _end_tree(self) -> None:
        """Kill everything below; if the command was among it, report its end."""
        ended = None
        for pid, status in kill_below(at_once=self._is_alone):
            if pid == self._child and not os.WIFSTOPPED(status):
                self._child, ended = 0, status
        if ended is not None:
            self._finish(channel.ENDED, ended)


class _Terminal:
    """Where the command stands on its terminal: :meth:`codex_core.types.Launcher.start` says how that is chosen."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = os.dup(descriptor)
        self.is_foreground = False
        self._to_background = False

    def prepare(self, command: int, number: int) -> bool:
        """Do what a signal means for the terminal; whether it is for the command as well."""
        if number == signal.SIGURG:
            self._to_background = True
            return False
        if number == signal.SIGCONT:
            self.is_foreground, self._to_background = not self._to_background, False
            with contextlib.suppress(OSError):  # the terminal may have hung up
                os.tcsetpgrp(self.descriptor, command if self.is_foreground else os.getpgrp())
        return True


class _SharedObjects:
    """What processes leave in the jail's own ipc namespace and /dev/shm when they end."""

    def __init__(self) -> None:
        self._tables = [os.open(f"/proc/sysvipc/{name}", os.O_RDONLY) for name in ("shm", "sem", "msg")]
        self._none = self._look()

    def are_left(self) -> bool:
        return self._look() != self._none

    def _look(self) -> tuple[object, ...]:
        tables = [len(os.pread(table, 4096, 0)) for table in self._tables]
        modes = [os.stat(folder).st_mode for folder in ("/dev/shm", "/dev/pts")]  # noqa: S108 - the jail's own
        return tables, modes, os.statvfs("/dev/shm").f_ffree  # noqa: S108


def _cannot_signal_outside() -> bool:
    """Try whether Landlock keeps this process from signalling the one that made it (ABI 6)."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def _scheduling() -> tuple[object, ...]:
    """Give what a process of the same user can change of this one, and the next command would inherit.

    Limits are not among it: the filter refuses to change those of another process.
    """
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.sched_getscheduler(0)


def _first_that_runs(argv: list[bytes], env: dict[bytes, bytes], start: Callable[[bytes], int]) -> int:
    """Look *argv[0]* up in the command's PATH, as execvp(3) does, and start the first that can be run."""
    if b"/" in argv[0]:
        return start(argv[0])
    refused: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in env.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        path = os.path.join(folder or b".", argv[0])
        if not os.path.isfile(path):
            continue
        try:
            return start(path)
        except PermissionError as error:
            refused = error
    raise refused


def _or_by_shell(start: _Start, path: bytes, argv: list[bytes], env: dict[bytes, bytes], descriptors: list[int]) -> int:
    """Run a script that names no interpreter with the shell, as execvp(3) does."""
    try:
        return start(path, argv, env, descriptors)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return start(b"/bin/sh", [b"/bin/sh", path, *argv[1:]], env, descriptors)


def _start(path: bytes, argv: list[bytes], env: dict[bytes, bytes], descriptors: list[int]) -> int:
    onto = [(os.POSIX_SPAWN_DUP2, descriptors[number], number) for number in range(3)]
    return os.posix_spawn(path, argv, env, file_actions=onto, setsid=True, setsigmask=(), setsigdef=_RESTORED)


def _start_on_terminal(path: bytes, argv: list[bytes], env: dict[bytes, bytes], descriptors: list[int]) -> int:
    """Start in a process group of its own, in the background of a terminal that this session controls.

    The command must not lead the session: its group would have no parent in the session, and job
    control does not stop such a group (setpgid(2), orphaned process groups).
    """
    terminal = descriptors[3]
    kernel.controlling_terminal(terminal)
    report, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            for number in range(3):
                os.dup2(descriptors[number], number)
            for number in _RESTORED:
                signal.signal(number, signal.SIG_DFL)
            os.execve(path, argv, env)  # noqa: S606 - there must be no shell
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(write)
    with open(report, "rb") as file:
        failed = file.read()
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid
