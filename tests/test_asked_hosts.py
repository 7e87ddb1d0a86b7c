"""A person, or an approval policy, is asked about a host that no list names, while the command runs."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from codex_core.agent.session import Session
from codex_core.approval.memory import Grant
from codex_core.approval.prompt import Answer, Choice, Question, menu_lines, question_text
from codex_core.config import load_config
from codex_core.events import Event, NetworkDecision, ToolDecision
from codex_core.hookspecs import Observer, hookimpl
from codex_core.host import Host
from codex_core.testing.terminal import Shell
from codex_core.types import NETWORK_TOOL, Action, Decision, Operation, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from codex_core.types import CommandResult

NAME = "app.localhost"
"""A name that the filter looks up nowhere; the loopback address that it leads to is listed."""
LISTS = 'sandbox_workspace_write.allowed_domains=["127.0.0.1", "[::1]:1"]'
BY_PROXY = """
import socket, sys
host, port = sys.argv[1:3]
s = socket.create_connection(("127.0.0.1", 13128))
s.sendall(f"CONNECT {host}:{port} HTTP/1.1\\r\\n\\r\\n".encode())
answer = s.recv(500).decode()
print(answer.split(" ")[1], answer.partition("\\r\\n\\r\\n")[2])
if " 200 " in answer:
    print(s.recv(5).decode())
"""
BY_ITSELF = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(s.recv(5).decode())
"""


class Prompter:
    """Gives one answer after the other, the last for ever, and remembers what it was asked."""

    def __init__(self, *choices: Choice) -> None:
        self.choices = list(choices)
        self.questions: list[Question] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        assert self.may_answer.wait(30)
        return Answer(self.choices.pop(0) if len(self.choices) > 1 else self.choices[0])


class Events(Observer):
    """Remembers all events."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    @hookimpl
    def on_event(self, event: Event) -> None:
        self.seen.append(event)

    def decisions(self) -> list[tuple[str, str]]:
        return [
            (one.decision, one.source)
            for one in self.seen
            if isinstance(one, ToolDecision) and one.tool_name == NETWORK_TOOL
        ]


@pytest.fixture
def server() -> Iterator[int]:
    """Give the port of a server of this machine's that greets whoever connects."""
    listening = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            with accepted:
                accepted.sendall(b"hello")

    threading.Thread(target=greet, daemon=True).start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def open_with(tmp_path: Path, events: Events) -> Iterator[Callable[..., Session]]:
    """Give ``open_with(prompter, *overrides)``: a session whose commands may reach listed hosts only."""
    for folder in ("home", "project", "root"):
        (tmp_path / folder).mkdir()
    opened: list[Session] = []

    def make(prompter: Prompter, *overrides: str, policy: str = "on-request") -> Session:
        home = str(tmp_path / "home")
        loaded = load_config(
            cwd=str(tmp_path / "project"),
            overrides=("sandbox_mode=workspace-write", f"approval_policy={policy}", LISTS, *overrides),
            environ={"PATH": os.defpath, "HOME": home, "CODEX_HOME": home},
            system_root=str(tmp_path / "root"),
        )
        host = Host.for_config(loaded.config)
        host.observers.register(events, "remembering")
        opened.append(Session(loaded, prompter, host=host))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


def reach(session: Session, port: int, how: str = BY_PROXY, host: str = NAME) -> CommandResult:
    return session.run([sys.executable, "-I", "-S", "-c", how, host, str(port)], timeout=60)


@pytest.mark.parametrize("how", [BY_PROXY, BY_ITSELF], ids=["by the proxy", "by itself"])
def test_a_host_that_no_list_names_is_reached_after_a_yes_and_not_without(
    open_with: Callable[..., Session], server: int, events: Events, how: str
) -> None:
    prompter = Prompter(Choice.ONCE, Choice.NO)
    session = open_with(prompter)
    served = reach(session, server, how)
    assert (served.returncode, served.stdout.split()[-1:], served.denials) == (0, [b"hello"], ()), served
    refused = reach(session, server, how)
    assert b"hello" not in refused.stdout
    assert [(one.operation, one.target) for one in refused.denials] == [(Operation.CONNECT, f"{NAME}:{server}")]
    assert refused.denials[0].rule.endswith("rejected by user")
    assert [question.action.argv for question in prompter.questions] == [(f"{NAME}:{server}",)] * 2
    assert events.decisions() == [("approved", "user"), ("denied", "user")]
    told = [(one.host, one.decision, one.rule) for one in events.seen if isinstance(one, NetworkDecision)]
    assert told[0] == (NAME, "allowed", "allowed by user")
    assert told[-1][:2] == (NAME, "denied")


