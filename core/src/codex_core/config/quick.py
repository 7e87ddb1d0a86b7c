"""The cold path: what ``codex sandbox`` needs of the configuration, without pydantic.

It gives exactly what :func:`codex_core.config.load_config` and ``Config.sandbox_settings()`` would give,
or None, and then the caller asks them.  None is always right: everything that is not entirely plain,
from an unknown key to the presence of managed configuration, is left to the full path, which also
knows how to say what is wrong.  A property test holds the two together.

Importing this module costs no more than :mod:`codex_core.sandbox.policy`; TOML is read only where
there is a file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_core.config import sources
from codex_core.config.defaults import AUTO, BACKENDS, BY_TRUST, CAREFUL, os_backend, repository_of, trust_entry
from codex_core.config.layers import merge
from codex_core.config.overrides import Override, parse_override
from codex_core.errors import CodexError
from codex_core.sandbox.policy import SandboxSettings
from codex_core.types import ApprovalMode, Promise, ProtectGit, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FLAGS = ("network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp")
_TEXTS = ("model", "model_provider", "sandbox_backend")
_MODES = frozenset(map(str, SandboxMode))
_APPROVALS = frozenset(map(str, ApprovalMode)) - {str(ApprovalMode.ON_FAILURE)}
"""All but the deprecated one, about which the full path has something to say."""
_PROMISES = frozenset(map(str, Promise))
_BACKEND_TABLES = tuple(f"sandbox_{name}" for name in BACKENDS)


@dataclass(frozen=True, slots=True)
class Quick:
    """What the cold path found."""

    sandbox: SandboxSettings
    codex_home: str


def settings(
    *,
    cwd: str,
    overrides: Sequence[Override | str] = (),
    environ: Mapping[str, str] | None = None,
    system_root: str = "/",
) -> Quick | None:
    """Give the sandbox settings for a run in *cwd*, or None where only the full path can tell.

    The arguments are those of :func:`codex_core.config.load_config`.  Never raises: errors, too, are
    left to the full path.
    """
    environ = os.environ if environ is None else environ
    try:
        context = sources.ConfigContext(sources.codex_home(environ), cwd, environ, system_root)
        if sources.has_managed(context):
            return None
        layers = list(sources.user_layers(context))
        below = _plain(layers[0].values, context.codex_home, environ) if layers else {}
        if below is None:
            return None
        words = [parse_override(one) if isinstance(one, str) else one for one in overrides]
        for layer in sources.override_layers(words, below):
            above = _plain(layer.values, cwd, environ)
            if above is None:
                return None
            below = merge(below, above)
    except CodexError:
        return None
    return Quick(_settings(below, cwd), context.codex_home)


def _settings(values: Mapping[str, Any], cwd: str) -> SandboxSettings:
    mode = values.get("sandbox_mode")
    if mode is None:
        repository = repository_of(cwd)
        projects = values.get("projects")
        entry = trust_entry(projects, cwd, repository)
        if projects is not None and entry is not None:
            mode = BY_TRUST[projects[entry]["trust_level"]]["sandbox_mode"]
        else:
            mode = (CAREFUL if repository is None else AUTO)["sandbox_mode"]
    workspace = values.get("sandbox_workspace_write", {})
    backend = values.get("sandbox_backend", "")
    table = values.get(f"sandbox_{backend or os_backend()}", {})
    return SandboxSettings(
        mode=SandboxMode(mode),
        writable_roots=tuple(workspace.get("writable_roots", ())),
        protect_git=ProtectGit(workspace.get("protect_git", ProtectGit.ALL)),
        allow_degraded=tuple(table.get("allow_degraded", ())),
        backend=backend,
        **{flag: workspace.get(flag, False) for flag in _FLAGS},
    )


def _plain(values: Mapping[str, Any], folder: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Copy a layer with its paths made absolute; None where something is not plain.  Raises ConfigError."""
    copy = dict(values)
    for key, value in values.items():
        if key == "sandbox_workspace_write":
            if not isinstance(value, dict) or not _plain_workspace(value):
                return None
            roots = [sources.absolute(root, folder, environ) for root in value.get("writable_roots", ())]
            copy[key] = {**value, "writable_roots": roots} if "writable_roots" in value else value
        elif not _plain_value(key, value):
            return None
    return copy


def _plain_value(key: str, value: object) -> bool:
    if key == "sandbox_mode":
        return isinstance(value, str) and value in _MODES
    if key == "approval_policy":
        return isinstance(value, str) and value in _APPROVALS
    if key in _TEXTS:
        return isinstance(value, str)
    if key == "projects":
        return isinstance(value, dict) and all(map(_plain_project, value.values()))
    if key in _BACKEND_TABLES:
        return isinstance(value, dict) and value.keys() <= {"allow_degraded"} and _plain_promises(value)
    return False


def _plain_project(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"trust_level"} and value["trust_level"] in list(BY_TRUST)


def _plain_promises(table: Mapping[str, Any]) -> bool:
    promises = table.get("allow_degraded", [])
    return isinstance(promises, list) and all(isinstance(one, str) and one in _PROMISES for one in promises)


def _plain_workspace(table: Mapping[str, Any]) -> bool:
    roots = table.get("writable_roots", [])
    return (
        table.keys() <= {"writable_roots", "protect_git", *_FLAGS}
        and isinstance(roots, list)
        and all(isinstance(root, str) for root in roots)
        and all(isinstance(table.get(flag, False), bool) for flag in _FLAGS)
        and table.get("protect_git", ProtectGit.ALL) in list(ProtectGit)
    )
