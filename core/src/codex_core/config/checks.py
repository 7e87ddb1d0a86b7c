"""Checking one layer against the models: unknown keys, wrong types, wrong values.

Layers are checked each by itself, so that a mistake is reported where it stands also when a layer
above hides it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from codex_core.config.keys import dotted, quoted, shown
from codex_core.config.model import BackendTable, Config, ExporterTable, PluginTable, is_plugin_table
from codex_core.errors import ConfigError
from codex_core.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from codex_core.config.layers import Layer

TableT = TypeVar("TableT", bound=Table)

_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "a string",
    "int_type": "an integer",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}
_ENUM_VALUE = re.compile(r"'([^']*)'")
_PLUGIN_TABLES = (BackendTable, ExporterTable, PluginTable)
"""Models of tables in which a plugin may have keys of its own."""
_SLIP = 0.87
"""How like a known key a name must be to count as a slip of the pen rather than a plugin's name."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A key that no model knows."""

    path: tuple[str, ...]
    nearest: str | None


def without_unknown(layer: Layer, model: type[Table] = Config) -> tuple[Layer, tuple[Unknown, ...]]:
    """Take the keys that *model* does not know out of a layer."""
    unknown: list[Unknown] = []
    return replace(layer, values=_known(layer.values, model, (), unknown)), tuple(unknown)


def known_values(
    values: Mapping[str, Any], fields: Mapping[str, TableField], path: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[Unknown, ...]]:
    """Split the table at *path* into the values of *fields*, as :func:`table_fields` gives them, and unknown keys."""
    unknown: list[Unknown] = []
    return _known_fields(values, fields, path, unknown), tuple(unknown)


def validate(layer: Layer, model: type[TableT]) -> TableT:
    """Check the types and values of a layer, and give them as the model.

    Raises ConfigError for the first that is wrong, naming file, line, column, key and what is allowed.
    """
    try:
        return model.model_validate(layer.values)
    except ValidationError as error:
        lines = error_lines(layer, error)
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise ConfigError(lines[0] + more) from None


def errors(layer: Layer, model: type[Table]) -> tuple[str, ...]:
    """Say everything that is wrong with the types and values of a layer, a line each."""
    try:
        model.model_validate(layer.values)
    except ValidationError as error:
        return error_lines(layer, error)
    return ()


def error_lines(layer: Layer, error: ValidationError, path: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Say what pydantic found wrong with the table of a layer that stands at *path*, a line each."""
    return tuple(_error_line(layer, detail, path) for detail in error.errors(include_url=False))


def unknown_path(path: Sequence[str], model: type[Table] = Config) -> Unknown | None:
    """Give the first key on a path that no model knows, None if all are known."""
    table: dict[str, Any] = {}
    for part in reversed(path):
        table = {part: table}
    unknown: list[Unknown] = []
    _known(table, model, (), unknown)
    return unknown[0] if unknown else None


def _known(
    values: Mapping[str, Any], model: type[Table], path: tuple[str, ...], unknown: list[Unknown]
) -> dict[str, Any]:
    return _known_fields(values, table_fields(model), path, unknown, extra=model in _PLUGIN_TABLES)


def _known_fields(
    values: Mapping[str, Any],
    fields: Mapping[str, TableField],
    path: tuple[str, ...],
    unknown: list[Unknown],
    *,
    extra: bool = False,
) -> dict[str, Any]:
    kept = {}
    for key, value in values.items():
        if key in fields:
            below = fields[key]
        elif extra:
            kept[key] = value
            continue
        elif table := _plugin_table((*path, key), value, fields):
            below = (table, False)
        else:
            unknown.append(Unknown((*path, key), _nearest(key, fields)))
            continue
        if not isinstance(value, dict) or below is None:
            kept[key] = value
        elif below[1]:
            kept[key] = {
                name: _known(one, below[0], (*path, key, name), unknown) if isinstance(one, dict) else one
                for name, one in value.items()
            }
        else:
            kept[key] = _known(value, below[0], (*path, key), unknown)
    return kept


TableField = tuple[type[Table], bool] | None


def table_fields(model: type[Table]) -> dict[str, TableField]:
    """Map each key of a model to the model of its table, and whether that is a table of such tables."""
    return {field.alias or name: _table_of(field.annotation) for name, field in model.model_fields.items()}


def _table_of(annotation: Any) -> TableField:  # noqa: ANN401 - annotations have no type of their own
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation, False
    origin = get_origin(annotation)
    if origin is dict and (inner := _table_of(get_args(annotation)[1])):
        return inner[0], True
    if origin in {Union, UnionType, Annotated}:
        return next(filter(None, map(_table_of, get_args(annotation))), None)
    return None


def _plugin_table(path: Sequence[str], value: object, fields: Iterable[str]) -> type[Table] | None:
    """Give the model of a table that a plugin owns, None for a key that is none, or a slip of the pen."""
    if not isinstance(value, dict) or not is_plugin_table(path) or _nearest(path[-1], fields, _SLIP):
        return None
    if len(path) == 1:
        return BackendTable
    return ExporterTable if path[0] == "otel" else PluginTable


def _nearest(key: str, known_keys: Iterable[str], likeness: float = 0.6) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(key, list(known_keys), 1, likeness)), None)


def unknown_line(layer: Layer, unknown: Unknown) -> str:
    """Say that a key is not known, where it stands, and what may have been meant."""
    guess = f"; did you mean {dotted((*unknown.path[:-1], unknown.nearest))}?" if unknown.nearest else ""
    return f"{layer.place(unknown.path)}: unknown key {dotted(layer.spelled(unknown.path))}{guess}"


def _error_line(layer: Layer, error: ErrorDetails, above: tuple[str, ...]) -> str:
    path = layer.spelled((*above, *(part for part in error["loc"] if part != "[key]")))
    kind = error["type"]
    if kind == "missing":
        return f"{layer.place(path)}: {dotted(path)} is missing"
    found = f"{shown(error['input'])} is not allowed"
    expected = _EXPECTED.get(kind)
    if kind == "enum":
        expected = "one of " + ", ".join(quoted(value) for value in _ENUM_VALUE.findall(error["ctx"]["expected"]))
    said = f"{found}; expected {expected}" if expected else f"{found}: {error['msg'].removeprefix('Value error, ')}"
    return f"{layer.place(path)}: {dotted(path)}: {said}"
