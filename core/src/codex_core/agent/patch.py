"""Patches as models write them: what they say, and what a file becomes by them.  Nothing here touches a disk.

::

    *** Begin Patch
    *** Add File: PATH
    +every line of the file
    *** Delete File: PATH
    *** Update File: PATH
    *** Move to: PATH
    @@ a line before the place
     a line that stays
    -a line that goes
    +a line that comes
    *** End of File
    *** End Patch

A hunk is found by its own lines, after the line that ``@@`` names if it names one.  First as they
are, then without blanks at the ends of lines, then without blanks around them.  It has to fit in one
place only: a change that could land elsewhere is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_BEGIN, _END = "*** Begin Patch", "*** End Patch"
_ADD, _DELETE, _UPDATE, _MOVE = "*** Add File: ", "*** Delete File: ", "*** Update File: ", "*** Move to: "
_END_OF_FILE = "*** End of File"
_BOM = "\ufeff"
_LOOSER: tuple[Callable[[str], str], ...] = (str, str.rstrip, str.strip)
_PLACES_NAMED = 3


@dataclass(frozen=True, slots=True)
class Hunk:
    """One place of a file, and what it becomes."""

    line: int
    """Where in the patch it begins, counted from 1."""
    anchors: tuple[str, ...] = ()
    """Lines of the file, in order, that the place comes after."""
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    at_end: bool = False


@dataclass(frozen=True, slots=True)
class AddFile:
    """A file that does not exist yet."""

    path: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """A file that goes."""

    path: str


@dataclass(frozen=True, slots=True)
class UpdateFile:
    """A file that changes, and perhaps moves."""

    path: str
    hunks: tuple[Hunk, ...]
    move_to: str | None = None


Change = AddFile | DeleteFile | UpdateFile


def parse_patch(text: str) -> tuple[Change, ...]:
    """Read a patch.  Raises PatchError with the line where it makes no sense."""
    reader = _Reader(text)
    changes = tuple(reader.changes())
    if not changes:
        raise PatchError("the patch changes nothing")
    touched = [path for change in changes for path in paths_of(change)]
    for path in touched:
        if touched.count(path) > 1:
            raise PatchError(f"the patch names {path!r} twice: put its hunks into one section")
    return changes


def paths_of(change: Change) -> tuple[str, ...]:
    """Give the paths that a change writes to, as the patch spells them."""
    if isinstance(change, UpdateFile) and change.move_to is not None:
        return (change.path, change.move_to)
    return (change.path,)


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = _without_wrapper(text.rstrip("\r\n").replace("\r\n", "\n").split("\n"))
        self.at = 0

    def fail(self, reason: str) -> PatchError:
        return PatchError(f"line {self.at + 1} of the patch: {reason}")

    def peek(self) -> str | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def changes(self) -> Iterator[Change]:
        while self.peek() == "":
            self.at += 1
        if (self.peek() or "").strip() != _BEGIN:
            raise self.fail(f"{_BEGIN!r} is expected")
        self.at += 1
        while (line := self.peek()) is not None and line.strip() != _END:
            yield self.change(line)
        if line is None:
            raise self.fail(f"{_END!r} is missing")
        if any(rest.strip() for rest in self.lines[self.at + 1 :]):
            self.at += 1
            raise self.fail(f"nothing may follow {_END!r}")

    def change(self, line: str) -> Change:
        for marker in (_ADD, _DELETE, _UPDATE):
            if line.startswith(marker):
                path = self.path(line.removeprefix(marker))
                self.at += 1
                if marker == _DELETE:
                    return DeleteFile(path)
                return self.addition(path) if marker == _ADD else self.update(path)
        raise self.fail("a section begins with '*** Add File: ', '*** Delete File: ' or '*** Update File: '")

    def path(self, text: str) -> str:
        path = text.strip()
        if not path or "\0" in path:
            raise self.fail("a path is expected")
        return path

    def addition(self, path: str) -> AddFile:
        lines = []
        while (line := self.peek()) is not None and not line.startswith("*** "):
            if not line.startswith("+"):
                raise self.fail("every line of a new file begins with '+'")
            lines.append(line[1:])
            self.at += 1
        return AddFile(path, tuple(lines))

    def update(self, path: str) -> UpdateFile:
        move_to = None
        if (line := self.peek()) is not None and line.startswith(_MOVE):
            move_to = self.path(line.removeprefix(_MOVE))
            self.at += 1
        hunks = []
        while (line := self.peek()) is not None and (not line.startswith("*** ") or line.strip() == _END_OF_FILE):
            hunks.append(self.hunk())
        if not hunks and move_to is None:
            raise self.fail(f"the section about {path!r} changes nothing")
        return UpdateFile(path, tuple(hunks), move_to)

    def hunk(self) -> Hunk:
        start = self.at
        anchors = tuple(self.anchors())
        old: list[str] = []
        new: list[str] = []
        while (line := self.peek()) is not None and not line.startswith(("@@", "*** ")):
            kind, rest = line[:1], line[1:]
            if kind not in {"", " ", "-", "+"}:
                raise self.fail("a line of a hunk begins with ' ', '-' or '+'")
            if kind != "+":
                old.append(rest)
            if kind != "-":
                new.append(rest)
            self.at += 1
        at_end = line is not None and line.strip() == _END_OF_FILE
        self.at += at_end
        if old == new:
            self.at = start
            raise self.fail("the hunk changes nothing")
        return Hunk(start + 1, anchors, tuple(old), tuple(new), at_end)

    def anchors(self) -> Iterator[str]:
        while (line := self.peek()) is not None and line.startswith("@@"):
            # "@@ -1,2 +3,4 @@" as diff writes it has numbers, which models get wrong, and then a line.
            anchor = re.sub(r"^ -\d+(,\d+)? \+\d+(,\d+)? @@", "", line[2:]).removeprefix(" ")
            if anchor.strip():
                yield anchor
            self.at += 1


def _without_wrapper(lines: list[str]) -> list[str]:
    """Take off the here-document that some models put around a patch."""
    stripped = [line for line in lines if line.strip()]
    opening = re.fullmatch(r"<<-?\s*(['\"]?)(\w+)\1", stripped[0].strip()) if stripped else None
    if opening is None or stripped[-1].strip() != opening[2]:
        return lines
    return stripped[1:-1]


def new_file(change: AddFile) -> bytes:
    """Give the content of a new file; every line ends with a line feed."""
    return "".join(f"{line}\n" for line in change.lines).encode(errors="surrogateescape")


def updated(content: bytes, change: UpdateFile) -> bytes:
    """Give what *content* becomes.

    Line endings, a byte-order mark, bytes that are no UTF-8, and a missing last line break stay as
    they are.  Raises PatchError where a hunk does not fit, or fits in several places.
    """
    if b"\0" in content:
        raise PatchError(f"{change.path!r} is not text")
    text = content.decode(errors="surrogateescape")
    mark = _BOM if text.startswith(_BOM) else ""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text.removeprefix(mark))
    bare = [re.sub(r"\r?\n$", "", line) for line in lines]
    endings = [line[len(kept) :] for line, kept in zip(lines, bare, strict=True)]
    usual = "\r\n" if endings.count("\r\n") > endings.count("\n") else "\n"
    ends_openly = bool(endings) and not endings[-1]

    made: list[str] = []
    done = 0
    for hunk in change.hunks:
        start, end = _place(bare, hunk, done, change.path)
        made += [f"{line}{ending}" for line, ending in zip(bare[done:start], endings[done:start], strict=True)]
        made += _replaced(hunk, bare[start:end], endings[start:end], usual)
        done = end
    made += [f"{line}{ending}" for line, ending in zip(bare[done:], endings[done:], strict=True)]

    # Only the last line may lack its end, and it does if the file's last line did.
    made = [line if line.endswith("\n") else line + usual for line in made]
    if made and ends_openly:
        made[-1] = re.sub(r"\r?\n$", "", made[-1])
    return (mark + "".join(made)).encode(errors="surrogateescape")


def _replaced(hunk: Hunk, found: Sequence[str], endings: Sequence[str], usual: str) -> Iterator[str]:
    """Give the lines that take the place of *found*; lines that stay keep what the file has, to the letter."""
    kept = dict(_aligned(hunk.old, hunk.new))
    for at, line in enumerate(hunk.new):
        if at in kept:
            yield f"{found[kept[at]]}{endings[kept[at]] or usual}"
        else:
            yield f"{line}{usual}"


def _aligned(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pair the lines of *new* that are in *old*, by position, in order."""
    at = 0
    for position, line in enumerate(new):
        for candidate in range(at, len(old)):
            if old[candidate] == line:
                yield position, candidate
                at = candidate + 1
                break


