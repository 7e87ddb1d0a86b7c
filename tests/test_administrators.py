"""What the guide for administrators shows works, on a machine that is set up by it."""

from __future__ import annotations

import os
import plistlib
import shutil
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest
from codex_core.cli import config
from codex_core.config import Loaded, Override, load_config
from codex_core.errors import ConfigError
from codex_core.types import ApprovalMode, Promise, SandboxMode, Strength

if TYPE_CHECKING:
    from pathlib import Path

COMPANY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "company")
FILES = ("managed_config.toml", "requirements.toml")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a machine without any policy, whose user wants everything."""
    home = tmp_path / "home"
    (home / ".codex").mkdir(parents=True)
    (home / ".codex" / "config.toml").write_text(
        'sandbox_mode = "danger-full-access"\napproval_policy = "never"\nweb_search = "live"\n'
        '[otel]\nexporter = "none"\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLLECTOR_KEY", "abc")
    monkeypatch.delenv("CODEX_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def install_files(machine: Path) -> None:
    folder = machine / "root" / "etc" / "codex"
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(os.path.join(COMPANY, name), folder)


def push_profile(machine: Path) -> None:
    with open(os.path.join(COMPANY, "codex.mobileconfig"), "rb") as file:
        (payload,) = plistlib.load(file)["PayloadContent"]
    folder = machine / "root" / "Library" / "Managed Preferences"
    folder.mkdir(parents=True)
    preferences = {key: value for key, value in payload.items() if key.endswith("_base64")}
    (folder / f"{payload['PayloadType']}.plist").write_bytes(plistlib.dumps(preferences, fmt=plistlib.FMT_BINARY))


def load(machine: Path, *overrides: Override | str) -> Loaded:
    (machine / "root").mkdir(exist_ok=True)
    return load_config(cwd=str(machine), overrides=overrides, system_root=str(machine / "root"))


def test_the_profile_carries_the_two_files() -> None:
    with open(os.path.join(COMPANY, "codex.mobileconfig"), "rb") as file:
        (payload,) = plistlib.load(file)["PayloadContent"]
    for key, name in zip(("config_toml_base64", "requirements_toml_base64"), FILES, strict=True):
        with open(os.path.join(COMPANY, name), "rb") as file:
            assert b64decode(payload[key]) == file.read()


@pytest.mark.parametrize("install", [install_files, push_profile])
def test_the_policy_holds_against_the_users_file_and_the_command_line(machine: Path, install: object) -> None:
    assert load(machine).config.sandbox_mode is SandboxMode.DANGER_FULL_ACCESS
    assert callable(install)
    install(machine)
    loaded = load(machine, "approval_policy=never")
    assert loaded.config.sandbox_mode is SandboxMode.WORKSPACE_WRITE
    assert loaded.config.approval_policy is ApprovalMode.ON_REQUEST
    assert loaded.config.web_search == "cached"
    assert loaded.config.otel.exporter == "otlp-http"
    assert loaded.exporter_settings()["headers"] == {"x-api-key": "abc"}
    assert loaded.constraints.check("sandbox_mode", "danger-full-access") is not None
    weak = Strength("linux", "floor", frozenset({Promise.WRITES}))
    assert loaded.constraints.check_strength(weak) is not None
    assert [rule.decision for rule in loaded.constraints.rules] == ["prompt"]


def test_yolo_is_refused_where_only_constraints_are_installed(machine: Path) -> None:
    install_files(machine)
    (machine / "root" / "etc" / "codex" / "managed_config.toml").write_text('otel.exporter = "otlp-http"\n')
    with pytest.raises(ConfigError, match='sandbox_mode = "danger-full-access" is not allowed'):
        load(machine, Override(("sandbox_mode",), "danger-full-access", "--yolo"))


def test_the_audit_prints_what_the_guide_shows(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_files(machine)
    assert config.main(["audit"], system_root=str(machine / "root")) == 1
    root, home = str(machine / "root"), str(machine / "home")
    lines = capsys.readouterr().out.replace(root, "").replace(home, "/home/ada").splitlines()
    assert (
        'sandbox_mode = "danger-full-access" (user /home/ada/.codex/config.toml:1) is forbidden: allowed is '
        '"read-only", "workspace-write" (requirements /etc/codex/requirements.toml:2)'
    ) in lines


@pytest.mark.parametrize("name", FILES)
def test_the_files_pass_the_check(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["check", os.path.join(COMPANY, name)]) == 0
    assert capsys.readouterr().out == ""
