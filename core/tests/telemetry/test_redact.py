from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from codex_core.events import ApiRequest, ToolResult, UserPrompt
from codex_core.telemetry.redact import _SHAPES, PREVIEW_BYTES, PREVIEW_LINES, REDACTED, mask, preview, redact
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    import re

COMMON = {"conversation_id": "c", "timestamp": 1.0}


def tool_result(output: str, arguments: str = "{}") -> ToolResult:
    return ToolResult(
        conversation_id="c",
        timestamp=1.0,
        tool_name="shell",
        call_id="1",
        arguments=arguments,
        duration_ms=1,
        success=True,
        output=output,
    )


def test_a_prompt_is_hidden_unless_the_configuration_says_otherwise() -> None:
    event = UserPrompt(conversation_id="c", timestamp=1.0, prompt_length=6, prompt="secret")
    assert redact(event, log_user_prompt=False).prompt == REDACTED
    assert redact(event, log_user_prompt=False).prompt_length == 6
    assert redact(event, log_user_prompt=True).prompt == "secret"


SECRETS = [
    ("Authorization: Bearer {}", "abcdefghijklmnop"),
    ("Authorization: BAS\u0130C {}", "dXNlcjpodW50ZXIy"),
    ("Authorization: bas\u0131c {}", "dXNlcjpodW50ZXIy"),
    ("git clone https://user:{}@example.com/x", "hunter2hunter2"),
    ("export GITHUB_TOKEN={}", "abc123def"),
    ("AWS_SECRET_ACCESS_KEY={}", "wJalrXUtnFEMI/K7MDENG"),
    ("password: {}", "hunter22"),
    ('{{"api_key": "{}"}}', "abc123def456"),
    ("curl --token {} https://x", "abc123def456"),
    (r'["curl", "--password", "{}"]', "hunter22"),
    (r"{{\"api_key\": \"{}\"}}", "abc123def456"),
    ("{}", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    ("{}", "github_pat_abcdefghijklmnopqrstuvwxyz"),
    ("{}", "glpat-abcdefghijklmnopqrst"),
    ("{}", "xoxb-1234567890-abcdefgh"),
    ("{}", "sk-proj-abcdefghijklmnopqrstuvwxyz"),
    ("{}", "AKIAIOSFODNN7EXAMPLE"),
    ("{}", "AIzaSyA-abcdefghijklmnopqrstuvwxyz01234"),
    ("{}", "npm_abcdefghijklmnopqrstuvwxyz0123456789"),
    ("{}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc"),
    ("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", "MIIEpAIBAAKCAQEA"),
    ("-----BEGIN PRIVATE KEY-----\n{}", "MIIEpAIBAAKCAQEA"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_of_a_known_shape_is_masked_wherever_it_stands(text: str, secret: str) -> None:
    shown = text.format(secret)
    assert secret in shown
    assert secret not in mask(shown)
    assert REDACTED in mask(shown)
    event = redact(tool_result(shown, shown), log_user_prompt=False)
    assert secret not in event.output + event.arguments
    failed = ApiRequest(conversation_id="c", timestamp=1.0, attempt=0, duration_ms=1, error_message=shown)
    assert secret not in str(redact(failed, log_user_prompt=False).error_message)


@pytest.mark.parametrize(
    "name", ["token", "ToKeN", "to\u212aen", "\u017fecret", "pa\u017f\u017fwd", "api-\u212aey", "CREDENTIALS"]
)
def test_the_name_of_a_secret_is_known_in_every_case_that_the_expressions_know(name: str) -> None:
    assert mask(f"{name}=abc123") == f"{name}={REDACTED}"
    assert mask(f"--{name} abc123") == f"--{name} {REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        "a token ring and a key lime pie",
        "tokenize: the words",
        "--token-file /run/x",
        "https://example.com/path?x=1",
        "sk-learn and task-force",
        "git log --format=%H",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert mask(text) == text


@given(st.text(max_size=5000), st.text(alphabet="ab\n\ud800é", max_size=9000))
def test_a_preview_is_bounded_in_bytes_and_lines_and_says_when_it_was_cut(first: str, second: str) -> None:
    event = redact(tool_result(first + second), log_user_prompt=False)
    assert len(event.output.encode()) <= PREVIEW_BYTES
    assert len(event.output.splitlines()) <= PREVIEW_LINES
    if len((first + second).encode("utf-8", "replace")) > PREVIEW_BYTES:
        assert event.output_truncated


def test_short_output_is_not_cut() -> None:
    event = redact(tool_result("one\ntwo\n"), log_user_prompt=False)
    assert (event.output, event.output_truncated) == ("one\ntwo\n", False)


@pytest.mark.parametrize("before", [0, 2000, 2040, 8150, 8180])
def test_a_secret_on_the_edge_of_the_preview_does_not_show_in_part(before: int) -> None:
    secret = "ghp_" + "Z" * 36
    shown = preview("a " * (before // 2) + secret + " b" * 5000, PREVIEW_BYTES)
    assert "Z" not in shown


def test_masking_that_shortens_the_text_does_not_pull_half_a_secret_in() -> None:
    key = "-----BEGIN PRIVATE KEY-----" + "k" * 8000 + "-----END PRIVATE KEY-----"
    text = key + " ghp_" + "Z" * 3000
    assert "Z" not in preview(text, PREVIEW_BYTES)


def test_redacting_twice_changes_nothing_more() -> None:
    once = redact(tool_result("x TOKEN=abcdef y " * 500, '{"password": "abcdefgh"}'), log_user_prompt=False)
    assert redact(once, log_user_prompt=False) == once


@pytest.mark.parametrize(("marks", "shape"), [(marks, shape) for marks, shape, _ in _SHAPES])
def test_a_text_that_has_a_shape_holds_a_mark_of_it(marks: frozenset[str], shape: re.Pattern[str]) -> None:
    @given(st.from_regex(shape))
    def check(text: str) -> None:
        assert any(mark in text.casefold() for mark in marks)

    check()
