"""What is installed, found by reading files: nothing is imported, no cache is believed.

A plugin is an entry point in a namespace that begins with ``codex_core.``.  Whoever can add a ``*.dist-info``
folder decides what runs outside the sandbox, so only some folders of :data:`sys.path` count:

* those that :mod:`site` set up, even if one of them is the current directory: Python ran what their ``.pth``
  files say before any of this was imported;
* others that are called ``site-packages`` or ``dist-packages``, as overlays of ``uv`` and ``.pth`` files add them,
  unless they are the current directory or named by ``PYTHONPATH``.

So a ``*.dist-info`` in the workspace is no plugin, whether the workspace is on ``sys.path`` as the current
directory, through ``PYTHONPATH``, as the folder of a script, or as the source folder of an editable installation.
Of one distribution that lies in several folders the first counts, as it does for ``import``.  Zip files and eggs
are not looked into: they need readers that the cold path cannot afford, and installers no longer write them.

A distribution whose metadata mentions us and cannot be read makes every look-up fail.  Passing over it could
hide one of two claimants to a name, and then the other one would win without a word.

What this cannot close: Python imports from every folder of ``sys.path``, and has done so before we start.  Who
has ``PYTHONPATH`` name a workspace, or installs the workspace editably into the environment of codex, lets the
workspace run code in the next start of codex.  An environment of its own for codex is the cure.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from codex_core.errors import PluginConflictError, PluginLoadError, PluginNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

PREFIX = "codex_core."
_INSTALLER_FOLDERS = ("site-packages", "dist-packages")
_ENVIRONMENT = ("bin", "lib", "lib64", "Scripts", "Lib", "DLLs")
"""Where an environment, or an interpreter, keeps what it runs."""
_SHIPPED = {
    ("codex_core.sandbox_backends", "linux"): ("codex-sandbox-linux", "plugins/sandbox_linux"),
    ("codex_core.sandbox_commands", "linux"): ("codex-sandbox-linux", "plugins/sandbox_linux"),
    ("codex_core.exporters", "none"): ("codex-exporter-none", "plugins/exporters/none"),
    ("codex_core.tool_gates", "web_search"): ("codex-gate-web-search", "plugins/approval/web_search"),
    ("codex_core.approval_policies", "untrusted"): ("codex-approval-policies", "plugins/approval/policies"),
    ("codex_core.approval_policies", "on-failure"): ("codex-approval-policies", "plugins/approval/policies"),
    ("codex_core.approval_policies", "on-request"): ("codex-approval-policies", "plugins/approval/policies"),
    ("codex_core.approval_policies", "never"): ("codex-approval-policies", "plugins/approval/policies"),
}
"""Who ships a name, and where its folder is in a checkout: the public index belongs to others, never send there."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of one installed distribution."""

    name: str
    value: str
    """``module:attribute``, or ``module`` alone."""
    namespace: str
    distribution: str
    version: str
    location: str
    """The folder that really holds the ``*.dist-info``, absolute and free of symbolic links."""

    @property
    def module(self) -> str:
        """The dotted name of the module to import."""
        return self.value.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Broken:
    """Metadata of a distribution that may declare plugins and cannot be understood."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """Everything that one look at the installed distributions found."""

    plugins: tuple[Plugin, ...]
    broken: tuple[Broken, ...]


def scan(folders: Iterable[str] | None = None) -> Scan:
    """Read the plugins of all our namespaces from *folders*, or from the trusted ones of ``sys.path``.

    Earlier folders shadow later ones, distribution by distribution.  Raises nothing.
    """
    plugins: list[Plugin] = []
    broken: list[Broken] = []
    seen: set[str] = set()
    for folder in trusted_folders() if folders is None else folders:
        here: set[str] = set()
        for stem in _distributions(folder):
            name = normalised(stem.partition("-")[0])
            here.add(name)
            if name in seen:
                continue
            metadata = f"{folder}{os.sep}{stem}.dist-info"
            try:
                plugins.extend(_declared(metadata, stem))
            except (OSError, ValueError) as error:
                broken.append(Broken(f"{metadata}{os.sep}entry_points.txt", _one_line(error)))
        seen |= here
    return Scan(tuple(plugins), tuple(broken))


def installed(namespace: str) -> dict[str, tuple[Plugin, ...]]:
    """Give the plugins of one namespace by name; more than one for a name is a conflict.

    Raises PluginLoadError where the metadata of some distribution cannot be read.
    """
    found = scan()
    if found.broken:
        raise PluginLoadError(namespace, "*", _mend(found.broken[0]))
    return grouped(found.plugins, namespace)


def grouped(plugins: Iterable[Plugin], namespace: str) -> dict[str, tuple[Plugin, ...]]:
    """Group the plugins of one namespace by name, in order."""
    by_name: dict[str, tuple[Plugin, ...]] = {}
    for plugin in plugins:
        if plugin.namespace == namespace:
            by_name[plugin.name] = (*by_name.get(plugin.name, ()), plugin)
    return by_name


def find(namespace: str, name: str, found: Scan | None = None) -> Plugin:
    """Give the one plugin of that name, without importing it; *found* is a look that has been taken already.

    Raises PluginNotFoundError, PluginConflictError (naming every claimant), or PluginLoadError where
    broken metadata leaves open who else claims the name.
    """
    found = found or scan()
    candidates = grouped(found.plugins, namespace).get(name, ())
    if len(candidates) > 1:
        raise PluginConflictError(namespace, name, conflict(candidates))
    if found.broken:
        raise PluginLoadError(namespace, name, _mend(found.broken[0]))
    if not candidates:
        raise PluginNotFoundError(namespace, name, missing(namespace, name))
    return candidates[0]


def conflict(candidates: tuple[Plugin, ...]) -> str:
    """Say who claims one name, and what to do about it."""
    claimants = ", ".join(sorted(f"{one.distribution} {one.version} ({one.location})" for one in candidates))
    return f"declared more than once, by {claimants}: uninstall all but one; none was imported"


def missing(namespace: str, name: str) -> str:
    """Say that nobody declares *name*, and what to do about it."""
    for plugin, why in elsewhere():
        if (plugin.namespace, plugin.name) == (namespace, name):
            where = f"declared only in {plugin.location}, where no plugin is accepted ({why})"
            return f"{where}: install {plugin.distribution} into the environment"
    if (namespace, name) in _SHIPPED:
        distribution, folder = _SHIPPED[namespace, name]
        return f"not installed: install the distribution {distribution}, as in `pip install ./{folder}`"
    return "not installed: no installed distribution declares it; `codex plugins` lists what there is"


def elsewhere() -> list[tuple[Plugin, str]]:
    """Find what would be a plugin if the folder of ``sys.path`` that it lies in counted, with the reason why not."""
    trusted, unsafe = trusted_folders(), unsafe_folders()
    others = dict.fromkeys(folder for folder in map(_real, _search_path()) if folder not in trusted)
    return [
        (plugin, unsafe.get(folder, "not called site-packages"))
        for folder in others
        for plugin in scan((folder,)).plugins
    ]


def load(plugin: Plugin) -> object:
    """Import what the entry point names.

    Raises PluginLoadError when that fails, however it fails short of a KeyboardInterrupt, and before
    importing anything when the code would come from a folder that does not count.
    """
    require_installed_code(plugin)
    try:
        target: object = import_module(plugin.module)
        for attribute in filter(None, plugin.value.partition(":")[2].split(".")):
            target = getattr(target, attribute)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(plugin.namespace, plugin.name, failure(plugin, error)) from error
    return target


def failure(plugin: Plugin, error: BaseException) -> str:
    """Say in one line that importing or starting *plugin* failed."""
    return (
        f"{plugin.value} of {plugin.distribution} {plugin.version} does not load "
        f"({type(error).__name__}: {_one_line(error)}): repair or uninstall that distribution"
    )


def require_installed_code(plugin: Plugin) -> None:
    """Refuse a plugin whose metadata is installed and whose code would come from a folder that does not count.

    A package of the same name in the current directory or on ``PYTHONPATH`` is imported first.

    Raises PluginLoadError.
    """
    unsafe = unsafe_folders()
    for path in code_of(plugin.module):
        folder = os.path.realpath(os.path.dirname(path))
        if folder in unsafe and not any(_inside(folder, home) for home in _homes(plugin)):
            reason = f"its code would come from {path} ({unsafe[folder]}), not from {plugin.location}: start elsewhere"
            raise PluginLoadError(plugin.namespace, plugin.name, reason)


def code_of(module: str) -> tuple[str, ...]:
    """Find the code of the top-level package of *module*: the folders of a package, or the file of a module.

    Asks Python's own import machinery, and so follows every kind of editable installation, but runs none of the
    package's code.  Paths are absolute; where one leads through a symbolic link, its target is given as well.
    Empty for what is built in or cannot be found.
    """
    spec = _spec(module.partition(".")[0])
    if spec is None:
        return ()
    named = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location and spec.origin else ())]
    paths = dict.fromkeys(os.path.abspath(path) for path in named) | dict.fromkeys(map(os.path.realpath, named))
    return tuple(path for path in paths if not any(path != other and _inside(path, other) for other in paths))


def code_locations(found: Scan | None = None) -> tuple[str, ...]:
    """Give the paths that Python, codex_core and the installed plugins run code from, absolute and sorted.

    *found* is a look that has been taken already.

    A command that could write there would leave the sandbox the next time one of them starts, so each path that
    lies inside a writable root has to be protected.  Where a link leads to a path, both are given.  The folders
    are narrow, so that a workspace which is an environment itself stays writable beside them.  A user's own
    ``site-packages`` and a ``pyvenv.cfg`` are given even where they are missing: Python obeys what appears there.

    Source folders on ``sys.path`` are not given, except for our own code and plugins in them: a program that
    is being worked on has to stay writable.  Raises nothing.
    """
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    paths = {
        *(os.path.join(prefix, name) for prefix in prefixes for name in _ENVIRONMENT),
        *(os.path.dirname(path) for path in (sys.executable, os.path.realpath(sys.executable)) if sys.executable),
        os.path.dirname(os.__file__),
        *trusted_folders(),
        *code_of("codex_core"),
    }
    for plugin in (found or scan()).plugins:
        paths.update((plugin.location, *code_of(plugin.module)))
    present = {path for path in paths if os.path.lexists(path)}
    present |= _site_folders() | {os.path.join(prefix, "pyvenv.cfg") for prefix in prefixes}
    return tuple(sorted({real for path in present for real in (os.path.abspath(path), os.path.realpath(path))}))


def trusted_folders() -> tuple[str, ...]:
    """Give the folders of ``sys.path`` that distributions may be installed in: real paths, in order, each once."""
    own, unsafe = _site_folders(), unsafe_folders()
    absolute = (os.path.realpath(entry) for entry in _search_path() if os.path.isabs(entry))
    named = (folder for folder in absolute if folder in own or os.path.basename(folder) in _INSTALLER_FOLDERS)
    return tuple(dict.fromkeys(folder for folder in named if folder not in unsafe))


def unsafe_folders() -> dict[str, str]:
    """Give the folders that may be on ``sys.path`` because of how and where Python was started.

    Real paths, each with the reason.  Folders that :mod:`site` set up are never among them.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    reasons = {_real(entry): "a relative entry of sys.path" for entry in _search_path() if not os.path.isabs(entry)}
    if isinstance(main, str):
        reasons[os.path.dirname(_real(main))] = "the folder of the script"
    if not sys.flags.ignore_environment:
        named = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        reasons |= {_real(entry): "named by PYTHONPATH" for entry in named}
    reasons[_real(os.curdir)] = "the current directory"
    own = _site_folders()
    return {folder: why for folder, why in reasons.items() if folder not in own}


