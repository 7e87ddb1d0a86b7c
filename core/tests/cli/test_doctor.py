from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import codex_core
import pytest
from codex_core.cli import doctor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BACKEND = """
from codex_core.hookspecs import SandboxBackend, hookimpl
from codex_core.types import Promise, Strength

class Backend(SandboxBackend):
    @hookimpl
    def probe(self):
        kept = frozenset(Promise) - {Promise.IPC, Promise.LOOPBACK}
        lost = {Promise.IPC: "no namespaces; turn them on with sysctl"}
        return Strength("testing", "half", kept, lost, {"memory": "20 looks a second"})
"""
POLICY = """
from codex_core.hookspecs import ApprovalPolicy, Exporter
class Policy(ApprovalPolicy): ...
class Nothing(Exporter): ...
"""
ENTRIES = """
[codex_core.sandbox_backends]
testing = half_backend:Backend
[codex_core.approval_policies]
testing = half_policy:Policy
[codex_core.exporters]
testing = half_policy:Nothing
"""
CONFIG = ["-c", "sandbox_backend=testing", "-c", "otel.exporter=testing"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, dict[str, dict[str, Any]]]:
        code = doctor.main(["--json", *words])
        return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}

    return run


def test_every_promise_is_listed_as_kept_or_lost_with_its_cause(
    run: Callable[..., Any], install: Callable[..., Path]
) -> None:
    install("half", ENTRIES, {"half_backend": BACKEND, "half_policy": POLICY})
    _, checks = run(*CONFIG)
    assert checks["sandbox"]["found"] == "testing, at its rung half"
    assert checks["sandbox writes"] == {"name": "sandbox writes", "ok": True, "found": "kept", "needed": False}
    assert checks["sandbox ipc"]["found"] == "no namespaces; turn them on with sysctl"
    assert not checks["sandbox ipc"]["ok"]
    assert not checks["sandbox loopback"]["ok"]
    assert checks["limit memory"]["found"] == "20 looks a second"


def test_a_missing_backend_is_a_failure_that_says_what_to_do(run: Callable[..., Any]) -> None:
    code, checks = run("-c", "sandbox_backend=nowhere")
    assert code == 1
    assert not checks["sandbox"]["ok"]
    assert "nowhere" in checks["sandbox"]["found"]


def test_a_missing_exporter_is_a_failure(run: Callable[..., Any], install: Callable[..., Path]) -> None:
    install("half", ENTRIES, {"half_backend": BACKEND, "half_policy": POLICY})
    code, checks = run("-c", "sandbox_backend=testing", "-c", "otel.exporter=nowhere")
    assert code == 1
    assert not checks["exporters"]["ok"]


def test_a_broken_configuration_is_a_failure_and_not_the_end(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "home" / "config.toml").write_text("x = \n")
    code, checks = run()
    assert code == 1
    assert "config.toml:1" in checks["configuration"]["found"]
    assert checks["python"]["ok"]


def test_the_package_is_known_to_be_ours(run: Callable[..., Any]) -> None:
    _, checks = run()
    assert checks["codex-core"]["ok"]
    assert codex_core.__version__ in checks["codex-core"]["found"]


@pytest.mark.parametrize("version", ["0.6.1", "2.0"])
def test_another_distribution_of_the_same_name_is_noticed(
    run: Callable[..., Any], install: Callable[..., Path], version: str
) -> None:
    install("codex-core", "", version=version)
    code, checks = run()
    assert code == 1
    assert not checks["codex-core"]["ok"]
    assert f"{version} in" in checks["codex-core"]["found"]
    assert "never by name" in checks["codex-core"]["found"]


def test_plain_output_has_a_line_for_each_check_and_no_colour_into_a_pipe(
    run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _, checks = run()
    doctor.main([])
    text = capsys.readouterr().out
    assert len(text.splitlines()) == len(checks)
    assert "\x1b" not in text
