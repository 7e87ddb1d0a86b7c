"""Measure what confinement costs, and print the tables of docs/performance.md.

Everything that is compared runs round after round, in this one process, so that a busy
machine disturbs all sides alike: read the ratios, not the milliseconds.

    python benchmarks/run.py [--rounds N] [--alone] [per-command] [cold-start] [jobs] [memory] [calls] [verdicts]

Other sandboxes take part where :mod:`peers` finds them, unless what is measured is to be alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import peers
from codex_core import open_session
from codex_core.approval.safe import Surroundings, classify, judge
from codex_core.sandbox import runner
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Command, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from codex_core import Session
    from codex_core.types import Launcher
    from peers import Peer

CODEX = os.path.join(os.path.dirname(sys.executable), "codex")
CONFINED = ("approval_policy=never", "sandbox_mode=workspace-write")
JOBS = {
    "find": ("find", "tree", "-type", "f"),
    "grep -r": ("sh", "-c", "grep -r 'no such words' tree || true"),
    "tar": ("sh", "-c", "tar -cf - tree | cat > /dev/null"),
    "compileall": (sys.executable, "-I", "-S", "-m", "compileall", "-q", "-f", "library"),
    "git status": ("git", "status", "--porcelain"),
}
LIBRARY = ("asyncio", "concurrent", "email", "html", "http", "json", "logging", "unittest", "urllib", "xml")
"""Packages of the standard library that are compiled."""
LINES = ("ls -la | head -5", "cd src && git status; make test", "for f in *; do sudo env A=b rm -rf $f; done")
FOLDERS, FILES, BYTES = 500, 100, 700
CALLS = """\
import os, time
def each(count, call):
    start = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - start) / count
print(each(30_000, lambda: os.close(os.open("tree/0/0", os.O_RDONLY))), each(200_000, os.getppid))
"""


def main() -> None:
    """Run the chosen parts in a workspace of their own."""
    parts: dict[str, Callable[[Place, int], None]] = {
        "per-command": per_command,
        "cold-start": cold_start,
        "jobs": jobs,
        "memory": memory,
        "calls": calls,
        "verdicts": verdicts,
    }
    parser = argparse.ArgumentParser(description="Measure what confinement costs.")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the shortest comparison (100)")
    parser.add_argument("--alone", action="store_true", help="leave other sandboxes out")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all by default")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody compiles all modules for each command
    with tempfile.TemporaryDirectory(prefix="codex-bench-", dir="/var/tmp") as folder:
        place = Place.make(os.path.realpath(folder), alone=options.alone)
        os.chdir(place.workspace)
        for name in options.parts or parts:
            parts[name](place, options.rounds)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the jobs run, and who takes part."""

    workspace: str
    peers: tuple[Peer, ...]

    @classmethod
    def make(cls, folder: str, *, alone: bool) -> Place:
        """Make an empty workspace below *folder*, and say which peers are left out; with *alone*, all of them are."""
        workspace, state = f"{folder}/workspace", f"{folder}/home"
        os.environ["CODEX_HOME"] = state
        os.makedirs(workspace)
        os.makedirs(state)
        working, missing = ([], []) if alone else peers.find(workspace, state)
        for reason in missing:
            print(f"Left out: {reason}", file=sys.stderr)
        return cls(workspace, tuple(working))

    def fill(self) -> None:
        """Make the workspace a repository with many files, unless it is one."""
        if os.path.exists(f"{self.workspace}/tree"):
            return
        grow_tree(f"{self.workspace}/tree")
        for package in LIBRARY:
            source, target = os.path.join(os.path.dirname(os.__file__), package), f"{self.workspace}/library/{package}"
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        for line in ("init -q", "add tree", "-c user.name=b -c user.email=b commit -qm b"):
            plain("git", "-C", self.workspace, *line.split())
        with open(f"{self.workspace}/.git/info/exclude", "a", encoding="ascii") as file:
            file.write("library\n")

    def contestants(self, argv: Sequence[str], *names: str) -> dict[str, Callable[[], object]]:
        """Give what runs *argv* under each peer, or under those of the *names*."""
        return {
            peer.name: partial(plain, *peer.prefix, *argv) for peer in self.peers if not names or peer.name in names
        }


