"""What a shell line really runs.

Two questions, two answers, and each errs to its own side:

* :func:`programs` gives exactly the programs and words that bash would run, or raises
  :class:`NotSimpleError`.  Only a small part of the language is let through, and every character of
  the line is accounted for, so nothing is called simple by oversight.
* :func:`survey` gives everything that the line could run, as far as it can be made out, whatever the
  line holds.  It looks for danger, and guesses rather than misses.

Both read the tree that tree-sitter-bash makes of the line.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from codex_core.approval.reading import NotSafeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tree_sitter import Node, Parser

UNKNOWN = "\0"
"""Stands in a surveyed word for what only running the line would tell; no real word can hold it."""
_BREAK = "\x1f"
"""Where an unquoted expansion is split into several words."""
_BRACES_AT_MOST = 256
_EXPANDED_AT_MOST = 1_000_000
"""Characters that variables may become in one line."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@%+,-][A-Za-z0-9_./:@%+,=-]*")
"""Unquoted text that means itself in bash, dash, ksh and zsh."""
_QUOTED_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_RESERVED = frozenset({
    "!", "[[", "]]", "{", "}", "case", "coproc", "do", "done", "elif", "else", "end", "esac", "fi", "for", "foreach",
    "function", "if", "in", "nocorrect", "noglob", "repeat", "select", "then", "time", "until", "while",
})  # fmt: skip


