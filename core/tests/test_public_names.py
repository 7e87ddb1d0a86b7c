from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import codex_core

HEAVY = {
    "argparse",
    "importlib.metadata",
    "json",
    "pathlib",
    "pluggy",
    "pydantic",
    "stevedore",
    "subprocess",
    "tomlkit",
}


def test_every_public_name_is_there_and_comes_from_one_place() -> None:
    listed = [name for names in codex_core._HOMES.values() for name in names]
    assert sorted([*listed, "__version__"]) == sorted(codex_core.__all__)
    for name in codex_core.__all__:
        assert getattr(codex_core, name) is not None


def test_the_version_is_that_of_the_distribution() -> None:
    assert codex_core.__version__ == version("codex-core")


def test_importing_the_types_stays_cheap() -> None:
    code = "import sys, codex_core.types; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())
