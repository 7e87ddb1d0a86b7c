from __future__ import annotations

import difflib
from typing import Any

import pytest
import tomli
import tomlkit
from codex_core.config.edit import with_value, without_value
from codex_core.config.layers import find
from codex_core.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

COMMENTED = """\
# top comment
model = "a" # why

[sandbox_workspace_write] # about writing
writable_roots = [ "/x", # one
  "/y" ]

[projects."/a"]
trust_level = "trusted"
[otel]
exporter = { otlp-http = {
  endpoint = "x", # here
  headers = { a = "b" },
}}
"""


def difference(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        (("model",), "b", ['-model = "a" # why', '+model = "b" # why']),
        (("sandbox_mode",), "read-only", ['+sandbox_mode = "read-only"']),
        (("sandbox_workspace_write", "network_access"), True, ["+network_access = true"]),
        (("projects", "/b", "trust_level"), "untrusted", ["+", '+[projects."/b"]', '+trust_level = "untrusted"']),
        (
            ("otel", "exporter", "otlp-http", "endpoint"),
            "y",
            ['-  endpoint = "x", # here', '+  endpoint = "y", # here'],
        ),
        (("features", "web_search_request"), True, ["+", "+[features]", "+web_search_request = true"]),
    ],
)
def test_setting_a_value_touches_its_line_only(path: tuple[str, ...], value: Any, changed: list[str]) -> None:
    assert difference(COMMENTED, with_value(COMMENTED, path, value, "file")) == changed


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        (("model",), ['-model = "a" # why']),
        (("projects", "/a"), ['-[projects."/a"]', '-trust_level = "trusted"']),
        (("sandbox_workspace_write", "writable_roots"), ['-writable_roots = [ "/x", # one', '-  "/y" ]']),
    ],
)
def test_taking_a_value_out_touches_its_lines_only(path: tuple[str, ...], changed: list[str]) -> None:
    assert difference(COMMENTED, without_value(COMMENTED, path, "file")) == changed


def test_a_value_in_an_empty_file_is_all_there_is() -> None:
    assert with_value("", ("a", "b"), 1, "file") == "[a]\nb = 1\n"


def test_the_line_ends_of_windows_stay() -> None:
    text = COMMENTED.replace("\n", "\r\n")
    edited = with_value(text, ("model",), "b", "file")
    assert edited == text.replace('"a"', '"b"', 1)


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("a = ", ("b",), "file:1:5: Invalid value"),
        ("a = 1", ("a", "b"), "file: a is no table, so a.b cannot be set"),
        ("a = [{ b = 1 }]", ("a", "b"), "file: a is no table, so a.b cannot be set"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(text: str, path: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_value(text, path, 1, "file")
    assert str(caught.value).startswith(says)


def test_what_is_not_set_cannot_be_taken_out() -> None:
    with pytest.raises(ConfigError, match=r"file: a\.b is not set"):
        without_value("[a]\nc = 1\n", ("a", "b"), "file")


keys = st.sampled_from(["a", "b", "c.d", 'e"', "f g"])
scalars = st.booleans() | st.integers(-9, 9) | st.text("xyz #\"'\\\n", max_size=5)
arrays = st.lists(scalars, max_size=3)
documents = st.recursive(
    st.dictionaries(keys, scalars | arrays, max_size=4),
    lambda below: st.dictionaries(keys, below | scalars, max_size=4),
    max_leaves=10,
)
paths = st.lists(keys, min_size=1, max_size=3).map(tuple)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Write a document with comments and blank lines between its lines, where that changes nothing."""
    lines = []
    for line in tomlkit.dumps(draw(documents)).splitlines(keepends=True):
        lines += [line, draw(st.sampled_from(["", "", "", "# a comment\n", "\n"]))]
    text = "".join(lines)
    return text if tomli.loads(text) is not None else ""


@given(texts(), paths, scalars | arrays)
def test_what_is_set_is_what_is_read_and_nothing_else_changes(text: str, path: tuple[str, ...], value: Any) -> None:
    try:
        edited = with_value(text, path, value, "file")
    except ConfigError as error:
        # Refused is right where a value stands in the way, and safe anywhere.
        assert "no table" in str(error) or "edit the file" in str(error)  # noqa: PT017 - both ends are promised
        return
    assert find(tomli.loads(edited), path) == (True, value)
    if not isinstance(find(tomli.loads(text), path)[1], (dict, list)):  # those take what is inside with them
        assert _comments(edited) == _comments(text)
    assert _without(tomli.loads(edited), path) == _without(tomli.loads(text), path)
    assert with_value(edited, path, value, "file") == edited


@given(texts(), paths, scalars)
def test_setting_and_taking_out_again_leaves_the_values_as_they_were(
    text: str, path: tuple[str, ...], value: Any
) -> None:
    try:
        edited = without_value(with_value(text, path, value, "file"), path, "file")
    except ConfigError:
        return
    assert _without(tomli.loads(edited), path) == _without(tomli.loads(text), path)


def _comments(text: str) -> int:
    return text.count("# a comment")


def _without(values: Any, path: tuple[str, ...]) -> Any:
    """Take out a path, and the tables that are empty then."""
    if not isinstance(values, dict):
        return values
    kept = {}
    for key, value in values.items():
        below = _without(value, path[1:] if path and key == path[0] else ("\0",))
        if not (len(path) == 1 and key == path[0]) and below != {}:
            kept[key] = below
    return kept
