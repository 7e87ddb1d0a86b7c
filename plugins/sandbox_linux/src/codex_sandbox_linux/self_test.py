"""Inside, confined, before the first command: try what must not work.  No proof, no run."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from codex_sandbox_linux import kernel
from codex_sandbox_linux.plan import is_below
from codex_sandbox_linux.seccomp import Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from codex_sandbox_linux.plan import Plan

_SCOPE_ABI: Final = 6
_CANDIDATES: Final = ("/var/tmp", "/tmp", "/dev/shm", "/run", "/")  # noqa: S108 - nothing is created there
_CONFINED: Final = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapPrm": "0" * 16, "CapInh": "0" * 16}


class SelfTestError(Exception):
    """The confinement does not hold."""


def writable_folders(plan: Plan) -> list[str]:
    """Give folders outside the plan's writable trees where a file can be made, before the confinement."""
    folders = [os.environ.get("HOME", "/"), *_CANDIDATES]
    outside = [folder for folder in folders if not any(is_below(folder, root) for root in plan.writable)]
    return [folder for folder in outside if _can_write(folder)]


def prove(plan: Plan, open_before: list[str], beacon: str) -> None:
    """Try one forbidden write, one forbidden connect, and read what the kernel says of this process.

    *open_before* comes from :func:`writable_folders`; *beacon* is the name of an abstract socket that
    somebody outside listens on.

    Raises SelfTestError.
    """
    for folder in open_before:
        if folder == "/dev/shm" and plan.writable:  # noqa: S108 - private by now, or stated as lost
            continue
        if _can_write(folder):
            msg = f"{folder} is writable inside the sandbox"
            raise SelfTestError(msg)
    isolated = (
        plan.supervision != "none" or plan.clone_flags & kernel.CLONE_NEWNET or kernel.landlock_abi() >= _SCOPE_ABI
    )
    if isolated and _can_connect(beacon):
        msg = "a socket outside can be reached from inside the sandbox"
        raise SelfTestError(msg)
    if plan.variant is Variant.FLOOR_FILTERED and not _network_is_closed():
        msg = "the network of this host can be reached from inside the sandbox"
        raise SelfTestError(msg)
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for name, expected in _CONFINED.items():
        if status.get(name) != expected:
            msg = f"/proc/self/status says {name} {status.get(name)!r}, expected {expected!r}"
            raise SelfTestError(msg)


def _can_write(folder: str) -> bool:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))  # a file without a name leaves nothing behind
    except OSError:
        return False
    return True


def own_sockets_work() -> bool:
    """Whether the supervisor lets a socket made inside be reached; it needs the kernel's sock_diag(7) for that."""
    name = f"codex-own-{os.urandom(8).hex()}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind("\0" + name)
            server.listen(1)
            return _can_connect(name)
    except OSError:
        return False


def _network_is_closed() -> bool:
    """Try, in the host's network, a datagram socket, a port, and an address that nobody has allowed."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except PermissionError:
        with socket.socket(socket.AF_INET) as probe:
            return _is_refused(probe.bind, ("127.0.0.1", 0)) and _is_refused(probe.connect, ("127.255.255.254", 1))
    return False


def _is_refused(call: Callable[[tuple[str, int]], None], address: tuple[str, int]) -> bool:
    try:
        call(address)
    except PermissionError:
        return True
    except OSError:  # nobody is there, but the way is open
        return False
    return False


def _can_connect(beacon: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect("\0" + beacon)
    except OSError:
        return False
    return True
