from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.agent.session import Session
from codex_core.approval.memory import Grant
from codex_core.approval.prompt import Answer, Choice, Question
from codex_core.config import load_config
from codex_core.errors import (
    CommandNotFoundError,
    NotPermittedError,
    SandboxUnavailableError,
    StoppedError,
    UsageError,
)
from codex_core.events import (
    ConversationStarts,
    Event,
    NetworkDecision,
    SandboxOutcome,
    TelemetryDropped,
    ToolDecision,
    ToolResult,
)
from codex_core.hookspecs import ApprovalPolicy, Exporter, Observer, SandboxBackend, hookimpl
from codex_core.host import Host
from codex_core.sandbox.direct import DirectLauncher
from codex_core.types import (
    NETWORK_TOOL,
    QUESTION_PATIENCE,
    Action,
    Command,
    Contact,
    Decision,
    Denial,
    Operation,
    SandboxMode,
    Strength,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Launcher

ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
ALLOW = Verdict(Decision.ALLOW, "fine", "policy:test")
PROMPT = Verdict(Decision.PROMPT, "hm", "policy:test")
FORBID = Verdict(Decision.FORBID, "never that", "policy:test")
OUTSIDE = Verdict(Decision.PROMPT, "outside", "policy:test", unsandboxed=True)


class Sink:
    dropped = 0

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.broken = False
        self.closed = False

    def export(self, event: Event) -> None:
        if self.broken:
            raise RuntimeError("down")
        self.events.append(event)

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        assert 0 < timeout < 10
        self.closed = True


class KeepingExporter(Exporter):
    def __init__(self) -> None:
        self.sink = Sink()
        self.opened_with: tuple[dict[str, Any], dict[str, str]] | None = None

    @hookimpl
    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> Sink:
        self.opened_with = dict(settings), dict(resource)
        return self.sink


class Says(ApprovalPolicy):
    """Gives the same verdict always, but another one after a denial."""

    def __init__(self, verdict: Verdict, after_denial: Verdict) -> None:
        self.verdict = verdict
        self.after_denial = after_denial
        self.about_hosts = verdict
        self.asked: list[Action] = []

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:  # noqa: ARG002 - the contract
        self.asked.append(action)
        if action.tool == NETWORK_TOOL:
            return self.about_hosts
        return self.verdict if action.after_denial is None else self.after_denial


class Watching(Observer):
    def __init__(self) -> None:
        self.seen: list[Event] = []

    @hookimpl
    def on_event(self, event: Event) -> None:
        self.seen.append(event)


class MarkingLauncher(DirectLauncher):
    """Confines nothing, and says of itself that it is there."""

    closed = False
    denies: tuple[Denial, ...] = ()
    meets: tuple[Contact, ...] = ()
    wants = ""
    """A host that every command wants to reach."""
    reached = 0

    def start(self, command: Command, stdin: int, stdout: int, stderr: int, *, tty: str | None = None) -> Any:  # noqa: ANN401 - a Running of the base class's own
        running = super().start(command, stdin, stdout, stderr, tty=tty)
        if self.wants and command.ask is not None:
            with suppress(NotPermittedError):
                command.ask(self.wants, 443)
                self.reached += 1
        setattr(running, "denials", lambda: self.denies)  # noqa: B010 - a method of this one object
        setattr(running, "contacts", lambda: self.meets)  # noqa: B010 - as above
        return running

    @property
    def strength(self) -> Strength:
        return Strength("marking", "paper", frozenset())

    def close(self) -> None:
        self.closed = True
        super().close()


class MarkingBackend(SandboxBackend):
    def __init__(self) -> None:
        self.launchers: list[MarkingLauncher] = []
        self.denies: tuple[Denial, ...] = ()
        self.wants = ""

    @hookimpl
    def probe(self) -> Strength:
        return MarkingLauncher().strength

    @hookimpl
    def unsupported(self, policy: SandboxPolicy) -> Sequence[str]:  # noqa: ARG002 - the contract
        return ()

    @hookimpl
    def launcher(self, policy: SandboxPolicy) -> Launcher:  # noqa: ARG002 - the contract
        self.launchers.append(MarkingLauncher())
        self.launchers[-1].denies = self.denies
        self.launchers[-1].wants = self.wants
        return self.launchers[-1]


class Person:
    def __init__(self, *answers: Answer | BaseException) -> None:
        self.answers = list(answers)
        self.questions: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


YES = Answer(Choice.ONCE)
NO = Answer(Choice.NO)


class Scene:
    """A session whose plugins are at hand."""

    def __init__(  # noqa: PLR0913 - each is one independent choice of a test
        self,
        folder: str,
        home: str,
        mode: str,
        verdicts: tuple[Verdict, Verdict],
        person: Person,
        *,
        overrides: Sequence[str],
    ) -> None:
        self.exporter = KeepingExporter()
        self.policy = Says(*verdicts)
        self.backend = MarkingBackend()
        self.observer = Watching()
        self.person = person
        host = Host()
        host.exporters.register(self.exporter, "none")
        host.approval_policies.register(self.policy, "test")
        host.sandbox_backends.register(self.backend, "marking")
        host.observers.register(self.observer, "watching")
        given = [f"sandbox_mode={mode}", "otel.environment=test", *overrides]
        loaded = load_config(cwd=folder, overrides=given, environ={**ENV, "CODEX_HOME": home})
        self.session = Session(loaded, person, host=host)

    @property
    def events(self) -> list[Event]:
        return self.exporter.sink.events

    def names(self) -> list[str]:
        return [event.name.removeprefix("codex.") for event in self.events]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "project" / "below").mkdir(parents=True)
    return str(tmp_path / "project")


