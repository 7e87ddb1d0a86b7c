"""The gate ``web_search``: whether a model may ask its server to search the web.

It is off unless the effective configuration turns it on, with ``features.web_search_request = true`` or
``web_search``.  The server searches, so network access of commands is neither needed nor given.
What managed configuration or requirements forbid is no longer in the effective configuration.

A server without such a tool drops the request for it without a word, so it is offered only where the model provider
is known to have it: the built-in one, or one whose table says ``web_search = true``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_core.hookspecs import ToolGate, hookimpl
from codex_core.types import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOL = "web_search"
_BUILT_IN = "openai"
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
        if not isinstance(mode, str) or mode not in _ON:
            return _no("web search is off; features.web_search_request = true turns it on")
        provider = config.get("model_provider", _BUILT_IN)
        if not _has_tool(provider, config.get("model_providers")):
            return _no(
                f"the model provider {provider!r} is not known to have web search, which the configuration turns on; "
                f"web_search = true in its table of model_providers says that it has"
            )
        return Verdict(Decision.ALLOW, f'web_search = "{mode}": {_ON[mode]}', f"gate:{TOOL}")


def _has_tool(provider: object, providers: object) -> bool:
    table = providers.get(provider) if isinstance(providers, dict) else None
    settings = table if isinstance(table, dict) else {}
    said = settings.get("web_search")
    return said if isinstance(said, bool) else provider == _BUILT_IN and settings.get("base_url") is None


def _no(reason: str) -> Verdict:
    return Verdict(Decision.FORBID, reason, f"gate:{TOOL}")
