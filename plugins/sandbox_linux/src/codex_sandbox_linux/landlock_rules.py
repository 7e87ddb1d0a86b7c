"""Put this process under Landlock: rules for files by the ``landlock`` library, the rest beside it.

The library knows the file rights, which are complete with ABI 5.  It does not know network rights
(ABI 4) nor scopes (ABI 6), so the ruleset that it fills is made here.  A second ruleset for those would
not do: one that leaves out the right to move files between folders denies it.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from landlock import FSAccess, LandlockError, Ruleset

from codex_sandbox_linux import kernel
from codex_sandbox_linux.namespaces import HARMLESS_DEVICES, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codex_sandbox_linux.plan import Plan

_T = TypeVar("_T")
NETWORK_ABI: Final = 4
_SCOPE_ABI: Final = 6
_ALL_TCP: Final = 0b11  # bind, connect
_ALL_SCOPES: Final = 0b11  # abstract unix sockets, signals

_READ: Final = FSAccess.EXECUTE | FSAccess.READ_FILE | FSAccess.READ_DIR
_FILE: Final = FSAccess.EXECUTE | FSAccess.READ_FILE | FSAccess.WRITE_FILE | FSAccess.TRUNCATE | FSAccess.IOCTL_DEV
_NEVER: Final = FSAccess.MAKE_CHAR | FSAccess.MAKE_BLOCK


@dataclass(frozen=True)
class _CompleteRuleset(Ruleset):  # type: ignore[misc] # the library is not typed
    """The library's ruleset, made with all that this kernel handles."""

    network: int = 0
    scopes: int = 0

    def __post_init__(self) -> None:
        handled = [self.restrict_rules.value, self.network, self.scopes]
        while not handled[-1]:  # kernels refuse a structure longer than they know, unless the rest is zero
            handled.pop()
        object.__setattr__(self, "_fd", kernel.landlock_ruleset(handled))


def restrict(plan: Plan, abi: int) -> None:
    """Confine this process to *plan* for good, with every right that *abi* has.

    Above read-only mounts, where devices are closed too, all but the rights to read and to truncate: those
    have the kernel look at every folder on the way at every open(2), and the mounts keep them already.

    Raises OSError.  Needs no privilege but ``no_new_privs``.
    """
    everything = _library(FSAccess.all)
    if plan.clone_flags:
        everything &= ~(_READ | FSAccess.TRUNCATE)
    ports_are_closed = not plan.network and not plan.clone_flags and abi >= NETWORK_ABI
    ruleset = _CompleteRuleset(
        everything,
        network=_ALL_TCP if ports_are_closed else 0,
        scopes=_ALL_SCOPES if abi >= _SCOPE_ABI else 0,
    )
    try:
        for path, rights in _file_rules(plan, everything):
            _allow(ruleset, path, rights)
        _library(ruleset.apply)
    finally:
        os.close(ruleset._fd)  # noqa: SLF001 - the library never closes it


def _file_rules(plan: Plan, everything: FSAccess) -> Iterator[tuple[str, FSAccess]]:
    if everything & _READ:
        # A rule on / would open every device below /dev, and rights cannot be taken away again further down.
        yield "/", FSAccess.READ_DIR
        with os.scandir("/") as entries:
            yield from ((entry.path, _READ) for entry in entries if entry.name != "dev")
    device = (FSAccess.READ_FILE | FSAccess.WRITE_FILE | FSAccess.TRUNCATE | FSAccess.IOCTL_DEV) & everything
    for name in (*HARMLESS_DEVICES, "ptmx"):
        yield f"/dev/{name}", device
    if plan.terminal and plan.clone_flags:
        yield TERMINAL, device
    yield "/dev/pts", device | FSAccess.READ_DIR
    writable = everything & ~_NEVER & ~FSAccess.IOCTL_DEV
    for root in plan.writable:
        yield root, writable
    if plan.writable:
        yield "/dev/shm", writable  # noqa: S108 - private where there are namespaces


def _allow(ruleset: Ruleset, path: str, rights: FSAccess) -> None:
    rights &= ruleset.restrict_rules
    try:
        if not os.path.isdir(path):
            rights &= _FILE
        if rights:
            _library(lambda: ruleset.allow(path, rules=rights))
    except LandlockError:
        raise
    except OSError:
        return  # what cannot be opened gets no rule, so it stays closed


def _library(call: Callable[[], _T]) -> _T:
    """Call the library with a clean slate: it takes an error number that an earlier call left for its own."""
    ctypes.set_errno(0)
    return call()
