"""The programs whose words are a little language, each understood in a small part that only reads."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from codex_core.approval.reading import NotSafeError, Reading, take_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# What find knows and what neither writes nor starts anything.
_FIND_PLAIN = frozenset(
    {
        "-empty",
        "-true",
        "-false",
        "-print",
        "-print0",
        "-prune",
        "-o",
        "-or",
        "-a",
        "-and",
        "-not",
        "!",
        "(",
        ")",
        ",",
        "-daystart",
        "-depth",
        "-mount",
        "-xdev",
        "-nouser",
        "-nogroup",
        "-readable",
        "-writable",
        "-executable",
        "-quit",
        "-ls",
    }
)
_FIND_VALUE = frozenset(
    {
        "-name",
        "-iname",
        "-path",
        "-ipath",
        "-wholename",
        "-regex",
        "-iregex",
        "-regextype",
        "-type",
        "-size",
        "-mtime",
        "-atime",
        "-ctime",
        "-mmin",
        "-amin",
        "-cmin",
        "-newer",
        "-maxdepth",
        "-mindepth",
        "-perm",
        "-user",
        "-group",
        "-uid",
        "-gid",
        "-links",
        "-inum",
        "-lname",
        "-ilname",
        "-printf",
    }
)


def _read_find(words: Sequence[str], *, piped: bool) -> Reading:  # noqa: ARG001 - all grammars get it
    paths: list[str] = []
    ahead = list(reversed(words))
    if ahead and ahead[-1] in {"-P", "-H"}:
        ahead.pop()
    while ahead and not ahead[-1].startswith("-") and ahead[-1] not in {"(", ")", "!", ","}:
        paths.append(ahead.pop())
    while ahead:
        word = ahead.pop()
        if word in _FIND_VALUE:
            take_value(word, ahead)
        elif word not in _FIND_PLAIN:
            raise NotSafeError(f"{word} is not known to be harmless")
    return Reading(paths=tuple(paths) or (os.curdir,), recursive=True)


# Programs do not agree on whether a slash in brackets ends an expression, so there are none.
_BRACKETS = r"\[(?:\^\]|\]|\^(?!\])|(?![\]^]))(?:\[:[a-z]+:\]|[^\[\]/\\\n])*\]"
_REGEX = rf"(?:[^/\\\[\n]|\\[^/\n]|{_BRACKETS})*"

# An address, then one command of those that neither write, read, nor run anything.
_SED_ADDRESS = rf"(?:[0-9]+(?:~[0-9]+)?|\$|/{_REGEX}/)"
_SED_COMMAND = (
    rf"(?:{_SED_ADDRESS}(?:,(?:{_SED_ADDRESS}|\+[0-9]+))?)?"
    rf"(?:[pdq=]|s/{_REGEX}/(?:[^/\\\n]|\\[^/\n])*/[gpiI0-9]*)"
)
_SED_SCRIPT = re.compile(rf"{_SED_COMMAND}(?:; *{_SED_COMMAND})*")


def _read_sed(words: Sequence[str], *, piped: bool) -> Reading:
    """Read options, then a script, then files: in no other order."""
    ahead = list(reversed(words))
    scripts = []
    while ahead and re.fullmatch(r"-[nErsuz]+|-n?e", ahead[-1]):
        option = ahead.pop()
        if option.endswith("e"):
            scripts.append(take_value(option, ahead))
    if not scripts:
        scripts.append(take_value("script", ahead))
    for script in scripts:
        if not _SED_SCRIPT.fullmatch(script):
            raise NotSafeError(f"the script {script!r} is not known to be harmless")
    return _files(reversed(ahead), piped=piped)


_AWK_ITEM = r"(?:\$(?:[0-9]+|NF)|NR|NF|\"[^\"\\\n]*\")"
_AWK_PROGRAM = re.compile(
    rf" *(?:/{_REGEX}/|N[RF] *(?:==|!=|>=|<=|>|<) *[0-9]+(?: *&& *N[RF] *(?:==|!=|>=|<=|>|<) *[0-9]+)?)?"
    rf" *(?:\{{ *print *(?:{_AWK_ITEM}(?: *,? *{_AWK_ITEM})*)? *;? *\}})? *"
)


def _read_awk(words: Sequence[str], *, piped: bool) -> Reading:
    ahead = list(reversed(words))
    if ahead and ahead[-1].startswith("-F"):
        option = ahead.pop()
        if option == "-F":
            take_value(option, ahead)
    program = take_value("program", ahead)
    if not program.strip() or not _AWK_PROGRAM.fullmatch(program):
        raise NotSafeError(f"the program {program!r} is not known to be harmless")
    if any(re.match(r"[A-Za-z_]\w*=", word) for word in ahead):
        raise NotSafeError("an assignment is no file, so it may wait for input")
    return _files(reversed(ahead), piped=piped)


def _files(words: Iterable[str], *, piped: bool) -> Reading:
    paths = tuple(words)
    if any(path.startswith("-") for path in paths):
        raise NotSafeError("an option is too late to be told from a file")
    if not paths and not piped:
        raise NotSafeError("it would wait for input")
    return Reading(paths=paths)


_JQ_NAMES = frozenset({
    "add", "all", "and", "any", "arrays", "ascii_downcase", "ascii_upcase", "base64", "base64d", "contains", "csv",
    "del", "elif", "else", "empty", "end", "endswith", "false", "first", "flatten", "from_entries", "fromjson",
    "group_by", "has", "html", "if", "in", "index", "inside", "join", "json", "keys", "keys_unsorted", "last",
    "length", "ltrimstr", "map", "map_values", "max", "max_by", "min", "min_by", "not", "null", "numbers",
    "objects", "or", "paths", "reverse", "rtrimstr", "select", "sh", "sort", "sort_by", "split", "startswith",
    "strings", "test", "text", "then", "to_entries", "tojson", "tonumber", "tostring", "true", "tsv", "type",
    "unique", "unique_by", "uri", "values", "with_entries",
})  # fmt: skip
_JQ_OPTIONS = frozenset(
    {"--color-output", "--compact-output", "--exit-status", "--join-output", "--monochrome-output", "--null-input"}
    | {"--raw-output", "--slurp", "--sort-keys", "--tab"}
)


def _read_jq(words: Sequence[str], *, piped: bool) -> Reading:
    """Read options, then a filter that ends by itself and does not ask for the environment, then files."""
    ahead = list(reversed(words))
    given: list[str] = []
    while ahead and (ahead[-1] in _JQ_OPTIONS or re.fullmatch(r"-[CMSacejnrs]+", ahead[-1])):
        given.append(ahead.pop())
    script = take_value("filter", ahead)
    if script.startswith("-"):  # the word behind "--" is the filter, since jq 1.7
        raise NotSafeError(f"{script} is not known to be harmless")
    outside = re.sub(r'"[^"\\]*"', "", script)
    names = re.findall(r"(?<![.\w])[A-Za-z_]\w*", outside)
    if not re.fullmatch(r"[\w\s.,:|()\[\]{}+/<>=!?@-]+", outside) or not _JQ_NAMES.issuperset(names):
        raise NotSafeError(f"the filter {script!r} is not known to be harmless")
    no_input = any(option == "--null-input" or re.fullmatch(r"-\w*n\w*", option) for option in given)
    return _files(reversed(ahead), piped=piped or no_input)


_TEST_OF_FILE = frozenset({"-b", "-c", "-d", "-e", "-f", "-h", "-L", "-p", "-r", "-s", "-S", "-w", "-x"})


def _read_test(words: Sequence[str], *, piped: bool) -> Reading:  # noqa: ARG001 - as above
    """Read one test; -v and the like evaluate what they are given."""
    match words:
        case ["!", *rest] if rest[:1] != ["!"]:
            return _read_test(rest, piped=False)
        case [operator, path] if operator in _TEST_OF_FILE:
            return Reading(paths=(path,))
        case ["-n" | "-z", _]:
            return Reading()
        case [_, "=" | "!=", _]:
            return Reading()
    raise NotSafeError("this test is not known to be harmless")


def _read_bracket(words: Sequence[str], *, piped: bool) -> Reading:
    if not words or words[-1] != "]":
        raise NotSafeError("[ is not closed")
    return _read_test(words[:-1], piped=piped)


def _read_printf(words: Sequence[str], *, piped: bool) -> Reading:  # noqa: ARG001 - as above
    """Read a format of strings only: numbers are evaluated by some shells, and %n assigns."""
    if not words or not re.fullmatch(r"(?!-)(?:[^%]|%%|%-?[0-9]{0,3}s)*", words[0]):
        raise NotSafeError("of printf only %s is known to be harmless")
    return Reading()


def _read_lookup(words: Sequence[str], *, piped: bool) -> Reading:  # noqa: ARG001 - as above
    match words:
        case ["-v", *names] if names and all(re.fullmatch(r"[A-Za-z0-9._+][A-Za-z0-9._+-]*", name) for name in names):
            return Reading()
    raise NotSafeError("of command only -v NAME is known to be harmless")


GRAMMARS: dict[str, Callable[..., Reading]] = {
    "awk": _read_awk,
    "bracket": _read_bracket,
    "find": _read_find,
    "jq": _read_jq,
    "lookup": _read_lookup,
    "printf": _read_printf,
    "sed": _read_sed,
    "test": _read_test,
}
