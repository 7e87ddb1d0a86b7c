"""The way of one command, from what somebody wants to run to what came of it.

configuration -> policy -> verdict -> launcher -> result
                              |          |          |
                              +------- events ------+
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import uuid
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from codex_core import __version__
from codex_core.agent import files
from codex_core.agent.patch import parse_patch, paths_of
from codex_core.agent.review import RULES_FOLDER, reviewer
from codex_core.approval.memory import REMEMBERED, SessionMemory, add_rule
from codex_core.approval.prompt import MOOT, Answer, Choice, LinePrompter, Question
from codex_core.approval.rules import now
from codex_core.config import changed, load_config
from codex_core.discovery import code_locations
from codex_core.errors import CodexError, NotPermittedError, SandboxUnavailableError, StoppedError, UsageError
from codex_core.events import (
    ConversationChanges,
    ConversationStarts,
    NetworkDecision,
    SandboxOutcome,
    TelemetryDropped,
    ToolDecision,
    ToolResult,
)
from codex_core.host import Host
from codex_core.sandbox import runner, terminal
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.domains import join_port
from codex_core.sandbox.environment import child_environment, without_steering
from codex_core.sandbox.policy import build_policy, contains
from codex_core.sandbox.suspicion import suspects
from codex_core.telemetry.emitter import Emitter
from codex_core.types import (
    NETWORK_TOOL,
    QUESTION_PATIENCE,
    Action,
    Command,
    Decision,
    Limits,
    Network,
    Operation,
    SandboxMode,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from codex_core.approval.memory import Grant
    from codex_core.approval.prompt import Prompter
    from codex_core.approval.rules import Rules
    from codex_core.config import Config, Loaded, Override
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.sandbox.runner import OnOutput
    from codex_core.sandbox.terminal import Interlude
    from codex_core.types import CommandResult, Contact, Denial, Launcher, Strength

PATCH_TOOL = "apply_patch"
WEB_SEARCH_TOOL = "web_search"
Changes = tuple[tuple[str, str], ...]
CHANGEABLE = frozenset(
    {
        *("approval_policy", "sandbox_mode", "sandbox_workspace_write", "limits", "shell_environment_policy"),
        *("web_search", "features", "model", "model_reasoning_effort", "model_reasoning_summary", "model_verbosity"),
    }
)
"""The keys, and tables, that can be changed in a session."""
_SHOWN = 8
"""Pieces of what a command showed on a terminal, its last words, that are searched for refusals."""
_CODES = frozenset((0x0E, 0x1B, *range(0x80, 0xA0)))
"""Bytes that may begin what a terminal does not show but obeys; in UTF-8 they are parts of letters too."""
EXIT_DEADLINE = 1.5
"""Seconds that telemetry may take at the end of a session."""


def open_session(
    folder: str = ".",
    *,
    overrides: Sequence[Override | str] = (),
    prompter: Prompter | None = None,
    environ: Mapping[str, str] | None = None,
) -> Session:
    """Open a session for *folder* under the configuration that holds there.

    *overrides* are as after ``-c``, such as ``"sandbox_mode=read-only"``.  *prompter* is who is asked
    where a verdict wants a person; without one, plain lines on the terminal if there is one, and
    else the answer is no.  *environ* is what commands may inherit, and where ``CODEX_HOME`` is looked
    up; this process's own without it, as it is now.

    Raises ConfigError, PluginError or SandboxUnavailableError: what was asked for and is missing stops
    the start.
    """
    return Session(load_config(cwd=os.path.abspath(folder), overrides=overrides, environ=environ), prompter)


@dataclass(frozen=True, slots=True)
class _Stdio:
    """Where a command reads and writes."""

    attach: bool
    stdin: bytes | int | None
    output_limit: int
    on_output: OnOutput | None


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A command under way, for which somebody is asked about a host."""

    interlude: Interlude | None
    """What lends the terminal of the command for the question."""
    over: threading.Event
    """Set when it has ended: then nobody is asked any more, and no answer counts."""


