"""The values that travel along the spine.

Everything here is frozen and free of behaviour that touches the system, and importing it costs no
more than :mod:`dataclasses` and :mod:`enum`: the cold path of ``codex sandbox`` depends on that.

Paths are ``str`` as :func:`os.fsdecode` gives them, so that names which are not UTF-8 survive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class SandboxMode(StrEnum):
    """How far a command may reach."""

    READ_ONLY = "read-only"
    WORKSPACE_WRITE = "workspace-write"
    DANGER_FULL_ACCESS = "danger-full-access"


class ApprovalMode(StrEnum):
    """When a person is asked."""

    UNTRUSTED = "untrusted"
    ON_FAILURE = "on-failure"
    ON_REQUEST = "on-request"
    NEVER = "never"


class Network(StrEnum):
    """What a command may reach over the network."""

    OFF = "off"
    FILTERED = "filtered"
    """The hosts that the lists of domains allow."""
    ON = "on"


class ProtectGit(StrEnum):
    """How much of a repository is closed inside a writable root."""

    ALL = "all"
    """Everything: nothing can be committed from inside."""
    HOOKS = "hooks"
    """Whatever git runs programs from; commits work."""


class Operation(StrEnum):
    """What can be asked of a :class:`~codex_core.sandbox.policy.SandboxPolicy`.

    The target of the first three is an absolute path; ``WRITE`` is to create, write, or change metadata,
    ``REMOVE`` to remove, rename or replace what has this name, a link itself and not what it leads to.  The
    target of ``CONNECT`` is ``host:port``, or the absolute path of a unix socket.
    """

    READ = "read"
    WRITE = "write"
    REMOVE = "remove"
    CONNECT = "connect"


class Promise(StrEnum):
    """One thing that a sandbox keeps, so that strength can be stated and compared."""

    WRITES = "writes"
    """File content changes only below writable roots."""
    METADATA = "metadata"
    """Mode, owner, times and attributes change only below writable roots."""
    PROTECTED_PATHS = "protected_paths"
    """``.git``, ``.codex``, ``.agents`` and the like stay closed inside writable roots."""
    NETWORK = "network"
    """Nothing outside is reached over a network unless the policy says so."""
    LOOPBACK = "loopback"
    """Servers of the command's own on 127.0.0.1 work while the network is off."""
    OWN_SOCKETS = "own_sockets"
    """Unix sockets between the processes of one command work."""
    UNIX_SOCKETS = "unix_sockets"
    """Sockets of programs outside are not reached."""
    PROCESSES = "processes"
    """Processes outside are neither seen, signalled, traced nor read."""
    PROCESS_TREE = "process_tree"
    """Everything that the command started ends with it, however it detached itself."""
    IPC = "ipc"
    """System V and POSIX shared objects of the host are out of reach."""
    DEVICES = "devices"
    """No device beyond the harmless ones is opened."""
    PRIVILEGES = "privileges"
    """No capability is held and none can be gained."""
    KERNEL_SURFACE = "kernel_surface"
    """System calls that sandboxes are usually left through are refused."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How strongly a command is confined, found by trial on this host."""

    backend: str
    """The backend that confines, ``"none"`` where nothing does."""
    rung: str
    """The backend's own word for what it could set up, such as ``"namespaces"`` or ``"floor"``."""
    kept: frozenset[Promise]
    lost: Mapping[Promise, str] = field(default_factory=dict)
    """What is not kept here, each with the reason."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """What keeps each field of :class:`Limits` that is set and that the backend keeps, for people."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command, with all that it starts, may use up; None is no limit."""

    wall_time: float | None = None
    """Seconds."""
    cpu_time: float | None = None
    """Seconds, of all processes together."""
    memory: int | None = None
    """Bytes that are not files, of all processes together."""
    processes: int | None = None
    """Processes and threads."""
    open_files: int | None = None
    """Of each process."""
    file_size: int | None = None
    """Bytes, of each file that is written."""
    output_size: int | None = None
    """Bytes of captured output."""


class Decision(IntEnum):
    """What an approval policy wants; ordered, so that the strictest of several is ``max()``."""

    ALLOW = 0
    PROMPT = 1
    FORBID = 2


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    ask: Callable[[str, int], Verdict] | None = None
    """Where the network is filtered: gives the word on a host and port that no list names, or raises, which is a no.
    Called on a thread of its own, once for each; None is a no to all."""


@dataclass(frozen=True, slots=True)
class Neutralised:
    """How a command has to be run so that it is as harmless as it was judged to be."""

    argv: tuple[str, ...]
    """What is run in its place."""
    without: str
    """Variables whose names begin so are taken away."""
    environ: Mapping[str, str]
    """What is then set."""

    def applied(self, command: Command) -> Command:
        """Give *command* as it is to be run."""
        kept = {name: value for name, value in command.env.items() if not name.startswith(self.without)}
        return Command(self.argv, command.cwd, {**kept, **self.environ}, command.ask)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One policy's word on one action."""

    decision: Decision
    reason: str
    source: str = ""
    """Who decided: ``"policy:untrusted"``, ``"user"``, a rule as ``"FILE:LINE"``, ..."""
    unsandboxed: bool = False
    """The action may run outside the sandbox.  Of several verdicts, all must say so."""
    neutralised: Neutralised | None = None
    """Set by core where the action is allowed because it is run so."""


