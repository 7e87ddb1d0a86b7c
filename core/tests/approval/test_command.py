from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from codex_core.approval.command import NotSimpleError, programs
from codex_core.approval.danger import danger_in_line, possible_commands
from codex_core.approval.safe import classify
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import SafetyClass, SandboxMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LINES: dict[str, list[str]] = json.loads(Path(__file__).with_name("lines.json").read_text(encoding="utf-8"))
ADVERSARIAL = [json.loads(line) for line in Path(__file__).with_name("adversarial.jsonl").read_text().splitlines()]


def words_of(line: str) -> list[tuple[str, ...]]:
    return [program.words for program in programs(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ls -la 'a b' \"c d\"", [("ls", "-la", "a b", "c d")]),
        ("ls;pwd ;whoami;", [("ls",), ("pwd",), ("whoami",)]),
        ("a && b || c | d\ne", [("a",), ("b",), ("c",), ("d",), ("e",)]),
        ("a &&\n b |\tc", [("a",), ("b",), ("c",)]),
        ("grep --include='*.py' x", [("grep", "--include=*.py", "x")]),
        ("echo 'a\nb' \"\" x''y", [("echo", "a\nb", "", "xy")]),
        ("  \n ls \n\n", [("ls",)]),
        ("'ls' \"-l\"", [("ls", "-l")]),
        (r'grep "a\.b|c!" f', [("grep", r"a\.b|c!", "f")]),
        ("[ -f 'a b' ] && ls || [ -d  c\t]", [("[", "-f", "a b", "]"), ("ls",), ("[", "-d", "c", "]")]),
        ("echo \"it's\" 'a\"b'", [("echo", "it's", 'a"b')]),
    ],
)
def test_a_simple_line_gives_the_words_of_its_programs(line: str, expected: list[tuple[str, ...]]) -> None:
    assert words_of(line) == expected


def test_a_line_without_end_is_not_simple() -> None:
    with pytest.raises(NotSimpleError, match="nested too deeply"):
        programs(" && ".join(["true"] * 5000))


def test_what_is_fed_by_a_pipe_is_known() -> None:
    assert [program.piped for program in programs("a | b | c && d")] == [False, True, True, False]


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "\n",
        "# x",
        "ls\n;pwd",
        "ls\n&& pwd",
        "ls\n| cat",
        ";",
        "ls;;",
        "&& ls",
        "ls &&",
        "ls |",
        "| ls",
        "ls\0",
        "ls \udcff",
        "echo 'a",
        'echo "a',
        "ls)",
        "[",
        "[ ]",
        "[ a",
        "[ a] b",
        "[a ]",
        "[ a ] b",
        "[ a ; b ]",
        "[ a && b ]",
        "[ a | b ]",
        "[ a\n]",
        "[ $x ]",
        "[ a > b ]",
        "[[ a ]]",
        "[ (a) ]",
        "[ a ] > b",
    ],
)
def test_what_is_no_line_of_programs_is_not_simple(line: str) -> None:
    with pytest.raises(NotSimpleError):
        programs(line)


@pytest.mark.parametrize("line", ["a=b", 'a=b"c"', "a='b' c", "a+=b", "ls\n_=@'x'", "ls && PATH=x'y' ls"])
def test_what_may_be_an_assignment_is_not_simple(line: str) -> None:
    with pytest.raises(NotSimpleError):
        programs(line)


@pytest.mark.parametrize("char", list("$`\\*?[]{}()<>&!#~^\r\v\f\a\x1b\u00a0\u3000\u2028é="))
def test_a_character_that_means_something_to_some_shell_is_not_simple_unquoted(char: str) -> None:
    with pytest.raises(NotSimpleError):
        programs(f"echo {char}x")


def test_the_reason_says_where_in_the_line() -> None:
    with pytest.raises(NotSimpleError, match=r"character 6 of the line") as caught:
        programs("echo é; $x")
    assert caught.value.at == 5


@pytest.mark.parametrize(
    "word", ["if", "then", "time", "!", "[[", "{", "%", "%1", "coproc", "function", "select", "repeat", "noglob"]
)
def test_words_of_the_language_are_no_programs(word: str) -> None:
    with pytest.raises(NotSimpleError):
        programs(f"{word} ls")


