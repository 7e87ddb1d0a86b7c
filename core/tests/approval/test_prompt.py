from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import termios
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codex_core.approval.memory import Grant
from codex_core.approval.prompt import MOOT, Answer, Choice, LinePrompter, Question, command_lines, question_text
from codex_core.approval.visible import visible
from codex_core.types import Action, Decision, Denial, Operation, Verdict
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = Question(Action(("make", "all"), "/ws"), Verdict(Decision.PROMPT, "make is not known to be harmless"))


def ask_on_a_terminal(typist: Callable[[int], None], *, timeout: float | None = 20) -> str:
    """Ask in a process that leads a terminal of its own; give the answer."""
    report, reported = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            answer = LinePrompter(timeout=timeout).ask(QUESTION)
            os.write(reported, f"{answer.choice}/{answer.source}".encode())
        finally:
            os._exit(0)
    os.close(reported)
    try:
        typist(terminal)
        return os.read(report, 100).decode()
    finally:
        os.close(terminal)
        os.close(report)
        os.waitpid(child, 0)


def read_until(terminal: int, text: str) -> str:
    shown = b""
    while text.encode() not in shown:
        shown += os.read(terminal, 1024)
    return shown.decode()


def answer_with(keys: bytes) -> Callable[[int], None]:
    def typist(terminal: int) -> None:
        read_until(terminal, "[y/N]")
        os.write(terminal, keys)

    return typist


@pytest.mark.parametrize(
    ("keys", "choice"),
    [
        (b"y\n", "once"),
        (b" YES \n", "once"),
        (b"\n", "no"),
        (b"n\n", "no"),
        (b"yeah\n", "no"),
        (b"yy\n", "no"),
        (b"\x04", "no"),
        (b"\xff\n", "no"),
        (b"\x03", "stop"),
    ],
)
def test_only_a_clear_yes_is_a_yes(keys: bytes, choice: str) -> None:
    assert ask_on_a_terminal(answer_with(keys)) == f"{choice}/user"


def test_keys_typed_before_the_question_do_not_answer_it() -> None:
    def typist(terminal: int) -> None:
        os.write(terminal, b"y\ny\ny\n")
        read_until(terminal, "[y/N]")
        os.write(terminal, b"\n")

    assert ask_on_a_terminal(typist) == "no/user"


def test_a_yes_that_follows_at_once_was_not_an_answer() -> None:
    def typist(terminal: int) -> None:
        read_until(terminal, "Asked because")
        os.write(terminal, b"y\n")
        read_until(terminal, "[y/N]")
        os.write(terminal, b"\n")

    assert ask_on_a_terminal(typist) == "no/user"


def test_silence_is_a_no() -> None:
    assert ask_on_a_terminal(lambda _: None, timeout=0.05) == "no/timeout"


def test_a_hang_up_is_a_no() -> None:
    report, reported = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            answer = LinePrompter().ask(QUESTION)
            os.write(reported, f"{answer.approved}".encode())
        finally:
            os._exit(0)
    os.close(reported)
    read_until(terminal, "[y/N]")
    os.close(terminal)
    assert os.read(report, 100) == b"False"
    os.close(report)
    os.waitpid(child, 0)


def test_without_a_terminal_the_answer_is_no_and_names_the_setting() -> None:
    answer = LinePrompter(terminal="/nonexistent").ask(QUESTION)
    assert answer == Answer(Choice.NO, answer.reason, "no-terminal")
    assert "approval_policy" in answer.reason


def test_the_question_shows_what_where_why_and_what_yes_means() -> None:
    denial = Denial(Operation.WRITE, "/etc/x", "outside every writable root", certain=False)
    action = Action(("cp", "a b", "/etc/x"), "/ws", escalated=True, justification="need\x1b[2J it", after_denial=denial)
    text = question_text(Question(action, Verdict(Decision.PROMPT, "asked for", unsandboxed=True)))
    for part in ("cp 'a b' /etc/x", "/ws", r"need\x1b[2J it", "write /etc/x", "a guess", "asked for", "OUTSIDE"):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain é 漢", "plain é 漢"),
        ("\x1b[31m\r\x07\x7f", r"\x1b[31m\x0d\x07\x7f"),
        ("\u202erm\u2066", r"\u202erm\u2066"),
        ("a\u200bb\u00a0c\u3000d", r"a\u200bb\xa0c\u3000d"),
        (os.fsdecode(b"\xff\xc3"), r"\xff\xc3"),
        ("\ud800", r"\ud800"),
        ("a" + " " * 300 + "; touch x", "a<300 blanks>; touch x"),
        ("\tx", r"\x09x"),
    ],
)
def test_what_is_seen_is_what_is_there(text: str, seen: str) -> None:
    assert visible(text) == seen


@given(text=st.text())
def test_nothing_that_steers_a_terminal_is_shown(text: str) -> None:
    assert visible(text).isprintable()


def test_the_lines_of_a_script_stay_lines_and_each_is_made_visible() -> None:
    assert command_lines(("bash", "-lc", "ls\nrm\tx")) == ["bash -lc 'ls", r"rm\x09x'"]


ALL = tuple(Choice)


