from __future__ import annotations

import itertools
from typing import Any

import pytest
import tomlkit
from codex_core.config import Layer, Origin, Override
from codex_core.config.report import drift, entries

# Every pair of layers, and every shape of value

LAYERS = ("user", "profile", "overrides", "flags", "managed", "mdm")
"""From low to high."""
SHAPES: dict[str, tuple[tuple[str, ...], Any, Any, Any]] = {
    # shape: key, what the lower layer says, what the upper one says, what holds
    "scalar": (("model_verbosity",), "low", "high", "high"),
    "array": (("sandbox_workspace_write", "writable_roots"), ["/a", "/b"], ["/c"], ("/c",)),
    "empty array": (("sandbox_workspace_write", "writable_roots"), ["/a"], [], ()),
    "table": (("shell_environment_policy", "set"), {"A": "1", "B": "1"}, {"B": "2"}, {"A": "1", "B": "2"}),
    "bare name over bare name": (("otel", "exporter"), "none", "otlp-http", ("otlp-http", None)),
    "bare name over table": (
        ("otel", "exporter"),
        {"otlp-http": {"endpoint": "E"}},
        "otlp-http",
        ("otlp-http", "E"),
    ),
    "table over bare name": (
        ("otel", "exporter"),
        "none",
        {"otlp-http": {"endpoint": "E"}},
        ("otlp-http", "E"),
    ),
    "table over table": (
        ("otel", "exporter"),
        {"otlp-http": {"endpoint": "D", "protocol": "json"}},
        {"otlp-http": {"endpoint": "E"}},
        ("otlp-http", "E"),
    ),
    "sibling over table": (
        ("otel",),
        {"exporter": {"otlp-http": {"endpoint": "D"}}},
        {"otlp-http": {"endpoint": "E"}},
        ("otlp-http", "E"),
    ),
}
IN_PROFILES = {"scalar"}
PAIRS = [
    (low, high, shape)
    for (low, high), shape in itertools.product(itertools.combinations(LAYERS, 2), SHAPES)
    if "profile" not in {low, high} or shape in IN_PROFILES
]


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def say(machine: Any, layer: str, path: tuple[str, ...], value: Any, texts: dict[str, Any]) -> list[Any]:
    """Let one layer say one thing; the overrides that it takes."""
    if layer in {"user", "managed", "mdm"}:
        texts[layer] = {**texts.get(layer, {}), **nested(path, value)}
    elif layer == "profile":
        texts["user"] = {**texts.get("user", {}), "profile": "p", "profiles": {"p": nested(path, value)}}
    else:
        return [Override(path, value, "--flag" if layer == "flags" else "")]
    for name, document in texts.items():
        getattr(machine, name)(tomlkit.dumps(document))
    return []


def held(config: Any, path: tuple[str, ...]) -> Any:
    if path[0] == "otel":
        return config.otel.exporter, config.otel.exporter_table("otlp-http").endpoint
    for part in path:
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(("low", "high", "shape"), PAIRS)
def test_the_higher_of_two_layers_decides_and_is_named(machine: Any, low: str, high: str, shape: str) -> None:
    path, below, above, expected = SHAPES[shape]
    texts: dict[str, Any] = {}
    words = say(machine, low, path, below, texts) + say(machine, high, path, above, texts)
    loaded = machine.load(*words)
    assert held(loaded.config, path) == expected
    key = {"table": "shell_environment_policy.set.B"}.get(shape, ".".join(path))
    key = "otel.otlp-http.endpoint" if "over" in shape and shape != "bare name over bare name" else key
    giver = low if shape == "bare name over table" else high
    origin = loaded.origins[key]
    assert origin.layer == {"profile": "profile p"}.get(giver, giver)
    if origin.path is not None:
        text = tomlkit.dumps(texts["user" if origin.layer.startswith("profile") else origin.layer])
        assert key.rpartition(".")[2] in text.splitlines()[origin.line - 1]


@pytest.mark.parametrize(("low", "high"), list(itertools.combinations(LAYERS, 2)))
def test_what_a_layer_overrode_is_kept(machine: Any, low: str, high: str) -> None:
    texts: dict[str, Any] = {}
    words = say(machine, low, ("model",), "below", texts) + say(machine, high, ("model",), "above", texts)
    (entry,) = [one for one in entries(machine.load(*words), defaults=False) if one.key == "model"]
    assert entry.value == "above"
    assert [said.value for said in entry.overrode] == ["below"]


def test_every_key_that_is_set_is_listed_once_and_with_defaults_every_key_there_is(machine: Any) -> None:
    machine.user('model = "m"\n[sandbox_linux]\nallow_degraded = ["ipc"]\n[otel]\nexporter = { x = { y = 1 } }\n')
    loaded = machine.load()
    some, every = (entries(loaded, defaults=defaults) for defaults in (False, True))
    assert [entry.key for entry in some] == [
        "approval_policy",
        "model",
        "otel.exporter",
        "otel.x.y",
        "sandbox_linux.allow_degraded",
        "sandbox_mode",
    ]
    assert {entry.key for entry in some} < {entry.key for entry in every}
    assert len({entry.key for entry in every}) == len(every)
    (environment,) = [entry for entry in every if entry.key == "otel.environment"]
    assert (environment.value, environment.origin) == ("dev", Origin("defaults"))


def test_what_a_constraint_replaced_is_kept(machine: Any) -> None:
    machine.user('sandbox_mode = "danger-full-access"\n')
    machine.requirements('allowed_sandbox_modes = ["read-only"]\n')
    (entry,) = [one for one in entries(machine.load(), defaults=False) if one.key == "sandbox_mode"]
    assert entry.constrained
    assert entry.value == "read-only"
    assert entry.origin == Origin("requirements", str(machine.requirements_file), 1, 1)
    assert [(said.value, said.origin.layer) for said in entry.overrode] == [
        ("danger-full-access", "user"),
        ("read-only", "defaults"),
    ]


# Drift


def test_without_managed_configuration_there_is_no_drift(machine: Any) -> None:
    machine.user('sandbox_mode = "danger-full-access"\n')
    assert drift(machine.load()) == ()


def test_a_local_value_that_a_managed_one_overrides_is_drift_and_an_equal_one_is_not(machine: Any) -> None:
    machine.user('model = "mine"\nmodel_provider = "same"\n[otel]\nexporter = { otlp-http = { endpoint = "E" } }\n')
    machine.managed(
        'model = "ours"\nmodel_provider = "same"\nsandbox_mode = "read-only"\notel.exporter = "otlp-http"\n'
    )
    (found,) = drift(machine.load("model=override"))
    assert (found.path, found.kind) == (("model",), "overridden")
    assert (found.local.value, found.local.origin.layer) == ("override", "overrides")
    assert (found.policy.value, found.policy.origin.path) == ("ours", str(machine.managed_file))
    (found,) = drift(machine.load())
    assert (found.local.value, found.local.origin.line) == ("mine", 1)


def test_a_local_value_that_a_constraint_forbids_is_drift_also_under_a_managed_one(machine: Any) -> None:
    machine.user('sandbox_mode = "danger-full-access"\n')
    machine.managed('sandbox_mode = "read-only"\n')
    machine.requirements('allowed_sandbox_modes = ["read-only"]\n')
    assert [(one.path, one.kind) for one in drift(machine.load())] == [
        (("sandbox_mode",), "overridden"),
        (("sandbox_mode",), "forbidden"),
    ]


def test_a_layer_of_a_plugin_is_a_layer_like_any_other() -> None:
    layer = Layer("vault", 21, {"a": 1})
    assert (layer.position(("a",)), layer.place(("a",))) == (None, "vault")
