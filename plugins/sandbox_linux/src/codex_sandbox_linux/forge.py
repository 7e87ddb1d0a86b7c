"""Outside: clone jails, from this process or, for programs with threads, from a helper process.

A jail is cloned and not started anew, because forking a small single-threaded process costs a
millisecond and starting an interpreter twenty.  An agent may have threads, and much memory; so it
starts one helper by exec, which clones on request and does nothing else.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
from typing import Final, NoReturn, Protocol

from codex_core.errors import SandboxUnavailableError, shortage
from codex_core.types import Limits

from codex_sandbox_linux import channel, helper, jail, kernel, namespaces
from codex_sandbox_linux.ending import kill_below
from codex_sandbox_linux.plan import Plan, Rung
from codex_sandbox_linux.seccomp import Supervision
from codex_sandbox_linux.usage import LIMITS

_CLONE: Final = b"c"
_SWEEP: Final = b"s"
_PACKET: Final = 1 << 17
_PATIENCE: Final = 20.0
"""Seconds for an answer of the helper; cloning takes milliseconds, but a machine may be busy."""


class Forge(Protocol):
    """Makes jails that have yet to confine themselves."""

    def clone(self, plan: Plan) -> tuple[socket.socket, int]:
        """Clone a jail; its channel and a pidfd.

        Raises OSError where this host does not allow the plan's namespaces.
        """
        ...

    def sweep(self) -> None:
        """End what dead jails without a pid namespace have left."""
        ...

    def close(self) -> None:
        """End every jail; idempotent."""
        ...


class LocalForge:
    """Clones from this process, which must have one thread only."""

    def __init__(self) -> None:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        self._jails: set[int] = set()
        self._strays_are_possible = False
        self._beacon = socket.socket(socket.AF_UNIX)
        self._beacon_name = f"codex-sandbox-{os.urandom(8).hex()}"
        self._beacon.bind("\0" + self._beacon_name)
        self._beacon.listen(1)

    def clone(self, plan: Plan) -> tuple[socket.socket, int]:
        """See :meth:`Forge.clone`."""
        ours, theirs = channel.pair()
        parent = os.getpid()
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)  # which ends a jail that has begun
            pid = kernel.clone(plan.clone_flags)
            if pid == 0:
                jail.main(plan, theirs, self._beacon_name, parent=parent)
            self._jails.add(pid)
            self._strays_are_possible |= plan.rung is Rung.FLOOR
            pidfd = os.pidfd_open(pid)
            undo.callback(os.close, pidfd)
            if plan.rung is Rung.NAMESPACES:
                namespaces.write_id_maps(pid)
                ours.send(b"mapped")
            undo.pop_all()
        return ours, pidfd

    def forget_ended_jails(self) -> None:
        """Collect the jails that have ended, so that they do not stay as zombies."""
        self._jails -= {pid for pid in self._jails if _has_ended(pid)}

    def sweep(self) -> None:
        """See :meth:`Forge.sweep`."""
        self.forget_ended_jails()
        for pid, _ in kill_below(at_once=False, without=self._jails):
            self._jails.discard(pid)

    def close(self) -> None:
        """See :meth:`Forge.close`."""
        self._beacon.close()
        for pid in self._jails:
            if not _has_ended(pid):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._jails.clear()
        if self._strays_are_possible:  # a pid namespace leaves none
            self.sweep()


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


class HelperForge:
    """Clones from a helper process, which ends with this one.  The caller serialises the calls."""

    def __init__(self) -> None:
        """Start the helper; what becomes of it is found out by the first request."""
        self._pid, self._control = helper.start("forge")
        self._control.settimeout(_PATIENCE)

    def clone(self, plan: Plan) -> tuple[socket.socket, int]:
        """See :meth:`Forge.clone`."""
        message, descriptors = self._ask(_CLONE + marshal.dumps(_to_plain(plan)))
        if not descriptors:
            number, text = marshal.loads(message)  # noqa: S302 - our own helper, outside the sandbox
            raise OSError(number, os.strerror(number), text)
        return socket.socket(fileno=descriptors[0]), descriptors[1]

    def sweep(self) -> None:
        """See :meth:`Forge.sweep`."""
        self._ask(_SWEEP)

    def _ask(self, request: bytes) -> tuple[bytes, list[int]]:
        try:
            self._control.send(request)
            message, descriptors = channel.receive(self._control, _PACKET)
        except OSError as error:
            if shortage(error):
                raise
            message, descriptors = b"", []
        if not message:
            self._control.close()  # its answer, if it still comes, is not one to the next request
            msg = "the sandbox helper has ended, or does not answer: start codex again"
            raise SandboxUnavailableError(msg)
        return message, descriptors

    def close(self) -> None:
        """See :meth:`Forge.close`."""
        if self._pid:
            self._control.close()  # the helper ends its jails, and itself
            pid, self._pid = self._pid, 0
            helper.collect(pid)


def serve() -> NoReturn:
    """Be the helper: clone on request until the owner is gone."""
    control = helper.control()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects the jails that have ended
    forge = LocalForge()
    while request := control.recv(_PACKET):
        if request == _SWEEP:
            forge.sweep()
            control.send(_SWEEP)
            continue
        try:
            opened, pidfd = forge.clone(_from_plain(marshal.loads(request[1:])))  # noqa: S302 - from our owner
        except OSError as error:
            control.send(marshal.dumps((error.errno or 0, str(error.filename or "clone"))))
            continue
        socket.send_fds(control, [_CLONE], [opened.fileno(), pidfd])
        opened.close()
        os.close(pidfd)
        forge.forget_ended_jails()
    forge.close()
    helper.leave()


_PlainPlan = tuple[
    str, tuple[str, ...], tuple[str, ...], tuple[str, ...], bool, str, tuple[float | None, ...], str, bool
]


def _to_plain(plan: Plan) -> _PlainPlan:
    limits = tuple(getattr(plan.limits, name) for name in LIMITS)
    folders = (plan.writable, plan.readonly, plan.pinned)
    return str(plan.rung), *folders, plan.network, str(plan.supervision), limits, plan.terminal, plan.filtered


def _from_plain(plain: _PlainPlan) -> Plan:
    rung, writable, readonly, pinned, network, supervision, limits, terminal, filtered = plain
    kept = Limits(**dict(zip(LIMITS, limits, strict=True)))  # type: ignore[arg-type] # whole numbers stay whole
    return Plan(Rung(rung), writable, readonly, pinned, network, Supervision(supervision), kept, terminal, filtered)