def ask_all(typist: Callable[[int], None], question: Question, *, rows: int = 24, columns: int = 80) -> str:
    """Ask with every choice on a terminal of a given size; give the answer."""
    report, reported = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.write(reported, LinePrompter(timeout=20).ask(question).choice.encode())
        finally:
            os._exit(0)
    os.close(reported)
    try:
        typist(terminal)
        return os.read(report, 100).decode()
    finally:
        os.close(terminal)
        os.close(report)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("keys", "choice"),
    [(b"y\n", "once"), (b"s\n", "session"), (b"ALWAYS\n", "always"), (b"n\n", "no"), (b"q\n", "stop"), (b"x\n", "no")],
)
def test_every_choice_that_is_offered_can_be_made(keys: bytes, choice: str) -> None:
    grant = Grant(words=("make", "all"), program="/usr/bin/make", folder="/ws")
    question = replace(QUESTION, offers=ALL, grant=grant, rule_file="/h/approved.toml")

    def typist(terminal: int) -> None:
        shown = read_until(terminal, "[y/s/a/N/q]").replace("\r\n", "")
        assert "exactly these words, with /usr/bin/make, in /ws, in the sandbox" in shown
        assert "until you revoke it, and below that folder; a rule in /h/approved.toml" in shown
        os.write(terminal, keys)

    assert ask_all(typist, question) == choice


def test_what_is_not_offered_cannot_be_chosen() -> None:
    def typist(terminal: int) -> None:
        read_until(terminal, "[y/N]")
        os.write(terminal, b"always\n")

    assert ask_all(typist, QUESTION) == "no"


def test_a_long_command_is_paged_and_its_end_is_seen_before_the_choice() -> None:
    script = "\n".join(f"echo {number}" for number in range(60)) + "\ntouch hidden"
    question = Question(Action(("bash", "-lc", script), "/ws"), Verdict(Decision.PROMPT, "why"))
    seen: list[str] = []

    def typist(terminal: int) -> None:
        while "[y/N]" not in "".join(seen):
            seen.append(os.read(terminal, 1024).decode())
            if "".join(seen).endswith("n is no -- "):
                os.write(terminal, b"\n")
        os.write(terminal, b"y\n")

    assert ask_all(typist, question, rows=12) == "once"
    assert "".join(seen).index("touch hidden") < "".join(seen).index("[y/N]")


def test_a_yes_to_the_first_page_is_not_a_yes_to_the_whole() -> None:
    question = Question(Action(("echo", "x" * 10_000), "/ws"), Verdict(Decision.PROMPT, "why"))

    def typist(terminal: int) -> None:
        read_until(terminal, "n is no -- ")
        os.write(terminal, b"n\n")

    assert ask_all(typist, question, rows=10, columns=40) == "no"


@pytest.mark.parametrize(
    ("text", "warns"),
    [
        ("\u0430pt", True),
        ("g\u03bfogle.com", True),
        ("naïve", False),
        ("漢字", False),
        ("\u0430", False),
        ("plain", False),
    ],
)
def test_letters_of_another_script_beside_ascii_are_named(text: str, warns: bool) -> None:  # noqa: FBT001 - a parameter
    question = Question(Action(("echo", text), "/ws"), Verdict(Decision.PROMPT, "why"))
    assert ("Look twice" in question_text(question)) is warns


@pytest.mark.parametrize(
    ("keys", "choice"),
    [
        (b"n\ny\n", "no"),
        (b"\x1b[200~y\x1b[201~\n", "no"),
        (b"\x1b[A\n", "no"),
        (b"y\x15n\n", "no"),  # ^U takes back what was typed
        (b"y" * 5000 + b"\n", "no"),
        (b"y\nrm -rf x\n", "once"),
    ],
)
def test_a_paste_counts_by_its_first_line(keys: bytes, choice: str) -> None:
    assert ask_on_a_terminal(answer_with(keys)) == f"{choice}/user"


def test_a_resize_while_the_question_stands_changes_nothing() -> None:
    def typist(terminal: int) -> None:
        read_until(terminal, "[y/N]")
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 20, 0, 0))
        os.write(terminal, b"y\n")

    assert ask_on_a_terminal(typist) == "once/user"


def test_two_questions_at_once_are_asked_one_after_the_other() -> None:
    report, reported = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        try:
            answers: list[str] = []

            def ask() -> None:
                answers.append(LinePrompter(timeout=20).ask(QUESTION).choice)

            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.write(reported, " ".join(answers).encode())
        finally:
            os._exit(0)
    os.close(reported)
    try:
        read_until(terminal, "[y/N]")
        os.write(terminal, b"y\n")
        second = read_until(terminal, "[y/N]")
        os.write(terminal, b"n\n")
        assert os.read(report, 100) == b"once no"
    finally:
        os.close(terminal)
        os.close(report)
        os.waitpid(child, 0)
    # The whole of the second question stands behind the answer to the first.
    assert second.index("The agent wants to run") < second.index("Allow it?")


def test_nobody_is_asked_for_a_command_that_has_ended() -> None:
    over = threading.Event()
    question = Question(Action(("x.test:443",), "/"), Verdict(Decision.PROMPT, "why"), over=over)
    assert LinePrompter().ask(question) != MOOT
    over.set()
    assert LinePrompter().ask(question) == MOOT
