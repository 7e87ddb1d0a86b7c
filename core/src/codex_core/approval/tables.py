"""The tables that say what is safe, what is dangerous, and what runs something else.

They are TOML files in ``data/``, with reasons and examples.  What they say about a program is made
when that program is first judged, and its examples are tried before it is used: a table that does not
do what it says is an error and not a hole, and who judges one command does not pay for all others.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from codex_core.approval.reading import MANY, NotSafeError, Options, Reading
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PLAIN_FIELDS = ("short", "short_value", "short_optional", "number", "apart")


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeProgram:
    """One table of ``data/safe.toml``."""

    name: str
    reason: str
    options: Options
    operands: tuple[int, int] = (0, MANY)
    paths: str = "all"
    pattern_options: tuple[str, ...] = ()
    recursive: bool | tuple[str, ...] = False
    contents: bool = False
    each: str = ""
    never: str = ""
    follows: bool = False
    grammar: str = ""
    exactly: tuple[str, ...] = ()
    builtin: bool = False
    anything: bool = False
    closed_by: tuple[str, ...] = ()
    startup: tuple[str, ...] = ()
    """What it reads first of the home."""

    def read(self, words: Sequence[str], *, piped: bool = False) -> Reading:
        """Say what the program reads when it gets *words*; *piped* if its input is another's output.

        Raises NotSafeError if that is not all it does, or not known.
        """
        if self.anything or tuple(words) == ("--version",):
            return Reading()
        for word in words:
            if self.never and re.search(self.never, word):
                msg = f"{word!r} is not known to be harmless"
                raise NotSafeError(msg)
        if self.exactly:
            if " ".join(words) not in self.exactly:
                msg = f"of {self.name} only {' or '.join(self.exactly)} is known to be harmless"
                raise NotSafeError(msg)
            return Reading()
        if self.grammar:
            from codex_core.approval.grammars import GRAMMARS

            return GRAMMARS[self.grammar](words, piped=piped)
        return self._read_options(words, piped=piped)

    def _read_options(self, words: Sequence[str], *, piped: bool) -> Reading:
        seen, operands = self.options.split(words, mixed=True)
        recursive = self.recursive if isinstance(self.recursive, bool) else not seen.isdisjoint(self.recursive)
        has_pattern = not seen.isdisjoint(self.pattern_options)
        least, most = self.operands
        if has_pattern:
            least -= 1
        if len(operands) > most:
            msg = f"{self.name} does more with {len(operands)} operands than read"
            raise NotSafeError(msg)
        walks_here = recursive and self.paths == "rest" and (operands or has_pattern)
        if len(operands) < least and not piped and not walks_here:
            msg = f"{self.name} would wait for input"
            raise NotSafeError(msg)
        for operand in operands:
            if self.each and not re.fullmatch(self.each, operand):
                msg = f"the operand {operand!r} is not known to be harmless"
                raise NotSafeError(msg)
        paths = {"all": operands, "rest": operands if has_pattern else operands[1:], "none": ()}[self.paths]
        if recursive and not paths:
            paths = (os.curdir,)
        if "-" in paths and not piped:
            msg = f"{self.name} would wait for input"
            raise NotSafeError(msg)
        return Reading(
            paths=tuple(path for path in paths if path != "-"),
            recursive=recursive,
            contents=self.contents and "--files" not in seen,
            follows=self.follows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """One table of ``data/wrappers.toml``: a program that runs another."""

    name: str
    options: Options
    operands: int = 0
    assignments: bool = False
    reads: bool = False

    def unwrap(self, words: Sequence[str]) -> tuple[str, ...]:
        """Give the words of the inner command, none if there is none.

        Raises NotSafeError at an option that is not known.
        """
        _, rest = self.options.split(words, mixed=False)
        while self.assignments and rest and "=" in rest[0]:
            rest = rest[1:]
        return rest[self.operands :]


@dataclass(frozen=True, slots=True, kw_only=True)
class DangerRule:
    """One rule of ``data/dangerous.toml``: it matches when all that it says holds."""

    reason: str
    program: tuple[str, ...]
    first: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()
    option: tuple[str, ...] = ()
    word: tuple[str, ...] = ()

    def matches(self, argv: Sequence[str]) -> bool:
        """Say whether the rule speaks about *argv*."""
        words = argv[1:]
        return (
            any(is_like(program_name(argv[0]), name) for name in self.program)
            and (not self.first or _first_operand(words, self.skip) in self.first)
            and (not self.option or any(_has_option(words, option) for option in self.option))
            and (not self.word or any(re.fullmatch(pattern, word) for word in words for pattern in self.word))
        )


@lru_cache(maxsize=32)  # each table asks for the same few; a word may be long
def program_name(word: str) -> str:
    """Give the last component of the word that names a program, as Unix and Windows write paths."""
    return word.replace("\\", "/").rpartition("/")[2].removesuffix(".exe").casefold()


def _first_operand(words: Sequence[str], skip: frozenset[str]) -> str:
    ahead = list(reversed(words))
    while ahead:
        word = ahead.pop()
        if word in skip and ahead:
            ahead.pop()
        elif not word.startswith("-"):
            return word
    return ""


def _has_option(words: Sequence[str], option: str) -> bool:
    """Look for *option* bundled with others, with a value, or abbreviated; generous on purpose."""
    for word in words:
        if word == "--":
            return False
        if option.startswith("--"):
            name = word.partition("=")[0]
            if len(name) > len("--") and option.startswith(name):
                return True
        elif word.startswith("-") and not word.startswith("--") and option[1] in word[1:]:
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """``data/secrets.toml``."""

    names: tuple[str, ...]
    harmless: tuple[str, ...]
    contents: tuple[str, ...]
    variables: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    public: tuple[str, ...]

    def named_in(self, path: str) -> str | None:
        """Give the part of *path* that is likely to hold a secret."""
        parts = [part for part in re.split(r"[/\\]", path.casefold()) if part]
        for part in parts:
            if any(is_like(part, name) for name in self.names) and not any(
                is_like(part, name) for name in self.harmless
            ):
                return part
        for row in self.rows:
            for at in range(len(parts) - len(row) + 1):
                if all(is_like(part, name) for part, name in zip(parts[at:], row, strict=False)):
                    return "/".join(parts[at : at + len(row)])
        return None

    def is_variable(self, name: str) -> bool:
        """Say whether a variable of this name is likely to hold a secret."""
        return any(is_like(name.casefold(), pattern) for pattern in self.variables)

    def is_content(self, name: str) -> bool:
        """Say whether a file of this name holds a secret, whatever lies around it."""
        name = name.casefold()
        return bool(_one_of(self.contents)(name)) and not _one_of(self.harmless)(name)


@cache
def _one_of(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    """Match many names against all patterns at once; the first pays for the regular expression."""
    return re.compile("|".join(map(translate, patterns))).match


def is_like(text: str, pattern: str) -> bool:
    """Match as fnmatch does, which compiles a regular expression for each pattern: too slow for a first command."""
    inner = pattern.strip("*")
    if any(sign in inner for sign in "*?["):
        return fnmatchcase(text, pattern)
    if pattern.startswith("*"):
        return inner in text if pattern.endswith("*") else text.endswith(inner)
    return text.startswith(inner) if pattern.endswith("*") else text == inner


@lru_cache(maxsize=1024)
def safe_named(name: str) -> SafeProgram | None:
    """Give what is known to be safe about a program, its examples tried; None if nothing is."""
    table = load_table("safe").get(name)
    return None if table is None else safe_program(name, table)


@lru_cache(maxsize=1024)
def wrapper_named(name: str) -> Wrapper | None:
    """Give how a program runs another, its examples tried; None if it does not."""
    table = load_table("wrappers").get(name)
    return None if table is None else wrapper(name, table)


@lru_cache(maxsize=1024)
def dangers_of(name: str) -> tuple[DangerRule, ...]:
    """Give the rules that may speak about a program, their examples tried."""
    rules = load_table("dangerous")["rule"]
    return tuple(
        _danger_rule(at) for at, rule in enumerate(rules) if any(is_like(name, known) for known in rule["program"])
    )


@cache
def _danger_rule(at: int) -> DangerRule:
    return danger_rule(load_table("dangerous")["rule"][at])


def dangerous_names() -> frozenset[str]:
    """Give the names of all programs that rules may speak about, without those that are patterns."""
    return frozenset(name for rule in load_table("dangerous")["rule"] for name in rule["program"] if name.isalnum())


@cache
def secrets() -> Secrets:
    """Give what is likely to hold a secret."""
    return Secrets(**{key: frozen(value) for key, value in load_table("secrets").items()})


def safe_program(name: str, table: Mapping[str, Any]) -> SafeProgram:
    """Make a safe program from a table of ``safe.toml`` and try its examples."""
    rest, options = options_of({key: value for key, value in table.items() if key not in {"safe", "ask"}})
    program = SafeProgram(name=name, options=options, **{key: frozen(value) for key, value in rest.items()})
    try_examples(lambda line: program.read(shlex.split(line)[1:]), table, f"safe.toml: [{name}]")
    return program


def try_examples(read: Callable[[str], object], table: Mapping[str, Any], place: str) -> None:
    """Insist that *read* refuses the examples that *table* lists as ``ask``, and not those listed as ``safe``."""
    for expected in ("safe", "ask"):
        for line in table[expected]:
            try:
                read(line)
            except NotSafeError:
                found = "ask"
            else:
                found = "safe"
            if found != expected:
                msg = f"{place}: the example {line!r} is {found}, not {expected}"
                raise ConfigError(msg)


def wrapper(name: str, table: Mapping[str, Any]) -> Wrapper:
    """Make a wrapper from a table of ``wrappers.toml`` and try its examples."""
    rest, options = options_of(table)
    examples = rest.pop("inner")
    made = Wrapper(name=name, options=options, **rest)
    for line, expected in examples:
        found = made.unwrap(shlex.split(line)[1:])
        if list(found) != shlex.split(expected):
            msg = f"wrappers.toml: [{name}]: {line!r} gives {found!r}, not {expected!r}"
            raise ConfigError(msg)
    return made


def danger_rule(table: Mapping[str, Any]) -> DangerRule:
    """Make a rule from a table of ``dangerous.toml`` and try its examples."""
    rest = dict(table)
    examples = {True: rest.pop("match"), False: rest.pop("not_match")}
    rest["first"] = frozenset(rest.get("first", ()))
    rest["skip"] = frozenset(rest.get("skip", ()))
    rule = DangerRule(**{key: frozen(value) for key, value in rest.items()})
    for expected, lines in examples.items():
        for line in lines:
            if rule.matches(shlex.split(line)) is not expected:
                msg = f"dangerous.toml: {rule.reason}: {line!r} is {'not ' if expected else ''}matched"
                raise ConfigError(msg)
    return rule


def options_of(table: Mapping[str, Any]) -> tuple[dict[str, Any], Options]:
    """Take the fields of Options out of *table*."""
    rest = dict(table)
    given: dict[str, Any] = {name: rest.pop(name) for name in _PLAIN_FIELDS if name in rest}
    given |= {name: frozenset(rest.pop(name)) for name in ("long", "long_value", "long_optional") if name in rest}
    return rest, Options(**given)


def frozen(value: Any) -> Any:  # noqa: ANN401 - a TOML value is of any type
    """Give a value from a table with its lists as tuples."""
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


@cache
def load_table(name: str) -> dict[str, Any]:
    """Read one file of ``data/`` as it is, once."""
    import tomli

    with open(os.path.join(os.path.dirname(__file__), "data", f"{name}.toml"), "rb") as file:
        return tomli.load(file)
