"""Everything that is checked, one session each: ``nox -l`` lists them, ``nox -s NAME`` runs one."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "integration", "bare"]

PYTHONS = ["3.11", "3.12", "3.13"]
CORE = "./core"
DISTRIBUTIONS = [line for line in Path("requirements.txt").read_text("utf-8").splitlines() if line.startswith("./")]
PYPROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *packages: str) -> None:
    """Install at the versions that are known to work together."""
    session.install("-c", "constraints.txt", *packages)


def group(name: str) -> tuple[str, ...]:
    """Give the requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the directions of imports."""
    install(session, *group("lint"), *DISTRIBUTIONS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly: the sources of every distribution, the tests and this file."""
    install(session, *group("types"), *DISTRIBUTIONS)
    session.run("mypy")


@nox.session(python=PYTHONS)
@nox.parametrize("folder", DISTRIBUTIONS)
def tests(session: nox.Session, folder: str) -> None:
    """Run one distribution's own tests, with nothing installed beyond what it declares."""
    install(session, *group("test"), *dict.fromkeys([CORE, folder]))
    session.run("pytest", f"{folder}/tests", *session.posargs)


@nox.session(python=PYTHONS)
def integration(session: nox.Session) -> None:
    """Run all tests, with every distribution installed."""
    session.install("-r", "tests/requirements.txt")
    session.run("pytest", *session.posargs)


@nox.session
def machine(session: nox.Session) -> None:
    """Run the tests of control groups in a virtual machine; machine.py says what it is given."""
    session.install("-r", "tests/requirements.txt")
    script, tests = "plugins/sandbox_linux/tests/machine.py", "plugins/sandbox_linux/tests/test_groups.py"
    required = {"CODEX_CORE_REQUIRE": "control_groups"}
    session.run("python", script, *session.posargs, "--", "-q", tests, env=required)


@nox.session
def bare(session: nox.Session) -> None:
    """Run core without any plugin: whatever needs one refuses with one line."""
    install(session, *group("test"), CORE)
    session.run("pytest", "tests/test_bare.py", *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run all tests with the lowest versions that the distributions declare."""
    # Not in `session.create_tmp()`: tests would then make their folders inside of this repository.
    lowest = f"{session.virtualenv.location}/lowest.txt"
    session.install("uv")
    session.run(
        "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--no-header", "--no-annotate",
        *(f"--no-emit-package={name}" for name in ["codex-core"]),
        "--output-file", lowest,
        *(f"{folder}/pyproject.toml" for folder in DISTRIBUTIONS),
    )  # fmt: skip
    session.install("-c", lowest, *group("test"), *DISTRIBUTIONS)
    session.run("pytest", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build source distributions and wheels into dist/, check what they contain, install and start them."""
    install(session, *group("release"), *group("test"))
    for folder in DISTRIBUTIONS:
        session.run("python", "-m", "build", "--outdir", "dist", folder)
    session.install("-c", "constraints.txt", *map(str, Path("dist").glob("*.whl")))
    session.run("codex", "--version")
    session.run("pytest", "tests/test_packaging.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, side by side in one run; docs/performance.md says how to read it."""
    session.install("-r", "requirements.txt")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Try the code and follow the links in README.md and docs/."""
    session.install("-r", "tests/requirements.txt")
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show how the news fragments read together; nothing is written."""
    install(session, *group("release"))
    session.run("towncrier", "build", "--draft", "--version", "next")


@nox.session
def constraints(session: nox.Session) -> None:
    """Make constraints.txt anew, from the newest versions that fit together."""
    session.install("uv")
    session.run("uv", "lock", "--quiet", "--upgrade")
    pinned = session.run(
        "uv", "export", "--quiet", "--all-packages", "--all-groups", "--no-emit-workspace",
        "--no-hashes", "--no-annotate", "--no-header", silent=True,
    )  # fmt: skip
    header = "# Versions that are known to work together. Made by `nox -s constraints`; do not edit.\n"
    Path("constraints.txt").write_text(header + str(pinned), "utf-8")


@nox.session
def fresh(session: nox.Session) -> None:
    """Follow the README in fresh clones: each interpreter, root and ordinary user, with and without uv."""
    session.install("uv")
    session.run("python", "tests/fresh_clone.py", *session.posargs)
