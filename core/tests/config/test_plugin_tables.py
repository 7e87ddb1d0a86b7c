"""Plugins bring a model of their settings; what the configuration says is checked against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from codex_core import Table
from codex_core.config.plugin_tables import PluginTables, core_model, table_path
from codex_core.config.schema import config_schema
from codex_core.config.sources import USER, text_layer
from codex_core.errors import ConfigError, PluginLoadError
from codex_core.extension import ExtensionPoint
from codex_core.hookspecs import ApprovalPolicy, ConfigSource, Exporter, Observer, SandboxBackend
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[[str, str], str]


class Retry(Table):
    """How often."""

    times: int = Field(default=3, ge=1, description="How often.")


class Settings(Table):
    """Settings of a plugin."""

    path: str = Field(description="Where.")
    retry: Retry = Field(default={}, validate_default=True, description="How often.")
    endpoint: str | None = Field(default=None, description="A key that core knows as well.")


def read(text: str, namespace: str = Exporter.namespace, *, strict: bool = False) -> tuple[Any, list[str]]:
    layer = text_layer("user", USER, text, "config.toml")
    tables = PluginTables([layer], layer.values, strict)
    return tables(namespace, "acme", Settings), tables.warnings


@pytest.mark.parametrize(
    ("namespace", "path"),
    [
        (SandboxBackend.namespace, ("sandbox_acme",)),
        (Exporter.namespace, ("otel", "acme")),
        (ApprovalPolicy.namespace, ("plugins", "acme")),
        (Observer.namespace, ("plugins", "acme")),
    ],
)
def test_every_plugin_has_a_table(namespace: str, path: tuple[str, ...]) -> None:
    assert table_path(namespace, "acme") == path
    assert issubclass(core_model(namespace), Table)


def test_a_plugin_gets_its_settings_as_its_model_and_without_the_keys_of_core() -> None:
    settings, warnings = read(
        '[otel.acme]\npath = "x"\nprotocol = "json"\nendpoint = "y"\n[otel.acme.retry]\ntimes = 5\n'
    )
    assert settings == Settings(path="x", retry=Retry(times=5), endpoint="y")
    assert warnings == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "otel.acme.path is missing: a chosen plugin needs it"),
        ('[otel]\n[otel.acme]\nendpoint = "x"\n', "config.toml:2:1: otel.acme.path is missing"),
        ("[otel.acme]\npath = 5\n", "config.toml:2:1: otel.acme.path: 5 is not allowed; expected a string"),
        (
            '[otel.acme]\npath = "x"\nretry.times = 0\n',
            "config.toml:3:1: otel.acme.retry.times: 0 is not allowed: Input should be greater than or equal to 1",
        ),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value) == says


def test_an_unknown_setting_is_a_warning_with_the_nearest_key_and_an_error_where_asked() -> None:
    text = '[otel.acme]\npath = "x"\nendpiont = "y"\nretry = { tims = 1 }\n'
    settings, warnings = read(text)
    assert settings == Settings(path="x")
    assert warnings == [
        "config.toml:3:1: unknown key otel.acme.endpiont; did you mean otel.acme.endpoint?",
        "config.toml:4:11: unknown key otel.acme.retry.tims; did you mean otel.acme.retry.times?",
    ]
    with pytest.raises(ConfigError, match="endpiont"):
        read(text, strict=True)


def test_without_a_model_only_the_keys_of_core_are_known() -> None:
    layer = text_layer("user", USER, '[sandbox_acme]\nallow_degraded = ["ipc"]\nimage = "x"\n', "config.toml")
    tables = PluginTables([layer], layer.values)
    assert tables(SandboxBackend.namespace, "acme", None) is None
    assert tables.warnings == ["config.toml:3:1: unknown key sandbox_acme.image"]


def test_the_layer_that_gives_a_wrong_value_is_named(machine: Any) -> None:
    machine.user('[otel.acme]\npath = "x"\n')
    loaded = machine.load("otel.acme.path=7", "otel.exporter=acme")
    with pytest.raises(ConfigError, match=r"^overrides: otel\.acme\.path: 7 is not allowed"):
        loaded.plugin_tables()(Exporter.namespace, "acme", Settings)


@pytest.mark.parametrize(
    "chooser",
    ['approval_policy = "never"', '[plugins]\nobservers = ["never"]', '[plugins]\ntool_gates = ["never"]'],
)
def test_a_table_of_a_plugin_that_nothing_chooses_has_no_effect_and_says_so(machine: Any, chooser: str) -> None:
    machine.user("[plugins.nevre]\nx = 1\n[plugins.web_search]\nx = 1\n")
    assert machine.load().warnings == (
        f'{machine.user_file}:1:1: plugins.nevre has no effect: nothing chooses a plugin "nevre"',
    )
    machine.user(f"{chooser}\n[plugins.never]\nx = 1\n")
    assert machine.load().warnings == ()


def test_a_slip_of_the_pen_in_the_table_of_plugins_is_no_plugin(machine: Any) -> None:
    machine.user("[plugins.obsevers]\nx = 1\n")
    assert "unknown key plugins.obsevers; did you mean plugins.observers?" in machine.load().warnings[0]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Install:
    """Install a module that has a plugin ``acme`` of one namespace as its class ``Plugin``; the module's name."""
    module = f"acme_{abs(hash(request.node.nodeid))}"

    def install(namespace: str, source: str) -> str:
        metadata = tmp_path / "site-packages" / "acme-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{namespace}]\nacme = {module}:Plugin\n")
        (tmp_path / "site-packages" / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
        return module

    return install


WATCHER = """
from codex_core import Table
from codex_core.hookspecs import Observer, hookimpl
from pydantic import BaseModel, Field

class Settings({base}):
    file: str = Field(default="x", description="Where.")

class Plugin(Observer):
    settings_model = Settings

    def __init__(self, settings):
        self.settings = settings

    @hookimpl
    def on_event(self, event):
        pass
"""


def test_a_plugin_with_a_model_is_made_with_its_settings(install: Install, machine: Any) -> None:
    install(Observer.namespace, WATCHER.format(base="Table"))
    machine.user('[plugins]\nobservers = ["acme"]\n[plugins.acme]\nfile = "/log"\n')
    plugin: Any = ExtensionPoint(Observer).load("acme", machine.load().plugin_tables())
    assert plugin.settings.file == "/log"
    assert vars(ExtensionPoint(Observer).load("acme"))["settings"].file == "x"


@pytest.mark.parametrize("base", ["BaseModel", "dict"])
def test_a_model_that_is_no_table_is_refused(install: Install, base: str) -> None:
    assert not issubclass(BaseModel, Table)
    source = WATCHER.format(base=base) if base != "dict" else WATCHER.format(base="Table").replace("= Settings", "= {}")
    install(Observer.namespace, source)
    with pytest.raises(PluginLoadError, match=r"which is no codex_core\.Table"):
        ExtensionPoint(Observer).load("acme")


def test_a_config_source_has_settings_of_managed_layers_only(install: Install, machine: Any) -> None:
    source = """
from codex_core import Table
from codex_core.config import Layer
from codex_core.hookspecs import ConfigSource, hookimpl
from pydantic import Field

class Settings(Table):
    model: str = Field(default="none", description="What it gives.")

class Plugin(ConfigSource):
    settings_model = Settings

    def __init__(self, settings):
        self._settings = settings

    @hookimpl
    def config_layers(self, context):
        return [Layer("acme", 21, {"model": self._settings.model})]
"""
    install(ConfigSource.namespace, source)
    machine.managed('[plugins]\nconfig_sources = ["acme"]\n')
    machine.user('[plugins.acme]\nmodel = "from the user"\n')
    assert machine.load().config.model == "none"
    machine.managed('[plugins]\nconfig_sources = ["acme"]\n[plugins.acme]\nmodel = "from above"\nmodle = "x"\n')
    loaded = machine.load()
    assert loaded.config.model == "from above"
    assert loaded.warnings == (
        f"{machine.managed_file}:5:1: unknown key plugins.acme.modle; did you mean plugins.acme.model?",
    )


def test_no_plugin_of_pydantics_is_imported_for_a_model(install: Install, tmp_path: Path) -> None:
    module = install(Observer.namespace, WATCHER.format(base="Table"))
    evil = tmp_path / "site-packages" / "evil-1.0.dist-info"
    evil.mkdir()
    (evil / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (evil / "entry_points.txt").write_text("[pydantic]\nevil = evil:plugin\n")
    (tmp_path / "site-packages" / "evil.py").write_text('raise SystemExit("imported")\n')

    def run(program: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(tmp_path / "site-packages"), os.environ.get("PYTHONPATH")]))
        words = [sys.executable, "-c", program]
        return subprocess.run(words, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)

    plain = f"import pydantic, {module}; pydantic.create_model('M', **{{'a': int}})"
    assert "imported" in run(plain).stderr
    ours = (
        f"import {module} as m; from codex_core.config.plugin_tables import PluginTables;"
        "print(PluginTables([], {'plugins': {'acme': {}}})('codex_core.observers', 'acme', m.Settings))"
    )
    done = run(ours)
    assert (done.stdout, done.stderr) == ("file='x'\n", "")


def test_the_schema_describes_the_tables_of_chosen_plugins_to_the_last_key() -> None:
    schema = config_schema({("sandbox_acme",): Settings, ("plugins", "acme"): Settings, ("otel", "other"): None})
    acme = schema["properties"]["sandbox_acme"]
    assert acme["properties"].keys() == {"allow_degraded", "path", "retry", "endpoint"}
    assert (acme["required"], acme["additionalProperties"]) == (["path"], False)
    assert schema["definitions"]["Plugins"]["properties"]["acme"]["required"] == ["path"]
    assert schema["definitions"]["Otel"]["properties"]["other"]["additionalProperties"] is False
    names = {part.partition('"')[0] for part in json.dumps(schema).split("#/definitions/")[1:]}
    assert names <= schema["definitions"].keys()
