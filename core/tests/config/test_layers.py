from __future__ import annotations

import copy
from typing import Any

from codex_core.config.layers import Layer, Origin, find, givers, leaves, merge, merge_layers, origins
from codex_core.config.positions import Position
from hypothesis import given
from hypothesis import strategies as st

keys = st.sampled_from("abc")
scalars = st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
tables = st.dictionaries(
    keys, st.recursive(scalars, lambda below: st.dictionaries(keys, below, max_size=3)), max_size=3
)

alike = st.recursive(
    st.dictionaries(keys, scalars, max_size=3),
    lambda below: st.builds(
        lambda plain, deeper: {**plain, **{key.upper(): table for key, table in deeper.items()}},
        st.dictionaries(keys, scalars, max_size=2),
        st.dictionaries(keys, below, max_size=2),
    ),
)
"""Tables in which a key is a table everywhere (upper case) or nowhere, as the models have it."""


@given(alike, alike, alike)
def test_merging_is_associative_for_layers_that_agree_on_what_is_a_table(low: Any, middle: Any, high: Any) -> None:
    assert merge(merge(low, middle), high) == merge(low, merge(middle, high))


@given(tables)
def test_the_empty_table_changes_nothing_from_either_side(table: Any) -> None:
    assert merge({}, table) == merge(table, {}) == merge(table, table) == table


@given(tables, tables)
def test_merging_leaves_its_arguments_alone_and_shares_no_table_with_the_upper_one(low: Any, high: Any) -> None:
    before = copy.deepcopy((low, high))
    merged = merge(low, high)
    for path, _value in list(leaves(high)):
        _poke(merged, path)
    assert (low, high) == before or high == before[1]
    assert high == before[1]


def _poke(table: dict[str, Any], path: tuple[str, ...]) -> None:
    for part in path[:-1]:
        table = table[part]
    table[path[-1]] = "poked"


@given(tables, tables)
def test_every_leaf_of_the_upper_table_wins(low: Any, high: Any) -> None:
    merged = merge(low, high)
    for path, value in leaves(high):
        if value != {}:
            assert find(merged, path) == (True, value)


@given(st.lists(tables, max_size=4))
def test_the_origin_of_every_leaf_is_the_highest_layer_that_says_it(stack: list[Any]) -> None:
    layers = tuple(Layer(f"layer {number}", number, table) for number, table in enumerate(stack))
    merged = merge_layers(layers)
    for path, value in leaves(merged):
        giver = givers(layers, path)[0]
        found, said = find(giver.values, path)
        assert found
        assert value in (said, {}) or isinstance(said, dict)
        assert all(not find(layer.values, path)[0] for layer in layers[giver.precedence + 1 :])


def test_tables_merge_and_everything_else_is_replaced() -> None:
    low = {"t": {"a": 1, "b": [1, 2]}, "array": [1, 2], "x": {"y": 1}, "s": 1}
    high = {"t": {"b": [3]}, "array": [], "x": 5, "s": {"now": "a table"}}
    assert merge(low, high) == {"t": {"a": 1, "b": [3]}, "array": [], "x": 5, "s": {"now": "a table"}}


def test_an_origin_has_the_layer_the_file_and_the_place() -> None:
    low = Layer("low", 1, {"a": {"b": 1, "c": 1}}, "/low.toml", {("a",): Position(3, 1), ("a", "b"): Position(4, 2)})
    high = Layer("high", 2, {"a": {"c": 2}})
    assert origins((low, high), merge_layers((low, high))) == {
        "a.b": Origin("low", "/low.toml", 4, 2),
        "a.c": Origin("high"),
    }