class SafetyClass(IntEnum):
    """What is known about a command; ordered, so that the class of several is ``max()``."""

    SAFE = 0
    """It only reads what anybody may read."""
    ASK = 1
    DANGEROUS = 2


@dataclass(frozen=True, slots=True)
class Safety:
    """What is known about a command, and what the user's rules say of it."""

    level: SafetyClass
    reason: str
    """One printable line."""
    source: str = "built-in"
    """What the reason is from: ``built-in``, or a rule as ``FILE:LINE``."""
    ruled: Decision | None = None
    """What a rule decided, which stands above *level*."""
    unsandboxed: bool = False
    """A rule that allows the command lets it leave the sandbox."""
    neutralised: Neutralised | None = None
    """It is safe only if it is run so."""


SHELL_TOOL = "shell"
"""The tool of an action that runs a command."""
NETWORK_TOOL = "network"
"""The tool of an action that asks for connections of a command to one host; its only word is ``HOST[:PORT]``."""
QUESTION_PATIENCE = 60.0
"""Seconds that a connection under way waits for somebody's word; then the answer is no."""


@dataclass(frozen=True, slots=True)
class Action:
    """What an agent, or a person on its behalf, wants to do."""

    argv: tuple[str, ...]
    cwd: str
    tool: str = SHELL_TOOL
    call_id: str = ""
    escalated: bool = False
    """The model asks to leave the sandbox."""
    justification: str = ""
    """Why the model asks, in its own words: show it as such."""
    after_denial: Denial | None = None
    """Set when the sandbox stopped a first attempt and this asks for a second one outside."""
    writes: tuple[str, ...] = ()
    """The files that a tool of this process would write, absolute; empty for commands."""
    command: tuple[str, ...] = ()
    """For a connection: the command that wants it."""
    safety: Safety | None = None
    """What core found out about the command, for approval policies; None where nobody looked yet."""


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that the sandbox did not let happen."""

    operation: Operation
    target: str
    rule: str
    """The part of the policy that said no, for people."""
    cure: str = ""
    """The configuration that would allow it, empty where nothing should."""
    certain: bool = True
    """False where only the words of an error message speak for it."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A host that a command wanted to reach through the filter, and what became of that."""

    host: str
    port: int
    """0 where only its address was asked for."""
    allowed: bool
    rule: str
    """What decided, for people."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: exactly one of the first two is set."""

    exit_code: int | None = None
    signal: int | None = None
    limit: str = ""
    """The field of :class:`Limits` that ended it, where one did."""

    @property
    def returncode(self) -> int:
        """The exit status as a shell gives it: the code, or 128 + the signal."""
        return self.exit_code if self.exit_code is not None else 128 + (self.signal or 0)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a command."""

    ended: Ended
    duration: float
    """Wall time in seconds."""
    strength: Strength
    stdout: bytes = b""
    stderr: bytes = b""
    dropped: int = 0
    """Bytes of output beyond the bound, read and thrown away."""
    timed_out: bool = False
    denials: tuple[Denial, ...] = ()
    contacts: tuple[Contact, ...] = ()
    """Where the network is filtered: the hosts that were asked for, each decision once."""

    @property
    def returncode(self) -> int:
        """The exit status as a shell gives it: the code, or 128 + the signal."""
        return self.ended.returncode


class Running(Protocol):
    """A command under way in a :class:`Launcher`.  All methods are for one thread at a time.

    Where the launcher filters the network, there is one method more: ``contacts() -> tuple[Contact, ...]``.
    """

    def fileno(self) -> int:
        """Give a descriptor that polls readable when :meth:`advance` has something to do."""
        ...

    def advance(self) -> Ended | None:
        """Do what is ready, without blocking; how the command ended once its whole tree is gone.

        Raises CommandNotFoundError or CommandNotExecutableError where it never began.
        """
        ...

    def stopped(self) -> int | None:
        """Give the signal that job control stopped the command with (once for each stop), or None."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; quietly nothing if it is gone."""
        ...

    def kill(self) -> None:
        """End the whole process tree with SIGKILL; :meth:`advance` then reports the end."""
        ...

    def denials(self) -> tuple[Denial, ...]:
        """Give what was denied so far, in order, each once."""
        ...


class Launcher(Protocol):
    """Runs commands under one policy.  Safe to use from several threads."""

    @property
    def strength(self) -> Strength:
        """What is really kept, known once the confinement stands."""
        ...

    def start(self, command: Command, stdin: int, stdout: int, stderr: int, *, tty: str | None = None) -> Running:
        """Start a command on three descriptors, which stay the caller's.

        With *tty*, the path of a terminal, the command is in a session whose controlling terminal
        that is, in a process group that can be stopped from there, so not as the session's leader;
        the descriptors may refer to it.  It starts in the background of the terminal:
        ``signal(SIGCONT)`` continues it in the foreground, ``signal(SIGURG)`` and then
        ``signal(SIGCONT)`` in the background.

        It may come to a halt, at a connect for instance, until somebody calls :meth:`Running.advance`.

        Raises SandboxUnavailableError, and, here or at the first :meth:`Running.advance`,
        CommandNotFoundError or CommandNotExecutableError.
        """
        ...

    def close(self) -> None:
        """End everything that still runs and free all resources; idempotent.

        Another thread that waits for a command is let see its end first.
        """
        ...
