"""``-c key=value`` and the flags that stand for it.

The key is written as in TOML: segments joined by dots, quoted where they contain one.  The value is
TOML; what is no TOML value is taken as text, so that ``-c sandbox_mode=read-only`` needs no quotes.
Importing this module costs nothing; TOML is read only for values that are more than a plain word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_core.config.files import MAX_DEPTH, deeper_than
from codex_core.config.keys import BARE, shown
from codex_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORD = BARE | frozenset("./:~@+")
_WORD_START = _WORD - frozenset("0123456789+-_:@")
_SPECIAL_WORDS = frozenset({"true", "false", "inf", "nan"})
_SAFE_DIGITS = 18
"""Integers up to here are in TOML's range whatever their digits."""


@dataclass(frozen=True, slots=True)
class Override:
    """One value from the command line."""

    path: tuple[str, ...]
    value: Any
    flag: str = ""
    """The flag that it came from, such as ``--sandbox``; empty for ``-c``."""
    extend: bool = False
    """Append *value*, a list, to the array of the layers below instead of replacing it."""


def parse_override(text: str) -> Override:
    """Read one ``key=value``.

    Raises UsageError where there is no ``=``, the key is empty or badly quoted, or it nests too deeply.
    """
    path, rest = _parse_key(text)
    value = parse_value(rest.strip())
    if len(path) > MAX_DEPTH or deeper_than(value):
        raise UsageError(f"override nested more than {MAX_DEPTH} levels deep: {shown(text)}")
    return Override(path, value)


def parse_key(text: str) -> tuple[str, ...]:
    """Read a dotted key; raises UsageError."""
    path, rest = _parse_key(text + "=")
    if rest:
        raise UsageError(f"not a key: {shown(text)}")
    return path


def parse_value(text: str) -> Any:  # noqa: ANN401 - any TOML value
    """Read one value: TOML if it is TOML, else the text itself without quotes around it."""
    if text in {"true", "false"}:
        return text == "true"
    if text.isascii() and text.isdigit() and len(text) <= _SAFE_DIGITS and (text == "0" or text[0] != "0"):
        return int(text)
    if _WORD.issuperset(text) and text[:1] in _WORD_START and text not in _SPECIAL_WORDS:
        return text
    plain = text[1:-1]
    if text[:1] == text[-1:] == '"' and plain.isascii() and plain.isprintable() and not {'"', "\\"}.intersection(plain):
        return plain if len(text) > 1 else ""
    import tomli

    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip("\"'")
    # More than one key means that the text went on behind its first line: no value.
    return document["value"] if len(document) == 1 else text.strip("\"'")


def override_values(overrides: Iterable[Override]) -> dict[str, Any]:
    """Build the table that the overrides, in order, describe; the later wins.

    Overrides that extend are not part of it: see :func:`codex_core.config.sources.override_layers`.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        if not override.extend:
            _set(values, override.path, override.value)
    return values


def _set(values: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set a value, making tables on the way; a value in the way becomes a table."""
    table = values
    for part in path[:-1]:
        below = table.get(part)
        # Copied, because it may belong to the value of an earlier override.
        table[part] = dict(below) if isinstance(below, dict) else {}
        table = table[part]
    table[path[-1]] = value


def _parse_key(text: str) -> tuple[tuple[str, ...], str]:
    """Split ``key=value`` into the segments of the key and what follows the ``=``."""
    path: list[str] = []
    at = 0
    while True:
        segment, at = _parse_segment(text, at)
        at = _skip_blanks(text, at)
        if at == len(text):
            raise UsageError(f"invalid override (missing '='): {shown(text)}")
        if segment is None and text[at] == "=" and not path:
            raise UsageError(f"empty key in override: {shown(text)}")
        if segment is None or text[at] not in ".=":
            raise UsageError(f"invalid key in override: {shown(text)}")
        path.append(segment)
        if text[at] == "=":
            return tuple(path), text[at + 1 :]
        at += 1


def _parse_segment(text: str, at: int) -> tuple[str | None, int]:
    """Read one segment; None where there is none or its quotes do not close."""
    at = _skip_blanks(text, at)
    if text[at : at + 1] not in {'"', "'"}:
        end = at
        while end < len(text) and text[end] not in ".=\"'":
            end += 1
        return text[at:end].strip() or None, end
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" and quote == '"' else 1
    if end >= len(text):
        return None, at
    segment = text[at + 1 : end]
    if "\\" in segment and quote == '"':
        import tomli

        try:
            segment = tomli.loads(f'value = "{segment}"')["value"]
        except ValueError:
            return None, at
    return segment, end + 1


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at
