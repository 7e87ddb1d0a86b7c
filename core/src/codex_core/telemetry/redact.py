"""What leaves an event before anybody sees it.  Pure.

Secrets are found by the shapes that they are known by.  That is a net with holes, not a promise:
what must not be seen must not be given to a command.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from codex_core.events import ToolResult, UserPrompt

if TYPE_CHECKING:
    from codex_core.events import Event

    EventT = TypeVar("EventT", bound=Event)

REDACTED = "[REDACTED]"
PREVIEW_BYTES = 2048
PREVIEW_LINES = 64
ARGUMENT_BYTES = 1 << 16
"""The most of a call's arguments that an event carries."""

_WORD = r"(?:token|secret|passw(?:or)?d|passphrase|credential|(?:api|access|private|secret|auth)[_-]?key)s?"
_QUOTE = r"""\\*["']?"""  # as it is, or inside of JSON text
_NAMES = ("token", "secret", "pass", "credent", "key")
_SHAPES = tuple(
    (frozenset(marks), re.compile(shape, re.DOTALL), replacement)
    for marks, shape, replacement in (
        # A private key in PEM, up to the end of the text where its end is missing.
        (["private key-"], r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", REDACTED),
        # Tokens that say what they are: GitHub, GitLab, Slack, Stripe and OpenAI, AWS, Google, npm, PyPI, Hugging Face.
        (["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"], r"\b(?:gh[pousr]_|github_pat_)\w{16,}", REDACTED),
        (["glpat-"], r"\bglpat-[\w-]{16,}", REDACTED),
        (["xox"], r"\bxox[abeoprs]-[\w-]{10,}", REDACTED),
        (["k-", "k_"], r"\b[rs]k[-_](?:live[-_]|test[-_]|proj[-_]|ant[-_])?[\w-]{16,}", REDACTED),
        (["akia", "asia"], r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", REDACTED),
        (["aiza"], r"\bAIza[\w-]{30,}", REDACTED),
        (["npm_"], r"\bnpm_\w{30,}", REDACTED),
        (["pypi-"], r"\bpypi-[\w-]{30,}", REDACTED),
        (["hf_"], r"\bhf_\w{30,}", REDACTED),
        # A JSON Web Token.
        (["eyj"], r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", REDACTED),
        # A header ("bas", since U+0131 is an i to expressions and not to folding), a URL, an assignment, an option.
        (["bearer", "bas"], r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}", rf"\1 {REDACTED}"),
        (["://"], r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"']{0,256}):[^\s/@\"']{1,1024}@", rf"\1:{REDACTED}@"),
        (
            _NAMES,
            rf"(?i)\b([\w-]*{_WORD}(?:[_-][\w-]*)?{_QUOTE}\s*[=:]\s*{_QUOTE})[^\s\"'\\,;&]{{3,}}",
            rf"\1{REDACTED}",
        ),
        (
            _NAMES,
            rf"(?i)(--?[\w-]*{_WORD}{_QUOTE}(?:,\s*|\s+){_QUOTE})[^\s\"'\\,;&-][^\s\"'\\,;&]{{2,}}",
            rf"\1{REDACTED}",
        ),
    )
)
"""Marks, one of which is in every text that has the shape, whatever its case; the shape; and what takes its place."""
_MARKS = tuple({mark: None for marks, _, _ in _SHAPES for mark in marks})


def redact(event: EventT, *, log_user_prompt: bool) -> EventT:
    """Give *event* as an exporter or observer may see it.

    Of a prompt only the length stays unless *log_user_prompt*; secrets are masked in every text;
    a tool's output is cut to a preview of 2 KiB or 64 lines.
    """
    if isinstance(event, UserPrompt) and not log_user_prompt:
        return replace(event, prompt=REDACTED)
    changes: dict[str, Any] = {}
    for one in fields(event):
        value = getattr(event, one.name)
        if isinstance(value, str):
            limit = PREVIEW_BYTES if isinstance(event, ToolResult) and one.name == "output" else ARGUMENT_BYTES
            shown = preview(value, limit)
            if shown != value:
                changes[one.name] = shown
    if isinstance(event, ToolResult):
        lines = changes.get("output", event.output).splitlines(keepends=True)
        if len(lines) > PREVIEW_LINES or _size(event.output) > PREVIEW_BYTES:
            changes |= {"output": "".join(lines[:PREVIEW_LINES]), "output_truncated": True}
    return replace(event, **changes) if changes else event


def preview(text: str, limit: int) -> str:
    """Mask the secrets in *text* and cut it to *limit* bytes of UTF-8."""
    window = 4 * limit  # enough to recognise what the cut would go through
    if len(text) > window:
        text = text[:window]
        # The last word may be half a secret that no shape fits any more, and masking may move it forward.
        text = text[: max(text.rfind(" "), text.rfind("\n"), limit // 2)]
    masked = mask(text)
    return masked.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def mask(text: str) -> str:
    """Replace what looks like a secret."""
    folded = text.casefold()
    seen = [mark for mark in _MARKS if mark in folded]  # most texts have none, and looking is cheap
    if seen:
        for marks, shape, replacement in _SHAPES:
            if not marks.isdisjoint(seen):
                text = shape.sub(replacement, text)
    return text


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
