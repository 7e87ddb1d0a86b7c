"""Bringing the accepted spellings of a layer to one form, before layers are merged.

Pure, one layer at a time, so that the last layer that speaks wins whatever spelling it uses:

* ``exporter = { NAME = { ... } }`` and ``[otel.exporter.NAME]`` become ``exporter = "NAME"`` and
  ``[otel.NAME]``, so that a layer above may choose the exporter by its bare name and leave the
  details to a layer below;
* ``web_search`` and ``features.web_search_request`` imply each other, and ``tools.web_search`` implies both;
* relative paths and ``~`` become absolute.

What has a wrong type is left as it is; :mod:`codex_core.config.checks` reports it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codex_core.config.keys import dotted, shown
from codex_core.config.layers import find, merge
from codex_core.config.model import Otel, WebSearch
from codex_core.config.sources import absolute
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.config.layers import Layer
    from codex_core.config.positions import KeyPath

EXPORTER = ("otel", "exporter")
WEB_SEARCH = ("web_search",)
WEB_SEARCH_REQUEST = ("features", "web_search_request")
TOOLS_WEB_SEARCH = ("tools", "web_search")
"""Deprecated, as in the reference client."""
WORKSPACE_PATHS = ("writable_roots", "allowed_unix_sockets")
TLS_PATHS = ("ca-certificate", "client-certificate", "client-private-key")


def canonical(layer: Layer, *, folder: str | None, environ: Mapping[str, str]) -> Layer:
    """Give the layer in the one form; *folder* is where relative paths start, None allows none.

    Raises ConfigError for two spellings that contradict each other, and for paths that cannot be resolved.
    """
    values = merge({}, layer.values)
    renames = dict(layer.renames)
    _exporter(layer, values, renames)
    _tools(layer, values, renames)
    _web_search(replace(layer, renames=renames), values, renames)
    layer = replace(layer, values=values, renames=renames)
    _resolve_paths(layer, values, folder, environ)
    return layer


def canonical_path(path: tuple[str, ...]) -> tuple[str, ...]:
    """Give the one form of a key path that may be written in another spelling."""
    return ("otel", *path[2:]) if path[:2] == EXPORTER and len(path) > len(EXPORTER) else path


def _exporter(layer: Layer, values: dict[str, Any], renames: dict[KeyPath, KeyPath]) -> None:
    otel = values.get("otel")
    table = find(values, EXPORTER)[1]
    if not isinstance(otel, dict) or not isinstance(table, dict):
        return
    if len(table) != 1:
        names = ", ".join(shown(name) for name in table) or "nothing"
        raise ConfigError(f"{layer.place(EXPORTER)}: otel.exporter: names {names}, where one exporter is expected")
    ((name, settings),) = table.items()
    if not isinstance(settings, dict):
        raise ConfigError(f"{layer.place((*EXPORTER, name))}: {dotted((*EXPORTER, name))}: must be a table")
    if name in Otel.model_fields or name in otel:
        raise ConfigError(f"{layer.place((*EXPORTER, name))}: {dotted(('otel', name))} is set too: write it once")
    otel["exporter"] = name
    otel[name] = settings
    renames["otel", name] = layer.spelled((*EXPORTER, name))


def _tools(layer: Layer, values: dict[str, Any], renames: dict[KeyPath, KeyPath]) -> None:
    found, switch = find(values, TOOLS_WEB_SEARCH)
    features = values.setdefault("features", {}) if found else None
    if isinstance(switch, bool) and isinstance(features, dict) and "web_search_request" not in features:
        features["web_search_request"] = switch
        renames[WEB_SEARCH_REQUEST] = layer.spelled(TOOLS_WEB_SEARCH)


def _web_search(layer: Layer, values: dict[str, Any], renames: dict[KeyPath, KeyPath]) -> None:
    has_mode, mode = find(values, WEB_SEARCH)
    has_request, request = find(values, WEB_SEARCH_REQUEST)
    if has_mode and has_request:
        if isinstance(mode, str) and isinstance(request, bool) and request != (mode != WebSearch.DISABLED):
            raise ConfigError(
                f"{layer.place(WEB_SEARCH)}: web_search = {shown(mode)} contradicts "
                f"features.web_search_request = {shown(request)}: write one of them"
            )
    elif has_mode and mode in list(WebSearch):
        features = values.setdefault("features", {})
        if isinstance(features, dict):
            features["web_search_request"] = mode != WebSearch.DISABLED
            renames[WEB_SEARCH_REQUEST] = layer.spelled(WEB_SEARCH)
    elif has_request and isinstance(request, bool):
        values["web_search"] = str(WebSearch.LIVE if request else WebSearch.DISABLED)
        renames[WEB_SEARCH] = layer.spelled(WEB_SEARCH_REQUEST)


def _resolve_paths(layer: Layer, values: dict[str, Any], folder: str | None, environ: Mapping[str, str]) -> None:
    workspace = values.get("sandbox_workspace_write")
    for name in WORKSPACE_PATHS:
        if isinstance(workspace, dict) and isinstance(workspace.get(name), (list, tuple)):
            workspace[name] = [
                _absolute(layer, ("sandbox_workspace_write", name, index), path, folder, environ)
                if isinstance(path, str)
                else path
                for index, path in enumerate(workspace[name])
            ]
    otel = values.get("otel")
    for name, exporter in otel.items() if isinstance(otel, dict) else ():
        tls = exporter.get("tls") if isinstance(exporter, dict) else None
        if not isinstance(tls, dict):
            continue
        for part in TLS_PATHS:
            if isinstance(tls.get(part), str):
                tls[part] = _absolute(layer, ("otel", name, "tls", part), tls[part], folder, environ)


def _absolute(layer: Layer, key: KeyPath, path: str, folder: str | None, environ: Mapping[str, str]) -> str:
    try:
        return absolute(path, folder, environ)
    except ConfigError as error:
        raise ConfigError(f"{layer.place(key)}: {dotted(layer.spelled(key))}: {shown(path)}: {error}") from None
