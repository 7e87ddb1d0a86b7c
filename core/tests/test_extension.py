"""stevedore and pluggy do what they are good at, and every trap they leave open is closed.

Each test of a trap first shows what happens with the plain library.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import codex_core
import pluggy
import pytest
from codex_core.errors import PluginConflictError, PluginLoadError, PluginNotFoundError
from codex_core.extension import ExtensionPoint
from codex_core.hookspecs import PROJECT, ApprovalPolicy, Observer, SandboxBackend, hookimpl
from codex_core.types import Strength
from stevedore.driver import DriverManager
from stevedore.exception import MultipleMatches
from stevedore.extension import ExtensionManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from codex_core.events import Event

    Install = Callable[..., Path]

CORE = str(Path(next(iter(codex_core.__path__))).parent)
OBSERVERS = Observer.namespace
WATCHER = f"[{OBSERVERS}]\nwatcher = watcher_module:Watcher\n"
GOOD = """
from codex_core.hookspecs import Observer, hookimpl

class Watcher(Observer):
    @hookimpl
    def on_event(self, event):
        pass
"""


@pytest.fixture(autouse=True)
def fresh_stevedore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the plain library remembers, in memory and on disk, out of other tests and of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
    monkeypatch.setattr("stevedore._cache._c._dir", str(tmp_path / "cache"))
    monkeypatch.setattr("stevedore._cache._c._internal", {})


def test_the_named_plugin_is_imported_started_and_registered_and_no_other(install: Install) -> None:
    install("watcher", WATCHER + "other = other_module:Other\n", {"watcher_module": GOOD, "other_module": GOOD})
    point = ExtensionPoint(Observer)
    plugin = point.load("watcher")
    assert type(plugin).__name__ == "Watcher"
    assert point.plugins == (("watcher", plugin),)
    assert point.hooks == ("on_event",)
    assert "other_module" not in sys.modules


def test_a_poisoned_cache_of_stevedore_has_no_say(install: Install, site_packages: Path, tmp_path: Path) -> None:
    install("backend", f"[{OBSERVERS}]\nwatcher = good:Watcher\n", {"good": GOOD, "evil": GOOD})
    cache = tmp_path / "cache" / "python-entrypoints"
    cache.mkdir(parents=True)

    def run(load: str) -> str:
        script = (
            f"import sys; sys.path += [{CORE!r}, {str(site_packages)!r}]\n"
            f"from stevedore import _cache\n"
            f"_cache._c._disable_caching = False  # it does not write for an interpreter in /tmp, but reads\n"
            f"from stevedore.driver import DriverManager\n"
            f"from codex_core.extension import ExtensionPoint\n"
            f"from codex_core.hookspecs import Observer\n"
            f"print(type({load}).__module__)\n"
        )
        environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-B", "-c", script], env=environ, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    plain = f"DriverManager({OBSERVERS!r}, 'watcher', invoke_on_load=True).driver"
    assert run(plain) == "good"
    (file,) = cache.glob("*")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content).replace("good:Watcher", "evil:Watcher"))
    assert run(plain) == "evil"
    assert run("ExtensionPoint(Observer).load('watcher')") == "good"


def test_a_duplicate_name_is_refused_and_neither_is_imported(install: Install) -> None:
    install("first", f"[{OBSERVERS}]\nwatcher = first_module:Watcher\n", {"first_module": GOOD})
    install("second", f"[{OBSERVERS}]\nwatcher = second_module:Watcher\n", {"second_module": GOOD})
    with pytest.raises(MultipleMatches):
        DriverManager(OBSERVERS, "watcher")
    assert {"first_module", "second_module"} <= set(sys.modules)
    del sys.modules["first_module"], sys.modules["second_module"]
    with pytest.raises(PluginConflictError, match=r"first.*second"):
        ExtensionPoint(Observer).load("watcher")
    assert not {"first_module", "second_module"} & set(sys.modules)


@pytest.mark.parametrize(
    ("source", "escapes"), [("assert False, 'no'", AssertionError), ("import sys; sys.exit(0)", SystemExit)]
)
def test_a_plugin_that_asserts_or_exits_at_import_is_an_error_of_ours(
    install: Install, source: str, escapes: type[BaseException]
) -> None:
    install("watcher", WATCHER, {"watcher_module": source})
    failures: list[BaseException] = []
    with pytest.raises(escapes):
        DriverManager(OBSERVERS, "watcher", on_load_failure_callback=lambda *failure: failures.append(failure[2]))
    assert failures == []
    with pytest.raises(PluginLoadError, match=escapes.__name__):
        ExtensionPoint(Observer).load("watcher")


def test_a_plugin_that_fails_when_it_is_started_is_an_error_of_ours(install: Install) -> None:
    install("watcher", WATCHER, {"watcher_module": "class Watcher:\n    def __init__(self): raise SystemExit(3)"})
    with pytest.raises(PluginLoadError, match="SystemExit: 3"):
        ExtensionPoint(Observer).load("watcher")


def test_a_keyboard_interrupt_while_a_plugin_loads_passes(install: Install) -> None:
    install("watcher", WATCHER, {"watcher_module": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        ExtensionPoint(Observer).load("watcher")


def test_loading_says_nothing_on_its_own(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    install("watcher", WATCHER, {"watcher_module": "import does_not_exist"})
    with pytest.raises(PluginLoadError):
        ExtensionPoint(Observer).load("watcher")
    assert caplog.records == []


def test_a_missing_plugin_is_refused(install: Install) -> None:
    install("watcher", WATCHER)
    with pytest.raises(PluginNotFoundError, match="'other'"):
        ExtensionPoint(Observer).load("other")


class Spy(Observer):
    """An observer that also answers for the sandbox."""

    @hookimpl
    def on_event(self, event: Event) -> None:
        pass

    @hookimpl
    def probe(self) -> Strength:
        return Strength("spy", "all", frozenset())


def test_a_plugin_that_implements_a_hook_of_another_point_is_refused() -> None:
    shared = pluggy.PluginManager(PROJECT)
    shared.add_hookspecs(Observer)
    shared.add_hookspecs(SandboxBackend)
    shared.register(Spy())
    shared.check_pending()
    assert shared.hook.probe().backend == "spy"
    point = ExtensionPoint(Observer)
    with pytest.raises(PluginLoadError, match="unknown hook 'probe'"):
        point.register(Spy(), "spy")
    with pytest.raises(PluginLoadError, match="a Spy is not a SandboxBackend"):
        ExtensionPoint(SandboxBackend).register(Spy(), "spy")


def test_a_refused_plugin_is_not_left_half_registered() -> None:
    plain = pluggy.PluginManager(PROJECT)
    plain.add_hookspecs(Observer)
    spy = Spy()
    plain.register(spy)
    with pytest.raises(pluggy.PluginValidationError):
        plain.check_pending()
    assert [one.plugin for one in plain.hook.on_event.get_hookimpls()] == [spy]
    point = ExtensionPoint(Observer)
    with pytest.raises(PluginLoadError):
        point.register(spy, "spy")
    assert point.plugins == ()
    assert point.hook.on_event.get_hookimpls() == []
    assert not point._manager.has_plugin("spy")
    point.register(Watcher(), "spy")
    assert len(point.hook.on_event.get_hookimpls()) == 1


class Watcher(Observer):
    """A correct observer."""

    @hookimpl
    def on_event(self, event: Event) -> None:
        pass


class Curious(Observer):
    """Asks for an argument that the specification does not have."""

    @hookimpl
    def on_event(self, event: Event, session: object) -> None:  # type: ignore[override]  # what pluggy has to find
        pass


class Forgetful(ApprovalPolicy):
    """Overrides a hook and forgets to mark it."""

    def review(self, *_: object) -> None:
        pass


class Idle(ApprovalPolicy):
    """Implements nothing."""


class Unhashable(Watcher):
    """Cannot be put into a set."""

    __hash__ = None  # type: ignore[assignment]  # what a dataclass does to its class


class Falsy(Watcher):
    """An instance that is false, for which stevedore's ``driver`` gives the class."""

    def __bool__(self) -> bool:
        return False


