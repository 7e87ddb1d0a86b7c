"""Hostile input gives errors of our own kinds, one printable line each, and never anything else.

The number of inputs is small here; CODEX_CORE_FUZZ=100000 sets it for each test.
"""

from __future__ import annotations

import os
import plistlib
import pwd
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config import sources
from codex_core.config.checks import errors, without_unknown
from codex_core.config.layers import Layer
from codex_core.config.model import Config, Requirements
from codex_core.config.spelling import canonical
from codex_core.errors import CodexError, ConfigError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = int(os.environ.get("CODEX_CORE_FUZZ", "200"))
fuzzed = settings(max_examples=INPUTS, deadline=None, suppress_health_check=[HealthCheck.too_slow])

CONFIGURATION = b"""\
sandbox_mode = "read-only"
approval_policy = "on-request"
profile = "p"
web_search = 'live'
[sandbox_workspace_write]
writable_roots = ["/a", "~/b", "c"]
network_access = true
[otel]
exporter = { otlp-http = {
  endpoint = "https://x", # here
  headers = { a = "${B}" },
}}
[projects."/a.b"]
trust_level = "trusted"
[profiles.p]
model = "m"
[limits]
memory = "512M"
wall_time = 1.5
[sandbox_linux]
allow_degraded = ["ipc"]
[[list]]
x = 1979-05-27T07:32:00Z
"""
CONSTRAINTS = b"""\
allowed_sandbox_modes = ["read-only", "workspace-write"]
minimum_strength = ["writes"]
allow_network_access = false
[[rules]]
prefix = ["git", ["push"]]
decision = "forbid"
"""
PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"'",
    b"=",
    b".",
    b"\n",
    b"\\",
    b"\x00",
    b"\xff",
    b"'''",
    b'"""',
    b"\xef\xbb\xbf",
]


@st.composite
def mutations(draw: st.DrawFn, seed: bytes) -> bytes:
    """Damage a good text in a few places."""
    content = bytearray(seed)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.sampled_from([0, 0, 1, 5, 40]))
        content[at : at + cut] = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    return bytes(content)


def outcome(action: Callable[[], Any]) -> Any:
    """Give what came of an action; an error must be of ours and one line that is safe to print."""
    try:
        return action()
    except CodexError as error:
        said = str(error)
    assert said.isprintable()
    return None


@fuzzed
@given(st.binary() | mutations(CONFIGURATION))
def test_any_user_file_loads_or_is_refused(fuzz_machine: Any, content: bytes) -> None:
    fuzz_machine.user_file.write_bytes(content)
    loaded = outcome(fuzz_machine.load)
    quick = fuzz_machine.quick()
    if loaded is None:
        assert quick is None
        return
    assert all(warning.isprintable() for warning in loaded.warnings)
    assert set(loaded.origins)
    if quick is not None:
        assert quick.sandbox == loaded.config.sandbox_settings()


@fuzzed
@given(st.binary() | mutations(CONSTRAINTS))
def test_any_file_of_constraints_loads_or_is_refused(constrained_machine: Any, content: bytes) -> None:
    constrained_machine.requirements_file.write_bytes(content)
    outcome(constrained_machine.load)


@fuzzed
@given(st.lists(st.text() | st.text("ab.=[]{}\"'\\,#\n "), max_size=3), st.sampled_from(["", "sandbox_", "otel."]))
def test_any_overrides_load_or_are_refused(fuzz_machine: Any, words: list[str], prefix: str) -> None:
    fuzz_machine.user("")
    outcome(lambda: fuzz_machine.load(*(prefix + word for word in words)))


keys = st.sampled_from(
    [*Config.model_fields, "sandbox_linux", "sandbox_x", "exporter", "trust_level", "x", ""]
) | st.text(max_size=3)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.dates()
shapes: st.SearchStrategy[Any] = st.deferred(
    lambda: scalars | st.lists(shapes, max_size=2) | st.dictionaries(keys, shapes, max_size=3)
)


@fuzzed
@given(st.dictionaries(keys, shapes, max_size=5))
def test_values_of_any_shape_are_accepted_or_named(values: dict[str, Any]) -> None:
    layer = Layer("fuzz", sources.USER, values)
    found = outcome(lambda: canonical(layer, folder="/", environ={"HOME": "/h"}))
    if found is None:
        return
    cleaned, unknown = without_unknown(found)
    assert all(one.path for one in unknown)
    assert all(line.startswith("fuzz: ") for line in errors(cleaned, Config))
    assert all(isinstance(line, str) for line in errors(layer, Requirements))


PREFERENCES = {"config_toml_base64": b64encode(CONFIGURATION).decode(), "other": [1, {"a": b"b"}]}


@fuzzed
@given(
    st.binary()
    | mutations(plistlib.dumps(PREFERENCES, fmt=plistlib.FMT_BINARY))
    | mutations(plistlib.dumps(PREFERENCES, fmt=plistlib.FMT_XML))
)
def test_any_property_list_is_read_or_refused(pushed_machine: Any, content: bytes) -> None:
    machine, path = pushed_machine
    path.write_bytes(content)
    outcome(machine.load)


@fuzzed
@given(st.text() | st.binary().map(lambda content: b64encode(content).decode()) | st.integers() | st.binary())
def test_any_value_of_a_preference_is_read_or_refused(pushed_machine: Any, value: Any) -> None:
    machine, path = pushed_machine
    try:
        content = plistlib.dumps({"config_toml_base64": value}, fmt=plistlib.FMT_BINARY)
    except (OverflowError, UnicodeEncodeError):
        return  # no property list can hold it
    path.write_bytes(content)
    outcome(machine.load)


@pytest.fixture(scope="module")
def fuzz_machine(new_machine: Any) -> Any:
    return new_machine()


@pytest.fixture(scope="module")
def constrained_machine(new_machine: Any) -> Any:
    machine = new_machine()
    machine.requirements("")
    return machine


@pytest.fixture(scope="module")
def pushed_machine(new_machine: Any) -> Any:
    machine = new_machine()
    user = pwd.getpwuid(os.getuid()).pw_name
    path = machine.root / "Library" / "Managed Preferences" / user / "com.openai.codex.plist"
    path.parent.mkdir(parents=True)
    return machine, path


def test_a_fault_of_ours_would_be_seen() -> None:
    with pytest.raises(ZeroDivisionError):
        outcome(lambda: 1 / 0)
    with pytest.raises(AssertionError):
        outcome(_two_lines)


def _two_lines() -> None:
    raise ConfigError("one\ntwo")
