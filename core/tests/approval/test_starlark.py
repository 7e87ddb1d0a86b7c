from __future__ import annotations

import pytest
import tomlkit
from codex_core.approval.rules import parse_rules
from codex_core.approval.starlark import convert
from codex_core.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

RULES = '''"""What this file is about."""
# A comment.
prefix_rule(
    pattern = ["git", ["push", "fetch"]],
    decision = "forbidden",
    justification = "people do",
    match = ["git push origin", ["git", "fetch", "a b"]],
    not_match = ["git status"],
)
prefix_rule(pattern = ["ls"])
'''


def test_rules_are_converted_and_the_result_loads() -> None:
    tables = convert(RULES, "f")
    assert tables == [
        {
            "pattern": ["git", ["push", "fetch"]],
            "decision": "forbid",
            "justification": "people do",
            "match": ["git push origin", "git fetch 'a b'"],
            "not_match": ["git status"],
        },
        {"pattern": ["ls"], "decision": "allow"},
    ]
    assert [rule.prefix for rule in parse_rules(tomlkit.dumps({"rule": tables}), "f")] == ["git fetch|push", "ls"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prefix_rule(", "f:1"),
        ("x = 1", "f:1: only calls"),
        ("\nload('x')", "f:2: only calls"),
        ("prefix_rule(['ls'])", "only calls"),
        ("prefix_rule(pattern = ['l' + 's' for x in y])", "pattern is computed"),
        ("prefix_rule(pattern = open('x'))", "pattern is computed"),
        ("prefix_rule(pattern = ['ls'], decision = 'maybe')", "decision is one of"),
        ("prefix_rule(pattern = ['ls'], extra = 1)", "no 'extra'"),
        ("prefix_rule(**x)", "no 'None'"),
        ("prefix_rule(pattern = " + "[" * 5000 + "]" * 5000 + ")", "f"),
        ("#" * (1 << 21), "larger than"),
        ("a\0b", "f"),
    ],
)
def test_a_file_that_is_more_than_rules_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(text, "f")
    assert says in str(caught.value)


@given(text=st.one_of(st.text(), st.text("prefix_rule(=[]'\n", max_size=40)))
def test_any_text_is_converted_or_refused(text: str) -> None:
    try:
        tables = convert(text, "f")
    except ConfigError:
        return
    assert all("pattern" in table for table in tables)
