"""The pages tell the truth: their code runs, their output is what comes out, their links lead somewhere.

The language of a fenced block says how it is tried:

* ``python``   runs in a folder of its own.
* ``console``  lines after ``$`` run in a shell; what follows is their output, where ``...`` stands for anything.
* ``toml``     is a configuration: every key is known and every value accepted.
* ``sh``       sets up a machine: parsed here, and followed in fresh clones by ``nox -s fresh``.
* ``text``     is a picture or a form.

A block below ``<!-- from: FILE -->`` is a piece of that file, which has tests of its own.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BLOCK = re.compile(r"(?ms)^(?:<!-- from: (?P<origin>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    origin: str | None


def read(page: str) -> str:
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def pages() -> list[str]:
    top = [name for name in sorted(os.listdir(ROOT)) if name.endswith(".md")]
    return top + [f"docs/{name}" for name in sorted(os.listdir(os.path.join(ROOT, "docs"))) if name.endswith(".md")]


def blocks(page: str) -> list[Block]:
    text = read(page)
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], match["origin"])
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in pages() for block in blocks(page)]


def of(*languages: str) -> pytest.MarkDecorator:
    """Parametrise a test with the blocks of these languages that are not pieces of files."""
    chosen = [block for block in BLOCKS if block.language in languages and block.origin is None]
    return pytest.mark.parametrize("block", chosen, ids=[f"{block.page}:{block.line}" for block in chosen])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give a user an empty home and a shell that finds this interpreter's programs first."""
    (tmp_path / "workspace").mkdir()
    return {
        "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }


def test_every_block_says_how_it_is_tried() -> None:
    known = {"python", "console", "toml", "sh", "text"}
    assert [block for block in BLOCKS if block.language not in known and block.origin is None] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.origin], ids=lambda block: block.page)
def test_a_piece_of_a_file_is_still_in_that_file(block: Block) -> None:
    assert block.text in read(str(block.origin))


@of("python")
def test_python_runs(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=tmp_path / "workspace",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@of("console")
def test_commands_print_what_the_page_says(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path / "workspace",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert doctest.OutputChecker().check_output(expected, done.stdout, doctest.ELLIPSIS), done.stdout


@of("toml")
def test_configuration_is_accepted(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    from codex_core.config import load_config

    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text(block.text)
    loaded = load_config(cwd=str(tmp_path / "workspace"), environ=environment, system_root=str(tmp_path))
    assert loaded.warnings == ()


@of("sh")
def test_shell_lines_are_well_formed(block: Block) -> None:
    assert subprocess.run(["sh", "-n"], input=block.text, text=True, check=False).returncode == 0


@pytest.mark.parametrize("page", pages())
def test_local_links_lead_somewhere(page: str) -> None:
    for path, anchor in LINK.findall(read(page)):
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, target)), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", read(target), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page} links to {target}#{anchor}"
