from __future__ import annotations

import subprocess
import sys

import pytest
import tomli
from codex_core.config.keys import dotted
from codex_core.config.overrides import Override, override_values, parse_key, parse_override, parse_value
from codex_core.errors import UsageError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("model=gpt-5", ("model",), "gpt-5"),
        (' model = "gpt-5" ', ("model",), "gpt-5"),
        ("a.b.c=true", ("a", "b", "c"), True),
        ("a=1", ("a",), 1),
        ("a=007", ("a",), "007"),
        ("a=-1.5", ("a",), -1.5),
        ("a=", ("a",), ""),
        ("a==", ("a",), "="),
        ("a='x'", ("a",), "x"),
        ("a='x", ("a",), "x"),
        ('a=["/x", "~/y"]', ("a",), ["/x", "~/y"]),
        ("a=[1, 2", ("a",), "[1, 2"),
        ("a={ b = 1, c.d = [true] }", ("a",), {"b": 1, "c": {"d": [True]}}),
        ("a={\n b = 1,\n}", ("a",), {"b": 1}),
        ('projects."/a.b=c".trust_level=trusted', ("projects", "/a.b=c", "trust_level"), "trusted"),
        ("projects.'C:\\x'.trust_level=trusted", ("projects", "C:\\x", "trust_level"), "trusted"),
        ('"a\\"b\\u0041".c=1', ('a"bA', "c"), 1),
        ("projects./a/b.trust_level=trusted", ("projects", "/a/b", "trust_level"), "trusted"),
        ('"" = 1', ("",), 1),
        ("a . b = 1", ("a", "b"), 1),
    ],
)
def test_an_override_is_read_as_documented(text: str, path: tuple[str, ...], value: object) -> None:
    assert parse_override(text) == Override(path, value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model", "missing '='"),
        ("", "missing '='"),
        ("=x", "empty key"),
        (" = x", "empty key"),
        ("a..b=1", "invalid key"),
        (".a=1", "invalid key"),
        ("a.=1", "invalid key"),
        ('a"b=1', "invalid key"),
        ('"a=1', "invalid key"),
        ('"a"b=1', "invalid key"),
        ('"\\x".a=1', "invalid key"),
        (".".join("a" * 65) + "=1", "more than 64 levels"),
        ("a=" + "{a=" * 70 + "1" + "}" * 70, "more than 64 levels"),
    ],
)
def test_an_override_that_is_none_is_a_usage_error_of_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_override(text)
    assert "\n" not in str(caught.value)


def test_a_value_cannot_smuggle_in_another_key() -> None:
    value = 'true\nsandbox_mode = "danger-full-access"'
    assert tomli.loads(f"a = {value}") == {"a": True, "sandbox_mode": "danger-full-access"}
    assert override_values([parse_override(f"a={value}")]) == {"a": value.strip("\"'")}


def test_the_later_override_wins_and_a_value_in_the_way_becomes_a_table() -> None:
    words = ["a=1", "a.b=1", "a.b=2", "a.c=3", "d={ e = 1 }", "d.f=2"]
    assert override_values(map(parse_override, words)) == {"a": {"b": 2, "c": 3}, "d": {"e": 1, "f": 2}}


def test_overrides_do_not_change_the_tables_that_they_were_given() -> None:
    table = {"b": {"c": 1}}
    override_values([Override(("a",), table), Override(("a", "b", "c"), 2)])
    assert table == {"b": {"c": 1}}


def _slowly(text: str) -> object:
    try:
        document = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip("\"'")
    return document["value"] if len(document) == 1 else text.strip("\"'")


plain = st.text("abtrueinf019-_./:~@+ '\"", max_size=8).map(str.strip)


@given(plain | st.sampled_from(["true", "false", "inf", "nan", "+inf", "0", "00", "1_0", "1e3", "1979-05-27"]))
def test_the_fast_reading_of_plain_values_equals_the_slow_one(text: str) -> None:
    fast, slow = parse_value(text), _slowly(text)
    assert type(fast) is type(slow)
    assert repr(fast) == repr(slow)


@given(st.text())
def test_any_text_is_an_override_or_a_usage_error(text: str) -> None:
    try:
        override = parse_override(text)
    except UsageError as error:
        override = None
        assert str(error).isprintable()  # noqa: PT017 - most texts are no override, and both ends are promised
    assert override is None or override.path


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_key_path_survives_being_written_and_read(path: list[str]) -> None:
    assert parse_key(dotted(path)) == tuple(path)


def test_plain_overrides_import_no_toml_reader() -> None:
    program = (
        "import sys; from codex_core.config.overrides import parse_override as p;"
        "p('sandbox_mode=read-only'); p('a.b=true'); p('a=1'); p('d=/x/y');"
        "print([m for m in ('tomli', 'tomlkit', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
