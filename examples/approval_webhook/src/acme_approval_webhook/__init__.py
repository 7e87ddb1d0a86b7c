"""An approval policy that asks a server; see the README beside it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from codex_core.hookspecs import ApprovalPolicy, hookimpl
from codex_core.types import Action, Decision, Verdict

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy

VARIABLE = "CODEX_APPROVAL_WEBHOOK"
TIMEOUT = 5.0
"""Seconds."""
_ANSWER_BYTES = 1 << 16
_DECISIONS = {"allow": Decision.ALLOW, "prompt": Decision.PROMPT, "forbid": Decision.FORBID}


class Webhook(ApprovalPolicy):
    """Follows the answer of a server.  Whatever goes wrong is raised, and what raises forbids."""

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:
        """Ask about one action."""
        url = os.environ.get(VARIABLE, "")
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
            raise ValueError(f"{VARIABLE} does not name an https address")
        question = {
            "command": action.argv,
            "cwd": action.cwd,
            "tool": action.tool,
            "escalated": action.escalated,
            "sandbox_mode": policy.mode,
        }
        answer = json.loads(_post(url, json.dumps(question).encode()))
        return Verdict(
            _DECISIONS[answer["decision"]], str(answer.get("reason") or "the server says so"), "policy:webhook"
        )


def _post(url: str, body: bytes) -> bytes:
    # No proxy: who decides about commands is not to be redirected by a variable.
    opener: OpenerDirector = build_opener(ProxyHandler({}))
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - the scheme was checked
    with opener.open(request, timeout=TIMEOUT) as response:
        return bytes(response.read(_ANSWER_BYTES))
