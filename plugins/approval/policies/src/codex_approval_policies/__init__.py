"""The approval policies ``untrusted``, ``on-request``, ``on-failure`` and ``never``.

What each decides is one row of :data:`TABLE`.  Four rules stand above it:

* Nothing leaves the sandbox without a person's yes, except where a rule of the user's says so in as
  many words, or the mode is ``danger-full-access`` and so there is no sandbox.
* What a rule of the user's says stands above what is known about the command.
* ``never`` asks nothing in any mode.  What it will not run, it refuses, with a reason for the model.
* What is known to be safe runs in the sandbox all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from codex_core.approval.safe import classify
from codex_core.approval.visible import visible
from codex_core.hookspecs import ApprovalPolicy, hookimpl
from codex_core.types import (
    NETWORK_TOOL,
    Action,
    ApprovalMode,
    Decision,
    Operation,
    Safety,
    SafetyClass,
    SandboxMode,
    Verdict,
)

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy


class Case(StrEnum):
    """The columns of the table; of several that fit, the first listed here counts."""

    PATCH_CLOSED = "changes a protected file"
    PATCH_OUTSIDE = "changes a file outside of what may be written"
    PATCH_INSIDE = "changes files"
    RULED_OUT = "a rule forbids it"
    RULED_FREE = "a rule allows it outside the sandbox"
    RETRY = "retry outside, after a denial"
    RETRY_ESCALATED = "retry outside, after a denial, and the model asks for it"
    RULED_ASK = "a rule asks"
    RULED_IN = "a rule allows it"
    CONNECTION = "a connection to somewhere that nothing speaks about"
    FULL_DANGEROUS = "dangerous, no sandbox"
    FULL = "no sandbox"
    DANGEROUS = "dangerous"
    ESCALATED = "the model asks to leave the sandbox"
    SAFE = "known to be safe"
    OTHER = "anything else"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one policy makes of one case; *unsandboxed* as in a verdict."""

    decision: Decision
    unsandboxed: bool = False


_RUN = Cell(Decision.ALLOW)
_RUN_FREE = Cell(Decision.ALLOW, unsandboxed=True)
_ASK = Cell(Decision.PROMPT)
_ASK_FREE = Cell(Decision.PROMPT, unsandboxed=True)
_REFUSE = Cell(Decision.FORBID)

TABLE = {
    ApprovalMode.NEVER: {
        Case.CONNECTION: _REFUSE,
        Case.PATCH_CLOSED: _REFUSE,
        Case.PATCH_OUTSIDE: _REFUSE,
        Case.PATCH_INSIDE: _RUN,
        Case.RULED_FREE: _RUN_FREE,
        Case.RULED_OUT: _REFUSE,
        Case.RULED_ASK: _REFUSE,
        Case.RULED_IN: _RUN,
        Case.RETRY: _REFUSE,
        Case.RETRY_ESCALATED: _REFUSE,
        Case.FULL_DANGEROUS: _RUN_FREE,
        Case.FULL: _RUN_FREE,
        Case.DANGEROUS: _REFUSE,
        Case.ESCALATED: _REFUSE,
        Case.SAFE: _RUN,
        Case.OTHER: _RUN,
    },
    ApprovalMode.ON_FAILURE: {
        Case.CONNECTION: _ASK,
        Case.PATCH_CLOSED: _REFUSE,
        Case.PATCH_OUTSIDE: _ASK,
        Case.PATCH_INSIDE: _RUN,
        Case.RULED_FREE: _RUN_FREE,
        Case.RULED_OUT: _REFUSE,
        Case.RULED_ASK: _ASK,
        Case.RULED_IN: _RUN,
        Case.RETRY: _ASK_FREE,
        Case.RETRY_ESCALATED: _ASK_FREE,
        Case.FULL_DANGEROUS: _RUN_FREE,
        Case.FULL: _RUN_FREE,
        Case.DANGEROUS: _RUN,
        Case.ESCALATED: _RUN,  # in the sandbox; if that stops it, a person is asked
        Case.SAFE: _RUN,
        Case.OTHER: _RUN,
    },
    ApprovalMode.ON_REQUEST: {
        Case.CONNECTION: _ASK,
        Case.PATCH_CLOSED: _REFUSE,
        Case.PATCH_OUTSIDE: _ASK,
        Case.PATCH_INSIDE: _RUN,
        Case.RULED_FREE: _RUN_FREE,
        Case.RULED_OUT: _REFUSE,
        Case.RULED_ASK: _ASK,
        Case.RULED_IN: _RUN,
        Case.RETRY: _REFUSE,  # the model has to ask, and to say why
        Case.RETRY_ESCALATED: _ASK_FREE,
        Case.FULL_DANGEROUS: _ASK_FREE,
        Case.FULL: _RUN_FREE,
        Case.DANGEROUS: _ASK,
        Case.ESCALATED: _ASK_FREE,
        Case.SAFE: _RUN,
        Case.OTHER: _RUN,
    },
    ApprovalMode.UNTRUSTED: {
        Case.CONNECTION: _ASK,
        Case.PATCH_CLOSED: _REFUSE,
        Case.PATCH_OUTSIDE: _ASK,
        Case.PATCH_INSIDE: _ASK,
        Case.RULED_FREE: _RUN_FREE,
        Case.RULED_OUT: _REFUSE,
        Case.RULED_ASK: _ASK,
        Case.RULED_IN: _RUN,
        Case.RETRY: _ASK_FREE,
        Case.RETRY_ESCALATED: _ASK_FREE,
        Case.FULL_DANGEROUS: _ASK_FREE,
        Case.FULL: _ASK_FREE,
        Case.DANGEROUS: _ASK,
        Case.ESCALATED: _ASK_FREE,
        Case.SAFE: _RUN,
        Case.OTHER: _ASK,
    },
}