class Session:
    """Runs commands under one policy; a context manager.  Safe to use from several threads."""

    def __init__(self, loaded: Loaded, prompter: Prompter | None = None, *, host: Host | None = None) -> None:
        """Build everything that a command needs, from a configuration; raises as :func:`open_session`.

        *host* is for who brings plugins that are not installed; without it, what the configuration
        names is loaded.
        """
        self._given_host = host
        self._environ = dict(loaded.context.environ)
        self._constraints = loaded.constraints
        self._rule_file = os.path.join(loaded.codex_home, RULES_FOLDER, REMEMBERED)
        self._prompter: Prompter = prompter or LinePrompter(timeout=loaded.config.ask_about.timeout)
        self._lock = threading.Lock()
        self._active = 0
        self._closed = False
        self._untidy = False
        """Whether a command has sent codes to the terminal."""
        self._direct = DirectLauncher()
        self._settle(loaded)
        self._emitter = self._open_emitter(loaded.exporter_settings())
        self._announce(ConversationStarts)

    def _settle(self, loaded: Loaded) -> None:
        """Build everything that follows from a configuration; where it raises, nothing is changed."""
        policy = build_policy(
            loaded.config.sandbox_settings(),
            cwd=loaded.context.cwd,
            environ=self._environ,
            codex_home=loaded.codex_home,
            code_locations=code_locations(),
        )
        tables, host = loaded.plugin_tables(), self._given_host
        host = Host.for_config(loaded.config, self._constraints.check_plugin, tables) if host is None else host
        review = reviewer(loaded, policy, host)
        reaching = review.rules.live(now()).reaching(policy)
        no_search = _why_no_search(loaded.config, host)
        notices = (*tables.warnings, *policy.notices, *_import_early(policy), *filter(None, [no_search]))

        self.loaded = loaded
        self.config: Config = loaded.config
        self.host = host
        self.notices = notices
        """What a person should know before the next command, one line each."""
        self._reviewer = review
        self._memory = SessionMemory()
        self._confined: dict[SandboxPolicy, Launcher] = {}
        self._searching = no_search == ""
        self._environments: dict[str, dict[str, str]] = {}
        """What commands inherit, by who confines them."""
        self.policy: SandboxPolicy = reaching

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs, deliver the events, free everything; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            confined = tuple(self._confined.values())
        for launcher in confined:
            launcher.close()
        self._direct.close()
        if self._emitter.dropped:
            self._emitter.emit(TelemetryDropped, count=self._emitter.dropped)
        self._emitter.close(EXIT_DEADLINE)

    @property
    def strength(self) -> Strength:
        """What the sandbox of this session keeps; starts it.  Raises SandboxUnavailableError."""
        return self._launcher(outside=False).strength

    def change(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Choose values of the configuration for the rest of the session, such as ``{"sandbox_mode": "read-only"}``.

        They stand above managed values and below the constraints, and are gone when the session ends.  What
        was allowed for this session is forgotten, since it was allowed under other circumstances.  Gives
        warnings, one line each.

        Raises ConfigError for values that are wrong or that the constraints do not allow, UsageError for keys
        that only a new session can change and while a command runs, and as :func:`open_session`; nothing is
        changed then.
        """
        fixed = values.keys() - CHANGEABLE
        if fixed:
            raise UsageError(f"{min(fixed)} cannot be changed in a session: start a new one")
        with self._lock:
            if self._closed or self._active:
                raise UsageError("the session is closed" if self._closed else "change it when no command is running")
            before = self._confined
            after = changed(self.loaded, values)
            self._settle(after)
            for launcher in before.values():
                launcher.close()
        self._announce(ConversationChanges)
        # The next command need not wait for its sandbox.
        threading.Thread(target=self._prepare, name="codex-prepare", daemon=True).start()
        return (*after.warnings, *self.notices)

    def _prepare(self) -> None:
        with suppress(CodexError):  # which the next command meets as well
            self._launcher(outside=False)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Hold off changes of the configuration: a verdict counts for the sandbox that it was given for."""
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1

    def run(  # noqa: PLR0913 -- each keyword is one independent choice of the caller
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | int | None = None,
        attach: bool = False,
        output_limit: int = runner.OUTPUT_LIMIT,
        on_output: OnOutput | None = None,
        escalated: bool = False,
        justification: str = "",
        tool: str = "shell",
        call_id: str = "",
    ) -> CommandResult:
        """Run *argv* if policies and person allow it, and give what came of it.

        *cwd* is a folder inside that of the session, and does not become writable by being named.
        *env* adds variables to what the configuration lets commands inherit; outside the sandbox none that lead
        to what commands can write, whoever names them.  With *attach* the
        command has this process's own standard descriptors, or a terminal in the place of its
        terminal (only from the main thread); else its output is captured, see
        :func:`codex_core.sandbox.runner.run`.  *escalated* asks to leave the sandbox, for the reason
        *justification*.

        Raises NotPermittedError, CommandNotFoundError, CommandNotExecutableError or
        SandboxUnavailableError; nothing was run then.  How the command ended is no error.
        """
        action = Action(
            argv=tuple(argv),
            cwd=self._folder(cwd),
            tool=tool,
            call_id=call_id or os.urandom(16).hex(),
            escalated=escalated,
            justification=justification,
        )
        began = time.monotonic()
        try:
            with self._in_use():
                result = self._run(action, env or {}, timeout, _Stdio(attach, stdin, output_limit, on_output))
        except BaseException as error:
            self._report(action, time.monotonic() - began, str(error) or type(error).__name__)
            raise
        self._report(action, result.duration, result)
        return result

    def apply_patch(self, text: str, *, cwd: str | None = None, justification: str = "", call_id: str = "") -> Changes:
        """Change files as *text* says (see :mod:`codex_core.agent.patch`), if policies and person allow it.

        All changes or none are made, and none through a link.  Gives what was done: ``A``, ``M`` or
        ``D``, and the path as the patch spells it.

        Raises PatchError or NotPermittedError; nothing was changed then.
        """
        folder, began = self._folder(cwd), time.monotonic()
        action = Action(
            argv=(PATCH_TOOL, text),
            cwd=folder,
            tool=PATCH_TOOL,
            call_id=call_id or os.urandom(16).hex(),
            justification=justification,
        )
        try:
            changes = parse_patch(text)
            writes = tuple(files.absolute(path, folder) for change in changes for path in paths_of(change))
            with self._in_use():
                verdict = self._decide(replace(action, writes=writes))
                done = files.apply(changes, cwd=folder, policy=self.policy, anywhere=verdict.unsandboxed)
        except BaseException as error:
            self._report(action, time.monotonic() - began, str(error) or type(error).__name__)
            raise
        self._report_changes(action, time.monotonic() - began, done)
        return done

    def gate(self, tool: str, *words: str, call_id: str = "") -> None:
        """Let the model's server use *tool* of its own, such as ``web_search``, for *words*; every use is an event.

        Gates decide, which are independent of the sandbox: the server has its own network.  Raises NotPermittedError.
        """
        action = Action(words, self.policy.cwd, tool=tool, call_id=call_id or os.urandom(16).hex())
        verdict = self.host.gate_tool(tool, self.config.model_dump(mode="json"))
        if verdict.decision is Decision.ALLOW:
            self._emit_decision(action, "approved", "config", verdict)
            return
        # Nobody is asked about a server's tool: a gate that would rather ask is not sure, and so says no.
        self._emit_decision(action, "denied", "config", verdict)
        raise NotPermittedError(f"not permitted: {verdict.reason}")

    def _run(self, action: Action, env: Mapping[str, str], timeout: float | None, stdio: _Stdio) -> CommandResult:
        verdict = self._decide(action)
        result = self._execute(action, verdict, env, timeout, stdio)
        denials = [denial for denial in result.denials if not self._was_asked_about(denial)]
        if verdict.unsandboxed or not denials or result.returncode == 0 or result.timed_out:
            return result
        retry = replace(action, after_denial=denials[0])
        try:
            verdict = self._decide(retry)
        except StoppedError:
            raise
        except NotPermittedError:
            return result
        if not verdict.unsandboxed:
            return result
        second = self._execute(action, verdict, env, timeout, stdio)
        self._emit_outcome(action, "escalated", result, escalated=second)
        return second

    def _was_asked_about(self, denial: Denial) -> bool:
        """Say whether a connection was judged for itself, while the command ran: see :meth:`_may_connect`."""
        to_host = denial.operation is Operation.CONNECT and not os.path.isabs(denial.target)
        return to_host and self.policy.network is Network.FILTERED

    def _folder(self, cwd: str | None) -> str:
        folder = os.path.realpath(os.path.join(self.policy.cwd, cwd or ""))
        if not contains(self.policy.cwd, folder):
            raise UsageError(f"{folder} is not inside the session's folder {self.policy.cwd}")
        return folder

    def _decide(self, action: Action, cause: _UnderWay | None = None) -> Verdict:
        """Get the verdict of the policies and, where they want it, of a person; raises NotPermittedError."""
        verdict = self._reviewer.review(action)
        if verdict.decision is Decision.ALLOW:
            self._emit_decision(action, "approved", "config", verdict)
            return verdict
        if verdict.decision is Decision.FORBID:
            self._emit_decision(action, "denied", "config", verdict)
            raise NotPermittedError(f"not permitted: {verdict.reason or verdict.source}")
        grant = self._reviewer.grant(action, verdict)
        if self._memory.covers(grant):
            self._emit_decision(action, "approved_for_session", "user", verdict, by="session")
            return replace(verdict, decision=Decision.ALLOW, source="session")
        with (cause.interlude if cause else None) or nullcontext():
            answer = self._ask(action, verdict, grant, cause.over if cause else None)
        if answer.approved:
            lasting = answer.choice is not Choice.ONCE
            self._emit_decision(
                action, "approved_for_session" if lasting else "approved", "user", verdict, by=answer.source
            )
            return replace(verdict, decision=Decision.ALLOW, source=answer.source)
        decision = {"timeout": "timed_out", "no-terminal": "denied"}.get(answer.source)
        decision = decision or ("abort" if answer.choice is Choice.STOP else "denied")
        source = "user" if answer.source == "user" else "config"
        self._emit_decision(action, decision, source, verdict, by=answer.source)
        error = StoppedError if answer.choice is Choice.STOP else NotPermittedError
        raise error(f"not permitted: {answer.reason or 'rejected by user'}")

    def _ask(self, action: Action, verdict: Verdict, grant: Grant, over: threading.Event | None) -> Answer:
        """Ask a person, and remember what they said; an answer that was not offered is a no."""
        rule = self._reviewer.lasting(action, verdict, grant)
        lasting = {Choice.SESSION: grant.lasts, Choice.ALWAYS: rule is not None}
        offers = tuple(choice for choice in Choice if lasting.get(choice, True))
        patience = None
        if action.tool == NETWORK_TOOL:  # a command waits for it, which goes on anyhow
            offers, patience = tuple(choice for choice in offers if choice is not Choice.STOP), QUESTION_PATIENCE
        diff = files.preview(parse_patch(action.argv[-1]), cwd=action.cwd, policy=self.policy) if action.writes else ""
        question = Question(action, verdict, offers, grant, self._rule_file, diff, patience, self._untidy, over)
        try:
            answer = self._prompter.ask(question)
            if over is not None and over.is_set():
                return MOOT
            if answer.choice not in offers:
                return Answer(Choice.NO)
            if answer.choice is Choice.ALWAYS and rule is not None:
                add_rule(self._rule_file, rule)
        except Exception as error:
            self._emit_decision(action, "denied", "config", verdict, by="prompter")
            raise NotPermittedError(f"not permitted: the question failed: {error}") from error
        if answer.choice in {Choice.SESSION, Choice.ALWAYS}:
            self._memory.allow(grant)
        return answer

    def _inherited(self, backend: str) -> dict[str, str]:
        if backend not in self._environments:
            settings = self.config.environment_settings()
            self._environments[backend] = child_environment(self._environ, settings, self.policy, backend)
        return self._environments[backend]

    def _may_connect(self, asking: Action, cause: _UnderWay, host: str, port: int) -> Verdict:
        """Judge a host that no list names, for a command under way; raises NotPermittedError."""
        action = Action((join_port(host, port),), asking.cwd, NETWORK_TOOL, asking.call_id, command=asking.argv)
        return self._decide(action, cause)

    def _execute(
        self,
        action: Action,
        verdict: Verdict,
        env: Mapping[str, str],
        timeout: float | None,
        stdio: _Stdio,
    ) -> CommandResult:
        launcher = self._launcher(outside=verdict.unsandboxed)
        violation = self._constraints.check_strength(launcher.strength)
        if violation is not None:
            refusal = Verdict(Decision.FORBID, str(violation), violation.place)
            self._emit_decision(action, "denied", "config", refusal)
            raise NotPermittedError(f"not permitted: {violation}")
        environ = {**self._inherited(launcher.strength.backend), **env}
        if verdict.unsandboxed:
            environ = without_steering(environ, self.policy, action.cwd)
        shown = deque[bytes](maxlen=_SHOWN)

        def show(piece: bytes) -> None:
            shown.append(piece)
            self._untidy = self._untidy or not _CODES.isdisjoint(piece)

        asks = launcher is not self._direct and self.policy.network is Network.FILTERED
        cause = _UnderWay(terminal.Interlude() if stdio.attach else None, threading.Event()) if asks else None
        ask = partial(self._may_connect, action, cause) if cause else None
        command = Command(action.argv, action.cwd, environ, ask)
        if verdict.neutralised is not None:
            command = verdict.neutralised.applied(command)
        limits = self.policy.limits if launcher is not self._direct else Limits()
        limited = limits.wall_time is not None and (timeout is None or limits.wall_time < timeout)
        timeout = limits.wall_time if limited else timeout
        try:
            if stdio.attach:
                interlude = cause.interlude if cause else None
                result = terminal.attach(launcher, command, timeout=timeout, interlude=interlude, on_output=show)
            else:
                result = runner.run(
                    launcher,
                    command,
                    stdin=stdio.stdin,
                    timeout=timeout,
                    output_limit=stdio.output_limit,
                    output_most=limits.output_size,
                    on_output=stdio.on_output,
                )
        finally:
            if cause:
                cause.over.set()
        if limited and result.timed_out:
            result = replace(result, ended=replace(result.ended, limit="wall_time"))
        for contact in result.contacts:
            self._emit_contact(action, contact)
        return result if launcher is self._direct else self._explained(result, b"".join(shown), action.cwd)

    def _explained(self, result: CommandResult, shown: bytes, cwd: str) -> CommandResult:
        """Name the rules that refusals came from; where there are none, guess from what a failed command said."""
        if result.denials:
            return replace(result, denials=tuple(_by_rule(one, self._reviewer.rules) for one in result.denials))
        if not result.returncode:
            return result
        said = b"\n".join((result.stderr, result.stdout, shown))
        return replace(result, denials=suspects(said, self.policy, cwd))

    def _launcher(self, *, outside: bool) -> Launcher:
        if outside or self.policy.mode is SandboxMode.DANGER_FULL_ACCESS:
            return self._direct
        policy = self._reviewer.rules.live(now()).reaching(self._reviewer.policy)
        with self._lock:
            if self._closed:
                raise SandboxUnavailableError("the session is closed")
            if policy not in self._confined:
                self._confined[policy] = self.host.launcher(policy)
            return self._confined[policy]

    def _open_emitter(self, settings: Mapping[str, Any]) -> Emitter:
        otel, host = self.config.otel, self.host
        resource = {"service.name": "codex_core", "service.version": __version__, "env": otel.environment}
        return Emitter(
            str(uuid.uuid4()),
            host.open_sink(settings, resource),
            host.emit,
            is_observed=lambda: bool(host.observers.plugins),
            log_user_prompt=otel.log_user_prompt,
        )

    def _announce(self, event: type[ConversationStarts]) -> None:
        confined = self.policy.mode is not SandboxMode.DANGER_FULL_ACCESS
        backends = [name for name, _ in self.host.sandbox_backends.plugins]
        self._emitter.emit(
            event,
            provider_name=self.config.model_provider,
            approval_policy=str(self.config.approval_policy),
            sandbox_policy=str(self.policy.mode),
            network_access=self.policy.network is not Network.OFF,
            sandbox_backend=backends[0] if confined and backends else "none",
            web_search=self._searching,
        )

    def _emit_decision(self, action: Action, decision: str, source: str, verdict: Verdict, by: str = "") -> None:
        self._emitter.emit(
            ToolDecision,
            tool_name=action.tool,
            call_id=action.call_id,
            decision=decision,
            source=source,
            reason=": ".join(filter(None, (verdict.source, verdict.reason))),
            decided_by=by or verdict.source,
            neutralised="" if verdict.neutralised is None else json.dumps(asdict(verdict.neutralised)),
        )

    def _emit_contact(self, action: Action, contact: Contact) -> None:
        rule = self._reviewer.rules.closing(join_port(contact.host, contact.port or None)) or contact.rule
        self._emitter.emit(
            NetworkDecision,
            tool_name=action.tool,
            call_id=action.call_id,
            host=contact.host,
            port=contact.port,
            decision="allowed" if contact.allowed else "denied",
            rule=rule,
        )

    def _emit_outcome(
        self, action: Action, outcome: str, result: CommandResult, *, escalated: CommandResult | None = None
    ) -> None:
        self._emitter.emit(
            SandboxOutcome,
            tool_name=action.tool,
            call_id=action.call_id,
            outcome=outcome,
            initial_duration_ms=_milliseconds(result.duration),
            escalated_duration_ms=None if escalated is None else _milliseconds(escalated.duration),
            target=_target(result.denials),
        )

    def _report_changes(self, action: Action, duration: float, done: Changes) -> None:
        self._emitter.emit(
            ToolResult,
            tool_name=action.tool,
            call_id=action.call_id,
            arguments=json.dumps({"command": action.argv, "workdir": action.cwd}),
            duration_ms=_milliseconds(duration),
            success=True,
            output="\n".join(f"{letter} {path}" for letter, path in done),
        )

    def _report(self, action: Action, duration: float, result: CommandResult | str) -> None:
        """Emit what came of an action: a result, or the reason why there is none."""
        if not self._emitter.is_heard:
            return
        arguments = {"command": action.argv, "workdir": action.cwd}
        ran = not isinstance(result, str)
        if not isinstance(result, str):
            for outcome, happened in (
                ("denied", bool(result.denials)),
                ("timed_out", result.timed_out),
                ("signal", result.ended.signal is not None and not result.timed_out),
            ):
                if happened:
                    self._emit_outcome(action, outcome, result)
        self._emitter.emit(
            ToolResult,
            tool_name=action.tool,
            call_id=action.call_id,
            arguments=json.dumps(arguments),
            duration_ms=_milliseconds(duration) if ran else 0,
            success=ran,
            output=result if isinstance(result, str) else (result.stdout + result.stderr).decode(errors="replace"),
            output_truncated=False if isinstance(result, str) else result.dropped > 0,
            exit_code=None if isinstance(result, str) else result.returncode,
            sandbox_strength="" if isinstance(result, str) else f"{result.strength.backend}/{result.strength.rung}",
        )


_IMPORTED_LATER = (
    *("difflib", "fcntl", "json", "resource", "subprocess", "termios", "urllib.parse"),
    *("importlib.metadata", "stevedore.driver", "tomli", "tomlkit", "tree_sitter", "tree_sitter_bash"),
)
"""What this package imports only when it is needed; a test keeps the list complete."""


def _import_early(policy: SandboxPolicy) -> Iterator[str]:
    """Import now what would be imported later, if it could come from a folder that a command can write to.

    That is so for a program that lies in its own workspace: Python puts its folder before all others.
    """
    exposed = [
        folder
        for folder in filter(os.path.isdir, map(os.path.realpath, sys.path))
        if policy.check(Operation.WRITE, os.path.join(folder, "module.py")) is None
    ]
    if policy.mode is SandboxMode.WORKSPACE_WRITE and exposed:
        for name in _IMPORTED_LATER:
            importlib.import_module(name)
        yield f"this program imports modules from {exposed[0]}, which commands can change: import all it needs before"


def _why_no_search(config: Config, host: Host) -> str | None:
    """Say why the web cannot be searched although it is turned on; empty where it can, None where it is off."""
    if not config.features.web_search_request:
        return None
    verdict = host.gate_tool(WEB_SEARCH_TOOL, config.model_dump(mode="json"))
    return "" if verdict.decision is Decision.ALLOW else verdict.reason


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _by_rule(denial: Denial, rules: Rules) -> Denial:
    """Name the rule of the user's that closes a host, where one does, in the place of the list that it went into."""
    closing = rules.closing(denial.target) if denial.operation is Operation.CONNECT else None
    return denial if closing is None else replace(denial, rule=closing, cure="")


def _target(denials: tuple[Denial, ...]) -> str:
    return denials[0].target if denials else ""
