"""Several verdicts on one action become one: the strictest wins, whatever their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_core.types import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the strictest of *verdicts*; a prompt where nobody speaks.

    The sandbox is left only if every verdict says so.  Reasons and sources of those that share the
    strictest decision are joined, sorted, so that the order of plugins cannot be seen in the result.
    """
    spoken = list(verdicts)
    if not spoken:
        return Verdict(Decision.PROMPT, "no approval policy has an opinion", "default")
    strictest = max(verdict.decision for verdict in spoken)
    deciding = [verdict for verdict in spoken if verdict.decision is strictest]
    return Verdict(
        decision=strictest,
        reason="; ".join(sorted({verdict.reason for verdict in deciding if verdict.reason})),
        source=", ".join(sorted({verdict.source for verdict in deciding if verdict.source})),
        unsandboxed=all(verdict.unsandboxed for verdict in spoken),
    )
