"""A sandbox backend that is honest about keeping nothing.

So it refuses every policy, unless the configuration accepts each loss in ``[sandbox_acme] allow_degraded``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_core.hookspecs import SandboxBackend, hookimpl
from codex_core.sandbox.direct import DirectLauncher
from codex_core.types import Promise, Strength

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Command, Running

STRENGTH = Strength("acme", "honesty", frozenset(), dict.fromkeys(Promise, "this backend confines nothing"))


class AcmeLauncher:
    """Runs commands as they are, and says so."""

    strength = STRENGTH

    def __init__(self) -> None:
        self._direct = DirectLauncher()

    def start(self, command: Command, stdin: int, stdout: int, stderr: int, *, tty: str | None = None) -> Running:
        """Start a command."""
        return self._direct.start(command, stdin, stdout, stderr, tty=tty)

    def close(self) -> None:
        """End what still runs."""
        self._direct.close()


class AcmeBackend(SandboxBackend):
    """The backend ``acme``."""

    @hookimpl
    def probe(self) -> Strength:
        """Say that nothing is kept."""
        return STRENGTH

    @hookimpl
    def unsupported(self, policy: SandboxPolicy) -> tuple[str, ...]:
        """Name everything that the configuration does not accept to lose."""
        return tuple(
            f'acme cannot keep {promise}: accept it with [sandbox_acme] allow_degraded = ["{promise}"]'
            for promise in Promise
            if promise not in policy.allow_degraded
        )

    @hookimpl
    def launcher(self, policy: SandboxPolicy) -> AcmeLauncher:  # noqa: ARG002 - the contract
        """Make a launcher."""
        return AcmeLauncher()
