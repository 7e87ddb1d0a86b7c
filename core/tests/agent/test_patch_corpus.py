"""Patches against real folders: what a tree becomes, or that a patch which is refused leaves all of it as it was."""

from __future__ import annotations

import difflib
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codex_core.agent.files import apply, preview
from codex_core.agent.patch import UpdateFile, parse_patch, updated
from codex_core.errors import CodexError, PatchError
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import SandboxMode
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Link:
    """A symbolic link; ``OUT`` in its target stands for a folder outside of the workspace."""

    target: str


@dataclass(frozen=True)
class Script:
    """A file that may be run."""

    content: bytes


@dataclass(frozen=True)
class Pipe:
    """A named pipe."""


Tree = dict[str, "bytes | Link | Script | Pipe"]
CODE = b"import os\n\n\ndef first():\n    return 1\n\n\ndef second():\n    return 1\n"
CRLF = b"one\r\ntwo\r\nthree\r\n"


@dataclass(frozen=True)
class Case:
    before: Tree
    patch: str
    after: Tree | str
    """What the tree becomes, or what the refusal says."""


def case(before: Tree, *lines: str, after: Tree | str) -> Case:
    return Case(before, "\n".join(["*** Begin Patch", *lines, "*** End Patch", ""]), after)


def add(path: str, *lines: str) -> tuple[str, ...]:
    return (f"*** Add File: {path}", *(f"+{line}" for line in lines))


def update(path: str, *lines: str) -> tuple[str, ...]:
    return (f"*** Update File: {path}", *lines)


def delete(path: str) -> tuple[str, ...]:
    return (f"*** Delete File: {path}",)


