"""``codex sandbox linux -- COMMAND``: the sandbox alone, without approval and events, and fast.

Nothing on this path imports argparse, pydantic, pluggy, stevedore, importlib.metadata or subprocess
as long as the configuration is plain; a test sees to it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from codex_core import discovery
from codex_core.cli import options
from codex_core.config import quick
from codex_core.config.defaults import os_backend
from codex_core.errors import PluginConflictError, PluginNotFoundError, UsageError
from codex_core.sandbox.environment import EnvironmentSettings, child_environment
from codex_core.sandbox.policy import build_policy
from codex_core.types import Command, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.config import Loaded
    from codex_core.sandbox.policy import SandboxSettings
    from codex_core.types import CommandResult

_BACKENDS = "codex_core.sandbox_backends"
_COMMANDS = "codex_core.sandbox_commands"
_SYSTEMS = ("linux", "macos", "windows")
_VERBS = ("explain", "learn")
_TEXT = """\
Run COMMAND in the sandbox that the configuration and the options ask for, without asking anybody.
The name of the system may be left out before `--`.

  codex sandbox linux -- touch /etc/x
  codex sandbox -s workspace-write -- bash
  codex sandbox explain -- make install    say what was refused, and what would allow it
  codex sandbox learn -- make install      print the configuration that would allow it"""


def main(argv: Sequence[str]) -> int:
    """Run one command in the sandbox; its exit status as a shell gives it."""
    parsed = options.parse(argv, flags=("--help", "-h"))
    if {"--help", "-h"} & parsed.others.keys():
        sys.stdout.write(options.usage("codex sandbox [linux|macos|windows] [options] [--] COMMAND [WORD...]", _TEXT))
        return 0
    system, pairs, words = os_backend(), parsed.pairs, parsed.rest
    if not parsed.separated and words and words[0] in _VERBS:
        from codex_core.cli import explain

        return explain.main([words[0], *options.words(pairs), *words[1:]])
    if not parsed.separated and words and words[0] in _SYSTEMS:
        system = words[0]
        behind = options.parse(words[1:], flags=("--help", "-h"))
        if behind.others:
            return main(["--help"])
        pairs, words = (*pairs, *behind.pairs), behind.rest
    elif not parsed.separated:
        raise UsageError("say `codex sandbox linux|macos|windows [options] COMMAND` or `codex sandbox -- COMMAND`")
    if not words:
        raise UsageError("there is no command to run")
    if system != os_backend():
        raise UsageError(f"this system has the sandbox {os_backend()!r}, not {system!r}: leave the name out")
    return _run(options.given(pairs), words)


def _run(asked: options.Given, words: Sequence[str]) -> int:
    settings, environment, codex_home, loaded = _settings(asked)
    installed = discovery.scan()
    policy = build_policy(
        settings,
        cwd=asked.cwd,
        environ=os.environ,
        codex_home=codex_home,
        code_locations=discovery.code_locations(installed),
    )
    for notice in policy.notices:
        options.warn(notice)
    if policy.limits.output_size is not None:
        options.warn(options.OUTPUT_NOT_LIMITED)
    backend = settings.backend or os_backend()
    if policy.mode is SandboxMode.DANGER_FULL_ACCESS:
        backend = "none"
    command = Command(tuple(words), policy.cwd, child_environment(os.environ, environment, policy, backend))
    if backend == "none":
        from codex_core.sandbox.direct import DirectLauncher
        from codex_core.sandbox.terminal import attach

        return attach(DirectLauncher(), command).returncode
    # The long way: for a backend that has no command of its own, and where constraints have a say.
    if loaded is not None and loaded.constraints.requirements:
        return _told(options.run_by_host(policy, command, backend, loaded))
    try:
        plugin = discovery.find(_COMMANDS, backend, installed)
    except PluginNotFoundError:
        return _told(options.run_by_host(policy, command, backend, loaded))
    if plugin.distribution != discovery.find(_BACKENDS, backend, installed).distribution:
        reason = f"it comes from {plugin.distribution}, and the backend does not: uninstall one of them"
        raise PluginConflictError(_COMMANDS, backend, reason)
    result: CommandResult = discovery.load(plugin)(policy, command)  # type: ignore[operator]  # the namespace's promise
    return _told(result)


def _told(result: CommandResult) -> int:
    """Say what a person should know about a result; its exit status."""
    limit = "wall_time" if result.timed_out else result.ended.limit
    if limit:
        options.say(f"ended: it went over limits.{limit}")
    for denial in result.denials:
        options.say(options.denial_line(denial))
    return result.returncode


def _settings(asked: options.Given) -> tuple[SandboxSettings, EnvironmentSettings, str, Loaded | None]:
    found = quick.settings(cwd=asked.cwd, overrides=asked.overrides)
    if found is not None:
        return found.sandbox, EnvironmentSettings(), found.codex_home, None
    loaded = options.load_given(asked)
    config = loaded.config
    return config.sandbox_settings(), config.environment_settings(), loaded.codex_home, loaded
