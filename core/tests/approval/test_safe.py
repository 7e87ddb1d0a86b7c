from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.approval import tables
from codex_core.approval.safe import classify
from codex_core.approval.tables import danger_rule, load_table, safe_named, safe_program, wrapper, wrapper_named
from codex_core.errors import ConfigError
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Safety, SafetyClass, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAFE, ASK, DANGEROUS = SafetyClass.SAFE, SafetyClass.ASK, SafetyClass.DANGEROUS


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Safety]:
    """Judge a line of plain words in a workspace with a home beside it."""
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (tmp_path / "home").mkdir()
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(workspace), (str(workspace),), ())

    def _judge(line: str, **environ: str) -> Safety:
        around = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")} | environ
        return classify(shlex.split(line), policy, environ=around)

    return _judge


EXAMPLES = [(line, SAFE) for name in load_table("safe") for line in load_table("safe")[name]["safe"]] + [
    (line, DANGEROUS) for rule in load_table("dangerous")["rule"] for line in rule["match"]
]


@pytest.mark.parametrize(("line", "level"), EXAMPLES)
def test_the_examples_of_the_tables_hold_with_files_around_them(
    judge: Callable[..., Safety], line: str, level: SafetyClass
) -> None:
    assert judge(line).level is level


@pytest.mark.parametrize(
    "line",
    [
        "./cat a",
        "bin/cat a",
        "../evil/grep x a",
        "/tmp/evil/cat a",
        "make",
        "bash x.sh",
        "git status",
        "env",
        "printenv",
        "sh x.sh",
        "awk 'BEGIN{system(1)}'",
        "nice ls",
    ],
)
def test_what_is_not_known_is_asked_about(judge: Callable[..., Safety], line: str) -> None:
    assert judge(line).level is ASK


@pytest.mark.parametrize(
    "line",
    [
        "sudo -u root -- env A=b nice -n 3 rm -rf x",
        "xargs -0 -I {} rm -rf {}",
        "timeout -k 1 5 rm -f x",
        "find . -exec rm -rf {} +",
        "find . -name a -execdir sudo id ;",
        "nohup busybox rm -fr x",
        "env --unknown-option rm -rf x",
        "stdbuf -oL git push --force",
        "git -C d --no-pager push origin +main",
        "xargs git reset --hard",
    ],
)
def test_danger_is_seen_through_what_runs_it(judge: Callable[..., Safety], line: str) -> None:
    assert judge(line).level is DANGEROUS


@pytest.mark.parametrize(
    "line",
    [
        "test " + "! " * 5000 + "-f a",
        "[ " + "! " * 5000 + "-f a ]",
        "find . " + "-exec env " * 20_000,
    ],
    ids=["test", "bracket", "find"],
)
def test_a_line_without_end_is_judged(judge: Callable[..., Safety], line: str) -> None:
    assert judge(line).level is not SAFE


def test_what_a_second_find_runs_is_seen(judge: Callable[..., Safety]) -> None:
    assert judge("find . -exec env {} ; -exec find x -exec rm -rf {} + ;").level is DANGEROUS


@pytest.mark.skipif(not shutil.which("strings"), reason="there are no binutils")
@pytest.mark.parametrize("option", ["-n", "--bytes"])
def test_strings_reads_no_words_from_a_file(judge: Callable[..., Safety], tmp_path: Path, option: str) -> None:
    (tmp_path / "secret").write_text("a secret of mine")
    (tmp_path / "words").write_text(f"4 {tmp_path}/secret")
    (tmp_path / "x").write_text("hello")
    command = ["strings", option, "@words", "x"]
    assert b"a secret of mine" in subprocess.check_output(command, cwd=tmp_path)
    assert judge(" ".join(command)).level is ASK


def test_more_wrappers_than_anyone_needs_are_not_safe(judge: Callable[..., Safety]) -> None:
    assert judge("nice " * 40 + "rm -rf x").level >= ASK


@pytest.mark.parametrize(
    "path",
    [
        "~/.ssh/id_rsa",
        ".env",
        ".env.local",
        "sub/../.env",
        "deploy.pem",
        ".git/config",
        "/etc/shadow",
        "/proc/self/environ",
        "/proc/1/environ",
        "/root/.codex/auth.json",
        "$HOME",
        "/etc/ssl/private/x",
        "/home/x/notes",
        "../other/a",
        "/dev/zero",
    ],
)
@pytest.mark.parametrize("program", ["cat", "head -5", "grep -n x", "ls", "wc -l", "find", "sed -n 1p"])
def test_secrets_and_what_lies_outside_are_asked_about(
    judge: Callable[..., Safety], tmp_path: Path, program: str, path: str
) -> None:
    home = str(tmp_path / "home")
    assert judge(f"{program} {path.replace('~', home).replace('$HOME', home)}").level is ASK


