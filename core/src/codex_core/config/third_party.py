"""Layers from installed config sources, such as a company's secret store.

Only managed configuration names them.  What they give is checked like a file: a source that fails, or
gives something that is no configuration, stops the start.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from codex_core import discovery
from codex_core.config.files import MAX_DEPTH, deeper_than
from codex_core.config.keys import quoted
from codex_core.config.layers import Layer
from codex_core.config.sources import DEFAULTS, MANAGED
from codex_core.errors import ConfigError, PluginLoadError
from codex_core.extension import ExtensionPoint
from codex_core.hookspecs import ConfigSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codex_core.config.plugin_tables import PluginTables
    from codex_core.config.requirements import Constraints
    from codex_core.config.sources import ConfigContext

_SCALARS = (str, bool, int, float, datetime, date, time)


def load(
    names: Iterable[str], constraints: Constraints, context: ConfigContext, managed: PluginTables
) -> tuple[Layer, ...]:
    """Load the sources of these names, with settings out of the managed layers, and collect their layers.

    Raises ConfigError where a source is not allowed or its settings are wrong, PluginError where one is missing,
    broken or ambiguous, and as :func:`collect`.
    """
    point = ExtensionPoint(ConfigSource)
    for name in dict.fromkeys(names):
        violation = constraints.check_plugin(discovery.find(point.namespace, name).distribution)
        if violation is not None:
            raise ConfigError(f"the config source {quoted(name)}: {violation}")
        point.load(name, managed)
    return collect(point, context)


def collect(point: ExtensionPoint[ConfigSource], context: ConfigContext) -> tuple[Layer, ...]:
    """Ask every registered source; the lowest precedence first, of equals by the name of the source.

    Raises PluginLoadError where a source raises, or gives anything but TOML values in layers between
    the defaults and the managed ones.
    """
    found: list[tuple[int, str, Layer]] = []
    for name, _source in point.plugins:
        for layer in _ask(point, name, context):
            _check(layer, name)
            found.append((layer.precedence, name, layer))
    return tuple(layer for _, _, layer in sorted(found, key=lambda entry: entry[:2]))


def _ask(point: ExtensionPoint[ConfigSource], name: str, context: ConfigContext) -> list[Layer]:
    try:
        answers: list[Any] = point.caller("config_layers", name)(context=context)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginLoadError(point.namespace, name, f"it failed to give its layers: {reason}") from error
    for layers in answers:
        if not isinstance(layers, (list, tuple)):
            raise PluginLoadError(point.namespace, name, f"it gave {type(layers).__name__} instead of layers")
    return [layer for layers in answers for layer in layers]


def _check(layer: object, name: str) -> None:
    reason = None
    if not isinstance(layer, Layer):
        reason = f"it gave {type(layer).__name__} instead of a Layer"
    elif not DEFAULTS < layer.precedence < MANAGED:
        reason = f"its layer {layer.name!r} has precedence {layer.precedence}: not in 1..{MANAGED - 1}"
    elif deeper_than(layer.values):
        reason = f"its layer {layer.name!r} is nested more than {MAX_DEPTH} levels deep"
    elif not isinstance(layer.values, dict) or not _is_toml(layer.values):
        reason = f"its layer {layer.name!r} holds something that TOML cannot say"
    if reason is not None:
        raise PluginLoadError(ConfigSource.namespace, name, reason)


def _is_toml(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_toml(below) for key, below in value.items())
    if isinstance(value, list):
        return all(map(_is_toml, value))
    return isinstance(value, _SCALARS)
