"""The caller's side: a pool of jails for one policy, each with one command at a time.

When a command ends, everything that it started is ended too, and its jail takes the next one.  A
command that is killed takes its jail along.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from codex_core.errors import CommandNotExecutableError, CommandNotFoundError, SandboxUnavailableError, shortage
from codex_core.types import Ended, Limits, Network

from codex_sandbox_linux import channel, gateway, kernel
from codex_sandbox_linux.allowed_sockets import AllowedSockets
from codex_sandbox_linux.connections import MOST_DENIALS, Supervisor
from codex_sandbox_linux.landlock_rules import NETWORK_ABI
from codex_sandbox_linux.plan import Plan, Rung, keepers, make_plan, no_filter, refusals, strength
from codex_sandbox_linux.seccomp import Supervision, Variant
from codex_sandbox_linux.usage import LIMITS
from codex_sandbox_linux.watch import Watch

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Command, Contact, Denial, Strength

    from codex_sandbox_linux.filtering import Filter, Link
    from codex_sandbox_linux.forge import Forge
    from codex_sandbox_linux.groups import Group, Groups

_MOST_IDLE: Final = 4
"""Jails that wait for another command; more than that were for commands at the same time."""
_MOST_APPEARED: Final = 20
"""How often one command may make a protected name before it is ended."""
_PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
"""What this host is short of now is no reason for a weaker sandbox.  It says ENOSPC where it allows no namespaces."""
_NULL_DEVICE: Final = os.makedev(1, 3)
_HANDSHAKE_TIMEOUT: Final = 20.0
"""Seconds; setting up takes milliseconds, but a machine may be busy."""
_LAST_LOOK: Final = 0.2
"""Seconds in which a jail has to say, after a command, that it takes another; a new one costs less."""
_LAST_PATIENCE: Final = 5.0
"""Seconds for other threads to see that their commands were ended, when the launcher is closed."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What decides, outside, for all jails of one launcher."""

    policy: SandboxPolicy
    sockets: AllowedSockets
    filter: Filter | None
    groups: Groups | None

    @classmethod
    def of(cls, policy: SandboxPolicy, nameservers: Sequence[tuple[str, int]] = ()) -> Outside:
        """Start what *policy* needs; raises SandboxUnavailableError."""
        groups = None
        if policy.limits != Limits():
            from codex_sandbox_linux.groups import find

            groups = find(policy.limits)
        if policy.network is not Network.FILTERED:
            return cls(policy, AllowedSockets(policy), None, groups)
        from codex_sandbox_linux.filtering import Filter

        return cls(policy, AllowedSockets(policy), Filter(policy, nameservers), groups)

    def plan(self, rung: Rung) -> Plan:
        """Plan a jail, which keeps the limits that nothing else does."""
        return make_plan(self.policy, rung, kept=self.groups.kept if self.groups else ())

    def close(self) -> None:
        """End it; idempotent."""
        self.sockets.close()
        if self.filter is not None:
            self.filter.close()


