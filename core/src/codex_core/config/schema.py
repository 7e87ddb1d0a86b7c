"""JSON Schema of the configuration files, for editors.

Made from the models, and widened by the spellings that are accepted besides the one form.
"""

from __future__ import annotations

from typing import Any

from codex_core.config.defaults import BACKENDS
from codex_core.config.model import BackendTable, Config, ExporterTable, Requirements, Table

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What editors of TOML understand."""


OTHER_BACKENDS = "^sandbox_([^mwb]|m[^o]|w[^o]|b[^a])"
"""The tables of backends that plugins bring, told from ``sandbox_mode``, ``sandbox_workspace_write`` and
``sandbox_backend`` by their first letters: the regular expressions of editors cannot look ahead."""


def config_schema() -> dict[str, Any]:
    """Describe ``config.toml`` and ``managed_config.toml``."""
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
    return schema


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
