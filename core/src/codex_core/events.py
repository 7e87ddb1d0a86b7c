"""What happened, one frozen class for each kind of event.

Names and attributes follow the events that the reference client sends, so that its queries keep
working; numbers are integers.  An event is built complete, redacted once by
:mod:`codex_core.telemetry.redact`, and then handed to the exporter and to every observer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have in common."""

    name: ClassVar[str]
    conversation_id: str
    """UUID, the same in all events of one session."""
    timestamp: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationStarts(Event):
    """A session begins, under this policy."""

    name: ClassVar[str] = "codex.conversation_starts"
    provider_name: str
    approval_policy: str
    sandbox_policy: str
    network_access: bool
    sandbox_backend: str
    web_search: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationChanges(ConversationStarts):
    """A session goes on under another policy."""

    name: ClassVar[str] = "codex.conversation_changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPrompt(Event):
    """A person said something; *prompt* is redacted unless the configuration says otherwise."""

    name: ClassVar[str] = "codex.user_prompt"
    prompt_length: int
    """In characters."""
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest(Event):
    """One request to the model, successful or not."""

    name: ClassVar[str] = "codex.api_request"
    attempt: int
    """From 0."""
    duration_ms: int
    http_status: int | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SseEvent(Event):
    """One event of the model's stream; the completed response carries the token counts."""

    name: ClassVar[str] = "codex.sse_event"
    kind: str
    duration_ms: int
    error_message: str | None = None
    input_token_count: int | None = None
    output_token_count: int | None = None
    cached_token_count: int | None = None
    reasoning_token_count: int | None = None
    tool_token_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDecision(Event):
    """A verdict on one action, also when no person was asked."""

    name: ClassVar[str] = "codex.tool_decision"
    tool_name: str
    call_id: str
    decision: str
    """``approved``, ``approved_for_session``, ``denied``, ``abort`` or ``timed_out``."""
    source: str
    """``config`` or ``user``."""
    reason: str
    """Why, for an auditor, behind the policy or rule that says so."""
    decided_by: str = ""
    """``user``, ``session`` (a person, earlier), ``timeout``, ``no-terminal``, ``prompter`` (it failed),
    ``ask_about`` (the question is switched off), ``policy:NAME`` or ``gate:NAME`` of a plugin, or a rule or
    requirement as ``FILE:LINE``; several are joined by a comma."""
    neutralised: str = ""
    """JSON text of how the command was run instead, where it was allowed because of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOutcome(Event):
    """The sandbox, a time-out or a signal ended a command before its own end."""

    name: ClassVar[str] = "codex.sandbox_outcome"
    tool_name: str
    call_id: str
    outcome: str
    """``denied``, ``escalated``, ``timed_out`` or ``signal``."""
    initial_duration_ms: int
    escalated_duration_ms: int | None = None
    target: str = ""
    """What was denied, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDecision(Event):
    """A host that a command wanted to reach where the network is filtered; each decision once a command."""

    name: ClassVar[str] = "codex.network_decision"
    tool_name: str
    call_id: str
    host: str
    port: int
    """0 where only its address was asked for."""
    decision: str
    """``allowed`` or ``denied``."""
    rule: str
    """What decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult(Event):
    """What came of one action; also sent, with ``success`` false, for one that was refused."""

    name: ClassVar[str] = "codex.tool_result"
    tool_name: str
    call_id: str
    arguments: str
    """JSON text of the call."""
    duration_ms: int
    success: bool
    """Whether the tool ran; how the command ended is in *exit_code*."""
    output: str
    """A preview: at most 2 KiB or 64 lines."""
    output_truncated: bool = False
    exit_code: int | None = None
    sandbox_strength: str = ""
    """Backend and rung, such as ``linux/namespaces``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryDropped(Event):
    """Records were lost on the way to the collector."""

    name: ClassVar[str] = "codex.telemetry_dropped"
    count: int
