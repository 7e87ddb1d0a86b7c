from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.errors import CodexError, ConfigError, PluginLoadError, PluginNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANAGED = '[plugins]\nconfig_sources = ["vault"]\n'
SOURCE = """
from codex_core.config import Layer
from codex_core.hookspecs import ConfigSource, hookimpl

class Vault(ConfigSource):
    @hookimpl
    def config_layers(self, context):
        {body}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Install a distribution with a config source ``vault`` whose method has the given body; its module's name."""
    module = f"vault_{abs(hash(request.node.name))}"

    def install(body: str) -> str:
        site = tmp_path / "site-packages"
        metadata = site / "acme_vault-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-vault\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[codex_core.config_sources]\nvault = {module}:Vault\n")
        (site / f"{module}.py").write_text(SOURCE.format(body=body))
        monkeypatch.syspath_prepend(str(site))
        return module

    return install


def refusal(machine: Any, kind: type[CodexError]) -> str:
    with pytest.raises(kind) as caught:
        machine.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("precedence", "wins"),
    [(5, "user"), (25, "vault"), (29, "vault"), (35, "vault")],
)
def test_a_source_stands_where_its_precedence_says(
    machine: Any, install: Callable[[str], str], precedence: int, wins: str
) -> None:
    install(f'return [Layer("vault", {precedence}, {{"model": "vault", "sandbox_backend": "linux"}})]')
    machine.user('model = "user"\n')
    machine.managed(MANAGED)
    loaded = machine.load()
    assert loaded.config.model == wins
    assert loaded.origins["sandbox_backend"].layer == "vault"


def test_a_source_stands_below_or_above_the_command_line_as_it_says(
    machine: Any, install: Callable[[str], str]
) -> None:
    install('return [Layer("low", 29, {"model": "low"}), Layer("high", 39, {"model_provider": "high"})]')
    machine.managed(MANAGED)
    loaded = machine.load("model=override", "model_provider=override")
    assert (loaded.config.model, loaded.config.model_provider) == ("override", "high")


@pytest.mark.parametrize("precedence", [0, 40, 50, 1000])
def test_a_source_that_wants_to_stand_among_managed_layers_stops_the_start(
    machine: Any, install: Callable[[str], str], precedence: int
) -> None:
    install(f'return [Layer("vault", {precedence}, {{}})]')
    machine.managed(MANAGED)
    assert f"has precedence {precedence}: not in 1..39" in refusal(machine, PluginLoadError)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('raise RuntimeError("vault\\n is sealed")', "RuntimeError: vault is sealed"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return [{}]", "gave dict instead of a Layer"),
        ("return 5", "it gave int instead of layers"),
        ('return [Layer("v", 21, {"model": None})]', "something that TOML cannot say"),
        ('return [Layer("v", 21, {1: "x"})]', "something that TOML cannot say"),
        ('return [Layer("v", 21, ["x"])]', "something that TOML cannot say"),
        ("v = {}\n        v['v'] = v\n        return [Layer('v', 21, v)]", "nested more than"),
    ],
)
def test_a_source_that_fails_or_gives_no_configuration_stops_the_start(
    machine: Any, install: Callable[[str], str], body: str, says: str
) -> None:
    install(body)
    machine.managed(MANAGED)
    assert says in refusal(machine, PluginLoadError)


def test_a_wrong_value_from_a_source_is_refused_with_its_name(machine: Any, install: Callable[[str], str]) -> None:
    install('return [Layer("vault", 21, {"sandbox_mode": "full"})]')
    machine.managed(MANAGED)
    assert refusal(machine, ConfigError).startswith('vault: sandbox_mode: "full" is not allowed')


def test_a_relative_path_from_a_source_without_a_file_is_refused(machine: Any, install: Callable[[str], str]) -> None:
    install('return [Layer("vault", 21, {"sandbox_workspace_write": {"writable_roots": ["x"]}})]')
    machine.managed(MANAGED)
    assert "must be absolute here" in refusal(machine, ConfigError)


def test_a_source_that_says_nothing_changes_nothing(machine: Any, install: Callable[[str], str]) -> None:
    install("return []")
    machine.managed(MANAGED)
    assert [layer.name for layer in machine.load().layers] == ["defaults", "managed"]


def test_a_source_that_is_named_and_not_installed_stops_the_start(machine: Any) -> None:
    machine.managed(MANAGED)
    assert "vault" in refusal(machine, PluginNotFoundError)


def test_only_managed_configuration_may_name_a_source(machine: Any, install: Callable[[str], str]) -> None:
    install('return [Layer("vault", 21, {"model": "vault"})]')
    machine.user(MANAGED)
    assert refusal(machine, ConfigError) == (
        f"{machine.user_file}:2:1: only managed configuration may name config sources"
    )


def test_a_source_from_a_distribution_that_is_not_allowed_is_not_imported(
    machine: Any, install: Callable[[str], str]
) -> None:
    module = install("return []")
    machine.managed(MANAGED)
    machine.requirements('allowed_plugins = ["codex-sandbox-linux"]\n')
    assert 'a plugin from "acme-vault" is not allowed' in refusal(machine, ConfigError)
    assert module not in sys.modules
    machine.requirements('allowed_plugins = ["acme-vault"]\n')
    machine.load()
    assert module in sys.modules
