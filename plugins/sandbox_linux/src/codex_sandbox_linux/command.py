"""Run one command in the sandbox, for ``codex sandbox linux``: no helper process, and nothing imported for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_core.sandbox import terminal

from codex_sandbox_linux.forge import LocalForge
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Command


def run(policy: SandboxPolicy, command: Command) -> int:
    """Run *command* under *policy* on the caller's own stdio; the exit status as a shell gives it.

    Raises SandboxUnavailableError, CommandNotFoundError or CommandNotExecutableError.
    """
    launcher = LinuxLauncher(policy, LocalForge())
    try:
        return terminal.attach(launcher, command).returncode
    finally:
        launcher.close()