@pytest.fixture
def scene(tmp_path: Path, folder: str) -> Callable[..., Scene]:
    (tmp_path / "home").mkdir()

    def scene(
        verdict: Verdict = ALLOW,
        *answers: Answer | BaseException,
        after_denial: Verdict = FORBID,
        mode: str = "workspace-write",
        overrides: Sequence[str] = (),
    ) -> Scene:
        return Scene(
            folder, str(tmp_path / "home"), mode, (verdict, after_denial), Person(*answers), overrides=overrides
        )

    return scene


def test_a_session_announces_itself_with_its_policy(scene: Callable[..., Scene]) -> None:
    here = scene()
    (event,) = here.of(ConversationStarts)
    assert (event.sandbox_policy, event.sandbox_backend, event.network_access) == ("workspace-write", "marking", False)
    assert here.exporter.opened_with is not None
    assert here.exporter.opened_with[1]["env"] == "test"


def test_a_git_that_is_allowed_as_harmless_is_run_so_that_it_is(scene: Callable[..., Scene], folder: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    config = os.path.join(folder, ".git", "config")
    here = scene()
    os.mkdir(f"{folder}/bin")
    with open(f"{folder}/bin/git", "w") as file:
        file.write(f"#!/bin/sh\ntouch {folder}/marked\n")
    os.chmod(f"{folder}/bin/git", 0o755)
    result = here.session.run(["git", "status", "--short"], env={"GIT_TRACE": "2", "PATH": f"{folder}/bin:/usr/bin"})
    assert not os.path.exists(f"{folder}/marked")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"?? bin/\n", b"")
    neutralised = json.loads(here.of(ToolDecision)[0].neutralised)
    assert neutralised["argv"] == [
        shutil.which("git", path=ENV["PATH"]),
        "status",
        "--ignore-submodules=all",
        "--short",
    ]
    assert neutralised["environ"]["GIT_DIR"] == os.path.dirname(config)

    with open(config, "a") as file:
        file.write(f"[core]\n\tfsmonitor = touch {folder}/marked\n")
    here.session.run(["git", "status", "--short"])
    assert here.of(ToolDecision)[1].neutralised == ""
    # The policy of this test allows what is to be asked about: then it is run as it is.
    assert os.path.exists(f"{folder}/marked")


def test_an_allowed_command_runs_confined_and_leaves_decision_and_result(scene: Callable[..., Scene]) -> None:
    here = scene()
    result = here.session.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.returncode, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert result.strength.backend == "marking"
    assert here.names() == ["conversation_starts", "tool_decision", "tool_result"]
    (decision,), (report,) = here.of(ToolDecision), here.of(ToolResult)
    assert (decision.decision, decision.source, decision.reason) == ("approved", "config", "policy:test: fine")
    assert (report.success, report.exit_code, report.sandbox_strength) == (True, 3, "marking/paper")
    assert json.loads(report.arguments)["command"] == ["sh", "-c", "echo out; echo err >&2; exit 3"]
    assert report.output == "out\nerr\n"
    assert decision.call_id == report.call_id != ""
    assert here.observer.seen == here.events