def normalised(distribution: str) -> str:
    """Bring a distribution's name into the form that names are compared in (PEP 503)."""
    return "-".join(filter(None, distribution.lower().replace("_", "-").replace(".", "-").split("-")))


def _distributions(folder: str) -> list[str]:
    """List the sorted stems (``name-version``) of the ``*.dist-info`` entries of a folder."""
    try:
        names = os.listdir(folder)
    except OSError:  # a zip file, or nothing at all: Python imports nothing through this either
        return []
    return sorted(name[: -len(".dist-info")] for name in names if name.endswith(".dist-info"))


def _declared(metadata: str, stem: str) -> Iterator[Plugin]:
    """Give the plugins that one ``*.dist-info`` declares; OSError or ValueError where that cannot be known."""
    try:
        with open(f"{metadata}{os.sep}entry_points.txt", "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return
    if PREFIX.encode() not in content:
        return
    name, version = _identity(metadata, stem)
    location = os.path.dirname(os.path.realpath(metadata))
    for namespace, entry, value in _entries(content.decode("utf-8")):
        yield Plugin(entry, value, namespace, name, version, location)


def _entries(text: str) -> list[tuple[str, str, str]]:
    """Parse ``entry_points.txt`` into (namespace, name, value), ours only; ValueError where it makes no sense.

    The format is that of the entry-points specification of the Python Packaging User Guide.
    """
    entries: list[tuple[str, str, str]] = []
    namespace: str | None = None
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            namespace = line[1:-1].strip()
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        value = value.partition("[")[0].strip()  # extras in brackets, deprecated
        module, colon, attribute = (part.strip() for part in value.partition(":"))
        dotted = module.split(".") + (attribute.split(".") if colon else [])
        if namespace is None or not equals or not name:
            raise ValueError(f"line {number} is not `name = module:attribute` in a [section]")
        if namespace.startswith(PREFIX):
            if not all(map(str.isidentifier, dotted)):
                raise ValueError(f"line {number} names no module and attribute: {value!r}")
            entries.append((namespace, name, module + colon + attribute))
    return entries


def _identity(metadata: str, stem: str) -> tuple[str, str]:
    """Give name and version: the first headers of METADATA, or else what the folder is called."""
    name, _, version = stem.partition("-")
    try:
        with open(f"{metadata}{os.sep}METADATA", encoding="utf-8", errors="replace") as file:
            for line in file:
                header, colon, content = line.partition(":")
                if not colon:
                    break
                if header.lower() == "name":
                    name = content.strip()
                elif header.lower() == "version":
                    version = content.strip()
    except OSError:
        pass  # the folder's name says the same
    return name, version


def _spec(package: str) -> ModuleSpec | None:
    loaded = sys.modules.get(package)
    if loaded is not None:
        return loaded.__spec__
    for finder in sys.meta_path:
        if (find_spec := getattr(finder, "find_spec", None)) and (spec := find_spec(package, None)):
            return spec  # type: ignore[no-any-return]  # by the protocol of sys.meta_path
    return None


def _homes(plugin: Plugin) -> Iterator[str]:
    """Give where the code of a plugin belongs: beside its metadata, or in the project of an editable installation."""
    yield plugin.location
    stem = next((stem for stem in _distributions(plugin.location) if _is(stem, plugin)), "")
    try:
        with open(os.path.join(plugin.location, f"{stem}.dist-info", "direct_url.json"), encoding="utf-8") as file:
            content = file.read()
    except OSError:
        return
    import json
    from urllib.parse import unquote, urlsplit

    try:
        origin = json.loads(content)
        if origin["dir_info"]["editable"]:
            yield os.path.realpath(unquote(urlsplit(origin["url"]).path))
    except (ValueError, LookupError, TypeError):
        return


def _is(stem: str, plugin: Plugin) -> bool:
    return normalised(stem.partition("-")[0]) == normalised(plugin.distribution)


def _search_path() -> list[str]:
    entries: list[object] = [*sys.path]  # anything may have been put there; Python passes over what is no str
    return [entry for entry in entries if isinstance(entry, str)]


def _site_folders() -> set[str]:
    """Give the folders that the interpreter set up by itself: none under ``-S``."""
    site = sys.modules.get("site")
    if site is None:
        return set()
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return {os.path.realpath(folder) for folder in folders}


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # relative to a current directory that is gone: nothing can be imported through it
        return path


def _inside(path: str, folder: str) -> bool:
    """Say whether *path* is *folder* or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _mend(broken: Broken) -> str:
    return f"{broken.path} is broken ({broken.reason}): reinstall or remove that distribution"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
