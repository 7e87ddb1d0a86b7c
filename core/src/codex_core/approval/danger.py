"""Look for danger in what a command, or a shell line, could run.

The search errs on the side of asking: it follows wrappers, nested shells, substitutions, here-documents
and code handed to interpreters, and takes what it cannot follow any further for dangerous.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

from codex_core.approval.command import UNKNOWN, shorten, survey
from codex_core.approval.reading import NotSafeError
from codex_core.approval.tables import dangerous_names, dangers_of, load_table, program_name, secrets, wrapper_named
from codex_core.approval.windows import dangers_in, language_of, line_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from codex_core.approval.command import Stage

_DEEPEST = 10
"""Shells within shells, and wrappers within wrappers, beyond this are dangerous by themselves."""
_WORDS_TRIED = 16
"""How many words may be the inner command, where a wrapper's options are not understood."""
_SCRIPT_FROM_INPUT = frozenset(
    {"", "-", "-s", "-x", "-e", "-i", "-l", "-u", "--", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}
)


class Danger(Exception):  # noqa: N818 - it is found, not an error, and never leaves this package
    """What is dangerous about a command."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """``data/programs.toml``."""

    shells: frozenset[str]
    lines: frozenset[str]
    code: Mapping[str, tuple[str, ...]]
    network: frozenset[str]
    raw: frozenset[str]
    environment: frozenset[str]
    writers: frozenset[str]
    last: frozenset[str]
    system: tuple[str, ...]
    open: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    patterns: tuple[tuple[str, re.Pattern[str]], ...]


@cache
def kinds() -> Kinds:
    """Load the kinds of programs, once."""
    table: dict[str, Any] = load_table("programs")
    says = {
        "destroys": "the code that it is given destroys",
        "hides": "the code that it is given hides what it does",
        "fetches": "the code that it is given runs what comes from elsewhere",
    }
    return Kinds(
        shells=frozenset(table["shells"]),
        lines=frozenset(table["lines"]),
        code={name.casefold(): tuple(options) for name, options in table["code"].items()},
        **{name: frozenset(names) for name, names in table["lists"].items()},
        system=tuple(table["critical"]["system"]),
        open=tuple(table["critical"]["open"]),
        names=tuple(tuple(name.casefold().split("/")) for name in table["critical"]["names"]),
        patterns=tuple(
            (says[name], re.compile(text.strip(), re.DOTALL | re.IGNORECASE))
            for name, text in table["code_patterns"].items()
        ),
    )


def danger_in_words(words: Sequence[str]) -> str | None:
    """Say what is dangerous about a plain command, None if nothing is found."""
    try:
        _look_at_words(tuple(words), 0)
    except Danger as found:
        return str(found)
    return None


def danger_in_line(line: str) -> str | None:
    """Say what is dangerous about a shell line, None if nothing is found."""
    try:
        _look_at_line(line, 0)
    except Danger as found:
        return str(found)
    return None


def _look_at_line(line: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise Danger("it is nested too deeply to be understood")
    try:
        seen = survey(line)
        if seen.multiplies:
            raise Danger("it starts itself without end")
        for pipeline in seen.pipelines:
            _look_at_pipeline(pipeline, depth)
        stages = [stage for pipeline in seen.pipelines for stage in pipeline if stage.words]
        _look_for_download(stages)
        _refuse_secret_variables(line, stages)
    except RecursionError as error:
        raise Danger("it is nested too deeply to be understood") from error


def _look_at_pipeline(stages: Sequence[Stage], depth: int) -> None:
    for place, stage in enumerate(stages):
        for target in stage.writes:
            _refuse_critical(target, "a redirection")
        if any(re.match(r"/dev/(tcp|udp)/", source) for source in stage.reads):
            raise Danger("a redirection: reads from the network")
        if stage.words:
            _look_at_words(stage.words, depth)
            _look_at_input(stage, place > 0, depth)
        for name in _networked(stage):
            if name in kinds().raw and place > 0:
                raise Danger(f"{name}: sends what another command prints")
            for source in [*stages[:place], stage, *stage.inner]:
                _refuse_leak(source, name, same=source is stage)


def _look_for_download(stages: Sequence[Stage]) -> None:
    """Refuse to run in one line what the same line fetches."""
    fetched: set[str] = set()
    for stage in stages:
        for command in unwrapped(stage.words):
            name = program_name(command[0])
            runs = [command[0], *(command[1:] if name in kinds().shells or _code_options(name) else [])]
            runs += command[1:2] if name in {"source", ".", "chmod"} else []
            if any(os.path.basename(word) in fetched for word in runs if word):
                raise Danger(f"{name}: runs what the line fetches")
            if name in kinds().network:
                fetched |= {os.path.basename(target) for target in stage.writes}
                fetched |= {os.path.basename(word.partition("=")[2] or word) for word in command[1:]}
            elif fetched and name == "tee":
                fetched |= {os.path.basename(word) for word in command[1:]}


def _look_at_words(words: tuple[str, ...], depth: int) -> None:
    if depth > _DEEPEST:
        raise Danger("it is nested too deeply to be understood")
    for command in unwrapped(words):
        for candidate in _candidates(command):
            for rule in dangers_of(program_name(candidate[0])):
                if rule.matches(candidate):
                    raise Danger(f"{program_name(candidate[0])}: {rule.reason}")
        _look_at_windows_line(command)
        _look_at_writing(command)
        _look_at_nested(command, depth)
        _look_at_code(command)


def _candidates(command: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Give *command*, and for a name with a glob or unknown parts, each dangerous name that it may be."""
    yield command
    name = program_name(command[0])
    if UNKNOWN in name:
        if any(re.fullmatch(r"-[rRf]{2,}", word) for word in command[1:]):
            yield ("rm", *command[1:])
    elif any(sign in name for sign in "*?["):
        for known in sorted(dangerous_names()):
            if fnmatchcase(known, name):
                yield (known, *command[1:])


