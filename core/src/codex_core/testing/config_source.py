"""What every config source has to keep; see :mod:`codex_core.testing` for how to use it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from codex_core.config.sources import ConfigContext
from codex_core.host import Host

if TYPE_CHECKING:
    from pathlib import Path

    from codex_core.hookspecs import ConfigSource

_SCALARS = (str, int, float, bool, dt.datetime, dt.date, dt.time)


class ConfigSourceContract:
    """Tests that every config source passes."""

    @pytest.fixture
    def plugin(self) -> ConfigSource:
        """Give the source to test: override this."""
        pytest.fail("override the fixture `plugin` to give the config source")

    @pytest.fixture
    def context(self, tmp_path: Path) -> ConfigContext:
        """Give what a source may need: override this to prepare what it reads."""
        return ConfigContext(str(tmp_path / "home"), str(tmp_path), {"HOME": str(tmp_path)}, str(tmp_path / "system"))

    @pytest.fixture
    def host(self, plugin: ConfigSource) -> Host:
        """Give a host with the source in it."""
        host = Host()
        host.config_sources.register(plugin, "contract")
        return host

    def test_the_host_accepts_its_layers(self, host: Host, context: ConfigContext) -> None:
        """They are layers, and stand between the defaults and the managed ones; each has a name."""
        assert all(layer.name for layer in host.config_layers(context))

    def test_layers_hold_what_toml_can_say(self, host: Host, context: ConfigContext) -> None:
        """Tables with keys that are text, arrays, and plain values."""
        for layer in host.config_layers(context):
            assert isinstance(layer.values, dict)
            assert _is_toml(layer.values), layer

    def test_the_same_question_gets_the_same_answer(self, host: Host, context: ConfigContext) -> None:
        """Nothing is used up by reading it."""
        first, second = host.config_layers(context), host.config_layers(context)
        assert [(layer.name, layer.values) for layer in first] == [(layer.name, layer.values) for layer in second]


def _is_toml(value: Any) -> bool:  # noqa: ANN401 - anything may be in a layer
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_toml(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_toml, value))
    return isinstance(value, _SCALARS)