class NotSimpleError(NotSafeError):
    """A line is not provably simple; *at* is where in the line, counted in characters."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(f"{reason} (character {at + 1} of the line)")
        self.reason = reason
        self.at = at


@dataclass(frozen=True, slots=True)
class Program:
    """One program of a simple line."""

    words: tuple[str, ...]
    piped: bool = False
    """Its input is the output of the program before it."""


@cache
def _parser() -> Parser:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _parse(line: str) -> Node:
    return _parser().parse(line.encode(errors="surrogateescape")).root_node


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="surrogateescape")


# The strict reading


def programs(line: str) -> tuple[Program, ...]:
    """Give the programs that *line* runs, with their words, in order.

    Simple is: programs with plain or quoted words, joined by ``&&``, ``||``, ``;``, ``|`` and line
    breaks.  Raises NotSimpleError at anything else: variables, globs, redirections, substitutions,
    assignments, control flow, comments, escapes, job control.
    """
    try:
        root = _parse(line)
        reader = _StrictReader(line.encode(errors="surrogateescape"))
        found = tuple(reader.statements(root, 0, len(reader.source)))
    except UnicodeEncodeError as error:
        raise NotSimpleError("it holds what is not text", error.start) from error
    except RecursionError as error:
        raise NotSimpleError("it is nested too deeply", 0) from error
    if not found:
        raise NotSimpleError("it runs nothing", 0)
    return found


class _StrictReader:
    """Accounts for every byte of a line, or refuses it."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        # Not to be read off the tree: it takes "a | b && c" for a pipe into both.
        self.after_pipe = False

    def refuse(self, reason: str, at: int) -> NotSimpleError:
        return NotSimpleError(reason, len(self.source[:at].decode(errors="replace")))

    def gap(self, start: int, end: int, allowed: bytes) -> bytes:
        """Insist that nothing but *allowed* blanks lies between two nodes."""
        between = self.source[start:end]
        for offset, byte in enumerate(between):
            if byte not in allowed:
                raise self.refuse(f"{chr(byte)!r} is not understood here", start + offset)
        return between

    def statements(self, node: Node, start: int, end: int) -> Iterator[Program]:
        """Read the statements of a whole line: separated by ``;`` or line breaks."""
        at, separated = start, True
        for child in node.children:
            between = self.gap(at, child.start_byte, b" \t\n")
            if child.type == ";":
                if separated or b"\n" in between:
                    raise self.refuse("';' ends nothing", child.start_byte)
                separated = True
            else:
                if not (separated or b"\n" in between):
                    raise self.refuse("two commands stand side by side", child.start_byte)
                yield from self.statement(child)
                separated = False
            at = child.end_byte
        self.gap(at, end, b" \t\n")

    def statement(self, node: Node) -> Iterator[Program]:
        if node.type in {"list", "pipeline"}:
            yield from self.joined(node, {"list": {"&&", "||"}, "pipeline": {"|"}}[node.type])
        elif node.type in {"command", "test_command"}:
            words = self.command(node) if node.type == "command" else self.bracket(node)
            yield Program(words, piped=self.after_pipe)
            self.after_pipe = False
        else:
            raise self.refuse(f"{_describe(node)} is not simple", node.start_byte)

    def joined(self, node: Node, operators: set[str]) -> Iterator[Program]:
        at = node.start_byte
        for place, child in enumerate(node.children):
            is_operator = place % 2 == 1
            after_operator = place > 0 and not is_operator
            self.gap(at, child.start_byte, b" \t\n" if after_operator else b" \t")
            if is_operator:
                if child.type not in operators:
                    raise self.refuse(f"{_describe(child)} is not simple", child.start_byte)
                self.after_pipe = child.type == "|"
            else:
                yield from self.statement(child)
            at = child.end_byte
        if at != node.end_byte or node.child_count % 2 == 0:
            raise self.refuse("something is missing", node.end_byte)

    def command(self, node: Node) -> tuple[str, ...]:
        words = [self.word(child.children[0] if child.type == "command_name" else child) for child in node.children]
        for before, child in pairwise(node.children):
            if not self.gap(before.end_byte, child.start_byte, b" \t"):
                raise self.refuse("two words touch", child.start_byte)
        if not words or node.children[0].type != "command_name" or node.children[0].child_count != 1:
            raise self.refuse("it does not begin with a program", node.start_byte)
        if _text(node.children[0]) in _RESERVED:
            raise self.refuse(f"{words[0]!r} is a word of the language", node.start_byte)
        if "=" in _text(node.children[0]):
            raise self.refuse("it may be an assignment", node.start_byte)
        if words[0].startswith("%"):
            raise self.refuse(f"{words[0]!r} names a job", node.start_byte)
        if not words[0]:
            raise self.refuse("the program has no name", node.start_byte)
        return tuple(words)

    def bracket(self, node: Node) -> tuple[str, ...]:
        """Read ``[ ... ]``, which is a program like others to bash; the tree takes its words for an expression."""
        text = _text(node)
        if not re.fullmatch(r"\[[ \t].*[ \t]\]", text, re.DOTALL):
            raise self.refuse(f"{_describe(node)} is not simple", node.start_byte)
        inner = programs(f"test {text[1:-1]}")
        if len(inner) != 1 or "\n" in text:
            raise self.refuse(f"{_describe(node)} is not simple", node.start_byte)
        return ("[", *inner[0].words[1:], "]")

    def word(self, node: Node) -> str:
        text = _text(node)
        if node.type == "concatenation":
            for before, child in pairwise(node.children):
                if before.end_byte != child.start_byte:
                    raise self.refuse("a word has a hole", child.start_byte)
            joined = "".join(self.part(child) for child in node.children)
            if "".join(map(_text, node.children)) != text:
                raise self.refuse("a word has a hole", node.start_byte)
            return joined
        return self.part(node)

    def part(self, node: Node) -> str:
        text = _text(node)
        if node.type in {"word", "number"}:
            if not _PLAIN_WORD.fullmatch(text):
                raise self.refuse(f"{text!r} has characters that mean something to a shell", node.start_byte)
            return text
        if node.type == "raw_string":
            inner, forbidden = text[1:-1], "'"
            closed = len(text) > 1 and text[0] == text[-1] == "'"
        elif node.type == "string":
            # A backslash is itself here, unless before one of the four that it takes the meaning from.
            inner, forbidden = text[1:-1], '"$`'
            closed = len(text) > 1 and text[0] == text[-1] == '"'
        else:
            raise self.refuse(f"{_describe(node)} is not simple", node.start_byte)
        if node.type == "string" and re.search(r'\\(?:[$`"\\\n]|$)', inner):
            raise self.refuse("a quoted text holds an escape", node.start_byte)
        if not closed or any(char in forbidden for char in inner) or _QUOTED_CONTROL.search(inner):
            raise self.refuse("a quoted text holds more than text", node.start_byte)
        return inner