def case_of(action: Action, policy: SandboxPolicy, safety: Safety) -> Case:  # noqa: PLR0911 - one return for each case
    """Find the column for an action under *policy*."""
    dangerous = safety.level is SafetyClass.DANGEROUS
    if safety.ruled is Decision.FORBID:
        return Case.RULED_OUT
    if safety.ruled is Decision.ALLOW and safety.unsandboxed:
        return Case.RULED_FREE
    if action.after_denial is not None and action.tool != NETWORK_TOOL:
        return Case.RETRY_ESCALATED if action.escalated else Case.RETRY
    if safety.ruled is Decision.PROMPT:
        return Case.RULED_ASK
    if safety.ruled is Decision.ALLOW and (action.tool == NETWORK_TOOL or not action.escalated):
        return Case.RULED_IN
    if action.tool == NETWORK_TOOL:
        return Case.CONNECTION
    if policy.mode is SandboxMode.DANGER_FULL_ACCESS:
        return Case.FULL_DANGEROUS if dangerous else Case.FULL
    if action.escalated:
        return Case.ESCALATED
    if dangerous:
        return Case.DANGEROUS
    return Case.SAFE if safety.level is SafetyClass.SAFE else Case.OTHER


class _TablePolicy(ApprovalPolicy):
    mode: ClassVar[ApprovalMode]

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:
        """Look up the verdict on *action* under *policy*."""
        if action.writes:
            return self._review_patch(action, policy)
        if action.tool == NETWORK_TOOL:
            safety = action.safety or Safety(SafetyClass.ASK, str(Case.CONNECTION))
        else:
            safety = action.safety or classify(action.argv, policy, cwd=action.cwd)
        case = case_of(action, policy, safety)
        cell = TABLE[self.mode][case]
        why = str(case) if case in _SPEAK_FOR_THEMSELVES else safety.reason
        reason = f"approval policy {self.mode} refuses it: {why}" if cell.decision is Decision.FORBID else why
        source = f"policy:{self.mode}" if safety.ruled is None else safety.source
        leaves = cell.unsandboxed or (case is Case.RULED_ASK and action.escalated)
        return Verdict(cell.decision, reason, source, leaves)

    def _review_patch(self, action: Action, policy: SandboxPolicy) -> Verdict:
        denials = [denial for path in action.writes if (denial := policy.check(Operation.WRITE, path)) is not None]
        case = Case.PATCH_OUTSIDE if denials else Case.PATCH_INSIDE
        if not all(denial.cure for denial in denials):
            case = Case.PATCH_CLOSED
        cell = TABLE[self.mode][case]
        why = "; ".join([str(case), *(f"{visible(denial.target)}: {visible(denial.rule)}" for denial in denials)])
        reason = f"approval policy {self.mode} refuses it: {why}" if cell.decision is Decision.FORBID else why
        return Verdict(cell.decision, reason, f"policy:{self.mode}", unsandboxed=bool(denials))


_SPEAK_FOR_THEMSELVES = frozenset({Case.RETRY, Case.RETRY_ESCALATED, Case.FULL, Case.ESCALATED})


class Untrusted(_TablePolicy):
    """Only what is known to be harmless runs unasked."""

    mode = ApprovalMode.UNTRUSTED


class OnRequest(_TablePolicy):
    """Everything runs in the sandbox unasked but what is dangerous; the model may ask to leave it."""

    mode = ApprovalMode.ON_REQUEST


class OnFailure(_TablePolicy):
    """Everything runs in the sandbox unasked; what it stops may be asked for."""

    mode = ApprovalMode.ON_FAILURE


class Never(_TablePolicy):
    """Nobody is asked; what is dangerous or needs to leave the sandbox is refused."""

    mode = ApprovalMode.NEVER
