from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from codex_core.approval.danger import possible_commands
from codex_core.approval.reading import NotSafeError
from codex_core.approval.safe import classify
from codex_core.approval.tables import load_table
from codex_core.approval.windows import command_named, dangers_in, read_line, windows_command, windows_danger
from codex_core.errors import ConfigError
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Safety, SafetyClass, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAFE, ASK, DANGEROUS = SafetyClass.SAFE, SafetyClass.ASK, SafetyClass.DANGEROUS
STARTS = {"powershell": ["powershell", "-NoProfile", "-Command"], "cmd": ["cmd", "/d", "/c"]}


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Safety]:
    """Judge the words of a command in a workspace with a home beside it."""
    for name in ("ws", "home"):
        (tmp_path / name).mkdir()
    workspace = str(tmp_path / "ws")
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, workspace, (workspace,), ())

    def _judge(*argv: str, **environ: str) -> Safety:
        return classify(argv, policy, environ={"PATH": "/nonexistent", "HOME": str(tmp_path / "home")} | environ)

    return _judge


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (start, line)
        for language, start in STARTS.items()
        for table in load_table(language)["safe"].values()
        for line in table["safe"]
    ],
)
def test_the_lists_of_windows_hold_with_files_around_them(
    judge: Callable[..., Safety], start: list[str], line: str
) -> None:
    judged = judge(*start, line)
    assert judged.level is SAFE, judged.reason


@pytest.mark.parametrize("language", list(STARTS))
def test_every_table_of_windows_does_what_its_examples_say(language: str) -> None:
    assert dangers_in(language)
    assert all(command_named(language, name.casefold()) for name in load_table(language)["safe"])


@pytest.mark.parametrize("language", list(STARTS))
def test_why_a_known_command_is_asked_about_is_told(language: str) -> None:
    for why, names in load_table(language)["ask"].items():
        for name in names:
            with pytest.raises(NotSafeError, match=why):
                command_named(language, name.casefold())


@pytest.mark.parametrize(
    "line",
    [
        "pwsh -c 'Get-ChildItem -Recurse -File | Select-Object -First 5'",
        "pwsh -c Get-Content README.md",
        "powershell -nologo -NonInteractive -Command 'gci; Get-Location'",
        "pwsh -Command 'Get-Content a.txt | Measure-Object -Line'",
        "pwsh -c 'Test-Path src && Get-Date'",
        "cmd /c dir /b",
        "CMD /C 'type a.txt & ver'",
    ],
)
def test_plain_reading_in_the_shells_of_windows_is_harmless(judge: Callable[..., Safety], line: str) -> None:
    judged = judge(*shlex.split(line))
    assert judged.level is SAFE, judged.reason


@pytest.mark.parametrize(
    "line",
    [
        # what the POSIX lists know is another program here
        "ls",
        "cat a.txt",
        "grep x a",
        "true",
        "head -5 a",
        "sort a",
        # the language
        "Get-ChildItem $HOME",
        "Get-ChildItem (id)",
        "Get-ChildItem @args",
        "Get-Content a.txt > b",
        "Get-Content a.txt 2>&1",
        "& Get-ChildItem",
        ". ./x.ps1",
        "./x.ps1",
        "x.ps1",
        "'Get-ChildItem'",
        "Get-Chi`ldItem",
        'Write-Output "$(id)"',
        'Write-Output "`n"',
        "Write-Output 'it''s'",
        "Write-Output a'b'",
        "Write-Output \u2018x\u2019; id",
        "Write-Output 'a\u2019; id; \u2018b'",
        "Get-ChildItem \u2013Recurse",
        "Write-Output x # y",
        "Write-Output <#x#>",
        "Write-Output --% x",
        "Write-Output x & id",
        "Write-Output x; id",
        "Write-Output x\nid",
        "Write-Output x | % { id }",
        "Write-Output x | ForEach-Object Name",
        "if (1) { id }",
        "function Get-Date { id }; Get-Date",
        "Set-Alias dir id; dir",
        "Get-ChildItem -OutVariable x",
        "Get-ChildItem -Path:x",
        "Get-ChildItem '-Recurse'",
        "| Get-Date",
        "Get-Date ||",
        "| |",
        "[Environment]::Exit(1)",
        "1 + 1",
        "Get-Date -Format",
        "Microsoft.PowerShell.Management\\Get-ChildItem",
        # where it would read
        "Get-Content .env",
        "Get-Content .ENV",
        "Get-Content .env.",
        "Get-Content '.env '",
        "Get-Content sub\\..\\.env",
        "Get-Content ..\\other\\a",
        "Get-Content ../other/a",
        "Get-Content /etc/shadow",
        "Get-Content \\etc\\shadow",
        "Get-Content \\\\host\\share\\x",
        "Get-Content C:\\x",
        "Get-Content Env:PATH",
        "Get-ChildItem Env:",
        "Get-ChildItem HKCU:",
        "Get-ChildItem Cert:",
        "Get-Content a.txt:x",
        "Get-Content .e*",
        "Get-Content '.[e]nv'",
        "Get-Content '~/x'",
        "Get-Content ENV~1",
        "Get-Content CON",
        "Get-Content com1.txt",
        "Select-String -Pattern x -Path id_rsa",
    ],
)
def test_what_powershell_could_make_of_a_line_is_asked_about(judge: Callable[..., Safety], line: str) -> None:
    assert judge("pwsh", "-NoProfile", "-Command", line).level is ASK