def test_a_yes_for_the_session_is_remembered_for_that_host_and_port(
    open_with: Callable[..., Session], server: int, events: Events
) -> None:
    prompter = Prompter(Choice.SESSION, Choice.NO)
    session = open_with(prompter)
    for how in (BY_PROXY, BY_ITSELF):
        assert b"hello" in reach(session, server, how).stdout
    assert b"403" in reach(session, 1).stdout
    assert len(prompter.questions) == 2
    assert events.decisions() == [
        ("approved_for_session", "user"),
        ("approved_for_session", "user"),
        ("denied", "user"),
    ]


def test_a_yes_for_ever_is_a_rule_that_the_next_session_knows(open_with: Callable[..., Session], server: int) -> None:
    prompter = Prompter(Choice.ALWAYS)
    with open_with(prompter) as session:
        assert b"hello" in reach(session, server).stdout
    with open_with(prompter) as session:
        assert b"hello" in reach(session, server, BY_ITSELF).stdout
        assert b"403" in reach(open_with(Prompter(Choice.NO)), 1).stdout
    assert [question.grant.host for question in prompter.questions] == [f"{NAME}:{server}"]


def test_one_command_is_asked_about_a_host_once(open_with: Callable[..., Session], server: int) -> None:
    prompter = Prompter(Choice.ONCE)
    twice = open_with(prompter).run(
        [sys.executable, "-I", "-S", "-c", BY_PROXY + BY_PROXY + BY_ITSELF, NAME, str(server)], timeout=60
    )
    assert twice.stdout.split().count(b"hello") == 3, twice
    assert len(prompter.questions) == 1


def test_under_never_nobody_is_asked(open_with: Callable[..., Session], server: int, events: Events) -> None:
    prompter = Prompter(Choice.ONCE)
    refused = reach(open_with(prompter, policy="never"), server)
    assert b"403" in refused.stdout
    assert b"approval policy never refuses it" in refused.stdout
    assert prompter.questions == []
    assert events.decisions() == [("denied", "config")]


def test_a_rule_about_hosts_decides_without_a_question(
    open_with: Callable[..., Session], server: int, tmp_path: Path
) -> None:
    (tmp_path / "home" / "rules").mkdir()
    (tmp_path / "home" / "rules" / "hosts.toml").write_text(
        f'[[rule]]\nhosts = ["{NAME}"]\ndecision = "allow"\n[[rule]]\nhosts = ["bad.localhost"]\ndecision = "forbid"\n'
    )
    prompter = Prompter(Choice.ONCE)
    session = open_with(prompter, policy="never")
    assert b"hello" in reach(session, server).stdout
    assert b"403" in reach(session, server, host="bad.localhost").stdout
    assert prompter.questions == []


def test_what_is_denied_and_what_is_no_public_address_is_not_asked_about(
    open_with: Callable[..., Session], server: int
) -> None:
    prompter = Prompter(Choice.ONCE)
    session = open_with(prompter, f'sandbox_workspace_write.denied_domains=["{NAME}"]')
    for host in (NAME, "127.0.0.2", "10.0.0.1", "169.254.169.254", "[::1]", "[fd00:ec2::254]"):
        assert b"403" in reach(session, server, host=host).stdout
    for host in (NAME, "127.0.0.2", "10.0.0.1"):
        assert b"hello" not in reach(session, server, BY_ITSELF, host=host).stdout
    assert prompter.questions == []


def test_a_yes_does_not_open_where_a_name_may_not_lead(open_with: Callable[..., Session], server: int) -> None:
    lists = 'sandbox_workspace_write.allowed_domains=["127.0.0.1:1"]'
    prompter = Prompter(Choice.SESSION)
    refused = reach(open_with(prompter, lists), server)
    assert b"403" in refused.stdout
    assert b"leads to 127.0.0.1 is a loopback address" in refused.stdout
    assert len(prompter.questions) == 1


def test_requirements_are_not_overruled_by_a_yes(
    open_with: Callable[..., Session], server: int, tmp_path: Path, events: Events
) -> None:
    (tmp_path / "root" / "etc" / "codex").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "codex" / "requirements.toml").write_text(
        'allowed_domains = ["127.0.0.1", "::1", "*.example.com"]\n'
    )
    prompter = Prompter(Choice.SESSION)
    refused = reach(open_with(prompter), server)
    assert b"403" in refused.stdout
    assert "requirements.toml" in refused.denials[0].rule
    assert prompter.questions == []
    assert events.decisions() == [("denied", "config")]


