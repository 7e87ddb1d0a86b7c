"""Other sandboxes, each told to keep a like policy: write into one folder, and reach nothing.

They are looked for on ``PATH``, and sandlock, a library, among the modules of this interpreter.  Each has to run
``true`` here before it takes part; what is missing or does not work is named, with the reason, and left out.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SANDLOCK = """\
import sys
sys.path[:0] = [sys.argv[1]]
from sandlock import Sandbox
workspace, argv = sys.argv[2], sys.argv[3:]
sys.exit(Sandbox(fs_readable=["/"], fs_writable=[workspace, "/dev/null"], cwd=workspace).run_interactive(argv))
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another sandbox."""

    name: str
    prefix: tuple[str, ...]
    """The words before a command that it confines; none where it is not installed."""
    version: tuple[str, ...] = ()
    """The command that says which one it is."""


def find(workspace: str, state: str) -> tuple[list[Peer], list[str]]:
    """Give the peers that work here, to confine commands to *workspace*, and say why others do not.

    *state* is a folder for their files, and has to be ``CODEX_HOME`` of what runs them.  It lies outside the workspace
    and not below ``/tmp``, which codex refuses.
    """
    working, missing = [], []
    environ = {**os.environ, "CODEX_HOME": state}
    for peer in _candidates(workspace, state):
        if not peer.prefix or shutil.which(peer.prefix[0]) is None:
            missing.append(f"{peer.name}: not installed")
            continue
        argv = [*peer.prefix, "true"]
        tried = subprocess.run(argv, capture_output=True, text=True, cwd=workspace, env=environ, check=False)
        if tried.returncode:
            missing.append(f"{peer.name}: {tried.stderr.strip().rpartition(chr(10))[2] or 'does not work here'}")
        else:
            working.append(peer)
    return working, missing


def _candidates(workspace: str, state: str) -> Iterator[Peer]:
    yield Peer("bwrap", _bwrap(workspace), ("bwrap", "--version"))
    yield Peer("sandlock", _sandlock(workspace))
    wrapper = _other_codex()
    native = sorted(glob.glob(f"{os.path.dirname(os.path.realpath(wrapper))}/../../codex-*/vendor/*/bin/codex"))
    confined = (
        "sandbox",
        "-c",
        'sandbox_mode="workspace-write"',
        "-c",
        "sandbox_workspace_write.exclude_slash_tmp=true",
    )
    for name, program in (("codex, native", native[0] if native else ""), ("codex, by its npm wrapper", wrapper)):
        prefix = (program, *confined) if program else ()
        yield Peer(name, prefix, (program, "--version"))
    yield Peer("srt", ("srt", "--settings", _srt_settings(workspace, state), "--"), ("srt", "--version"))


def _bwrap(workspace: str) -> tuple[str, ...]:
    git = f"{workspace}/.git"
    return (
        *("bwrap", "--die-with-parent", "--new-session", "--unshare-user", "--unshare-pid", "--unshare-ipc"),
        *("--unshare-net", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--tmpfs", "/tmp", "--bind", workspace, workspace, "--ro-bind-try", git, git, "--"),  # noqa: S108 - inside
    )


def _sandlock(workspace: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec("sandlock")
    if spec is None or spec.origin is None:
        return ()
    folder = os.path.dirname(os.path.dirname(spec.origin))
    return (sys.executable, "-I", "-S", "-c", _SANDLOCK, folder, workspace)


def _other_codex() -> str:
    """Find the client of the same name as ours, empty if it is not there."""
    ours = os.path.realpath(os.path.dirname(sys.executable))
    folders = [one for one in os.get_exec_path() if os.path.realpath(one) != ours]
    return shutil.which("codex", path=os.pathsep.join(folders)) or ""


def _srt_settings(workspace: str, state: str) -> str:
    path = os.path.join(state, "srt.json")
    settings = {
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [workspace], "denyWrite": []},
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(settings, file)
    return path
