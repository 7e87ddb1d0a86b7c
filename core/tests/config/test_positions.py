from __future__ import annotations

from typing import Any

import tomlkit
from codex_core.config.files import parse
from codex_core.config.keys import dotted
from codex_core.config.layers import leaves
from codex_core.config.positions import Position, Positions, scan
from hypothesis import given
from hypothesis import strategies as st

EVERY_FORM = """\
# comment = 1
top = "a # no comment" # but this is
"quoted \\"key\\"".'lit.eral' = 1
[table]
bare-key_1 = '''
fake = 1
'''
multi = \"\"\"
[fake]
x = "\\"\"\"
three=3 \"\"\"\"\"
[table.sub . "x.y"]
array = [ 1, # one, [two]
  "two ]",
  { a = 1, b.c = [ [], [2] ] },
]
when = 1979-05-27 07:32:00 # a blank inside
[[list]]
name = 'first'
[list.inner]
deep = 1
[[list]]
name = 'second'
[[list.nested]]
n = 1
[[list.nested]]
n = 2
[otel]
exporter = { otlp-http = {
  endpoint = "x",   # TOML 1.1
  headers = { "x-key" = "${TOKEN}" },
}}
"""


def test_every_form_of_toml_is_found_where_it_stands() -> None:
    parse(EVERY_FORM, "here")
    found = {dotted(path): (position.line, position.column) for path, position in scan(EVERY_FORM).items()}
    expected = {
        "top": (2, 1),
        '"quoted \\"key\\""."lit.eral"': (3, 1),
        "table": (4, 1),
        "table.bare-key_1": (5, 1),
        "table.multi": (8, 1),
        'table.sub."x.y"': (12, 1),
        'table.sub."x.y".array': (13, 1),
        'table.sub."x.y".array[1]': (14, 3),
        'table.sub."x.y".array[2].b.c': (15, 12),
        'table.sub."x.y".array[2].b.c[1][0]': (15, 25),
        'table.sub."x.y".when': (17, 1),
        "list[0].name": (19, 1),
        "list[0].inner.deep": (21, 1),
        "list[1]": (22, 1),
        "list[1].nested[1].n": (27, 1),
        "otel.exporter": (29, 1),
        "otel.exporter.otlp-http": (29, 14),
        "otel.exporter.otlp-http.endpoint": (30, 3),
        "otel.exporter.otlp-http.headers.x-key": (31, 15),
    }
    assert {key: found.get(key) for key in expected} == expected
    assert not any("fake" in key or "three" in key for key in found)


def test_windows_line_ends_do_not_shift_positions() -> None:
    assert scan(EVERY_FORM.replace("\n", "\r\n")) == scan(EVERY_FORM)


keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text("abc", min_size=1, max_size=2)
scalars = st.booleans() | st.integers(-9, 9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    scalars | st.lists(scalars, max_size=3), lambda below: st.dictionaries(keys, below, max_size=4), max_leaves=12
)
documents = st.dictionaries(keys, values, max_size=5)


@given(documents)
def test_each_key_of_a_written_document_is_found_on_a_line_that_contains_it(document: dict[str, Any]) -> None:
    text = tomlkit.dumps(document)
    lines = text.replace("\r\n", "\n").split("\n")
    positions = Positions(text)
    for path, _value in leaves(parse(text, "here")):
        position = positions[path]
        rest = lines[position.line - 1][position.column - 1 :]
        assert any(spelling in rest for spelling in _spellings(path[-1])), (path, rest)


def _spellings(key: str) -> set[str]:
    return {key, dotted([key]), tomlkit.key(key).as_string()}


@given(st.text() | st.text("ab.=[]{}\"'\\,#\n \r"))
def test_the_scan_of_any_text_ends_and_names_only_places_inside_it(text: str) -> None:
    lines = text.replace("\r\n", "\n").split("\n")
    for position in scan(text).values():
        assert isinstance(position, Position)
        assert 1 <= position.line <= len(lines)
        assert 1 <= position.column <= len(lines[position.line - 1])


def test_a_text_is_scanned_at_the_first_question_only() -> None:
    positions = Positions("a = 1")
    before = positions._found
    assert (before, positions["a",], positions._found) == (None, Position(1, 1), {("a",): Position(1, 1)})