def per_command(place: Place, rounds: int) -> None:
    """Compare one short command in a process that runs many."""
    with open_session(place.workspace, overrides=CONFINED) as session, open_launcher(session) as launcher:
        command = Command(("/bin/true",), place.workspace, dict(os.environ))
        times = interleave(
            {
                "subprocess.run": partial(plain, "/bin/true"),
                "session.run": partial(confined, session, "/bin/true"),
                "the launcher alone": partial(runner.run, launcher, command),
                **place.contestants(["/bin/true"], "bwrap"),
                **library(place),
            },
            rounds,
        )
        strength = launcher.strength
        print(f"Confined by {strength.backend}, {strength.rung}.\n")
    table("`/bin/true` in one process", "subprocess.run", times)


@contextlib.contextmanager
def open_launcher(session: Session) -> Iterator[Launcher]:
    """Give a launcher under the policy of *session*, without verdicts and events."""
    launcher = session.host.launcher(session.policy)
    try:
        yield launcher
    finally:
        launcher.close()


def library(place: Place) -> dict[str, Callable[[], object]]:
    """Give sandlock as it is used from a program that runs many commands, where it is installed."""
    if all(peer.name != "sandlock" for peer in place.peers):
        return {}
    sandbox = importlib.import_module("sandlock").Sandbox(
        fs_readable=["/"], fs_writable=[place.workspace, "/dev/null"], cwd=place.workspace
    )
    return {"sandlock, as a library": partial(sandbox.run, ["/bin/true"])}


