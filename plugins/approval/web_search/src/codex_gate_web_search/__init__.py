"""The gate ``web_search``: whether a model may ask its server to search the web.

It is off unless the effective configuration turns it on, with ``features.web_search_request = true`` or
``web_search``.  The server searches, so network access of commands is neither needed nor given.
What managed configuration or requirements forbid is no longer in the effective configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_core.hookspecs import ToolGate, hookimpl
from codex_core.types import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOL = "web_search"
_ON = {
    "cached": "the model's server answers from what it has",
    "indexed": "the model's server answers from its index",
    "live": "the model's server searches the network",
}


class WebSearchGate(ToolGate):
    """Offers web search where the configuration turns it on."""

    @hookimpl
    def gate_tool(self, tool: str, config: Mapping[str, Any]) -> Verdict | None:
        """Judge ``web_search``; abstain about other tools."""
        if tool != TOOL:
            return None
        mode, features = config.get("web_search"), config.get("features")
        if mode is None and isinstance(features, dict) and features.get("web_search_request") is True:
            mode = "live"
        if isinstance(mode, str) and mode in _ON:
            return Verdict(Decision.ALLOW, f'web_search = "{mode}": {_ON[mode]}', f"gate:{TOOL}")
        reason = "web search is off; features.web_search_request = true turns it on"
        return Verdict(Decision.FORBID, reason, f"gate:{TOOL}")
