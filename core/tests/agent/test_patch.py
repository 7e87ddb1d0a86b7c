from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from codex_core.agent.files import apply
from codex_core.agent.patch import AddFile, DeleteFile, Hunk, UpdateFile, parse_patch, updated
from codex_core.errors import CodexError, NotPermittedError, PatchError
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import SandboxMode
from hypothesis import assume, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch", ""])


def update(*lines: str) -> UpdateFile:
    (change,) = parse_patch(patch("*** Update File: f", *lines))
    assert isinstance(change, UpdateFile)
    return change


# Reading


def test_a_patch_is_read_with_all_that_it_can_say() -> None:
    text = patch(
        "*** Add File: new file",
        "+one",
        "+",
        "*** Delete File: old",
        "*** Update File: a",
        "*** Move to: b",
        "@@ class X:",
        "@@ def y():",
        " stays",
        "-goes",
        "+comes",
        "*** End of File",
    )
    assert parse_patch(text) == (
        AddFile("new file", ("one", "")),
        DeleteFile("old"),
        UpdateFile("a", (Hunk(8, ("class X:", "def y():"), ("stays", "goes"), ("stays", "comes"), at_end=True),), "b"),
    )


@pytest.mark.parametrize("wrap", [("<<EOF", "EOF"), ("<<'EOF'", "EOF"), ('<<-"X"', "X")])
def test_a_here_document_around_a_patch_is_taken_off(wrap: tuple[str, str]) -> None:
    inner = patch("*** Delete File: a")
    assert parse_patch(f"{wrap[0]}\n{inner}{wrap[1]}\n") == (DeleteFile("a"),)


def test_a_patch_with_windows_line_ends_is_the_same_patch() -> None:
    text = patch("*** Update File: f", "-a", "+b")
    assert parse_patch(text.replace("\n", "\r\n")) == parse_patch(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'*** Begin Patch' is expected"),
        ("nonsense", "'*** Begin Patch' is expected"),
        ("*** Begin Patch\n", "'*** End Patch' is missing"),
        ("*** Begin Patch\n*** End Patch\n", "changes nothing"),
        (patch("*** Add File: a", "+x") + "more\n", "nothing may follow"),
        (patch("*** Frob File: a"), "line 2 of the patch: a section begins with"),
        (patch("*** Add File: "), "a path is expected"),
        (patch("*** Add File: a\0b"), "a path is expected"),
        (patch("*** Add File: a", "x"), "begins with '+'"),
        (patch("*** Update File: a"), "changes nothing"),
        (patch("*** Update File: a", "@@ x"), "changes nothing"),
        (patch("*** Update File: a", " x"), "changes nothing"),
        (patch("*** Update File: a", "x"), "line 3 of the patch: a line of a hunk begins with"),
        (patch("*** Delete File: a", "-x"), "a section begins with"),
        (patch("*** Delete File: a", "*** Add File: a", "+x"), "twice"),
        (patch("*** Update File: a", "*** Move to: ", "-x", "+y"), "a path is expected"),
    ],
)
def test_what_makes_no_sense_is_one_line_with_its_place(text: str, says: str) -> None:
    with pytest.raises(PatchError) as caught:
        parse_patch(text)
    assert says in str(caught.value)


SNIPPETS = st.sampled_from(
    [
        "*** Begin Patch",
        "*** End Patch",
        "*** Add File: a",
        "*** Update File: b",
        "*** Delete File: c",
        "*** Move to: d",
        "@@",
        "@@ x",
        "*** End of File",
        "+x",
        "-x",
        " x",
        "",
        "\r",
        "\0",
        "*** ",
        "<<EOF",
        "EOF",
    ]
)


@given(
    text=st.one_of(st.text(), st.lists(st.one_of(SNIPPETS, st.text(max_size=5)), max_size=20).map("\n".join)),
    content=st.binary(max_size=60),
)
def test_any_text_is_a_patch_or_an_error_of_ours(text: str, content: bytes) -> None:
    with suppress(CodexError):
        for change in parse_patch(text):
            if isinstance(change, UpdateFile):
                assert isinstance(updated(content, change), bytes)


