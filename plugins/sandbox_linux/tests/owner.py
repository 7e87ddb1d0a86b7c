"""The process that owns launchers in a test: it takes calls on stdin and answers on stdout, both pickled.

It is a process of its own so that a test can give it another user, take things away from it, count what
it holds, and kill it.  Its arguments are folders for ``sys.path``.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

sys.path[:0] = sys.argv[1:]

from codex_core.sandbox.direct import DirectLauncher  # noqa: E402 - the folders come first
from codex_core.sandbox.policy import build_policy  # noqa: E402
from codex_core.sandbox.runner import run  # noqa: E402
from codex_sandbox_linux import helper  # noqa: E402
from codex_sandbox_linux import launcher as launcher_module  # noqa: E402
from codex_sandbox_linux.forge import HelperForge, LocalForge  # noqa: E402

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy, SandboxSettings
    from codex_core.types import Command, CommandResult, Denial, Ended, Launcher, Running, Strength


class Owner:
    """What a test can ask for."""

    def __init__(self) -> None:
        self._launcher: Launcher = DirectLauncher()
        self._running: Running | None = None
        self._output_most: int | None = None

    def open(
        self,
        settings: SandboxSettings,
        cwd: str,
        codex_home: str,
        forge: str,
        options: dict[str, Any] | None = None,
    ) -> tuple[SandboxPolicy, Strength]:
        self.close()
        policy = build_policy(settings, cwd=cwd, environ={}, codex_home=codex_home)
        made = LocalForge() if forge == "local" else HelperForge()
        self._launcher = launcher_module.LinuxLauncher(policy, made, **(options or {}))
        self._output_most = policy.limits.output_size
        return policy, self._launcher.strength

    def close(self) -> None:
        self._launcher.close()
        self._launcher, self._running = DirectLauncher(), None

    def run(self, command: Command, stdin: bytes, timeout: float, limit: int) -> CommandResult:
        most = self._output_most
        return run(self._launcher, command, stdin=stdin, timeout=timeout, output_limit=limit, output_most=most)

    def free(self, command: Command, stdin: bytes, timeout: float) -> CommandResult:
        return run(DirectLauncher(), command, stdin=stdin, timeout=timeout)

    def run_many(self, command: Command, count: int, threads: int) -> list[int]:
        """Run *command* *count* times in each of *threads* threads; the exit statuses."""
        results: list[int] = []

        def work() -> None:
            results.extend(run(self._launcher, command, timeout=60).returncode for _ in range(count))

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return results

    def start(self, command: Command, stdin: str) -> None:
        null, given = os.open(os.devnull, os.O_RDWR), os.open(stdin, os.O_RDONLY)
        try:
            self._running = self._launcher.start(command, given, null, null)
        finally:
            os.close(given)
            os.close(null)

    def start_on_socket(self, command: Command, family: int, kind: int) -> None:
        """Start a command whose standard input is a socket of the host's network."""
        with open(os.devnull, "r+b", buffering=0) as null, socket.socket(family, kind) as handed:
            self._running = self._launcher.start(command, handed.fileno(), null.fileno(), null.fileno())

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def signal(self, number: int) -> None:
        if self._running is not None:
            self._running.signal(number)

    def wait(self, timeout: float) -> tuple[Ended | None, tuple[Denial, ...]]:
        """Wait for the command that :meth:`start` began; None if *timeout* comes first."""
        running = self._running
        if running is None:
            return None, ()
        deadline = time.monotonic() + timeout
        while (ended := running.advance()) is None and (left := deadline - time.monotonic()) > 0:
            select.select([running], [], [], left)
        return ended, running.denials()

    def limit(self, kind: int, most: int, pid: int = 0) -> int:
        """Let a process, by default this one, and what it starts have no more than *most* of something.

        Gives what it could have before.
        """
        soft, hard = resource.prlimit(pid, kind)
        resource.prlimit(pid, kind, (most, hard))
        return soft

    def die_at(self, place: str) -> None:
        """End this process by SIGKILL when it next comes to a function, such as ``launcher.Jail.close``."""
        holder, name = _find(place)
        setattr(holder, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))

    def break_at(self, place: str) -> None:
        """Raise RuntimeError once it has next been through a function."""
        holder, name = _find(place)
        function = getattr(holder, name)

        def broken(*arguments: object, **keywords: object) -> None:
            setattr(holder, name, function)
            function(*arguments, **keywords)
            raise RuntimeError(place)

        setattr(holder, name, broken)

    def set(self, module: str, name: str, value: object) -> None:
        """Give a constant of the package another value."""
        setattr(importlib.import_module(f"codex_sandbox_linux.{module}"), name, value)

    def collect(self, pid: int) -> None:
        helper.collect(pid)

    def census(self) -> dict[str, int]:
        """Count what this process holds, apart from the pipes to the test."""
        links = [_link(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        below = _processes_below(os.getpid())
        return {
            "descriptors": len(links),
            "inotify": links.count("anon_inode:inotify"),
            "threads": threading.active_count(),
            "processes": len(below),
            "zombies": below.count("Z"),
        }


def _find(place: str) -> tuple[Any, str]:
    module, *way, name = place.split(".")
    holder: Any = importlib.import_module(f"codex_sandbox_linux.{module}")
    for step in way:
        holder = getattr(holder, step)
    return holder, name


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _processes_below(ancestor: int) -> list[str]:
    """Give the state letter of every process below *ancestor*."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            parents[int(name)] = (int(parent), state.decode())
    found = []
    waiting = [ancestor]
    while waiting:
        above = waiting.pop()
        for pid, (parent_pid, state_letter) in parents.items():
            if parent_pid == above:
                waiting.append(pid)
                found.append(state_letter)
    return found


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Serve until the test closes stdin."""
    owner = Owner()
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            break
        answer: Any
        try:
            answer = getattr(owner, name)(*arguments)
        except Exception as error:  # noqa: BLE001 - the test raises it again
            answer = error
        pickle.dump(answer, answers)
        answers.flush()
    owner.close()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
