"""Show the sandbox at work, through the real command line, in a temporary folder of its own.

What is stopped inside is first done without the sandbox, so that the stop means something.  Nothing
outside the temporary folder is touched, and the network is a listener of this program on loopback.
Exits with 1 if anything is not as promised.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile

CODEX = os.path.join(os.path.dirname(sys.executable), "codex")
FAILED = 1
"""The exit code of touch and of Python when they were not let; codex itself would give another."""
CONFIG = """\
sandbox_mode = "workspace-write"
approval_policy = "never"

[sandbox_workspace_write]       # this demonstration lives in the temporary folder: keep that closed
exclude_slash_tmp = true
exclude_tmpdir_env_var = true
"""


def main() -> int:
    """Run the three parts and give the exit code."""
    if not os.path.exists(CODEX):
        print(f"demo: there is no {CODEX}; install first: pip install -r requirements.txt", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="codex-demo-") as folder:
        workspace, outside, home = (os.path.join(folder, name) for name in ("workspace", "outside", "home"))
        for path in (workspace, outside, home):
            os.mkdir(path)
        with open(os.path.join(home, "config.toml"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        os.environ["CODEX_HOME"] = home
        os.chdir(workspace)
        print(f"Workspace: {workspace}\nPolicy: write only there, no network; nobody is asked.\n")
        kept = [write_inside(workspace), write_outside(outside), reach_the_network()]
        if all(kept):
            say_how_strongly()
    print("All as promised." if all(kept) else "NOT as promised: see above.")
    return 0 if all(kept) else 1


def write_inside(workspace: str) -> bool:
    """Write in the workspace: allowed."""
    print("1. Write in the workspace")
    code = run("sh", "-c", "echo made by the agent > note.txt", confined=True)
    made = os.path.exists(os.path.join(workspace, "note.txt"))
    return report("allowed", as_promised=code == 0 and made)


def write_outside(outside: str) -> bool:
    """Write beside the workspace: possible for this user, stopped in the sandbox."""
    print("2. Write outside the workspace")
    plain, boxed = (os.path.join(outside, name) for name in ("plain", "boxed"))
    run("touch", plain, confined=False)
    code = run("touch", boxed, confined=True)
    possible, stopped = os.path.exists(plain), code == FAILED and not os.path.exists(boxed)
    return report("possible without the sandbox, stopped in it", as_promised=possible and stopped)


def reach_the_network() -> bool:
    """Connect to a server: possible for this user, stopped in the sandbox."""
    print("3. Reach a server over the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        port = server.getsockname()[1]
        connect = f'import socket; socket.create_connection(("127.0.0.1", {port}), 5)'
        run(sys.executable, "-c", connect, confined=False)
        possible = was_reached(server)
        code = run(sys.executable, "-c", connect, confined=True)
        stopped = code == FAILED and not was_reached(server)
    return report("possible without the sandbox, stopped in it", as_promised=possible and stopped)


def say_how_strongly() -> None:
    """Print what confined these commands, and what this host cannot keep."""
    argv = [CODEX, "run", "--json", "--", "true"]
    strength = json.loads(subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)[
        "strength"
    ]
    print(f"Confined by {strength['backend']}/{strength['rung']}, which keeps {len(strength['kept'])} promises here.")
    for promise, reason in strength["lost"].items():
        print(f"Not kept here: {promise} ({reason})")


def run(*command: str, confined: bool) -> int:
    """Run a command, with or without the sandbox; show it, the last line that it said, and how it ended."""
    argv = ["codex", "run", "--", *command] if confined else [*command]
    print(f"   $ {shlex.join(argv)}")
    if confined:
        argv[0] = CODEX
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    for line in done.stderr.splitlines()[-1:]:
        print(f"     {line}")
    print(f"     exit code {done.returncode}")
    return done.returncode


def was_reached(server: socket.socket) -> bool:
    """Whether a connection has arrived at the listener."""
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


def report(promise: str, *, as_promised: bool) -> bool:
    """Print one verdict and pass it on."""
    print(f"   {'ok' if as_promised else 'FAILED'}: {promise}\n")
    return as_promised


if __name__ == "__main__":
    sys.exit(main())