# What a file becomes


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"a\nb\nc\n", ["-b", "+B"], b"a\nB\nc\n"),
        (b"a\nb\nc\n", [" a", "-b", "+B", " c"], b"a\nB\nc\n"),
        (b"a\nb\nc\n", ["-a", "-b", "-c"], b""),
        (b"a\nb\n", ["@@", "-a", "+A", "@@", "-b", "+B"], b"A\nB\n"),
        (b"x\na\nx\nb\n", ["-a", "+A", "@@", " x", "-b", "+B"], b"x\nA\nx\nB\n"),
        (b"a\n", ["+z"], b"a\nz\n"),
        (b"", ["+z"], b"z\n"),
        (b"a\nb\n", ["@@ a", "+between"], b"a\nbetween\nb\n"),
        (b"a\nb\n", ["+last", "*** End of File"], b"a\nb\nlast\n"),
        (b"d:\n x\nd:\n x\n", ["@@ d:", "@@ d:", "- x", "+ y"], b"d:\n x\nd:\n y\n"),
        (b"x\ny\nx\n", ["-x", "+z", "*** End of File"], b"x\ny\nz\n"),
        # Blanks that a model got wrong; lines that stay keep those of the file.
        (b"a  \n\tb\n", [" a", "-b", "+c"], b"a  \nc\n"),
        (b"\ta\nb\n", [" a", "-b", "+c"], b"\ta\nc\n"),
        # Exact beats loose.
        (b" a\na\n", ["-a", "+z"], b" a\nz\n"),
        # Line ends.
        (b"a\r\nb\r\n", ["-b", "+c", "+d"], b"a\r\nc\r\nd\r\n"),
        (b"a\r\nb\n", [" a", "-b", "+c"], b"a\r\nc\n"),
        (b"a\nb", ["-b", "+c"], b"a\nc"),
        (b"a\nb", [" b", "+c"], b"a\nb\nc"),
        (b"a\nb", ["-a", "+A"], b"A\nb"),
        (b"a\r\nb", ["-b", "+c"], b"a\r\nc"),
        (b"a\nb", ["-b"], b"a"),
        # Encodings.
        (b"\xef\xbb\xbfa\nb\n", ["-a", "+A"], b"\xef\xbb\xbfA\nb\n"),
        ("é\n漢\n".encode(), ["-é", "+è"], "è\n漢\n".encode()),
        (b"\xff\xfe\na\n", ["-a", "+b"], b"\xff\xfe\nb\n"),
        (b"a\x0cb\nc\n", ["-c", "+d"], b"a\x0cb\nd\n"),
        ("a\u2028b\nc\n".encode(), ["-c", "+d"], "a\u2028b\nd\n".encode()),
        (b"a\rb\nc\n", ["-c", "+d"], b"a\rb\nd\n"),
        # Empty lines without their blank.
        (b"a\n\nb\n", [" a", "", "-b", "+c"], b"a\n\nc\n"),
        # Numbers as diff writes them.
        (b"a\nb\n", ["@@ -1,2 +1,2 @@", "-b", "+c"], b"a\nc\n"),
        (b"f\na\n", ["@@ -1,2 +1,2 @@ f", "-a", "+b"], b"f\nb\n"),
    ],
)
def test_a_file_becomes_what_the_patch_says_and_keeps_the_rest(
    content: bytes, lines: list[str], expected: bytes
) -> None:
    assert updated(content, update(*lines)) == expected


@pytest.mark.parametrize(
    ("content", "lines", "says"),
    [
        (b"a\n", ["-b", "+c"], "its lines are not in 'f'"),
        (b"a\nb\na\n", ["-a", "+c"], "it fits 'f' in 2 places (lines 1, 3)"),
        (b"a\nb\n", ["@@ z", "-b", "+c"], "has no line 'z'"),
        (b"b\na\n", ["-a", "+A", "@@", "-b", "+B"], "line 5 of the patch"),
        (b"a\nb\n", ["-a", "+c", "*** End of File"], "its lines are not in"),
        (b"a\0b\n", ["-a", "+c"], "is not text"),
        (b"", ["-a", "+c"], "its lines are not in"),
    ],
)
def test_what_does_not_fit_or_fits_twice_is_refused(content: bytes, lines: list[str], says: str) -> None:
    with pytest.raises(PatchError) as caught:
        updated(content, update(*lines))
    assert says in str(caught.value)


LINE = st.text("ab \t\r", max_size=3).filter(lambda line: not line.endswith("\r"))


