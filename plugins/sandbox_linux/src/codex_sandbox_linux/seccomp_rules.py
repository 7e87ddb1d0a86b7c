"""What the seccomp filters refuse, as data.

:mod:`codex_sandbox_linux.generate_filters` compiles this table with libseccomp (through pyseccomp)
into the programs in ``filters/``, which are loaded as they are.  So the compiler, which needs a system
library and starts programs when it is imported, is not on the way of a command.  A test runs every
shipped program in a small BPF machine against this table, and compiles the table anew.

Arguments are compared by their low 32 bits where the kernel reads an ``int``: a filter that compares
64 bits is passed with a high bit set (CVE-2019-10063).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from codex_sandbox_linux.observe import CALLS, OPENS
from codex_sandbox_linux.seccomp import Supervision, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

LOW_32: Final = 0xFFFF_FFFF

AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
AF_NETLINK: Final = 16
_FAMILIES: Final = 46  # AF_MAX of Linux 6.18 is 46; everything from there on is refused as a range
_SOCK_TYPE_MASK: Final = 0xF
_SOCK_STREAM: Final = 1
_SOCK_DGRAM: Final = 2
_SOCK_RAW: Final = 3
_IPPROTO_TCP: Final = 6
_MSG_FASTOPEN: Final = 0x2000_0000
_ROUTES: Final = ((0, 4), (41, 5), (41, 6), (41, 57))
"""Levels and names of IP_OPTIONS, IPV6_2292RTHDR, IPV6_2292PKTOPTIONS, IPV6_RTHDR."""

_NAMESPACE_FLAGS: Final = (
    0x0000_0080,  # CLONE_NEWTIME, of unshare only: in clone the low byte is the signal
    0x0002_0000,  # CLONE_NEWNS
    0x0200_0000,  # CLONE_NEWCGROUP
    0x0400_0000,  # CLONE_NEWUTS
    0x0800_0000,  # CLONE_NEWIPC
    0x1000_0000,  # CLONE_NEWUSER
    0x2000_0000,  # CLONE_NEWPID
    0x4000_0000,  # CLONE_NEWNET
)
_PRIO_USER: Final = 2
_IOPRIO_WHO_USER: Final = 3
_F_SETLEASE: Final = 1024
_FCHMODAT2: Final = 452  # newer than the compiler; the same number everywhere
_TERMINAL_REQUESTS: Final = (
    0x5412,  # TIOCSTI puts bytes into the input of a terminal
    0x541C,  # TIOCLINUX pastes, on a console
    0x541D,  # TIOCCONS takes the console's output
    0x5423,  # TIOCSETD loads line disciplines
)


class Comparison(Enum):
    """How an argument is compared."""

    MASKED = "masked"
    """``argument & mask == value``"""
    AT_LEAST = "at least"
    """``argument >= value``, all 64 bits"""
    NOT = "not"
    """``argument != value``, all 64 bits"""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of one argument, counted from 0."""

    argument: int
    comparison: Comparison
    value: int
    mask: int = LOW_32


@dataclass(frozen=True, slots=True)
class Rule:
    """A system call that, where all conditions hold, fails with *error*, or is notified where that is 0."""

    call: str | int
    conditions: tuple[Condition, ...] = ()
    error: int = errno.EPERM


NOTIFIED: Final = ("connect", "listen")
"""Decided by the supervisor: where a socket leads, and which sockets are the jail's own."""

