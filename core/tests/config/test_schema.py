"""The JSON Schema and the reference page say what the models say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config import reference
from codex_core.config.model import BackendTable, Config, ExporterTable, Otel, Requirements
from codex_core.config.schema import config_schema, requirements_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from codex_core.table import Table

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PAGE = os.path.join(ROOT, "docs", "configuration.md")
GOOD = """\
sandbox_mode = "read-only"
web_search = "live"
[sandbox_workspace_write]
writable_roots = ["/a"]
[otel]
exporter = { otlp-http = {
  endpoint = "x",
  protocol = "binary",
  headers = { a = "b" },
}}
[otel.mine]
x = 1
[projects."/a"]
trust_level = "trusted"
[sandbox_linux]
allow_degraded = ["ipc"]
[sandbox_mine]
x = 1
"""


def models(model: type[Table]) -> Iterator[type[Table]]:
    yield model
    for field in model.model_fields.values():
        for table in reference._tables(field.annotation):
            yield from models(table)


def test_the_reference_page_is_what_the_models_give() -> None:
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    assert page == reference.page(), "run: python -m codex_core.config.reference > docs/configuration.md"


@pytest.mark.parametrize("model", [*models(Config), BackendTable, *models(ExporterTable), *models(Requirements)])
def test_every_key_has_a_description_and_is_on_the_page(model: type[Table]) -> None:
    page = reference.page()
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert f"`{field.alias or name}`" in page or f"{name}]`" in page, f"{model.__name__}.{name}"


def test_the_schema_has_every_key_and_no_other() -> None:
    schema = config_schema()
    shipped = {"sandbox_linux", "sandbox_macos", "sandbox_windows"}
    assert schema["properties"].keys() == Config.model_fields.keys() | shipped
    assert schema["additionalProperties"] is False
    assert schema["definitions"]["Otel"]["properties"].keys() == Otel.model_fields.keys()
    assert requirements_schema()["properties"].keys() == Requirements.model_fields.keys()


def test_the_schemas_are_json_and_all_their_references_lead_somewhere() -> None:
    for schema in (config_schema(), requirements_schema()):
        text = json.dumps(schema)
        names = {part.partition('"')[0] for part in text.split("#/definitions/")[1:]}
        assert names <= schema["definitions"].keys()


@pytest.fixture
def tombi(tmp_path: Path) -> Any:
    """Lint a file with a TOML language server that has our schemas: its exit code and what it says."""
    program = shutil.which("tombi", path=os.path.dirname(sys.executable)) or shutil.which("tombi")
    if program is None:
        pytest.skip("needs tombi, a tool for TOML (`pip install tombi`)")
    (tmp_path / "config.json").write_text(json.dumps(config_schema()))
    (tmp_path / "requirements.json").write_text(json.dumps(requirements_schema()))
    (tmp_path / "tombi.toml").write_text(
        'toml-version = "v1.1.0"\n[schema]\nstrict = false\ncatalog = { paths = [] }\n'
        '[[schemas]]\npath = "config.json"\ninclude = ["config.toml"]\n'
        '[[schemas]]\npath = "requirements.json"\ninclude = ["requirements.toml"]\n'
    )

    def lint(name: str, text: str) -> tuple[int, str]:
        (tmp_path / name).write_text(text)
        words = [program, "lint", "--offline", "--no-cache", name]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return lint


def test_an_editor_accepts_every_spelling(tombi: Any) -> None:
    code, said = tombi("config.toml", GOOD)
    assert code == 0, said
    code, said = tombi("requirements.toml", 'allowed_sandbox_modes = ["read-only"]\nminimum_strength = ["ipc"]\n')
    assert code == 0, said


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read-only", "full"),
        ("writable_roots", "writeable_roots"),
        ('"binary"', '"json5"'),
        ('"trusted"', '"some"'),
        ('"ipc"', '"all"'),
        ("web_search", "web_serach"),
        ("[sandbox_workspace_write]", "[sandbox_workspace_wirte]"),
        ('["/a"]', '"/a"'),
        ('endpoint = "x"', "endpoint = 5"),
    ],
)
def test_an_editor_shows_a_mistake(tombi: Any, right: str, wrong: str) -> None:
    assert right in GOOD
    assert tombi("config.toml", GOOD.replace(right, wrong, 1))[0] != 0


def test_an_editor_shows_a_mistake_in_constraints(tombi: Any) -> None:
    assert tombi("requirements.toml", 'allowed_sandbox_mode = ["read-only"]\n')[0] != 0
    assert tombi("requirements.toml", 'allowed_sandbox_modes = ["full"]\n')[0] != 0
