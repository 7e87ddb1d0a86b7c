from __future__ import annotations

from typing import Any

import pytest
from codex_core.config.model import Otel, OtlpProtocol, WebSearch
from codex_core.errors import ConfigError

BARE = '[otel]\nexporter = "otlp-http"\n'
INLINE = """\
[otel]
exporter = { otlp-http = {
  endpoint = "https://otel.example.com/v1/logs",
  protocol = "json",
  headers = { "x-otlp-api-key" = "${OTLP_TOKEN}" },
}}
"""
SUBTABLE = """\
[otel.exporter."otlp-http"]
endpoint = "https://otel.example.com/v1/logs"
protocol = "json"
[otel.exporter."otlp-http".headers]
x-otlp-api-key = "${OTLP_TOKEN}"
"""
SIBLING = """\
[otel]
exporter = "otlp-http"
[otel.otlp-http]
endpoint = "https://otel.example.com/v1/logs"
protocol = "json"
headers = { x-otlp-api-key = "${OTLP_TOKEN}" }
"""


@pytest.mark.parametrize("text", [INLINE, SUBTABLE, SIBLING], ids=["inline", "subtable", "sibling"])
def test_every_spelling_of_an_exporter_means_the_same(machine: Any, text: str) -> None:
    machine.user(text)
    loaded = machine.load()
    table = loaded.config.otel.exporter_table("otlp-http")
    assert loaded.config.otel.exporter == "otlp-http"
    assert table.endpoint == "https://otel.example.com/v1/logs"
    assert table.protocol is OtlpProtocol.JSON
    assert table.headers == {"x-otlp-api-key": "${OTLP_TOKEN}"}
    assert loaded.warnings == ()
    line = loaded.origins["otel.otlp-http.endpoint"].line
    assert "endpoint" in text.splitlines()[line - 1]


@pytest.mark.parametrize("text", [INLINE, SUBTABLE, SIBLING], ids=["inline", "subtable", "sibling"])
def test_a_bare_name_above_keeps_the_details_from_below(machine: Any, text: str) -> None:
    machine.user(text)
    machine.managed(BARE)
    loaded = machine.load("otel.exporter=none")
    assert loaded.config.otel.exporter == "otlp-http"
    assert loaded.config.otel.exporter_table("otlp-http").endpoint == "https://otel.example.com/v1/logs"
    assert loaded.origins["otel.exporter"].layer == "managed"
    assert loaded.origins["otel.otlp-http.endpoint"].layer == "user"


def test_choosing_none_above_turns_the_exporter_off(machine: Any) -> None:
    machine.user(INLINE)
    assert machine.load("otel.exporter=none").config.otel.exporter == "none"


@pytest.mark.parametrize("spelling", ["otel.exporter.otlp-http.endpoint=E", "otel.otlp-http.endpoint=E"])
def test_an_override_reaches_a_detail_in_either_spelling(machine: Any, spelling: str) -> None:
    machine.user(INLINE)
    table = machine.load(spelling).config.otel.exporter_table("otlp-http")
    assert (table.endpoint, table.protocol) == ("E", OtlpProtocol.JSON)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[otel]\nexporter = {}", ":2:1: otel.exporter: names nothing, where one exporter is expected"),
        ("[otel]\nexporter = { a = {}, b = {} }", ':2:1: otel.exporter: names "a", "b", where one'),
        ("[otel]\nexporter = { otlp-http = 1 }", ":2:14: otel.exporter.otlp-http: must be a table"),
        ("[otel]\nexporter = { x = {} }\n[otel.x]", ":2:14: otel.x is set too: write it once"),
        ("[otel]\nexporter = { environment = {} }", ":2:14: otel.environment is set too"),
        ("[otel]\nexporter = { otlp-http = { endpoint = 1 } }", ":2:28: otel.exporter.otlp-http.endpoint: 1 is not"),
        ('[otel]\nexporter = { otlp-http = { protocol = "x" } }', 'expected one of "binary", "json"'),
    ],
)
def test_an_exporter_that_makes_no_sense_is_refused_where_it_stands(machine: Any, text: str, says: str) -> None:
    machine.user(text)
    with pytest.raises(ConfigError) as caught:
        machine.load()
    assert says in str(caught.value)


def test_variables_in_headers_are_expanded_when_the_exporter_is_opened(machine: Any) -> None:
    machine.user('[otel]\nexporter = { otlp-http = { headers = { X-Key = "Bearer ${TOKEN}", b = "$HOME" } } }\n')
    machine.environ["TOKEN"] = "abc"
    assert machine.load().exporter_settings() == {"headers": {"x-key": "Bearer abc", "b": "$HOME"}}


