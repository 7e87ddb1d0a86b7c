"""What a person allowed for longer than once.

For a session it is kept here, in memory.  For always it is a rule in a file of its own beside the
user's rules, under the home of codex, where no command can write; it is a rule like any other, and
taking it out of the file revokes it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from codex_core.approval.rules import rule_lines
from codex_core.errors import ConfigError, UsageError
from codex_core.types import NETWORK_TOOL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.types import Action, Verdict

REMEMBERED = "approved.toml"
"""The file, in the folder of the user's rules, that ``always`` is written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a yes for longer than once allows: what a person is shown, and what is remembered.

    Leave to stay in the sandbox is not leave to go outside.
    """

    words: tuple[str, ...] = ()
    """Exactly these; empty for files and hosts."""
    program: str = ""
    """The file that the first word leads to; empty where commands could put another in its place."""
    folder: str = ""
    files: tuple[str, ...] = ()
    """For a tool that changes files: these, whatever becomes of them."""
    host: str = ""
    """For a connection: a pattern of :mod:`codex_core.sandbox.domains`; whatever command makes it."""
    unsandboxed: bool = False

    @property
    def lasts(self) -> bool:
        """Whether it can be remembered: what leaves the sandbox has to be the same program again."""
        return bool(self.program or self.files or not self.unsandboxed)

    def covers(self, other: Grant) -> bool:
        """Say whether what *other* would allow is allowed by this."""
        return set(other.files) <= set(self.files) and replace(self, files=()) == replace(other, files=())

    def rule(self) -> dict[str, Any] | None:
        """Give the rule that allows the same from now on, as a table; None where no rule can say it."""
        if self.files:
            return None
        about: dict[str, Any] = {"hosts": [self.host]}
        if self.words:
            about = {"pattern": list(self.words), "exact": True, "cwd": self.folder}
        if self.program:
            about["program"] = self.program
        if self.unsandboxed:
            about["unsandboxed"] = True
        return {**about, "decision": "allow", "justification": f"allowed on {datetime.now(UTC):%Y-%m-%d}"}


def granted(action: Action, verdict: Verdict, *, program: str | None) -> Grant:
    """Say what a yes to what *verdict* asks allows; *program* is the file of the first word, where it is firm."""
    if action.writes:
        return Grant(files=tuple(sorted(action.writes)), unsandboxed=verdict.unsandboxed)
    if action.tool == NETWORK_TOOL:
        return Grant(host=action.argv[0])
    return Grant(words=action.argv, program=program or "", folder=action.cwd, unsandboxed=verdict.unsandboxed)


class SessionMemory:
    """What was allowed for this session.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: dict[Grant, None] = {}

    def allow(self, grant: Grant) -> None:
        """Remember what was allowed."""
        with self._lock:
            self._grants[grant] = None

    def covers(self, grant: Grant) -> bool:
        """Say whether this was allowed before."""
        return any(kept.covers(grant) for kept in self.grants)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """All that was allowed, in order."""
        with self._lock:
            return tuple(self._grants)


def add_rule(path: str, table: Mapping[str, Any]) -> int:
    """Append one rule to the file *path*, which need not exist; the line that it begins at.

    Comments and order are kept.  Raises ConfigError where the file cannot be read or written.
    """
    import tomlkit

    text = _read(path)
    rules = tomlkit.aot()
    rules.append(tomlkit.item(dict(table)))
    addition = tomlkit.document()
    addition["rule"] = rules
    joined = f"{text.rstrip()}\n\n" if text.strip() else ""
    _write(path, joined + tomlkit.dumps(addition))
    return joined.count("\n") + 1


def remove_rule(path: str, line: int) -> None:
    """Take the rule that begins at *line* out of the file *path*.

    Raises UsageError where none begins there, ConfigError where the file cannot be read or written.
    """
    import tomlkit

    text = _read(path)
    try:
        document = tomlkit.parse(text)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error
    rules = document.get("rule", [])
    lines = rule_lines(text, len(rules)) if isinstance(rules, list) else []
    if line not in lines or len(set(lines)) != len(lines):
        msg = f"no rule begins at {path}:{line}"
        raise UsageError(msg)
    del rules[lines.index(line)]
    _write(path, tomlkit.dumps(document))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise ConfigError(msg) from error


def _write(path: str, text: str) -> None:
    """Replace the file at once, so that nobody ever reads half of it; readable by its owner only."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".new")
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}"
        raise ConfigError(msg) from error
