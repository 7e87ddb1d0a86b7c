"""Which environment variables a command gets.

The default excludes keep credentials out: what is named like a key, a secret or a token stays behind.

Variables that steer the loader or an interpreter (``LD_PRELOAD``, ``LD_LIBRARY_PATH``, ``PYTHONPATH``
and the like) are passed on: they take effect inside the sandbox, where they can only hurt the command
that got them.  Only what runs outside the sandbox goes without those that name a place where commands
can write, see :func:`without_steering`.  The launcher's own helpers are found by absolute path and
started isolated, never through ``PATH`` or any variable of the caller.

Importing this module costs no more than :mod:`codex_core.types`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from codex_core.errors import ConfigError
from codex_core.types import Network, Operation, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.sandbox.policy import SandboxPolicy

CORE_NAMES = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TEMP", "TMP", "TMPDIR", "USER")
"""What ``inherit = "core"`` keeps, as the reference client does on Unix."""
DEFAULT_EXCLUDES = ("*KEY*", "*SECRET*", "*TOKEN*")
INHERIT = ("all", "core", "none")
STEERING_PATHS = frozenset(
    {
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "LOCPATH", "OPENSSL_CONF", "OPENSSL_MODULES"),
        *("DYLD_INSERT_LIBRARIES", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH"),
        *("BASH_ENV", "ENV", "ZDOTDIR", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE"),
        *("NODE_PATH", "PERL5LIB", "PERLLIB", "RUBYLIB", "GEM_PATH", "GEM_HOME", "CLASSPATH", "LUA_PATH", "LUA_CPATH"),
        *("GIT_EXEC_PATH", "GIT_TEMPLATE_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_DIR"),
        *("GIT_CONFIG", "GIT_COMMON_DIR", "PYTHONPYCACHEPREFIX", "PYTHONPLATLIBDIR", "MAKEFILES"),
        *("XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_DATA_DIRS", "CURL_HOME", "WGETRC", "INPUTRC"),
        *("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "GOENV", "GOROOT", "GOPATH", "GOCACHE", "GOMODCACHE"),
        *("JAVA_HOME", "M2_HOME", "GRADLE_USER_HOME", "PHPRC", "PHP_INI_SCAN_DIR", "BUNDLE_GEMFILE", "OPENSSL_ENGINES"),
        *("R_PROFILE", "R_LIBS", "JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "FPATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"),
        *("KUBECONFIG", "AWS_CONFIG_FILE", "DOCKER_CONFIG", "ANSIBLE_CONFIG", "VIMINIT", "EXINIT", "VIMRUNTIME"),
        *("NPM_CONFIG_USERCONFIG", "NPM_CONFIG_GLOBALCONFIG", "NPM_CONFIG_PREFIX", "PIP_CONFIG_FILE", "PIP_PREFIX"),
    }
)
"""Variables that name places where code is found: by the loader, an interpreter, or a common tool."""
STEERING_OPTIONS = frozenset(
    {
        *("NODE_OPTIONS", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "MAVEN_OPTS", "MAKEFLAGS"),
        *("GIT_SSH_COMMAND", "GIT_SSH", "GIT_PROXY_COMMAND", "GIT_CONFIG_PARAMETERS", "GIT_ASKPASS", "SSH_ASKPASS"),
        *("EDITOR", "VISUAL", "PAGER", "GIT_EDITOR", "GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_SEQUENCE_EDITOR"),
        *("MANPAGER", "LESSOPEN", "LESSCLOSE", "BROWSER", "SHELL", "SUDO_ASKPASS", "PROMPT_COMMAND", "LUA_INIT"),
        *("CC", "CXX", "CPP", "LD", "AR", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "GOFLAGS", "RUSTFLAGS"),
        *("RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "_JAVA_OPTIONS", "GRADLE_OPTS"),
        "PYTEST_ADDOPTS",
        *("NPM_CONFIG_SCRIPT_SHELL", "NPM_CONFIG_NODE_OPTIONS"),
    }
)
"""Variables that hold options or commands, in which such places can be named."""
_ANY_CASE = "npm_config_"
"""Beginnings of names that are read in small letters too."""
_GIT_CONFIG = "GIT_CONFIG_VALUE_"
"""With a number behind: any setting of git, commands among them."""


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """``[shell_environment_policy]``.  Patterns know ``*`` and ``?`` and ignore case."""

    inherit: str = "all"
    ignore_default_excludes: bool = False
    exclude: tuple[str, ...] = ()
    set: Mapping[str, str] = field(default_factory=dict)
    include_only: tuple[str, ...] = ()
    """Where not empty, only what matches stays, also of *set*."""


def child_environment(
    environ: Mapping[str, str], settings: EnvironmentSettings, policy: SandboxPolicy, backend: str
) -> dict[str, str]:
    """Build the environment of a command that *backend* (``""`` or ``"none"``: nobody) confines.

    The steps, in order: inherit, default excludes, exclude, set, include_only; then the marks
    ``CODEX_SANDBOX`` (the backend's name) and ``CODEX_SANDBOX_NETWORK_DISABLED=1``, which tell a
    program why it fails and which no setting removes.

    Raises ConfigError for an unknown *inherit* and for names or values that no environment can hold.
    """
    if settings.inherit not in INHERIT:
        msg = f"shell_environment_policy.inherit: {settings.inherit!r} is none of {', '.join(INHERIT)}"
        raise ConfigError(msg)
    for name, value in settings.set.items():
        if not name or "=" in name or "\0" in name + value:
            msg = f"shell_environment_policy.set: no environment can hold {name!r} = {value!r}"
            raise ConfigError(msg)

    excludes = (*(() if settings.ignore_default_excludes else DEFAULT_EXCLUDES), *settings.exclude)
    child = {
        name: value
        for name, value in environ.items()
        if (settings.inherit == "all" or (settings.inherit == "core" and name in CORE_NAMES))
        and not _matches_any(name, excludes)
    }
    child.update(settings.set)
    if settings.include_only:
        child = {name: value for name, value in child.items() if _matches_any(name, settings.include_only)}
    if backend not in {"", "none"}:
        child["CODEX_SANDBOX"] = backend
        if policy.network is Network.OFF:
            child["CODEX_SANDBOX_NETWORK_DISABLED"] = "1"
    return child


def without_steering(environ: Mapping[str, str], policy: SandboxPolicy, cwd: str) -> dict[str, str]:
    """Leave out the variables by which a command could have decided what runs outside the sandbox after it.

    These are the ones that steer a loader, an interpreter or a tool, and name a place that commands can
    write to.  Relative places start at *cwd*.  Where nothing is confined there is nothing to keep.
    """
    if policy.mode is SandboxMode.DANGER_FULL_ACCESS:
        return dict(environ)
    return {name: value for name, value in environ.items() if not _steers_to_writable(name, value, policy, cwd)}


def _steers_to_writable(name: str, value: str, policy: SandboxPolicy, cwd: str) -> bool:
    if name.startswith(_ANY_CASE):
        name = name.upper()
    if name in STEERING_PATHS:
        places = value.replace(" ", os.pathsep).split(os.pathsep)  # LD_PRELOAD knows both
    elif name in STEERING_OPTIONS or name.startswith(_GIT_CONFIG):
        for separator in "=:,|@!'\"":
            value = value.replace(separator, " ")
        places = [word for word in value.split() if "/" in word or word.startswith("-I")]
    else:
        return False
    return any(policy.check(Operation.WRITE, os.path.join(cwd, place)) is None for place in places)


@lru_cache(maxsize=1024)  # the same few names for every command
def _matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(name.casefold(), pattern.casefold()) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    """Match the whole *name*; in at most ``len(name) * len(pattern)`` steps, whatever the pattern.

    :mod:`fnmatch` would do, at the price of importing :mod:`re` on the cold path.
    """
    reached = {0}
    for sign in pattern:
        if sign == "*":
            reached = set(range(min(reached), len(name) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(name) and sign in {"?", name[at]}}
        if not reached:
            return False
    return len(name) in reached
