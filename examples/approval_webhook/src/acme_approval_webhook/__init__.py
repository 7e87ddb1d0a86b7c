"""An approval policy that asks a server; see the README beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from codex_core import Table
from codex_core.hookspecs import ApprovalPolicy, hookimpl
from codex_core.types import Action, Decision, Verdict
from pydantic import Field, field_validator

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy

_ANSWER_BYTES = 1 << 16
_DECISIONS = {"allow": Decision.ALLOW, "prompt": Decision.PROMPT, "forbid": Decision.FORBID}


class Settings(Table):
    """The table ``[plugins.webhook]``."""

    url: str = Field(description="Where to ask: an https address, or http to 127.0.0.1.")
    timeout: float = Field(default=5.0, gt=0, description="Seconds to wait for an answer.")

    @field_validator("url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or (parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1")):
            raise ValueError("name an https address")
        return url


class Webhook(ApprovalPolicy):
    """Follows the answer of a server.  Whatever goes wrong is raised, and what raises forbids."""

    settings_model = Settings

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:
        """Ask about one action."""
        question = {
            "command": action.argv,
            "cwd": action.cwd,
            "tool": action.tool,
            "escalated": action.escalated,
            "sandbox_mode": policy.mode,
        }
        answer = json.loads(_post(self._settings, json.dumps(question).encode()))
        return Verdict(
            _DECISIONS[answer["decision"]], str(answer.get("reason") or "the server says so"), "policy:webhook"
        )


def _post(settings: Settings, body: bytes) -> bytes:
    # No proxy: who decides about commands is not to be redirected by a variable.
    opener: OpenerDirector = build_opener(ProxyHandler({}))
    request = Request(settings.url, body, {"Content-Type": "application/json"})  # noqa: S310 - the scheme was checked
    with opener.open(request, timeout=settings.timeout) as response:
        return bytes(response.read(_ANSWER_BYTES))
