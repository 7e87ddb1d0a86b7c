from __future__ import annotations

from typing import Any

import pytest
from codex_core.testing import ToolGateContract
from codex_core.types import Decision
from codex_gate_web_search import WebSearchGate


class TestWebSearchGate(ToolGateContract):
    @pytest.fixture
    def plugin(self) -> WebSearchGate:
        return WebSearchGate()

    @pytest.fixture
    def tools(self) -> tuple[str, ...]:
        return ("web_search",)


@pytest.mark.parametrize(
    "config",
    [
        {"web_search": "live"},
        {"web_search": "cached"},
        {"web_search": "indexed"},
        {"features": {"web_search_request": True}},
        {"web_search": "live", "features": {"web_search_request": True}},
    ],
)
def test_it_is_offered_where_the_configuration_turns_it_on(config: dict[str, Any]) -> None:
    verdict = WebSearchGate().gate_tool("web_search", config)
    assert verdict is not None
    assert verdict.decision is Decision.ALLOW


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"web_search": "disabled"},
        {"web_search": "disabled", "features": {"web_search_request": True}},
        {"web_search": "anything"},
        {"web_search": ["live"]},
        {"features": {"web_search_request": "true"}},
        {"features": None},
        {"sandbox_mode": "danger-full-access", "sandbox_workspace_write": {"network_access": True}},
    ],
)
def test_it_is_closed_in_every_other_configuration(config: dict[str, Any]) -> None:
    verdict = WebSearchGate().gate_tool("web_search", config)
    assert verdict is not None
    assert verdict.decision is Decision.FORBID
    assert "web_search_request" in verdict.reason


def test_other_tools_are_none_of_its_business() -> None:
    assert WebSearchGate().gate_tool("shell", {"web_search": "live"}) is None
