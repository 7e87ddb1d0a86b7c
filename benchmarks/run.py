"""Measure what confinement costs, and print the tables of docs/performance.md.

Everything that is compared runs in turn, round after round, in this one process, so that a busy
machine disturbs all sides alike: read the ratios, not the milliseconds.

    python benchmarks/run.py [--rounds N] [per-command] [cold-start] [jobs] [calls] [verdicts]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from codex_core import open_session
from codex_core.approval.safe import classify
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from codex_core import Session

CODEX = os.path.join(os.path.dirname(sys.executable), "codex")
CONFINED = ("approval_policy=never", "sandbox_mode=workspace-write")
JOBS = {
    "find": ("find", "tree", "-type", "f"),
    "grep -r": ("sh", "-c", "grep -r 'no such words' tree || true"),
    "tar": ("sh", "-c", "tar -cf - tree | cat > /dev/null"),
}
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
    parts: dict[str, Callable[[str, int], None]] = {
        "per-command": per_command,
        "cold-start": cold_start,
        "jobs": jobs,
        "calls": calls,
        "verdicts": verdicts,
    }
    parser = argparse.ArgumentParser(description="Measure what confinement costs.")
    parser.add_argument("--rounds", type=int, default=300, help="rounds of the shortest comparison (300)")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="codex-bench-") as folder:
        os.environ["CODEX_HOME"] = os.path.join(folder, "home")
        workspace = os.path.join(folder, "workspace")
        os.makedirs(workspace)
        os.makedirs(os.environ["CODEX_HOME"])
        os.chdir(workspace)
        grow_tree("tree")
        for name in options.parts or parts:
            parts[name](workspace, options.rounds)


def per_command(workspace: str, rounds: int) -> None:
    """Compare one short command in a process that runs many."""
    with open_session(workspace, overrides=CONFINED) as session:
        times = interleave(
            {
                "subprocess.run": partial(plain, "/bin/true"),
                "session.run": partial(confined, session, "/bin/true"),
                **({"bwrap": partial(plain, *bwrap(workspace), "/bin/true")} if has_bwrap(workspace) else {}),
            },
            rounds,
        )
        strength = session.run(["/bin/true"]).strength
        print(f"Confined by {strength.backend}, {strength.rung}.\n")
    table("`/bin/true` in one process", "subprocess.run", times)


def cold_start(workspace: str, rounds: int) -> None:
    """Compare one short command from a cold start."""
    times = interleave(
        {
            "/bin/true": partial(plain, "/bin/true"),
            "python -c pass": partial(plain, sys.executable, "-c", "pass"),
            "codex sandbox linux -- /bin/true": partial(plain, CODEX, "sandbox", "linux", "--", "/bin/true"),
            "codex run -- /bin/true": partial(plain, CODEX, "run", "--", "/bin/true"),
            **({"bwrap": partial(plain, *bwrap(workspace), "/bin/true")} if has_bwrap(workspace) else {}),
        },
        max(rounds // 5, 1),
    )
    table("One command from a cold start", "python -c pass", times)


def jobs(workspace: str, rounds: int) -> None:
    """Compare whole jobs that make many system calls."""
    with open_session(workspace, overrides=CONFINED) as session:
        for name, argv in JOBS.items():
            times = interleave(
                {
                    "outside": partial(plain, *argv),
                    "inside": partial(confined, session, *argv),
                },
                max(rounds // 15, 1),
            )
            table(f"`{name}` over {FOLDERS * FILES} files", "outside", times)


def calls(workspace: str, rounds: int) -> None:
    """Compare a single open (with its close) and a single plain system call."""
    argv = (sys.executable, "-I", "-S", "-c", CALLS)
    outside, inside = [], []
    with open_session(workspace, overrides=CONFINED) as session:
        for _ in range(max(rounds // 30, 1)):
            outside.append(plain(*argv).split())
            inside.append(confined(session, *argv).split())
    print("| nanoseconds a call, Python's own part included | outside | inside | difference |\n|---|---|---|---|")
    for column, name in enumerate(("open and close", "getppid")):
        without, within = (statistics.median(float(row[column]) for row in rows) for rows in (outside, inside))
        print(f"| {name} | {without:.0f} | {within:.0f} | {within - without:+.0f} |")
    print()


def verdicts(workspace: str, rounds: int) -> None:
    """Compare judging a command, in a process that judges many and in one that judges its first."""
    policy = SandboxPolicy(SandboxMode.READ_ONLY, workspace, (), ())
    times = interleave(
        {
            "os.path.realpath of the workspace, for scale": partial(os.path.realpath, workspace),
            **{line: partial(classify, ("bash", "-lc", line), policy) for line in LINES},
        },
        rounds,
    )
    table("Judging a line", LINES[0], times)
    first = "import sys; from codex_core.approval.safe import classify; from codex_core.sandbox.policy import *; "
    judge = 'from codex_core.types import *; classify(%r, SandboxPolicy(SandboxMode.READ_ONLY, "/", (), ()))'
    times = interleave(
        {
            "python -c pass": partial(plain, sys.executable, "-c", "pass"),
            "the modules, and nothing judged": partial(plain, sys.executable, "-c", first),
            "a plain command": partial(plain, sys.executable, "-c", first + judge % (["ls"],)),
            "a shell line": partial(plain, sys.executable, "-c", first + judge % (["bash", "-lc", "ls"],)),
        },
        max(rounds // 15, 1),
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


def bwrap(workspace: str) -> tuple[str, ...]:
    """Give the words that confine a command to a like policy with bubblewrap."""
    return (
        *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", workspace, workspace),
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent", "--"),
    )


def has_bwrap(workspace: str) -> bool:
    """Whether bubblewrap is installed and works here."""
    if shutil.which("bwrap") is None:
        return False
    return subprocess.run([*bwrap(workspace), "/bin/true"], capture_output=True, check=False).returncode == 0


def grow_tree(root: str) -> None:
    """Write a tree of many small files."""
    for folder in range(FOLDERS):
        path = os.path.join(root, str(folder))
        os.makedirs(path)
        for number in range(FILES):
            with open(os.path.join(path, str(number)), "wb") as file:
                file.write(b"%06d\n" % number * (BYTES // 7))


def interleave(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each contestant in turn, so many rounds; two more rounds come before and do not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-2, rounds):
        for name, run in contestants.items():
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