class Jail:
    """One confined process, ready for commands."""

    def __init__(self, outside: Outside, plan: Plan, opened: socket.socket, pidfd: int) -> None:
        """Take over the channel and the pidfd, and wait until the jail has proved its confinement.

        Raises OSError where this host does not allow the plan, SandboxUnavailableError where the jail
        fails its own test.
        """
        self.plan = plan
        self._outside = outside
        self.channel = opened
        opened.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.pidfd = pidfd
        self.supervisor: Supervisor | None = None
        self.link: Link | None = None
        self.group: Group | None = None
        self.idle_since = 0.0
        self.is_used = False
        """Whether it has had a command, and has not said yet that it takes another."""
        self.is_killed = False
        self.thread = 0
        """Which one runs a command in it."""
        try:
            self.epoll = select.epoll()
        except OSError:
            opened.close()  # which ends the jail
            os.close(pidfd)
            raise
        try:
            self.epoll.register(opened, select.EPOLLIN)
            self.found = self._handshake()
            self._enclose()
        except BaseException:
            self.close()
            raise

    def _handshake(self) -> int:
        deadline = time.monotonic() + _HANDSHAKE_TIMEOUT
        while time.monotonic() < deadline:
            for descriptor, _ in self.epoll.poll(deadline - time.monotonic()):
                if descriptor != self.channel.fileno():
                    self._supervise()
                    continue
                reply = channel.receive_reply(self.channel)
                if reply is None:
                    msg = "the sandbox ended while it was set up"
                    raise SandboxUnavailableError(msg)
                kind, value, text, descriptors = reply
                if kind == channel.LISTENER:
                    diagnostics, listener = descriptors
                    isolated = bool(self.plan.clone_flags & kernel.CLONE_NEWNET)
                    self.supervisor = Supervisor(
                        self._outside.policy,
                        listener,
                        diagnostics,
                        isolated=isolated,
                        sockets=self._outside.sockets,
                        link=self.link,
                    )
                    self.epoll.register(self.supervisor, select.EPOLLIN)
                elif kind == channel.GATEWAY and self._outside.filter is not None:
                    self.link = self._outside.filter.admit(text, descriptors)
                    self.epoll.register(self.link, select.EPOLLIN)
                elif kind == channel.READY:
                    self.forget()  # what the self-test tried
                    return value
                elif value:
                    raise OSError(value, os.strerror(value), text.rpartition(": ")[0])
                else:
                    msg = f"the sandbox does not hold: {text}"
                    raise SandboxUnavailableError(msg)
        msg = f"the sandbox did not get ready within {_HANDSHAKE_TIMEOUT:.0f} seconds"
        raise SandboxUnavailableError(msg)

    def _enclose(self) -> None:
        if self._outside.groups is None:
            return
        try:
            self.group = self._outside.groups.enclose(self.pidfd, self._outside.policy.limits)
        except OSError as error:
            msg = f"the limits cannot be kept any more: {error.filename or 'control group'}: {error.strerror}"
            raise SandboxUnavailableError(msg) from error
        if self.group is not None:
            self.group.watch(self.epoll)

    def _supervise(self) -> None:
        if self.supervisor is not None:
            self.supervisor.handle()

    def forget(self) -> bool:
        """Forget what belonged to the last command; whether nothing of it is left for another one."""
        if self.supervisor is not None:
            self.supervisor.forget()
        if self.group is not None:
            self.group.end()
        return self.link is None or self.link.forget()

    def hear(self) -> None:
        """Take what the filter says."""
        if self.link is not None and not self.link.handle():
            with contextlib.suppress(OSError, ValueError):  # it is gone, and not watched any more
                self.epoll.unregister(self.link)
            self.link.close()

    def is_reusable(self) -> bool:
        """Whether it takes a command; waits for it to say so where it has had one."""
        poll = _poll(self.channel, self.pidfd)
        ready = dict(poll.poll(_LAST_LOOK * 1000 if self.is_used else 0))
        if self.is_used and self.channel.fileno() in ready:
            self.is_used = not channel.receive_reusable(self.channel)
        return not self.is_used and self.pidfd not in ready

    def has_ended(self, *, within: float = 0) -> bool:
        """Whether the last process of the jail is gone, or will be *within* so many seconds."""
        return bool(_poll(self.pidfd).poll(within * 1000))

    def kill(self) -> None:
        """Kill everything in it, for good."""
        self.is_killed = True
        if self.group is not None:
            self.group.kill()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """End the jail with everything in it."""
        self.kill()
        self.epoll.close()
        self.channel.close()
        if self.supervisor is not None:
            self.supervisor.close()
        if self.link is not None:
            self.link.close()
        if self.group is not None:
            self.group.close()
        os.close(self.pidfd)


def establish(forge: Forge, outside: Outside) -> tuple[Jail, Strength]:
    """Make a jail on the strongest rung that this host allows.

    Raises SandboxUnavailableError where no rung keeps the policy; the message says why and what mends it.
    """
    if kernel.MACHINE not in kernel.SUPPORTED_MACHINES:
        known = " and ".join(kernel.SUPPORTED_MACHINES)
        msg = f"the Linux sandbox knows {known} processors, and not {kernel.MACHINE}"
        raise SandboxUnavailableError(msg)
    policy = outside.policy
    abi = kernel.landlock_abi()
    if abi == 0:
        msg = (
            "this kernel has no Landlock: it needs Linux 5.13 or newer with landlock in the list"
            " /sys/kernel/security/lsm (boot parameter lsm=landlock,...)"
        )
        raise SandboxUnavailableError(msg)
    failures: list[str] = []
    for rung in Rung:
        if rung is Rung.ROOT_NAMESPACES and os.geteuid() != 0:
            continue
        if rung is Rung.FLOOR and outside.filter is not None and abi < NETWORK_ABI:
            failures.append(f"{rung}: Landlock ABI {abi} has no rules for TCP")
            continue
        try:
            jail = _make(forge, outside, outside.plan(rung))
        except OSError as error:
            if error.errno in _PASSING:
                raise SandboxUnavailableError(f"the sandbox cannot be set up: {shortage(error)}") from error
            failures.append(f"{rung}: {error.filename or 'clone'}: {error.strerror}")
            continue
        stated = strength(jail.plan, abi, found=jail.found, why=failures[0] if failures else "")
        refused = refusals(policy, stated)
        if refused:
            jail.close()
            raise SandboxUnavailableError("; ".join(refused))
        return jail, replace(stated, limits=_keepers(outside))
    why = "; ".join(failures)
    raise SandboxUnavailableError(
        f"no sandbox can be set up on this host ({why})" if outside.filter is None else no_filter(why)
    )


