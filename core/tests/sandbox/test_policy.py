from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.errors import CommandNotFoundError, ConfigError
from codex_core.sandbox.policy import (
    PROTECTED_NAMES,
    SandboxPolicy,
    SandboxSettings,
    build_policy,
    canonical,
    contains,
    nested_repositories,
)
from codex_core.types import Network, Operation, ProtectGit, SandboxMode
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITE = SandboxMode.WORKSPACE_WRITE


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    return folder


@pytest.fixture
def build(tmp_path: Path, workspace: Path) -> Callable[..., SandboxPolicy]:
    """Build a policy whose only root is the workspace, unless told otherwise."""

    def _build(**given: Any) -> SandboxPolicy:  # noqa: ANN401 - the arguments of build_policy and its settings
        chosen: dict[str, Any] = {"mode": WRITE, "exclude_slash_tmp": True} | given.pop("settings", {})
        chosen["writable_roots"] = tuple(str(root) for root in chosen.get("writable_roots", ()))
        arguments: dict[str, Any] = {
            "cwd": str(workspace),
            "environ": {},
            "codex_home": str(tmp_path / "home" / ".codex"),
        } | given
        return build_policy(SandboxSettings(**chosen), **arguments)

    return _build


def allowed(policy: SandboxPolicy, path: object) -> bool:
    return policy.check(Operation.WRITE, os.fspath(path)) is None  # type: ignore[call-overload]


# Modes


