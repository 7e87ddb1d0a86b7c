"""What holds where nothing is chosen: it depends on the folder and on the operating system.

A version-controlled folder (it, or a folder above it, has a ``.git`` entry) gets workspace-write and
on-request, so that what goes wrong can be seen and undone; any other gets read-only and on-request.
``[projects."PATH"] trust_level`` for the folder, its repository, or the main repository of its
worktree overrules that: ``trusted`` gives workspace-write and on-request, ``untrusted`` gives
read-only and ``untrusted``.

Importing this module costs no more than :mod:`os`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_POINTER_BYTES = 8192
_BY_SYSTEM = {"linux": "linux", "darwin": "macos", "win32": "windows"}
BACKENDS = tuple(_BY_SYSTEM.values())

AUTO = {"sandbox_mode": "workspace-write", "approval_policy": "on-request"}
CAREFUL = {"sandbox_mode": "read-only", "approval_policy": "on-request"}
BY_TRUST = {"trusted": AUTO, "untrusted": {"sandbox_mode": "read-only", "approval_policy": "untrusted"}}


def os_backend() -> str:
    """Name the sandbox backend of this operating system; a system without one has its own name."""
    return _BY_SYSTEM.get(sys.platform, sys.platform)


def trust_entry(projects: object, cwd: str, repository: str | None) -> str | None:
    """Find the key of ``[projects]`` that speaks about *cwd*, the nearest first."""
    if not isinstance(projects, dict):
        return None
    entries: dict[str, str] = {os.path.normcase(path): path for path in projects}
    for folder in _trust_folders(cwd, repository):
        entry = entries.get(os.path.normcase(folder))
        if entry is not None and isinstance(projects[entry], dict) and "trust_level" in projects[entry]:
            return entry
    return None


def repository_of(folder: str) -> str | None:
    """Find the nearest folder, from *folder* upwards, that has a ``.git`` entry."""
    at = os.path.realpath(folder)
    while not os.path.lexists(os.path.join(at, ".git")):
        above = os.path.dirname(at)
        if above == at:
            return None
        at = above
    return at


def _trust_folders(cwd: str, repository: str | None) -> Iterator[str]:
    yield os.path.realpath(cwd)
    yield cwd
    if repository is not None:
        yield repository
        main = _main_repository(repository)
        if main is not None:
            yield main


def _main_repository(worktree: str) -> str | None:
    """Find the repository that a linked worktree belongs to (gitrepository-layout(5)).

    Both must point at each other: a folder does not become trusted by claiming to be a worktree.
    """
    pointer = os.path.join(worktree, ".git")
    gitdir = _first_line(pointer)
    if not gitdir.startswith("gitdir: "):
        return None
    gitdir = os.path.realpath(os.path.join(worktree, gitdir.removeprefix("gitdir: ")))
    worktrees, common = os.path.dirname(gitdir), os.path.dirname(os.path.dirname(gitdir))
    if os.path.basename(worktrees) != "worktrees" or os.path.basename(common) != ".git":
        return None
    back = os.path.join(gitdir, _first_line(os.path.join(gitdir, "gitdir")))
    if os.path.realpath(back) != os.path.realpath(pointer):
        return None
    return os.path.dirname(common)


def _first_line(path: str) -> str:
    """Read the first line of a small file; empty where that is not possible."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            return os.fsdecode(file.read(_POINTER_BYTES).partition(b"\n")[0].rstrip(b"\r"))
    except (OSError, ValueError):
        return ""
