"""Try the attacks and the ordinary work of the tests under other sandboxes too: the table of docs/security.md.

    python benchmarks/escape.py

Everything runs as whoever runs this, in the mode ``workspace-write`` with the network off, or what comes closest to it;
what does nothing on this host without a sandbox is left out.  It needs what the tests need (tests/requirements.txt),
and compares with what :mod:`peers` finds.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import peers
from codex_core.types import Promise, SandboxMode

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from plugins.sandbox_linux.tests import test_attacks as by_promise
from plugins.sandbox_linux.tests import test_escape_suite as suite
from plugins.sandbox_linux.tests.conftest import Box, User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from codex_core.types import CommandResult

_OURS, _FREE = "codex-core", "without a sandbox"
_OTHERS, _WORK = "others", "ordinary work"


class PeerBox(Box):
    """A workspace whose commands another sandbox confines; the tests take it for one without a sandbox."""

    prefix: tuple[str, ...] = ()

    def free_py(self, source: str, *words: str) -> CommandResult:
        """Run a Python program under the peer."""
        environ = {"PATH": os.environ["PATH"], "HOME": self.home, "LC_ALL": "C.UTF-8"}
        argv = [*self.prefix, *self.program(source, *words)]
        return self.free(argv, env={**environ, "CODEX_HOME": f"{self.base}-state"})


@dataclass(frozen=True, slots=True)
class Contestant:
    """One sandbox, with a workspace for each of the two collections of attacks."""

    range: by_promise.Range
    box: Box


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that a sandbox has to keep from succeeding, or has to let succeed."""

    group: str
    name: str
    succeeds: Callable[[Contestant], bool]


def main() -> None:
    """Try everything under everything."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.setblocking(False)  # noqa: FBT003 - the standard library's signature
        names = {_FREE: "", _OURS: "", **_versions()}
        contestants = {name: stack.enter_context(_contestant(name)) for name in names}
        trials = [trial for trial in _trials(server) if trial.succeeds(contestants[_FREE])]
        del contestants[_FREE]
        outcome = {name: [_outcome(trial, contestant) for trial in trials] for name, contestant in contestants.items()}
    print(_table(trials, outcome, names))


def _versions() -> dict[str, str]:
    """Give the peers that work here, each with its version."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as workspace, tempfile.TemporaryDirectory(dir="/var/tmp") as state:
        working, missing = peers.find(workspace, state)
    for reason in missing:
        print(f"Left out: {reason}", file=sys.stderr)
    return {
        peer.name: subprocess.run(peer.version, capture_output=True, text=True, check=True).stdout.split()[-1]
        if peer.version
        else importlib.metadata.version(peer.name)
        for peer in working
        if peer.name != "codex, by its npm wrapper"  # the same program
    }


@contextlib.contextmanager
def _contestant(name: str) -> Iterator[Contestant]:
    with _box(name) as first, _box(name) as second:
        place = by_promise.Range(first, SandboxMode.WORKSPACE_WRITE if name == _OURS else None)
        if name == _OURS:
            second.open(SandboxMode.WORKSPACE_WRITE, forge="helper")
        try:
            yield Contestant(place, second)
        finally:
            place.close()


@contextlib.contextmanager
def _box(name: str) -> Iterator[Box]:
    base = tempfile.mkdtemp(prefix="cx-", dir="/var/tmp")
    state = f"{base}-state"
    os.mkdir(state)
    user = User("self", os.geteuid(), sys.executable, tuple(sys.path))
    box = Box(user, base) if name in {_FREE, _OURS} else PeerBox(user, base)
    try:
        box.renew()
        if isinstance(box, PeerBox):
            box.prefix = next(peer.prefix for peer in peers.find(box.ws, state)[0] if peer.name == name)
        yield box
    finally:
        box.end()
        shutil.rmtree(base, ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)


def _trials(server: socket.socket) -> Iterator[Trial]:
    for promise, name in by_promise.attacks():
        yield Trial(promise, name.replace("_", " "), lambda one, p=promise, n=name: one.range.succeeds(p, n)[0])  # type: ignore[misc]
    for attack in suite.ATTACKS:
        if suite.OFFLINE in attack.modes and attack.machine in {"", os.uname().machine}:
            yield Trial(_OTHERS, attack.name, lambda one, a=attack: _attacked(one.box, a, server))  # type: ignore[misc]
    for name, source in suite.WORK.items():
        yield Trial(_WORK, name, lambda one, s=source: _works(one.box, s))  # type: ignore[misc]


def _attacked(box: Box, attack: suite.Attack, server: socket.socket) -> bool:
    _restore(box)
    return suite.succeeds(box, attack, server)[0]


def _restore(box: Box) -> None:
    if box.policy is None:  # what the last one did to the folders themselves
        box.renew()
    suite.refill(box)


def _works(box: Box, source: str) -> bool:
    _restore(box)
    return suite.run(box, suite.BEGIN + source, "0", "0").returncode == 0


def _outcome(trial: Trial, contestant: Contestant) -> bool | None:
    """Say whether it went as it should; None where the program did not begin, so that nothing is known."""
    try:
        return trial.succeeds(contestant) is (trial.group == _WORK)
    except AssertionError:
        return None


def _table(trials: Sequence[Trial], outcome: Mapping[str, Sequence[bool | None]], versions: Mapping[str, str]) -> str:
    groups = [*(str(promise) for promise in Promise), _OTHERS, _WORK]
    lines = [
        f"| | tried | {' | '.join(f'{name} {versions[name]}'.strip() for name in outcome)} |",
        f"|---|---|{'---|' * len(outcome)}",
    ]
    for group in groups:
        places = [place for place, trial in enumerate(trials) if trial.group == group]
        if places:
            good = [sum(went[place] is True for place in places) for went in outcome.values()]
            lines.append(f"| {group} | {len(places)} | {' | '.join(map(str, good))} |")
    for name, went in outcome.items():
        for said, value in (("lets through or breaks", False), ("does not even begin", None)):
            found = [f"{trial.group}: {trial.name}" for trial, one in zip(trials, went, strict=True) if one is value]
            if found:
                lines.append(f"\n{name} {said}: {'; '.join(found)}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