@pytest.mark.parametrize(
    ("header", "value", "says"),
    [
        ("x", "${TOKEN}", "the environment variable TOKEN is not set"),
        ("x", "${}", '"${}" is no variable; write ${NAME}'),
        ("x", "${A", '"${A" is no variable; write ${NAME}'),
        ("x", "${A B}", '"${A B}" is no variable; write ${NAME}'),
        ("x", "a\\nb", "holds characters that no header can have"),
        ("x y", "a", '"x y" is no name of a header'),
        ("", "a", '"" is no name of a header'),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_with_its_place(
    machine: Any, header: str, value: str, says: str
) -> None:
    machine.user(f'[otel]\nexporter = "otlp-http"\n[otel.otlp-http.headers]\n"{header}" = "{value}"\n')
    with pytest.raises(ConfigError) as caught:
        machine.load().exporter_settings()
    message = str(caught.value)
    assert message.startswith(f"{machine.user_file}:4:1: otel.otlp-http.headers.")
    assert message.endswith(says)


def test_a_variable_cannot_break_out_of_its_header(machine: Any) -> None:
    machine.user('[otel]\nexporter = { otlp-http = { headers = { x = "${TOKEN}" } } }\n')
    machine.environ["TOKEN"] = "a\r\nEvil: 1"
    with pytest.raises(ConfigError, match="holds characters that no header can have"):
        machine.load().exporter_settings()


def test_the_headers_of_an_exporter_that_is_not_chosen_do_not_matter(machine: Any) -> None:
    machine.user('[otel.otlp-http.headers]\nx = "${TOKEN}"\n')
    assert machine.load().exporter_settings() == {"headers": {}}


def test_certificates_are_found_beside_the_file(machine: Any) -> None:
    machine.user('[otel.otlp-grpc.tls]\nca-certificate = "ca.pem"\nclient-private-key = "/k.pem"\n')
    tls = machine.load().config.otel.exporter_table("otlp-grpc").tls
    assert (tls.ca_certificate, tls.client_private_key) == (f"{machine.codex_home}/ca.pem", "/k.pem")


@pytest.mark.parametrize(
    ("text", "mode", "switch"),
    [
        ("", WebSearch.DISABLED, False),
        ("[features]\nweb_search_request = true", WebSearch.LIVE, True),
        ("[features]\nweb_search_request = false", WebSearch.DISABLED, False),
        ('web_search = "cached"', WebSearch.CACHED, True),
        ('web_search = "disabled"', WebSearch.DISABLED, False),
        ("[tools]\nweb_search = true", WebSearch.LIVE, True),
        ("[tools]\nweb_search = true\n[features]\nweb_search_request = false", WebSearch.DISABLED, False),
        ('web_search = "indexed"\nfeatures.web_search_request = true', WebSearch.INDEXED, True),
    ],
    ids=["nothing", "on", "off", "cached", "disabled", "old", "old and new", "both"],
)
def test_both_spellings_of_web_search_agree(machine: Any, text: str, mode: WebSearch, *, switch: bool) -> None:
    machine.user(text)
    config = machine.load().config
    assert (config.web_search, config.features.web_search_request) == (mode, switch)


def test_the_old_spelling_of_web_search_is_deprecated(machine: Any) -> None:
    machine.user("[tools]\nweb_search = true\n")
    loaded = machine.load()
    assert loaded.warnings == (
        f"{machine.user_file}:2:1: tools.web_search = true is deprecated; use features.web_search_request",
    )
    assert loaded.origins["web_search"].line == 2


def test_the_highest_layer_decides_on_web_search_whatever_it_spells(machine: Any) -> None:
    machine.user('web_search = "live"')
    machine.managed("[features]\nweb_search_request = false")
    loaded = machine.load("web_search=cached")
    assert (loaded.config.web_search, loaded.config.features.web_search_request) == (WebSearch.DISABLED, False)
    origin = loaded.origins["web_search"]
    assert (origin.layer, origin.line) == ("managed", 2)


def test_a_layer_that_contradicts_itself_is_refused(machine: Any) -> None:
    machine.user('web_search = "disabled"\n[features]\nweb_search_request = true\n')
    with pytest.raises(
        ConfigError, match=r':1:1: web_search = "disabled" contradicts features.web_search_request = true'
    ):
        machine.load()


def test_a_profile_may_use_either_spelling(machine: Any) -> None:
    machine.user('web_search = "live"\nprofile = "p"\n[profiles.p.features]\nweb_search_request = false')
    loaded = machine.load()
    assert loaded.config.web_search is WebSearch.DISABLED
    assert loaded.origins["web_search"].line == 4


def test_an_exporter_without_a_table_has_an_empty_one() -> None:
    assert Otel().exporter_table("otlp-http").endpoint is None
