"""Merging layers: tables merge, everything else is replaced.  Pure.

The empty table is the neutral element and no argument is changed.  Merging is associative as long as
no key is a table in one layer and a plain value in another, which the models rule out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_core.config.keys import dotted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from codex_core.config.sources import Layer


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from."""

    layer: str
    path: str | None = None
    """The file, where there is one."""
    line: int | None = None
    column: int | None = None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, dict):
            # Merged also over nothing, so that the result shares no table with a layer.
            merged[key] = merge(under if isinstance(under, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def merge_layers(layers: Iterable[Layer]) -> dict[str, Any]:
    """Merge layers, the lowest first."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    return merged


def leaves(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """List every value that is not a table; an empty table counts as one."""
    for key, value in values.items():
        path = (*prefix, key)
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def find(values: Mapping[str, Any], path: Sequence[str]) -> tuple[bool, Any]:
    """Look a key path up: whether it is there, and what it holds."""
    found: Any = values
    for part in path:
        if not isinstance(found, dict) or part not in found:
            return False, None
        found = found[part]
    return True, found


def givers(layers: Sequence[Layer], path: tuple[str, ...]) -> tuple[Layer, ...]:
    """List the layers that say something about a leaf, the winner first."""
    return tuple(layer for layer in reversed(layers) if find(layer.values, path)[0])


def origins(layers: Sequence[Layer], merged: Mapping[str, Any]) -> dict[str, Origin]:
    """Find for every leaf of *merged* the layer, file and line that it comes from."""
    found = {}
    for path, _value in leaves(merged):
        giver = next(iter(givers(layers, path)), None)
        if giver is not None:
            found[dotted(path)] = origin(giver, path)
    return found


def origin(layer: Layer, path: tuple[str | int, ...]) -> Origin:
    """Where *layer* says *path*, or the nearest key above it."""
    position = layer.position(path)
    if position is None:
        return Origin(layer.name, layer.path)
    return Origin(layer.name, layer.path, position.line, position.column)
