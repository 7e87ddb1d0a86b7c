"""Ask a person, and take anything but a clear yes for a no."""

from __future__ import annotations

import os
import select
import shlex
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from codex_core.approval.visible import visible

if TYPE_CHECKING:
    from codex_core.types import Action, Verdict

DRAIN_SECONDS = 0.3
"""Keys that arrive this soon after the question were not typed in answer to it."""


class Choice(StrEnum):
    """What a person can answer."""

    ONCE = "once"
    NO = "no"
    STOP = "stop"
    """No, and end the turn."""


@dataclass(frozen=True, slots=True)
class Question:
    """One action that needs a person's word, and why."""

    action: Action
    verdict: Verdict
    """The verdict that asks; *unsandboxed* in it means that yes leaves the sandbox."""


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


class Prompter(Protocol):
    """Puts a question to a person; give your own to a session to embed it elsewhere."""

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
        _write(terminal, question_text(question))
        _drain(terminal)
        _write(terminal, "Allow this once? [y/N] ")
        ready, _, _ = select.select([terminal], [], [], self._timeout)
        if not ready:
            _write(terminal, "\n")
            return Answer(Choice.NO, f"nobody answered within {self._timeout:g} s", "timeout")
        reply = os.read(terminal, 1024).decode(errors="replace").strip().casefold()
        return Answer(Choice.ONCE if reply in {"y", "yes"} else Choice.NO)


def question_text(question: Question) -> str:
    """Give the lines that stand before the choice: what would run, where, why it is asked, and what yes means."""
    action = question.action
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
    if question.verdict.unsandboxed:
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
