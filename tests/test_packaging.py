"""What is shipped: wheels, source distributions, their metadata, and the lists that must agree."""

from __future__ import annotations

import email.message
import email.parser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VERSION = "1.0.0"
# In pieces, so that this file does not name them either.
REGISTRIES = tuple(".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org")))


def toml(path: str) -> dict[str, Any]:
    with open(os.path.join(ROOT, path), "rb") as file:
        return tomllib.load(file)


def lines(path: str) -> list[str]:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read().splitlines()


def tracked() -> list[str]:
    """Every file that git has or would add."""
    listing = subprocess.run(
        [
            *("git", "-c", f"safe.directory={ROOT}", "-C", ROOT),
            *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        ],
        check=True,
        capture_output=True,
    ).stdout
    return [os.fsdecode(name) for name in listing.split(b"\0") if name]


FOLDERS = [line.removeprefix("./") for line in lines("requirements.txt") if line.startswith("./")]
PACKAGES = {folder: toml(f"{folder}/pyproject.toml")["project"]["name"].replace("-", "_") for folder in FOLDERS}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, str]]:
    """Build the wheel and the source distribution of each folder."""
    out = str(tmp_path_factory.mktemp("dist"))
    artefacts = {}
    for folder, package in PACKAGES.items():
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", out],
            cwd=os.path.join(ROOT, folder),
            check=True,
            capture_output=True,
        )
        artefacts[folder] = (f"{out}/{package}-{VERSION}-py3-none-any.whl", f"{out}/{package}-{VERSION}.tar.gz")
    return artefacts


def sources(folder: str) -> set[str]:
    """Every file below the folder's src/, relative to it."""
    prefix = f"{folder}/src/"
    return {name.removeprefix(prefix) for name in tracked() if name.startswith(prefix)}


def metadata(wheel: str) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wheel_holds_the_package_its_metadata_and_nothing_else(
    folder: str, built: Mapping[str, tuple[str, str]]
) -> None:
    package = PACKAGES[folder]
    info = f"{package}-{VERSION}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    with zipfile.ZipFile(built[folder][0]) as archive:
        assert set(archive.namelist()) == sources(folder) | about
    assert f"{package}/py.typed" in sources(folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_source_distribution_builds_the_same_wheel(
    folder: str, built: Mapping[str, tuple[str, str]], tmp_path: Path
) -> None:
    wheel, sdist = built[folder]
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    (unpacked,) = os.listdir(tmp_path)
    assert {"LICENSE", "README.md", "pyproject.toml", "src"} <= set(os.listdir(tmp_path / unpacked))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=tmp_path / unpacked,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(tmp_path / os.path.basename(wheel)) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_metadata_says_what_a_user_needs_to_know(folder: str, built: Mapping[str, tuple[str, str]]) -> None:
    told = metadata(built[folder][0])
    assert told["Version"] == VERSION
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    assert len(told.get_payload()) > 100
    assert "Typing :: Typed" in told.get_all("Classifier", [])


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "core"])
def test_a_plugin_takes_no_core_below_one(folder: str, built: Mapping[str, tuple[str, str]]) -> None:
    required = metadata(built[folder][0]).get_all("Requires-Dist", [])
    assert "codex-core<2,>=1.0" in required


def test_every_distribution_carries_the_licence() -> None:
    texts = {tuple(lines(path)) for path in ("LICENSE", *(f"{folder}/LICENSE" for folder in FOLDERS))}
    assert len(texts) == 1
    assert "Apache License" in "\n".join(texts.pop())


def test_all_lists_of_distributions_agree() -> None:
    found = {os.path.dirname(name) for name in tracked() if re.fullmatch(r"(core|plugins/.+)/pyproject\.toml", name)}
    workspace = toml("pyproject.toml")["tool"]
    assert set(FOLDERS) == found
    assert set(workspace["uv"]["workspace"]["members"]) == found
    assert {name.replace("-", "_") for name in workspace["uv"]["sources"]} == set(PACKAGES.values())
    sources = {path.removeprefix("$MYPY_CONFIG_FILE_DIR/") for path in workspace["mypy"]["mypy_path"]}
    assert sources == {f"{folder}/src" for folder in found} | {"benchmarks"}  # scripts that use each other
    assert set(PACKAGES.values()) <= set(workspace["importlinter"]["root_packages"])


def test_the_tests_install_their_dependency_group() -> None:
    group = {re.split("[<>=]", requirement)[0] for requirement in toml("pyproject.toml")["dependency-groups"]["test"]}
    installed = {line for line in lines("tests/requirements.txt") if line and line[0] not in "#-"}
    assert installed == group


def test_the_constraints_pin_whatever_is_required() -> None:
    pinned = {line.split("==")[0] for line in lines("constraints.txt") if "==" in line}
    workspace = toml("pyproject.toml")["dependency-groups"]
    requirements = [name for group in workspace.values() for name in group if isinstance(name, str)]
    for folder in FOLDERS:
        requirements += toml(f"{folder}/pyproject.toml")["project"]["dependencies"]
    required = {re.split("[<>=]", requirement)[0] for requirement in requirements}
    assert required - pinned == {"codex-core"}


def test_no_file_names_a_registry() -> None:
    assert "uv.lock" not in tracked()
    naming = []
    for name in tracked():
        with open(os.path.join(ROOT, name), "rb") as file:
            content = file.read()
        naming += [name for registry in REGISTRIES if registry.encode() in content]
    assert naming == []


def test_codex_says_its_version() -> None:
    codex = os.path.join(os.path.dirname(sys.executable), "codex")
    done = subprocess.run([codex, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"codex {VERSION}\n", "")
