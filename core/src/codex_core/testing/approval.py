"""What every approval policy has to keep; see :mod:`codex_core.testing` for how to use it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from codex_core.host import Host
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Action, Decision, Denial, Operation, SandboxMode, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from codex_core.hookspecs import ApprovalPolicy

DENIAL = Denial(Operation.WRITE, "/etc/passwd", "outside every writable root")
LINES: tuple[tuple[str, ...], ...] = (
    ("true",),
    ("ls", "-l", "--", "a b"),
    ("rm", "-rf", "/"),
    ("bash", "-lc", "echo $HOME; rm -rf x"),
    ("git", "push", "--force"),
    ("/usr/bin/python3", "-c", "print(1)"),
    ("",),
    ("\udcff", "two\nlines"),
    ("\x1b[31mls", "\x07"),
    ("echo", "x" * 100_000),
)
"""Ordinary, dangerous and odd commands."""


class ApprovalPolicyContract:
    """Tests that every approval policy passes."""

    @pytest.fixture
    def plugin(self) -> ApprovalPolicy:
        """Give the policy to test: override this."""
        pytest.fail("override the fixture `plugin` to give the approval policy")

    @pytest.fixture(params=list(SandboxMode))
    def policy(self, request: pytest.FixtureRequest) -> SandboxPolicy:
        """Give a sandbox policy of each mode."""
        roots = ("/work",) if request.param is SandboxMode.WORKSPACE_WRITE else ()
        return SandboxPolicy(request.param, "/work", roots, ())

    @pytest.fixture(params=LINES, ids=lambda words: repr(words[0]))
    def action(self, request: pytest.FixtureRequest) -> Action:
        """Give an action for each of :data:`LINES`."""
        return Action(request.param, "/work")

    def test_every_action_gets_a_verdict_or_an_abstention(
        self, plugin: ApprovalPolicy, action: Action, policy: SandboxPolicy
    ) -> None:
        """Of the right type, with one line as reason; also when the model asks to leave, or after a denial."""
        for one in _variants(action):
            verdict = plugin.review(action=one, policy=policy)
            if verdict is not None:
                assert isinstance(verdict, Verdict)
                assert isinstance(verdict.decision, Decision)
                assert verdict.reason
                assert verdict.reason.isprintable()

    def test_the_same_question_gets_the_same_answer(
        self, plugin: ApprovalPolicy, action: Action, policy: SandboxPolicy
    ) -> None:
        """A verdict depends on the action and the policy alone, not on what was asked before."""
        for one in _variants(action):
            assert plugin.review(action=one, policy=policy) == plugin.review(action=one, policy=policy)

    def test_the_host_accepts_the_policy_and_its_verdicts(
        self, plugin: ApprovalPolicy, action: Action, policy: SandboxPolicy
    ) -> None:
        """Nothing that it says is taken for a failure, which would forbid."""
        host = Host()
        host.approval_policies.register(plugin, "contract")
        for one in _variants(action):
            verdict = host.review(one, policy)
            assert "contract failed" not in verdict.reason
            expected = plugin.review(action=one, policy=policy)
            assert verdict.decision is (Decision.PROMPT if expected is None else expected.decision)

    def test_reviewing_runs_nothing(self, plugin: ApprovalPolicy, tmp_path: Path, policy: SandboxPolicy) -> None:
        """A command is judged, not tried."""
        for argv in (("touch", "made"), ("sh", "-c", "touch made")):
            plugin.review(action=Action(argv, str(tmp_path)), policy=policy)
        assert os.listdir(tmp_path) == []


def _variants(action: Action) -> tuple[Action, ...]:
    return (
        action,
        Action(action.argv, action.cwd, escalated=True, justification="I need to"),
        Action(action.argv, action.cwd, after_denial=DENIAL),
        Action(action.argv, action.cwd, tool="apply_patch", call_id="call-1"),
    )
