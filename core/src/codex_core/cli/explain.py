"""``codex sandbox explain`` and ``codex sandbox learn``: run a command and say what the sandbox refused."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from codex_core.cli import options
from codex_core.config.defaults import os_backend
from codex_core.discovery import code_locations
from codex_core.errors import UsageError
from codex_core.sandbox.environment import child_environment
from codex_core.sandbox.learn import learn
from codex_core.sandbox.policy import build_policy
from codex_core.types import Command, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_EXPLAIN = """\
Run COMMAND in the sandbox, more slowly, and say on stderr which path or host it was refused, by which
rule, and which setting would allow it.  The exit code is the command's.

  codex sandbox explain -- make install"""
_LEARN = """\
Run COMMAND in the sandbox, more slowly, collect what it was refused, and print the smallest
configuration that would allow it.  The command's own output goes to stderr.  What is better not
allowed stands in comments.  The exit code is 0 if the command ran.

  codex sandbox learn -- npm install"""


def main(argv: Sequence[str]) -> int:
    """Run one command; *argv* begins with ``explain`` or ``learn``."""
    verb = argv[0]
    parsed = options.parse(argv[1:], flags=("--help", "-h"))
    if {"--help", "-h"} & parsed.others.keys():
        text = _EXPLAIN if verb == "explain" else _LEARN
        sys.stdout.write(options.usage(f"codex sandbox {verb} [options] [--] COMMAND [WORD...]", text))
        return 0
    if not parsed.rest:
        raise UsageError("there is no command to run")
    loaded = options.load_given(options.given(parsed.pairs))
    settings = loaded.config.sandbox_settings()
    if settings.mode is SandboxMode.DANGER_FULL_ACCESS:
        raise UsageError("danger-full-access refuses nothing: choose another mode with --sandbox")
    policy = build_policy(
        settings,
        cwd=loaded.context.cwd,
        environ=os.environ,
        codex_home=loaded.codex_home,
        code_locations=code_locations(),
    )
    backend = settings.backend or os_backend()
    environment = child_environment(os.environ, loaded.config.environment_settings(), policy, backend)
    command, observed = Command(parsed.rest, policy.cwd, environment), replace(policy, observe=True)
    if verb == "explain":
        result = options.run_by_host(observed, command, backend, loaded)
        for denial in result.denials:
            options.say(options.denial_line(denial))
        if not result.denials:
            options.say("the sandbox refused nothing")
        return result.returncode
    with _stdout_on_stderr():
        result = options.run_by_host(observed, command, backend, loaded)
    home = os.path.realpath(os.path.expanduser("~"))
    sys.stdout.write(learn(result.denials, protected=policy.protected, home=home).toml())
    return 0


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Send what the command prints to stderr, so that stdout holds the configuration alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
