"""What ``/status`` and ``/approvals`` print.  Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from codex_core.cli.options import visible
from codex_core.config.layers import find, givers
from codex_core.config.report import constraints, effective_values, management_note
from codex_core.types import ApprovalMode, Network, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codex_core.config import Loaded
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Strength

PRESETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "read-only": {"approval_policy": ApprovalMode.ON_REQUEST, "sandbox_mode": SandboxMode.READ_ONLY},
        "auto": {"approval_policy": ApprovalMode.ON_REQUEST, "sandbox_mode": SandboxMode.WORKSPACE_WRITE},
        "full-access": {"approval_policy": ApprovalMode.NEVER, "sandbox_mode": SandboxMode.DANGER_FULL_ACCESS},
    }
)
"""What is chosen together, by name."""
_MEANING = {
    "read-only": "read files; ask before a dangerous command and before leaving the sandbox",
    "auto": "also change files in the workspace",
    "full-access": "no sandbox and no questions",
}
_KEYS = ("sandbox_mode", "approval_policy", "web_search", "otel.exporter", "model_provider", "model")


def status_lines(loaded: Loaded, policy: SandboxPolicy, strength: Strength | None) -> list[str]:
    """Say what holds, with its origin; *strength* is what the sandbox keeps, where one stands."""
    rows = [("folder", visible(policy.cwd))]
    rows += [(key, _value(loaded, tuple(key.split(".")))) for key in _KEYS]
    if policy.mode is SandboxMode.WORKSPACE_WRITE:
        rows.append(("may write", ", ".join(map(visible, policy.writable_roots))))
    reach = {Network.OFF: "nothing", Network.FILTERED: "the allowed domains", Network.ON: "everything"}
    rows.append(("may reach", reach[policy.network]))
    if policy.mode is SandboxMode.DANGER_FULL_ACCESS:
        rows.append(("sandbox", "none"))
    elif strength is not None:
        lost = f", without {', '.join(sorted(strength.lost))}" if strength.lost else ""
        rows.append(("sandbox", f"{strength.backend}/{strength.rung}{lost}"))
    rows += [("constraint", f"{text}  # {place}") for text, place in constraints(loaded)]
    return [*(f"{label:<16} {text}" for label, text in rows), *management_note(loaded)]


def preset_lines(loaded: Loaded) -> list[str]:
    """List the presets, which of them holds, and what stands against one."""
    lines = []
    for name, values in PRESETS.items():
        holds = all(loaded.values[key] == value for key, value in values.items())
        violations = (loaded.constraints.check(key, value) for key, value in values.items())
        violation = next((one for one in violations if one is not None), None)
        meaning = f"not allowed: {violation}" if violation is not None else _MEANING[name]
        lines.append(f"{'*' if holds else ' '} {name:<12} {meaning}")
    return [*lines, *management_note(loaded)]


def _value(loaded: Loaded, path: tuple[str, ...]) -> str:
    if not givers(loaded.layers, path):
        return f"{find(effective_values(loaded.config), path)[1] or '-'} (default)"
    value = find(loaded.values, path)[1]
    giver = givers(loaded.layers, path)[0]
    return f"{value} ({giver.name}{f' {giver.place(path)}' if giver.path else ''})"
