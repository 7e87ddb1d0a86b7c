"""A program that lies in its own workspace is not taken over by modules that a command puts there."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import codex_core
import pytest
from codex_core.agent import session

PLANTED = ("tree_sitter", "tree_sitter_bash", "tomlkit", "termios", "subprocess", "json", "stevedore")
PLANT = """
import sys
for name in sys.argv[2:]:
    open(name + ".py", "w").write("open(%r, 'w').write('ran')" % sys.argv[1])
"""
PROGRAM = """
import sys
from codex_core import open_session
marker, plant, *names = sys.argv[1:]
with open_session(".", overrides=["sandbox_mode=workspace-write", "approval_policy=never"]) as opened:
    first = opened.run([sys.executable, "-I", "-c", plant, marker, *names])
    assert first.returncode == 0, first.stderr
    opened.run(["sh", "-c", "echo one | cat"])
    print(*opened.notices, sep="\\n")
"""
PURE = ("agent", "approval", "sandbox", "telemetry")


@pytest.mark.skipif(sys.platform != "linux", reason="needs the Linux sandbox")
def test_a_module_that_a_command_plants_is_not_imported(tmp_path: Path) -> None:
    if (
        importlib.util.find_spec("codex_sandbox_linux") is None
        or importlib.util.find_spec("codex_exporter_none") is None
    ):
        pytest.skip("the Linux backend and the exporter `none` are not installed")
    workspace, marker = tmp_path / "workspace", tmp_path / "ran"
    workspace.mkdir()
    (workspace / "program.py").write_text(PROGRAM)
    environment = {"PATH": os.defpath, "HOME": str(tmp_path / "home")}
    command = [sys.executable, "program.py", str(marker), PLANT, *PLANTED]
    done = subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (workspace / "tree_sitter.py").exists()
    assert not marker.exists()
    assert f"imports modules from {workspace}" in done.stdout
    subprocess.run([sys.executable, "-c", "import tree_sitter"], cwd=workspace, env=environment, check=True)
    assert marker.exists(), "what was planted is what Python finds first"


def test_everything_that_is_imported_later_is_listed() -> None:
    package = Path(codex_core.__file__).parent
    files = [*package.glob("*.py"), *(file for name in PURE for file in (package / name).rglob("*.py"))]
    later = {name for file in files for name in _imported_in_functions(file) if not name.startswith("codex_core")}
    assert later - {"importlib"} <= set(session._IMPORTED_LATER)


def _imported_in_functions(file: Path) -> set[str]:
    found: set[str] = set()
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(node.module or "")
    return found