CASES = {
    # Adding
    "a new file": case({}, *add("a", "x"), after={"a": b"x\n"}),
    "a new file in new folders": case({}, *add("d/e/f", "x", "y"), after={"d/e/f": b"x\ny\n"}),
    "an empty new file": case({}, *add("a"), after={"a": b""}),
    "a new file of one empty line": case({}, *add("a", ""), after={"a": b"\n"}),
    "a new file with a name of many words": case({}, *add("a b  c", "x"), after={"a b  c": b"x\n"}),
    "a new file with a name beyond ASCII": case({}, *add("é/漢", "ü"), after={"é/漢": "ü\n".encode()}),
    "a new file whose lines look like a patch": case(
        {}, *add("a", "*** End Patch", "@@", "-x"), after={"a": b"*** End Patch\n@@\n-x\n"}
    ),
    "a new file where one is": case({"a": b"x\n"}, *add("a", "y"), after="exists already"),
    "a new file where a folder is": case({"d/a": b"x\n"}, *add("d", "y"), after="exists already"),
    "a new file below a file": case({"a": b"x\n"}, *add("a/b", "y"), after="Not a directory"),
    "a new file where a link is": case({"a": Link("OUT/new")}, *add("a", "y"), after="rejected"),
    "a new file where a pipe is": case({"a": Pipe()}, *add("a", "y"), after="exists already"),
    "a new file with a longer name than can be": case({}, *add("x" * 300, "y"), after="File name too long"),
    "two new files, one of which cannot be": case({"b": b""}, *add("d/a", "x"), *add("b", "y"), after="exists"),
    # Deleting
    "a file goes": case({"a": b"x\n", "b": b"y\n"}, *delete("a"), after={"b": b"y\n"}),
    "a file in a folder goes and the folder stays": case({"d/a": b"x", "d/b": b""}, *delete("d/a"), after={"d/b": b""}),
    "a binary file goes": case({"a": b"\0\xff"}, *delete("a"), after={}),
    "a file that is not there": case({}, *delete("a"), after="No such file"),
    "a folder does not go": case({"d/a": b"x"}, *delete("d"), after="no regular file"),
    "a link does not go": case({"a": Link("b"), "b": b""}, *delete("a"), after="is a link"),
    "a pipe does not go": case({"a": Pipe()}, *delete("a"), after="no regular file"),
    # Changing
    "one line": case({"a": b"x\ny\n"}, *update("a", "-x", "+z"), after={"a": b"z\ny\n"}),
    "lines around stay": case({"a": b"1\n2\n3\n"}, *update("a", " 1", "-2", "+two", " 3"), after={"a": b"1\ntwo\n3\n"}),
    "a file becomes empty": case({"a": b"x\n"}, *update("a", "-x"), after={"a": b""}),
    "an empty file gets a line": case({"a": b""}, *update("a", "+x"), after={"a": b"x\n"}),
    "a line at the end": case({"a": b"x\n"}, *update("a", "+y", "*** End of File"), after={"a": b"x\ny\n"}),
    "a line at the beginning": case({"a": b"x\n"}, *update("a", "+y", " x"), after={"a": b"y\nx\n"}),
    "several hunks": case(
        {"a": b"1\n2\n3\n4\n5\n"},
        *update("a", "-1", "+I", "@@", "-3", "@@", " 5", "+VI"),
        after={"a": b"I\n2\n4\n5\nVI\n"},
    ),
    "hunks that touch": case({"a": b"1\n2\n"}, *update("a", "-1", "+I", "@@", "-2", "+II"), after={"a": b"I\nII\n"}),
    "hunks out of order": case({"a": b"1\n2\n"}, *update("a", "-2", "+II", "@@", "-1", "+I"), after="not in"),
    "several files": case(
        {"a": b"x\n", "b": b"y\n"}, *update("a", "-x", "+X"), *update("b", "-y", "+Y"), after={"a": b"X\n", "b": b"Y\n"}
    ),
    "several files, the last of which does not fit": case(
        {"a": b"x\n", "b": b"y\n"}, *update("a", "-x", "+X"), *update("b", "-z", "+Y"), after="not in"
    ),
    "a file twice": case({"a": b"x\ny\n"}, *update("a", "-x"), *update("a", "-y"), after="twice"),
    "lines that are not there": case({"a": b"x\n"}, *update("a", "-y", "+z"), after="not in"),
    "the numbers of diff": case({"a": b"x\ny\n"}, *update("a", "@@ -9,1 +9,1 @@", "-y", "+z"), after={"a": b"x\nz\n"}),
    "a long file": case(
        {"a": b"".join(b"%d\n" % number for number in range(20_000))},
        *update("a", "-19999", "+end"),
        after={"a": b"".join(b"%d\n" % number for number in range(19_999)) + b"end\n"},
    ),
    # Places that could be meant
    "two places": case({"a": CODE}, *update("a", "-    return 1", "+    return 2"), after="fits 'a' in 2 places"),
    "two places and an anchor": case(
        {"a": CODE},
        *update("a", "@@ def second():", "-    return 1", "+    return 2"),
        after={"a": CODE[:-2] + b"2\n"},
    ),
    "two places and context": case(
        {"a": CODE},
        *update("a", " def first():", "-    return 1", "+    return 2"),
        after={"a": CODE.replace(b"1", b"2", 1)},
    ),
    "two places and the end": case(
        {"a": CODE}, *update("a", "-    return 1", "+    return 2", "*** End of File"), after={"a": CODE[:-2] + b"2\n"}
    ),
    "an anchor that is not there": case({"a": CODE}, *update("a", "@@ def third():", "+x"), after="has no line"),
    "an anchor in an anchor": case(
        {"a": b"class A:\n  f\nclass B:\n  f\n"},
        *update("a", "@@ class B:", "@@   f", "+  g"),
        after={"a": b"class A:\n  f\nclass B:\n  f\n  g\n"},
    ),
    "an exact place beside one but for blanks": case(
        {"a": b"x \nx\n"}, *update("a", "-x", "+y"), after={"a": b"x \ny\n"}
    ),
    "two places but for blanks": case({"a": b" x\n  x\n"}, *update("a", "-x", "+y"), after="2 places"),
    "a place but for blanks": case({"a": b"\tx\n"}, *update("a", "-x", "+y"), after={"a": b"y\n"}),
    # Ends of lines, encodings, content that is no text
    "CRLF stays": case({"a": CRLF}, *update("a", " one", "-two", "+2"), after={"a": b"one\r\n2\r\nthree\r\n"}),
    "CRLF in the patch of a file with LF": Case(
        {"a": b"x\ny\n"}, "*** Begin Patch\r\n*** Update File: a\r\n-x\r\n+z\r\n*** End Patch\r\n", {"a": b"z\ny\n"}
    ),
    "mixed ends stay as they are": case(
        {"a": b"1\r\n2\n3\r\n"}, *update("a", " 1", "-2", "+II", " 3"), after={"a": b"1\r\nII\r\n3\r\n"}
    ),
    "a missing last line break stays missing": case({"a": b"x\ny"}, *update("a", "-y", "+z"), after={"a": b"x\nz"}),
    "a lone carriage return is no line break": case(
        {"a": b"x\ry\nz\n"}, *update("a", "-z", "+w"), after={"a": b"x\ry\nw\n"}
    ),
    "a byte-order mark stays": case(
        {"a": b"\xef\xbb\xbfx\n"}, *update("a", "-x", "+y"), after={"a": b"\xef\xbb\xbfy\n"}
    ),
    "bytes that are no UTF-8 stay": case({"a": b"\xe9\nx\n"}, *update("a", "-x", "+y"), after={"a": b"\xe9\ny\n"}),
    "a form feed is no line break": case({"a": b"x\x0cy\nz\n"}, *update("a", "-z", "+w"), after={"a": b"x\x0cy\nw\n"}),
    "a binary file is not changed": case({"a": b"x\0y\n"}, *update("a", "-x", "+z"), after="is not text"),
    "UTF-16 is not changed": case({"a": "x\n".encode("utf-16")}, *update("a", "-x", "+z"), after="is not text"),
    # Moving
    "a file moves": case({"a": b"x\n"}, *update("a", "*** Move to: b"), after={"b": b"x\n"}),
    "a file moves into a new folder and changes": case(
        {"a": b"x\n"}, *update("a", "*** Move to: d/e/b", "-x", "+y"), after={"d/e/b": b"y\n"}
    ),
    "a binary file moves": case({"a": b"\0\xff"}, *update("a", "*** Move to: b"), after={"b": b"\0\xff"}),
    "a script that moves can still be run": case(
        {"a": Script(b"x\n")}, *update("a", "*** Move to: b", "-x", "+y"), after={"b": Script(b"y\n")}
    ),
    "a script that changes can still be run": case(
        {"a": Script(b"x\n")}, *update("a", "-x", "+y"), after={"a": Script(b"y\n")}
    ),
    "a file does not move onto another": case(
        {"a": b"x\n", "b": b"y\n"}, *update("a", "*** Move to: b"), after="exists already"
    ),
    "a file does not move onto itself": case({"a": b"x\n"}, *update("a", "*** Move to: a", "-x", "+y"), after="twice"),
    "a file does not move onto itself by another spelling": case(
        {"a": b"x\n"}, *update("a", "*** Move to: ./a", "-x", "+y"), after="exists already"
    ),
    "a file that moves and does not fit": case(
        {"a": b"x\n"}, *update("a", "*** Move to: d/b", "-z", "+y"), after="not in"
    ),
    "files do not change places": case(
        {"a": b"x\n", "b": b"y\n"}, *update("a", "*** Move to: b"), *update("b", "*** Move to: a"), after="twice"
    ),
    # Out, and what is protected
    "up and out": case({}, *add("../out", "x"), after="rejected"),
    "by an absolute path": case({}, *add("/etc/codex-test", "x"), after="rejected"),
    "out in the middle": case({"d/a": b""}, *add("d/../../out", "x"), after="rejected"),
    "a file moves out": case({"a": b"x\n"}, *update("a", "*** Move to: ../out"), after="rejected"),
    "a hook": case({".git/config": b""}, *add(".git/hooks/pre-commit", "x"), after="rejected"),
    "a hook in capitals": case({".git/config": b""}, *add(".GIT/hooks/pre-commit", "x"), after="rejected"),
    "the repository's configuration": case(
        {".git/config": b"x\n"}, *update(".git/config", "-x", "+y"), after="rejected"
    ),
    "configuration that does not exist yet": case({}, *add(".codex/config.toml", "x"), after="rejected"),
    "a file moves into the repository": case(
        {".git/config": b"", "a": b"x\n"}, *update("a", "*** Move to: .git/a"), after="rejected"
    ),
    "in and out again": case({"a": b"x\n"}, *update("d/../a", "-x", "+y"), after={"a": b"y\n"}),
    # Links
    "through a link to a folder outside": case({"d": Link("OUT")}, *add("d/new", "x"), after="rejected"),
    "through a link to a file outside": case({"a": Link("OUT/kept")}, *update("a", "-kept", "+x"), after="rejected"),
    "a file outside does not go through a link": case({"d": Link("OUT")}, *delete("d/kept"), after="rejected"),
    "a file moves through a link": case(
        {"a": b"x\n", "d": Link("OUT")}, *update("a", "*** Move to: d/new"), after="rejected"
    ),
    "through a link inside": case({"d/a": b"x\n", "l": Link("d")}, *update("l/a", "-x", "+y"), after="is a link"),
    "through a link that leads round": case({"l": Link("l")}, *add("l/a", "x"), after="circle"),
    "through a link that leads nowhere": case({"l": Link("OUT/none")}, *add("l/a", "x"), after="rejected"),
    "through a link into the repository": case(
        {".git/config": b"", "l": Link(".git")}, *add("l/hooks", "x"), after="rejected"
    ),
    "a link beside what changes stays one": case(
        {"a": b"x\n", "l": Link("a")}, *update("a", "-x", "+y"), after={"a": b"y\n", "l": Link("a")}
    ),
}


