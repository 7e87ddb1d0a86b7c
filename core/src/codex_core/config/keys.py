"""Key paths: how a place in a configuration is named, in memory and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
"""The characters of a key that needs no quotes (TOML 1.1)."""
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SHOWN = 80


def dotted(path: Iterable[str | int]) -> str:
    """Write a key path as TOML does; positions in arrays are appended as ``[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f"{'.' if text else ''}{part if part and BARE.issuperset(part) else quoted(part)}"
    return text


def quoted(text: str) -> str:
    """Write *text* as a TOML basic string, so that no character of it can disturb a terminal or a line."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def shown(value: object) -> str:
    """Describe a value in an error message: as TOML writes it, and short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "an array"
    if isinstance(value, str):
        return quoted(value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "...")
    return visible(str(value)[:_SHOWN])


def visible(text: str) -> str:
    """Escape what is not printable, for paths in one-line messages."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"  # noqa: PLR2004 - the end of the basic plane
