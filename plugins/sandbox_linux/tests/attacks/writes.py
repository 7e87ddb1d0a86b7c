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


def emptied_by_an_open_for_reading(world: World) -> None:
    """open(2): O_TRUNC with O_RDONLY is unspecified, and Linux truncates."""
    os.close(os.open(world.file, os.O_RDONLY | os.O_TRUNC))


def opened_again_for_writing(world: World) -> None:
    """A magic link of proc(5) opens the file anew, with other rights."""
    reading = os.open(world.file, os.O_RDONLY)
    os.write(os.open(f"/proc/self/fd/{reading}", os.O_WRONLY | os.O_APPEND), b"x")


def a_hard_link_into_the_workspace(world: World) -> None:
    """The file gets a name where writing is allowed."""
    os.link(world.file, f"{world.ws}/link")
    with open(f"{world.ws}/link", "a", encoding="ascii") as file:
        file.write("x")


def moved_in_changed_and_moved_back(world: World) -> None:
    """rename(2): the folder that loses the file is changed too."""
    os.rename(world.file, f"{world.ws}/moved")
    os.utime(f"{world.ws}/moved", (7, 7))
    os.rename(f"{world.ws}/moved", world.file)
