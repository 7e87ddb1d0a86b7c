"""Load the seccomp filter of a jail."""

from __future__ import annotations

import errno
import os
from enum import StrEnum
from typing import Final

from codex_sandbox_linux import kernel

FILTERS: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "filters")


class Variant(StrEnum):
    """Which filter a jail gets."""

    NAMESPACES = "namespaces"
    """Internet sockets are open: the network namespace, or the policy, decides where they lead."""
    FLOOR_ONLINE = "floor-online"
    """No namespaces, the network is on."""
    FLOOR_FILTERED = "floor-filtered"
    """No namespaces, a list of hosts: TCP only, and what the supervisor connects is the only way."""
    FLOOR_OFFLINE = "floor-offline"
    """No namespaces, the network is off: the only sockets are those of the AF_UNIX family."""


class Supervision(StrEnum):
    """Which calls a supervisor is asked about."""

    NONE = "none"
    CONNECTS = "connects"
    """Where sockets lead."""
    WRITES = "writes"
    """That, and every change of a file by its path, to report what is refused."""


PROGRAMS: Final = tuple(
    (variant, supervision)
    for variant in Variant
    for supervision in Supervision
    if (variant, supervision) != (Variant.FLOOR_FILTERED, Supervision.NONE)  # there, nothing runs unsupervised
)


def file_name(machine: str, variant: Variant, supervision: Supervision) -> str:
    """Name the file of a compiled filter."""
    return f"{machine}-{variant}-{supervision}.bpf"


def load(variant: Variant, supervision: Supervision) -> int | None:
    """Filter the system calls of this process for good.

    Gives the descriptor of the listener for the calls to supervise, if any.

    Raises OSError: EBUSY where a supervisor is already above this process.
    """
    path = os.path.join(FILTERS, file_name(kernel.MACHINE, variant, supervision))
    with open(path, "rb") as file:
        program = file.read()
    if supervision is Supervision.NONE:
        kernel.seccomp_load(program)
        return None
    listener = kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        # Without this flag (Linux 5.19) a signal interrupts a connect that waits for its answer.
        return kernel.seccomp_load(program, listener | kernel.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return kernel.seccomp_load(program, listener)
