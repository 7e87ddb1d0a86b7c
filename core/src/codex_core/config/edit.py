"""Changing one value in a TOML text and leaving every other character as it is.

Whatever the editor (tomlkit) made of the text is read back and compared with the values that it should
have now: an edit is right, or it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from codex_core.config.files import parse
from codex_core.config.keys import dotted
from codex_core.config.layers import find
from codex_core.config.writing import toml
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tomlkit import TOMLDocument


def with_value(text: str, path: Sequence[str], value: Any, where: str) -> str:  # noqa: ANN401 - any TOML value
    """Give *text* with one value set; tables on the way are made.

    Raises ConfigError, beginning with *where*, for a text that is no TOML, a value in the way, and a
    change that cannot be made in place.
    """
    wanted: Any = value
    for part in reversed(path):
        wanted = {part: wanted}
    values = _replaced(parse(text, where), path, value, where)
    edited = _edited(text, where, path, lambda document: _set(document, path, value))
    return _check(edited, [values], path, where)


def without_value(text: str, path: Sequence[str], where: str) -> str:
    """Give *text* without one value, or without one table.

    Raises ConfigError, beginning with *where*, where it is not set, and as :func:`with_value`.
    """
    values = parse(text, where)
    if not find(values, path)[0]:
        raise ConfigError(f"{where}: {dotted(path)} is not set")
    edited = _edited(text, where, path, lambda document: _remove(document, path))
    # A table whose header is written stays, though empty; one that only others imply goes with the last of them.
    return _check(edited, [_removed(values, path, keep=depth) for depth in range(len(path))], path, where)


def _edited(text: str, where: str, path: Sequence[str], change: Callable[[TOMLDocument], None]) -> str:
    # The editor counts on "\n"; a text with the line ends of Windows gets them back.
    windows = "\r\n" in text and "\n" not in text.replace("\r\n", "")
    try:
        document = tomlkit.parse(text.replace("\r\n", "\n") if windows else text)
        change(document)
        edited = tomlkit.dumps(document)
    except (TOMLKitError, ValueError, TypeError, AttributeError, RecursionError):
        raise _not_in_place(path, where) from None
    edited = _without_new_blank_lines(text.replace("\r\n", "\n") if windows else text, edited)
    return edited.replace("\n", "\r\n") if windows else edited


def _without_new_blank_lines(before: str, after: str) -> str:
    """Take out the blank lines that the editor put beside a new key; those above a new table stay."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    inserted = new[start : len(new) - end]
    if start + end != len(old) or any(line.lstrip().startswith("[") for line in inserted):
        return after
    return "".join([*new[:start], *(line for line in inserted if line.strip()), *new[len(new) - end :]])


def _check(edited: str, wanted: Sequence[dict[str, Any]], path: Sequence[str], where: str) -> str:
    """Give *edited* if it says one of what is wanted."""
    try:
        right = parse(edited, where) in wanted
    except ConfigError:
        right = False
    if not right:
        raise _not_in_place(path, where)
    return edited


def _not_in_place(path: Sequence[str], where: str) -> ConfigError:
    return ConfigError(f"{where}: {dotted(path)} cannot be changed in place: edit the file")


def _set(document: TOMLDocument, path: Sequence[str], value: Any) -> None:  # noqa: ANN401 - any TOML value
    table: Any = document
    for depth, part in enumerate(path[:-1]):
        if part not in table:
            inside = isinstance(table, InlineTable)
            table[part] = tomlkit.inline_table() if inside else tomlkit.table(is_super_table=depth + 2 < len(path))
        table = table[part]
    table[path[-1]] = tomlkit.value(toml(value))


def _remove(document: TOMLDocument, path: Sequence[str]) -> None:
    table: Any = document
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]


def _replaced(values: dict[str, Any], path: Sequence[str], value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    for end in range(1, len(path)):
        found, below = find(values, path[:end])
        if found and not isinstance(below, dict):
            raise ConfigError(f"{where}: {dotted(path[:end])} is no table, so {dotted(path)} cannot be set")
    return _with(values, path, value)


def _with(values: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:  # noqa: ANN401
    below = _with(values.get(path[0], {}), path[1:], value) if len(path) > 1 else value
    return {**values, path[0]: below}


def _removed(values: dict[str, Any], path: Sequence[str], *, keep: int) -> dict[str, Any]:
    """Give *values* without *path*, and without the tables from depth *keep* on that are empty then."""
    others = {key: value for key, value in values.items() if key != path[0]}
    if len(path) == 1:
        return others
    below = _removed(values[path[0]], path[1:], keep=keep - 1)
    return {**values, path[0]: below} if below or keep > 0 else others
