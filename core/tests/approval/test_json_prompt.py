from __future__ import annotations

import io
import json

import pytest
from codex_core.approval.json_prompt import JsonPrompter
from codex_core.approval.memory import Grant
from codex_core.approval.prompt import Choice, Question
from codex_core.types import NETWORK_TOOL, Action, Decision, Denial, Operation, Verdict

DENIAL = Denial(Operation.WRITE, "/etc/x", "outside every writable root")
QUESTION = Question(
    Action(("make", "a\x1b"), "/ws", after_denial=DENIAL),
    Verdict(Decision.PROMPT, "why", "policy:x"),
    (Choice.ONCE, Choice.NO),
    Grant(words=("make", "a\x1b"), folder="/ws"),
    "/h/approved.toml",
)


def ask(answers: str) -> tuple[Choice, str]:
    written = io.StringIO()
    answer = JsonPrompter(io.StringIO(answers), written).ask(QUESTION)
    return answer.choice, written.getvalue()


def response(**given: object) -> str:
    return json.dumps({"type": "approval_response", "id": 1, "choice": "once"} | given) + "\n"


def test_the_question_is_one_line_with_everything_in_it() -> None:
    choice, written = ask(response())
    assert choice is Choice.ONCE
    assert json.loads(written) == {
        "type": "approval_request",
        "id": 1,
        "tool": "shell",
        "command": ["make", "a\x1b"],
        "shown": "make 'a\\x1b'",
        "diff": "",
        "cwd": "/ws",
        "reason": "why",
        "source": "policy:x",
        "unsandboxed": False,
        "justification": "",
        "denial": {"operation": "write", "target": "/etc/x", "rule": "outside every writable root", "certain": True},
        "choices": ["once", "no"],
        "host": None,
        "remembers": {
            "words": ["make", "a\x1b"],
            "program": "",
            "folder": "/ws",
            "files": [],
            "host": "",
            "unsandboxed": False,
        },
        "rule_file": "/h/approved.toml",
    }


@pytest.mark.parametrize(
    "answers", ["", response(choice="always"), response(choice="x"), response(choice=None), response(choice=["once"])]
)
def test_no_answer_or_one_that_was_not_offered_is_a_no(answers: str) -> None:
    assert ask(answers)[0] is Choice.NO


@pytest.mark.parametrize("noise", ["\n", "x\n", "[]\n", response(id=2), response(type="x"), "[" * 100_000 + "\n"])
def test_lines_that_are_no_answer_are_skipped(noise: str) -> None:
    assert ask(noise)[0] is Choice.NO
    assert ask(noise + response())[0] is Choice.ONCE


def test_a_question_about_a_host_names_the_host_and_the_command_that_wants_it() -> None:
    action = Action(("a.test:443",), "/ws", tool=NETWORK_TOOL, command=("curl", "a.test"))
    written = io.StringIO()
    JsonPrompter(io.StringIO(""), written).ask(Question(action, Verdict(Decision.PROMPT, "why")))
    message = json.loads(written.getvalue())
    assert (message["tool"], message["host"], message["command"]) == ("network", "a.test:443", ["curl", "a.test"])


def test_a_question_about_a_patch_holds_the_difference() -> None:
    action = Action(("apply_patch", "..."), "/ws", tool="apply_patch", writes=("/ws/a",))
    written = io.StringIO()
    JsonPrompter(io.StringIO(""), written).ask(Question(action, Verdict(Decision.PROMPT, "why"), diff="-a\n+b"))
    assert json.loads(written.getvalue())["diff"] == "-a\n+b"
