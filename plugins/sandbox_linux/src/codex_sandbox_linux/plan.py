"""Turn a policy into the exact things that a jail does to itself.  Pure, but for looking at which paths exist."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from codex_core.types import Limits, Network, Promise, SandboxMode, Strength

from codex_sandbox_linux.channel import OWN_SOCKETS, PRIVATE_PROC
from codex_sandbox_linux.kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from codex_sandbox_linux.seccomp import Supervision, Variant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from codex_core.sandbox.policy import SandboxPolicy

BACKEND: Final = "linux"


class Rung(StrEnum):
    """How much this host lets us set up, strongest first."""

    NAMESPACES = "namespaces"
    """In a user namespace of its own: what an ordinary user can have."""
    ROOT_NAMESPACES = "root-namespaces"
    """The same without a user namespace, where root is allowed the others and not that one."""
    FLOOR = "floor"
    """Landlock and seccomp alone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one jail confines itself to.  Only plain values: it crosses a process boundary."""

    rung: Rung
    writable: tuple[str, ...]
    """Writable trees, none inside another."""
    readonly: tuple[str, ...]
    """Existing protected paths inside them, to be made read-only by mounts."""
    pinned: tuple[str, ...]
    """Writable directories that must stay where they are: mount points cannot be renamed."""
    network: bool
    """Whether the host's network is reachable."""
    supervision: Supervision
    """What a supervisor is asked about; where nothing, there are no unix sockets."""
    limits: Limits = field(default_factory=Limits)
    terminal: str = ""
    """The terminal that commands run on, if any."""
    filtered: bool = False
    """Whether a process outside lets some of the network in."""

    @property
    def clone_flags(self) -> int:
        """The namespaces of this rung (clone(2))."""
        if self.rung is Rung.FLOOR:
            return 0
        flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
        if not self.network:
            flags |= CLONE_NEWNET
        return flags | (CLONE_NEWUSER if self.rung is Rung.NAMESPACES else 0)

    @property
    def variant(self) -> Variant:
        """The seccomp filter of this rung."""
        if self.rung is not Rung.FLOOR:
            return Variant.NAMESPACES
        if self.network:
            return Variant.FLOOR_ONLINE
        return Variant.FLOOR_FILTERED if self.filtered else Variant.FLOOR_OFFLINE


def make_plan(policy: SandboxPolicy, rung: Rung, *, kept: Iterable[str] = ()) -> Plan:
    """Plan a jail for *policy* on *rung*; the limits *kept* are not its business."""
    writable = policy.writable_roots if policy.mode is SandboxMode.WORKSPACE_WRITE else ()
    outermost = tuple(
        root for root in writable if not any(is_below(root, other) for other in writable if other != root)
    )
    pinned = tuple(path for path in policy.pinned if os.path.isdir(path))
    readonly = tuple(sorted(path for path in policy.protected if os.path.lexists(path)))
    supervision = Supervision.WRITES if policy.observe else Supervision.CONNECTS
    return Plan(
        rung,
        outermost,
        readonly,
        pinned,
        network=policy.network is Network.ON,
        supervision=supervision,
        limits=replace(policy.limits, **dict.fromkeys(kept)),
        filtered=policy.network is Network.FILTERED,
    )


def is_below(path: str, root: str) -> bool:
    """Whether *path* is *root* or lies inside it; both are canonical."""
    return path == root or path.startswith(root.rstrip("/") + "/")


_SCOPES_ABI: Final = 6
_TRUNCATE_ABI: Final = 3


def strength(plan: Plan, abi: int, *, found: int = PRIVATE_PROC | OWN_SOCKETS, why: str = "") -> Strength:
    """State what a jail made by *plan* keeps on a kernel with Landlock *abi*.

    *found* is what the jail reported when it was ready; *why* says what kept a stronger rung from being set up.
    """
    lost: dict[Promise, str] = {}
    if plan.rung is Rung.FLOOR:
        reason = f"this host does not allow namespaces ({why})" if why else "this host does not allow namespaces"
        lost = {
            Promise.METADATA: f"chmod, chown, utime and xattr work outside the writable roots: {reason}",
            Promise.PROTECTED_PATHS: f"nothing inside a writable root can be closed: {reason}",
            Promise.PROCESS_TREE: f"a process that stops its jail can outlive it for a moment: {reason}",
            Promise.PROCESSES: f"/proc shows the processes outside: {reason}",
            Promise.IPC: f"shared memory is the host's: {reason}",
            Promise.DEVICES: f"the same user's other terminals can be opened: {reason}",
        }
        if not plan.network:
            there = "nothing listens but on unix sockets" if plan.filtered else "there are no sockets but unix sockets"
            lost[Promise.LOOPBACK] = f"{there}: {reason}"
        if abi < _SCOPES_ABI:
            lost[Promise.PROCESSES] = f"processes outside can be signalled: Landlock ABI {abi} has no scopes"
        if abi < _TRUNCATE_ABI:
            lost[Promise.WRITES] = f"files outside the writable roots can be truncated: Landlock ABI {abi}"
    elif not found & PRIVATE_PROC:
        lost[Promise.PROCESSES] = "/proc shows the processes outside: this host does not allow a new one"
    if plan.supervision is Supervision.NONE:
        lost[Promise.OWN_SOCKETS] = "another supervisor above this process leaves no room for ours"
        if plan.filtered:
            lost[Promise.OWN_SOCKETS] += "; only programs that follow the proxy variables reach the allowed domains"
    elif not found & OWN_SOCKETS:
        lost[Promise.OWN_SOCKETS] = "this kernel does not say who listens on a unix socket (CONFIG_UNIX_DIAG)"
    return Strength(BACKEND, plan.rung, frozenset(Promise) - lost.keys(), lost)


def keepers(limits: Limits, grouped: Collection[str], why: str) -> dict[str, str]:
    """Say what keeps each of *limits*: a control group those *grouped*, and *why* not the others."""
    looks = f"20 looks a second: {why}" if why else "20 looks a second"
    ways = {
        "cpu_time": looks,
        "memory": looks,
        "processes": looks,
        "open_files": "setrlimit(2)",
        "file_size": "setrlimit(2)",
        **dict.fromkeys(grouped, "control group"),
    }
    return {name: way for name, way in ways.items() if getattr(limits, name) is not None}


_NEEDED: Final = (Promise.WRITES, Promise.PROTECTED_PATHS, Promise.NETWORK, Promise.PRIVILEGES)
"""A policy without these is not the policy that was asked for; the others are stated with every result."""
_CURE: Final = (
    "allow user namespaces (on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container:"
    " a seccomp profile that lets unshare and mount through)"
)


def no_filter(why: str) -> str:
    """Say that a filtered network cannot be had, and the cure."""
    return (
        "allowed_domains and denied_domains need a network namespace, or Landlock with rules for TCP (Linux 6.7) and"
        f" a supervisor of our own, and this host allows neither ({why}); {_CURE}"
    )


def refusals(policy: SandboxPolicy, stated: Strength) -> tuple[str, ...]:
    """Name what *policy* needs and *stated* lacks, unless the configuration accepts the loss."""
    needed = [promise for promise in _NEEDED if promise in stated.lost and promise not in policy.allow_degraded]
    if policy.mode is not SandboxMode.WORKSPACE_WRITE and Promise.PROTECTED_PATHS in needed:
        needed.remove(Promise.PROTECTED_PATHS)  # nothing is writable, so nothing needs closing
    return tuple(
        f'{stated.lost[promise]}; {_CURE}, or accept it with [sandbox_linux] allow_degraded = ["{promise}"]'
        for promise in needed
    )
