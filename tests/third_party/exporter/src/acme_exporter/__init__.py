"""An exporter that appends one line of JSON for each event to the file that ``[otel.acme-lines] path`` names."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any

from codex_core import Table
from codex_core.errors import ConfigError
from codex_core.hookspecs import Exporter, hookimpl
from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from codex_core.events import Event


class LinesSink:
    """Appends to one file, from any thread."""

    def __init__(self, file: TextIO, resource: Mapping[str, str]) -> None:
        self.dropped = 0
        self._file = file
        self._resource = dict(resource)
        self._lock = threading.Lock()

    def export(self, event: Event) -> None:
        """Write one event; one that comes too late, or cannot be written, is counted."""
        line = json.dumps({"event": event.name, **dataclasses.asdict(event), "resource": self._resource})
        with self._lock:
            try:
                self._file.write(f"{line}\n")
            except (OSError, ValueError):
                self.dropped += 1

    def flush(self, timeout: float) -> None:  # noqa: ARG002 - a file does not keep anybody waiting
        """Hand everything to the system."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()

    def close(self, timeout: float) -> None:
        """Flush and close; idempotent."""
        self.flush(timeout)
        self._file.close()


class LinesSettings(Table):
    """The table ``[otel.acme-lines]``."""

    path: str = Field(description="The file to write to.")


class LinesExporter(Exporter):
    """The exporter ``acme-lines``."""

    settings_model = LinesSettings

    def __init__(self, settings: LinesSettings) -> None:
        self._path = settings.path

    @hookimpl
    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> LinesSink:  # noqa: ARG002 - headers and the like
        """Open the file; raises ConfigError where it cannot be opened."""
        try:
            return LinesSink(open(self._path, "a", encoding="utf-8"), resource)
        except OSError as error:
            raise ConfigError(f"otel.acme-lines.path: {self._path}: {error.strerror}") from None
