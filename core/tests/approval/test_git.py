"""Whatever a repository holds, git starts nothing unasked.

Each attack is first tried on git as it is: what does not work there proves nothing here.
"""

from __future__ import annotations

import os
import pty
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codex_core.approval.assess import assess
from codex_core.approval.git import find_repository, read_configuration, subcommand_named
from codex_core.approval.reading import NotSafeError
from codex_core.approval.rules import Rules
from codex_core.approval.safe import classify
from codex_core.approval.tables import load_table
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Action, Command, Safety, SafetyClass, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

SAFE, ASK = SafetyClass.SAFE, SafetyClass.ASK
SIGNED = (
    "tree {tree}\nauthor a <a@b> 1700000000 +0000\ncommitter a <a@b> 1700000000 +0000\n"
    "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\nsigned\n"
)


@dataclass(frozen=True)
class Ground:
    """A workspace that is a repository, beside a program that leaves a mark."""

    root: Path

    @property
    def workspace(self) -> Path:
        return self.root / "ws"

    @property
    def mark(self) -> str:
        return str(self.root / "mark")

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.root / "home"), "PAGER": "cat"}

    def git(self, *words: str, folder: str = "", data: str = "") -> str:
        """Run git as it is."""
        return subprocess.run(
            ["git", *words],
            cwd=self.workspace / folder,
            env=self.environ | {"GIT_CONFIG_NOSYSTEM": "1"},
            check=True,
            input=data,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def config(self, **settings: str) -> None:
        for name, value in settings.items():
            self.git("config", name.replace("__", "."), value)

    def write(self, path: str, text: str) -> None:
        (self.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (self.workspace / path).write_text(text)

    def judge(self, *words: str, folder: str = "", **environ: str) -> Safety:
        cwd = str(self.workspace / folder)
        policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(self.workspace), (str(self.workspace),), ())
        return assess(Action(("git", *words), cwd), policy, Rules(()), environ=self.environ | environ).safety

    def marks(self, words: tuple[str, ...], folder: str, environ: dict[str, str], safety: Safety | None = None) -> bool:
        """Run git, on a terminal so that it would use a pager, and say whether that left the mark."""
        marked = self.root / "marked"
        marked.unlink(missing_ok=True)
        command = Command(("git", *words), str(self.workspace / folder), self.environ | environ)
        if safety is not None:
            assert safety.neutralised is not None
            command = safety.neutralised.applied(command)
        reading, writing = pty.openpty()
        try:
            subprocess.run(
                command.argv,
                cwd=command.cwd,
                env=command.env,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=60,
            )
        finally:
            os.close(writing)
            os.close(reading)
        return marked.exists()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    made = Ground(tmp_path)
    made.workspace.mkdir()
    (tmp_path / "home").mkdir()
    program = Path(made.mark)
    program.write_text(f"#!/bin/sh\n/usr/bin/touch '{tmp_path}/marked'\n")
    program.chmod(0o755)
    made.git("init", "-q", "-b", "main")
    made.config(user__name="a", user__email="a@b")
    made.write("a.txt", "one\n")
    made.write("sub/b.txt", "one\n")
    made.git("add", ".")
    made.git("commit", "-qm", "first")
    made.write("a.txt", "two\n")
    return made


# Attacks: each prepares a repository, and gives the folder, and the variables, in which git is then called.


def hook(ground: Ground) -> None:
    ground.write(".git/hooks/post-index-change", f"#!/bin/sh\n{ground.mark} < /dev/null\n")
    (ground.workspace / ".git" / "hooks" / "post-index-change").chmod(0o755)
    ground.git("add", "a.txt")
    (ground.workspace / ".git" / "hooks" / "post-index-change").write_text(f"#!/bin/sh\n{ground.mark} < /dev/null\n")
    os.utime(ground.workspace / "sub" / "b.txt", (1, 1))
    (ground.root / "marked").unlink(missing_ok=True)


def hooks_elsewhere(ground: Ground) -> None:
    hook(ground)
    (ground.workspace / ".git" / "hooks").rename(ground.workspace / "hooks")
    ground.config(core__hooksPath="hooks")


def driver(ground: Ground, key: str) -> None:
    ground.write(".gitattributes", "*.txt diff=x\n")
    ground.config(**{f"diff__x__{key}": ground.mark})


def content_filter(ground: Ground, key: str) -> None:
    ground.write(".git/info/attributes", "*.txt filter=x\n")
    ground.config(**{f"filter__x__{key}": ground.mark})


def include(ground: Ground) -> None:
    ground.write("evil", f"[core]\nfsmonitor = {ground.mark}\n")
    ground.config(include__path="../evil")


def conditional_include(ground: Ground) -> None:
    ground.write("evil", f"[core]\nfsmonitor = {ground.mark}\n")
    ground.git("config", "includeIf.gitdir:ws/.path", "../evil")


def of_work_tree(ground: Ground) -> None:
    ground.config(extensions__worktreeConfig="true")
    ground.write(".git/config.worktree", f"[core]\nfsmonitor = {ground.mark}\n")


def signature(ground: Ground, program: str = "gpg__program") -> None:
    commit = ground.git(
        "hash-object", "-t", "commit", "-w", "--stdin", data=SIGNED.format(tree=ground.git("write-tree"))
    )
    ground.git("update-ref", "refs/heads/main", commit)
    ground.config(log__showSignature="true", **{program: ground.mark})


def submodule(ground: Ground) -> None:
    ground.git("init", "-q", "inner")
    ground.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x", folder="inner")
    ground.git("add", "inner")
    ground.git("config", "core.fsmonitor", ground.mark, folder="inner")


def promisor(ground: Ground, **settings: str) -> None:
    blob = ground.git("rev-parse", "HEAD:a.txt")
    (ground.workspace / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    ground.config(extensions__partialClone="origin", remote__origin__promisor="true", **settings)


def bare_in_folder(ground: Ground) -> None:
    ground.git("init", "-q", "--bare", "bare")
    for key, value in (("core.bare", "false"), ("core.worktree", ".."), ("core.fsmonitor", ground.mark)):
        ground.git("config", "-f", "bare/config", key, value)


def pointer(ground: Ground) -> None:
    (ground.workspace / ".git").rename(ground.workspace / "elsewhere")
    ground.write(".git", "gitdir: elsewhere\n")
    ground.git("config", "-f", "elsewhere/config", "core.fsmonitor", ground.mark)


def of_user(ground: Ground) -> None:
    (ground.root / "home" / ".gitconfig").write_text(f"[core]\nfsmonitor = {ground.mark}\n")


def nothing(_: Ground) -> None:
    pass


@dataclass(frozen=True)
class Attack:
    prepare: Callable[[Ground], None]
    words: str
    folder: str = ""
    environ: tuple[str, ...] = ()
    """Variables that name the marker, or a value with it in the place of {}."""
    read_only: bool = False
    """Only the reading of the configuration keeps it out: nothing on a command line can."""

    def variables(self, ground: Ground) -> dict[str, str]:
        pairs = (each.partition("=") for each in self.environ)
        return {name: (value or "{}").replace("{}", ground.mark) for name, _, value in pairs}


ATTACKS = {
    "core.fsmonitor": Attack(lambda g: g.config(core__fsmonitor=g.mark), "status"),
    "core.fsmonitor and diff": Attack(lambda g: g.config(core__fsmonitor=g.mark), "diff --name-only"),
    "core.fsmonitor and ls-files": Attack(lambda g: g.config(core__fsmonitor=g.mark), "ls-files -m"),
    "hooks": Attack(hook, "status"),
    "hooks and diff": Attack(hook, "diff"),
    "core.hooksPath": Attack(hooks_elsewhere, "status"),
    "core.pager": Attack(lambda g: g.config(core__pager=g.mark), "log"),
    "pager.log": Attack(lambda g: g.config(pager__log=g.mark), "log --oneline"),
    "pager.branch": Attack(lambda g: g.config(pager__branch=g.mark), "branch"),
    "diff.external": Attack(lambda g: g.config(diff__external=g.mark), "diff"),
    "diff.x.command": Attack(lambda g: driver(g, "command"), "diff"),
    "diff.x.textconv": Attack(lambda g: driver(g, "textconv"), "diff"),
    "textconv and log": Attack(lambda g: driver(g, "textconv"), "log -p"),
    "textconv and show": Attack(lambda g: driver(g, "textconv"), "show"),
    "textconv and blame": Attack(lambda g: driver(g, "textconv"), "blame a.txt"),
    "filter.x.clean": Attack(lambda g: content_filter(g, "clean"), "status", read_only=True),
    "filter.x.process": Attack(lambda g: content_filter(g, "process"), "diff", read_only=True),
    "include.path": Attack(include, "status"),
    "includeIf": Attack(conditional_include, "status"),
    "config.worktree": Attack(of_work_tree, "status"),
    "gpg.program": Attack(signature, "log"),
    "gpg.openpgp.program": Attack(lambda g: signature(g, "gpg__openpgp__program"), "show"),
    "submodule": Attack(submodule, "status"),
    "submodule and diff": Attack(submodule, "diff"),
    "remote.uploadpack": Attack(
        lambda g: promisor(g, remote__origin__url=str(g.workspace), remote__origin__uploadpack=g.mark), "diff"
    ),
    "core.sshCommand": Attack(
        lambda g: promisor(g, remote__origin__url="ssh://localhost/x", core__sshCommand=g.mark),
        "cat-file -p HEAD:a.txt",
    ),
    "ext transport": Attack(
        lambda g: promisor(g, remote__origin__url=f"ext::{g.mark}", protocol__ext__allow="always"), "log -p"
    ),
    "bare repository in a folder": Attack(bare_in_folder, "status", folder="bare"),
    "gitdir file": Attack(pointer, "status"),
    "the user's configuration": Attack(of_user, "status"),
    "GIT_EXTERNAL_DIFF": Attack(nothing, "diff", environ=("GIT_EXTERNAL_DIFF",)),
    "GIT_PAGER": Attack(nothing, "log", environ=("GIT_PAGER",)),
    "PAGER": Attack(nothing, "log", environ=("PAGER",)),
    "GIT_CONFIG_COUNT": Attack(
        nothing, "status", environ=("GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=core.fsmonitor", "GIT_CONFIG_VALUE_0")
    ),
    "GIT_CONFIG_PARAMETERS": Attack(nothing, "status", environ=("GIT_CONFIG_PARAMETERS='core.fsmonitor={}'",)),
    "GIT_TRACE": Attack(nothing, "status", environ=("GIT_TRACE={}ed",)),
    "GIT_TRACE2": Attack(nothing, "status", environ=("GIT_TRACE2={}ed",)),
}


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]


def test_what_makes_git_run_a_program_is_asked_about_or_runs_nothing(ground: Ground, attack: Attack) -> None:
    attack.prepare(ground)
    words, environ = tuple(attack.words.split()), attack.variables(ground)
    safety = ground.judge(*words, folder=attack.folder, **environ)
    if safety.level is SAFE:
        assert not ground.marks(words, attack.folder, environ, safety)
    if not ground.marks(words, attack.folder, environ):
        pytest.skip("this git does not run it")


def test_what_is_planted_after_the_verdict_runs_nothing(ground: Ground, attack: Attack) -> None:
    words, environ = tuple(attack.words.split()), attack.variables(ground)
    (ground.workspace / attack.folder).mkdir(exist_ok=True)
    safety = ground.judge(*words, folder=attack.folder, **environ)
    assert safety.level is SAFE, safety.reason
    attack.prepare(ground)
    assert ground.marks(words, attack.folder, environ, safety) is attack.read_only
    if not ground.marks(words, attack.folder, environ):
        pytest.skip("this git does not run it")


def test_git_starts_neutralised_and_says_what_it_would_say(ground: Ground) -> None:
    for words in (("status", "--short"), ("log", "--oneline"), ("diff",), ("branch", "--show-current"), ("ls-files",)):
        safety = ground.judge(*words, folder="sub")
        assert safety.neutralised is not None, safety.reason
        command = safety.neutralised.applied(Command(("git", *words), str(ground.workspace / "sub"), ground.environ))
        neutralised = subprocess.run(command.argv, cwd=command.cwd, env=command.env, check=True, capture_output=True)
        assert neutralised.stdout.decode().strip() == ground.git(*words, folder="sub")


def test_a_linked_work_tree_is_known_by_its_repository(ground: Ground) -> None:
    ground.git("worktree", "add", "-q", "linked")
    safety = ground.judge("log", "-p", folder="linked")
    assert safety.level is SAFE, safety.reason
    assert find_repository(str(ground.workspace / "linked")).common_dir == str(ground.workspace / ".git")


def private_repository(ground: Ground) -> Path:
    ground.git("init", "-q", "-b", "main", "../private")
    ground.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty", folder="../private")
    ground.git("worktree", "add", "-q", "../other", folder="../private")
    return ground.root / "private" / ".git"


@pytest.mark.parametrize("kind", ["pointer", "work tree of others", "common folder of others", "link"])
def test_another_repository_is_not_shown_through_this_one(ground: Ground, kind: str) -> None:
    private = private_repository(ground)
    entry = ground.workspace / ".git"
    entry.rename(ground.workspace / "old")
    if kind == "pointer":
        entry.write_text(f"gitdir: {private}\n")
    elif kind == "work tree of others":
        entry.write_text(f"gitdir: {private}/worktrees/other\n")
    elif kind == "common folder of others":
        ground.write("made/worktrees/x/gitdir", f"{entry}\n")
        ground.write("made/worktrees/x/HEAD", "ref: refs/heads/main\n")
        ground.write("made/worktrees/x/commondir", f"{private}\n")
        entry.write_text("gitdir: made/worktrees/x\n")
    else:
        entry.symlink_to(private)
    assert ground.git("rev-parse", "main")
    assert ground.judge("log").level is ASK


@pytest.mark.parametrize(
    "name", ["rebase-merge/head-name", "rebase-merge/done", "worktrees/e/locked", "modules/m/HEAD"]
)
def test_what_git_shows_of_its_state_is_no_link_elsewhere(ground: Ground, name: str) -> None:
    assert ground.judge("status").level is SAFE
    place = ground.workspace / ".git" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(ground.root / "secret")
    assert "is a link" in ground.judge("status").reason


@pytest.mark.parametrize("name", [".git/info/exclude", ".git/packed-refs", ".gitignore", ".mailmap", ".gitattributes"])
def test_what_git_reads_for_itself_is_no_pipe(ground: Ground, name: str) -> None:
    assert ground.judge("log").level is SAFE
    place = ground.workspace / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    assert ground.judge("log").level is ASK


def test_a_single_object_of_another_repository_is_asked_about(ground: Ground) -> None:
    private_repository(ground)
    blob = ground.git("hash-object", "-w", "--stdin", folder="../private", data="private")
    place = f".git/objects/{blob[:2]}/{blob[2:]}"
    (ground.workspace / place).parent.mkdir(exist_ok=True)
    (ground.workspace / place).symlink_to(ground.root / "private" / place)
    assert ground.git("cat-file", "-p", blob) == "private"
    assert "is a link" in ground.judge("cat-file", "-p", blob).reason


@pytest.mark.parametrize("name", ["objects", "refs", "objects/pack", "HEAD", "logs/HEAD", "refs/heads/main"])
def test_a_link_inside_of_a_repository_is_asked_about(ground: Ground, name: str) -> None:
    place = ground.workspace / ".git" / name
    place.rename(ground.root / "moved")
    place.symlink_to(ground.root / "moved")
    assert "is a link" in ground.judge("log").reason


def test_a_repository_around_this_one_is_not_asked(ground: Ground) -> None:
    """Git would look into it under its own configuration, which nobody has read."""
    ground.config(core__fsmonitor=ground.mark)
    ground.git("update-index", "--fsmonitor")
    words = ("rev-parse", "--show-superproject-working-tree")
    ground.git("init", "-q", "inner")
    if not ground.marks(words, "inner", {}):
        pytest.skip("this git does not look")
    assert ground.judge(*words, folder="inner").level is ASK


def test_objects_of_another_repository_are_asked_about(ground: Ground) -> None:
    ground.write(".git/objects/info/alternates", "/elsewhere\n")
    assert ground.judge("log").level is ASK


def test_a_common_folder_that_is_planted_is_not_used(ground: Ground) -> None:
    ground.write(".git/commondir", f"{private_repository(ground)}\n")
    safety = ground.judge("log")
    assert safety.neutralised is not None
    assert safety.neutralised.environ["GIT_COMMON_DIR"] == str(ground.workspace / ".git")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("name", ["", ".git"])
def test_a_repository_of_another_user_is_asked_about(ground: Ground, name: str) -> None:
    os.chown(ground.workspace / name, 12345, 12345)
    assert "belongs to another user" in ground.judge("status").reason


def test_a_repository_around_the_home_is_asked_about(ground: Ground) -> None:
    assert ground.judge("status", HOME=str(ground.workspace / "sub")).level is ASK


@pytest.mark.parametrize("call", ["diff", "show", "log -p", "grep x", "status -v", "cat-file -p HEAD"])
def test_what_prints_files_is_asked_about_where_a_secret_lies(ground: Ground, call: str) -> None:
    assert ground.judge(*call.split()).level is SAFE
    ground.write("sub/.env", "x")
    assert ground.judge(*call.split()).level is ASK
    assert ground.judge("status").level is SAFE


@pytest.mark.parametrize(
    "call",
    [
        "show HEAD:.env",
        "log -- .env",
        "cat-file -p HEAD:deploy.pem",
        "diff /etc/passwd /etc/hostname",
        "log ../other",
        "-C .. status",
        "-C / log",
        "-c core.pager=x log",
        "-ccore.pager=x log",
        "--git-dir=x log",
        "--work-tree=/ status",
        "--exec-path=x status",
        "--config-env=core.pager=X log",
        "-p log",
        "--paginate log",
        "--bare log",
        "--namespace=x log",
        "--attr-source=x log",
        "--super-prefix=x status",
        "commit -m x",
        "fetch",
        "st",
        "help log",
        "config --list",
        "difftool",
        "ls-remote",
        "archive HEAD",
        "submodule status",
        "check-attr -a x",
        "fsck",
        "verify-commit HEAD",
        "diff :0:a.txt :1:a.txt",
        "log :(top)x",
        "var GIT_EDITOR",
        "-C",
        "--no-pager",
    ],
)
def test_other_calls_are_asked_about(ground: Ground, call: str) -> None:
    assert ground.judge(*call.split()).level is ASK


def test_the_folder_that_a_call_names_counts(ground: Ground) -> None:
    safety = ground.judge("-C", "sub", "--no-pager", "log", "--", "b.txt")
    assert safety.neutralised is not None, safety.reason
    assert safety.neutralised.argv[1:5] == ("-C", "sub", "--no-pager", "log")


def test_where_nobody_neutralises_git_is_asked_about(ground: Ground) -> None:
    policy = SandboxPolicy(SandboxMode.READ_ONLY, str(ground.workspace), (), ())
    for argv in (("git", "status"), ("bash", "-lc", "git status"), ("bash", "-c", "git log | head -5")):
        assert classify(argv, policy, environ=ground.environ).level is ASK
        action = Action(argv, str(ground.workspace))
        safety = assess(action, policy, Rules(()), environ=ground.environ).safety
        assert (safety.level is SAFE) is (safety.neutralised is not None) is (argv[0] == "git")


def test_every_subcommand_does_what_its_examples_say() -> None:
    assert all(subcommand_named(name) for name in load_table("git")["subcommand"])


@pytest.mark.parametrize("name", sorted(load_table("git")["subcommand"]))
def test_git_knows_what_the_examples_say_and_nothing_is_written(ground: Ground, name: str) -> None:
    ground.git("tag", "v1")
    before = snapshot(ground.workspace)
    for line in load_table("git")["subcommand"][name]["safe"]:
        words = tuple(line.replace("'", "").split())
        safety = ground.judge(*words)
        if safety.neutralised is not None:
            command = safety.neutralised.applied(Command(("git", *words), str(ground.workspace), ground.environ))
            done = subprocess.run(command.argv, cwd=command.cwd, env=command.env, check=False, capture_output=True)
            assert b"unknown option" not in done.stderr, (line, done.stderr)
            assert b"usage:" not in done.stderr, (line, done.stderr)
    assert snapshot(ground.workspace) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# The configuration


@pytest.mark.parametrize(
    "text",
    [
        "[core] fsmonitor = x\n",
        "[core]\nfsmonitor = x\\\ny\n",
        '[core "a\\"b"]\nx = y\n',
        "[core\nx = y\n",
        "x = y\n",
        "[core]\n= y\n",
        "[core]\nx y\n",
        "\ufeff[core]\nx = y\n",
        "[core]\r\nx = y\r\n",
        "[core]\nx = a\x0bb\n",
        "[a.b]\nx = y\n",
        "[core]\nx = \0\n",
    ],
)
def test_a_configuration_that_is_written_in_an_unusual_way_is_not_understood(text: str) -> None:
    with pytest.raises(NotSafeError, match=r"^c:\d+ is not understood"):
        list(read_configuration(text.encode(), "c"))


@pytest.mark.parametrize(
    "text",
    [
        '[remote "origin"]\n\turl = https://user:word@example.com/x\n',
        "[filter]\nx = y\n",
        "[core]\n\tFSMonitor\n",
        "[CORE]\n\tpager = x\n",
        '[core ""]\npager = x\n',
        '[alias]\nst = "!x"\n',
        "[unheard]\nof = x\n",
    ],
)
def test_a_key_that_is_not_known_to_be_harmless_is_asked_about(ground: Ground, text: str) -> None:
    with (ground.workspace / ".git" / "config").open("a") as file:
        file.write(text)
    assert ground.judge("status").level is ASK


def test_a_configuration_that_is_no_plain_small_file_is_asked_about(ground: Ground) -> None:
    config = ground.workspace / ".git" / "config"
    config.write_text("# " + "x" * 70_000)
    assert "too large" in ground.judge("status").reason
    config.unlink()
    os.mkfifo(config)
    assert "is no file" in ground.judge("status").reason


def test_attributes_that_name_a_filter_are_asked_about(ground: Ground) -> None:
    ground.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    assert "names a filter" in ground.judge("status").reason


NAMES = st.text("abcXY-1", min_size=1, max_size=4)
ENTRIES = st.tuples(
    st.sampled_from(
        [
            "[{}]",
            '[{} "{}"]',
            "[{}] {} = x",
            "\t{} = {}",
            "{}={}",
            "{} = a b ; c {}",
            " {} {}",
            "; {} {}",
            '{} = "{}"',
            "{} = '{}'",
            "{} =",
            "{}",
            "{} = \\{}",
        ]
    ),
    NAMES,
    NAMES,
).map(lambda parts: parts[0].format(*parts[1:]))


@given(entries=st.lists(ENTRIES, max_size=8))
def test_git_reads_no_key_that_the_strict_reading_does_not(entries: list[str]) -> None:
    text = "\n".join(entries).encode() + b"\n"
    try:
        keys = [key for key, _ in read_configuration(text, "c")]
    except NotSafeError:
        return
    listed = subprocess.run(
        ["git", "config", "--file", "-", "--list", "--name-only", "-z"], input=text, check=False, capture_output=True
    )
    if listed.returncode == 0:
        assert keys == listed.stdout.decode().split("\0")[:-1]