def _make(forge: Forge, outside: Outside, plan: Plan) -> Jail:
    try:
        return Jail(outside, plan, *forge.clone(plan))
    except OSError as error:
        if (error.filename, error.errno) != ("seccomp", errno.EBUSY) and error.filename != "sock_diag":
            raise
        if plan.variant is Variant.FLOOR_FILTERED:  # there, Landlock alone knows ports and not whose they are
            raise
    unsupervised = replace(plan, supervision=Supervision.NONE)
    return Jail(outside, unsupervised, *forge.clone(unsupervised))


def _keepers(outside: Outside) -> dict[str, str]:
    """Say what keeps each limit."""
    if outside.groups is None:
        return {}
    return keepers(outside.policy.limits, outside.groups.kept, outside.groups.why)


def _poll(*descriptors: int | socket.socket) -> select.poll:
    poll = select.poll()  # select(2) takes no descriptor above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return poll


def _null_devices(descriptors: tuple[int, int, int]) -> int:
    """Say, as a bit each, which descriptors are /dev/null.

    A descriptor carries the mount that it was opened on: through this one, root could change the device's
    mode for everybody.  So the jail opens its own.

    Raises SandboxUnavailableError for what would open more than itself.
    """
    silent = 0
    for number, descriptor in enumerate(descriptors):
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            msg = f"descriptor {number} is a folder or a disk, which a command in the sandbox cannot be given"
            raise SandboxUnavailableError(msg)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE:
            silent |= 1 << number
    return silent


