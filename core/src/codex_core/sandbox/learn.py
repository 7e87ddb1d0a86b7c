"""From what a sandbox refused to the smallest configuration that would allow it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.sandbox.policy import contains
from codex_core.types import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codex_core.types import Denial

_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib",
)
_HARMLESS_HIDDEN = (".cache",)
"""Hidden folders of a home that programs are not configured by."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What would have to be allowed."""

    roots: tuple[str, ...]
    """Folders to write to, none inside another."""
    hosts: tuple[str, ...]
    """``host:port`` each, refused because the network is off."""
    domains: tuple[str, ...]
    """``host`` or ``host:port`` each, refused because they are not listed."""
    withheld: tuple[tuple[str, str], ...]
    """Targets that are better not allowed, each with the reason."""

    def toml(self) -> str:
        """Give the lesson as lines for ``config.toml``; what is withheld stands in comments."""
        lines = []
        if self.roots or self.hosts or self.domains:
            lines += ['sandbox_mode = "workspace-write"', "", "[sandbox_workspace_write]"]
        if self.roots:
            # A JSON string is a TOML basic string; what is not printable is escaped in both.
            lines.append(f"writable_roots = [{', '.join(json.dumps(root) for root in self.roots)}]")
        if self.domains:
            listed = ", ".join(json.dumps(domain) for domain in self.domains)
            lines.append(f"allowed_domains = [{listed}]  # besides those that are listed already")
        if self.hosts:
            lines.append(f"network_access = true  # it wanted {', '.join(self.hosts)}")
        lines += [f"# withheld: {json.dumps(target)} ({why})" for target, why in self.withheld]
        return "".join(f"{line}\n" for line in lines)


def learn(denials: Iterable[Denial], *, protected: Iterable[str], home: str) -> Lesson:
    """Sort what was refused.  *protected* are the paths that the policy closes, *home* is the user's."""
    protected = tuple(protected)
    folders: dict[str, None] = {}
    hosts: dict[str, None] = {}
    domains: dict[str, None] = {}
    withheld: dict[tuple[str, str], None] = {}
    for denial in denials:
        if denial.operation is not Operation.CONNECT:
            folder = _existing_folder(denial.target)
            if why := _why_withheld(denial.target, folder, protected, home):
                withheld[denial.target, why] = None
            else:
                folders[folder] = None
        elif os.path.isabs(denial.target) or not denial.cure:
            withheld[denial.target, denial.rule] = None
        elif "allowed_domains" in denial.cure:
            domains[denial.target] = None
        else:
            hosts[denial.target] = None
    roots = tuple(
        sorted(root for root in folders if not any(contains(other, root) for other in folders if other != root))
    )
    named = {domain.rpartition(":")[0] for domain in domains}  # asking for its address alone says less than a port
    return Lesson(roots, tuple(hosts), tuple(domain for domain in domains if domain not in named), tuple(withheld))


def _existing_folder(path: str) -> str:
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _why_withheld(target: str, folder: str, protected: Iterable[str], home: str) -> str:
    if any(contains(closed, target) for closed in protected):
        return "protected in every mode"
    if folder == "/" or any(contains(system, folder) for system in _SYSTEM if not contains(system, home)):
        return "it belongs to the system"
    if folder == home:
        return "everything in the home could be changed"
    hidden = os.path.relpath(target, home).split(os.sep, 1)[0] if contains(home, target) else ""
    if hidden.startswith(".") and hidden not in _HARMLESS_HIDDEN:
        return "programs are configured there"
    return ""