def unwrapped(argv: Sequence[str], depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Give *argv* and every command that it would run through ``env``, ``sudo``, ``xargs``, ``find -exec``, ...

    Where a wrapper's options are not understood, everything that could be the inner command is given.
    Raises Danger for wrappers without end.
    """
    if not argv:
        return
    if depth > _DEEPEST:
        raise Danger("it is nested too deeply to be understood")
    yield tuple(argv)
    name = program_name(argv[0])
    if name in {"find", "fd", "fdfind", "gfind"}:
        inner_commands = list(_executed_by_find(argv))
    elif (wrapper := wrapper_named(name)) is not None:
        inner_commands = [tuple(argv[at:]) for at in range(1, min(len(argv), _WORDS_TRIED))]
        with suppress(NotSafeError):
            inner_commands = [wrapper.unwrap(argv[1:])]
        if name == "env":
            inner_commands += [_split_string(word) for word in argv[1:]]
    else:
        return
    for inner in inner_commands:
        yield from unwrapped(inner, depth + 1)


def _split_string(word: str) -> tuple[str, ...]:
    """Give the words that ``env -S`` makes of one."""
    text = re.sub(r"^(-\w*S|--split-string=?)", "", word)
    return tuple(text.split()) if " " in text else ()


def _executed_by_find(argv: Sequence[str]) -> Iterator[tuple[str, ...]]:
    words = iter(argv)
    for word in words:
        if word in {"-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"}:
            yield tuple(takewhile(lambda following: following not in {";", "+"}, words))


def _look_at_windows_line(command: tuple[str, ...]) -> None:
    language = language_of(command[0])
    for rule in dangers_in(language) if language else ():
        if rule.is_in(" ".join(command[1:])):
            raise Danger(f"{program_name(command[0])}: {rule.reason}")


def _look_at_nested(command: tuple[str, ...], depth: int) -> None:
    """Follow the shell lines inside words, and refuse those that only running would tell."""
    name = program_name(command[0])
    if name in {"source", "."} and any(word.startswith((UNKNOWN, "http")) for word in command[1:]):
        raise Danger(f"{name}: what it would run is only known when it runs")
    if name in kinds().shells and shell_script(command) is None and any(UNKNOWN in word for word in command[1:2]):
        raise Danger(f"{name}: what it would run is only known when it runs")
    for line in nested_lines(command):
        if UNKNOWN in line and not line.strip(f"{UNKNOWN} ") and name in {*kinds().shells, "eval"}:
            raise Danger(f"{name}: what it would run is only known when it runs")
        _look_at_line(line.replace(UNKNOWN, "_"), depth + 1)


def nested_lines(command: Sequence[str]) -> list[str]:
    """Give the shell lines that *command* would run from its words: ``sh -c``, ``eval``, ``ssh host``, ..."""
    name = program_name(command[0])
    if name in kinds().shells:
        script = shell_script(command)
        return [] if script is None else [script]
    if language_of(name):
        return [line_in(command)]
    if name not in kinds().lines:
        return []
    words = [word.partition("=")[2] or word if name == "alias" else word for word in command[1:]]
    suffixes = [" ".join(words[at:]) for at in range(min(len(words), _WORDS_TRIED))]
    return [*suffixes, *(word for word in words if " " in word)]


def possible_commands(argv: Sequence[str]) -> tuple[list[tuple[str, ...]], bool]:
    """Give everything that *argv* could run, itself first, and whether that is all that can be made out."""
    found: list[tuple[str, ...]] = []
    try:
        _collect(tuple(argv), 0, found)
    except (Danger, RecursionError):
        return found, False
    return found, True


def _collect(argv: tuple[str, ...], depth: int, found: list[tuple[str, ...]]) -> None:
    if depth > _DEEPEST:
        raise Danger("it is nested too deeply to be understood")
    for command in unwrapped(argv):
        found.append(command)
        for line in nested_lines(command):
            for pipeline in survey(line.replace(UNKNOWN, "_")).pipelines:
                for stage in pipeline:
                    _collect(stage.words, depth + 1, found)


def shell_script(command: Sequence[str]) -> str | None:
    """Give the script of ``sh -c SCRIPT``, None for any other call of a shell."""
    for at, word in enumerate(command[1:], start=1):
        if word == "--" or not word.startswith(("-", "+")):
            return None
        if re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*", word):
            rest = [following for following in command[at + 1 :] if not re.fullmatch(r"[-+][a-zA-Z]+|--", following)]
            return rest[0] if rest else None
        if word in {"-o", "+o", "-O", "+O", "--rcfile", "--init-file"}:
            return shell_script((command[0], *command[at + 2 :]))
    return None


def _look_at_input(stage: Stage, piped: bool, depth: int) -> None:  # noqa: FBT001 - private, and named where called
    """Refuse a shell or an interpreter that reads its program from a pipe, or a bad one from a here-document."""
    for command in unwrapped(stage.words):
        name = program_name(command[0])
        is_shell = name in kinds().shells
        runs_input = is_shell or (
            _code_options(name) not in {None, ("",)} and name not in {"vim", "vi", "nvim", "psql"}
        )
        operands = [word for word in command[1:] if word not in _SCRIPT_FROM_INPUT]
        if is_shell and "-s" in command[1:]:
            operands = []
        if not runs_input or operands:
            continue
        if stage.fed is not None:
            if is_shell:
                _look_at_line(stage.fed, depth + 1)
            else:
                _refuse_code(name, stage.fed)
        elif piped:
            raise Danger(f"{name}: runs what another command prints")
    for command in unwrapped(stage.words):
        wrapper = wrapper_named(program_name(command[0]))
        if wrapper is not None and wrapper.reads:
            inner = list(unwrapped(command))[-1]
            if program_name(inner[0]) in kinds().shells:
                raise Danger(f"{program_name(inner[0])}: runs what another command prints")


@lru_cache(maxsize=256)
def _code_options(name: str) -> tuple[str, ...] | None:
    for known, options in kinds().code.items():
        if fnmatchcase(name, known):
            return options
    return None


def _look_at_code(command: tuple[str, ...]) -> None:
    name = program_name(command[0])
    options = _code_options(name)
    if options is None:
        return
    for at, word in enumerate(command[1:], start=1):
        if options == ("",):
            if not word.startswith("-"):
                _refuse_code(name, word)
        elif any(word == option and at + 1 < len(command) for option in options):
            _refuse_code(name, " ".join(command[at + 1 :]))
        elif any(len(option) == len("-c") and re.match(rf"-\w*{option[1]}", word) for option in options):
            _refuse_code(name, " ".join(command[at:]))


def _refuse_code(name: str, code: str) -> None:
    if UNKNOWN in code and not code.strip(f"{UNKNOWN} "):
        raise Danger(f"{name}: what it would run is only known when it runs")
    for says, pattern in kinds().patterns:
        if pattern.search(code):
            raise Danger(f"{name}: {says}")


def _look_at_writing(command: tuple[str, ...]) -> None:
    name = program_name(command[0])
    operands = [word for word in command[1:] if not word.startswith("-")]
    options = [word for word in command[1:] if word.startswith("-")]
    if name in kinds().last:
        if name in {"wget", "curl"}:
            operands = [after for word, after in pairwise(command) if re.fullmatch(r"-\w*[oOP]|--output.*", word)]
        operands = operands[-1:]
    elif name in {"sed", "perl"} and any(re.match(r"-\w*i|--in-place", option) for option in options):
        operands = operands[1:]
    elif name not in kinds().writers:
        return
    for operand in operands:
        for path in (operand.removeprefix("of="), operand.partition("=")[2]):
            # What a link leads to is only worth asking about where writing through it does harm.
            _refuse_critical(path, name, names_only=name == "ln")


def _refuse_critical(path: str, name: str, *, names_only: bool = False) -> None:
    cleaned = os.path.normpath(path.replace(UNKNOWN, "_")) if path else ""
    if cleaned in {"~", "~/*", "/", "/*"} and not names_only:
        raise Danger(f"{name}: changes all that is in {shorten(path)!r}")
    parts = [part.casefold() for part in cleaned.split("/")]
    for row in kinds().names:
        for at in range(len(parts) - len(row) + 1):
            if tuple(parts[at : at + len(row)]) == row:
                raise Danger(f"{name}: changes {shorten(path)!r}, which the login, git or codex relies on")
    if re.match(r"/dev/(tcp|udp)/", cleaned):
        raise Danger(f"{name}: sends to the network")
    if names_only or any(cleaned == place or cleaned.startswith(f"{place}/") for place in kinds().open):
        return
    if any(cleaned == place or cleaned.startswith(f"{place}/") for place in kinds().system):
        raise Danger(f"{name}: changes {shorten(path)!r}, which belongs to the system")


def _networked(stage: Stage) -> Iterator[str]:
    for command in unwrapped(stage.words):
        if (name := program_name(command[0])) in kinds().network:
            yield name
    if any(target.startswith(("/dev/tcp/", "/dev/udp/")) for target in stage.writes):
        yield "a redirection"


def _refuse_secret_variables(line: str, stages: Sequence[Stage]) -> None:
    """Refuse to send a variable that is named like a secret, but to whom it authorizes."""
    for network in (name for stage in stages for name in _networked(stage)):
        for variable in re.findall(r"(?<!Bearer )(?<!token )\$\{?([A-Za-z_]\w*)", line, re.IGNORECASE):
            if secrets().is_variable(variable):
                raise Danger(f"{network}: would send a secret (${variable})")


def _refuse_leak(source: Stage, network: str, *, same: bool) -> None:
    """Refuse a secret, or the environment, on its way into a program that can send it."""
    for command in unwrapped(source.words):
        name = program_name(command[0])
        prints_environment = name in kinds().environment and len(list(unwrapped(command))) == 1
        if prints_environment and not same and all(word.startswith("-") for word in command[1:]):
            raise Danger(f"{network}: would send the environment")
        for word in (*command[1:], *source.reads):
            for part in re.split(r"[=@<,;]", word):
                if "://" not in part and (secret := secrets().named_in(part)):
                    raise Danger(f"{network}: would send a secret ({secret})")