def cold_start(place: Place, rounds: int) -> None:
    """Compare one short command from a cold start."""
    times = interleave(
        {
            "/bin/true": partial(plain, "/bin/true"),
            "python -c pass": partial(plain, sys.executable, "-c", "pass"),
            "codex sandbox linux -- /bin/true": partial(plain, CODEX, "sandbox", "linux", "--", "/bin/true"),
            "codex run -- /bin/true": partial(plain, CODEX, "run", "--", "/bin/true"),
            **place.contestants(["/bin/true"]),
        },
        max(rounds // 4, 1),
    )
    table("One command from a cold start", "python -c pass", times)


def jobs(place: Place, rounds: int) -> None:
    """Compare whole jobs that make many system calls."""
    place.fill()
    ratios: dict[str, list[float]] = {}
    with open_session(place.workspace, overrides=CONFINED) as session:
        for name, argv in JOBS.items():
            times = interleave(
                {
                    "outside": partial(plain, *argv),
                    "inside": partial(confined, session, *argv),
                    **place.contestants(argv, "bwrap"),
                },
                max(rounds // 5, 1),
            )
            table(f"`{name}` in a tree of {FOLDERS * FILES} files", "outside", times)
            for contestant, seconds in times.items():
                ratio = statistics.median(seconds) / statistics.median(times["outside"])
                ratios.setdefault(contestant, []).append(ratio)
    for contestant, found in ratios.items():
        print(f"The median of the {len(found)} ratios, {contestant}: {statistics.median(found):.2f}")
    print()


def memory(_place: Place, _rounds: int) -> None:
    """State what a program with a session, ``codex sandbox``, and their helpers hold."""
    wait = "print(flush=True); input()"
    session = (
        f"from codex_core import open_session\nwith open_session(overrides={CONFINED}) as s:\n s.run(['true'])\n {wait}"
    )
    with (
        waiting(sys.executable, "-c", wait) as python,
        waiting(sys.executable, "-c", session) as program,
        waiting(CODEX, "sandbox", "linux", "--", "sh", "-c", "echo; read line") as sandbox,
    ):
        (forge,) = children(program)
        rows = {
            "python that waits": python,
            "python with a session": program,
            "its forge": forge,
            "its jail": children(forge)[0],
            "`codex sandbox linux` with a command": sandbox,
            "the jail of that": children(sandbox)[0],
        }
        print("| MiB | resident | without files |\n|---|---|---|")
        for name, pid in rows.items():
            everything, anonymous = resident(pid)
            print(f"| {name} | {everything / 1024:.1f} | {anonymous / 1024:.1f} |")
    print()


@contextlib.contextmanager
def waiting(*argv: str) -> Iterator[int]:
    """Run a program that prints a line once it is ready, and ends when it may read one."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - for the types
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


def resident(pid: int) -> tuple[int, int]:
    """Give the resident memory of a process, and what of it comes from no file, in KiB (proc_pid_status(5))."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    return int(status["VmRSS"].split()[0]), int(status["RssAnon"].split()[0])


def children(pid: int) -> list[int]:
    """List the children of a process's first thread."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return list(map(int, file.read().split()))


def calls(place: Place, rounds: int) -> None:
    """Compare a single open (with its close) and a single plain system call."""
    argv = (sys.executable, "-I", "-S", "-c", CALLS)
    place.fill()
    outside, inside = [], []
    with open_session(place.workspace, overrides=CONFINED) as session:
        for _ in range(max(rounds // 10, 1)):
            outside.append(plain(*argv).split())
            inside.append(confined(session, *argv).split())
    print("| nanoseconds a call, Python's own part included | outside | inside | difference |\n|---|---|---|---|")
    for column, name in enumerate(("open and close", "getppid")):
        without, within = (statistics.median(float(row[column]) for row in rows) for rows in (outside, inside))
        print(f"| {name} | {without:.0f} | {within:.0f} | {within - without:+.0f} |")
    print()


def verdicts(place: Place, rounds: int) -> None:
    """Compare judging a command, in a process that judges many and in one that judges its first."""
    policy = SandboxPolicy(SandboxMode.READ_ONLY, place.workspace, (), ())
    plain("git", "init", "-q", place.workspace)
    around = Surroundings(policy, place.workspace, os.environ, os.path.expanduser("~"), neutralises=True)
    times = interleave(
        {
            "os.path.realpath of the workspace, for scale": partial(os.path.realpath, place.workspace),
            **{line: partial(classify, ("bash", "-lc", line), policy) for line in LINES},
            "git status, as a command": partial(judge, ("git", "status"), around),
            "pwsh -c Get-ChildItem": partial(classify, ("pwsh", "-c", "Get-ChildItem"), policy),
        },
        rounds,
    )
    table("Judging a line", LINES[0], times)
    first = "import sys; from codex_core.approval.safe import classify; from codex_core.sandbox.policy import *; "
    call = 'from codex_core.types import *; classify(%r, SandboxPolicy(SandboxMode.READ_ONLY, "/", (), ()))'
    times = interleave(
        {
            "python -c pass": partial(plain, sys.executable, "-c", "pass"),
            "the modules, and nothing judged": partial(plain, sys.executable, "-c", first),
            "a plain command": partial(plain, sys.executable, "-c", first + call % (["ls"],)),
            "a shell line": partial(plain, sys.executable, "-c", first + call % (["bash", "-lc", "ls"],)),
        },
        max(rounds // 5, 1),
    )
    table("The first verdict of a process", "python -c pass", times)


def plain(*argv: str) -> bytes:
    """Run a command without confinement and give its output."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


def confined(session: Session, *argv: str) -> bytes:
    """Run a command in the sandbox and give its output."""
    result = session.run(argv)
    if result.returncode:
        message = f"{argv[0]} failed inside: {result.stderr.decode(errors='replace')}"
        raise SystemExit(message)
    return result.stdout


def grow_tree(root: str) -> None:
    """Write a tree of many small files."""
    for folder in range(FOLDERS):
        path = os.path.join(root, str(folder))
        os.makedirs(path)
        for number in range(FILES):
            with open(os.path.join(path, str(number)), "wb") as file:
                file.write(b"%06d\n" % number * (BYTES // 7))


def interleave(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each contestant once in each of so many rounds; two more rounds come before and do not count.

    What one leaves behind, such as namespaces to be taken down, is paid by the next: so each round has another order.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    shuffled = random.Random(0)  # noqa: S311 - nothing is kept secret
    for number in range(-2, rounds):
        for name, run in shuffled.sample(list(contestants.items()), len(contestants)):
            start = time.perf_counter()
            run()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def table(title: str, base: str, times: Mapping[str, Sequence[float]]) -> None:
    """Print medians and their ratio to the base as a Markdown table."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    rounds = len(next(iter(times.values())))
    print(f"| {title}, median of {rounds} | ms | ratio |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median * 1000:.2f} | {median / medians[base]:.2f} |")
    print()


if __name__ == "__main__":
    main()
