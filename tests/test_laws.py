"""Laws of the verdict, with the real policies: whatever is added, nothing becomes easier."""

from __future__ import annotations

from dataclasses import replace

import tomlkit
from codex_approval_policies import Never, OnFailure, OnRequest, Untrusted
from codex_core.agent.review import Reviewer
from codex_core.approval.rules import Rule, Rules, parse_rules
from codex_core.config.requirements import Constraints
from codex_core.hookspecs import ApprovalPolicy, hookimpl
from codex_core.host import Host
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import NETWORK_TOOL, Action, Decision, Denial, Operation, SandboxMode, Verdict
from hypothesis import given
from hypothesis import strategies as st


class Raising(ApprovalPolicy):
    """Fails at everything."""

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:  # noqa: ARG002 - the contract
        raise OSError("the server is down")


DENIAL = Denial(Operation.WRITE, "/etc/x", "outside every writable root")
WORDS = st.sampled_from(["ls", "make", "git", "push", "rm", "-rf", "x", "curl"])
COMMANDS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
LINES = st.lists(COMMANDS.map(" ".join), min_size=1, max_size=3).map(lambda parts: ("bash", "-lc", "; ".join(parts)))
ACTIONS = st.one_of(
    st.builds(
        Action,
        st.one_of(COMMANDS, LINES),
        st.just("/usr/src"),
        escalated=st.booleans(),
        after_denial=st.sampled_from([None, DENIAL]),
    ),
    st.builds(Action, st.sampled_from([("a.test:443",), ("a.test",)]), st.just("/usr/src"), st.just(NETWORK_TOOL)),
    st.builds(
        Action,
        st.just(("apply_patch", "...")),
        st.just("/usr/src"),
        st.just("apply_patch"),
        writes=st.sampled_from([("/usr/src/a",), ("/usr/src/a", "/etc/x"), ("/usr/src/.git/config",)]),
    ),
)
RULES = st.one_of(
    st.builds(
        Rule,
        decision=st.sampled_from(Decision),
        source=st.just("/r.toml:1"),
        pattern=st.lists(st.frozensets(WORDS, min_size=1, max_size=2), min_size=1, max_size=3).map(tuple),
        exact=st.booleans(),
        unsandboxed=st.booleans(),
    ),
    st.builds(
        Rule,
        decision=st.sampled_from([Decision.ALLOW, Decision.FORBID]),
        source=st.just("/r.toml:1"),
        hosts=st.sampled_from([("a.test",), ("*.test",), ("a.test:443",)]),
    ),
)
POLICIES = st.lists(st.sampled_from([Never, OnFailure, OnRequest, Untrusted]), min_size=1, max_size=2, unique=True)
SANDBOXES = st.sampled_from(
    [
        SandboxPolicy(SandboxMode.READ_ONLY, "/usr/src", (), ()),
        SandboxPolicy(SandboxMode.WORKSPACE_WRITE, "/usr/src", ("/usr/src",), ()),
        SandboxPolicy(SandboxMode.DANGER_FULL_ACCESS, "/usr/src", (), ()),
    ]
)
KINDS = st.frozensets(st.sampled_from(["commands", "escalation", "rules", "patches", "network"]))


def host(*kinds: type[ApprovalPolicy]) -> Host:
    made = Host()
    for kind in kinds:
        made.approval_policies.register(kind(), kind.__name__)
    return made


@st.composite
def reviewers(draw: st.DrawFn) -> Reviewer:
    rules = Rules(tuple(draw(st.lists(RULES, max_size=3))))
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return Reviewer(host(*draw(POLICIES)), draw(SANDBOXES), rules, environ, Constraints(), draw(KINDS))


@given(reviewers(), ACTIONS, RULES)
def test_a_rule_that_forbids_never_lets_anything_run_that_was_asked_about(
    review: Reviewer, action: Action, rule: Rule
) -> None:
    forbidding = replace(rule, decision=Decision.FORBID, unsandboxed=False)
    stricter = replace(review, rules=Rules((*review.rules.rules, forbidding)))
    before, after = review.review(action), stricter.review(action)
    assert after.decision >= before.decision
    assert before.unsandboxed or not after.unsandboxed


@given(reviewers(), ACTIONS)
def test_a_question_that_is_switched_off_is_a_no_and_changes_nothing_else(review: Reviewer, action: Action) -> None:
    asking = replace(review, switched_off=frozenset()).review(action)
    verdict = review.review(action)
    assert verdict == asking or (asking.decision, verdict.decision) == (Decision.PROMPT, Decision.FORBID)
    silent = replace(review, switched_off=frozenset(["commands", "escalation", "rules", "patches", "network"]))
    assert silent.review(action).decision is not Decision.PROMPT


@given(reviewers(), ACTIONS)
def test_a_policy_that_raises_forbids_whatever_rules_and_other_policies_say(review: Reviewer, action: Action) -> None:
    policies = [type(plugin) for _, plugin in review.host.approval_policies.plugins]
    assert replace(review, host=host(*policies, Raising)).review(action).decision is Decision.FORBID


@given(reviewers(), ACTIONS)
def test_what_is_remembered_for_ever_answers_the_same_question_and_no_wider_one(
    review: Reviewer, action: Action
) -> None:
    verdict = review.review(action)
    if verdict.decision is not Decision.PROMPT:
        return
    grant = review.grant(action, verdict)
    rule = review.lasting(action, verdict, grant)
    if rule is None:
        return
    added = parse_rules(tomlkit.dumps({"rule": [rule]}), "/r.toml")
    then = replace(review, rules=Rules((*review.rules.rules, *added)))
    again = then.review(replace(action, after_denial=None))
    assert (again.decision, again.unsandboxed) == (Decision.ALLOW, verdict.unsandboxed)
    wider = replace(action, argv=("b.test",) if action.tool == NETWORK_TOOL else (*action.argv, "more"))
    for other in (wider, replace(wider, after_denial=None), replace(action, cwd="/usr")):
        if action.tool != NETWORK_TOOL or other is wider:
            assert then.review(other) == review.review(other)