@given(
    before=st.lists(LINE, max_size=6),
    after=st.lists(LINE, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    open_end=st.booleans(),
)
def test_replacing_a_whole_file_gives_the_new_lines_with_the_ends_of_the_old(
    before: list[str],
    after: list[str],
    end: str,
    open_end: bool,  # noqa: FBT001 - drawn
) -> None:
    content = "".join(line + end for line in before)
    if open_end and before and before[-1]:
        content = content.removesuffix(end)
    # A file of one open line does not say how its lines end.
    assume(before and before != after and (end in content or end == "\n"))
    made = updated(content.encode(), UpdateFile("f", (Hunk(1, old=tuple(before), new=tuple(after)),)))
    expected = "".join(line + end for line in after)
    if not content.endswith(end) and after:
        expected = expected.removesuffix(end)
    assert made.decode() == expected


# Files


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a").write_text("a\n")
    (folder / "b").write_text("b\n")
    return folder


@pytest.fixture
def change(workspace: Path) -> Callable[..., tuple[tuple[str, str], ...]]:
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(workspace), (str(workspace),), (str(workspace / ".git"),))

    def _change(*lines: str, anywhere: bool = False) -> tuple[tuple[str, str], ...]:
        return apply(parse_patch(patch(*lines)), cwd=str(workspace), policy=policy, anywhere=anywhere)

    return _change


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(entry.relative_to(folder)): entry.read_bytes() if entry.is_file() else None
        for entry in sorted(folder.rglob("*"))
    }


def test_files_are_added_changed_moved_and_deleted(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path
) -> None:
    (workspace / "c").write_text("c\n")
    done = change(
        "*** Add File: new/deep/file",
        "+x",
        "*** Update File: a",
        "*** Move to: sub/a2",
        "-a",
        "+A",
        "*** Delete File: b",
        "*** Update File: c",
        "-c",
        "+C",
    )
    assert done == (("A", "new/deep/file"), ("M", "sub/a2"), ("D", "b"), ("M", "c"))
    assert everything(workspace) == {
        ".git": None,
        "c": b"C\n",
        "new": None,
        "new/deep": None,
        "new/deep/file": b"x\n",
        "sub": None,
        "sub/a2": b"A\n",
    }


def test_the_rights_of_a_file_stay(change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path) -> None:
    (workspace / "a").chmod(0o751)
    change("*** Update File: a", "-a", "+A", "*** Update File: b", "*** Move to: b2", "-b", "+B")
    assert stat.S_IMODE((workspace / "a").stat().st_mode) == 0o751


def test_a_new_file_gets_the_rights_that_the_umask_leaves(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path
) -> None:
    before = os.umask(0o027)
    try:
        change("*** Add File: n", "+x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((workspace / "n").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "lines",
    [
        ["*** Add File: n/o", "+x", "*** Update File: a", "-nothing", "+x"],
        ["*** Update File: a", "-a", "+A", "*** Delete File: missing"],
        ["*** Update File: a", "-a", "+A", "*** Add File: b", "+x"],
        ["*** Delete File: a", "*** Update File: sub", "-a", "+b"],
        ["*** Update File: a", "-a", "+A", "*** Add File: a/x", "+x"],
        ["*** Update File: a", "-a", "+A", "*** Add File: .git/hooks/x", "+x"],
        ["*** Update File: a", "-a", "+A", "*** Add File: ../out", "+x"],
        ["*** Update File: a", "*** Move to: b", "-a", "+A"],
        ["*** Add File: new/deep/x", "+x", "*** Delete File: missing"],
    ],
)
def test_a_patch_that_fails_anywhere_changes_nothing(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path, lines: list[str]
) -> None:
    before = everything(workspace)
    with pytest.raises(CodexError):
        change(*lines)
    assert everything(workspace) == before
    assert not (workspace.parent / "out").exists()


