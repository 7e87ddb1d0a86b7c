"""Changing a repository that is closed: git runs what its configuration and hooks name (CVE-2022-24765)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import AT_FDCWD, LIBC, call

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_RENAME_EXCHANGE = 2
_MNT_DETACH = 2


def an_exchange_with_a_prepared_folder(world: World) -> None:
    """renameat2(2), RENAME_EXCHANGE: no moment without the name."""
    os.makedirs(f"{world.ws}/prepared/hooks")
    call(
        316, AT_FDCWD, os.fsencode(f"{world.ws}/prepared"), AT_FDCWD, os.fsencode(f"{world.ws}/.git"), _RENAME_EXCHANGE
    )


def another_name_of_its_configuration(world: World) -> None:
    """A hard link lies on the writable mount."""
    os.link(f"{world.ws}/.git/config", f"{world.ws}/config")
    _append(f"{world.ws}/config")


def its_configuration_by_a_descriptor_of_the_workspace(world: World) -> None:
    """openat(2) and a magic link of proc(5) start below the mounts of the path."""
    folder = os.open(world.ws, os.O_PATH)
    _append(f"/proc/self/fd/{folder}/.git/config")


def what_lies_below_its_mount(world: World) -> None:
    """umount2(2), MNT_DETACH uncovers the writable folder."""
    LIBC.umount2(os.fsencode(f"{world.ws}/.git"), _MNT_DETACH)
    _append(f"{world.ws}/.git/config")


def the_workspace_replaced(world: World) -> None:
    """Another folder in its place has no mounts."""
    os.rename(world.ws, f"{world.ws}-away")
    os.makedirs(f"{world.ws}/.git")


def a_nameless_file_as_its_hook(world: World) -> None:
    """open(2), O_TMPFILE: it is made on the writable mount and gets its name later."""
    descriptor = os.open(world.ws, os.O_TMPFILE | os.O_RDWR, 0o755)
    os.link(f"/proc/self/fd/{descriptor}", f"{world.ws}/.git/hooks/pre-commit", src_dir_fd=descriptor)


def its_configuration_from_inside(world: World) -> None:
    """openat(2) with ".." from a folder that was opened in it."""
    hooks = os.open(f"{world.ws}/.git/hooks", os.O_RDONLY)
    os.write(os.open("../config", os.O_WRONLY | os.O_APPEND, dir_fd=hooks), b"changed")


def its_configuration_through_the_root_of_a_process(world: World) -> None:
    """A magic link of proc(5) starts at another mount."""
    _append(f"/proc/{os.getppid()}/root{world.ws}/.git/config")


def its_configuration_emptied_by_an_open_for_reading(world: World) -> None:
    """open(2): O_TRUNC with O_RDONLY is unspecified, and Linux truncates."""
    os.close(os.open(f"{world.ws}/.git/config", os.O_RDONLY | os.O_TRUNC))


def _append(path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("changed")
