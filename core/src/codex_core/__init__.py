"""Run what a coding agent wants to run: under a policy, in a sandbox, with a record of what happened.

The public names, found when they are asked for: importing a part of the package pays for that part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codex_core.agent.session import Session, open_session
    from codex_core.approval.json_prompt import JsonPrompter
    from codex_core.approval.memory import Grant
    from codex_core.approval.prompt import Answer, Choice, Prompter, Question
    from codex_core.config import Config, Loaded, load_config
    from codex_core.errors import (
        CodexError,
        CommandNotExecutableError,
        CommandNotFoundError,
        ConfigError,
        NotPermittedError,
        PatchError,
        PluginConflictError,
        PluginError,
        PluginLoadError,
        PluginNotFoundError,
        SandboxUnavailableError,
        StoppedError,
        UsageError,
    )
    from codex_core.events import Event
    from codex_core.host import Host
    from codex_core.sandbox.policy import SandboxPolicy, SandboxSettings, build_policy
    from codex_core.table import Table
    from codex_core.telemetry.emitter import EventSink
    from codex_core.types import (
        Action,
        ApprovalMode,
        Command,
        CommandResult,
        Contact,
        Decision,
        Denial,
        Ended,
        Launcher,
        Network,
        Operation,
        Promise,
        Running,
        Safety,
        SafetyClass,
        SandboxMode,
        Strength,
        Verdict,
    )

__version__ = "1.0.0"

_HOMES = {
    "agent.session": ("Session", "open_session"),
    "approval.json_prompt": ("JsonPrompter",),
    "approval.memory": ("Grant",),
    "approval.prompt": ("Answer", "Choice", "Prompter", "Question"),
    "config": ("Config", "Loaded", "load_config"),
    "errors": (
        *("CodexError", "CommandNotExecutableError", "CommandNotFoundError", "ConfigError", "NotPermittedError"),
        *("PatchError", "PluginConflictError", "PluginError", "PluginLoadError", "PluginNotFoundError"),
        *("SandboxUnavailableError", "StoppedError", "UsageError"),
    ),
    "events": ("Event",),
    "host": ("Host",),
    "sandbox.policy": ("SandboxPolicy", "SandboxSettings", "build_policy"),
    "table": ("Table",),
    "telemetry.emitter": ("EventSink",),
    "types": (
        *("Action", "ApprovalMode", "Command", "CommandResult", "Contact", "Decision", "Denial", "Ended"),
        *("Launcher", "Network", "Operation", "Promise", "Running", "Safety", "SafetyClass", "SandboxMode"),
        *("Strength", "Verdict"),
    ),
}

__all__ = [
    "Action",
    "Answer",
    "ApprovalMode",
    "Choice",
    "CodexError",
    "Command",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "CommandResult",
    "Config",
    "ConfigError",
    "Contact",
    "Decision",
    "Denial",
    "Ended",
    "Event",
    "EventSink",
    "Grant",
    "Host",
    "JsonPrompter",
    "Launcher",
    "Loaded",
    "Network",
    "NotPermittedError",
    "Operation",
    "PatchError",
    "PluginConflictError",
    "PluginError",
    "PluginLoadError",
    "PluginNotFoundError",
    "Promise",
    "Prompter",
    "Question",
    "Running",
    "Safety",
    "SafetyClass",
    "SandboxMode",
    "SandboxPolicy",
    "SandboxSettings",
    "SandboxUnavailableError",
    "Session",
    "StoppedError",
    "Strength",
    "Table",
    "UsageError",
    "Verdict",
    "__version__",
    "build_policy",
    "load_config",
    "open_session",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"codex_core.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
