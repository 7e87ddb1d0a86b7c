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
import inspect
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def home() -> Iterator[str]:
    """Give a home with a workspace in it, not in the temporary folder: that is writable in the sandbox."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="codex-docs-") as folder:
        os.mkdir(os.path.join(folder, "workspace"))
        yield folder


@pytest.fixture
def environment(home: str) -> dict[str, str]:
    """Give a user an empty home and a shell that finds this interpreter's programs first."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    return {"PATH": path, "HOME": home, "LC_ALL": "C.UTF-8"}


def test_every_block_says_how_it_is_tried() -> None:
    known = {"python", "console", "toml", "sh", "text"}
    assert [block for block in BLOCKS if block.language not in known and block.origin is None] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.origin], ids=lambda block: block.page)
def test_a_piece_of_a_file_is_still_in_that_file(block: Block) -> None:
    assert block.text in read(str(block.origin))


@of("python")
def test_python_runs(block: Block, environment: dict[str, str], home: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=os.path.join(home, "workspace"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@of("console")
def test_commands_print_what_the_page_says(block: Block, environment: dict[str, str], home: str) -> None:
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=os.path.join(home, "workspace"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert doctest.OutputChecker().check_output(expected, done.stdout, doctest.ELLIPSIS), done.stdout


@of("toml")
def test_configuration_is_accepted(block: Block, environment: dict[str, str], home: str) -> None:
    from codex_core.config import load_config

    os.mkdir(os.path.join(home, ".codex"))
    with open(os.path.join(home, ".codex", "config.toml"), "w", encoding="utf-8") as file:
        file.write(block.text)
    loaded = load_config(cwd=os.path.join(home, "workspace"), environ=environment, system_root=home)
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


def test_every_promise_is_explained() -> None:
    from codex_core.types import Promise

    page = read("docs/security.md")
    assert [promise for promise in Promise if f"| `{promise}` |" not in page] == []


def test_every_extension_point_and_hook_is_documented() -> None:
    from codex_core.host import Host

    page = read("docs/plugins.md")
    for point in Host().points:
        assert f"| `{point.namespace}` | `{point.spec.__name__}` |" in page
        for hook in point.hooks:
            parameters = list(inspect.signature(getattr(point.spec, hook)).parameters)[1:]
            assert f"`{hook}({', '.join(parameters)})`" in page


def test_every_contract_is_named() -> None:
    from codex_core import testing

    assert [name for name in testing.__all__ if f"`{name}`" not in read("docs/plugins.md")] == []


def test_every_exit_code_of_an_error_is_in_the_table() -> None:
    from codex_core import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.CodexError)}
    assert [code for code in codes if f"\n| {code} | " not in read("README.md")] == []


def test_every_subcommand_is_shown() -> None:
    from codex_core.cli.main import available

    text = "".join(map(read, pages()))
    assert [name for name in available() if f"codex {name}" not in text] == []
