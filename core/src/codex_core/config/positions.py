"""Where each key of a TOML text stands.

The reader gives values without positions and the editor (tomlkit) is ten times slower, so this finds
them by a scan of its own, and only once somebody asks: an error, a warning, or ``codex config show``.
It is used on texts that the reader has accepted, and gives up quietly on anything it does not expect:
a missing position makes a message poorer, never wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.config.keys import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath = tuple[str | int, ...]
_CLOSERS = frozenset(",]}#\n")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text, counted from 1; the column counts characters."""

    line: int
    column: int


class Positions(Mapping[KeyPath, Position]):
    """The positions of all keys (and array elements) of a text, found at the first question."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[KeyPath, Position] | None = None

    def _scanned(self) -> dict[KeyPath, Position]:
        if self._found is None:
            self._found = scan(self._text)
            self._text = ""
        return self._found

    def __getitem__(self, path: KeyPath) -> Position:
        return self._scanned()[path]

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self._scanned())

    def __len__(self) -> int:
        return len(self._scanned())


def scan(text: str) -> dict[KeyPath, Position]:
    """Find the position of each key, table header and array element, each where it is first named."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with suppress(IndexError, ValueError, RecursionError):  # an unexpected end or form: keep what was found
        scanner.document()
    starts = scanner.line_starts()
    found = {}
    line = 0
    for path, at in sorted(scanner.found.items(), key=lambda item: item[1]):
        while line + 1 < len(starts) and starts[line + 1] <= at:
            line += 1
        found[path] = Position(line + 1, at - starts[line] + 1)
    return found


class _Scanner:
    """Walks over a text; every method starts at ``self.at`` and leaves it behind what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[KeyPath, int] = {}
        self._arrays: dict[KeyPath, int] = {}

    def line_starts(self) -> list[int]:
        starts = [0]
        while (end := self.text.find("\n", starts[-1])) >= 0:
            starts.append(end + 1)
        return starts

    def document(self) -> None:
        prefix: KeyPath = ()
        self.skip_space()
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                prefix = self.array_header()
            elif self.text[self.at] == "[":
                prefix = self.table_header()
            else:
                self.key_and_value(prefix)
            self.skip_space()

    def table_header(self) -> KeyPath:
        start = self.at
        self.at += 1
        path = self.resolve(self.key())
        self.expect("]")
        self.name(path, start)
        return path

    def array_header(self) -> KeyPath:
        start = self.at
        self.at += 2
        key = self.key()
        array = (*self.resolve(key[:-1]), key[-1])
        self.expect("]")
        self.expect("]")
        index = self._arrays.get(array, -1) + 1
        self._arrays[array] = index
        self.name(array, start)
        self.name((*array, index), start)
        return (*array, index)

    def resolve(self, key: KeyPath) -> KeyPath:
        """Put the number of the newest element behind each array of tables."""
        path: KeyPath = ()
        for part in key:
            path = (*path, part)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def key_and_value(self, prefix: KeyPath) -> None:
        start = self.at
        path = (*prefix, *self.key())
        self.name(path, start)
        self.expect("=")
        self.skip_space()
        self.value(path)

    def value(self, path: KeyPath) -> None:
        opener = self.text[self.at]
        if opener in "\"'":
            self.string()
        elif opener == "[":
            self.array(path)
        elif opener == "{":
            self.inline_table(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in _CLOSERS:
                self.at += 1

    def array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        self.skip_space()
        while self.text[self.at] != "]":
            self.name((*path, index), self.at)
            self.value((*path, index))
            index += 1
            self.skip_separator("]")
        self.at += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        self.skip_space()
        while self.text[self.at] != "}":
            self.key_and_value(path)
            self.skip_separator("}")
        self.at += 1

    def skip_separator(self, closer: str) -> None:
        self.skip_space()
        if self.text[self.at] == ",":
            self.at += 1
            self.skip_space()
        elif self.text[self.at] != closer:
            raise ValueError

    def key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self.skip_space()
            start = self.at
            if self.text[self.at] in "\"'":
                parts.append(self.string())
            else:
                while self.text[self.at] in BARE:
                    self.at += 1
                if self.at == start:
                    raise ValueError
                parts.append(self.text[start : self.at])
            self.skip_space()
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def string(self) -> str:
        quote = self.text[self.at]
        start = self.at
        closer = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(closer)
        while not self.text.startswith(closer, self.at):
            self.at += 2 if self.text[self.at] == "\\" and quote == '"' else 1
        if len(closer) > 1:  # up to two quotes may stand before the closing three
            while self.text.startswith(quote, self.at + len(closer)):
                self.at += 1
        inner = self.text[start + len(closer) : self.at]
        self.at += len(closer)
        if "\\" in inner and quote == '"':
            import tomli

            return str(tomli.loads(f"value = {self.text[start : self.at]}")["value"])
        return inner

    def expect(self, char: str) -> None:
        self.skip_space()
        if self.text[self.at] != char:
            raise ValueError
        self.at += 1

    def skip_space(self) -> None:
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in " \t\n":
                self.at += 1
            else:
                return

    def name(self, path: KeyPath, at: int) -> None:
        """Remember where a path, and each table on the way to it, was first named."""
        while path and path not in self.found:
            self.found[path] = at
            path = path[:-1]