def test_a_failure_in_the_middle_takes_back_what_was_done(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real, calls = everything(workspace), os.unlink, []

    def unlink(path: str, **options: int) -> None:
        if path == "b":
            calls.append(path)
            raise OSError(5, "Input/output error", path)
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(PatchError, match="nothing was changed"):
        change("*** Update File: a", "-a", "+A", "*** Add File: n", "+x", "*** Delete File: b")
    assert calls == ["b"]
    assert everything(workspace) == before


def test_a_full_disk_leaves_everything_as_it_was(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(workspace)

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PatchError, match="No space left"):
        change("*** Update File: a", "-a", "+A", "*** Add File: deep/n", "+x")
    assert everything(workspace) == before


@pytest.mark.parametrize(
    "target", ["/etc/hosts", "../out", "sub/../../out", ".git/config", ".GIT/config", ".codex/config.toml"]
)
def test_outside_and_protected_files_are_refused(
    change: Callable[..., tuple[tuple[str, str], ...]], target: str
) -> None:
    with pytest.raises(NotPermittedError):
        change(f"*** Add File: {target}", "+x")


def test_a_person_can_allow_what_lies_outside_but_not_what_is_protected(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path
) -> None:
    change("*** Add File: ../out", "+x", anywhere=True)
    assert (workspace.parent / "out").read_text() == "x\n"
    with pytest.raises(NotPermittedError):
        change("*** Add File: .git/hooks/x", "+x", anywhere=True)


@pytest.mark.parametrize("path", ["link/x", "filelink", "sub/loop/x"])
def test_nothing_is_written_through_a_link(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path, path: str
) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (outside / "x").write_text("x\n")
    (workspace / "link").symlink_to(outside)
    (workspace / "filelink").symlink_to(outside / "x")
    (workspace / "sub" / "loop").symlink_to("loop")
    # The attack works for who just opens the path.
    if path == "link/x":
        assert (workspace / path).read_text() == "x\n"
    with pytest.raises(CodexError):
        change(f"*** Update File: {path}", "-x", "+y")
    assert (outside / "x").read_text() == "x\n"


def test_a_link_that_stays_inside_is_named_with_the_real_path(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path
) -> None:
    (workspace / "inner").symlink_to("sub")
    (workspace / "sub" / "x").write_text("x\n")
    with pytest.raises(PatchError, match=r"real path, .*/ws/sub/x"):
        change("*** Update File: inner/x", "-x", "+y")


def test_a_file_that_is_a_root_is_updated_and_neither_removed_nor_moved(workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("x\n")
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(workspace), (str(workspace), str(root)), ())
    for lines in (("*** Delete File: ../file",), ("*** Update File: ../file", "*** Move to: file")):
        with pytest.raises(NotPermittedError, match="writable root"):
            apply(parse_patch(patch(*lines)), cwd=str(workspace), policy=policy)
    apply(parse_patch(patch("*** Update File: ../file", "-x", "+y")), cwd=str(workspace), policy=policy)
    assert root.read_text() == "y\n"


def test_a_hard_link_to_a_file_outside_is_cut_and_not_written_through(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path
) -> None:
    outside = workspace.parent / "outside"
    outside.write_text("x\n")
    os.link(outside, workspace / "hard")
    change("*** Update File: hard", "-x", "+y")
    assert outside.read_text() == "x\n"
    assert (workspace / "hard").read_text() == "y\n"


def test_pipes_and_folders_are_no_files(change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    for name in ("pipe", "sub"):
        with pytest.raises(PatchError):
            change(f"*** Update File: {name}", "-x", "+y")


def test_a_file_that_changes_meanwhile_is_left_alone(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        (workspace / "a").write_text("somebody else's\n")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PatchError, match="changed meanwhile"):
        change("*** Update File: a", "-a", "+A")
    assert (workspace / "a").read_text() == "somebody else's\n"


SWAPPER = """
import os, sys
ws, outside = sys.argv[1:]
print("ready", flush=True)
while True:
    try:
        os.rename(ws + "/d", ws + "/d1"); os.symlink(outside, ws + "/d")
        os.unlink(ws + "/d"); os.rename(ws + "/d1", ws + "/d")
    except OSError:
        pass
"""


def test_a_process_that_swaps_a_folder_for_a_link_gains_nothing(
    change: Callable[..., tuple[tuple[str, str], ...]], workspace: Path
) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (workspace / "d").mkdir()
    swapper = subprocess.Popen(
        [sys.executable, "-I", "-c", SWAPPER, str(workspace), str(outside)], stdout=subprocess.PIPE
    )
    try:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        for number in range(300):
            try:
                change(f"*** Add File: d/f{number}", "+x")
            except CodexError:
                continue
    finally:
        swapper.kill()
        swapper.wait()
        if swapper.stdout is not None:
            swapper.stdout.close()
    assert list(outside.iterdir()) == []
