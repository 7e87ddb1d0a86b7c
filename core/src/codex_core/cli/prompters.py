"""Who is asked where a verdict wants a person: what ``--prompter`` names."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from codex_core.errors import UsageError

if TYPE_CHECKING:
    from codex_core.approval.prompt import Prompter

HELP = (
    "--prompter WHO",
    "who is asked: terminal; json:FD, JSON lines on a socket; json:IN,OUT on pipes; json with --json",
)
STDIO = "json"
"""Ask on standard input and output, which the command then does not get."""


def prompter(who: str) -> Prompter | None:
    """Open who is asked, None for the terminal; raises UsageError.

    The command inherits none of the descriptors: it could answer for the person.
    """
    if who == "terminal":
        return None
    from codex_core.approval.json_prompt import JsonPrompter

    if who == STDIO:
        return JsonPrompter(sys.stdin, sys.stdout)
    numbers = who.removeprefix(f"{STDIO}:")
    given = numbers.split(",")
    if not re.fullmatch("json:[0-9]{1,9}(,[0-9]{1,9})?", who) or min(map(int, given)) < 3:  # noqa: PLR2004 - above the standard ones
        raise UsageError("--prompter is terminal, json, json:FD, or json:IN,OUT with descriptors above 2")
    try:
        answers, questions = (os.dup(int(number)) for number in (given[0], given[-1]))
        for number in given:
            os.set_inheritable(int(number), False)  # noqa: FBT003 - its only parameter
    except (OSError, OverflowError) as error:
        raise UsageError(f"--prompter: {numbers} has a descriptor that is not open") from error
    return JsonPrompter(open(answers, encoding="utf-8"), open(questions, "w", encoding="utf-8"))
