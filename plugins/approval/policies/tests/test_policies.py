from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codex_approval_policies import TABLE, Case, Never, OnFailure, OnRequest, Untrusted
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import (
    Action,
    ApprovalMode,
    Decision,
    Denial,
    Operation,
    Safety,
    SafetyClass,
    SandboxMode,
    Verdict,
)

if TYPE_CHECKING:
    from codex_core.hookspecs import ApprovalPolicy

POLICIES: dict[str, ApprovalPolicy] = {
    "never": Never(),
    "on-failure": OnFailure(),
    "on-request": OnRequest(),
    "untrusted": Untrusted(),
}
WORKSPACE = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, "/usr", ("/usr/src",), ())
READ_ONLY = SandboxPolicy(SandboxMode.READ_ONLY, "/usr", (), ())
FULL = SandboxPolicy(SandboxMode.DANGER_FULL_ACCESS, "/usr", (), ())

SAFE = Action(("/usr/bin/ls",), "/usr")
OTHER = Action(("make",), "/usr")
DANGEROUS = Action(("rm", "-rf", "x"), "/usr")
ESCALATED = replace(OTHER, escalated=True, justification="I need the network")
DENIED = replace(OTHER, after_denial=Denial(Operation.CONNECT, "example.com:443", "the network is off"))
DENIED_ESCALATED = replace(DENIED, escalated=True)

RUN, ASK, REFUSE = Decision.ALLOW, Decision.PROMPT, Decision.FORBID


def review(name: str, action: Action, policy: SandboxPolicy) -> Verdict:
    verdict = POLICIES[name].review(action, policy)
    assert verdict is not None
    return verdict


# One row for each policy; the columns are those of the documentation.
SANDBOXED = {
    #             safe  other dangerous escalated
    "never": (RUN, RUN, REFUSE, REFUSE),
    "on-failure": (RUN, RUN, RUN, RUN),
    "on-request": (RUN, RUN, ASK, ASK),
    "untrusted": (RUN, ASK, ASK, ASK),
}
UNSANDBOXED = {
    #             safe  other dangerous escalated
    "never": (RUN, RUN, RUN, RUN),
    "on-failure": (RUN, RUN, RUN, RUN),
    "on-request": (RUN, RUN, ASK, RUN),
    "untrusted": (ASK, ASK, ASK, ASK),
}
RETRIES = {
    #             plain escalated
    "never": (REFUSE, REFUSE),
    "on-failure": (ASK, ASK),
    "on-request": (REFUSE, ASK),
    "untrusted": (ASK, ASK),
}


@pytest.mark.parametrize("policy", [WORKSPACE, READ_ONLY], ids=["workspace-write", "read-only"])
@pytest.mark.parametrize("name", POLICIES)
def test_the_table_holds_in_a_sandbox(name: str, policy: SandboxPolicy) -> None:
    decisions = tuple(review(name, action, policy).decision for action in (SAFE, OTHER, DANGEROUS, ESCALATED))
    assert decisions == SANDBOXED[name]


@pytest.mark.parametrize("name", POLICIES)
def test_the_table_holds_without_a_sandbox(name: str) -> None:
    verdicts = [review(name, action, FULL) for action in (SAFE, OTHER, DANGEROUS, ESCALATED)]
    assert tuple(verdict.decision for verdict in verdicts) == UNSANDBOXED[name]
    assert all(verdict.unsandboxed for verdict in verdicts)


@pytest.mark.parametrize("name", POLICIES)
def test_the_table_holds_for_a_second_attempt_outside(name: str) -> None:
    verdicts = [review(name, action, WORKSPACE) for action in (DENIED, DENIED_ESCALATED)]
    assert tuple(verdict.decision for verdict in verdicts) == RETRIES[name]
    assert all(verdict.unsandboxed for verdict in verdicts if verdict.decision is ASK)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("policy", [WORKSPACE, READ_ONLY], ids=["workspace-write", "read-only"])
@pytest.mark.parametrize("action", [SAFE, OTHER, DANGEROUS, ESCALATED, DENIED, DENIED_ESCALATED])
def test_nothing_leaves_the_sandbox_without_being_asked(name: str, policy: SandboxPolicy, action: Action) -> None:
    verdict = review(name, action, policy)
    assert verdict.decision is not RUN or not verdict.unsandboxed


@pytest.mark.parametrize("action", [SAFE, OTHER, DANGEROUS, ESCALATED, DENIED])
@pytest.mark.parametrize("policy", [WORKSPACE, READ_ONLY, FULL])
def test_never_never_asks(action: Action, policy: SandboxPolicy) -> None:
    assert review("never", action, policy).decision is not ASK


def test_a_refusal_tells_the_model_the_policy_and_the_reason() -> None:
    verdict = review("never", DANGEROUS, WORKSPACE)
    assert verdict.reason == "approval policy never refuses it: rm: removes without asking"
    assert verdict.source == "policy:never"


def test_the_table_has_every_cell() -> None:
    assert set(TABLE) == set(ApprovalMode)
    assert all(set(row) == set(Case) for row in TABLE.values())


PATCHES = {
    #             inside outside read-only protected no sandbox
    "never": (RUN, REFUSE, REFUSE, REFUSE, RUN),
    "on-failure": (RUN, ASK, ASK, REFUSE, RUN),
    "on-request": (RUN, ASK, ASK, REFUSE, RUN),
    "untrusted": (ASK, ASK, ASK, REFUSE, ASK),
}


@pytest.mark.parametrize("name", POLICIES)
def test_patches_are_judged_by_the_files_that_they_write(name: str) -> None:
    inside = Action(("apply_patch", "..."), "/usr", tool="apply_patch", writes=("/usr/src/a",))
    outside = replace(inside, writes=("/usr/src/a", "/usr/lib/b"))
    protected = replace(inside, writes=("/usr/lib/b", "/usr/src/.git/config"))
    verdicts = [
        review(name, inside, WORKSPACE),
        review(name, outside, WORKSPACE),
        review(name, inside, READ_ONLY),
        review(name, protected, WORKSPACE),
        review(name, outside, FULL),
    ]
    assert tuple(verdict.decision for verdict in verdicts) == PATCHES[name]
    assert "/usr/lib/b" in verdicts[1].reason
    assert [verdict.unsandboxed for verdict in verdicts[:2]] == [False, True]


@pytest.mark.parametrize(
    ("name", "decision"), [("never", REFUSE), ("on-failure", ASK), ("on-request", ASK), ("untrusted", ASK)]
)
def test_a_connection_that_nothing_speaks_about_is_asked_about_and_rules_decide(name: str, decision: Decision) -> None:
    connection = Action(("example.com:443",), "/usr", tool="network")
    assert review(name, connection, WORKSPACE).decision is decision
    for ruled in (RUN, REFUSE):
        known = replace(connection, safety=Safety(SafetyClass.ASK, "a rule", "/r.toml:1", ruled))
        verdict = review(name, known, WORKSPACE)
        assert (verdict.decision, verdict.source) == (ruled, "/r.toml:1")
        assert not verdict.unsandboxed
