"""``codex plugins``: every extension point, what is installed for it, what is chosen and why.

Only metadata is read: no plugin is imported.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from codex_core import discovery
from codex_core.cli.options import add_config_options, load, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from codex_core.config.layers import Origin
    from codex_core.host import Choice

SANDBOX_COMMANDS = "codex_core.sandbox_commands"
"""The one namespace without hooks: a function that runs one command, for ``codex sandbox``."""


def main(argv: Sequence[str]) -> int:
    """Print the list; 0 also where something is missing, which the list says."""
    from codex_core.config.defaults import os_backend
    from codex_core.host import Host, select

    parser = argparse.ArgumentParser(prog="codex plugins", description="List extension points and plugins.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_options(parser)
    args = parser.parse_args(argv)
    loaded = load(args)
    specs = {point.namespace: (point.spec.__name__, point.hooks) for point in Host().points}
    found = inventory(specs, select(loaded.config, os_backend()), loaded.origins)
    if args.json:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write(render(found))
    return 0


def inventory(
    specs: Mapping[str, tuple[str, Sequence[str]]], choices: Iterable[Choice], origins: Mapping[str, Origin]
) -> dict[str, Any]:
    """Put together what is installed and what is chosen, as JSON values.

    *specs* gives the specification's name and its hooks by namespace.
    """
    scan = discovery.scan()
    chosen = {(choice.namespace, choice.name): _why(choice, origins) for choice in choices}
    unknown = sorted({plugin.namespace for plugin in scan.plugins} - {*specs, SANDBOX_COMMANDS})
    points = {**specs, SANDBOX_COMMANDS: (None, ()), **dict.fromkeys(unknown, (None, ()))}
    return {
        "extension_points": [
            {
                "namespace": namespace,
                "spec": spec,
                "hooks": list(hooks),
                "installed": [
                    {
                        "name": plugin.name,
                        "value": plugin.value,
                        "distribution": plugin.distribution,
                        "version": plugin.version,
                        "location": plugin.location,
                        "chosen": chosen.get((namespace, plugin.name)),
                    }
                    for plugin in scan.plugins
                    if plugin.namespace == namespace
                ],
                "problems": [
                    *(["codex knows no such extension point"] if namespace in unknown else []),
                    *_problems(scan, namespace, [name for point, name in chosen if point == namespace]),
                ],
            }
            for namespace, (spec, hooks) in points.items()
        ],
        "broken": [{"path": broken.path, "reason": broken.reason} for broken in scan.broken],
        "ignored": [
            {"name": plugin.name, "namespace": plugin.namespace, "location": plugin.location, "reason": why}
            for plugin, why in discovery.elsewhere()
        ],
    }


def render(found: Mapping[str, Any]) -> str:
    """Write an inventory for people."""
    lines: list[str] = []
    for point in found["extension_points"]:
        spec = f"  ({point['spec']}: {', '.join(point['hooks'])})" if point["spec"] else ""
        lines.append(f"{point['namespace']}{spec}")
        for plugin in point["installed"]:
            mark = "*" if plugin["chosen"] else " "
            lines.append(f"  {mark} {plugin['name']}  {plugin['distribution']} {plugin['version']}")
            lines.append(f"      {plugin['value']}  in {plugin['location']}")
            if plugin["chosen"]:
                lines.append(f"      chosen by {plugin['chosen']}")
        if not point["installed"]:
            lines.append("    nothing installed")
        lines += [f"  ! {problem}" for problem in point["problems"]]
    lines += [f"! {broken['path']} is broken: {broken['reason']}" for broken in found["broken"]]
    lines += [
        f"! {one['name']} ({one['namespace']}) in {one['location']} is no plugin: {one['reason']}"
        for one in found["ignored"]
    ]
    return "".join(f"{visible(line)}\n" for line in lines)


def _why(choice: Choice, origins: Mapping[str, Origin]) -> str:
    origin = origins.get(choice.key)
    if origin is None:
        return f"default (nothing sets {choice.key})"
    return f"{choice.why} ({origin.layer if origin.path is None else f'{origin.path}:{origin.line}'})"


def _problems(scan: discovery.Scan, namespace: str, chosen: Iterable[str]) -> list[str]:
    by_name = discovery.grouped(scan.plugins, namespace)
    conflicts = [f"{name}: {discovery.conflict(many)}" for name, many in by_name.items() if len(many) > 1]
    absent = [
        f"{name}, which is chosen: {discovery.missing(namespace, name)}" for name in chosen if name not in by_name
    ]
    return conflicts + absent
