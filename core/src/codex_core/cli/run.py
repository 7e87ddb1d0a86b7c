"""``codex run -- COMMAND``: the whole way of one command, on the caller's own descriptors."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from codex_core.agent.session import Session
from codex_core.cli import options, prompters
from codex_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.types import CommandResult

_TIMED_OUT = 124  # as timeout(1)
_OWN = (
    ("--json", "capture the output and print one JSON object with the result"),
    ("--timeout SECONDS", "end the command and everything that it started after so long; exit code 124"),
    prompters.HELP,
)
_TEXT = """\
Run COMMAND as an agent would: configuration, approval, sandbox, result, events.  Its input, output
and terminal are the caller's.  The exit code is the command's, or 128+n if signal n ended it.

  codex run -- make test
  codex run -s read-only --json -- git status
  codex run --timeout 60 -- pytest -q | tail"""


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    parsed = options.parse(argv, flags=("--json", "--help", "-h"), valued=("--timeout", "--prompter"))
    if {"--help", "-h"} & parsed.others.keys():
        sys.stdout.write(options.usage("codex run [options] -- COMMAND [WORD...]", _TEXT, _OWN))
        return 0
    if not parsed.separated:
        raise UsageError("only `codex run [options] -- COMMAND...` is available; a prompt for a model is not yet")
    if not parsed.rest:
        raise UsageError("there is no command behind `--`")
    timeout = _seconds(parsed.others["--timeout"]) if "--timeout" in parsed.others else None
    as_json, who = "--json" in parsed.others, parsed.others.get("--prompter", "terminal")
    if who == prompters.STDIO and not as_json:
        raise UsageError("--prompter json needs --json, or the command would write between the questions: or json:FD")
    prompter = prompters.prompter(who)
    loaded = options.load_given(options.given(parsed.pairs))
    if loaded.defaults_note and os.isatty(2):
        sys.stderr.write(f"codex: {options.visible(loaded.defaults_note)}\n")
    end_in_order()
    stdin = None if os.isatty(0) or who == prompters.STDIO else 0
    with Session(loaded, prompter) as session:
        for notice in session.notices:
            options.warn(notice)
        if not as_json and session.policy.limits.output_size is not None:
            options.warn(options.OUTPUT_NOT_LIMITED)
        result = session.run(parsed.rest, timeout=timeout, attach=not as_json, stdin=stdin)
    if as_json:
        import json

        sys.stdout.write(json.dumps(as_dict(result)) + "\n")
    explain(result, timeout)
    return _TIMED_OUT if result.timed_out else result.returncode


def as_dict(result: CommandResult) -> dict[str, Any]:
    """Give a result as JSON values; bytes of output that are no UTF-8 become U+FFFD."""
    return {
        "exit_code": result.ended.exit_code,
        "signal": result.ended.signal,
        "returncode": result.returncode,
        "timed_out": result.timed_out,
        "limit": result.ended.limit or None,
        "duration": round(result.duration, 6),
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
        "dropped": result.dropped,
        "denials": [
            {
                "operation": str(denial.operation),
                "target": denial.target,
                "rule": denial.rule,
                "cure": denial.cure,
                "certain": denial.certain,
            }
            for denial in result.denials
        ],
        "strength": {
            "backend": result.strength.backend,
            "rung": result.strength.rung,
            "kept": sorted(result.strength.kept),
            "lost": {str(promise): why for promise, why in sorted(result.strength.lost.items())},
            "limits": dict(sorted(result.strength.limits.items())),
        },
    }


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--timeout: not a number of seconds: {options.visible(text)}")
    return seconds


def explain(result: CommandResult, timeout: float | None = None) -> None:
    """Tell a person what the exit code of a command does not."""
    if result.ended.limit:
        options.say(f"ended: it went over limits.{result.ended.limit}")
    elif result.timed_out:
        options.say(f"ended after {timeout:g} seconds")
    for denial in result.denials:
        options.say(options.denial_line(denial))


def end_in_order() -> None:
    """Make signals that end us end the command and deliver the events first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
