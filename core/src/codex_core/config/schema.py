"""JSON Schema of the configuration files, for editors.

Made from the models, and widened by the spellings that are accepted besides the one form.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from codex_core.config.defaults import BACKENDS
from codex_core.config.model import BackendTable, Config, ExporterTable, PluginTable, Requirements
from codex_core.table import Table, build

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What editors of TOML understand."""


OTHER_BACKENDS = "^sandbox_([^mwb]|m[^o]|w[^o]|b[^a])"
"""The tables of backends that plugins bring, told from ``sandbox_mode``, ``sandbox_workspace_write`` and
``sandbox_backend`` by their first letters: the regular expressions of editors cannot look ahead."""


def config_schema(
    plugins: Mapping[tuple[str, ...], type[Table] | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """Describe ``config.toml`` and ``managed_config.toml``.

    *plugins* are those whose tables are described to the last key: the models of their settings, None for one
    that has none, by the path of the table.
    """
    schema = _schema(Config, "Configuration of codex-core")
    definitions = schema["definitions"]
    backend, exporter = _reference(definitions, BackendTable), _reference(definitions, ExporterTable)
    schema["additionalProperties"] = False
    schema["properties"] |= {f"sandbox_{name}": backend for name in BACKENDS}
    schema["patternProperties"] = {OTHER_BACKENDS: backend}
    otel = definitions["Otel"]
    otel["additionalProperties"] = exporter
    named = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": exporter}
    chooser = otel["properties"]["exporter"]
    otel["properties"]["exporter"] = {
        **{key: chooser[key] for key in ("default", "description", "title")},
        "anyOf": [{"type": "string"}, named],
    }
    definitions["Plugins"]["additionalProperties"] = _reference(definitions, PluginTable)
    for path, model in plugins.items():
        table = definitions["Plugins"] if path[0] == "plugins" else otel if path[0] == "otel" else schema
        table["properties"][path[-1]] = _plugin_schema(definitions, path, model)
    return schema


def _plugin_schema(definitions: dict[str, Any], path: tuple[str, ...], model: type[Table] | None) -> dict[str, Any]:
    """Describe the table of one plugin: the keys that core knows, and its own."""
    core = definitions[{"otel": "ExporterTable", "plugins": "PluginTable"}.get(path[0], "BackendTable")]
    if model is None:
        return {**core, "additionalProperties": False}
    build(model)
    prefix = ".".join(path)  # models of different plugins may have one name
    schema = model.model_json_schema(by_alias=True, ref_template=f"#/definitions/{prefix}.{{model}}")
    definitions.update({f"{prefix}.{name}": _without_null(one) for name, one in schema.get("$defs", {}).items()})
    own = _without_null(schema)
    return {**core, **own, "properties": {**core["properties"], **own["properties"]}}


def requirements_schema() -> dict[str, Any]:
    """Describe ``requirements.toml``."""
    return _schema(Requirements, "Constraints of codex-core")


def _schema(model: type[Table], title: str) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    return {"$schema": DIALECT, **_without_null(schema), "title": title, "definitions": _without_null(schema["$defs"])}


def _reference(definitions: dict[str, Any], model: type[Table]) -> dict[str, Any]:
    """Define a model that no field refers to, and refer to it."""
    schema = _without_null(model.model_json_schema(by_alias=True, ref_template="#/definitions/{model}"))
    definitions.update(schema.pop("$defs", {}))
    definitions[model.__name__] = schema
    return {"$ref": f"#/definitions/{model.__name__}"}


def _without_null(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Take out null, which TOML does not have, and the defaults that say nothing else."""
    if isinstance(schema, list):
        return [_without_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: _without_null(value)
        for key, value in schema.items()
        if key != "$defs" and not (key == "default" and value in (None, {}))
    }
    choices = [one for one in kept.get("anyOf", []) if one != {"type": "null"}]
    if len(choices) == 1:
        kept.pop("anyOf")
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else kept