def test_other_connections_go_on_while_a_person_thinks(open_with: Callable[..., Session], server: int) -> None:
    prompter = Prompter(Choice.ONCE)
    prompter.may_answer.clear()
    source = """
import socket, sys, threading
def connect(host):
    s = socket.create_connection(("127.0.0.1", 13128))
    s.sendall(f"CONNECT {host}:{sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
    return s
asked = [connect(sys.argv[1]) for _ in range(100)]
for _ in range(5):
    s = connect("127.0.0.1")
    assert b" 200 " in s.recv(39)
    assert s.recv(5) == b"hello"
print("others", flush=True)
# Some wait for the answer, the rest are refused: the room of a jail is for all of its connections.
codes = [s.recv(13)[9:12] for s in asked]
print(codes.count(b"200"), codes.count(b"403"))
"""

    def heard(_: str, piece: bytes) -> None:
        if b"others" in piece:
            prompter.may_answer.set()

    argv = [sys.executable, "-I", "-S", "-c", source, NAME, str(server)]
    result = open_with(prompter).run(argv, timeout=60, on_output=heard)
    assert result.stdout == b"others\n64 36\n", result
    assert len(prompter.questions) == 1


def test_a_command_that_ends_does_not_wait_for_an_answer(open_with: Callable[..., Session], server: int) -> None:
    prompter = Prompter(Choice.ONCE)
    prompter.may_answer.clear()
    session = open_with(prompter)
    hasty = BY_PROXY.replace("answer = s.recv(500).decode()", "import time; time.sleep(0.2); sys.exit(0)")
    assert reach(session, server, hasty).returncode == 0
    prompter.may_answer.set()
    assert b"hello" in reach(session, server).stdout, "and the next one is asked anew"


QUEUE = """
import socket
def ask(text):
    made = socket.create_connection(("127.0.0.1", 13128))
    made.sendall(text)
    return made
idle = [ask(b"C") for _ in range(300)]
more = [ask(b"CONNECT left.localhost:80 HTTP/1.1\\r\\n\\r\\n") for _ in range(40)]
"""
"""Keeps the filter's hands full, so that what it asks for last still waits in the queue when it ends."""


def test_what_a_command_left_in_the_queue_is_not_asked_about_in_the_name_of_the_next(
    open_with: Callable[..., Session], server: int
) -> None:
    prompter = Prompter(Choice.NO)
    session = open_with(prompter)
    argv = (sys.executable, "-I", "-S", "-c", QUEUE)
    assert session.run(argv, timeout=60).returncode == 0
    result = reach(session, server)
    asked = [question.action.argv for question in prompter.questions if question.action.command != argv]
    assert asked == [(f"{NAME}:{server}",)]
    assert [contact.host for contact in result.contacts] == [NAME]


FLOOD = """
import socket, sys, time
s = socket.create_connection(("127.0.0.1", 13128))
s.sendall(f"CONNECT {sys.argv[1]}:{sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
assert s.recv(500)
print("ready", flush=True)
sys.stdin.read(1)
for _ in range(2000):
    made = socket.socket()
    made.setblocking(False)
    if made.connect_ex(("127.0.0.1", 9)) == 101:
        break
    made.close()
else:
    sys.exit("the filter still listens")
"""
"""Says so much to a filter that is busy that not a word more gets through to it."""


