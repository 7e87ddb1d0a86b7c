"""Ask a person, and take anything but a clear yes for a no."""

from __future__ import annotations

import os
import select
import shlex
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol
from unicodedata import east_asian_width

from codex_core.approval.memory import Grant
from codex_core.approval.visible import look_alikes, visible
from codex_core.types import NETWORK_TOOL

if TYPE_CHECKING:
    from codex_core.types import Action, Verdict

DRAIN_SECONDS = 0.3
"""Keys that arrive this soon after the question were not typed in answer to it."""
_TIDY = (
    "\x18\x1b\\"  # what has been begun, such as a title, ends here and swallows nothing more
    "\x1b[4i\x1b7\x1b[r\x1b8\x1b[4l\x1b[?7h"  # on the screen, all of it, whole lines
    "\x1b[0m\x1b(B\x0f\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\"  # in letters and colours that are seen
)


class Choice(StrEnum):
    """What a person can answer."""

    ONCE = "once"
    SESSION = "session"
    """Yes, and the same again for as long as the session lasts."""
    ALWAYS = "always"
    """Yes, and the same again from now on, by a rule."""
    NO = "no"
    STOP = "stop"
    """No, and end the turn."""


@dataclass(frozen=True, slots=True)
class Question:
    """One action that needs a person's word, and why."""

    action: Action
    verdict: Verdict
    """The verdict that asks; *unsandboxed* in it means that yes leaves the sandbox."""
    offers: tuple[Choice, ...] = (Choice.ONCE, Choice.NO)
    """What may be answered; anything else counts as no."""
    grant: Grant = field(default_factory=Grant)
    """What ``session`` and ``always`` would remember."""
    rule_file: str = ""
    """Where ``always`` would be written."""
    diff: str = ""
    """For a patch: what it would do to the files as they are."""
    patience: float | None = None
    """Seconds after which nobody waits for the answer any more."""
    untidy: bool = False
    """Whether a command has sent the terminal codes, by which it may hide what is written there after it."""
    over: threading.Event | None = None
    """Set when the command that waits for the answer has ended, and no answer counts any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and by whom or what."""

    choice: Choice
    reason: str = ""
    """For a no: why, where nobody said it in person."""
    source: str = "user"
    """``user``, or ``timeout`` or ``no-terminal`` where nobody answered."""

    @property
    def approved(self) -> bool:
        """Whether the action may go ahead."""
        return self.choice not in {Choice.NO, Choice.STOP}


MOOT = Answer(Choice.NO, "the command has ended", "timeout")
"""For a question that nobody waits for any more."""


class Prompter(Protocol):
    """Puts a question to a person; give your own to a session to embed it elsewhere.

    Questions about hosts come on threads of their own, while a command runs, and may overlap others.
    """

    def ask(self, question: Question) -> Answer:
        """Ask, and wait for the answer.  A raise counts as no."""
        ...