def test_read_only_writes_nothing_and_names_the_setting_that_would(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    policy = build(settings={"mode": SandboxMode.READ_ONLY, "network_access": True})
    denial = policy.check(Operation.WRITE, str(workspace / "a"))
    assert denial is not None
    assert denial.cure == 'sandbox_mode = "workspace-write"'
    assert policy.writable_roots == ()
    assert policy.network is Network.OFF


def test_full_access_allows_everything(build: Callable[..., SandboxPolicy]) -> None:
    policy = build(settings={"mode": SandboxMode.DANGER_FULL_ACCESS})
    assert allowed(policy, "/etc/passwd")
    assert policy.check(Operation.CONNECT, "example.com:443") is None


@pytest.mark.parametrize("mode", list(SandboxMode))
def test_reading_is_open_in_every_mode(build: Callable[..., SandboxPolicy], mode: SandboxMode) -> None:
    assert build(settings={"mode": mode}).check(Operation.READ, "/etc/passwd") is None


def test_the_network_is_off_unless_the_setting_opens_it(build: Callable[..., SandboxPolicy]) -> None:
    denial = build().check(Operation.CONNECT, "example.com:443")
    assert denial is not None
    assert denial.cure == "sandbox_workspace_write.network_access = true"
    assert build(settings={"network_access": True}).check(Operation.CONNECT, "example.com:443") is None


# Roots


def test_roots_are_the_configured_ones_then_cwd_then_tmp_then_tmpdir(tmp_path: Path, workspace: Path) -> None:
    more, temporary = tmp_path / "more", tmp_path / "t"
    more.mkdir()
    temporary.mkdir()
    policy = build_policy(
        SandboxSettings(WRITE, (str(more),)),
        cwd=str(workspace),
        environ={"TMPDIR": str(temporary)},
        codex_home=str(tmp_path / "home"),
    )
    assert policy.writable_roots == (str(more), str(workspace), os.path.realpath("/tmp"), str(temporary))


@pytest.mark.parametrize("value", ["", "relative", "/nowhere/at/all"])
def test_a_tmpdir_that_is_no_absolute_existing_folder_is_no_root(
    build: Callable[..., SandboxPolicy], workspace: Path, value: str
) -> None:
    assert build(environ={"TMPDIR": value}).writable_roots == (str(workspace),)


def test_both_temporary_folders_can_be_excluded(
    build: Callable[..., SandboxPolicy], tmp_path: Path, workspace: Path
) -> None:
    policy = build(environ={"TMPDIR": str(tmp_path)}, settings={"exclude_tmpdir_env_var": True})
    assert policy.writable_roots == (str(workspace),)


def test_a_missing_root_is_left_out_and_named(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    policy = build(settings={"writable_roots": ["/nowhere/at/all"]})
    assert policy.writable_roots == (str(workspace),)
    assert any("/nowhere/at/all" in notice for notice in policy.notices)


def test_a_relative_root_is_an_error(build: Callable[..., SandboxPolicy]) -> None:
    with pytest.raises(ConfigError, match="not an absolute path"):
        build(settings={"writable_roots": ["src"]})


def test_a_working_directory_that_is_gone_is_named(build: Callable[..., SandboxPolicy]) -> None:
    with pytest.raises(CommandNotFoundError, match="/nowhere"):
        build(cwd="/nowhere")


def test_a_root_is_known_by_its_real_path_however_it_is_spelt(
    build: Callable[..., SandboxPolicy], tmp_path: Path, workspace: Path
) -> None:
    (tmp_path / "link").symlink_to(workspace)
    policy = build(cwd=f"{tmp_path}/link/../ws/.//")
    assert policy.cwd == str(workspace)
    assert policy.writable_roots == (str(workspace),)


def test_a_file_can_be_a_root(build: Callable[..., SandboxPolicy], tmp_path: Path) -> None:
    single = tmp_path / "notes.txt"
    single.touch()
    policy = build(settings={"writable_roots": [single]})
    assert allowed(policy, single)
    assert not allowed(policy, tmp_path / "notes.txt2")


def test_the_whole_disk_as_root_still_protects(build: Callable[..., SandboxPolicy], tmp_path: Path) -> None:
    policy = build(settings={"writable_roots": ["/"]})
    assert allowed(policy, tmp_path / "x")
    assert not allowed(policy, tmp_path / "home" / ".codex" / "config.toml")
    assert not allowed(policy, "/.git/config")


def test_names_that_are_not_utf8_survive(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    (workspace / odd).mkdir()
    policy = build(settings={"writable_roots": [workspace / odd]})
    assert str(workspace / odd) in policy.writable_roots
    assert not allowed(policy, workspace / odd / ".git")


# Protected names


@pytest.mark.parametrize("name", PROTECTED_NAMES)
def test_protected_names_are_closed_before_they_exist(
    build: Callable[..., SandboxPolicy], workspace: Path, name: str
) -> None:
    policy = build()
    assert str(workspace / name) in policy.protected
    assert not allowed(policy, workspace / name)
    assert not allowed(policy, workspace / name / "deep" / "config")
    assert allowed(policy, workspace / f"{name}ignore")


def test_case_does_not_open_a_protected_name(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    (workspace / ".GIT").mkdir()
    policy = build()
    assert str(workspace / ".GIT") in policy.protected
    assert not allowed(policy, workspace / ".GIT" / "config")
    assert not allowed(policy, workspace / ".Git" / "config")


def test_a_denial_says_which_path_is_protected_and_why(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    denial = build().check(Operation.WRITE, str(workspace / ".codex" / "config.toml"))
    assert denial is not None
    assert str(workspace / ".codex") in denial.rule
    assert denial.cure == ""


def test_a_linked_protected_name_closes_the_link_and_where_it_leads(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    (workspace / "real").mkdir()
    (workspace / "step").symlink_to("real")
    (workspace / ".git").symlink_to("step")
    policy = build()
    assert {str(workspace / name) for name in (".git", "step", "real")} <= set(policy.protected)
    for name in (".git", "step", "real", "real/config", ".git/config"):
        assert not allowed(policy, workspace / name)


def test_a_link_on_the_way_is_closed_too(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    (workspace / "a" / "real").mkdir(parents=True)
    (workspace / "way").symlink_to("a")
    (workspace / ".git").symlink_to("way/real")
    policy = build()
    assert not allowed(policy, workspace / "way")
    assert not allowed(policy, workspace / "a" / "real")


def test_a_dangling_link_closes_the_place_where_its_target_would_be(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    (workspace / ".codex").symlink_to("later")
    policy = build()
    assert not allowed(policy, workspace / "later" / "config.toml")
    assert not allowed(policy, workspace / ".codex")


def test_a_loop_of_links_is_survived(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    (workspace / ".git").symlink_to(".git")
    (workspace / "loop").symlink_to("loop")
    policy = build()
    assert not allowed(policy, workspace / ".git")
    assert not allowed(policy, workspace / "loop" / "x")


def test_links_inside_a_protected_folder_close_where_they_lead(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    hooks = workspace / ".git" / "hooks"
    hooks.mkdir(parents=True)
    (workspace / "scripts").mkdir()
    (hooks / "pre-commit").symlink_to("../../scripts/check.sh")
    policy = build()
    assert not allowed(policy, workspace / "scripts" / "check.sh")
    assert allowed(policy, workspace / "scripts" / "other.sh")


def test_a_gitdir_file_closes_the_repository_that_it_names(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    (workspace / "realgit").mkdir()
    (workspace / ".git").write_text("gitdir: realgit\n")
    assert not allowed(build(), workspace / "realgit" / "config")


def test_a_worktree_closes_the_repository_that_it_shares(
    build: Callable[..., SandboxPolicy], tmp_path: Path, workspace: Path
) -> None:
    main = tmp_path / "main"
    run = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*run, "init", "-q", str(main)], check=True)
    subprocess.run([*run, "-C", str(main), "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    workspace.rmdir()
    subprocess.run([*run, "-C", str(main), "worktree", "add", "-q", str(workspace)], check=True, capture_output=True)
    policy = build(settings={"writable_roots": [tmp_path]})
    assert not allowed(policy, main / ".git" / "hooks" / "pre-commit")
    assert not allowed(policy, workspace / ".git")


def test_the_shared_repository_is_closed_where_no_root_names_it(
    build: Callable[..., SandboxPolicy], tmp_path: Path, workspace: Path
) -> None:
    (tmp_path / "store" / "worktrees" / "w").mkdir(parents=True)
    (tmp_path / "store" / "worktrees" / "w" / "commondir").write_text("../..\n")
    (workspace / ".git").write_text(f"gitdir: {tmp_path}/store/worktrees/w\n")
    policy = build(settings={"writable_roots": [tmp_path]})
    assert not allowed(policy, tmp_path / "store" / "config")


@pytest.mark.parametrize("content", ["", "gitdir:", "gitdir: \n", "gitdir: a\0b", "nonsense", "gitdir: " + "x/" * 9000])
def test_a_broken_gitdir_file_is_survived_and_closed(
    build: Callable[..., SandboxPolicy], workspace: Path, content: str
) -> None:
    (workspace / ".git").write_text(content)
    assert not allowed(build(), workspace / ".git")


def test_a_pipe_in_place_of_a_gitdir_file_does_not_hang(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    os.mkfifo(workspace / ".git")
    assert not allowed(build(), workspace / ".git")


def test_a_bare_repository_as_root_closes_what_git_runs(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    for name in ("objects", "refs", "hooks"):
        (workspace / name).mkdir()
    (workspace / "HEAD").write_text("ref: refs/heads/x\n")
    policy = build()
    assert not allowed(policy, workspace / "hooks" / "update")
    for name in ("config", "config.worktree", "commondir", "info/attributes"):
        assert not allowed(policy, workspace / name), name
    assert allowed(policy, workspace / "refs" / "heads")


def test_links_in_every_protected_folder_close_where_they_lead(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    for name in (".codex", ".agents", ".git/hooks"):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "link").symlink_to(workspace / "real" / name[1:4])
    for choice in ProtectGit:
        policy = build(settings={"protect_git": choice})
        for led in ("cod", "age", "git"):
            assert not allowed(policy, workspace / "real" / led), (choice, led)


def test_a_linked_repository_is_closed_whole_where_commits_are_allowed(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    (workspace / "real").mkdir()
    assert allowed(build(), workspace / "real" / "index")
    (workspace / ".git").symlink_to("real")
    assert not allowed(build(settings={"protect_git": ProtectGit.HOOKS}), workspace / "real" / "index")


def test_a_nested_repository_is_closed_whatever_its_case(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    (workspace / "sub" / ".GIT").mkdir(parents=True)
    assert not allowed(build(), workspace / "sub" / ".GIT" / "config")


# Nested repositories


def test_nested_repositories_are_closed_as_deep_as_the_bound_reaches(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    deep = workspace / "1/2/3/4/5/6/.git"
    deep.mkdir(parents=True)
    bare = workspace / "fixtures" / "bare.git"
    for name in ("objects", "refs", "HEAD"):
        (bare / name).mkdir(parents=True)
    policy = build()
    assert not allowed(policy, deep / "config")
    assert not allowed(policy, bare / "config")
    assert nested_repositories(str(workspace)) == ([str(bare), str(deep)], True)


def test_the_search_for_nested_repositories_is_bounded_and_follows_no_link(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / ".git").mkdir(parents=True)
    (workspace / "link").symlink_to(tmp_path / "elsewhere")
    (workspace / "a" / "b" / ".git").mkdir(parents=True)
    assert nested_repositories(str(workspace)) == ([str(workspace / "a" / "b" / ".git")], True)
    assert nested_repositories(str(workspace), folders=2) == ([], False)


# Codex itself


def test_the_home_of_codex_is_closed_inside_a_root(build: Callable[..., SandboxPolicy], tmp_path: Path) -> None:
    policy = build(settings={"writable_roots": [tmp_path]})
    assert not allowed(policy, tmp_path / "home" / ".codex" / "config.toml")
    assert allowed(policy, tmp_path / "home" / "notes")


def test_a_configuration_that_is_a_link_is_closed_where_it_lies(
    build: Callable[..., SandboxPolicy], tmp_path: Path
) -> None:
    home, dotfiles = tmp_path / "home" / ".codex", tmp_path / "dotfiles"
    home.mkdir(parents=True)
    dotfiles.mkdir()
    (dotfiles / "config.toml").touch()
    (home / "config.toml").symlink_to(dotfiles / "config.toml")
    policy = build(cwd=str(dotfiles))
    assert not allowed(policy, dotfiles / "config.toml")
    assert allowed(policy, dotfiles / "vimrc")


def test_code_inside_the_workspace_is_closed_and_cannot_be_moved_away(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    code = workspace / ".venv" / "lib" / "site-packages"
    code.mkdir(parents=True)
    policy = build(code_locations=[str(code)])
    assert not allowed(policy, code / "codex_core" / "host.py")
    assert policy.pinned == (str(workspace / ".venv"), str(workspace / ".venv" / "lib"))
    assert policy.check(Operation.REMOVE, str(workspace / ".venv" / "lib")) is not None
    assert allowed(policy, workspace / ".venv" / "lib" / "other")


def test_a_workspace_inside_the_code_is_not_writable_and_a_notice_says_so(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    inside = workspace / "src" / "package"
    inside.mkdir(parents=True)
    policy = build(cwd=str(inside), code_locations=[str(workspace / "src")])
    assert policy.writable_roots == ()
    assert any(str(inside) in notice and "code" in notice for notice in policy.notices)


@pytest.mark.parametrize("name", [".git", ".Git", ".codex", ".agents"])
def test_a_working_directory_inside_a_protected_folder_is_not_writable(
    build: Callable[..., SandboxPolicy], tmp_path: Path, name: str
) -> None:
    inside = tmp_path / name / "hooks"
    inside.mkdir(parents=True)
    policy = build(cwd=str(inside))
    assert policy.writable_roots == ()
    assert any(name in notice for notice in policy.notices)


def test_a_root_inside_another_roots_protected_path_does_not_open_it(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    (workspace / "realgit" / "deep").mkdir(parents=True)
    (workspace / ".git").symlink_to("realgit")
    policy = build(settings={"writable_roots": [workspace / "realgit" / "deep"]})
    assert policy.writable_roots == (str(workspace),)
    assert not allowed(policy, workspace / "realgit" / "deep" / "x")


# check


@pytest.mark.parametrize("target", ["", "relative", "a\0b", "/a\0b", "/\ud800"])
def test_what_cannot_be_judged_is_denied(build: Callable[..., SandboxPolicy], target: str) -> None:
    assert build().check(Operation.WRITE, target) is not None


def test_a_link_out_of_the_workspace_is_judged_where_it_leads(
    build: Callable[..., SandboxPolicy], workspace: Path
) -> None:
    (workspace / "out").symlink_to("/etc")
    denial = build().check(Operation.WRITE, str(workspace / "out" / "passwd"))
    assert denial is not None
    assert denial.target == "/etc/passwd"
    assert "writable_roots" in denial.cure


def test_a_link_may_be_removed_wherever_it_leads(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    (workspace / "out").symlink_to("/etc")
    (workspace / "loop").symlink_to("loop")
    for name in ("out", "loop"):
        assert build().check(Operation.REMOVE, str(workspace / name)) is None
    assert build().check(Operation.REMOVE, str(workspace / "out" / "passwd")) is not None


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_root_stays_unless_it_lies_in_another_one(
    build: Callable[..., SandboxPolicy], workspace: Path, tmp_path: Path, kind: str
) -> None:
    inner, outer = workspace / "inner", tmp_path / "outer"
    for path in (inner, outer):
        path.touch() if kind == "file" else path.mkdir()
    policy = build(settings={"writable_roots": [inner, outer]})
    assert allowed(policy, outer)
    denial = policy.check(Operation.REMOVE, str(outer))
    assert denial is not None
    assert str(tmp_path) in denial.cure
    # In a folder there are protected names, so it stays too.
    assert (policy.check(Operation.REMOVE, str(inner)) is None) is (kind == "file")


def test_a_neighbour_with_the_same_beginning_is_outside(build: Callable[..., SandboxPolicy], tmp_path: Path) -> None:
    assert not allowed(build(), tmp_path / "ws2" / "x")


def test_dots_do_not_lead_out(build: Callable[..., SandboxPolicy], workspace: Path) -> None:
    assert not allowed(build(), f"{workspace}/a/../../x")
    assert not allowed(build(), f"{workspace}/a/../.git/x")


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = "import sys, codex_core.sandbox.policy, codex_core.sandbox.environment; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    heavy = {"pathlib", "subprocess", "pluggy", "pydantic", "stevedore", "argparse", "importlib.metadata"}
    assert heavy.isdisjoint(run.stdout.split())


# Laws


NAMES = st.sampled_from(["a", "b", ".git", ".GIT", ".codex", "real", "é", "x y"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LINKS = st.lists(
    # No link leads out of the tree: what is grown later would follow it.
    st.tuples(PATHS, st.sampled_from(["a", "real", "../b", ".", "missing/x", ".git"])),
    max_size=4,
)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]], list[str], str]:
    """Draw folders, links, roots and a home of codex, all relative to one folder."""
    folders = draw(st.lists(PATHS, min_size=1, max_size=5))
    return folders, draw(LINKS), draw(st.lists(st.sampled_from([*folders, "."]), max_size=3)), draw(PATHS)


def grow(base: Path, folders: list[str], links: list[tuple[str, str]]) -> None:
    for folder in folders:
        try:
            (base / folder).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
    for at, target in links:
        try:
            (base / at).parent.mkdir(parents=True, exist_ok=True)
            (base / at).symlink_to(target)
        except OSError:
            continue


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(tree=(["a/a"], [("a/.git", "a")], ["."], "b"), targets=["a"], extra="a")
@given(tree=trees(), targets=st.lists(PATHS, min_size=1, max_size=6), extra=PATHS)
def test_protected_beats_writable_and_more_roots_never_open_what_was_closed(
    tmp_path_factory: pytest.TempPathFactory,
    tree: tuple[list[str], list[tuple[str, str]], list[str], str],
    targets: list[str],
    extra: str,
) -> None:
    base = tmp_path_factory.mktemp("tree")
    folders, links, roots, home = tree
    grow(base, folders, links)
    assume(os.path.isdir(base / folders[0]))

    def policy_for(more: list[str]) -> SandboxPolicy:
        chosen = SandboxSettings(WRITE, tuple(str(base / root) for root in more), exclude_slash_tmp=True)
        return build_policy(chosen, cwd=str(base / folders[0]), environ={}, codex_home=str(base / home))

    small, large = policy_for(roots), policy_for([*roots, extra])
    assert all(canonical(path) == canonical(canonical(path)) for path in small.writable_roots)
    for policy in (small, large):
        for root in policy.writable_roots:
            assert not any(contains(closed, root) for closed in policy.protected)
        for closed in policy.protected:
            assert policy.check(Operation.WRITE, closed) is not None
            # A link in a subfolder that leads to a whole root closes itself, and not the root.
            if any(contains(other, canonical(closed)) for other in policy.protected):
                assert policy.check(Operation.WRITE, os.path.join(closed, "below")) is not None
            assert any(contains(root, closed) for root in policy.writable_roots)
    for target in targets:
        path = str(base / target)
        resolved = canonical(path)
        if small.check(Operation.WRITE, path) is None:
            assert any(contains(root, resolved) for root in small.writable_roots)
            assert not any(contains(closed, resolved) for closed in small.protected)
        if any(contains(closed, resolved) for closed in small.protected):
            assert large.check(Operation.WRITE, path) is not None


@given(
    roots=st.lists(st.text("/.ab", max_size=9).map("/".__add__), max_size=3),
    protected=st.lists(st.text("/.ab", max_size=9).map("/".__add__), max_size=3),
    mode=st.sampled_from(SandboxMode),
    operation=st.sampled_from(Operation),
    target=st.text(st.characters(), max_size=20),
)
def test_check_never_raises(
    roots: list[str], protected: list[str], mode: SandboxMode, operation: Operation, target: str
) -> None:
    policy = SandboxPolicy(mode, "/", tuple(roots), tuple(protected))
    for asked in (target, f"/{target}"):
        denial = policy.check(operation, asked)
        assert denial is None or (denial.operation is operation and denial.rule)


@given(
    path=st.lists(st.sampled_from(["a", "..", ".", "", "tmp", "proc", "self", "é", "\udcff"]), max_size=8).map("/".join)
)
def test_canonicalisation_is_idempotent(path: str) -> None:
    once = canonical(f"/{path}")
    assert canonical(once) == once