def _place(lines: Sequence[str], hunk: Hunk, start: int, path: str) -> tuple[int, int]:
    """Find the lines that a hunk replaces, at or after *start*."""
    for anchor in hunk.anchors:
        found = _first(lines, [anchor], start)
        if found is None:
            raise PatchError(f"line {hunk.line} of the patch: {path!r} has no line {anchor!r} there")
        start = found + 1
    if not hunk.old:
        place = start if hunk.anchors and not hunk.at_end else len(lines)
        return place, place
    places = _all(lines, hunk.old, start)
    if hunk.at_end:
        places = [place for place in places if place + len(hunk.old) == len(lines)]
    if not places:
        raise PatchError(f"line {hunk.line} of the patch: its lines are not in {path!r} there")
    if len(places) > 1:
        named = ", ".join(str(place + 1) for place in places[:_PLACES_NAMED])
        raise PatchError(
            f"line {hunk.line} of the patch: it fits {path!r} in {len(places)} places (lines {named}): "
            "add more lines around it, or a line '@@ LINE' before it"
        )
    return places[0], places[0] + len(hunk.old)


def _first(lines: Sequence[str], wanted: Sequence[str], start: int) -> int | None:
    places = _all(lines, wanted, start)
    return places[0] if places else None


def _all(lines: Sequence[str], wanted: Sequence[str], start: int) -> list[int]:
    """Find all places of *wanted*, by the strictest comparison that finds any."""
    for loosened in _LOOSER:
        have = [loosened(line) for line in lines]
        want = [loosened(line) for line in wanted]
        places = [at for at in range(start, len(lines) - len(wanted) + 1) if have[at : at + len(want)] == want]
        if places:
            return places
    return []
