"""Measure what the configuration costs: to load it, and to show it from a cold start.

Everything that is compared runs in turn, round after round, so read the ratios.

    python benchmarks/config.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import plistlib
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING

import tomli
import tomlkit
from codex_core.config import load_config, quick

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CODEX = os.path.join(os.path.dirname(sys.executable), "codex")
USER = """\
model = "m"
approval_policy = "on-request"
[sandbox_workspace_write]
writable_roots = ["~/.cache/pip", "../shared"]
network_access = true
[shell_environment_policy]
exclude = ["AWS_*", "AZURE_*"]
set = { CI = "1" }
[otel]
exporter = { otlp-http = {
  endpoint = "https://collector.example.com/v1/logs",
  headers = { x-api-key = "${KEY}" },
}}
[model_providers.local]
base_url = "http://127.0.0.1:8080/v1"
"""
PROJECT = '[projects."/home/somebody/src/project-{number}"]\ntrust_level = "trusted"\n'
MANAGED = (
    'approval_policy = "on-request"\n[sandbox_workspace_write]\nnetwork_access = false\n[otel]\nenvironment = "prod"\n'
)
PREFERENCES = 'sandbox_mode = "workspace-write"\n[otel]\nexporter = "otlp-http"\n'
REQUIREMENTS = 'allowed_sandbox_modes = ["read-only", "workspace-write"]\nallowed_exporters = ["otlp-http"]\n'
OVERRIDES = ("model=other", "sandbox_workspace_write.exclude_slash_tmp=true")
IMPORTS = ("dataclasses", "tomli", "tomlkit", "pydantic", "codex_core.config.quick", "codex_core.config.loading")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure what the configuration costs.")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of each comparison (200)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="codex-bench-") as folder:
        for projects in (0, 200):
            loading(os.path.join(folder, str(projects)), projects, rounds)
        cold(os.path.join(folder, "0"), max(rounds // 10, 1))


def loading(folder: str, projects: int, rounds: int) -> None:
    """Compare loading four layers and the constraints with reading their texts alone."""
    user = USER + "".join(PROJECT.format(number=number) for number in range(projects))
    environ = {"HOME": os.path.join(folder, "home"), "KEY": "abc"}
    root = os.path.join(folder, "root")
    write(os.path.join(folder, "home", ".codex", "config.toml"), user.encode())
    write(os.path.join(root, "etc", "codex", "managed_config.toml"), MANAGED.encode())
    write(os.path.join(root, "etc", "codex", "requirements.toml"), REQUIREMENTS.encode())
    preferences = plistlib.dumps({"config_toml_base64": b64encode(PREFERENCES.encode()).decode()})
    write(os.path.join(root, "Library", "Managed Preferences", "com.openai.codex.plist"), preferences)
    texts = (user, MANAGED, PREFERENCES, REQUIREMENTS)
    load = partial(load_config, cwd=folder, overrides=OVERRIDES, environ=environ, system_root=root)
    table(
        f"four layers and constraints, {projects} projects",
        interleave(
            {
                "read the texts (tomli)": lambda: [tomli.loads(text) for text in texts],
                "read the texts (tomlkit)": lambda: [tomlkit.parse(text) for text in texts],
                "load, merge and check": load,
                "the same, and find every origin": lambda: load().origins,
            },
            rounds,
        ),
    )
    quickly = partial(quick.settings, cwd=folder, overrides=OVERRIDES[1:], environ={"HOME": folder}, system_root=folder)
    table("no files", interleave({"full": partial(load_config, **quickly.keywords), "quick": quickly}, rounds))


def cold(folder: str, rounds: int) -> None:
    """Compare a cold ``codex config show``, and single imports, with an interpreter that does nothing."""
    environ = {**os.environ, "HOME": os.path.join(folder, "home"), "KEY": "abc"}
    run = partial(subprocess.run, check=True, env=environ, stdout=subprocess.DEVNULL, cwd=folder)
    programs = {"python -c pass": partial(run, [sys.executable, "-c", "pass"])}
    programs |= {f"import {name}": partial(run, [sys.executable, "-c", f"import {name}"]) for name in IMPORTS}
    programs |= {
        f"codex {words}": partial(run, [CODEX, *words.split()])
        for words in ("--version", "config path", "config get sandbox_mode", "config show --effective")
    }
    table("a cold start", interleave(programs, rounds))


def write(path: str, content: bytes) -> None:
    """Write a file and the folders that it lies in."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def interleave(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time each contestant in turn, so many rounds, after two that do not count; the medians in seconds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-2, rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def table(title: str, medians: Mapping[str, float]) -> None:
    """Print medians and their ratio to the first one as a Markdown table."""
    base = next(iter(medians.values()))
    print(f"| {title} | ms | ratio |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median * 1000:.2f} | {median / base:.2f} |")
    print()


if __name__ == "__main__":
    main()
