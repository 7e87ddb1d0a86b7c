"""What a person allowed for longer than once.

For a session it is kept here, in memory.  For always it is a rule in a file of its own beside the
user's rules, under the home of codex, where no command can write; it is a rule like any other, and
taking it out of the file revokes it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from codex_core.approval.rules import rule_lines
from codex_core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.types import Action, Verdict

REMEMBERED = "approved.toml"
"""The file, in the folder of the user's rules, that ``always`` is written to."""


class SessionMemory:
    """What was allowed for this session: exactly this command, in exactly this folder.

    Leave to stay in the sandbox is not leave to go outside.  Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowed: set[tuple[str, tuple[str, ...], str, bool]] = set()

    def allow(self, action: Action, verdict: Verdict) -> None:
        """Remember what was asked by *verdict*."""
        with self._lock:
            self._allowed.add(_key(action, verdict))

    def covers(self, action: Action, verdict: Verdict) -> bool:
        """Say whether what *verdict* asks was allowed before."""
        with self._lock:
            return _key(action, verdict) in self._allowed


def _key(action: Action, verdict: Verdict) -> tuple[str, tuple[str, ...], str, bool]:
    return (action.tool, action.argv, action.cwd, verdict.unsandboxed)


def always(action: Action, verdict: Verdict) -> dict[str, Any]:
    """Give the rule that allows exactly this action, here, from now on."""
    table: dict[str, Any] = {"pattern": list(action.argv), "exact": True, "decision": "allow", "cwd": action.cwd}
    if verdict.unsandboxed:
        table["unsandboxed"] = True
    table["justification"] = f"allowed on {datetime.now(UTC):%Y-%m-%d}"
    return table


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
    document = tomlkit.parse(text)
    rules = document.get("rule", [])
    lines = rule_lines(text, len(rules))
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