def test_a_folder_that_has_become_a_link_is_not_followed(scene: Callable[..., Scene], folder: str) -> None:
    here = scene()
    os.rename(folder, f"{folder}-before")
    os.mkdir(f"{folder}-elsewhere")
    os.symlink(f"{folder}-elsewhere", folder)
    with pytest.raises(UsageError, match="is not inside the session's folder"):
        here.session.run(["touch", "made"])
    assert os.listdir(f"{folder}-elsewhere") == []


def test_an_observer_that_comes_later_sees_what_happens_then(scene: Callable[..., Scene]) -> None:
    here, late = scene(), Watching()
    here.session.host.observers.register(late, "late")
    here.session.run(["true"])
    assert [event.name for event in late.seen] == ["codex.tool_decision", "codex.tool_result"]


def test_what_is_forbidden_does_not_run_and_is_reported_all_the_same(scene: Callable[..., Scene], folder: str) -> None:
    here = scene(FORBID)
    with pytest.raises(NotPermittedError, match="never that"):
        here.session.run(["touch", "made"])
    assert not os.path.exists(os.path.join(folder, "made"))
    assert here.person.questions == []
    (decision,), (report,) = here.of(ToolDecision), here.of(ToolResult)
    assert (decision.decision, decision.source) == ("denied", "config")
    assert (report.success, report.duration_ms, report.exit_code) == (False, 0, None)
    assert "never that" in report.output


def test_a_person_who_is_asked_may_say_yes(scene: Callable[..., Scene]) -> None:
    here = scene(PROMPT, YES)
    assert here.session.run(["true"]).returncode == 0
    assert here.person.questions[0].action.argv == ("true",)
    assert [(one.decision, one.source) for one in here.of(ToolDecision)] == [("approved", "user")]


@pytest.mark.parametrize(
    ("answer", "decision", "source"),
    [
        (NO, "denied", "user"),
        (Answer(Choice.STOP), "abort", "user"),
        (Answer(Choice.NO, "nobody answered", "timeout"), "timed_out", "config"),
        (Answer(Choice.NO, "no terminal", "no-terminal"), "denied", "config"),
        (RuntimeError("the window closed"), "denied", "config"),
    ],
)
def test_anything_but_yes_is_no(
    scene: Callable[..., Scene], folder: str, answer: Answer | Exception, decision: str, source: str
) -> None:
    here = scene(PROMPT, answer)
    with pytest.raises(NotPermittedError):
        here.session.run(["touch", "made"])
    assert not os.path.exists(os.path.join(folder, "made"))
    assert [(one.decision, one.source) for one in here.of(ToolDecision)] == [(decision, source)]
    assert [one.success for one in here.of(ToolResult)] == [False]


def test_a_denial_is_recognised_by_the_path_that_the_policy_closes(scene: Callable[..., Scene]) -> None:
    here = scene(mode="read-only")
    result = here.session.run(["sh", "-c", "echo \"touch: cannot touch 'x': Read-only file system\" >&2; exit 1"])
    (denial,) = result.denials
    assert (denial.operation, denial.target, denial.certain) == (
        Operation.WRITE,
        f"{here.session.policy.cwd}/x",
        False,
    )
    assert here.of(SandboxOutcome)[0].outcome == "denied"


@pytest.mark.parametrize(
    "script",
    [
        "echo \"cat: '/etc/shadow': No such file or directory\" >&2; exit 1",
        "echo 'sandbox is the name of a folder' >&2; exit 1",
        "echo \"touch: cannot touch 'x': Permission denied\" >&2; exit 0",
    ],
)
def test_other_failures_are_no_denials(scene: Callable[..., Scene], script: str) -> None:
    assert scene(mode="read-only").session.run(["sh", "-c", script]).denials == ()


DENIED_ONCE = (
    "test -e allowed && echo ran && exit; touch allowed; echo \"touch: '/etc/x': Read-only file system\" >&2; exit 1"
)