class LinuxLauncher:
    """Runs commands under one policy; a :class:`codex_core.types.Launcher`."""

    def __init__(
        self,
        policy: SandboxPolicy,
        forge: Forge,
        *,
        nameservers: Sequence[tuple[str, int]] = (),
        longest_idle: float | None = None,
    ) -> None:
        """Make the first jail on *forge*, which becomes this launcher's own.

        Where the network is filtered, names are looked up at *nameservers* (addresses and ports), or those that
        this machine is configured with.  A jail that waits *longest_idle* seconds for another command, or at most
        twice as many, is ended by a thread: that is not for a forge that clones from this process.

        Raises SandboxUnavailableError where this host cannot keep *policy*.
        """
        self._policy = policy
        self._forge = forge
        self._lock = threading.Condition(threading.Lock())
        self._closed = False
        self._idle: list[Jail] = []
        self._busy: set[Jail] = set()
        self._longest_idle = longest_idle
        self._alarm: threading.Timer | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(forge.close)
            self._watch = Watch(policy)
            undo.callback(self._watch.close)
            self._outside = Outside.of(policy, nameservers)
            undo.callback(self._outside.close)
            jail, self.strength = establish(forge, self._outside)
            undo.pop_all()
        self._plan = jail.plan
        if self._plan.rung is not Rung.FLOOR:
            self._watch.look_for_replacements()
        self._admit(jail)

    def _admit(self, jail: Jail) -> None:
        if self._watch.fileno() >= 0:
            jail.epoll.register(self._watch.fileno(), select.EPOLLIN)
        self._rest(jail)

    def _rest(self, jail: Jail) -> None:
        jail.idle_since = time.monotonic()
        self._idle.append(jail)
        if self._longest_idle is not None and self._alarm is None:
            self._alarm = threading.Timer(self._longest_idle, self._end_idle)
            self._alarm.daemon = True
            self._alarm.start()

    def _end_idle(self) -> None:
        with self._lock:
            self._alarm = None
            waiting, self._idle = self._idle, []
            for jail in waiting:
                if time.monotonic() - jail.idle_since < (self._longest_idle or 0):
                    self._rest(jail)
                else:
                    self._discard(jail)

    def start(self, command: Command, stdin: int, stdout: int, stderr: int, *, tty: str | None = None) -> Running:
        """See :meth:`codex_core.types.Launcher.start`."""
        silent = _null_devices((stdin, stdout, stderr))
        if self._outside.filter is not None:
            self._outside.filter.check()
            command = replace(command, env={**command.env, **gateway.environment(alone=bool(self._plan.clone_flags))})
        words = channel.encoded(command)
        jail = self._take(tty or "")
        terminal = None
        try:
            if jail.link is not None:
                jail.link.begin(command.ask)
            if tty is not None:
                terminal = os.open(tty, os.O_RDWR | os.O_NOCTTY)
            if jail.group is not None:
                jail.group.begin()
            jail.is_used = True
            channel.send_command(jail.channel, words, (stdin, stdout, stderr), terminal, silent)
        except BaseException as error:
            self.give_back(jail, alive=False)
            if not isinstance(error, OSError):
                raise
            msg = f"the sandbox does not take the command: {error.strerror}"
            if error.errno == errno.EMSGSIZE:
                raise CommandNotExecutableError(msg) from error
            raise SandboxUnavailableError(msg) from error
        finally:
            if terminal is not None:
                os.close(terminal)
        return Running(self, jail, self._watch, command)

    def _take(self, terminal: str) -> Jail:
        with self._lock:
            if self._closed:
                raise SandboxUnavailableError("the sandbox is closed")
            if not self._busy and self._watch.has_changed():
                while self._idle:  # their read-only mounts are no longer the right ones
                    self._discard(self._idle.pop())
                self._plan = replace(self._outside.plan(self._plan.rung), supervision=self._plan.supervision)
            while self._idle and not self._idle[-1].is_reusable():  # or killed by somebody outside, for want of memory
                self._discard(self._idle.pop())
            if terminal or not self._idle:
                plan = replace(self._plan, terminal=terminal)
                try:
                    self._admit(Jail(self._outside, plan, *self._forge.clone(plan)))
                except OSError as error:
                    why = shortage(error) or f"{error.filename or 'clone'}: {error.strerror}"
                    msg = f"the sandbox cannot be set up: {why}"
                    raise SandboxUnavailableError(msg) from error
            jail = self._idle.pop()
            jail.thread = threading.get_ident()
            self._busy.add(jail)
            return jail

    def give_back(self, jail: Jail, *, alive: bool) -> None:
        """Take back a jail whose command has ended; *alive* if it can have another."""
        with self._lock:
            if jail not in self._busy:  # the launcher was closed
                return
            self._busy.remove(jail)
            self._lock.notify_all()
            with contextlib.ExitStack() as undo:
                undo.callback(self._discard, jail)
                if not self._busy:
                    self._watch.settle()
                # A jail keeps its terminal, and terminals do not come back.
                alive = (
                    alive
                    and not jail.is_killed
                    and not self._closed
                    and not jail.plan.terminal
                    and not (jail.group and jail.group.is_burdened())
                )
                if alive and len(self._idle) < _MOST_IDLE and jail.forget():
                    self._rest(jail)
                    undo.pop_all()

    def _discard(self, jail: Jail) -> None:
        """End a jail, and on the floor what has escaped its end."""
        if jail.plan.rung is Rung.FLOOR:
            jail.kill()
            jail.has_ended(within=_LAST_PATIENCE)
        jail.close()
        if jail.plan.rung is Rung.FLOOR:
            self._forge.sweep()

    def close(self) -> None:
        """See :meth:`codex_core.types.Launcher.close`."""
        with self._lock:
            self._closed = True
            if self._alarm is not None:
                self._alarm.cancel()
            for jail in self._busy:
                jail.kill()
            # A thread that waits for its command does so on the jail's descriptors: it gives them back first.
            own = threading.get_ident()
            self._lock.wait_for(lambda: all(jail.thread == own for jail in self._busy), _LAST_PATIENCE)
            while self._idle or self._busy:
                (self._idle or self._busy).pop().close()
            self._forge.close()
            self._outside.close()
            self._watch.settle()
            self._watch.close()


