"""Attacks by promise: each works without the sandbox on this host, and fails in it wherever that promise is kept.

The programs are in ``attacks/``.  Success is judged from outside: by files that changed, listeners that
were reached, what was done to a process.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from codex_core.types import Promise, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codex_core.types import CommandResult

    from plugins.sandbox_linux.tests.conftest import Box, User

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacks")
_PACKAGE = "plugins.sandbox_linux.tests.attacks"
_LOSSES = ("protected_paths",)
_VICTIM = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: print('signal', flush=True))
print('ready', flush=True)
while True: time.sleep(60)
"""
_START = f"""
import sys
sys.path.insert(0, sys.argv[1])
from importlib import import_module
from {_PACKAGE}.tools import World
module, name, ws, outside, victim, jail, port, abstract = sys.argv[2:]
attack = getattr(import_module('{_PACKAGE}.' + module), name)
world = World(ws, outside, int(victim), int(jail), int(port), abstract)
print('begun', flush=True)
attack(world)
"""
_NEEDS_WORKSPACE = {Promise.PROTECTED_PATHS}
"""In read-only mode nothing of the workspace can be changed, which is another promise."""


def attacks() -> list[tuple[Promise, str]]:
    found: list[tuple[Promise, str]] = []
    for promise in Promise:
        with contextlib.suppress(FileNotFoundError), open(f"{_FOLDER}/{promise}.py", encoding="utf-8") as file:
            names = [node.name for node in ast.parse(file.read()).body if isinstance(node, ast.FunctionDef)]
            found += [(promise, name) for name in names if not name.startswith("_")]
    return found


class Range:
    """A workspace with everything around it that is attacked, and a launcher or none."""

    def __init__(self, box: Box, mode: SandboxMode | None) -> None:
        self.box = box
        self.mode = mode
        self.abstract = f"codex-test-{box.owner.pid}"
        self._library = f"{box.base}/lib"
        target = f"{self._library}/{_PACKAGE.replace('.', '/')}"
        shutil.copytree(_FOLDER, target, ignore=shutil.ignore_patterns("__pycache__"))
        for folder, _, files in os.walk(self._library):
            os.chmod(folder, 0o755)
            for name in files:
                os.chmod(f"{folder}/{name}", 0o644)
        self._fill()
        self.kept = frozenset(Promise)
        if mode is not None:
            self.kept = box.open(mode, allow_degraded=_LOSSES, forge="helper").kept
        self._servers = [socket.socket(family) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET6)]
        self._servers[2].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        addresses: tuple[str | tuple[str, int], ...] = (f"{box.outside}/socket", f"\0{self.abstract}", ("::", 0))
        for server, address in zip(self._servers, addresses, strict=True):
            server.bind(address)
            server.listen(64)
            server.setblocking(False)  # noqa: FBT003 - the standard library's signature
        os.chmod(f"{box.outside}/socket", 0o666)
        os.lchown(f"{box.outside}/socket", box.user.uid, -1)
        self._port = self._servers[2].getsockname()[1]

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()

    def _fill(self) -> None:
        os.makedirs(f"{self.box.ws}/.git/hooks")
        self.box.write("ws/.git/config")
        self.box.write("outside/file")

    def _clean(self) -> None:
        """Take away what an attack has left; the socket and the repository stay, since they are in use."""
        for name in os.listdir(self.box.ws):
            path = f"{self.box.ws}/{name}"
            if name == ".git" and self.mode is not None:
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        shutil.rmtree(f"{self.box.ws}-away", ignore_errors=True)
        for name in os.listdir(self.box.outside):
            if name not in {"socket", "file"}:
                os.unlink(f"{self.box.outside}/{name}")
        if self.mode is None:
            self._fill()

    def _witness(self, victim: int) -> object:
        """Give all that an attack could have changed, as it is now."""
        seen = {}
        for top in (self.box.outside, f"{self.box.ws}/.git", self.box.home):
            for folder, folders, files in os.walk(top):
                for name in (".", *folders, *files):
                    path = os.path.join(folder, name)
                    status = os.lstat(path)
                    seen[path] = (
                        status.st_ino,
                        status.st_mode,
                        status.st_nlink,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                    )
        privileged = [name for name in os.listdir(self.box.ws) if os.lstat(f"{self.box.ws}/{name}").st_mode & 0o4000]
        with open(f"/proc/{victim}/limits", encoding="utf-8") as limits:
            return seen, privileged, os.stat(self.box.ws).st_ino, limits.read()

    def succeeds(self, promise: Promise, name: str) -> tuple[bool, str]:
        """Run an attack; whether anything came of it, and what it said."""
        self._clean()
        argv = self.box.user.command([self.box.user.python, "-I", "-S", "-c", _VICTIM])
        jail = self.box.user.command([self.box.user.python, "-I", "-S", "-c", _VICTIM])
        with _process(argv) as victim, _process(jail) as other:
            before = self._witness(victim.pid)
            words = (self._library, promise, name, self.box.ws, self.box.outside, str(victim.pid))
            result = self._run(*words, str(0 if self.mode else other.pid), str(self._port), self.abstract)
            reached = [_was_reached(server) for server in self._servers]
            changed = self._witness(victim.pid) != before
            os.kill(victim.pid, 0)
            victim.terminate()
            assert victim.stdout is not None
            signalled = b"signal" in victim.stdout.read()
        assert result.stdout.startswith(b"begun\n"), result
        said = (result.stdout + result.stderr).decode(errors="replace").strip().rpartition("\n")[2]
        return changed or signalled or any(reached) or b"\ngained: " in result.stdout, said

    def _run(self, *words: str) -> CommandResult:
        return self.box.free_py(_START, *words) if self.mode is None else self.box.py(_START, *words)


def _was_reached(server: socket.socket) -> bool:
    connections = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            connections += 1
    return connections > 0


@contextlib.contextmanager
def _process(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def ranges(
    user: User, make_box: Callable[..., contextlib.AbstractContextManager[Box]]
) -> Iterator[Callable[[SandboxMode | None, str], Range]]:
    """Give ``ranges(mode, without)``: made once for each user, for all attacks."""
    with contextlib.ExitStack() as stack:
        made: dict[tuple[SandboxMode | None, str], Range] = {}

        def range_for(mode: SandboxMode | None, without: str) -> Range:
            if (mode, without) not in made:
                made[mode, without] = Range(stack.enter_context(make_box(user, without)), mode)
                stack.callback(made[mode, without].close)
            return made[mode, without]

        yield range_for


@pytest.mark.parametrize(("promise", "name"), attacks(), ids=str)
def test_an_attack_fails_wherever_its_promise_is_kept(
    ranges: Callable[[SandboxMode | None, str], Range], promise: Promise, name: str
) -> None:
    works, said = ranges(None, "").succeeds(promise, name)
    if not works:
        pytest.skip(f"this host does not make it either: {said}")
    for without in ("", "namespaces"):
        for mode in (SandboxMode.READ_ONLY, SandboxMode.WORKSPACE_WRITE):
            place = ranges(mode, without)
            if promise in place.kept and not (mode is SandboxMode.READ_ONLY and promise in _NEEDS_WORKSPACE):
                works, said = place.succeeds(promise, name)
                assert not works, (mode, without, said)