def test_after_a_denial_a_person_may_let_it_run_outside(scene: Callable[..., Scene]) -> None:
    here = scene(ALLOW, YES, after_denial=OUTSIDE)
    result = here.session.run(["sh", "-c", DENIED_ONCE])
    assert (result.stdout, result.strength.backend) == (b"ran\n", "none")
    assert here.person.questions[0].action.after_denial is not None
    assert [one.decision for one in here.of(ToolDecision)] == ["approved", "approved"]
    assert [one.outcome for one in here.of(SandboxOutcome)] == ["escalated"]
    assert here.of(SandboxOutcome)[0].escalated_duration_ms is not None


@pytest.mark.parametrize(("after_denial", "answers"), [(FORBID, []), (OUTSIDE, [NO]), (PROMPT, [YES]), (ALLOW, [])])
def test_without_a_yes_to_leave_the_sandbox_the_denied_result_stands(
    scene: Callable[..., Scene], after_denial: Verdict, answers: list[Answer]
) -> None:
    here = scene(ALLOW, *answers, after_denial=after_denial)
    result = here.session.run(["sh", "-c", DENIED_ONCE])
    assert (result.returncode, result.strength.backend) == (1, "marking")
    assert len(result.denials) == 1


def test_full_access_needs_no_backend(scene: Callable[..., Scene]) -> None:
    here = scene(mode="danger-full-access")
    assert here.session.run(["true"]).strength.backend == "none"
    assert here.backend.launchers == []
    assert here.of(ConversationStarts)[0].sandbox_backend == "none"


def test_without_a_backend_nothing_runs(scene: Callable[..., Scene], folder: str) -> None:
    here = scene()
    here.session.host = Host()
    here.session.host.approval_policies.register(Says(ALLOW, FORBID), "test")
    with pytest.raises(SandboxUnavailableError):
        here.session.run(["touch", "made"])
    assert not os.path.exists(os.path.join(folder, "made"))


def test_one_launcher_serves_all_commands_and_ends_with_the_session(scene: Callable[..., Scene]) -> None:
    here = scene()
    with here.session:
        for _ in range(3):
            here.session.run(["true"])
    (launcher,) = here.backend.launchers
    assert launcher.closed
    assert here.exporter.sink.closed
    with pytest.raises(SandboxUnavailableError):
        here.session.run(["true"])
    here.session.close()


def test_a_timeout_and_a_signal_are_outcomes(scene: Callable[..., Scene]) -> None:
    here = scene()
    assert here.session.run(["sleep", "600"], timeout=0.1).timed_out
    assert here.session.run(["sh", "-c", "kill -TERM $$"]).returncode == 143
    assert [one.outcome for one in here.of(SandboxOutcome)] == ["timed_out", "signal"]


def test_a_command_that_cannot_start_is_an_error_and_a_result(scene: Callable[..., Scene]) -> None:
    here = scene()
    with pytest.raises(CommandNotFoundError):
        here.session.run(["no-such-program"])
    assert [one.success for one in here.of(ToolResult)] == [False]


def test_a_folder_inside_is_where_it_runs_and_does_not_become_writable(
    scene: Callable[..., Scene], folder: str
) -> None:
    here = scene(mode="read-only")
    assert here.session.run(["pwd"], cwd="below").stdout.decode().strip() == os.path.realpath(f"{folder}/below")
    assert here.policy.asked[0].cwd == os.path.realpath(f"{folder}/below")
    assert here.session.policy.check(Operation.WRITE, f"{folder}/below/x") is not None


@pytest.mark.parametrize("cwd", ["..", "/", "below/../.."])
def test_a_folder_outside_is_refused(scene: Callable[..., Scene], cwd: str) -> None:
    with pytest.raises(UsageError):
        scene().session.run(["true"], cwd=cwd)


def test_a_link_out_of_the_folder_is_outside(scene: Callable[..., Scene], folder: str) -> None:
    os.symlink("/", os.path.join(folder, "out"))
    with pytest.raises(UsageError):
        scene().session.run(["true"], cwd="out")


def test_variables_are_what_the_configuration_lets_through_and_what_the_caller_adds(
    scene: Callable[..., Scene],
) -> None:
    here = scene()
    script = 'echo "$CODEX_SANDBOX $CODEX_SANDBOX_NETWORK_DISABLED $MINE"'
    assert here.session.run(["sh", "-c", script], env={"MINE": "x"}).stdout == b"marking 1 x\n"


