"""The Linux backend keeps the contract of all sandbox backends."""

from __future__ import annotations

import pytest
from codex_core.testing import SandboxBackendContract
from codex_sandbox_linux.plugin import LinuxBackend


class TestLinuxBackend(SandboxBackendContract):
    @pytest.fixture
    def plugin(self) -> LinuxBackend:
        return LinuxBackend()
