"""Distributions by somebody else: built, installed beside ours in a fresh environment, found, chosen and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.types import Promise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Codex = Callable[..., subprocess.CompletedProcess[str]]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = ("core", "plugins/approval/policies", "plugins/exporters/none", "plugins/sandbox_linux")
THEIRS = ("tests/third_party/sandbox", "tests/third_party/exporter")
INSTALLATION = 300
"""Seconds that installing everything may take at most."""

CONTRACTS = """
import pytest
from acme_exporter import LinesExporter, LinesSettings
from acme_sandbox import AcmeBackend
from codex_core.testing import ExporterContract, SandboxBackendContract

class TestBackend(SandboxBackendContract):
    @pytest.fixture
    def plugin(self):
        return AcmeBackend()

class TestExporter(ExporterContract):
    @pytest.fixture
    def plugin(self, tmp_path):
        return LinesExporter(LinesSettings(path=str(tmp_path / "events")))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a fresh environment with wheels of ours, of theirs, and pytest."""
    wheels = str(tmp_path_factory.mktemp("wheels"))
    for folder in (*OURS, *THEIRS):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels],
            cwd=os.path.join(ROOT, folder),
            check=True,
            capture_output=True,
        )
    built = [os.path.join(wheels, name) for name in sorted(os.listdir(wheels))]
    assert len(built) == len(OURS) + len(THEIRS)
    folder = str(tmp_path_factory.mktemp("environment"))
    python = os.path.join(folder, "bin", "python")
    constraints = os.path.join(ROOT, "constraints.txt")
    if uv := shutil.which("uv"):
        create = [uv, "venv", "--clear", "--python", sys.executable, folder]
        install = [uv, "pip", "install", "--python", python, "-c", constraints, "pytest", *built]
    else:
        create = [sys.executable, "-m", "venv", folder]
        install = [python, "-m", "pip", "install", "--quiet", "-c", constraints, "pytest", *built]
    for words in (create, install):
        done = subprocess.run(words, timeout=INSTALLATION, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give an empty home of codex."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def codex(environment: str, tmp_path: Path, home: Path) -> Codex:
    """Give ``codex(*words)``, run in an empty workspace."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()

    def codex(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [os.path.join(environment, "bin", "codex"), *words],
            cwd=workspace,
            env={"PATH": os.defpath, "HOME": str(tmp_path), "CODEX_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return codex


def listed(codex: Codex, namespace: str) -> dict[str, dict[str, Any]]:
    done = codex("plugins", "--json")
    assert done.returncode == 0, done.stderr
    points = {point["namespace"]: point for point in json.loads(done.stdout)["extension_points"]}
    return {plugin["name"]: plugin for plugin in points[namespace]["installed"]}


def test_their_plugins_are_listed_beside_ours(codex: Codex, environment: str) -> None:
    backends = listed(codex, "codex_core.sandbox_backends")
    assert set(backends) == {"linux", "acme"}
    acme = backends["acme"]
    assert (acme["distribution"], acme["version"]) == ("acme-codex-sandbox", "0.3")
    assert acme["value"] == "acme_sandbox:AcmeBackend"
    assert acme["location"].startswith(os.path.realpath(environment))
    assert acme["chosen"] is None
    assert set(listed(codex, "codex_core.exporters")) == {"none", "acme-lines"}


def test_a_key_of_the_configuration_chooses_them_and_the_list_says_where_it_stands(codex: Codex, home: Path) -> None:
    (home / "config.toml").write_text('sandbox_backend = "acme"\n\n[otel]\nexporter = "acme-lines"\n')
    backends = listed(codex, "codex_core.sandbox_backends")
    assert backends["acme"]["chosen"] == f"the value of sandbox_backend ({home}/config.toml:1)"
    assert backends["linux"]["chosen"] is None
    assert listed(codex, "codex_core.exporters")["acme-lines"]["chosen"].endswith("config.toml:4)")


def test_their_backend_refuses_what_it_cannot_keep_and_nothing_runs(codex: Codex, tmp_path: Path) -> None:
    for words in (("run", "-a", "never"), ("sandbox",)):
        done = codex(*words, "-s", "workspace-write", "-c", "sandbox_backend=acme", "--", "touch", "made")
        assert done.returncode == 125
        assert "acme cannot keep writes" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "workspace" / "made").exists()


def test_their_backend_and_exporter_take_part_in_a_run(codex: Codex, home: Path, tmp_path: Path) -> None:
    (home / "config.toml").write_text(
        'sandbox_backend = "acme"\napproval_policy = "never"\n'
        f"[sandbox_acme]\nallow_degraded = {json.dumps([promise.value for promise in Promise])}\n"
        f'[otel]\nexporter = "acme-lines"\n[otel.acme-lines]\npath = "{tmp_path}/events"\n'
    )
    done = codex("run", "--", "sh", "-c", "echo done; exit 3")
    assert (done.returncode, done.stdout) == (3, "done\n"), done.stderr
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "codex.conversation_starts"
    assert "codex.tool_decision" in names
    result = events[names.index("codex.tool_result")]
    assert (result["exit_code"], result["sandbox_strength"]) == (3, "acme/honesty")


def test_what_their_exporter_finds_wrong_stops_the_start_with_one_line(codex: Codex) -> None:
    done = codex("run", "-a", "never", "-c", "otel.exporter=acme-lines", "--", "true")
    assert done.returncode == 1
    assert done.stderr == "codex: otel.acme-lines.path is missing: a chosen plugin needs it\n"


def test_a_mistake_in_the_table_of_a_plugin_is_told_with_its_place(codex: Codex, home: Path) -> None:
    (home / "config.toml").write_text('[otel]\nexporter = "acme-lines"\n[otel.acme-lines]\npath = 5\n')
    done = codex("run", "-a", "never", "--", "true")
    assert done.returncode == 1
    assert done.stderr == f"codex: {home}/config.toml:4:1: otel.acme-lines.path: 5 is not allowed; expected a string\n"
    assert codex("config", "check").returncode == 1
    (home / "config.toml").write_text('[otel]\nexporter = "acme-lines"\n[otel.acme-lines]\npath = "/x"\n')
    assert (codex("config", "check").returncode, codex("config", "check").stdout) == (0, "")


def test_a_key_that_a_plugin_does_not_know_is_a_warning_or_an_error_as_asked(
    codex: Codex, home: Path, tmp_path: Path
) -> None:
    table = f'path = "{tmp_path}/events"\npaht = "x"\n'
    (home / "config.toml").write_text(f'[otel]\nexporter = "acme-lines"\n[otel.acme-lines]\n{table}')
    said = f"{home}/config.toml:5:1: unknown key otel.acme-lines.paht; did you mean otel.acme-lines.path?"
    done = codex("run", "-a", "never", "--", "true")
    assert (done.returncode, done.stderr) == (0, f"codex: warning: {said}\n")
    done = codex("run", "--strict-config", "-a", "never", "--", "true")
    assert (done.returncode, done.stderr) == (1, f"codex: {said}\n")


def test_the_schema_knows_the_keys_of_the_plugins_that_are_chosen(codex: Codex, home: Path) -> None:
    (home / "config.toml").write_text('[otel]\nexporter = "acme-lines"\n')
    table = json.loads(codex("config", "schema").stdout)["definitions"]["Otel"]["properties"]["acme-lines"]
    assert table["properties"]["path"]["description"] == "The file to write to."
    assert "endpoint" in table["properties"]
    assert table["required"] == ["path"]
    assert table["additionalProperties"] is False


def test_they_run_the_contract_tests_from_the_installed_wheel(environment: str, tmp_path: Path) -> None:
    (tmp_path / "test_contracts.py").write_text(CONTRACTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    # What is required of our backends is not required of this one, which keeps nothing.
    environ = {name: value for name, value in os.environ.items() if name != "CODEX_CORE_REQUIRE"}
    done = subprocess.run(
        [os.path.join(environment, "bin", "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