# Attacks


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a program `mark` that proves that it was run."""
    folder = tmp_path_factory.mktemp("arena")
    (folder / "bin").mkdir()
    script(folder / "bin" / "mark", f"/usr/bin/touch '{folder}/marked'")
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def lay_out(workspace: Path) -> None:
    shutil.rmtree(workspace, ignore_errors=True)
    (workspace / "x").mkdir(parents=True)
    (workspace / "sub").mkdir()
    for at in ("cat", "script.sh", "sub/script.sh"):
        script(workspace / at, "mark")
    for name in ("a.txt", "b.txt", "y.txt"):
        (workspace / name).write_text(f"{name}\n")
    (workspace / "yes.txt").write_text("y\n")
    (workspace / "script.sed").write_text("1e mark\n")
    (workspace / "mark.mk").write_text("all:\n\t@mark\n")
    (workspace / "shell.mk").write_text("X:=$(shell mark)\nall:;\n")
    (workspace / "big.txt").write_text("".join(f"{number * 7919 % 100003}\n" for number in range(40000)))


@pytest.mark.parametrize("case", ADVERSARIAL, ids=lambda case: repr(case["line"])[:60])
def test_an_attack_that_works_is_not_taken_for_harmless(case: dict[str, str], arena: Path) -> None:
    workspace, marked = arena / "ws", arena / "marked"
    lay_out(workspace)
    marked.unlink(missing_ok=True)
    environ = {"PATH": f"{arena}/bin:/usr/bin:/bin", "HOME": str(arena / "home")}
    subprocess.run(
        ["bash", "-c", case["line"]],
        cwd=workspace,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    harmed = not (workspace / "x").exists() or not (workspace / "y.txt").exists()
    if not (harmed if case["least"] == "forbid" else marked.exists()):
        pytest.skip("the attack needs a tool that is not here")
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(workspace), (str(workspace),), ())
    level = classify(("bash", "-lc", case["line"]), policy, environ=environ).level
    assert level is SafetyClass.DANGEROUS if case["least"] == "forbid" else level is not SafetyClass.SAFE


@pytest.mark.parametrize(
    "line",
    [
        *LINES["dangerous"],
        "eval " * 40 + "x",
        "nice " * 60 + "rm -rf x",
        "(" * 4000 + "ls" + ")" * 4000,
    ],
)
def test_what_is_dangerous_without_a_proof_that_is_safe_to_run_is_seen(line: str) -> None:
    assert danger_in_line(line) is not None


@pytest.mark.parametrize("line", LINES["ordinary"])
def test_ordinary_work_is_not_taken_for_dangerous(line: str) -> None:
    assert danger_in_line(line) is None


@pytest.mark.parametrize("line", LINES["safe"])
def test_plain_reading_is_known_to_be_harmless(line: str, tmp_path: Path) -> None:
    policy = SandboxPolicy(SandboxMode.READ_ONLY, str(tmp_path), (), ())
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    judged = classify(("bash", "-lc", line), policy, environ=environ)
    assert judged.level is SafetyClass.SAFE, judged.reason


def test_a_harmless_line_changes_nothing_when_it_is_run(arena: Path) -> None:
    workspace, environ = arena / "ws", {"PATH": f"{arena}/bin:/usr/bin:/bin", "HOME": str(arena / "home")}
    lay_out(workspace)
    before = snapshot(arena)
    for line in LINES["safe"]:
        subprocess.run(
            ["bash", "-c", line],
            cwd=workspace,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert snapshot(arena) == before, line


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_a_line_that_doubles_a_variable_again_and_again_is_read_within_bounds() -> None:
    doubling = "; ".join(f"X{number}=$X{number - 1}$X{number - 1}" for number in range(1, 60))
    assert danger_in_line(f"X0=abcdefgh; {doubling}; echo $X59") is None
    assert danger_in_line(f"X0=abcdefgh; {doubling}; echo $X59; rm -rf x") is not None


def test_every_command_that_a_line_could_run_is_found() -> None:
    found, complete = possible_commands(
        ["bash", "-lc", "sudo env A=b git push && x=$(curl u) | xargs -n1 sh -c 'make all'"]
    )
    assert {("git", "push"), ("curl", "u"), ("make", "all")} <= set(found)
    assert complete


# Differential tests

EXAMPLES = int(os.environ.get("CODEX_CORE_EXAMPLES", "40"))
"""Each is some 60 lines: 1700 make a hundred thousand."""


PLAIN = st.text("abz0-./:@%+,_=", min_size=1, max_size=5)
QUOTED = st.one_of(
    st.text('ab $*;|&"\\`(){}<>!#~\n\té', max_size=6).map(lambda text: f"'{text}'"),
    st.text("ab *;|&'(){}<>#~\n\té$`\\!", max_size=6).map(lambda text: f'"{text}"'),
)
WORD = st.one_of(PLAIN, PLAIN, QUOTED, st.lists(st.one_of(PLAIN, QUOTED), min_size=2, max_size=3).map("".join))
BLANK = st.sampled_from([" ", " ", " ", "  ", "\t", ""])
JOINT = st.sampled_from([" && ", " | ", "; ", ";", "\n", "&&", "|", " &&\n", " \n ", ";\n", "\n;", "\n|"])
COMMAND = (
    st.lists(st.tuples(BLANK, WORD).map("".join), max_size=4)
    .map("".join)
    .flatmap(lambda words: st.sampled_from([f"p{words}", f"p{words}", f"[ {words} ]", f"[{words}]"]))
)
NOISE = st.sampled_from(
    [
        "",
        "",
        "",
        "",
        "\\",
        "\r",
        "#",
        "&",
        "$",
        "`",
        "{a,b}",
        "!",
        "~",
        "*",
        ">",
        "=",
        "\n",
        "'",
        '"',
        "\x0b",
        "é",
        "\u00a0",
        " # x\n",
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """Draw shell lines, most of them simple, some spoilt in one place."""
    commands = draw(st.lists(COMMAND, min_size=1, max_size=4))
    line = commands[0] + "".join(draw(JOINT) + command for command in commands[1:])
    at = draw(st.integers(0, len(line)))
    return line[:at] + draw(NOISE) + line[at:]


def simple_ones(candidates: list[str]) -> list[tuple[str, list[tuple[str, ...]]]]:
    found = []
    for line in candidates:
        try:
            found.append((line, words_of(line)))
        except NotSimpleError:
            continue
    # What is built in, or named by a path, cannot be caught by bash's handler, and is no different here.
    return [
        (line, words)
        for line, words in found
        if not any("/" in program[0] or program[0] in {".", ":"} for program in words)
    ]


RECORD = r"""
shopt -s expand_aliases
# One write for each record, as the members of a pipeline write at once; bash writes at every line break.
record() { local IFS=$'\x01' words; words="$*"; printf '%s\x02' "${words//$'\n'/$'\x04'}" >&9; }
p() { record p "$@"; }
[() { record [ "$@"; }
command_not_found_handle() { record "$@"; }
while IFS= read -r -d '' line; do
  eval "$line" < /dev/null > /dev/null 2>&1
  wait
  printf '\x03' >&9
done
"""


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(candidates=st.lists(lines(), min_size=40, max_size=80))
def test_bash_runs_what_the_strict_reading_says(candidates: list[str], tmp_path: Path) -> None:
    simple = simple_ones(candidates)
    recorded = tmp_path / "recorded"
    with recorded.open("wb") as file:
        subprocess.run(
            ["bash", "-c", f"exec 9>&{file.fileno()}; {RECORD}"],
            input="".join(f"{line}\0" for line, _ in simple).encode(),
            env={"PATH": "/nonexistent"} | {"LC_ALL": os.environ.get("LC_ALL", "C.UTF-8")},
            executable=shutil.which("bash"),
            pass_fds=[file.fileno()],
            cwd=tmp_path,
            check=True,
        )
    runs = recorded.read_bytes().decode().split("\x03")[:-1]
    assert len(runs) == len(simple)
    for (line, expected), run in zip(simple, runs, strict=True):
        ran = [tuple(command.replace("\x04", "\n").split("\x01")) for command in run.split("\x02")[:-1]]
        # The members of a pipeline run in any order.
        assert Counter(ran) == Counter(expected), line


def shfmt_programs(statement: dict[str, Any]) -> list[tuple[str, ...]]:
    assert not set(statement) - {"Pos", "End", "Position", "Cmd", "Semicolon"}, statement
    command = statement["Cmd"]
    if command["Type"] == "BinaryCmd":
        assert command["Op"] in {"&&", "||", "|", 10, 11, 12}  # numbers, in the same order, before shfmt 3.8
        return shfmt_programs(command["X"]) + shfmt_programs(command["Y"])
    assert command["Type"] == "CallExpr"
    assert "Assigns" not in command
    return [tuple("".join(map(shfmt_part, word["Parts"])) for word in command["Args"])]


def shfmt_part(part: dict[str, Any]) -> str:
    if part["Type"] == "DblQuoted":
        assert "Dollar" not in part
        return "".join(map(shfmt_part, part.get("Parts", [])))
    assert part["Type"] in {"Lit", "SglQuoted"}
    assert "Dollar" not in part
    return str(part.get("Value", ""))


@pytest.mark.skipif(shutil.which("shfmt") is None, reason="shfmt is not installed")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(candidates=st.lists(lines().map(lambda line: line.replace("&&", "||")) | lines(), min_size=40, max_size=80))
def test_an_independent_parser_sees_what_the_strict_reading_says(candidates: list[str]) -> None:
    assert_shfmt_agrees(candidates)


@pytest.mark.skipif(shutil.which("shfmt") is None, reason="shfmt is not installed")
def test_an_independent_parser_sees_the_same_in_the_tables() -> None:
    lines = [*(line for lines in LINES.values() for line in lines), *(case["line"] for case in ADVERSARIAL)]
    # Of these shfmt has a grammar of its own; to bash they are built-in commands that get words.
    assert_shfmt_agrees(
        [line for line in lines if not re.match(r"(let|declare|export|local|readonly|typeset)\b", line)]
    )


def assert_shfmt_agrees(candidates: list[str]) -> None:
    simple = simple_ones(candidates)
    text = "".join(f"{line}\n__separator__\n" for line, _ in simple)
    parsed = subprocess.run(["shfmt", "-ln", "bash", "--to-json"], input=text.encode(), capture_output=True, check=True)
    seen: list[list[tuple[str, ...]]] = [[]]
    for statement in json.loads(parsed.stdout).get("Stmts", []):
        found = shfmt_programs(statement)
        if found == [("__separator__",)]:
            seen.append([])
        else:
            seen[-1] += found
    assert seen[:-1] == [expected for _, expected in simple]
