"""What every tool gate has to keep; see :mod:`codex_core.testing` for how to use it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from codex_core.host import Host
from codex_core.types import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.hookspecs import ToolGate

CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"sandbox_mode": "read-only", "sandbox_workspace_write": {"network_access": False}},
    {"sandbox_mode": "danger-full-access", "web_search": "live", "features": {"web_search_request": True}},
)


class ToolGateContract:
    """Tests that every tool gate passes."""

    @pytest.fixture
    def plugin(self) -> ToolGate:
        """Give the gate to test: override this."""
        pytest.fail("override the fixture `plugin` to give the tool gate")

    @pytest.fixture
    def tools(self) -> tuple[str, ...]:
        """Give the names of the tools that it judges: override this."""
        return ()

    @pytest.fixture(params=CONFIGURATIONS, ids=lambda config: str(len(config)))
    def config(self, request: pytest.FixtureRequest) -> Mapping[str, Any]:
        """Give an effective configuration."""
        return copy.deepcopy(request.param)

    def test_every_tool_gets_a_verdict_or_an_abstention(
        self, plugin: ToolGate, tools: tuple[str, ...], config: Mapping[str, Any]
    ) -> None:
        """Also one that it does not know, and whatever is missing in the configuration."""
        for tool in (*tools, "", "a tool that nobody knows"):
            verdict = plugin.gate_tool(tool=tool, config=config)
            if verdict is not None:
                assert isinstance(verdict, Verdict)
                assert isinstance(verdict.decision, Decision)
                assert verdict.reason

    def test_its_own_tools_get_a_verdict_in_every_configuration(
        self, plugin: ToolGate, tools: tuple[str, ...], config: Mapping[str, Any]
    ) -> None:
        """A gate that says nothing about its own tool closes it, and nobody learns why."""
        for tool in tools:
            assert plugin.gate_tool(tool=tool, config=config) is not None

    def test_the_same_question_gets_the_same_answer_and_changes_nothing(
        self, plugin: ToolGate, tools: tuple[str, ...], config: Mapping[str, Any]
    ) -> None:
        """A verdict depends on the tool and the configuration alone."""
        before = copy.deepcopy(config)
        for tool in tools:
            assert plugin.gate_tool(tool=tool, config=config) == plugin.gate_tool(tool=tool, config=config)
        assert config == before

    def test_the_host_accepts_the_gate(
        self, plugin: ToolGate, tools: tuple[str, ...], config: Mapping[str, Any]
    ) -> None:
        """Its verdict comes through the host as it is."""
        for tool in tools:
            host = Host()
            host.tool_gates.register(plugin, tool)
            verdict = plugin.gate_tool(tool=tool, config=config)
            assert verdict is not None
            assert host.gate_tool(tool, config).decision is verdict.decision
