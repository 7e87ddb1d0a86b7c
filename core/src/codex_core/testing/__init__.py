"""Contract tests for authors of plugins.

Derive a class from the contract of your extension point and override its fixture ``plugin``::

    from codex_core.testing import SandboxBackendContract

    class TestMyBackend(SandboxBackendContract):
        @pytest.fixture
        def plugin(self):
            return MyBackend()

Whoever wants these tests imports this package: there is no pytest plugin that loads them by itself.

The backend's contract really runs commands.  Of a promise (:class:`codex_core.types.Promise`) that the backend's own
``probe()`` says cannot be kept on this host, the tests are skipped with the backend's reason.  The environment variable
``CODEX_CORE_REQUIRE`` names promises that have to be kept, separated by commas, or ``all``: their tests fail instead.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "codex_core.testing.approval",
    "codex_core.testing.backend",
    "codex_core.testing.config_source",
    "codex_core.testing.exporter",
    "codex_core.testing.tool_gate",
)

from codex_core.testing.approval import ApprovalPolicyContract  # noqa: E402 - after the rewriting is set up
from codex_core.testing.backend import SandboxBackendContract  # noqa: E402 - as above
from codex_core.testing.config_source import ConfigSourceContract  # noqa: E402 - as above
from codex_core.testing.exporter import ExporterContract  # noqa: E402 - as above
from codex_core.testing.tool_gate import ToolGateContract  # noqa: E402 - as above

__all__ = [
    "ApprovalPolicyContract",
    "ConfigSourceContract",
    "ExporterContract",
    "SandboxBackendContract",
    "ToolGateContract",
]
