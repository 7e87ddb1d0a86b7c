"""Configuration: layers, their origins, and the checked result.

The names are found when they are asked for, so that :mod:`codex_core.config.quick` does not pay for
pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codex_core.config.layers import Layer, Origin
    from codex_core.config.loading import Loaded, changed, load_config
    from codex_core.config.model import Config
    from codex_core.config.overrides import Override, parse_override
    from codex_core.config.sources import ConfigContext

__all__ = [
    "Config",
    "ConfigContext",
    "Layer",
    "Loaded",
    "Origin",
    "Override",
    "changed",
    "load_config",
    "parse_override",
]

_HOMES = {
    "Config": "model",
    "ConfigContext": "sources",
    "Layer": "layers",
    "Loaded": "loading",
    "Origin": "layers",
    "Override": "overrides",
    "changed": "loading",
    "load_config": "loading",
    "parse_override": "overrides",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
