"""Rules, approvals and questions as a user meets them, with every distribution installed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from codex_core import Session, load_config, open_session
from codex_core.approval.prompt import Answer, Choice, Question, question_text
from codex_core.errors import NotPermittedError
from codex_core.events import ConversationStarts, ToolDecision
from codex_core.hookspecs import Observer, hookimpl
from codex_core.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from codex_core.events import Event

CODEX = [sys.executable, "-I", "-m", "codex_core.cli.main"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / ".git").mkdir(parents=True)
    home = str(tmp_path / "home")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "CODEX_HOME": home}


@pytest.fixture
def check(tmp_path: Path, environ: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """Ask ``codex rules check`` about a line that a model's shell tool would run."""

    def _check(line: str, policy: str = "untrusted") -> dict[str, Any]:
        done = subprocess.run(
            [*CODEX, "rules", "check", "--json", "-a", policy, "--", "bash", "-lc", line],
            cwd=tmp_path / "project",
            env=environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return dict(json.loads(done.stdout))

    return _check


@pytest.mark.parametrize(
    ("line", "decisions", "kind"),
    [
        #                            untrusted, on-request, on-failure, never
        ("ls -la | head -5", ["allow", "allow", "allow", "allow"], "safe"),
        ("make test", ["prompt", "allow", "allow", "allow"], "ask"),
        ("git status", ["prompt", "allow", "allow", "allow"], "ask"),
        ("ls && rm -rf x", ["prompt", "prompt", "allow", "forbid"], "forbid"),
    ],
)
def test_a_line_is_judged_by_what_it_runs_and_by_the_policy(
    check: Callable[..., dict[str, Any]], line: str, decisions: list[str], kind: str
) -> None:
    answers = [check(line, policy) for policy in ("untrusted", "on-request", "on-failure", "never")]
    assert [answer["decision"] for answer in answers] == decisions
    assert {answer["class"] for answer in answers} == {kind}


def test_the_answer_names_the_programs_and_the_sources(check: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    (rules / "mine.toml").write_text('[[rule]]\npattern = ["git", "push"]\ndecision = "forbid"\njustification = "no"\n')
    answer = check("ls; git push origin")
    assert answer["decision"] == "forbid"
    assert answer["programs"] == [["ls"], ["git", "push", "origin"]]
    assert {"text": "no", "source": f"{rules}/mine.toml:1"} in answer["reasons"]


@pytest.mark.parametrize(
    ("trust", "decisions"),
    [
        #             make test, git log, ls
        (None, ["prompt", "prompt", "allow"]),
        ("untrusted", ["prompt", "prompt", "allow"]),
        ("trusted", ["prompt", "forbid", "prompt"]),
    ],
)
def test_the_rules_of_a_workspace_count_where_it_is_trusted_and_only_tighten(
    check: Callable[..., dict[str, Any]], tmp_path: Path, trust: str | None, decisions: list[str]
) -> None:
    rules = tmp_path / "project" / ".codex" / "rules"
    rules.mkdir(parents=True)
    (rules / "team.toml").write_text(
        '[[rule]]\npattern = ["make"]\ndecision = "allow"\n'
        '[[rule]]\npattern = ["git"]\ndecision = "forbid"\n'
        '[[rule]]\npattern = ["ls"]\ndecision = "prompt"\n'
        '[[rule]]\nhosts = ["a.test"]\ndecision = "allow"\n'
    )
    if trust:
        config = tmp_path / "home" / "config.toml"
        config.write_text(f'[projects."{tmp_path}/project"]\ntrust_level = "{trust}"\n')
    assert [check(line)["decision"] for line in ("make test", "git log", "ls")] == decisions
    listed = subprocess.run(
        [*CODEX, "rules", "list"],
        cwd=tmp_path / "project",
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CODEX_HOME": str(tmp_path / "home")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "a.test" not in listed.stdout


def test_git_is_run_unasked_in_the_sandbox_as_long_as_the_repository_starts_nothing(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    project, marked = tmp_path / "project", tmp_path / "project" / "marked"

    def codex(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CODEX, *words, "-a", "untrusted", "-s", "workspace-write", "--", "git", "status", "--short"],
            cwd=project,
            env=environ,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    subprocess.run(["git", "init", "-q", "."], cwd=project, env=environ, check=True)
    (project / "a.txt").touch()
    listed = codex("run")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "?? a.txt\n", "")
    answer = json.loads(codex("rules", "check", "--json").stdout)
    assert (answer["decision"], answer["class"]) == ("allow", "safe")
    assert answer["neutralised"]["environ"]["GIT_DIR"] == str(project / ".git")

    subprocess.run(["git", "config", "core.fsmonitor", f"touch {marked}; false"], cwd=project, env=environ, check=True)
    subprocess.run(["git", "status"], cwd=project, env=environ, check=True, capture_output=True)
    assert marked.exists()
    marked.unlink()
    refused = codex("run")
    assert (refused.returncode, marked.exists()) == (126, False)
    answer = json.loads(codex("rules", "check", "--json").stdout)
    assert (answer["decision"], answer["neutralised"]) == ("prompt", None)
    assert "sets core.fsmonitor, which is not known to be harmless" in answer["reasons"][0]["text"]


class Person:
    """Answers as told, and keeps the questions."""

    def __init__(self, *choices: Choice) -> None:
        self.choices = list(choices)
        self.questions: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        return Answer(self.choices.pop(0))


def session(tmp_path: Path, environ: dict[str, str], person: Person) -> Any:  # noqa: ANN401 - a session
    overrides = ["approval_policy=untrusted", "sandbox_mode=danger-full-access"]
    return open_session(str(tmp_path / "project"), overrides=overrides, prompter=person, environ=environ)


def test_a_yes_for_the_session_is_asked_once_and_forgotten_with_it(tmp_path: Path, environ: dict[str, str]) -> None:
    person = Person(Choice.SESSION, Choice.NO)
    with session(tmp_path, environ, person) as first:
        assert [first.run(["printf", "a"]).stdout for _ in range(2)] == [b"a", b"a"]
        with pytest.raises(NotPermittedError):
            first.run(["printf", "b"])
    assert len(person.questions) == 2
    with session(tmp_path, environ, Person(Choice.NO)) as second, pytest.raises(NotPermittedError):
        second.run(["printf", "a"])


def test_a_yes_for_always_is_a_rule_that_can_be_revoked(tmp_path: Path, environ: dict[str, str]) -> None:
    person = Person(Choice.ALWAYS)
    with session(tmp_path, environ, person) as first:
        first.run(["printf", "a"])
    assert person.questions[0].rule_file == f"{tmp_path}/home/rules/approved.toml"
    with session(tmp_path, environ, Person()) as second:
        assert second.run(["printf", "a"]).stdout == b"a"
    words = [*CODEX, "approvals", "revoke", "1"]
    subprocess.run(words, cwd=tmp_path / "project", env=environ, check=True, capture_output=True)
    with session(tmp_path, environ, Person(Choice.NO)) as third, pytest.raises(NotPermittedError):
        third.run(["printf", "a"])


def answer_on_a_terminal(
    words: list[str], cwd: Path, environ: dict[str, str], *answers: tuple[str, str]
) -> tuple[int, str]:
    """Run codex on a terminal of its own; type each answer when its text is seen; the exit code and the screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(CODEX[0], [*CODEX, *words], environ)
    shown = ""
    waiting = list(answers)
    try:
        while True:
            try:
                part = os.read(terminal, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part.decode(errors="replace")
            if waiting and waiting[0][0] in shown:
                os.write(terminal, waiting.pop(0)[1].encode())
    finally:
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), shown


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 3), ("n\n", 126), ("\n", 126), ("\x04", 126), ("\x03", 126), ("q\n", 126)]
)
def test_codex_run_asks_on_the_terminal(tmp_path: Path, environ: dict[str, str], answer: str, code: int) -> None:
    words = ["run", "-a", "untrusted", "-s", "danger-full-access", "--", "sh", "-c", "exit 3"]
    ended, shown = answer_on_a_terminal(words, tmp_path / "project", environ, ("[y/s/a/N/q]", answer))
    assert ended == code, shown
    assert "sh -c 'exit 3'" in shown


def test_silence_is_a_no_after_the_time_that_is_configured(tmp_path: Path, environ: dict[str, str]) -> None:
    words = ["run", "-a", "untrusted", "-c", "ask_about.timeout=0.2", "--", "touch", "made"]
    ended, shown = answer_on_a_terminal(words, tmp_path / "project", environ)
    assert ended == 126
    assert "codex: not permitted: nobody answered within 0.2 s" in shown
    assert not (tmp_path / "project" / "made").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_what_the_sandbox_stopped_is_asked_about_once_and_by_its_path(
    tmp_path: Path, environ: dict[str, str], answer: str, code: int
) -> None:
    target = tmp_path / "outside" / "made"
    target.parent.mkdir()
    words = ["run", "-a", "on-failure", "-s", "workspace-write", "-c", "sandbox_workspace_write.exclude_slash_tmp=true"]
    words += ["--", "touch", str(target)]
    ended, shown = answer_on_a_terminal(words, tmp_path / "project", environ, ("[y/s/a/N/q]", answer))
    assert f"The sandbox stopped it: write {target}" in shown.replace("\r\n", "")
    assert shown.count("Allow it?") == 1
    assert (target.exists(), ended) == (code == 0, code)


def test_escape_sequences_of_a_command_do_not_reach_the_terminal(tmp_path: Path, environ: dict[str, str]) -> None:
    words = ["run", "-a", "untrusted", "--", "true", "\x1b[2J\x1b[1;1Hharmless", "\u202exr- mr"]
    _, shown = answer_on_a_terminal(words, tmp_path / "project", environ, ("[y/s/a/N/q]", "n\n"))
    assert "\x1b[2J" not in shown
    assert r"\x1b[2J\x1b[1;1Hharmless" in shown
    assert r"\u202exr- mr" in shown


def test_the_example_of_rules_loads_and_does_what_it_says(check: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    example = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "rules.toml")
    with open(example, encoding="utf-8") as file:
        (rules / "example.toml").write_text(file.read())
    assert check("make test && ls")["decision"] == "allow"
    assert check("make install")["decision"] == "prompt"
    fetching = check("git fetch origin")
    assert (fetching["decision"], fetching["unsandboxed"]) == ("allow", True)
    assert check("cd infra && sudo terraform apply", "on-failure")["decision"] == "forbid"


PATCH = "*** Begin Patch\n*** Add File: {}\n+\x1b[2Jtext\n*** End Patch\n"


def patching(tmp_path: Path, environ: dict[str, str], person: Person, *overrides: str) -> Any:  # noqa: ANN401 - a session
    (tmp_path / "home" / "config.toml").write_text(
        "[sandbox_workspace_write]\nexclude_slash_tmp = true\nexclude_tmpdir_env_var = true\n"
    )
    return open_session(str(tmp_path / "project"), overrides=overrides, prompter=person, environ=environ)


def test_a_patch_inside_the_workspace_is_applied_unasked(tmp_path: Path, environ: dict[str, str]) -> None:
    with patching(tmp_path, environ, Person()) as here:
        assert here.apply_patch(PATCH.format("sub/new")) == (("A", "sub/new"),)
    assert (tmp_path / "project" / "sub" / "new").read_text() == "\x1b[2Jtext\n"


def test_a_patch_outside_is_asked_about_and_shown(tmp_path: Path, environ: dict[str, str]) -> None:
    person = Person(Choice.NO, Choice.ONCE)
    with patching(tmp_path, environ, person) as here:
        with pytest.raises(NotPermittedError):
            here.apply_patch(PATCH.format("../out"))
        assert not (tmp_path / "out").exists()
        here.apply_patch(PATCH.format("../out"))
    assert (tmp_path / "out").exists()
    assert Choice.ALWAYS not in person.questions[0].offers
    shown = question_text(person.questions[0])
    assert f"+++ {tmp_path}/out" in shown
    assert r"+\x1b[2Jtext" in shown


@pytest.mark.parametrize("target", [".git/hooks/pre-commit", ".codex/config.toml", "../home/config.toml"])
def test_a_patch_of_what_is_protected_is_not_even_asked_about(
    tmp_path: Path, environ: dict[str, str], target: str
) -> None:
    roots = f'sandbox_workspace_write.writable_roots=["{tmp_path}"]'
    with patching(tmp_path, environ, Person(), roots) as here, pytest.raises(NotPermittedError):
        here.apply_patch(PATCH.format(target))


def test_in_a_read_only_session_under_never_nothing_is_patched(tmp_path: Path, environ: dict[str, str]) -> None:
    overrides = ("sandbox_mode=read-only", "approval_policy=never")
    with patching(tmp_path, environ, Person(), *overrides) as here, pytest.raises(NotPermittedError, match="read-only"):
        here.apply_patch(PATCH.format("new"))


# Hosts


def test_a_rule_that_cannot_be_written_is_a_no_in_one_line(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "home" / "rules").symlink_to("/proc/self")  # nobody can make a file there, root neither
    refusal = pytest.raises(NotPermittedError, match=r"^not permitted: .*approved\.toml: cannot be written: [^\n]*$")
    with session(tmp_path, environ, Person(Choice.ALWAYS)) as here, refusal:
        here.run(["touch", "made"])
    assert not (tmp_path / "project" / "made").exists()


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def address() -> Iterator[str]:
    """Give ``127.0.0.1:PORT`` of a server outside the sandbox."""
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetch(address: str) -> list[str]:
    read = f"import urllib.request as u; print(u.urlopen('http://{address}/', timeout=20).read().decode())"
    direct = f"import os; [os.environ.pop(name, 0) for name in ('no_proxy', 'NO_PROXY')]; {read}"
    return [sys.executable, "-I", "-c", direct]


def filtered(tmp_path: Path, environ: dict[str, str], person: Person) -> Any:  # noqa: ANN401 - a session
    overrides = ["sandbox_mode=workspace-write", 'sandbox_workspace_write.allowed_domains=["a.test"]']
    return open_session(str(tmp_path / "project"), overrides=overrides, prompter=person, environ=environ)


def test_a_rule_closes_a_host_that_the_configuration_opens(
    tmp_path: Path, environ: dict[str, str], address: str
) -> None:
    overrides = ["sandbox_mode=workspace-write", f'sandbox_workspace_write.allowed_domains=["{address}"]']
    with open_session(str(tmp_path / "project"), overrides=overrides, environ=environ) as here:
        assert here.run(fetch(address)).stdout == b"hello\n"
    words = [*CODEX, "rules", "add", "forbid", "--justification", "not ours", "--host", address]
    subprocess.run(words, cwd=tmp_path, env=environ, check=True, capture_output=True)
    with open_session(str(tmp_path / "project"), overrides=overrides, environ=environ) as here:
        (denial,) = here.run(fetch(address)).denials
    assert denial.rule.endswith("user.toml:1: not ours")


@pytest.mark.parametrize(
    ("rule", "policy", "decision"),
    [
        (None, "on-request", "prompt"),
        (None, "never", "forbid"),
        ("allow", "untrusted", "allow"),
        ("forbid", "on-failure", "forbid"),
    ],
)
def test_rules_check_says_what_would_become_of_a_host(
    tmp_path: Path, environ: dict[str, str], rule: str | None, policy: str, decision: str
) -> None:
    if rule:
        words = [*CODEX, "rules", "add", rule, "--host", "*.a.test:443"]
        subprocess.run(words, cwd=tmp_path, env=environ, check=True, capture_output=True)
    words = [*CODEX, "rules", "check", "--json", "-a", policy, "--host", "www.a.test:443"]
    done = subprocess.run(words, cwd=tmp_path, env=environ, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["decision"] == decision


def test_what_is_remembered_for_always_holds_for_that_program_only(tmp_path: Path, environ: dict[str, str]) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "tool"
    tool.write_text("#!/bin/sh\necho first\n")
    tool.chmod(0o755)
    with session(tmp_path, {**environ, "PATH": f"{tools}:/usr/bin"}, Person(Choice.ALWAYS)) as here:
        assert here.run(["tool"]).stdout == b"first\n"
    other = tmp_path / "other"
    other.mkdir()
    (other / "tool").write_text("#!/bin/sh\necho second\n")
    (other / "tool").chmod(0o755)
    with session(tmp_path, {**environ, "PATH": f"{tools}:/usr/bin"}, Person()) as here:
        assert here.run(["tool"]).stdout == b"first\n"
    person = Person(Choice.NO)
    with session(tmp_path, {**environ, "PATH": f"{other}:/usr/bin"}, person) as here, pytest.raises(NotPermittedError):
        here.run(["tool"])


@pytest.mark.parametrize("kind", ["script", "link"])
def test_a_program_that_commands_can_replace_leaves_the_sandbox_once_only(
    tmp_path: Path, environ: dict[str, str], kind: str
) -> None:
    program = tmp_path / "project" / "show"
    if kind == "script":
        program.write_text("#!/bin/sh\necho shown\n")
        program.chmod(0o755)
    else:
        program.symlink_to("/bin/echo")
    person = Person(Choice.ONCE, Choice.SESSION)
    overrides = ["approval_policy=on-request", "sandbox_mode=workspace-write"]
    with open_session(str(tmp_path / "project"), overrides=overrides, prompter=person, environ=environ) as here:
        assert here.run(["./show", "shown"], escalated=True).stdout == b"shown\n"
        with pytest.raises(NotPermittedError):
            here.run(["./show", "shown"], escalated=True)
    assert [question.offers for question in person.questions] == [(Choice.ONCE, Choice.NO, Choice.STOP)] * 2


# Web search


class Watching(Observer):
    """Keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    @hookimpl
    def on_event(self, event: Event) -> None:
        self.seen.append(event)


@pytest.mark.parametrize(
    ("user", "requirements", "reason"),
    [
        ("", "", "web search is off"),
        ("[features]\nweb_search_request = true\n", "", ""),
        ('web_search = "cached"\n', "", ""),
        ("[features]\nweb_search_request = true\n", "allowed_web_search_modes = []", "web search is off"),
        ('web_search = "live"\nmodel_provider = "mine"\n', "", "the model provider 'mine' is not known to have"),
        ('web_search = "live"\nmodel_provider = "mine"\n[model_providers.mine]\nweb_search = true\n', "", ""),
        ("[sandbox_workspace_write]\nnetwork_access = true\n", "", "web search is off"),
        ('sandbox_mode = "read-only"\nweb_search = "live"\n', "allow_network_access = false", ""),
    ],
)
def test_each_use_of_web_search_is_decided_by_its_gate_alone_and_is_an_event(
    tmp_path: Path, environ: dict[str, str], user: str, requirements: str, reason: str
) -> None:
    (tmp_path / "home" / "config.toml").write_text(user)
    (tmp_path / "root" / "etc" / "codex").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "codex" / "requirements.toml").write_text(requirements)
    loaded = load_config(cwd=str(tmp_path / "project"), environ=environ, system_root=str(tmp_path / "root"))
    watching = Watching()
    host = Host.for_config(loaded.config)
    host.observers.register(watching, "watching")
    with Session(loaded, host=host) as here:
        for number in range(2):
            with pytest.raises(NotPermittedError, match=reason) if reason else nullcontext():
                here.gate("web_search", "how to", call_id=str(number))
        told = [event for event in watching.seen if isinstance(event, ToolDecision)]
        assert [(one.tool_name, one.call_id, one.decided_by) for one in told] == [
            ("web_search", str(number), "gate:web_search") for number in range(2)
        ]
        assert {one.decision for one in told} == {"denied" if reason else "approved"}
        (start,) = [event for event in watching.seen if isinstance(event, ConversationStarts)]
        assert start.web_search is (not reason)
        # Where it is turned on and cannot be had, the person is told before the first command.
        assert any("web search" in notice for notice in here.notices) is ("mine" in reason)