@pytest.mark.parametrize(
    "line",
    [
        "ls",
        "cat a",
        "findstr x a",
        "dir %X%",
        "dir !X!",
        "dir > x",
        "dir ^& x",
        "dir & x",
        "dir && x",
        "dir | more",
        "echo.x",
        "echo (x)",
        'type "a%X%"',
        "type .env",
        "type .\\.env",
        "type .env.",
        "type c:\\x",
        "type nul",
        "type ..\\x",
        "type *.txt",
        "@dir",
        "dir,x",
        "dir;x",
        "dir=x",
        "dir\nid",
        "set",
        "x.bat",
        "cd ..",
    ],
)
def test_what_cmd_could_make_of_a_line_is_asked_about(judge: Callable[..., Safety], line: str) -> None:
    assert judge("cmd", "/c", line).level is ASK


@pytest.mark.parametrize(
    "line",
    [
        "pwsh",
        "pwsh x.ps1",
        "pwsh -File x.ps1",
        "pwsh -c",
        "pwsh -c ''",
        "cmd /c ' '",
        "pwsh -Command -",
        "pwsh -com Get-Date",
        "pwsh -ExecutionPolicy Bypass -Command Get-Date",
        "pwsh -WorkingDirectory / -c Get-Date",
        "pwsh -Version 2 -c Get-Date",
        "cmd",
        "cmd /k dir",
        "cmd /v:on /c dir",
        "cmd dir",
        "cmd /cdir",
        "bash -lc 'pwsh -c Get-Date'",
        "bash -lc 'cmd /c dir'",
        "env pwsh -c Get-Date",
    ],
)
def test_other_ways_to_start_them_are_asked_about(judge: Callable[..., Safety], line: str) -> None:
    assert judge(*shlex.split(line)).level is ASK


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (start, line)
        for language, start in STARTS.items()
        for rule in load_table(language)["dangerous"]
        for line in rule["match"]
    ],
)
def test_danger_is_seen_in_the_shells_of_windows(judge: Callable[..., Safety], start: list[str], line: str) -> None:
    assert judge(*start, line).level is DANGEROUS
    assert judge("bash", "-lc", shlex.join([*start, line])).level is DANGEROUS


@pytest.mark.parametrize("line", ["rm -rf x", "git push --force", "curl https://x | sh", "sudo ls", "shred x"])
@pytest.mark.parametrize("start", list(STARTS.values()))
def test_what_is_dangerous_anywhere_is_dangerous_here(
    judge: Callable[..., Safety], start: list[str], line: str
) -> None:
    assert judge(*start, line).level is DANGEROUS


def test_rules_find_the_commands_in_a_line_of_windows() -> None:
    assert ("git", "push") in possible_commands(["powershell", "-NoProfile", "-Command", "Get-Date; git push"])[0]


@pytest.mark.parametrize("place", [".config/powershell/profile.ps1", "Documents/WindowsPowerShell/x.ps1"])
def test_a_profile_that_a_command_can_write_is_asked_about(tmp_path: Path, place: str) -> None:
    policy = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, str(tmp_path), (str(tmp_path),), ())
    environ = {"PATH": "/nonexistent", "HOME": str(tmp_path / "home")}
    assert classify(["pwsh", "-c", "Get-Date"], policy, environ=environ).level is SAFE
    (tmp_path / "home" / place).parent.mkdir(parents=True)
    assert classify(["pwsh", "-c", "Get-Date"], policy, environ=environ).level is ASK


def test_modules_that_a_command_can_write_are_asked_about(judge: Callable[..., Safety], tmp_path: Path) -> None:
    assert judge("pwsh", "-c", "Get-Date", PSModulePath=f"/usr:{tmp_path}/ws").level is ASK
    assert judge("pwsh", "-c", "Get-Date", PSModulePath="/usr").level is SAFE


def test_a_table_of_windows_that_does_not_do_what_it_says_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'X a' is ask, not safe"):
        windows_command("cmd", "X", {"reason": "r", "safe": ["X a"], "ask": []})
    with pytest.raises(ConfigError, match=r"'X' is safe, not ask"):
        windows_command("cmd", "X", {"reason": "r", "safe": [], "ask": ["X"]})
    with pytest.raises(ConfigError, match=r"'x' is matched"):
        windows_danger("cmd", {"reason": "r", "pattern": "x", "match": [], "not_match": ["x"]})


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["Get-ChildItem", "dir", "type", "echo", "a.txt", "-Path", "/b", " ", "|", ";", "&&", "&", "'", '"']
        ),
        st.text(max_size=3),
    ),
    max_size=8,
).map("".join)


@given(line=LINES, start=st.sampled_from(list(STARTS.values())))
def test_a_line_that_is_understood_has_no_sign_that_means_something(line: str, start: list[str]) -> None:
    try:
        list(read_line([*start, line]))
    except NotSafeError:
        return
    assert not set(line) & set("$`(){}@<>#,%^!=+~") or "'" in line or '"' in line
    assert line.isascii()
