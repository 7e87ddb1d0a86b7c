from __future__ import annotations

from codex_core.approval.combine import combine
from codex_core.types import Decision, Verdict
from hypothesis import given
from hypothesis import strategies as st

VERDICTS = st.lists(
    st.builds(Verdict, st.sampled_from(Decision), st.text("ab ", max_size=3), st.text("pq", max_size=2), st.booleans()),
    min_size=1,
    max_size=5,
)


def test_where_nobody_speaks_a_person_is_asked() -> None:
    assert combine([]).decision is Decision.PROMPT


def test_the_reasons_of_the_strictest_are_told_and_no_others() -> None:
    verdict = combine(
        [
            Verdict(Decision.FORBID, "late", "b"),
            Verdict(Decision.ALLOW, "fine", "c"),
            Verdict(Decision.FORBID, "early", "a"),
        ]
    )
    assert (verdict.reason, verdict.source) == ("early; late", "a, b")


@given(verdicts=VERDICTS, data=st.data())
def test_the_order_of_policies_never_matters(verdicts: list[Verdict], data: st.DataObject) -> None:
    assert combine(verdicts) == combine(data.draw(st.permutations(verdicts)))


@given(verdicts=VERDICTS, more=VERDICTS)
def test_another_policy_never_loosens(verdicts: list[Verdict], more: list[Verdict]) -> None:
    before, after = combine(verdicts), combine([*verdicts, *more])
    assert after.decision >= before.decision
    assert not after.unsandboxed or before.unsandboxed