def build(folder: Path, tree: Tree, outside: str) -> None:
    for name, what in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match what:
            case Link(target):
                path.symlink_to(target.replace("OUT", outside))
            case Pipe():
                os.mkfifo(path)
            case Script(content):
                path.write_bytes(content)
                path.chmod(0o755)
            case bytes():
                path.write_bytes(what)


def found(folder: Path, outside: str) -> Tree:
    tree: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            tree[name] = Link(os.readlink(path).replace(outside, "OUT"))
        elif path.is_fifo():
            tree[name] = Pipe()
        elif path.is_file():
            content = path.read_bytes()
            tree[name] = Script(content) if path.stat().st_mode & stat.S_IXUSR else content
    return tree


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[str]:
    """Give a folder that nothing may change, and see that nothing did."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept").write_text("kept\n")
    yield str(folder)
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert (folder / "kept").read_text() == "kept\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def policy(workspace: Path) -> SandboxPolicy:
    root = str(workspace)
    return SandboxPolicy(SandboxMode.WORKSPACE_WRITE, root, (root,), (f"{root}/.codex", f"{root}/.git"))


@pytest.mark.parametrize("name", CASES)
def test_a_tree_becomes_what_the_patch_says_or_stays_as_it_was(
    workspace: Path, policy: SandboxPolicy, outside: str, name: str
) -> None:
    one = CASES[name]
    build(workspace, one.before, outside)
    before = found(workspace, outside)
    folders = {path for path in workspace.rglob("*") if path.is_dir() and not path.is_symlink()}
    if isinstance(one.after, dict):
        apply(parse_patch(one.patch), cwd=str(workspace), policy=policy)
        assert found(workspace, outside) == one.after
        return
    with pytest.raises(CodexError) as caught:
        apply(parse_patch(one.patch), cwd=str(workspace), policy=policy)
    assert one.after in str(caught.value)
    assert str(caught.value).isprintable()
    if isinstance(caught.value.__cause__, OSError):
        assert str(caught.value).startswith(f"{workspace}/"), "it names the file"
    assert found(workspace, outside) == before
    assert {path for path in workspace.rglob("*") if path.is_dir() and not path.is_symlink()} == folders


@pytest.mark.parametrize("name", CASES)
def test_looking_at_a_patch_first_changes_nothing(
    workspace: Path, policy: SandboxPolicy, outside: str, name: str
) -> None:
    one = CASES[name]
    build(workspace, one.before, outside)
    before = found(workspace, outside)
    try:
        shown = preview(parse_patch(one.patch), cwd=str(workspace), policy=policy)
    except CodexError:
        assert isinstance(one.after, str)
    else:
        assert shown.startswith("--- ")
    assert found(workspace, outside) == before
    assert not (workspace.parent / "out").exists()


def test_a_preview_shows_the_lines_of_the_file_and_not_those_of_the_patch(
    workspace: Path, policy: SandboxPolicy
) -> None:
    (workspace / "a").write_bytes(b"keep\n\told\r\n")
    text = "*** Begin Patch\n*** Update File: a\n-old\n+new\n*** End Patch\n"
    assert preview(parse_patch(text), cwd=str(workspace), policy=policy).split("\n") == [
        f"--- {workspace}/a",
        f"+++ {workspace}/a",
        "@@ -1,3 +1,3 @@",
        " keep",
        "-\told\r",
        "+new",
        " ",
    ]


def as_a_user(do: Callable[[], object]) -> str:
    """Run *do* without the rights of root; what it said when it was refused."""
    report, reported = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            do()
        except CodexError as error:
            os.write(reported, str(error).encode())
        finally:
            os._exit(0)
    os.close(reported)
    with open(report, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def test_who_may_not_write_a_folder_is_told_and_nothing_is_changed() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        for part in ("open", "closed"):
            (folder / part).mkdir()
            (folder / part / "f").write_text("x\n")
            (folder / part / "f").chmod(0o666)
        folder.chmod(0o755)
        (folder / "open").chmod(0o777)
        (folder / "closed").chmod(0o555)
        root = os.path.realpath(name)
        policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, root, (root,), ())

        def change(*parts: str) -> str:
            lines = [line for part in parts for line in update(f"{part}/f", "-x", "+y")]
            changes = parse_patch("\n".join(["*** Begin Patch", *lines, "*** End Patch"]))
            return as_a_user(lambda: apply(changes, cwd=root, policy=policy))

        assert change("open", "closed") == f"{root}/closed/f: Permission denied; nothing was changed"
        assert [(folder / part / "f").read_text() for part in ("open", "closed")] == ["x\n", "x\n"]
        assert change("open") == ""
        assert (folder / "open" / "f").read_text() == "y\n"
        assert os.listdir(folder / "open") == ["f"]


# A second process that swaps things meanwhile

SWAPPER = """
import ctypes, os, sys
name, target = map(os.fsencode, sys.argv[1:])
os.symlink(target, name + b".other")
exchange = lambda: ctypes.CDLL(None).renameat2(-100, name, -100, name + b".other", 2)
assert exchange() == 0
print("ready", flush=True)
while True:
    exchange()
