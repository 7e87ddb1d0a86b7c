"""Load the seccomp filter of a jail."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from codex_sandbox_linux import kernel

if TYPE_CHECKING:
    from codex_sandbox_linux.seccomp_rules import Supervision, Variant

FILTERS: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "filters")


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
    if supervision == "none":
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
