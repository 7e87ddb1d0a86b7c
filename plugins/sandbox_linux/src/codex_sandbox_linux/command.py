"""Run one command in the sandbox, for ``codex sandbox linux``: no helper process, and nothing imported for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_core.sandbox import terminal

from codex_sandbox_linux.forge import LocalForge
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Command, CommandResult


def run(policy: SandboxPolicy, command: Command) -> CommandResult:
    """Run *command* under *policy* on the caller's own stdio.

    Raises SandboxUnavailableError, CommandNotFoundError or CommandNotExecutableError.
    """
    launcher = LinuxLauncher(policy, LocalForge())
    try:
        return terminal.attach(launcher, command, timeout=policy.limits.wall_time)
    finally:
        launcher.close()
