"""What the sandbox refused is named, with the setting that would allow it, and learnt from."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.learn import learn
from codex_core.types import Denial, Operation

if TYPE_CHECKING:
    from pathlib import Path

CODEX = os.path.join(os.path.dirname(sys.executable), "codex")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the Linux sandbox")


def codex(*words: str, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(cwd)}
    return subprocess.run(
        [CODEX, "sandbox", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Give workspace, home and a folder outside; /tmp itself is closed by the options below."""
    made = (tmp_path / "workspace", tmp_path / "home", tmp_path / "outside")
    for folder in made:
        folder.mkdir()
    return made


CLOSED_TMP = ("-s", "workspace-write", "-c", "sandbox_workspace_write.exclude_slash_tmp=true")


def test_explain_names_the_path_the_rule_and_the_setting(folders: tuple[Path, Path, Path]) -> None:
    workspace, home, outside = folders
    script = f"echo x > {outside}/new; echo y > inside; exit 4"
    subprocess.run(["/bin/sh", "-c", f"echo x > {outside}/new && rm {outside}/new"], check=True)
    done = codex("explain", *CLOSED_TMP, "--", "/bin/sh", "-c", script, cwd=workspace, home=home)
    assert done.returncode == 4
    assert (workspace / "inside").exists()
    assert not (outside / "new").exists()
    assert f"denied: write {outside}/new (outside every writable root)" in done.stderr
    assert f"add '{outside}' to sandbox_workspace_write.writable_roots" in done.stderr


def test_explain_says_so_when_nothing_was_refused(folders: tuple[Path, Path, Path]) -> None:
    workspace, home, _ = folders
    done = codex(
        "explain", *CLOSED_TMP, "--", "/bin/sh", "-c", "mkdir -p a/b; echo x > a/b/c; rm -r a", cwd=workspace, home=home
    )
    assert (done.returncode, done.stderr) == (0, "codex: the sandbox refused nothing\n")


def test_explain_names_what_may_not_be_removed_and_no_link_that_may(folders: tuple[Path, Path, Path]) -> None:
    workspace, home, outside = folders
    (workspace / "link").symlink_to(outside)
    script = "rm link; rmdir ../outside; mv ../workspace ../other"
    done = codex("explain", *CLOSED_TMP, "--", "/bin/sh", "-c", script, cwd=workspace, home=home)
    assert outside.exists()
    assert not (workspace / "link").exists()
    denied = [line.partition(" (")[0] for line in done.stderr.splitlines() if "denied: " in line]
    assert denied == [f"codex: denied: remove {path}" for path in (outside, workspace, workspace.parent / "other")]


def test_what_is_learnt_is_enough_to_run_the_command(folders: tuple[Path, Path, Path]) -> None:
    workspace, home, outside = folders
    script = f"echo out; mkdir -p {outside}/a && echo x > {outside}/a/b"
    learnt = codex("learn", *CLOSED_TMP, "--", "/bin/sh", "-c", script, cwd=workspace, home=home)
    assert learnt.returncode == 0
    assert tomllib.loads(learnt.stdout) == {
        "sandbox_mode": "workspace-write",
        "sandbox_workspace_write": {"writable_roots": [str(outside)]},
    }
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(learnt.stdout)
    done = codex("linux", *CLOSED_TMP, "--", "/bin/sh", "-c", script, cwd=workspace, home=home)
    assert (done.returncode, (outside / "a" / "b").read_text()) == (0, "x\n")


def test_what_configures_programs_is_only_a_comment(tmp_path: Path) -> None:
    home = str(tmp_path)
    refused = [f"{home}/.bashrc", f"{home}/.ssh/id", "/etc/passwd", f"{home}/.cache/tool/x", f"{home}/work/.git/config"]
    denials = [Denial(Operation.WRITE, path, "outside every writable root") for path in refused]
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".ssh").mkdir()
    lesson = learn(denials, protected=[f"{home}/work/.git"], home=home)
    assert lesson.roots == (f"{home}/.cache",)
    assert {target for target, _ in lesson.withheld} == set(refused) - {f"{home}/.cache/tool/x"}
    assert all(line.startswith("# withheld") for line in lesson.toml().splitlines() if home + "/.ssh" in line)


def test_commits_work_and_hooks_stay_closed_when_only_hooks_are_protected(folders: tuple[Path, Path, Path]) -> None:
    workspace, home, outside = folders
    identity = ("-c", "user.name=n", "-c", "user.email=n@localhost")
    for words in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", *words], cwd=workspace, check=True)
    planted = f"[core]\n\tfsmonitor = touch {outside}/ran; false\n"
    script = (
        "echo x > file; git add file; git -c user.name=n -c user.email=n@localhost commit -q -m second;"
        f"printf '{planted}' >> .git/config; echo 'touch {outside}/ran' > .git/hooks/post-checkout;"
        "mkdir .git/modules; mv .git elsewhere; echo '* filter=x' > .git/info/attributes"
    )
    done = codex(
        "linux",
        *CLOSED_TMP,
        "-c",
        "sandbox_workspace_write.protect_git=hooks",
        "--",
        "/bin/sh",
        "-c",
        script,
        cwd=workspace,
        home=home,
    )
    log = subprocess.run(
        ["git", "log", "--format=%s"], cwd=workspace, check=True, capture_output=True, text=True
    ).stdout
    subprocess.run(["git", "status"], cwd=workspace, check=True, capture_output=True)
    assert log == "second\nfirst\n", done.stderr
    assert not (outside / "ran").exists()
    assert not (workspace / ".git" / "modules").exists()
    assert not (workspace / ".git" / "info" / "attributes").exists()
    closed = codex(
        "linux",
        *CLOSED_TMP,
        "--",
        "git",
        *identity,
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "third",
        cwd=workspace,
        home=home,
    )
    assert closed.returncode != 0
