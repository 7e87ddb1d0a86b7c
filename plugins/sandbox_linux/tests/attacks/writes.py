"""Leaving something outside that is not written by the command itself, or that keeps others from writing."""

from __future__ import annotations

import fcntl
import os
import resource
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import gained

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World


def a_core_file(world: World) -> None:
    """The kernel writes it into the folder of the process (core(5)), where core_pattern is a plain name."""
    os.chdir(world.outside)
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most or 1 << 20, most or 1 << 20))
    if os.fork() == 0:
        os.abort()
    os.wait()


def a_lease(world: World) -> None:
    """fcntl(2), F_SETLEASE: whoever opens the file outside waits for its holder, by default for 45 s."""
    fcntl.fcntl(os.open(world.file, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK)
    gained("a lease")
