"""Layers, and merging them: tables merge, everything else is replaced.  Pure.

The empty table is the neutral element and no argument is changed.  Merging is associative as long as
no key is a table in one layer and a plain value in another, which the models rule out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from codex_core.config.keys import dotted, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from codex_core.config.positions import KeyPath, Position


@dataclass(frozen=True, slots=True)
class Layer:
    """One source's word.  Paths in *values* are relative to the folder of *path* until they are resolved."""

    name: str
    precedence: int
    values: Mapping[str, Any]
    path: str | None = None
    """The file, where there is one."""
    positions: Mapping[KeyPath, Position] = field(default_factory=dict, repr=False, compare=False)
    """Where each key stands in the file; array elements have their number as last segment."""
    renames: Mapping[KeyPath, KeyPath] = field(default_factory=dict, repr=False, compare=False)
    """Key paths in *values* that the file spells otherwise."""

    def spelled(self, path: KeyPath) -> KeyPath:
        """Give a key path as the file spells it."""
        for end in range(len(path), 0, -1):
            if renamed := self.renames.get(path[:end]):
                return (*renamed, *path[end:])
        return path

    def position(self, path: KeyPath) -> Position | None:
        """Find where *path*, or the nearest key above it, stands."""
        path = self.spelled(path)
        for end in range(len(path), 0, -1):
            if position := self.positions.get(path[:end]):
                return position
        return None

    def place(self, path: KeyPath = ()) -> str:
        """Say where *path*, or the nearest key above it, stands: ``FILE:LINE:COLUMN``, or the layer's name."""
        where = visible(self.path) if self.path is not None else self.name
        position = self.position(path)
        return f"{where}:{position.line}:{position.column}" if position else where


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
