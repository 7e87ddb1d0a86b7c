"""What a line of PowerShell or of ``cmd`` does: lists and a strict reading of their own.

These languages are no dialects of the POSIX shell: other characters quote, a parameter is not an
option, and the same name is another program.  So nothing that the POSIX lists call safe is safe
here.  Danger is looked for in both: more of it never loosens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from codex_core.approval.reading import NotSafeError, Reading
from codex_core.approval.tables import frozen, load_table, program_name, try_examples
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

STARTUP_FOLDERS = (
    ".config/powershell",
    ".local/share/powershell",
    "Documents/PowerShell",
    "Documents/WindowsPowerShell",
)
"""Where PowerShell finds profiles and modules of the user's."""
_BEFORE_LINE = {"powershell": {"-noprofile", "-noninteractive", "-nologo"}, "cmd": {"/d", "/q"}}
_LINE = {"powershell": {"-command", "-c"}, "cmd": {"/c"}}
_DEVICES = frozenset({"aux", "com", "con", "conin$", "conout$", "lpt", "nul", "prn"})


_TOKENS = {
    "powershell": r"[ \t]*(?:(?P<joint>\|\||&&|[|;\n])"
    r"|(?:(?P<quoted>'[ -&(-~]*'|\"[ !#%-_a-~]*\")|(?P<bare>[A-Za-z0-9_./\\*:-]+))(?=[ \t|;\n]|&&|$))",
    "cmd": r"[ \t]*(?:(?P<joint>\|\||&&|[|&])"
    r"|(?:(?P<quoted>\"[A-Za-z0-9_ .\\-]*\")|(?P<bare>/?[A-Za-z0-9_.\\*:-]+))(?=[ \t|&]|$))",
}
"""What a line may consist of; nothing may lie between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsCommand:
    """One table of ``data/powershell.toml`` or ``data/cmd.toml``."""

    name: str
    reason: str
    switches: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    path_values: tuple[str, ...] = ()
    operands: tuple[int, int] = (0, 0)
    paths: bool = False
    contents: bool = False
    recursive: tuple[str, ...] = ()

    def read(self, words: Sequence[str], *, piped: bool = False) -> Reading:
        """Say what the command reads when it gets *words*.  Raises NotSafeError if that is not all, or not known."""
        operands: list[str] = []
        paths: list[str] = []
        ahead = list(reversed(words))
        recursive = False
        while ahead:
            word = ahead.pop()
            option = word.casefold()
            if option in self.values and ahead and not ahead[-1].startswith("-"):
                value = ahead.pop()
                paths += [value] if option in self.path_values else []
            elif option in self.switches:
                recursive |= option in self.recursive
            elif word.startswith(("-", "/")):
                raise NotSafeError(f"{word} is not known to be harmless")
            else:
                operands.append(word)
        least, most = self.operands
        if not (0 if piped or paths else least) <= len(operands) <= most:
            raise NotSafeError(f"{self.name} is not known to be harmless with {len(operands)} operands")
        paths += operands if self.paths else []
        for path in paths:
            self._require_plain(path)
        return Reading(
            paths=tuple(path.replace("\\", "/") for path in paths) or ((".",) if recursive else ()),
            recursive=recursive,
        )

    def _require_plain(self, path: str) -> None:
        """Insist that *path* is a file below a folder, and the one that it looks like."""
        if any(sign in path for sign in ":~[]%") or (self.contents and any(sign in path for sign in "*?")):
            raise NotSafeError(f"{path!r} may lead to something else")
        for part in re.split(r"[/\\]", path):
            name = part.partition(".")[0].casefold().rstrip("0123456789")
            if name in _DEVICES or (part.endswith((".", " ")) and part not in {".", ".."}):
                raise NotSafeError(f"{path!r} may lead to something else")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsDanger:
    """One rule that is looked for anywhere in a line."""

    reason: str
    pattern: re.Pattern[str]

    def is_in(self, line: str) -> bool:
        """Say whether *line* has it, whatever is quoted and escaped."""
        return bool(self.pattern.search(re.sub(r"[`^'\"]", "", line).casefold()))


def language_of(program: str) -> str | None:
    """Give the language whose lines *program* runs."""
    return {"powershell": "powershell", "pwsh": "powershell", "cmd": "cmd"}.get(program_name(program))


def read_line(argv: Sequence[str]) -> Iterator[tuple[str, Reading]]:
    """Give what each command of a line is for, and what it reads.  Raises NotSafeError where that is not all."""
    language = language_of(argv[0]) or ""
    ahead = list(reversed(argv[1:]))
    while ahead and ahead[-1].casefold() in _BEFORE_LINE[language]:
        ahead.pop()
    if len(ahead) < 2 or ahead.pop().casefold() not in _LINE[language]:  # noqa: PLR2004 - the option and a line
        raise NotSafeError(f"of {program_name(argv[0])} only a plain line of commands is understood")
    for words, piped in _commands(language, " ".join(reversed(ahead))):
        command = command_named(language, words[0].casefold())
        yield f"{command.name} {command.reason}", command.read(words[1:], piped=piped)


def line_in(argv: Sequence[str]) -> str:
    """Give everything behind the options of a shell of Windows, whether understood or not."""
    at = 1
    while at < len(argv) - 1 and argv[at].startswith(("-", "/")):
        at += 1
    return " ".join(argv[at:])


def _commands(language: str, line: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Give the words of each command, and whether a pipe feeds it.  Raises NotSafeError."""
    token, line = re.compile(_TOKENS[language]), line.strip(" \t\n")
    words: list[str] = []
    at, joint = 0, ";"
    while at < len(line):
        found = token.match(line, at)
        if found is None:
            raise NotSafeError(f"{line[at:].lstrip()[:1]!r} is not understood here (character {at + 1} of the line)")
        at = found.end()
        if found["quoted"]:
            words.append(found["quoted"][1:-1])
            if len(words) == 1 or words[-1].startswith(("-", "/")):
                raise NotSafeError(f"{found['quoted']} may not be what it looks like")
        elif found["bare"]:
            words.append(found["bare"])
        elif not words:
            raise NotSafeError(f"{found['joint']!r} joins nothing")
        else:
            yield tuple(words), joint == "|"
            words, joint = [], found["joint"]
    if words:
        yield tuple(words), joint == "|"
    elif joint not in {";", "\n"}:
        raise NotSafeError(f"{joint!r} joins nothing")


