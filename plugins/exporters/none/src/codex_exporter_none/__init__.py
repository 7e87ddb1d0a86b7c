"""The exporter that sends nothing: no event is made, and no telemetry library is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_core.hookspecs import Exporter, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.events import Event

__all__ = ["NoneExporter"]


class NoneExporter(Exporter):
    """What ``[otel] exporter = "none"`` opens."""

    @hookimpl
    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> _NoneSink:  # noqa: ARG002 -- the contract
        """Open a sink that forgets."""
        return _NoneSink()


class _NoneSink:
    """Takes events and keeps nothing, which is not a loss: nobody asked for them."""

    forgets = True
    dropped = 0

    def export(self, event: Event) -> None:
        pass

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        pass