def _describe(node: Node) -> str:
    return f"{node.type.replace('_', ' ')} {shorten(_text(node))!r}"


def shorten(text: str, length: int = 30) -> str:
    """Cut *text* for a message."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


# The generous survey


@dataclass(frozen=True, slots=True)
class Stage:
    """One command that a line could run; in words, UNKNOWN stands for what cannot be told."""

    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    """Targets of redirections that write."""
    reads: tuple[str, ...] = ()
    """Targets of redirections that read."""
    fed: str | None = None
    """The text of a here-document or here-string."""
    inner: tuple[Stage, ...] = ()
    """Commands in the substitutions of its words."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that a line could run: pipelines in order, each with its stages."""

    pipelines: tuple[tuple[Stage, ...], ...]
    multiplies: bool = False
    """It defines a function that starts itself more than once."""
    understood: bool = True
    """False where the line has parts that are no valid shell."""


def survey(line: str) -> Survey:
    """Look over *line* for everything it could run.  Raises RecursionError for absurd nesting."""
    line = re.sub(r"\$IFS(?![A-Za-z0-9_])|\$\{IFS[^}]*\}", " ", line)
    line = line.replace("\\\n", "").encode(errors="replace").decode()
    root = _parse(line)
    surveyor = _Surveyor(line.encode())
    surveyor.visit(root)
    if root.has_error:
        surveyor.pipelines += [(Stage(words),) for words in _crude_commands(line)]
    return Survey(tuple(surveyor.pipelines), surveyor.multiplies, not root.has_error)