def test_a_yes_does_not_outlast_its_command_where_the_filter_is_too_busy_to_hear_of_the_next(
    open_with: Callable[..., Session], server: int
) -> None:
    prompter = Prompter(Choice.ONCE, Choice.NO)
    session = open_with(prompter)
    go_on, release = os.pipe()
    stopped = []

    def stop_the_filter(_: str, piece: bytes) -> None:
        assert piece == b"ready\n", piece
        stopped.append(filter_process())
        os.kill(stopped[0], signal.SIGSTOP)
        os.write(release, b"x")

    words = [sys.executable, "-I", "-S", "-c", FLOOD, NAME, str(server)]
    try:
        first = session.run(words, timeout=60, stdin=go_on, on_output=stop_the_filter)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        os.close(go_on)
        os.close(release)
    assert (first.returncode, first.stderr) == (0, b"")
    assert reach(session, server).stdout.startswith(b"403 ")
    assert len(prompter.questions) == 2


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def filter_process() -> int:
    """Give the number of the process that filters for this one."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        for pid in map(int, file.read().split()):
            with open(f"/proc/{pid}/cmdline", "rb") as words:
                if b"codex-egress" in words.read():
                    return pid
    raise AssertionError


ASK_AND_GO = """
import socket, sys
s = socket.create_connection(("127.0.0.1", 13128))
s.sendall(f"CONNECT {sys.argv[1]}:{sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
sys.stdin.read(1)
"""


@pytest.mark.parametrize("late", [Choice.SESSION, Choice.ALWAYS])
def test_an_answer_that_comes_after_the_command_is_remembered_nowhere(
    open_with: Callable[..., Session],
    server: int,
    late: Choice,
    tmp_path: Path,
) -> None:
    prompter = Prompter(late, Choice.NO)
    prompter.may_answer.clear()
    session = open_with(prompter)
    go_on, release = os.pipe()
    words = [sys.executable, "-I", "-S", "-c", ASK_AND_GO, NAME, str(server)]
    running = threading.Thread(target=session.run, args=(words,), kwargs={"timeout": 60, "stdin": go_on})
    running.start()
    until(lambda: prompter.questions)
    os.close(release)
    running.join()
    os.close(go_on)
    assert prompter.questions[0].over is not None
    assert prompter.questions[0].over.is_set()
    session.change({"approval_policy": "untrusted"})
    session.change({"approval_policy": "on-request"})
    prompter.may_answer.set()
    until(lambda: not any("_put" in thread.name for thread in threading.enumerate()))
    assert reach(session, server).stdout.startswith(b"403 ")
    assert not list((tmp_path / "home").rglob("*.toml"))


def test_a_program_cannot_have_more_than_a_few_hosts_asked_about(
    open_with: Callable[..., Session], server: int
) -> None:
    prompter = Prompter(Choice.NO)
    source = BY_PROXY.partition("s = ")[0] + (
        "for number in range(40):\n    host = f'n{number}.localhost'\n"
        + "".join(f"    {line}\n" for line in BY_PROXY.strip().splitlines()[2:])
    )
    result = open_with(prompter).run([sys.executable, "-I", "-S", "-c", source, NAME, str(server)], timeout=60)
    assert result.stdout.count(b"403") == 40, result
    assert len(prompter.questions) == 16


def test_a_question_that_fails_is_a_no(open_with: Callable[..., Session], server: int) -> None:
    class Broken(Prompter):
        def ask(self, question: Question) -> Answer:  # noqa: ARG002 - the contract
            raise RuntimeError("no\nbody")

    refused = reach(open_with(Broken(Choice.ONCE)), server)
    assert b"403" in refused.stdout
    assert b"the question failed: no body" in refused.stdout


def test_the_question_shows_the_command_and_what_the_answers_mean() -> None:
    action = Action(("x.example.com:443",), "/p", NETWORK_TOOL, command=("curl", "x.example.com"))
    question = Question(
        action,
        Verdict(Decision.PROMPT, "nothing speaks about it"),
        (Choice.ONCE, Choice.SESSION, Choice.NO),
        Grant(host="x.example.com:443"),
    )
    assert "A command wants to connect to x.example.com:443:\n  curl x.example.com\n" in question_text(question)
    menu = "\n".join(menu_lines(question))
    assert "connections to x.example.com:443, from the sandbox, by any command" in menu
    assert "yes, for as long as this command runs" in menu


# -- on a terminal -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / ".git").mkdir(parents=True)
    home = str(tmp_path / "home")
    env = {"PATH": os.defpath, "HOME": home, "CODEX_HOME": home, "LC_ALL": "C.UTF-8"}
    with Shell(env, str(tmp_path / "project")) as opened:
        yield opened


def test_on_a_terminal_the_question_has_the_keyboard_and_then_the_command_has_it_again(
    shell: Shell, server: int, tmp_path: Path
) -> None:
    (tmp_path / "project" / "reach.py").write_text(BY_PROXY + "print('typed', input())\n")
    before = shell.modes()
    for key, answer in (("y", "200 [^y]*hello"), ("n", "403 .*rejected by user")):
        python = f"{sys.executable} -I"
        shell.line(
            f"{python} -m codex_core.cli.main run -s workspace-write -c '{LISTS}' -- {python} reach.py {NAME} {server}"
        )
        shell.expect(f"wants to connect to {NAME}:{server}")
        shell.expect("Allow it")
        shell.expect(r"\] ")
        time.sleep(0.5)  # what is typed before that does not count
        shell.line(key)
        shell.expect(answer)
        shell.line("words")
        shell.expect("typed words")
        shell.prompt()
    assert shell.modes() == before


def test_what_a_command_does_to_the_terminal_is_undone_before_its_question(
    shell: Shell, server: int, tmp_path: Path
) -> None:
    (tmp_path / "project" / "reach.py").write_text("print('before \\x1b]0;', flush=True)\n" + BY_PROXY)
    python = f"{sys.executable} -I"
    shell.line(
        f"{python} -m codex_core.cli.main run -s workspace-write -c '{LISTS}' -- {python} reach.py {NAME} {server}"
    )
    shell.expect(r"before \x1b\]0;")
    shell.expect(r"\x18\x1b\\")
    shell.expect(f"wants to connect to {NAME}:{server}")
    shell.expect(r"\] ")
    time.sleep(0.5)  # what is typed before that does not count
    shell.line("y")
    shell.expect("200 [^y]*hello")
    shell.prompt()
