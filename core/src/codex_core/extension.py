"""One entry-point namespace and its plugins: stevedore imports the one that is named, pluggy checks and calls it.

No other module imports stevedore.  Which entry points there are is never asked of stevedore: it answers from a file
in the user's cache folder, and whoever can write there would choose the class that becomes the sandbox.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pluggy

from codex_core import discovery
from codex_core.errors import PluginLoadError
from codex_core.hookspecs import PROJECT, Extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codex_core.discovery import Plugin
    from codex_core.table import Table

SpecT = TypeVar("SpecT", bound=Extension)


class Settings(Protocol):
    """Gives a plugin its settings, as :class:`codex_core.config.plugin_tables.PluginTables` does."""

    def __call__(self, namespace: str, name: str, model: type[Table] | None) -> Table | None:
        """Check the table of the plugin *name* against its model; raises ConfigError."""
        ...


class ExtensionPoint(Generic[SpecT]):
    """The plugins of one specification, with a pluggy manager of their own.

    A manager for all would let a plugin of any kind implement the hooks of every other kind.
    """

    def __init__(self, spec: type[SpecT]) -> None:
        self.spec = spec
        self.namespace = spec.namespace
        self._plugins: dict[str, SpecT] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(spec)
        self.hooks = tuple(name for name in dir(spec) if self._manager.parse_hookspec_opts(spec, name))

    @property
    def hook(self) -> Any:  # noqa: ANN401 - pluggy's relay has an attribute for each hook
        """Pluggy's relay: ``point.hook.review(action=..., policy=...)`` calls that hook of all plugins."""
        return self._manager.hook

    @property
    def plugins(self) -> tuple[tuple[str, SpecT], ...]:
        """The registered plugins with their names, in the order of registration."""
        return tuple(self._plugins.items())

    def caller(self, hook: str, name: str) -> pluggy.HookCaller:
        """Give one hook of one plugin, for answers that are judged one by one.  Call it with keywords."""
        others = [plugin for other, plugin in self._plugins.items() if other != name]
        return self._manager.subset_hook_caller(hook, others)

    def load(self, name: str, settings: Settings | None = None) -> SpecT:
        """Import, start, check and register the one plugin of that name; no other is imported.

        *settings* gives a plugin that has a model what it is made with; without it, the model's defaults.

        Raises PluginNotFoundError or PluginConflictError before anything is imported, PluginLoadError
        when it fails to import, to start, or to match the specification, and what *settings* raises.
        KeyboardInterrupt passes.
        """
        plugin = discovery.find(self.namespace, name)
        discovery.require_installed_code(plugin)
        with _failures_of(plugin):
            made = _import(plugin)
            model = _settings_model(made)
        table = settings(self.namespace, name, model) if settings is not None else None
        with _failures_of(plugin):
            started = made() if model is None else made(table or model())
        return self.register(started, name)

    def settings_model(self, name: str) -> type[Table] | None:
        """Import the one plugin of that name, and give the model of its settings; raises as :meth:`load`."""
        plugin = discovery.find(self.namespace, name)
        discovery.require_installed_code(plugin)
        with _failures_of(plugin):
            return _settings_model(_import(plugin))

    def register(self, plugin: object, name: str) -> SpecT:
        """Check and register a plugin that is at hand: one that is built in, or a test's.

        Raises PluginLoadError, and leaves nothing registered then.
        """
        if not isinstance(plugin, self.spec):
            reason = f"a {type(plugin).__qualname__} is not a {self.spec.__name__}: derive its class from that"
            raise PluginLoadError(self.namespace, name, reason)
        if name in self._plugins:
            raise PluginLoadError(self.namespace, name, "it is registered already")
        try:
            self._validate(plugin, name)
        except (Exception, SystemExit) as error:
            # Pluggy leaves a plugin in place that `check_pending` has just refused.
            self._manager.unregister(name=name)
            reason = f"it does not fit {self.spec.__name__}: {' '.join(str(error).split())}"
            raise PluginLoadError(self.namespace, name, reason) from error
        self._plugins[name] = plugin
        return plugin

    def _validate(self, plugin: SpecT, name: str) -> None:
        hash(plugin)  # pluggy keeps plugins in sets when it calls one of several
        for hook in self.hooks:
            overridden = getattr(type(plugin), hook) is not getattr(self.spec, hook)
            if overridden and self._manager.parse_hookimpl_opts(plugin, hook) is None:
                raise pluggy.PluginValidationError(plugin, f"{hook} lacks @hookimpl, so it would never be called")
        self._manager.register(plugin, name=name)
        self._manager.check_pending()
        if not self._manager.get_hookcallers(plugin):
            raise pluggy.PluginValidationError(plugin, "it implements no hook")


@contextmanager
def _failures_of(plugin: Plugin) -> Iterator[None]:
    """Turn whatever a plugin's own code raises into a PluginLoadError."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise PluginLoadError(plugin.namespace, plugin.name, discovery.failure(plugin, error)) from error


def _import(plugin: Plugin) -> Any:  # noqa: ANN401 - whatever the entry point names
    """Have stevedore import *plugin*."""
    from importlib.metadata import EntryPoint

    from stevedore.driver import DriverManager

    class InstalledDriver(DriverManager[Any]):
        """A driver manager that knows the one entry point that discovery found, and no cache."""

        def list_entry_points(self) -> list[EntryPoint]:
            return [EntryPoint(plugin.name, plugin.value, plugin.namespace)]

    return InstalledDriver(plugin.namespace, plugin.name)[plugin.name].plugin


def _settings_model(made: object) -> type[Table] | None:
    """Give the model that a plugin's class brings; raises TypeError for what is none."""
    model = getattr(made, "settings_model", None)
    if model is None:
        return None
    from codex_core.table import Table

    if not isinstance(model, type) or not issubclass(model, Table):
        raise TypeError(f"its settings_model is {model!r}, which is no codex_core.Table")
    return model