class _Surveyor:
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.variables: dict[str, str] = {"HOME": "~"}
        self.pipelines: list[tuple[Stage, ...]] = []
        self.multiplies = False
        self.room = _EXPANDED_AT_MOST

    def visit(self, node: Node) -> None:
        """Collect the pipelines below *node*, in the order of the line."""
        if node.type == "pipeline":
            stages = [self.stage(child) for child in node.named_children]
            self.pipelines.append(tuple(stage for stage in stages if stage is not None))
        elif node.type in {"command", "declaration_command", "unset_command", "redirected_statement"}:
            stage = self.stage(node)
            if stage is not None:
                self.pipelines.append((stage,))
        elif node.type == "variable_assignment":
            self.assign(node)
        elif node.type == "for_statement":
            self.assign_loop(node)
            self.visit_children(node)
        elif node.type == "function_definition":
            self.look_for_multiplication(node)
            self.visit_children(node)
        else:
            self.visit_children(node)

    def visit_children(self, node: Node) -> None:
        for child in node.named_children:
            self.visit(child)

    def stage(self, node: Node) -> Stage | None:
        """Make a stage of one member of a pipeline; what is no plain command is visited instead."""
        if node.type == "redirected_statement":
            return self.redirected(node)
        if node.type not in {"command", "declaration_command", "unset_command", "test_command"}:
            before = len(self.pipelines)
            self.visit(node)
            inner = [stage for pipeline in self.pipelines[before:] for stage in pipeline]
            # A group in a pipeline reads and writes what its commands read and write.
            return Stage((), inner=tuple(inner)) if inner else None
        before = len(self.pipelines)
        words: list[str] = []
        redirects: list[Node] = []
        for child in node.children:
            if child.type.endswith("_redirect"):
                redirects.append(child)
            elif child.type == "variable_assignment" and node.type == "command":
                self.assign(child)
            elif child.type == "variable_assignment":
                self.assign(child)
                words += self.fields(child)
            else:
                words += self.fields(child)
        return self.with_redirects(tuple(words), redirects, before)

    def redirected(self, node: Node) -> Stage:
        before = len(self.pipelines)
        redirects = [child for child in node.named_children if child.type.endswith("_redirect")]
        bodies = [child for child in node.named_children if not child.type.endswith("_redirect")]
        if len(bodies) == 1 and bodies[0].type == "pipeline":
            stages = [stage for child in bodies[0].named_children if (stage := self.stage(child)) is not None]
            last = self.with_redirects(stages[-1].words if stages else (), redirects, before)
            self.pipelines.append((*stages[:-1], last))
            return last
        stage = self.stage(bodies[0]) if bodies else None
        words = stage.words if stage is not None else ()
        made = self.with_redirects(words, redirects, before)
        if stage is None:
            return made
        return Stage(
            words,
            (*stage.writes, *made.writes),
            (*stage.reads, *made.reads),
            made.fed if made.fed is not None else stage.fed,
            (*stage.inner, *made.inner),
        )

    def with_redirects(self, words: tuple[str, ...], redirects: Sequence[Node], before: int) -> Stage:
        writes: list[str] = []
        reads: list[str] = []
        fed = None
        for redirect in redirects:
            if redirect.type == "herestring_redirect":
                fed = " ".join(self.fields(redirect.named_children[-1])) if redirect.named_children else UNKNOWN
            elif redirect.type == "heredoc_redirect":
                following: list[Stage] = []
                for child in redirect.named_children:
                    if child.type == "heredoc_body":
                        fed = _text(child)
                        self.visit_children(child)
                    elif child.type not in {"heredoc_start", "heredoc_end", "file_descriptor"}:
                        # What follows <<EOF on its line, such as "| sh", hangs here in the tree.
                        members = child.named_children if child.type == "pipeline" else [child]
                        following += [stage for member in members if (stage := self.stage(member)) is not None]
                if following:
                    self.pipelines.append((Stage(words, fed=fed), *following))
            else:
                targets = [
                    field
                    for child in redirect.named_children
                    if child.type != "file_descriptor"
                    for field in self.fields(child)
                ]
                sign = next((child.type for child in redirect.children if "<" in child.type or ">" in child.type), "")
                (writes if ">" in sign else reads).extend(targets)
        inner = [stage for pipeline in self.pipelines[before:] for stage in pipeline]
        return Stage(words, tuple(writes), tuple(reads), fed, tuple(inner))

    def assign(self, node: Node) -> None:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is not None:
            self.visit_children(name)  # a subscript may run something
            self.variables[_text(name)] = " ".join(self.fields(value)) if value is not None else ""

    def assign_loop(self, node: Node) -> None:
        name = node.child_by_field_name("variable")
        values = [
            field
            for child in node.named_children
            if child.type not in {"variable_name", "do_group"}
            for field in self.fields(child)
        ]
        if name is not None:
            self.variables[_text(name)] = " ".join(values)

    def look_for_multiplication(self, node: Node) -> None:
        name = node.child_by_field_name("name")
        body = node.child_by_field_name("body")
        if name is not None and body is not None:
            own = re.escape(_text(name))
            calls = re.findall(rf"(?<![\w./-]){own}(?![\w./-])", _text(body))
            self.multiplies |= len(calls) > 1 and any(sign in _text(body) for sign in "|&")

    def fields(self, node: Node) -> list[str]:
        """Give the words that one word of the line may become."""
        text = self.value(node)
        words = [word for part in text.split(_BREAK) for word in _expand_braces(part)]
        if len(words) > 1:
            words = [word for word in words if word]
        return words

    def value(self, node: Node) -> str:  # noqa: PLR0911 - one return for each kind of node
        text = _text(node)
        match node.type:
            case "raw_string":
                return text[1:-1]
            case "ansi_c_string":
                return _decode_ansi_c(text[2:-1])
            case "string" | "translated_string":
                return self.quoted(node)
            case "simple_expansion" | "expansion":
                return _BREAK.join(self.expansion(node).split(" "))
            case "command_substitution":
                return _BREAK.join(self.substitution(node).split())
            case "process_substitution":
                self.visit_children(node)
                return UNKNOWN
            case "arithmetic_expansion":
                self.visit_children(node)
                return UNKNOWN
            case "command_name" | "concatenation" | "variable_assignment":
                return self.pieces(node)
            case _:
                if node.named_child_count:
                    return self.pieces(node)
                return _unescape(text)

    def pieces(self, node: Node) -> str:
        """Join the values of the children, and what stands between them."""
        made, at = "", node.start_byte
        for child in node.named_children:
            made += self.between(at, child.start_byte)
            made += self.value(child)
            at = child.end_byte
        return made + self.between(at, node.end_byte)

    def quoted(self, node: Node) -> str:
        made, at = "", node.start_byte
        for child in node.named_children:
            if child.type == "string_content":
                continue
            made += self.between(at, child.start_byte)
            made += self.value(child).replace(_BREAK, " ")
            at = child.end_byte
        made += self.between(at, node.end_byte)
        return made.removeprefix("$").removeprefix('"').removesuffix('"')

    def between(self, start: int, end: int) -> str:
        return _unescape(self.source[start:end].decode(errors="replace"))

    def expansion(self, node: Node) -> str:
        self.visit_substitutions(node)
        names = [child for child in node.named_children if child.type in {"variable_name", "special_variable_name"}]
        if not names:
            return UNKNOWN
        name = _text(names[0])
        if name in self.variables:
            # A line can double a variable as often as it has room for.
            self.room -= len(self.variables[name])
            return self.variables[name] if self.room > 0 else UNKNOWN
        default = node.named_children[-1]
        if len(node.named_children) > 1 and default.type not in {"variable_name", "special_variable_name"}:
            return self.value(default)
        return UNKNOWN

    def visit_substitutions(self, node: Node) -> None:
        for child in node.named_children:
            if child.type in {"command_substitution", "process_substitution"}:
                self.visit_children(child)
            else:
                self.visit_substitutions(child)

    def substitution(self, node: Node) -> str:
        """Visit the commands of a substitution, and give its output where that is plain to see."""
        before = len(self.pipelines)
        self.visit_children(node)
        inner = self.pipelines[before:]
        if len(inner) == 1 and len(inner[0]) == 1 and inner[0][0].words[:1] in {("echo",), ("printf",)}:
            words = inner[0][0].words[1:]
            return " ".join(word for word in words if word not in {"-n", "-e", "--"})
        return UNKNOWN


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _decode_ansi_c(text: str) -> str:
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return UNKNOWN


def _expand_braces(word: str) -> list[str]:
    """Expand ``{a,b}`` as bash does, outermost first and from the left; more than enough is cut off."""
    done: list[str] = []
    ahead = [word]
    while ahead and len(done) + len(ahead) < _BRACES_AT_MOST:
        current = ahead.pop(0)
        found = re.search(r"\{([^{}]*,[^{}]*)\}", current)
        if found is None:
            done.append(current)
        else:
            ahead += [current[: found.start()] + part + current[found.end() :] for part in found[1].split(",")]
    return done + ahead


def _crude_commands(line: str) -> Iterator[tuple[str, ...]]:
    """Cut a line that is no valid shell where a command could begin, for want of better."""
    for piece in re.split(r"[;&|\n()`]|\$\(", line):
        try:
            words = shlex.split(piece)
        except ValueError:
            words = piece.replace("'", " ").replace('"', " ").split()
        expanded = [part for word in words for part in _expand_braces(word)]
        if expanded:
            yield tuple(expanded)
        yield from (tuple(word.split()) for word in expanded if " " in word.strip())