def test_what_the_caller_adds_steers_nothing_outside_the_sandbox(scene: Callable[..., Scene], folder: str) -> None:
    script = 'echo "$BASH_ENV $MINE"'
    added = {"BASH_ENV": os.path.join(os.path.realpath(folder), "left"), "MINE": "x"}
    inside = scene().session.run(["sh", "-c", script], env=added)
    assert inside.stdout.decode() == f"{added['BASH_ENV']} x\n"
    outside = scene(OUTSIDE, YES).session.run(["sh", "-c", script], env=added)
    assert outside.stdout == b" x\n"


def test_events_that_cannot_be_kept_do_not_stop_the_work_and_are_counted(scene: Callable[..., Scene]) -> None:
    here = scene()
    here.exporter.sink.broken = True
    assert here.session.run(["true"]).returncode == 0
    here.exporter.sink.broken = False
    here.session.close()
    assert [event.count for event in here.of(TelemetryDropped)] == [2]


def test_an_interrupt_is_reported_and_goes_on(scene: Callable[..., Scene]) -> None:
    here = scene()

    def interrupt(_stream: str, _piece: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here.session.run(["sh", "-c", "echo x; sleep 600"], on_output=interrupt)
    assert [one.success for one in here.of(ToolResult)] == [False]


def test_fifty_commands_at_once_and_three_hundred_in_a_row_leave_nothing_behind(scene: Callable[..., Scene]) -> None:
    here = scene()
    here.session.run(["true"])
    descriptors, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    with ThreadPoolExecutor(50) as pool:
        outputs = list(pool.map(lambda number: here.session.run(["echo", str(number)]).stdout, range(50)))
    assert outputs == [f"{number}\n".encode() for number in range(50)]
    for _ in range(300):
        here.session.run(["true"])
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
    assert len({event.call_id for event in here.of(ToolResult)}) == 351


def test_output_that_is_no_text_becomes_an_event_all_the_same(scene: Callable[..., Scene]) -> None:
    here = scene()
    assert here.session.run(["printf", r"\377\376"]).stdout == b"\xff\xfe"
    assert here.of(ToolResult)[0].output == "\ufffd\ufffd"


def test_the_mode_is_what_the_configuration_says(scene: Callable[..., Scene]) -> None:
    assert scene(mode="read-only").session.policy.mode is SandboxMode.READ_ONLY


def test_every_decision_about_a_host_is_an_event(scene: Callable[..., Scene]) -> None:
    here = scene()
    here.session.run(["true"])
    assert here.of(NetworkDecision) == []
    here.backend.launchers[0].meets = (
        Contact("a.test", 443, allowed=True, rule="listed"),
        Contact("b.test", 0, allowed=False, rule="not listed"),
    )
    assert here.session.run(["true"], call_id="call").contacts == here.backend.launchers[0].meets
    told = [(one.host, one.port, one.decision, one.rule, one.call_id) for one in here.of(NetworkDecision)]
    assert told == [("a.test", 443, "allowed", "listed", "call"), ("b.test", 0, "denied", "not listed", "call")]
    assert here.names().index("network_decision") < len(here.names()) - 1, "before the result"


def test_a_denial_that_the_launcher_reports_is_kept_as_it_is(scene: Callable[..., Scene]) -> None:
    here = scene()
    here.session.run(["true"])
    here.backend.launchers[0].denies = (Denial(Operation.CONNECT, "example.com:443", "the network is off"),)
    result = here.session.run(["sh", "-c", "echo \"touch: '/etc/x': Permission denied\" >&2; exit 1"])
    assert result.denials == here.backend.launchers[0].denies
    assert here.of(SandboxOutcome)[0].target == "example.com:443"


def test_a_change_closes_the_old_sandbox_and_makes_the_next_one_before_it_is_needed(
    scene: Callable[..., Scene],
) -> None:
    here = scene(ALLOW, mode="workspace-write")
    here.session.run(["true"])
    here.session.change({"sandbox_mode": "read-only"})
    assert here.backend.launchers[0].closed
    deadline = time.monotonic() + 30
    while len(here.backend.launchers) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    here.session.run(["true"])
    assert len(here.backend.launchers) == 2


# Questions about hosts

FILTERED = ['sandbox_workspace_write.allowed_domains=["a.test"]']
CLOSED = (Denial(Operation.CONNECT, "b.test:443", "no entry of allowed_domains matches", "add it"),)
FAILS = ["sh", "-c", "exit 1"]


def that_wants_a_host(scene: Callable[..., Scene], *answers: Answer, overrides: Sequence[str] = ()) -> Scene:
    """Give a scene in which a command may run and every connection is asked about."""
    here = scene(ALLOW, *answers, overrides=[*FILTERED, *overrides])
    here.backend.wants = "b.test"
    here.policy.about_hosts = PROMPT
    return here


def test_a_host_is_asked_about_by_name_for_the_command_that_wants_it(scene: Callable[..., Scene]) -> None:
    here = that_wants_a_host(scene, YES, NO)
    here.session.run(["true"], call_id="7")
    (question,) = here.person.questions
    assert (question.action.tool, question.action.argv) == ("network", ("b.test:443",))
    assert question.action.command == ("true",)
    assert question.grant == Grant(host="b.test:443")
    assert Choice.STOP not in question.offers
    assert question.patience == QUESTION_PATIENCE
    assert [(one.tool_name, one.call_id) for one in here.of(ToolDecision)] == [("shell", "7"), ("network", "7")]
    here.session.run(["true"])
    assert len(here.person.questions) == 2
    assert here.backend.launchers[0].reached == 1


def test_a_host_that_is_open_for_the_session_is_so_for_every_command(scene: Callable[..., Scene]) -> None:
    here = that_wants_a_host(scene, Answer(Choice.SESSION))
    for command in ("true", "echo"):
        here.session.run([command])
    assert len(here.person.questions) == 1
    assert here.backend.launchers[0].reached == 2


def test_a_connection_that_was_refused_is_not_asked_about_again_at_the_end(scene: Callable[..., Scene]) -> None:
    here = that_wants_a_host(scene, NO)
    here.policy.after_denial = OUTSIDE
    here.backend.denies = CLOSED
    result = here.session.run(FAILS)
    assert (result.returncode, result.denials) == (1, CLOSED)
    assert [one.action.tool for one in here.person.questions] == ["network"]


def test_a_no_that_stops_is_told_from_one_that_goes_on(scene: Callable[..., Scene]) -> None:
    here = scene(ALLOW, Answer(Choice.STOP), after_denial=OUTSIDE)
    here.backend.denies = (Denial(Operation.WRITE, "/etc/x", "outside every writable root"),)
    with pytest.raises(StoppedError):
        here.session.run(FAILS)
    assert [one.decision for one in here.of(ToolDecision)] == ["approved", "abort"]


def test_a_host_that_a_rule_closes_is_not_asked_about_and_the_rule_is_named(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    (rules / "r.toml").write_text('[[rule]]\nhosts = ["*.test"]\ndecision = "forbid"\njustification = "ours"\n')
    here = that_wants_a_host(scene)
    here.backend.denies = CLOSED
    (denial,) = here.session.run(FAILS).denials
    assert (denial.rule, denial.cure) == (f"{rules}/r.toml:1: ours", "")
    assert here.person.questions == []
    assert here.session.policy.check(Operation.CONNECT, "a.test:443") is not None


def test_no_rule_opens_hosts_where_the_mode_closes_the_network(scene: Callable[..., Scene], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    (rules / "r.toml").write_text('[[rule]]\nhosts = ["b.test"]\ndecision = "allow"\n')
    assert scene(mode="workspace-write").session.policy.check(Operation.CONNECT, "b.test:443") is None
    assert scene(mode="read-only").session.policy.check(Operation.CONNECT, "b.test:443") is not None


# Who decided


@pytest.mark.parametrize(
    ("verdict", "answers", "told"),
    [
        (ALLOW, [], [("approved", "config", "policy:test")]),
        (FORBID, [], [("denied", "config", "policy:test")]),
        (PROMPT, [YES], [("approved", "user", "user")]),
        (PROMPT, [NO], [("denied", "user", "user")]),
        (PROMPT, [Answer(Choice.NO, "late", "timeout")], [("timed_out", "config", "timeout")]),
        (PROMPT, [Answer(Choice.NO, "nobody", "no-terminal")], [("denied", "config", "no-terminal")]),
        (PROMPT, [RuntimeError("gone")], [("denied", "config", "prompter")]),
        (
            PROMPT,
            [Answer(Choice.SESSION)],
            [("approved_for_session", "user", "user"), ("approved_for_session", "user", "session")],
        ),
    ],
)
def test_every_decision_says_who_made_it(
    scene: Callable[..., Scene],
    verdict: Verdict,
    answers: list[Answer | Exception],
    told: list[tuple[str, str, str]],
) -> None:
    here = scene(verdict, *answers)
    for _ in told:
        with suppress(NotPermittedError):
            here.session.run(["true"])
    assert [(one.decision, one.source, one.decided_by) for one in here.of(ToolDecision)] == told


def test_a_decision_by_a_rule_names_its_file_and_line(scene: Callable[..., Scene], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    (rules / "r.toml").write_text('\n[[rule]]\npattern = ["true"]\ndecision = "forbid"\n')
    here = scene()
    with pytest.raises(NotPermittedError):
        here.session.run(["true"])
    assert [(one.decision, one.decided_by) for one in here.of(ToolDecision)] == [("denied", f"{rules}/r.toml:2")]


PATCH = "*** Begin Patch\n*** Add File: new\n+x\n*** End Patch\n"


def test_decisions_about_patches_are_events_too_and_a_yes_is_for_the_files(scene: Callable[..., Scene]) -> None:
    here = scene(PROMPT, Answer(Choice.SESSION))
    here.session.apply_patch(PATCH)
    here.session.apply_patch("*** Begin Patch\n*** Update File: new\n-x\n+y\n*** End Patch\n")
    assert [(one.tool_name, one.decided_by) for one in here.of(ToolDecision)] == [
        ("apply_patch", "user"),
        ("apply_patch", "session"),
    ]
    assert here.person.questions[0].grant.files == (f"{here.session.policy.cwd}/new",)
    assert Choice.ALWAYS not in here.person.questions[0].offers


# Switches


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("commands", lambda session: session.run(["true"])),
        ("escalation", lambda session: session.run(["true"], escalated=True)),
        ("patches", lambda session: session.apply_patch(PATCH)),
    ],
)
def test_a_question_that_is_switched_off_is_a_no(
    scene: Callable[..., Scene], kind: str, act: Callable[[Session], object]
) -> None:
    # The question is asked where only the others are switched off.
    others = [f"ask_about.{other}=false" for other in ("commands", "escalation", "patches") if other != kind]
    here = scene(PROMPT, YES, overrides=others)
    act(here.session)
    assert len(here.person.questions) == 1
    here = scene(PROMPT, overrides=[f"ask_about.{kind}=false"])
    with pytest.raises(NotPermittedError, match=rf"ask_about\.{kind} = false"):
        act(here.session)
    assert [(one.decision, one.decided_by) for one in here.of(ToolDecision)] == [("denied", "ask_about")]


def test_a_question_of_two_kinds_needs_both(scene: Callable[..., Scene], tmp_path: Path) -> None:
    rules = tmp_path / "home" / "rules"
    rules.mkdir()
    (rules / "r.toml").write_text('[[rule]]\npattern = ["true"]\ndecision = "prompt"\n')
    for kind in ("escalation", "rules"):
        here = scene(OUTSIDE, overrides=[f"ask_about.{kind}=false"])
        with pytest.raises(NotPermittedError, match=rf"ask_about\.{kind} = false"):
            here.session.run(["true"], escalated=True)


def test_a_host_is_not_asked_about_where_that_is_switched_off(scene: Callable[..., Scene]) -> None:
    here = that_wants_a_host(scene, overrides=["ask_about.network=false"])
    here.session.run(["true"])
    assert here.of(ToolDecision)[-1].decided_by == "ask_about"
    assert here.backend.launchers[0].reached == 0


def test_a_yes_for_ever_is_offered_only_where_it_would_help(scene: Callable[..., Scene]) -> None:
    here = scene(PROMPT, Answer(Choice.ALWAYS))
    with pytest.raises(NotPermittedError):
        here.session.run(["true"])
    assert Choice.ALWAYS not in here.person.questions[0].offers
