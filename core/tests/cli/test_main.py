from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from codex_core import __version__
from codex_core.cli import main as cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]
    Codex = Callable[..., Done]


@pytest.fixture
def codex(tmp_path: Path) -> Codex:
    """Run ``codex`` with a home and a folder of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()

    def run(*words: str, **options: object) -> Done:
        env = {"PATH": "/usr/bin:/bin", "CODEX_HOME": str(tmp_path / "home"), "HOME": str(tmp_path / "home")}
        arguments: dict[str, object] = {"cwd": tmp_path / "project", "env": env, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [sys.executable, "-I", "-m", "codex_core.cli.main", *words],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=60,
            check=False,
            **arguments,
        )

    return run


def one_line(done: Done, code: int) -> str:
    assert done.returncode == code, done
    assert done.stderr.startswith("codex: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    return done.stderr


def test_version_and_help(codex: Codex) -> None:
    assert codex("--version").stdout == f"codex {__version__}\n"
    text = codex("--help").stdout
    assert "examples:" in text
    assert all(f"\n  {name} " in text for name in cli.available())


@pytest.mark.parametrize("name", ["run", "sandbox", "doctor", "plugins", "completion"])
def test_every_subcommand_has_help(codex: Codex, name: str) -> None:
    done = codex(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: codex")


def test_a_mistyped_subcommand_suggests_the_nearest(codex: Codex) -> None:
    assert "codex run" in one_line(codex("rnu"), 2)
    assert "--help" in one_line(codex("zzzzzz"), 2)


@pytest.mark.parametrize(
    "words",
    [
        ["--"],
        ["--frob"],
        ["run", "do something nice"],
        ["run", "--"],
        ["run", "--timeout", "soon", "--", "true"],
        ["run", "--timeout", "-1", "--", "true"],
        ["sandbox"],
        ["sandbox", "linux"],
        ["sandbox", "true"],
        ["-c", "nothing", "run", "--", "true"],
        ["completion", "tcsh"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line(codex: Codex, words: list[str]) -> None:
    one_line(codex(*words), 2)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("option", [["-s", "bogus"], ["-c", 'sandbox_mode="bogus"'], ["--sandbox=bogus"]])
def test_an_unknown_mode_is_named_before_and_after_the_subcommand(codex: Codex, option: list[str], place: str) -> None:
    for subcommand in ("run", "sandbox"):
        words = [*option, subcommand] if place == "before" else [subcommand, *option]
        assert "bogus" in one_line(codex(*words, "--", "true"), 1)


def test_broken_and_unreadable_configuration_name_the_file(codex: Codex, tmp_path: Path) -> None:
    config = tmp_path / "home" / "config.toml"
    config.write_text("sandbox_mode = \n")
    for subcommand in ("run", "sandbox"):
        assert f"{config}:1" in one_line(codex(subcommand, "--", "true"), 1)
    config.unlink()
    config.mkdir()
    assert str(config) in one_line(codex("run", "--", "true"), 1)


def test_after_two_dashes_nothing_is_an_option(codex: Codex) -> None:
    done = codex("sandbox", "-s", "danger-full-access", "--", "echo", "-s", "--help", "--")
    assert (done.stdout, done.returncode) == ("-s --help --\n", 0)


SANDBOX = ("sandbox", "-s", "danger-full-access", "--")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["/"], 126),
    ],
)
def test_a_command_that_cannot_run_is_one_line(codex: Codex, command: list[str], code: int) -> None:
    one_line(codex(*SANDBOX, *command), code)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)])
def test_the_exit_code_is_the_commands(codex: Codex, script: str, code: int) -> None:
    done = codex(*SANDBOX, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (code, "")


def test_words_that_are_not_utf8_pass_through(codex: Codex) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    assert codex(*SANDBOX, "printf", "%s", odd).stdout == odd
    message = one_line(codex(*SANDBOX, f"no-such-{odd}\x1b[31m"), 127)
    assert message.isascii()
    assert "\x1b" not in message


def test_a_current_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.rmdir({str(gone)!r}); from codex_core.cli.main import main; sys.exit(main())"
    for words in (["run", "--", "true"], ["sandbox", "--", "true"]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, *words], cwd=gone, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (127, 1)
        gone.mkdir()


def test_a_missing_folder_is_one_line(codex: Codex) -> None:
    assert "/no/such/folder" in one_line(codex("sandbox", "-C", "/no/such/folder", "--", "true"), 127)


def test_no_traceback_reaches_a_user_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_words: object) -> int:
        raise RuntimeError("boom\x1b[31m\nand more")

    monkeypatch.setattr(cli, "_dispatch", broken)
    monkeypatch.delenv("CODEX_DEBUG", raising=False)
    assert cli.main([]) == 70
    quiet = capsys.readouterr().err
    assert quiet.startswith("codex: internal error: RuntimeError: boom")
    assert (quiet.count("\n"), "\x1b" in quiet) == (1, False)
    monkeypatch.setenv("CODEX_DEBUG", "1")
    cli.main([])
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_words: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    assert cli.main([]) == 130


def test_a_reader_that_goes_away_is_met_with_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-I", "-m", "codex_core.cli.main", "--help"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.stderr, done.returncode) == (b"", 141)


def test_closed_standard_descriptors_are_not_taken_by_files() -> None:
    codex = f"{sys.executable} -I -m codex_core.cli.main"
    script = f"exec {codex} sandbox -C / -s danger-full-access -- ls -l /proc/self/fd <&- 2>&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    shown = {line.split()[-3]: line.split()[-1] for line in done.stdout.splitlines() if "->" in line}
    assert (shown["0"], shown["2"]) == ("/dev/null", "/dev/null")


def test_completion_scripts_are_understood_by_their_shell(
    codex: Codex,
) -> None:
    script = codex("completion", "bash").stdout
    program = f"""{script}
COMP_WORDS=(codex doc) COMP_CWORD=1; _codex; echo "${{COMPREPLY[*]}}"
COMP_WORDS=(codex run -s '') COMP_CWORD=3; _codex; echo "${{COMPREPLY[*]}}"
COMP_WORDS=(codex -s read-only sand) COMP_CWORD=3; _codex; echo "${{COMPREPLY[*]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["doctor", "read-only workspace-write danger-full-access", "sandbox"]
    assert "complete -c codex" in codex("completion", "fish").stdout
    assert codex("completion", "zsh").stdout.startswith("#compdef codex")
