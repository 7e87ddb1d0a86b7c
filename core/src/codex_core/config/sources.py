"""The places that configuration comes from, and how their files are read.

From low to high, each layer over the ones before it:

=========== ================ ==========================================================
precedence  layer            what
=========== ================ ==========================================================
0           ``defaults``     what the folder suggests (see :mod:`codex_core.config.loading`)
20          ``user``         ``$CODEX_HOME/config.toml``, by default ``~/.codex/config.toml``
25          ``profile``      the table of the user's file that ``profile`` names
30          ``overrides``    ``-c key=value``
31          ``flags``        ``--sandbox``, ``--add-dir`` and the like
40          ``managed``      ``/etc/codex/managed_config.toml``
50          ``mdm``          macOS managed preferences (see :mod:`codex_core.config.mdm`)
55          ``session``      what was chosen inside a session; gone when it ends
60          ``requirements`` what constraints put in the place of a value that they refuse
=========== ================ ==========================================================

Third-party sources take any precedence above the defaults and below the managed file.
Importing this module costs no more than :mod:`dataclasses` and :mod:`os`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_core.config.files import decode, parse, read_file
from codex_core.config.keys import visible
from codex_core.config.layers import Layer, find, merge
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codex_core.config.overrides import Override

DEFAULTS = 0
USER = 20
PROFILE = 25
OVERRIDES = 30
FLAGS = 31
MANAGED = 40
MDM = 50
SESSION = 55
REQUIREMENTS = 60

USER_FILE = "config.toml"
MANAGED_PREFERENCES = ("Library", "Managed Preferences")
_CSIDL_PROFILE = 0x28
_MAX_PATH = 260


@dataclass(frozen=True, slots=True)
class ConfigContext:
    """What a source may need to find its configuration."""

    codex_home: str
    cwd: str
    environ: Mapping[str, str]
    system_root: str = "/"
    """Stands for ``/`` in the paths of managed files; only tests change it."""


def codex_home(environ: Mapping[str, str]) -> str:
    """Find the folder of codex: ``$CODEX_HOME``, or ``~/.codex``, which need not exist yet.

    Raises ConfigError where ``CODEX_HOME`` is relative or no folder, or no home is known.
    """
    chosen = environ.get("CODEX_HOME", "")
    if not chosen:
        return os.path.join(home(environ), ".codex")
    if not os.path.isabs(chosen):
        raise ConfigError(f"CODEX_HOME is {visible(chosen)}: it must be an absolute path")
    if not os.path.isdir(chosen):
        raise ConfigError(f"CODEX_HOME is {visible(chosen)}: there is no such folder; create it, or unset CODEX_HOME")
    return chosen


def home(environ: Mapping[str, str]) -> str:
    """Find the user's home folder; raises ConfigError where the environment does not name it."""
    name = "USERPROFILE" if os.name == "nt" else "HOME"
    found = environ.get(name, "")
    if not os.path.isabs(found):
        state = f"is {visible(found)}, which is no absolute path" if found else "is not set"
        raise ConfigError(f"{name} {state}: set it, or set CODEX_HOME to the folder of config.toml")
    return found


def absolute(path: str, folder: str | None, environ: Mapping[str, str]) -> str:
    """Resolve ``~`` and a relative path against *folder*; links and ``..`` are left to who uses the path.

    Raises ConfigError, without a place, where the path has no meaning.
    """
    if not path or "\0" in path:
        raise ConfigError("this is no path")
    if path == "~" or path.startswith(("~/", "~" + os.sep)):
        return os.path.join(home(environ), path[2:]) if path[2:] else home(environ)
    if path.startswith("~"):
        raise ConfigError("the home of another user cannot be named with ~: write the path")
    if os.path.isabs(path):
        return path
    if folder is None:
        raise ConfigError("must be absolute here")
    return os.path.join(folder, path)


def managed_path(context: ConfigContext) -> str:
    """Name the file of managed values.  No variable and no flag moves it."""
    return _system_file(context, "managed_config.toml")


def requirements_path(context: ConfigContext) -> str:
    """Name the file of constraints.  No variable and no flag moves it."""
    return _system_file(context, "requirements.toml")


def _system_file(context: ConfigContext, name: str) -> str:
    if sys.platform == "win32" and context.system_root == "/":
        return os.path.join(_windows_profile(), ".codex", name)
    return os.path.join(context.system_root, "etc", "codex", name)


if sys.platform == "win32":

    def _windows_profile() -> str:
        """Find the user's profile folder as the system knows it, whatever the environment says."""
        import ctypes

        path = ctypes.create_unicode_buffer(_MAX_PATH)
        if ctypes.windll.shell32.SHGetFolderPathW(None, _CSIDL_PROFILE, None, 0, path) != 0:
            raise ConfigError("Windows does not tell the profile folder of this user")
        return path.value


def has_managed(context: ConfigContext) -> bool:
    """Say whether there may be managed configuration or constraints, without reading them."""
    if sys.platform == "darwin":
        return True
    paths = (managed_path(context), requirements_path(context), os.path.join(context.system_root, *MANAGED_PREFERENCES))
    return not all(map(_surely_missing, paths))


def _surely_missing(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def managed_layers(context: ConfigContext) -> tuple[Layer, ...]:
    """Read the managed file; raises ConfigError where it is there and cannot be trusted, read or parsed."""
    return file_layers("managed", MANAGED, managed_path(context), guard=context.system_root)


def requirements_layers(context: ConfigContext) -> tuple[Layer, ...]:
    """Read the file of constraints; raises ConfigError as :func:`managed_layers`."""
    return file_layers("requirements", MANAGED, requirements_path(context), guard=context.system_root)


def user_layers(context: ConfigContext) -> tuple[Layer, ...]:
    """Read the user's own file, if there is one."""
    return file_layers("user", USER, os.path.join(context.codex_home, USER_FILE))


def override_layers(overrides: Sequence[Override], below: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Make the layers of ``-c`` and of the flags; *below* is what the layers under them say.

    An override that extends takes the array from below and adds to it.
    """
    from codex_core.config.overrides import override_values

    layers = []
    for name, precedence, chosen in (
        ("overrides", OVERRIDES, [override for override in overrides if not override.flag]),
        ("flags", FLAGS, [override for override in overrides if override.flag]),
    ):
        if not chosen:
            continue
        values = override_values(chosen)
        for override in chosen:
            if override.extend:
                _found, array = find(merge(below, values), override.path)
                extended = [*(array if isinstance(array, (list, tuple)) else ()), *override.value]
                values = merge(values, override_values([_replacing(override, extended)]))
        below = merge(below, values)
        layers.append(Layer(name, precedence, values))
    return tuple(layers)


def _replacing(override: Override, value: object) -> Override:
    from codex_core.config.overrides import Override

    return Override(override.path, value, override.flag)


def file_layers(name: str, precedence: int, path: str, *, guard: str | None = None) -> tuple[Layer, ...]:
    """Read a TOML file as a layer; nothing where there is no such file.  *guard* is that of :func:`read_file`.

    Raises ConfigError, with file, line and column where they are known.
    """
    content = read_file(path, guard=guard)
    if content is None:
        return ()
    return (text_layer(name, precedence, decode(content, path), path),)


def text_layer(name: str, precedence: int, text: str, path: str | None) -> Layer:
    """Parse a TOML text as a layer; raises ConfigError."""
    from codex_core.config.positions import Positions

    values = parse(text, visible(path) if path is not None else name)
    return Layer(name, precedence, values, path, Positions(text))
