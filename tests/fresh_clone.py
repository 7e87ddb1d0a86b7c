"""Follow the README in fresh clones, as a stranger would.

    python tests/fresh_clone.py [--user UID] [INTERPRETER ...]

For each interpreter (this one by default), with pip and, where it is installed, with uv: clone into
an empty folder and run the commands of the README there, as written.  With --user, which root alone
can use, they run as that user, who must be able to read the interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> int:
    """Run every combination and give 1 if any failed."""
    parser = argparse.ArgumentParser(description="Follow the README in fresh clones.")
    parser.add_argument("--user", type=int, default=os.getuid())
    parser.add_argument("interpreters", nargs="*", default=[getattr(sys, "_base_executable", sys.executable)])
    options = parser.parse_args()
    tools = ["pip", *(["uv"] if shutil.which("uv") else [])]
    failed = [
        f"{interpreter} with {tool}"
        for interpreter in options.interpreters
        for tool in tools
        if not follow(interpreter, tool, options.user)
    ]
    print(f"failed: {', '.join(failed)}" if failed else "The README works.", flush=True)
    return 1 if failed else 0


def follow(interpreter: str, tool: str, user: int) -> bool:
    """Run both commands for one tool in a clone that belongs to the user; whether both succeeded."""
    with tempfile.TemporaryDirectory(prefix="codex-fresh-") as folder:
        clone, programs = os.path.join(folder, "clone"), os.path.join(folder, "programs")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        os.mkdir(programs)
        if tool == "uv":
            shutil.copy(str(shutil.which("uv")), programs)
        environment = {
            "PATH": os.pathsep.join([programs, os.path.dirname(interpreter), os.defpath, "/usr/sbin", "/sbin"]),
            "HOME": folder,
            "UV_PYTHON": interpreter,
            **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "CODEX_CORE_"))},
        }
        as_user: list[str] = []
        if user != os.getuid():
            subprocess.run(["chown", "-R", f"{user}:{user}", folder], check=True)
            as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
        for command in commands(tool):
            print(f"[{interpreter}, user {user}] $ {command}", flush=True)
            if subprocess.run([*as_user, "sh", "-c", command], cwd=clone, env=environment, check=False).returncode:
                return False
    return True


def commands(tool: str) -> list[str]:
    """Give the commands that the README marks for one tool."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return re.findall(rf"(?s)<!-- (?:try|test): {tool} -->\n```sh\n(.*?)\n```", file.read())


if __name__ == "__main__":
    sys.exit(main())