def test_public_templates_of_secrets_are_read_unasked(judge: Callable[..., Safety]) -> None:
    assert judge("cat .env.example /usr/share/doc /etc/os-release").level is SAFE


def test_a_link_to_a_secret_is_a_secret(judge: Callable[..., Safety], tmp_path: Path) -> None:
    (tmp_path / "ws" / "notes").symlink_to(tmp_path / "home" / ".ssh" / "id_rsa")
    assert judge("cat notes").level is ASK


def test_a_pipe_or_device_in_the_workspace_is_asked_about(judge: Callable[..., Safety], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ws" / "pipe")
    assert judge("cat pipe").level is ASK


def test_walking_over_the_whole_home_is_asked_about(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    policy = SandboxPolicy(SandboxMode.READ_ONLY, str(home), (), ())
    environ = {"PATH": "/usr/bin", "HOME": str(home)}
    assert classify(["grep", "-r", "x"], policy, environ=environ).level is ASK
    assert classify(["ls"], policy, environ=environ).level is SAFE


@pytest.mark.parametrize(
    "line", ["grep -r x", "grep -rn x .", "rg x", "rg x sub", "diff -r sub other", "grep -r x sub"]
)
@pytest.mark.parametrize(
    "secret", [".env", "prod.env", "deep/server.key", "deep/deeper/id_rsa_work", "deep/credentials", ".aws/config"]
)
def test_reading_a_whole_folder_with_a_secret_in_it_is_asked_about(
    judge: Callable[..., Safety], tmp_path: Path, line: str, secret: str
) -> None:
    for folder in ("sub/deep/deeper", "other"):
        (tmp_path / "ws" / folder).mkdir(parents=True)
    (tmp_path / "ws" / "sub" / "deep" / ".env.example").touch()
    assert judge(line).level is SAFE
    (tmp_path / "ws" / "sub" / secret).parent.mkdir(exist_ok=True)
    (tmp_path / "ws" / "sub" / secret).touch()
    assert judge(line).level is ASK
    assert judge("rg --files").level is SAFE
    assert judge("ls -R").level is SAFE


def test_comparing_folders_with_a_link_in_them_is_asked_about(judge: Callable[..., Safety], tmp_path: Path) -> None:
    (tmp_path / "home" / "id").write_text("a secret of mine\n")
    for name in ("one", "two"):
        (tmp_path / "ws" / name).mkdir()
        (tmp_path / "ws" / name / "file").touch()
    assert judge("diff -r one two").level is SAFE
    (tmp_path / "ws" / "one" / "file").unlink()
    (tmp_path / "ws" / "one" / "file").symlink_to(tmp_path / "home" / "id")
    compared = subprocess.run(["diff", "one", "two"], cwd=tmp_path / "ws", capture_output=True, check=False)
    assert b"a secret of mine" in compared.stdout
    assert judge("diff one two").level is ASK
    assert judge("diff -r one two").level is ASK
    (tmp_path / "ws" / "one" / "file").unlink()
    for number in range(2001):  # more than is looked at
        (tmp_path / "ws" / "one" / str(number)).touch()
    assert judge("diff -r one two").level is ASK


def test_links_around_in_circles_do_not_hold_up_a_verdict(judge: Callable[..., Safety], tmp_path: Path) -> None:
    modules = tmp_path / "ws" / ".git" / "modules"
    modules.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (modules / name).symlink_to(".")
    assert judge("grep -r x .").level is SAFE


@pytest.mark.parametrize("line", ["grep -ri url .", "grep -r url .git", "rg -uu url"])
@pytest.mark.parametrize("place", [".git/config", ".git/modules/deep/er/config"])
@pytest.mark.parametrize("entry", ["url = https://me:ghp_abc@host/x", "extraHeader = Authorization: basic abc"])
def test_a_walk_that_passes_a_password_of_git_is_asked_about(
    judge: Callable[..., Safety], tmp_path: Path, line: str, place: str, entry: str
) -> None:
    config = tmp_path / "ws" / place
    config.parent.mkdir(parents=True)
    config.write_text('[remote "origin"]\n\turl = git@host:x\n')
    assert judge(line).level is SAFE
    config.write_text(f"[a]\n\t{entry}\n")
    assert judge(line).level is ASK


@pytest.mark.parametrize("name", [".ignore", ".gitignore", "deep/.rgignore"])
def test_a_pipe_that_a_search_would_read_for_its_rules_is_asked_about(
    judge: Callable[..., Safety], tmp_path: Path, name: str
) -> None:
    (tmp_path / "ws" / "deep").mkdir()
    assert judge("rg x").level is SAFE
    os.mkfifo(tmp_path / "ws" / name)
    assert judge("rg x").level is ASK


@pytest.mark.parametrize("line", ["jq -n -- env", "jq -n -- '$ENV'", "awk '{print $1}' x=1", "ls -LR ."])
def test_a_word_that_means_something_else_there_is_asked_about(judge: Callable[..., Safety], line: str) -> None:
    assert judge(line).level is ASK


@pytest.mark.parametrize("path", ["", ".", "bin:/usr/bin", ":/usr/bin", "{ws}/bin:/usr/bin", "{link}:/usr/bin"])
def test_a_path_that_commands_can_write_into_is_not_trusted(
    judge: Callable[..., Safety], tmp_path: Path, path: str
) -> None:
    workspace = tmp_path / "ws"
    (workspace / "bin").mkdir()
    (tmp_path / "link").symlink_to(workspace / "bin")
    planted = workspace / "bin" / "ls"
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    assert judge("ls", PATH="/usr/bin").level is SAFE
    assert judge("ls", PATH=path.format(ws=workspace, link=tmp_path / "link")).level is ASK


def test_a_program_that_is_found_outside_the_system_first_is_not_trusted(
    judge: Callable[..., Safety], tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "ls").write_text("")
    assert judge("ls", PATH=f"{local}:/usr/bin").level is ASK


@pytest.mark.parametrize(
    ("line", "variable"), [("rg x", "RIPGREP_CONFIG_PATH"), ("cd src", "CDPATH"), ("grep x a", "GREP_OPTIONS")]
)
def test_a_variable_that_changes_a_program_closes_it(judge: Callable[..., Safety], line: str, variable: str) -> None:
    assert judge(line).level is SAFE
    assert judge(line, **{variable: "./x"}).level is ASK


WORDS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(["-", "--", "-exec", "-delete", "-n", "--output=x", "-o", "5p", "rm", "-rf", "sudo", ";", "+"]),
    ),
    max_size=6,
)


