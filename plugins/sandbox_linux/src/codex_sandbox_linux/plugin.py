"""The hooks of the Linux backend."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

from codex_core.errors import SandboxUnavailableError
from codex_core.hookspecs import SandboxBackend, hookimpl
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Limits, Promise, SandboxMode, Strength

from codex_sandbox_linux.forge import HelperForge
from codex_sandbox_linux.launcher import LinuxLauncher
from codex_sandbox_linux.plan import BACKEND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.types import Launcher

_LONGEST_IDLE: Final = 60.0
"""Seconds after which a jail that nobody uses gives its memory back."""


class LinuxBackend(SandboxBackend):
    """Confines commands with namespaces, Landlock and seccomp."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._prepared: dict[SandboxPolicy, LinuxLauncher] = {}
        weakref.finalize(self, _close_all, self._prepared)

    @hookimpl
    def probe(self) -> Strength:
        """Set up a sandbox that runs nothing, and see."""
        everything = frozenset(str(promise) for promise in Promise)
        most = Limits(cpu_time=1, memory=1 << 30, processes=100, open_files=1024, file_size=1 << 30)
        policy = SandboxPolicy(SandboxMode.READ_ONLY, "/", (), (), allow_degraded=everything, limits=most)
        try:
            launcher = LinuxLauncher(policy, HelperForge())
        except SandboxUnavailableError as error:
            return Strength(BACKEND, "none", frozenset(), dict.fromkeys(Promise, str(error)))
        launcher.close()
        return launcher.strength

    @hookimpl
    def unsupported(self, policy: SandboxPolicy) -> Sequence[str]:
        """Set the sandbox up; what stands in the way is the answer, and the launcher is kept for :meth:`launcher`."""
        _close_all(self._prepared)
        try:
            self._prepared[policy] = _launcher(policy)
        except SandboxUnavailableError as error:
            return (str(error),)
        return ()

    @hookimpl
    def launcher(self, policy: SandboxPolicy) -> Launcher:
        """Start the helper and the first jail."""
        return self._prepared.pop(policy, None) or _launcher(policy)


def _launcher(policy: SandboxPolicy) -> LinuxLauncher:
    return LinuxLauncher(policy, HelperForge(), longest_idle=_LONGEST_IDLE)


def _close_all(prepared: dict[SandboxPolicy, LinuxLauncher]) -> None:
    while prepared:
        prepared.popitem()[1].close()