class LinePrompter:
    """Asks with plain lines on the controlling terminal.

    Keys typed before the question, or within 0.3 s of it, are thrown away.  No is the answer to an
    empty line, to anything but yes, to Ctrl-C, Ctrl-D, a hang-up, and after *timeout* seconds.
    Where no standard stream is a terminal, or this process is in the background, nobody is asked
    and the answer is no.  Two questions never overlap.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, *, timeout: float | None = None, terminal: str = "/dev/tty") -> None:
        """Ask on the device *terminal* and wait for *timeout* seconds, for ever if None."""
        self._timeout = timeout
        self._terminal = terminal

    def ask(self, question: Question) -> Answer:
        """Ask one question and give the answer; never raises."""
        with self._one_at_a_time:
            if question.over is not None and question.over.is_set():
                return MOOT
            descriptor = self._open()
            if descriptor is None:
                return Answer(Choice.NO, _nobody(question), "no-terminal")
            try:
                return self._ask_on(descriptor, question)
            except KeyboardInterrupt:
                return Answer(Choice.STOP)
            except OSError as error:
                return Answer(Choice.NO, f"the terminal failed: {error.strerror}", "no-terminal")
            finally:
                os.close(descriptor)

    def _open(self) -> int | None:
        """Open the terminal if somebody is there to ask."""
        if not any(map(_is_terminal, (0, 1, 2))):
            return None
        try:
            descriptor = os.open(self._terminal, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return None
        try:
            in_front = os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            in_front = False
        if not in_front:
            os.close(descriptor)
            return None
        return descriptor

    def _ask_on(self, terminal: int, question: Question) -> Answer:
        patience = min(filter(None, (self._timeout, question.patience)), default=None)
        keys = "/".join(key.upper() if choice is Choice.NO else key for choice, key in _keys(question))
        ask = f"Allow it? [{keys}] "
        if question.untidy:
            _write(terminal, _TIDY)
        lines = [*question_text(question).split("\n"), *menu_lines(question)]
        while True:
            # Measured for every page: the window may have changed meanwhile.
            columns, rows = _size(terminal)
            lines = [part for line in lines for part in _wrap(line, columns)]
            if len(lines) + len(_wrap(ask, columns)) <= rows:
                break
            more = f"-- {len(lines)} lines: Enter shows more, n is no -- "
            fit = max(rows - len(_wrap(more, columns)), 1)
            _write(terminal, "\n".join([*lines[:fit], ""]))
            reply = self._reply(terminal, more, patience)
            if reply is None or reply.strip():
                return _judge(reply, question, patience)
            lines = lines[fit:]
        _write(terminal, "\n".join([*lines, ""]))
        return _judge(self._reply(terminal, ask, patience), question, patience)

    def _reply(self, terminal: int, ask: str, patience: float | None) -> str | None:
        """Ask for one line and give it, None after the time-out; what was typed before does not count."""
        _drain(terminal)
        _write(terminal, ask)
        ready, _, _ = select.select([terminal], [], [], patience)
        if not ready:
            _write(terminal, "\n")
            return None
        # An end of file is no line, and so no answer.
        return os.read(terminal, 1024).decode(errors="replace") or "n"


def _judge(reply: str | None, question: Question, patience: float | None) -> Answer:
    if reply is None:
        return Answer(Choice.NO, f"nobody answered within {patience:g} s", "timeout")
    said = reply.strip().casefold()
    for choice, key in _keys(question):
        if said in {key, choice.value, "yes" if choice is Choice.ONCE else key}:
            return Answer(choice)
    return Answer(Choice.NO)


_KEYS = {Choice.ONCE: "y", Choice.SESSION: "s", Choice.ALWAYS: "a", Choice.NO: "n", Choice.STOP: "q"}


def _keys(question: Question) -> list[tuple[Choice, str]]:
    return [(choice, key) for choice, key in _KEYS.items() if choice in question.offers]


def menu_lines(question: Question) -> list[str]:
    """Say what each answer means, and before that what would be remembered, where anything can be."""
    if set(question.offers) <= {Choice.ONCE, Choice.NO}:
        return []
    below = ", and below that folder" if question.grant.folder else ""
    once = "for as long as this command runs" if question.action.tool == NETWORK_TOOL else "this once"
    says = {
        Choice.ONCE: f"yes, {once}",
        Choice.SESSION: "yes, until this session ends",
        Choice.ALWAYS: f"yes, until you revoke it{below}; a rule in {visible(question.rule_file)}",
        Choice.NO: "no",
        Choice.STOP: "no, and stop here",
    }
    lasting = {Choice.SESSION, Choice.ALWAYS} & set(question.offers)
    remembers = [f"What would be remembered: {grant_text(question.grant)}"] if lasting else []
    return remembers + [f"  {key}  {says[choice]}" for choice, key in _keys(question)]


def grant_text(grant: Grant) -> str:
    """Say what is remembered, in one line."""
    if grant.host:
        return f"connections to {visible(grant.host)}, from the sandbox, by any command"
    where = "outside the sandbox" if grant.unsandboxed else "in the sandbox"
    if grant.files:
        return f"changes of {', '.join(map(visible, grant.files))}, whatever they are"
    program = f", with {visible(grant.program)}" if grant.program else ""
    return f"exactly these words{program}, in {visible(grant.folder)}, {where}"


def question_text(question: Question) -> str:
    """Give the lines that stand before the choice: what would run, where, why it is asked, and what yes means."""
    action = question.action
    if action.writes:
        lines = [
            "",
            "The agent wants to change files:",
            *(f"  {visible(line)}" for line in question.diff.split("\n")),
        ]
    elif action.tool == NETWORK_TOOL:
        lines = ["", f"A command wants to connect to {visible(' '.join(action.argv))}:"]
        lines += [f"  {line}" for line in command_lines(action.command)]
    else:
        lines = ["", "The agent wants to run:", *(f"  {line}" for line in command_lines(action.argv))]
    lines.append(f"in {visible(action.cwd)}")
    if action.justification:
        lines.append(f"The agent says: {visible(action.justification)}")
    if action.after_denial is not None:
        denial = action.after_denial
        certain = "" if denial.certain else " (a guess from its output)"
        lines.append(
            f"The sandbox stopped it: {denial.operation} {visible(denial.target)}: {visible(denial.rule)}{certain}"
        )
    lines.append(f"Asked because: {visible(question.verdict.reason)}")
    lines += [f"Look twice: {warning}" for word in (*action.argv, *action.command) for warning in look_alikes(word)]
    if question.verdict.unsandboxed and not action.writes:
        lines.append("It would run OUTSIDE the sandbox, with all your rights.")
    return "\n".join([*lines, ""])


def command_lines(argv: tuple[str, ...]) -> list[str]:
    """Give a command as it can be read safely; the line breaks of a script stay line breaks."""
    return [visible(line) for line in shlex.join(argv).split("\n")]


def _nobody(question: Question) -> str:
    if question.verdict.unsandboxed:
        return "there is no terminal to ask on, and only a person can let it leave the sandbox"
    return (
        "there is no terminal to ask on; "
        'approval_policy = "on-request" (-a on-request) runs what is not dangerous in the sandbox without asking'
    )


def _size(terminal: int) -> tuple[int, int]:
    """Give the columns and rows of the terminal, usual ones where it does not know them."""
    try:
        columns, rows = os.get_terminal_size(terminal)
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24


def _wrap(line: str, columns: int) -> list[str]:
    """Cut a line into what fits, counting wide characters as two, so that a page is what is seen."""
    parts, width, start = [], 0, 0
    for at, char in enumerate(line):
        wide = 2 if east_asian_width(char) in {"W", "F"} else 1
        if width + wide > columns:
            parts.append(line[start:at])
            start, width = at, 0
        width += wide
    return [*parts, line[start:]]


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _drain(terminal: int) -> None:
    """Throw away what was typed before the question could be read."""
    import termios

    until = time.monotonic() + DRAIN_SECONDS
    while (left := until - time.monotonic()) > 0:
        termios.tcflush(terminal, termios.TCIFLUSH)
        time.sleep(min(left, 0.05))
    termios.tcflush(terminal, termios.TCIFLUSH)


def _write(terminal: int, text: str) -> None:
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(terminal, data) :]
