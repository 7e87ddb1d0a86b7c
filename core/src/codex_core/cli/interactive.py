"""``codex`` without a subcommand: a session in plain lines, where no frontend takes over."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from codex_core import discovery
from codex_core.agent.session import Session
from codex_core.cli import options
from codex_core.cli.run import end_in_order, explain
from codex_core.cli.status import PRESETS, preset_lines, status_lines
from codex_core.errors import CodexError, UsageError
from codex_core.hookspecs import Frontend
from codex_core.host import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FRONTEND = "terminal"
_PROMPT = "codex> "
_HELP = """\
  !COMMAND             run a shell command, as an agent would: policy, approval, sandbox, result
  /status              what holds in this session, and which file or choice says so
  /approvals           what may be chosen; /approvals NAME chooses it for this session
  /help                this
  /quit                end the session (also Ctrl-D)"""


def main(argv: Sequence[str]) -> int:
    """Hold a session; its exit code."""
    loaded = options.load_given(options.given(options.parse(argv).pairs))
    end_in_order()
    with Session(loaded) as session:
        if FRONTEND in discovery.installed(Frontend.namespace):
            session.host.add(Choice(Frontend.namespace, FRONTEND, "", "the one that is installed"))
        code = session.host.interact(session)
        return Lines(session).run() if code is None else code


class Lines:
    """Reads lines from standard input and does what they say."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._commands: dict[str, Callable[[str], None]] = {
            "/status": self._status,
            "/approvals": self._approvals,
            "/permissions": self._approvals,  # what the reference client calls it now
            "/help": lambda _: _print([_HELP]),
        }

    def run(self) -> int:
        """Hold the session until it is ended; 0."""
        self._tell(self._session.notices)
        if self._session.loaded.defaults_note:
            options.say(self._session.loaded.defaults_note)
        _print(["/help says what can be said here."])
        while (line := _read()) is not None and line not in {"/quit", "/exit"}:
            try:
                self._do(line)
            except CodexError as error:
                options.say(str(error))
            except KeyboardInterrupt:
                _print([""])
        return 0

    def _do(self, line: str) -> None:
        if line.startswith("!"):
            self._shell(line[1:].strip())
        elif line.startswith("/"):
            name, _, word = line.partition(" ")
            if name not in self._commands:
                raise UsageError(f"there is no {name}; /help lists what there is")
            self._commands[name](word.strip())
        elif line:
            raise UsageError("no model can be asked in this release; `!` before a line runs it as a shell command")

    def _shell(self, line: str) -> None:
        if not line:
            return
        # Where no terminal is, the input holds the lines to come, and is not the command's.
        attach = os.isatty(0)
        explain(self._session.run(("bash", "-c", line), attach=attach, on_output=None if attach else _pass_on))

    def _status(self, _: str) -> None:
        try:
            strength = self._session.strength
        except CodexError as error:
            options.say(str(error))
            strength = None
        _print(status_lines(self._session.loaded, self._session.policy, strength))

    def _approvals(self, name: str) -> None:
        if not name:
            _print(preset_lines(self._session.loaded))
        elif name in PRESETS:
            self._tell(self._session.change(PRESETS[name]))
            _print(preset_lines(self._session.loaded))
        else:
            raise UsageError(f"there is no preset {name}; there are: {', '.join(PRESETS)}")

    def _tell(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            options.warn(warning)


def _read() -> str | None:
    """Read one line, None at the end of the input.  Ctrl-C takes back what was typed."""
    asks = os.isatty(0) and os.isatty(1)
    if asks:
        with suppress(ImportError):
            import readline  # noqa: F401 -- input() then lets a line be edited, and earlier ones be found again
    while True:
        try:
            return input(_PROMPT if asks else "").strip()
        except EOFError:
            if asks:
                _print([""])
            return None
        except KeyboardInterrupt:
            _print([""])


def _pass_on(stream: Literal["stdout", "stderr"], data: bytes) -> None:
    getattr(sys, stream).buffer.write(data)
    getattr(sys, stream).buffer.flush()


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