"""


@pytest.fixture
def swap() -> Iterator[Callable[[Path, Path], None]]:
    """Give ``swap(path, target)``: *path* is a link to *target* every other moment, from now on.

    What it was is ``path.other`` meanwhile.
    """
    started: list[subprocess.Popen[bytes]] = []

    def swap(path: Path, target: Path) -> None:
        words = [sys.executable, "-I", "-c", SWAPPER, str(path), str(target)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == b"ready\n"

    yield swap
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Give a folder outside that has what the patches of the race are about."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "f").write_text("secret\n")
    return folder


RACES = {
    "add": add("d/new", "x"),
    "update": update("d/f", "-mine", "+changed"),
    "update of what lies outside": update("d/f", "-secret", "+changed"),
    "delete": delete("d/f"),
    "move": update("d/f", "*** Move to: d/g"),
    "move in": update("a", "*** Move to: d/new"),
}


def test_who_only_opens_the_path_writes_outside_in_such_a_race(
    workspace: Path, victim: Path, swap: Callable[[Path, Path], None]
) -> None:
    (workspace / "d").mkdir()
    swap(workspace / "d", victim)
    for _ in range(100_000):
        try:
            (workspace / "d" / "new").write_text("x")
        except OSError:
            continue
        if (victim / "new").exists():
            return
    pytest.fail("the race was never won: the tests below would show nothing")


@pytest.mark.parametrize("name", RACES)
def test_no_patch_reaches_outside_through_a_folder_that_is_swapped(
    workspace: Path, policy: SandboxPolicy, victim: Path, swap: Callable[[Path, Path], None], name: str
) -> None:
    folder = workspace / "d"
    folder.mkdir()
    (workspace / "a").write_text("x\n")
    changes = parse_patch("\n".join(["*** Begin Patch", *RACES[name], "*** End Patch"]))
    applied = attempts = 0
    outside_only = "outside" in name
    folder_itself = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)
    swap(folder, victim)
    while attempts < 200 or (applied == 0 and not outside_only and attempts < 20_000):
        attempts += 1
        for left in ("new", "g"):
            with suppress(FileNotFoundError):
                os.unlink(left, dir_fd=folder_itself)
        with open(os.open("f", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, dir_fd=folder_itself), "w") as file:
            file.write("mine\n")
        (workspace / "a").write_text("x\n")
        try:
            apply(changes, cwd=str(workspace), policy=policy)
            applied += 1
        except CodexError:
            continue
    os.close(folder_itself)
    assert [path.name for path in victim.iterdir()] == ["f"]
    assert (victim / "f").read_text() == "secret\n"
    assert (applied == 0) is outside_only


def test_no_patch_reaches_outside_through_a_file_that_is_swapped(
    workspace: Path, policy: SandboxPolicy, victim: Path, swap: Callable[[Path, Path], None]
) -> None:
    (workspace / "f").write_text("secret\n")
    swap(workspace / "f", victim / "f")
    changes = parse_patch("*** Begin Patch\n*** Update File: f\n secret\n+more\n*** End Patch")
    for _ in range(300):
        try:
            apply(changes, cwd=str(workspace), policy=policy)
        except CodexError:
            continue
    assert (victim / "f").read_text() == "secret\n"


# Patches made from real differences

LINE = st.sampled_from(["", "a", "b", " a", "a ", "\tb", "@@", "+x", "-x", "*** End Patch", "é", "}"])
LINES = st.lists(LINE, max_size=25)


def patch_between(old: list[str], new: list[str]) -> str:
    """Write the difference of two files as a patch, with three lines around each change."""
    hunks = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(3):
        hunks.append("@@")
        for kind, start, end, new_start, new_end in group:
            if kind == "equal":
                hunks += [f" {line}" for line in old[start:end]]
            else:
                hunks += [f"-{line}" for line in old[start:end]] + [f"+{line}" for line in new[new_start:new_end]]
    return "\n".join(["*** Begin Patch", "*** Update File: f", *hunks, "*** End Patch", ""])


@settings(max_examples=500)
@given(old=LINES, new=LINES, end=st.sampled_from(["\n", "\r\n"]))
def test_a_patch_made_from_a_difference_gives_exactly_the_new_file_or_is_refused(
    old: list[str], new: list[str], end: str
) -> None:
    if old == new:
        return
    (change,) = parse_patch(patch_between(old, new))
    assert isinstance(change, UpdateFile)
    content = "".join(line + end for line in old).encode()
    try:
        made = updated(content, change)
    except PatchError as error:
        assert "places" in str(error) or not old  # noqa: PT017 - what the refusal says is the point
        return
    assert made == "".join(line + (end if old else "\n") for line in new).encode()
