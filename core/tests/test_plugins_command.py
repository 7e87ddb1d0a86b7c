"""`codex plugins` shows what is installed and chosen, and imports none of it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from codex_core.cli import plugins
from codex_core.hookspecs import Observer, SandboxBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., Path]

OBSERVERS = Observer.namespace
TRAP = {"trap_module": "raise SystemExit('imported')"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty home of codex, and a working directory beside it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("CODEX_HOME", str(folder))
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    return folder


def test_what_is_installed_and_chosen_is_listed_without_being_imported(
    install: Install, home: Path, site_packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("watcher", f"[{OBSERVERS}]\nwatcher = trap_module:Watcher\nother = trap_module:Other\n", TRAP)
    (home / "config.toml").write_text('[plugins]\nobservers = ["watcher"]\n')
    assert plugins.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("  * watcher  watcher 1.0")
    assert lines[at + 1] == f"      trap_module:Watcher  in {site_packages}"
    assert lines[at + 2] == f"      chosen by the value of plugins.observers ({home}/config.toml:2)"
    assert "    other  watcher 1.0" in lines
    assert "trap_module" not in sys.modules


def test_the_list_as_json_has_every_extension_point(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("watcher", f"[{OBSERVERS}]\nwatcher = trap_module:Watcher\n", TRAP)
    assert plugins.main(["--json"]) == 0
    points = {point["namespace"]: point for point in json.loads(capsys.readouterr().out)["extension_points"]}
    assert {name.partition(".")[2] for name in points} >= {
        "config_sources",
        "sandbox_backends",
        "approval_policies",
        "tool_gates",
        "exporters",
        "model_providers",
        "frontends",
        "observers",
        "sandbox_commands",
    }
    assert points[SandboxBackend.namespace]["hooks"] == ["launcher", "probe", "unsupported"]
    assert [plugin["name"] for plugin in points[OBSERVERS]["installed"]] == ["watcher"]
    assert points[OBSERVERS]["installed"][0]["chosen"] is None


def test_conflicts_broken_metadata_and_plugins_in_the_wrong_place_are_shown(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("first", f"[{OBSERVERS}]\ntwice = trap_module:Watcher\n", TRAP)
    install("second", f"[{OBSERVERS}]\ntwice = trap_module:Watcher\n")
    install("broken", f"[{OBSERVERS}]\nno entry point\n")
    install("typo", "[codex_core.observer]\nwatcher = trap_module:Watcher\n")
    install("planted", f"[{OBSERVERS}]\nplanted = trap_module:Watcher\n", folder=tmp_path / "workspace" / "src")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "workspace" / "src")])
    assert plugins.main(["-c", 'plugins.observers=["missing"]']) == 0
    out = capsys.readouterr().out
    assert "  ! twice: declared more than once, by first 1.0" in out
    assert "broken-1.0.dist-info/entry_points.txt is broken: line 2" in out
    assert f"! planted ({OBSERVERS}) in {tmp_path}/workspace/src is no plugin" in out
    assert "  ! missing, which is chosen: not installed" in out
    assert "codex_core.observer\n" in out
    assert "codex knows no such extension point" in out
    assert "trap_module" not in sys.modules


def test_names_cannot_disturb_the_terminal(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = install("watcher", f"[{OBSERVERS}]\nwatcher = trap_module:Watcher\n")
    (metadata / "METADATA").write_text("Name: \x1b[2Jwatcher\nVersion: 1.0\n")
    plugins.main([])
    assert "\x1b" not in capsys.readouterr().out
