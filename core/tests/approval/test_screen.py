"""What a person sees of a question, judged by a terminal emulator: nothing that matters scrolls away unseen."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import termios
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyte
import pytest
from codex_core.approval.memory import Grant
from codex_core.approval.prompt import Choice, LinePrompter, Question, menu_lines, question_text
from codex_core.types import Action, Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUESTION = re.compile(r"\[y/s/a/N/q\]$|n is no --$")
PATIENCE = 30
LINES = [f"echo {number:04}" for number in range(80)]


def question(*argv: str) -> Question:
    grant = Grant(words=argv, program="/usr/bin/bash", folder="/home/somebody/work/with/a/long/name")
    action = Action(argv, "/home/somebody/work/with/a/long/name")
    return Question(
        action, Verdict(Decision.PROMPT, "why"), tuple(Choice), grant, "/home/somebody/.codex/approved.toml"
    )


@dataclass
class Window:
    """A question in a process of its own, on a terminal that an emulator shows."""

    terminal: int
    report: int
    child: int
    rows: int
    columns: int
    raw: bytes = b""
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.screen = pyte.HistoryScreen(self.columns, self.rows, history=100_000)
        self._stream = pyte.ByteStream(self.screen)

    @property
    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def wait(self) -> str:
        """Read until the question waits for keys; what is on the screen then.  Nothing may have gone by unseen."""
        deadline = time.monotonic() + PATIENCE
        while not self._waits():
            assert select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            part = os.read(self.terminal, 4096)
            self.raw += part
            self._stream.feed(part)
        gone = {"".join(line[at].data for at in range(self.columns)).rstrip() for line in self.screen.history.top}
        assert gone <= self.seen | {""}
        self.seen |= set(self.shown)
        return "\n".join(self.shown)

    def feed(self, codes: bytes) -> None:
        """Show what another program has written."""
        self._stream.feed(codes)

    def _waits(self) -> bool:
        text = "".join(self.screen.display).rstrip()
        return QUESTION.search(text) is not None and not select.select([self.terminal], [], [], 0.1)[0]

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def page(self) -> int:
        """Page to the choice; how many pages came before it."""
        pages = 0
        while self.wait().replace("\n", "").rstrip().endswith("--"):
            pages += 1
            self.type("\n")
            time.sleep(0.35)
        return pages

    def resize(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        termios.tcsetwinsize(self.terminal, (rows, columns))
        self.screen.resize(rows, columns)
        self.seen |= set(self.shown)

    def answer(self) -> str:
        assert select.select([self.report], [], [], PATIENCE)[0]
        return os.read(self.report, 100).decode()


@pytest.fixture
def open_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Window]]:
    opened: list[Window] = []

    def open_window(asked: Question, rows: int = 24, columns: int = 80, **environ: str) -> Window:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        report, reported = os.pipe()
        child, terminal = pty.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                termios.tcsetwinsize(0, (rows, columns))
                os.write(reported, LinePrompter(timeout=PATIENCE).ask(asked).choice.encode())
            finally:
                os._exit(0)
        os.close(reported)
        opened.append(Window(terminal, report, child, rows, columns))
        return opened[-1]

    yield open_window
    for window in opened:
        os.close(window.terminal)
        os.close(window.report)
        os.waitpid(window.child, 0)


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (50, 200), (12, 40), (8, 60), (5, 24), (24, 14)])
def test_on_no_screen_does_anything_scroll_away_unseen(
    open_window: Callable[..., Window], rows: int, columns: int
) -> None:
    window = open_window(question("bash", "-lc", "\n".join(LINES[:20])), rows, columns)
    window.page()
    everything = "".join(window.seen)
    assert all(line in everything for line in LINES[1:19])
    window.type("y\n")
    assert window.answer() == "once"


def test_ten_kilobytes_on_one_line_are_paged_and_their_end_is_seen(open_window: Callable[..., Window]) -> None:
    window = open_window(question("echo", "x" * 10_240 + "END"))
    assert window.page() == pytest.approx(10_240 / 80 / 23, abs=2)
    assert any("END" in line for line in window.seen)
    window.type("\n")
    assert window.answer() == "no"


def test_a_window_made_smaller_between_two_pages_shows_all_of_the_next_ones(open_window: Callable[..., Window]) -> None:
    window = open_window(question("bash", "-lc", "\n".join(LINES)), 24, 80)
    window.wait()
    window.resize(9, 30)
    window.type("\n")
    time.sleep(0.35)
    window.page()
    everything = "".join(window.seen)
    assert all(line in everything for line in LINES[1:-1])
    window.type("s\n")
    assert window.answer() == "session"


@pytest.mark.parametrize("term", ["dumb", "", "xterm-256color", "no-such-terminal"])
def test_nothing_but_text_is_written_whatever_the_terminal(open_window: Callable[..., Window], term: str) -> None:
    window = open_window(question("printf", "\x1b[2J\x1b]0;title\x07\x9b1mred", "\u202e\x1b[1;1Hharmless"), TERM=term)
    text = window.wait()
    assert r"\x1b[2J\x1b]0;title\x07" in text
    assert not set(window.raw) & (set(range(32)) - set(b"\r\n"))
    assert b"\x9b" not in window.raw
    assert window.screen.title == ""


def seen_on(screen: pyte.Screen) -> str:
    """Give what stands on a screen in letters of another colour than their ground."""
    signs = [screen.buffer[row][column] for row in range(screen.lines) for column in range(screen.columns)]
    return "".join(sign.data for sign in signs if sign.fg != sign.bg or sign.fg == "default")


@pytest.mark.parametrize(
    "codes", [b"\x1b]0;", b"\x1b[1;2r\x1b[1;1H", b"\x1b[30;40m"], ids=["title", "margins", "colours"]
)
def test_what_a_command_did_to_the_terminal_hides_no_question(open_window: Callable[..., Window], codes: bytes) -> None:
    fake = b"Save the changes? [y/N] " + codes
    asked = replace(question("make"), untidy=True)
    parts = ("The agent wants to run:", "exactly these words", "stop here")
    hidden = pyte.Screen(80, 24)
    text = "\n".join([question_text(asked), *menu_lines(asked)]).replace("\n", "\r\n")
    pyte.ByteStream(hidden).feed(fake + text.encode())
    assert "The agent wants to run:" not in seen_on(hidden)
    window = open_window(asked)
    window.feed(fake)
    window.wait()
    assert all(part in seen_on(window.screen) for part in parts)
    window.type("y\n")
    assert window.answer() == "once"


def test_what_the_choices_mean_stands_on_the_screen_with_the_choice(open_window: Callable[..., Window]) -> None:
    text = open_window(question("make")).wait()
    for part in ("exactly these words, with /usr/bin/bash", "until this session ends", "approved.toml", "stop here"):
        assert part in text.replace("\n", "")


@pytest.mark.parametrize(("keys", "choice"), [("\x04", "no"), ("\x03", "stop"), ("\x1b[200~y\n\x1b[201~", "no")])
def test_end_of_file_interrupt_and_a_paste_are_no(open_window: Callable[..., Window], keys: str, choice: str) -> None:
    window = open_window(question("make"))
    window.wait()
    time.sleep(0.35)
    window.type(keys)
    assert window.answer() == choice


def test_keys_that_were_typed_ahead_answer_no_page(open_window: Callable[..., Window]) -> None:
    window = open_window(question("bash", "-lc", "\n".join(LINES)))
    modes = termios.tcgetattr(window.terminal)
    modes[3] &= ~termios.ECHO  # the echo of what is typed would make lines scroll away
    termios.tcsetattr(window.terminal, termios.TCSANOW, modes)
    window.type("\n\n\n\ny\n" * 5)
    assert window.wait().endswith("no --")
    time.sleep(0.35)
    window.type("n\n")
    assert window.answer() == "no"


def test_a_hang_up_ends_the_question_without_a_yes(open_window: Callable[..., Window]) -> None:
    window = open_window(question("make"))
    window.wait()
    os.kill(window.child, signal.SIGHUP)
    assert window.answer() == ""