@cache
def command_named(language: str, name: str) -> WindowsCommand:
    """Give what is known to be safe about a command, its examples tried.  Raises NotSafeError if nothing is."""
    table = load_table(language)
    for known, fields in table["safe"].items():
        if name in {known.casefold(), *fields.get("aliases", ())}:
            return windows_command(language, known, fields)
    for why, names in table["ask"].items():
        if name in map(str.casefold, names):
            raise NotSafeError(f"{name} {why}")
    raise NotSafeError(f"{name} is not known to be harmless")


def windows_command(language: str, name: str, table: Mapping[str, Any]) -> WindowsCommand:
    """Make a command from a table of ``data/`` and try its examples, which are whole commands."""
    fields = {key: frozen(value) for key, value in table.items() if key not in {"aliases", "safe", "ask"}}
    made = WindowsCommand(name=name, **fields)
    names = {name.casefold(), *table.get("aliases", ())}

    def read(line: str) -> None:
        for words, piped in _commands(language, line):
            if words[0].casefold() not in names:
                raise NotSafeError(f"{words[0]} is another command")
            made.read(words[1:], piped=piped)

    try_examples(read, table, f"{language}.toml: [safe.{name}]")
    return made


@cache
def dangers_in(language: str) -> tuple[WindowsDanger, ...]:
    """Give the rules for dangerous lines, their examples tried."""
    return tuple(windows_danger(language, table) for table in load_table(language)["dangerous"])


def windows_danger(language: str, table: Mapping[str, Any]) -> WindowsDanger:
    """Make a rule from a table of ``data/`` and try its examples."""
    rule = WindowsDanger(reason=table["reason"], pattern=re.compile(table["pattern"]))
    for expected, lines in ((True, table["match"]), (False, table["not_match"])):
        for line in lines:
            if rule.is_in(line) is not expected:
                msg = f"{language}.toml: {rule.reason}: {line!r} is {'not ' if expected else ''}matched"
                raise ConfigError(msg)
    return rule