def test_a_hook_with_a_wrong_argument_is_refused() -> None:
    plain = pluggy.PluginManager(PROJECT)
    plain.add_hookspecs(Observer)
    with pytest.raises(pluggy.PluginValidationError):
        plain.register(Curious())
    point = ExtensionPoint(Observer)
    with pytest.raises(PluginLoadError, match="session") as caught:
        point.register(Curious(), "curious")
    assert "\n" not in str(caught.value)
    assert point.plugins == ()


def test_a_hook_that_is_not_marked_is_refused_because_it_would_never_be_called() -> None:
    plain = pluggy.PluginManager(PROJECT)
    plain.add_hookspecs(ApprovalPolicy)
    plain.register(Forgetful())
    plain.check_pending()
    assert plain.hook.review(action=None, policy=None) == []
    with pytest.raises(PluginLoadError, match="review lacks @hookimpl"):
        ExtensionPoint(ApprovalPolicy).register(Forgetful(), "forgetful")


def test_a_plugin_that_implements_no_hook_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="implements no hook"):
        ExtensionPoint(ApprovalPolicy).register(Idle(), "idle")


def test_a_plugin_that_does_not_derive_from_its_specification_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="a object is not a Observer"):
        ExtensionPoint(Observer).register(object(), "object")


def test_a_plugin_that_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="unhashable"):
        ExtensionPoint(Observer).register(Unhashable(), "unhashable")


def test_one_name_is_registered_once() -> None:
    point = ExtensionPoint(Observer)
    first = point.register(Watcher(), "watcher")
    with pytest.raises(PluginLoadError, match="registered already"):
        point.register(Watcher(), "watcher")
    assert point.plugins == (("watcher", first),)


def test_an_instance_that_is_false_is_loaded_all_the_same(install: Install) -> None:
    falsy = GOOD + "    def __bool__(self):\n        return False\n"
    install("watcher", WATCHER, {"watcher_module": falsy})
    assert isinstance(DriverManager(OBSERVERS, "watcher", invoke_on_load=True).driver, type)
    assert isinstance(ExtensionPoint(Observer).load("watcher"), Observer)


def test_each_plugin_can_be_asked_alone() -> None:
    calls: list[str] = []

    class Teller(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def on_event(self) -> None:  # type: ignore[override]  # pluggy passes what is asked for
            calls.append(self.name)

    point = ExtensionPoint(Observer)
    for name in ("a", "b", "c"):
        point.register(Teller(name), name)
    for name in ("b", "a", "c", "b"):
        point.caller("on_event", name)(event=None)
    assert calls == ["b", "a", "c", "b"]
