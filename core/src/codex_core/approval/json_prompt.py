"""Ask through a pair of streams, one JSON object a line: for editors and other programs that embed codex.

Question, written::

    {"type": "approval_request", "id": 1, "tool": "shell", "command": ["make"], "shown": "make",
     "host": null, "diff": "", "cwd": "/src", "reason": "...", "source": "...", "unsandboxed": false,
     "justification": "", "denial": null, "choices": ["once", "session", "always", "no", "stop"],
     "remembers": {"words": ["make"], "program": "/usr/bin/make", "folder": "/src", "files": [],
     "host": "", "unsandboxed": false}, "rule_file": "/home/me/.codex/rules/approved.toml"}

Answer, read::

    {"type": "approval_response", "id": 1, "choice": "once"}

Lines that are no answer to the question are skipped.  An end of the stream, and a choice that was not
offered, are a no.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from codex_core.approval.prompt import Answer, Choice, command_lines

if TYPE_CHECKING:
    from codex_core.approval.prompt import Question


class JsonPrompter:
    """Asks by JSON lines; safe to use from several threads, one question at a time."""

    def __init__(self, answers: TextIO, questions: TextIO) -> None:
        """Write to *questions* and read from *answers*, which stay the caller's."""
        self._answers = answers
        self._questions = questions
        self._lock = threading.Lock()
        self._asked = 0

    def ask(self, question: Question) -> Answer:
        """Ask one question and wait for its answer."""
        with self._lock:
            self._asked += 1
            self._questions.write(json.dumps(self._message(question)) + "\n")
            self._questions.flush()
            for line in self._answers:
                choice = self._choice(line)
                if choice is not None:
                    return Answer(choice if choice in question.offers else Choice.NO)
        return Answer(Choice.NO, "the program that was asked ended", "no-terminal")

    def _message(self, question: Question) -> dict[str, object]:
        action, denial = question.action, question.action.after_denial
        return {
            "type": "approval_request",
            "id": self._asked,
            "tool": action.tool,
            "command": list(action.command or action.argv),
            "host": action.argv[0] if action.command else None,
            "shown": "\n".join(command_lines(action.command or action.argv)),
            "diff": question.diff,
            "cwd": action.cwd,
            "reason": question.verdict.reason,
            "source": question.verdict.source,
            "unsandboxed": question.verdict.unsandboxed,
            "justification": action.justification,
            "denial": None
            if denial is None
            else {
                "operation": denial.operation,
                "target": denial.target,
                "rule": denial.rule,
                "certain": denial.certain,
            },
            "choices": list(question.offers),
            "remembers": asdict(question.grant),
            "rule_file": question.rule_file,
        }

    def _choice(self, line: str) -> Choice | None:
        """Read an answer to the question that was asked last, None if *line* is none."""
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(answer, dict) or answer.get("type") != "approval_response" or answer.get("id") != self._asked:
            return None
        try:
            return Choice(str(answer.get("choice")))
        except ValueError:
            return Choice.NO
