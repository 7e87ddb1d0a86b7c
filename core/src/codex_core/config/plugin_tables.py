"""The tables of plugins, and checking them against the models that plugins bring.

A plugin is imported after the layers were merged, so what holds is checked here, not each layer by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from codex_core.config import checks
from codex_core.config.keys import dotted
from codex_core.config.layers import find, givers
from codex_core.config.model import BackendTable, ExporterTable, PluginTable
from codex_core.errors import ConfigError
from codex_core.hookspecs import Exporter, SandboxBackend
from codex_core.table import Table, build

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codex_core.config.layers import Layer


def table_path(namespace: str, name: str) -> tuple[str, ...]:
    """Say where the plugin *name* of an extension point has its table."""
    if namespace == SandboxBackend.namespace:
        return (f"sandbox_{name}",)
    return ("otel" if namespace == Exporter.namespace else "plugins", name)


def core_model(namespace: str) -> type[Table]:
    """Give the model of the keys that core knows in the tables of an extension point."""
    if namespace == SandboxBackend.namespace:
        return BackendTable
    return ExporterTable if namespace == Exporter.namespace else PluginTable


@dataclass(slots=True)
class PluginTables:
    """Gives plugins their settings out of merged layers; collects the warnings."""

    layers: Sequence[Layer]
    values: Mapping[str, Any]
    strict: bool = False
    """Whether a key that is not known is an error."""
    warnings: list[str] = field(default_factory=list)

    def __call__(self, namespace: str, name: str, model: type[Table] | None) -> Table | None:
        """Check the table of one plugin against the model that it brings, and give it as that; None without one.

        Keys that core knows are left out, unless the model has them too.

        Raises ConfigError for a value that is wrong or missing, and where *strict* for a key that is not known.
        """
        path = table_path(namespace, name)
        own = {} if model is None else checks.table_fields(model)
        table = find(self.values, path)[1] or {}
        known, unknown = checks.known_values(table, checks.table_fields(core_model(namespace)) | own, path)
        self._warn(checks.unknown_line(givers(self.layers, one.path)[0], one) for one in unknown)
        if model is None:
            return None
        build(model)
        try:
            return model.model_validate({key: value for key, value in known.items() if key in own})
        except ValidationError as error:
            raise ConfigError(self._error_line(error, path)) from None

    def _warn(self, lines: Iterable[str]) -> None:
        for line in lines:
            if self.strict:
                raise ConfigError(line)
            self.warnings.append(line)

    def _error_line(self, error: ValidationError, path: tuple[str, ...]) -> str:
        """Say what is wrong first, where the key stands, or where it should."""
        key = (*path, *(str(part) for part in error.errors()[0]["loc"]))
        giver = next(iter((*givers(self.layers, key), *givers(self.layers, path))), None)
        if giver is None:
            return f"{dotted(key)} is missing: a chosen plugin needs it"
        return checks.error_lines(giver, error, path)[0]