_ALWAYS: Final = (
    # The kernel's big doors, seldom needed and often the way out.
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("bpf", "userfaultfd", "perf_event_open", "lookup_dcookie"),
    *("add_key", "request_key", "keyctl"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    # Mounts and namespaces.
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount"),
    *("fspick", "mount_setattr", "setns", "open_by_handle_at"),
    # The whole machine.
    *("reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "fanotify_init"),
    *("settimeofday", "clock_settime", "clock_adjtime", "sethostname", "setdomainname", "vhangup"),
    *("iopl", "ioperm", "uselib", "_sysctl", "nfsservctl"),
    # Other processes' descriptors.
    "pidfd_getfd",
    # Queues that stay, and cannot be listed without a mount.
    *("mq_open", "mq_unlink"),
)
_HOST_IPC: Final = (
    *("shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl"),
    *("msgget", "msgsnd", "msgrcv", "msgctl"),
)


def _masked(argument: int, value: int, mask: int = LOW_32) -> Condition:
    return Condition(argument, Comparison.MASKED, value, mask)


def _sockets(variant: Variant, *, connects: bool) -> tuple[Rule, ...]:
    table = []
    for call in ("socket", "socketpair"):
        # Where nobody decides about connects there is no unix socket to connect; pairs are connected already.
        families = {AF_UNIX} if connects or call == "socketpair" else set()
        if variant in {Variant.NAMESPACES, Variant.FLOOR_ONLINE}:
            families |= {AF_INET, AF_INET6, AF_NETLINK}
        elif variant is Variant.FLOOR_FILTERED and call == "socket":
            families |= {AF_INET, AF_INET6}
        table += [Rule(call, (_masked(0, family),)) for family in range(_FAMILIES) if family not in families]
        table.append(Rule(call, (Condition(0, Comparison.AT_LEAST, _FAMILIES),)))
        # A datagram socket can be sent to another address at every call; SOCK_RAW is the same for AF_UNIX.
        table += [
            Rule(call, (_masked(0, AF_UNIX), _masked(1, kind, _SOCK_TYPE_MASK))) for kind in (_SOCK_DGRAM, _SOCK_RAW)
        ]
        if AF_NETLINK in families:  # only NETLINK_ROUTE: looking up interfaces and addresses
            table.append(Rule(call, (_masked(0, AF_NETLINK), Condition(2, Comparison.NOT, 0))))
    if variant is Variant.FLOOR_FILTERED:
        table += _only_connected_tcp()
    return tuple(table)


def _only_connected_tcp() -> Iterator[Rule]:
    """Nothing but TCP, which Landlock closes and the supervisor connects: no other protocol has rules there.

    Of the four bits of a socket's kind, SOCK_STREAM has the lowest, and no other.
    """
    for family in (AF_INET, AF_INET6):
        yield Rule("socket", (_masked(0, family), _masked(1, 0, _SOCK_STREAM)))
        yield from (Rule("socket", (_masked(0, family), _masked(1, bit, bit))) for bit in (2, 4, 8))
        yield from (Rule("socket", (_masked(0, family), _masked(2, number))) for number in range(1, _IPPROTO_TCP))
        yield Rule("socket", (_masked(0, family), Condition(2, Comparison.AT_LEAST, _IPPROTO_TCP + 1)))
    # What sends with this flag connects, past connect(2) and past Landlock.
    for call, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        yield Rule(call, (_masked(flags, _MSG_FASTOPEN, _MSG_FASTOPEN),))
    # A route that the packet carries leads elsewhere than its address says.
    yield from (Rule("setsockopt", (_masked(1, level), _masked(2, name))) for level, name in _ROUTES)


_SET_USER_ID: Final = 0o4000
_MODES: Final[dict[str | int, int]] = {
    "chmod": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "creat": 1,
    "mknod": 1,
    "mknodat": 2,
    _FCHMODAT2: 2,
}
"""Calls that give a file a mode, and the argument that holds it; those of OPENS do so when they create one."""


def _privileged_files() -> tuple[Rule, ...]:
    """No file becomes set-user-ID: root's would be a way to root for everybody outside.

    What openat2 asks for is in memory, where a filter cannot look: who uses it falls back to openat.
    """
    table = [Rule(call, (_masked(argument, _SET_USER_ID, _SET_USER_ID),)) for call, argument in _MODES.items()]
    for call, flags in OPENS.items():
        table += [
            Rule(call, (_masked(flags, creating, creating), _masked(flags + 1, _SET_USER_ID, _SET_USER_ID)))
            for creating in (0o100, 0o20000000)  # O_CREAT, __O_TMPFILE
        ]
    return (*table, Rule("openat2", error=errno.ENOSYS))


_OPENS_FOR_WRITING: Final = ((0o3, 0o1), (0o3, 0o2), (0o100, 0o100), (0o1000, 0o1000))
"""Masks and values of the flags of open(2): O_WRONLY, O_RDWR, O_CREAT, O_TRUNC."""


def _observed() -> tuple[Rule, ...]:
    # No call may match two rules: where a mode is refused, there is nothing to report.
    table = []
    for call in CALLS:
        plain = (_masked(_MODES[call], 0, _SET_USER_ID),) if call in _MODES else ()
        if call not in OPENS:
            table.append(Rule(call, plain, error=0))
            continue
        flags, mode = OPENS[call], _masked(OPENS[call] + 1, 0, _SET_USER_ID)
        table += [Rule(call, (_masked(flags, value, mask), mode), error=0) for mask, value in _OPENS_FOR_WRITING]
    return tuple(table)


def rules(variant: Variant, supervision: Supervision) -> tuple[Rule, ...]:
    """Give the rules of one filter; whatever none of them matches is allowed.

    What is supervised waits for an answer.  A process that already has a supervisor above it cannot have
    a second (seccomp(2), EBUSY): then there are no unix sockets but pairs.
    """
    table = [Rule(call) for call in _ALWAYS]
    # clone3 has its flags in memory, where a filter cannot look: the C libraries fall back to clone.
    table.append(Rule("clone3", error=errno.ENOSYS))
    table += [Rule("clone", (_masked(0, flag, flag),)) for flag in _NAMESPACE_FLAGS[1:]]
    table += [Rule("unshare", (_masked(0, flag, flag),)) for flag in _NAMESPACE_FLAGS]
    # What belongs to another process, which may be the jail: the next command would inherit it.
    table.append(Rule("prlimit64", (Condition(0, Comparison.NOT, 0), Condition(2, Comparison.NOT, 0))))
    for call, of_user in (("setpriority", _PRIO_USER), ("ioprio_set", _IOPRIO_WHO_USER)):
        table += [Rule(call, (_masked(0, of_user),)), Rule(call, (Condition(1, Comparison.NOT, 0),))]
    scheduling = ["sched_setattr"]
    if variant is not Variant.NAMESPACES:  # there, threads may choose their processors, and the jail looks afterwards
        scheduling += ["sched_setaffinity", "sched_setscheduler", "sched_setparam"]
    table += [Rule(call, (Condition(0, Comparison.NOT, 0),)) for call in scheduling]
    table += _privileged_files()
    # A lease makes every program outside wait that opens the file.
    table.append(Rule("fcntl", (_masked(1, _F_SETLEASE),)))
    table += [Rule("ioctl", (_masked(1, request),)) for request in _TERMINAL_REQUESTS]
    if variant is not Variant.NAMESPACES:
        table += [Rule(call) for call in _HOST_IPC]
    table += _sockets(variant, connects=supervision is not Supervision.NONE)
    if supervision is not Supervision.NONE:
        table += [Rule(call, error=0) for call in NOTIFIED]
    if supervision is Supervision.WRITES:
        table += _observed()
    return tuple(table)
