"""The entry of ``codex``: find the subcommand, run it, and turn every error into one line.

Nothing is imported but what the subcommand needs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from codex_core import __version__
from codex_core.errors import CodexError, UsageError, shortage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

SUBCOMMANDS = {
    "run": "run a command under the configured policy, sandbox and approval",
    "sandbox": "run a command in the sandbox alone, to try it",
    "config": "show, check and edit the configuration",
    "rules": "show, check and edit the rules for commands",
    "approvals": "list and take back what was allowed always",
    "mdm": "encode and decode managed configuration",
    "plugins": "list extension points, what is installed for them, and what is chosen",
    "doctor": "check this installation and what the sandbox can keep here",
    "completion": "print a completion script for bash, zsh or fish",
}
_UNAVAILABLE = 125
_INTERRUPTED = 130
_NOBODY_READS = 141
_INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits(3)

_HELP = """\
usage: codex [options] [SUBCOMMAND ...]

Run what a coding agent wants to run: under a policy, in a sandbox, with a record of what happened.
Without a subcommand, hold a session: /status and /approvals show and change what holds in it.

subcommands:
{subcommands}

examples:
  codex run -- make test                       as configured for this folder
  codex run -s read-only -- git log            nothing can be written, nothing reached
  codex run -s workspace-write --add-dir ../out -- make
  codex sandbox linux -- bash                  look around inside
  codex doctor                                 what the sandbox keeps on this machine

`codex SUBCOMMAND --help` says more.  Options that concern a run (-c, -s, -a, -C, --add-dir, --yolo)
may stand before or after the subcommand, and always before `--`.

exit codes: what the command gave; 128+n if signal n ended it; 124 timed out; 125 no sandbox or plugin;
126 not permitted or not executable; 127 not found; 2 usage; 1 configuration.
"""


def program() -> NoReturn:
    """Be the program ``codex``.

    Taking the interpreter down takes a tenth of a cold start, and is left out where no plugin may wait for it.
    """
    code = main()
    if "codex_core.host" in sys.modules:
        sys.exit(code)
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``codex`` with *argv*, by default the words behind the program's name; the exit code."""
    _open_standard_descriptors()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except CodexError as error:
        return _fail(error, error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone.  Nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _NOBODY_READS
    except Exception as error:  # noqa: BLE001 -- no traceback may reach a user
        return _fail(error, _UNAVAILABLE if shortage(error) else _INTERNAL_ERROR)
    return code


def _dispatch(words: Sequence[str]) -> int:
    from codex_core.cli import options

    parsed = options.parse(words, flags=("--help", "-h", "--version", "-V"))
    if {"--help", "-h"} & parsed.others.keys():
        sys.stdout.write(help_text())
        return 0
    if {"--version", "-V"} & parsed.others.keys():
        sys.stdout.write(f"codex {__version__}\n")
        return 0
    if parsed.separated:
        raise UsageError("say `codex run -- COMMAND` to run a command")
    name, *rest = parsed.rest or ("interactive",)
    if parsed.rest and name not in available():
        import difflib

        near = difflib.get_close_matches(name, available(), 1)
        hint = f"did you mean `codex {near[0]}`?" if near else "`codex --help` lists what there is"
        raise UsageError(f"there is no subcommand {options.visible(name)!r}; {hint}")
    from importlib import import_module

    module = import_module(f"codex_core.cli.{name}")
    code: int = module.main([*options.words(parsed.pairs), *rest])
    return code


def available() -> list[str]:
    """List the subcommands that this installation has."""
    here = os.listdir(os.path.dirname(__file__))
    return [name for name in SUBCOMMANDS if f"{name}.py" in here]


def help_text() -> str:
    """Give the help of ``codex`` itself."""
    lines = [f"  {name:<12} {SUBCOMMANDS[name]}" for name in available()]
    return _HELP.format(subcommands="\n".join(lines))


def _fail(error: Exception, code: int) -> int:
    from codex_core.cli.options import visible

    if os.environ.get("CODEX_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    message = shortage(error) or str(error)
    if code == _INTERNAL_ERROR:
        message = f"internal error: {type(error).__name__}: {error} (CODEX_DEBUG=1 shows where)"
    sys.stderr.write(f"codex: {visible(message)}\n")
    return code


def _open_standard_descriptors() -> None:
    """Let no file that is opened later take the place of a standard descriptor that is closed."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    program()