@given(
    name=st.sampled_from([*load_table("safe"), *load_table("wrappers"), "rm", "git", "bash", "pwsh", "cmd", "", "x"]),
    words=WORDS,
)
def test_any_words_get_a_class_and_a_reason(name: str, words: list[str]) -> None:
    policy = SandboxPolicy(SandboxMode.READ_ONLY, "/usr", (), ())
    assert classify([name, *words], policy, environ={"PATH": "/usr/bin"}).reason


@given(words=WORDS, at=st.integers(0, 6), option=st.sampled_from(["-f", "-rf", "--force", "-fr", "--forc"]))
def test_a_forced_removal_is_dangerous_wherever_its_option_stands(words: list[str], at: int, option: str) -> None:
    words = [word for word in words if word != "--"]
    policy = SandboxPolicy(SandboxMode.READ_ONLY, "/usr", (), ())
    assert classify(["rm", *words[:at], option, *words[at:]], policy).level is DANGEROUS


@pytest.mark.parametrize(
    ("make", "table"),
    [
        (lambda table: safe_program("x", table), {"reason": "r", "safe": ["x -a"], "ask": []}),
        (lambda table: safe_program("x", table), {"reason": "r", "safe": [], "ask": ["x"]}),
        (lambda table: wrapper("x", table), {"inner": [["x a b", "b"]]}),
        (danger_rule, {"reason": "r", "program": ["x"], "match": ["y"], "not_match": []}),
        (danger_rule, {"reason": "r", "program": ["x"], "match": [], "not_match": ["x"]}),
    ],
)
def test_a_table_that_does_not_do_what_its_examples_say_is_an_error(
    make: Callable[[dict[str, Any]], object], table: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"'[xy]"):
        make(table)


def test_every_table_does_what_its_examples_say() -> None:
    assert all(safe_named(name) for name in load_table("safe"))
    assert all(wrapper_named(name) for name in load_table("wrappers"))
    assert all(danger_rule(table).reason for table in load_table("dangerous")["rule"])


@given(text=st.text("ab.*?[", max_size=6), pattern=st.text("ab.*?", max_size=6))
def test_patterns_mean_what_fnmatch_makes_of_them(text: str, pattern: str) -> None:
    assert tables.is_like(text, pattern) == fnmatchcase(text, pattern)


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        (".jq", ("jq", ".", "a")),
        (".magic", ("file", "a")),
        (".bash_profile", ("bash", "-lc", "ls")),
        (".bashrc", ("bash", "-c", "ls")),
    ],
)
def test_what_a_program_reads_first_must_not_come_from_a_command(
    tmp_path: Path, name: str, argv: tuple[str, ...]
) -> None:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(tmp_path), (str(tmp_path),), ())
    assert classify(argv, policy, environ=environ).level is SAFE
    (tmp_path / name).touch()
    assert classify(argv, policy, environ=environ).level is ASK
