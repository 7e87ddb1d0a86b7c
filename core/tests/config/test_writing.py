from __future__ import annotations

from typing import Any

import pytest
import tomli
from codex_core.config.writing import MASK, masked, toml
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.datetimes()
    | st.dates()
    | st.times(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)


@given(values)
def test_a_value_is_written_on_one_line_and_read_back_as_it_was(value: Any) -> None:
    written = toml(value)
    assert written.isprintable()
    assert tomli.loads(f"value = {written}") == {"value": value}


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (("otel", "otlp-http", "headers", "x"), "secret", MASK),
        (("otel", "otlp-http", "headers", "x"), "${TOKEN}", "${TOKEN}"),
        (("otel", "otlp-http", "headers", "x"), "Bearer ${TOKEN}", MASK),
        (("model_providers", "x", "http_headers", "Authorization"), "Bearer abc", MASK),
        (("model_providers", "x", "query_params", "code"), "abc", MASK),
        (("model_providers", "x", "env_key"), "MY_API_KEY", "MY_API_KEY"),
        (("otel", "otlp-http", "tls", "client-private-key"), "/k.pem", "/k.pem"),
        (("shell_environment_policy", "set", "GITHUB_TOKEN"), "abc", MASK),
        (("shell_environment_policy", "set", "CI"), "1", "1"),
        (("otel", "mine", "password"), "abc", MASK),
        (("otel", "mine", "endpoint"), "https://me:abc@host/", f"https://me:{MASK}@host/"),
        (("otel", "mine"), {"token": "abc", "port": 5}, {"token": MASK, "port": 5}),
        (("otel", "mine", "tokens"), ["abc"], [MASK]),
        (("sandbox_workspace_write", "network_access"), True, True),
    ],
)
def test_what_may_be_a_secret_is_not_shown(path: tuple[str, ...], value: Any, shown: Any) -> None:
    assert masked(path, value) == shown
