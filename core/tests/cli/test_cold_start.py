"""What ``codex sandbox`` may not import: each of these costs more than the sandbox itself."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FORBIDDEN = {
    *("argparse", "asyncio", "importlib.metadata", "json", "logging", "pathlib", "pluggy", "pydantic", "shutil"),
    *("stevedore", "subprocess", "tempfile", "tomlkit", "opentelemetry"),
}
PROGRAM = """
import atexit, sys
from codex_core import discovery
from codex_core.cli.main import main
from codex_core.discovery import Plugin
from codex_core.types import CommandResult, Ended, Strength

def run(policy, command):
    print(policy.mode, *command.argv)
    return CommandResult(Ended(exit_code=5), 0.1, Strength("linux", "testing", frozenset()))

# A backend that is there without being installed: the rest of the way is the real one.
plugin = Plugin("linux", "backend:run", "codex_core.sandbox_commands", "backend", "1", "")
discovery.find = lambda namespace, name, found: plugin
discovery.load = lambda plugin: run
code = main()
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


WITH_FILE = 'sandbox_mode = "workspace-write"\n[sandbox_workspace_write]\nnetwork_access = true\n'


@pytest.mark.parametrize("config", ["", WITH_FILE])
def test_the_way_to_the_backend_is_light(tmp_path: Path, config: str) -> None:
    if config:
        (tmp_path / "config.toml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, "-s", "read-only", "sandbox", "linux", "--add-dir", "/usr", "--", "true"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"CODEX_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert (done.stdout, done.returncode) == ("read-only true\n", 5), done.stderr
    loaded = set(done.stderr.split())
    assert "codex_core.sandbox.policy" in loaded
    assert not FORBIDDEN & loaded
    assert "tomli" not in loaded or config


def test_version_imports_nothing_but_the_command_line(tmp_path: Path) -> None:
    program = "import sys; from codex_core.cli.main import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert not (FORBIDDEN | {"codex_core.host", "codex_core.agent.session"}) & set(done.stdout.split())
