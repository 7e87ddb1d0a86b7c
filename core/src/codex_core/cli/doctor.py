"""``codex doctor``: what this installation lacks and what the sandbox can keep on this host, by trial."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import codex_core
from codex_core.cli import options
from codex_core.errors import CodexError
from codex_core.types import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from codex_core.config import Loaded

_OLDEST = (3, 11)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    """What is there, or what is wrong and what mends it."""
    needed: bool = True
    """Whether nothing can be run without it."""


def main(argv: Sequence[str]) -> int:
    """Print the checks; 1 if something that is needed is missing."""
    parser = argparse.ArgumentParser(prog="codex doctor", description="Check this installation and this host.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    checks = [*_installation(), *_configured(args)]
    failed = any(check.needed and not check.ok for check in checks)
    if args.json:
        import json

        found = {"ok": not failed, "version": codex_core.__version__, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.writelines(map(_render, checks))
    return int(failed)


def _render(check: Check) -> str:
    mark = "ok" if check.ok else "FAIL" if check.needed else "lost"
    colour = {"ok": "32", "FAIL": "31", "lost": "33"}[mark]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\x1b[{colour}m{mark:<5}\x1b[0m{check.name}: {options.visible(check.found)}\n"
    return f"{mark:<5}{check.name}: {options.visible(check.found)}\n"


def _installation() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= _OLDEST, f"{version} at {sys.executable}")
    yield _identity()


def _identity() -> Check:
    """Make sure that the package is this one: on the public index the name belongs to somebody else's 0.x."""
    from importlib.metadata import distributions

    found = {f"{one.version} in {one.locate_file('')}" for one in distributions(name="codex-core")}
    here = os.path.dirname(codex_core.__file__)
    if len(found) == 1 and next(iter(found)).startswith(f"{codex_core.__version__} in "):
        return Check("codex-core", ok=True, found=f"{next(iter(found))}, imported from {here}")
    if not found:
        return Check("codex-core", ok=False, found=f"{here} is imported and not installed: run `pip install ./core`")
    cure = "uninstall `codex-core` until none is left, then install this project from its folder, never by name"
    others = " and ".join(sorted(found))
    return Check(
        "codex-core", ok=False, found=f"{here} is version {codex_core.__version__}, installed: {others}; {cure}"
    )


def _configured(args: argparse.Namespace) -> Iterator[Check]:
    try:
        loaded = options.load(args)
    except CodexError as error:
        yield Check("configuration", ok=False, found=str(error))
        return
    config = loaded.config
    chosen = f"{config.sandbox_mode} and {config.approval_policy}, codex home {loaded.codex_home}"
    yield Check("configuration", ok=True, found=chosen)
    yield from _plugins(loaded)
    yield from _sandbox(loaded)


def _plugins(loaded: Loaded) -> Iterator[Check]:
    from codex_core import discovery
    from codex_core.config.defaults import os_backend
    from codex_core.hookspecs import SandboxBackend
    from codex_core.host import select

    for choice in select(loaded.config, os_backend()):
        if choice.namespace == SandboxBackend.namespace:
            continue
        kind = choice.namespace.rpartition(".")[2].replace("_", " ")
        try:
            plugin = discovery.find(choice.namespace, choice.name)
            discovery.load(plugin)
        except CodexError as error:
            yield Check(kind, ok=False, found=str(error))
        else:
            yield Check(kind, ok=True, found=f"{choice.name}, from {plugin.distribution} {plugin.version}")


def _sandbox(loaded: Loaded) -> Iterator[Check]:
    """Ask the backend of this system, also where the configuration goes without one just now."""
    from codex_core.config.defaults import os_backend
    from codex_core.hookspecs import SandboxBackend
    from codex_core.host import Choice

    name = loaded.config.sandbox_backend or os_backend()
    try:
        choice = Choice(SandboxBackend.namespace, name, "sandbox_backend", "the one of this system")
        strength = options.load_host(loaded, [choice]).probe()
    except CodexError as error:
        yield Check("sandbox", ok=False, found=str(error))
        return
    works = Promise.WRITES in strength.kept
    yield Check("sandbox", ok=works, found=f"{strength.backend}, at its rung {strength.rung}")
    allowed = {str(one) for one in loaded.config.backend_table(name).allow_degraded}
    for promise in Promise:
        kept = promise in strength.kept
        found = "kept" if kept else strength.lost.get(promise, "not promised by this backend")
        if not kept and promise in allowed:
            found += f" (accepted by sandbox_{name}.allow_degraded)"
        yield Check(f"sandbox {promise}", ok=kept, found=found, needed=False)
    for limit, how in strength.limits.items():
        yield Check(f"limit {limit}", ok=True, found=how, needed=False)
