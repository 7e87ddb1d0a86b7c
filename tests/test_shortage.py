"""A machine that has run out of something: the command's own result, or one line and 125; never a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CODEX = os.path.join(os.path.dirname(sys.executable), "codex")
WAYS = pytest.mark.parametrize("way", [("sandbox", "linux"), ("run", "-a", "never")], ids=" ".join)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the Linux sandbox")


def outcome(folder: Path, way: tuple[str, ...], kind: int, most: int) -> tuple[int, str, str]:
    """Run ``echo`` with no more than *most* of something: exit code, output, errors."""
    limits = (
        f"import os, resource, sys; resource.setrlimit({kind}, ({most}, {most})); os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = [CODEX, *way, "-s", "workspace-write", "--", "/bin/echo", "done"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", limits, *words],
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@WAYS
def test_without_descriptors_codex_works_or_says_so_in_one_line(tmp_path: Path, way: tuple[str, ...]) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for most in range(6, 18, 2):  # with fewer the interpreter itself does not come so far
        code, output, errors = outcome(workspace, way, resource.RLIMIT_NOFILE, most)
        if code == 0:
            assert output == "done\n"
            break
        assert (code, output, errors.count("\n")) == (125, "", 1), errors
        assert "ulimit -n" in errors
    else:
        pytest.fail("it never works")
    assert os.listdir(workspace) == []


def test_without_memory_codex_works_or_says_so_in_one_line(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    codes = []
    for mebibytes in range(16, 28, 2):
        code, output, errors = outcome(workspace, ("sandbox", "linux"), resource.RLIMIT_AS, mebibytes << 20)
        if "\nMemoryError" in errors:  # the interpreter's, before a line of codex is run
            continue
        assert (code, output, errors.count("\n")) in {(0, "done\n", 0), (125, "", 1)}, errors
        codes.append(code)
    assert 0 in codes