class Running:
    """A command in a jail; a :class:`codex_core.types.Running`."""

    def __init__(self, launcher: LinuxLauncher, jail: Jail, watch: Watch, command: Command) -> None:
        self._launcher = launcher
        self._jail = jail
        self._watch = watch
        self._command = command
        self._ended: Ended | None = None
        self._stopped: int | None = None
        self._limit = ""
        self._appeared = 0
        self._denials: dict[Denial, None] = {}
        self._contacts: tuple[Contact, ...] = ()

    def fileno(self) -> int:
        """See :meth:`codex_core.types.Running.fileno`."""
        return self._jail.epoll.fileno()

    def advance(self) -> Ended | None:
        """See :meth:`codex_core.types.Running.advance`."""
        if self._jail.epoll.closed:  # the launcher was closed
            self._ended = self._ended or Ended(signal=signal.SIGKILL)
        if self._ended is not None:
            return self._ended
        if self._jail.supervisor is not None:
            self._jail.supervisor.handle()
            if self._jail.supervisor.is_abused:
                self.kill()
        appeared = self._watch.handle()
        self._note(appeared)
        self._appeared += len(appeared)
        if self._appeared > _MOST_APPEARED:  # it does nothing else
            self.kill()
        self._jail.hear()
        self._keep_limits()
        try:
            reply = channel.receive_reply(self._jail.channel)
        except BlockingIOError:
            return None
        if reply is None:
            return self._jail_is_gone()
        kind, value, text, _ = reply
        if kind == channel.STOPPED:
            self._stopped = value
            return None
        if kind == channel.LIMITED:
            self._limit = LIMITS[value]
            return None
        return self._finish(kind, value, text)

    def _keep_limits(self) -> None:
        exceeded = "" if self._jail.group is None else self._jail.group.exceeded()
        if exceeded and not self._limit:
            self._limit = exceeded
            self.kill()

    def _jail_is_gone(self) -> Ended | None:
        # The channel closes a moment before the last process of the tree is gone; the pidfd says when it is.
        if not self._jail.has_ended():
            with contextlib.suppress(OSError):
                self._jail.epoll.unregister(self._jail.channel)
                self._jail.epoll.register(self._jail.pidfd, select.EPOLLIN)
            return None
        self._keep_limits()
        self._settle(alive=False)
        return self._ended

    def _finish(self, kind: int, value: int, text: str) -> Ended:
        self._keep_limits()  # what the last moment brought
        self._settle(alive=kind != channel.BROKEN)
        program = self._command.argv[0]
        if kind == channel.NO_FOLDER:
            msg = f"the working directory {self._command.cwd!r} cannot be entered: {os.strerror(value)}"
            raise CommandNotFoundError(msg)
        if kind == channel.NO_EXEC:
            if value == errno.ENOENT:
                msg = f"{program}: command not found"
                raise CommandNotFoundError(msg)
            if why := shortage(OSError(value, "", program)):
                raise SandboxUnavailableError(why)
            msg = f"{program}: {os.strerror(value)}"
            raise CommandNotExecutableError(msg)
        if kind != channel.ENDED:
            msg = f"the sandbox broke before the command ran: {text}"
            raise SandboxUnavailableError(msg)
        code = os.waitstatus_to_exitcode(value)
        if code in {-signal.SIGXFSZ, 128 + signal.SIGXFSZ} and self._jail.plan.limits.file_size is not None:
            self._limit = "file_size"
        self._ended = Ended(code, None, self._limit) if code >= 0 else Ended(None, -code, self._limit)
        return self._ended

    def _settle(self, *, alive: bool) -> None:
        self._ended = Ended(None, signal.SIGKILL, self._limit)  # from here on, the jail is not this command's
        try:
            if self._jail.supervisor is not None:
                self._note(self._jail.supervisor.denials)
            if self._jail.link is not None:
                self._jail.hear()
                self._note(self._jail.link.denials)
                self._contacts = tuple(dict.fromkeys(self._jail.link.contacts))
            self._note(self._watch.handle(ended=True))
        finally:
            self._launcher.give_back(self._jail, alive=alive)

    def _note(self, denials: Iterable[Denial]) -> None:
        for denial in denials:
            if len(self._denials) < MOST_DENIALS:
                self._denials.setdefault(denial)

    def stopped(self) -> int | None:
        """See :meth:`codex_core.types.Running.stopped`."""
        stopped, self._stopped = self._stopped, None
        return stopped

    def signal(self, number: int) -> None:
        """See :meth:`codex_core.types.Running.signal`."""
        if self._ended is None:
            channel.send_request(self._jail.channel, channel.SIGNAL, number)

    def kill(self) -> None:
        """See :meth:`codex_core.types.Running.kill`."""
        if self._ended is None and not self._jail.epoll.closed:
            self._jail.kill()

    def denials(self) -> tuple[Denial, ...]:
        """See :meth:`codex_core.types.Running.denials`."""
        return tuple(self._denials)

    def contacts(self) -> tuple[Contact, ...]:
        """Give the hosts that the command asked the filter for, once it has ended."""
        return self._contacts
