"""One entry-point namespace and its plugins: stevedore imports the one that is named, pluggy checks and calls it.

No other module imports stevedore.  Which entry points there are is never asked of stevedore: it answers from a file
in the user's cache folder, and whoever can write there would choose the class that becomes the sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import pluggy

from codex_core import discovery
from codex_core.errors import PluginLoadError
from codex_core.hookspecs import PROJECT

if TYPE_CHECKING:
    from codex_core.discovery import Plugin


class Spec(Protocol):
    """What a hook specification class has besides its hooks."""

    namespace: ClassVar[str]


SpecT = TypeVar("SpecT", bound=Spec)


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

    def load(self, name: str) -> SpecT:
        """Import, start, check and register the one plugin of that name; no other is imported.

        Raises PluginNotFoundError or PluginConflictError before anything is imported, and PluginLoadError
        when it fails to import, to start, or to match the specification.  KeyboardInterrupt passes.
        """
        plugin = discovery.find(self.namespace, name)
        discovery.require_installed_code(plugin)
        try:
            started = _start(plugin)
        except (Exception, SystemExit) as error:
            raise PluginLoadError(self.namespace, name, discovery.failure(plugin, error)) from error
        return self.register(started, name)

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


def _start(plugin: Plugin) -> object:
    """Have stevedore import *plugin* and instantiate it."""
    from importlib.metadata import EntryPoint

    from stevedore.driver import DriverManager

    class InstalledDriver(DriverManager[Any]):
        """A driver manager that knows the one entry point that discovery found, and no cache."""

        def list_entry_points(self) -> list[EntryPoint]:
            return [EntryPoint(plugin.name, plugin.value, plugin.namespace)]

    driver = InstalledDriver(plugin.namespace, plugin.name, invoke_on_load=True)
    return driver[plugin.name].obj  # `.driver` would give the class where the instance is falsy
