"""Core without a single plugin: whatever needs one refuses, in one line."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Codex = Callable[..., subprocess.CompletedProcess[str]]

PLUGINS = ("codex_sandbox_", "codex_exporter_", "codex_approval_", "codex_gate_", "codex_model_", "codex_frontend_")
START = "import sys; from codex_core.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give an interpreter that sees what this one sees, except our plugins."""
    folder = str(tmp_path_factory.mktemp("bare"))
    venv.create(folder, symlinks=True)
    here = sysconfig.get_path("purelib")
    bare = sysconfig.get_path("purelib", vars={"base": folder})
    for name in os.listdir(here):
        if not name.removeprefix("_editable_impl_").removeprefix("_").startswith(PLUGINS):
            os.symlink(os.path.join(here, name), os.path.join(bare, name))
    return os.path.join(folder, "bin", "python")


@pytest.fixture
def codex(python: str, tmp_path: Path) -> Codex:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-I", "-c", START, *words],
            cwd=tmp_path,
            env={"PATH": os.defpath, "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("sandbox", "linux", "--", "touch", "made"), "'linux'"),
        (("run", "--", "touch", "made"), "'on-request'"),
        (("run", "-a", "never", "--", "touch", "made"), "'never'"),
        (("run", "-s", "danger-full-access", "--", "touch", "made"), "'on-request'"),
    ],
)
def test_what_needs_a_plugin_is_refused_with_one_line_and_runs_nothing(
    codex: Codex, tmp_path: Path, words: tuple[str, ...], names: str
) -> None:
    done = codex(*words)
    assert done.returncode == 125
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert names in done.stderr
    assert not (tmp_path / "made").exists()


def test_what_needs_no_plugin_works(codex: Codex) -> None:
    assert codex("--version").returncode == 0
    assert "usage" in codex("--help").stdout.lower()


def test_the_list_of_plugins_shows_every_extension_point_as_empty(codex: Codex) -> None:
    done = codex("plugins")
    assert done.returncode == 0
    for point in ("config_sources", "sandbox_backends", "approval_policies", "tool_gates", "exporters", "observers"):
        assert f"codex_core.{point}" in done.stdout
    assert "codex_sandbox_linux" not in done.stdout


def test_the_doctor_says_what_is_missing_without_a_traceback(codex: Codex) -> None:
    done = codex("doctor")
    assert "linux" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1
