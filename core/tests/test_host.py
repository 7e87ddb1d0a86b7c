"""The host gives typed answers, and no failure of a plugin weakens anything."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config.layers import Layer
from codex_core.config.sources import ConfigContext
from codex_core.errors import (
    ConfigError,
    PluginConflictError,
    PluginLoadError,
    PluginNotFoundError,
    SandboxUnavailableError,
)
from codex_core.events import Event, UserPrompt
from codex_core.hookspecs import (
    ApprovalPolicy,
    ConfigSource,
    Exporter,
    Frontend,
    ModelProvider,
    Observer,
    SandboxBackend,
    ToolGate,
    hookimpl,
)
from codex_core.host import Choice, Host, select
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import (
    Action,
    ApprovalMode,
    Decision,
    Promise,
    Safety,
    SafetyClass,
    SandboxMode,
    Strength,
    Verdict,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path
    from random import Random

    from codex_core.telemetry.emitter import EventSink
    from codex_core.types import Launcher

    Install = Callable[..., Path]

POLICY = SandboxPolicy(SandboxMode.READ_ONLY, "/", (), ())
ACTION = Action(("true",), "/")
STRENGTH = Strength("fake", "all", frozenset(Promise))


def stop(*_: object) -> None:
    raise SystemExit(0)


def fail(*_: object) -> None:
    raise ValueError("no\nidea")


def give_all(*_: object) -> Strength:
    return STRENGTH


def give_none(*_: object) -> tuple[str, ...]:
    return ()


def answering(value: object) -> Callable[..., Any]:
    return lambda *_: value


@dataclass(eq=False)
class Backend(SandboxBackend):
    """A backend whose every answer can be set."""

    on_probe: Callable[..., Any] = give_all
    on_unsupported: Callable[..., Any] = give_none
    on_launcher: Callable[..., Any] = fail

    @hookimpl
    def probe(self) -> Strength:
        return self.on_probe()  # type: ignore[no-any-return]  # wrong types are what is tested

    @hookimpl
    def unsupported(self, policy: SandboxPolicy) -> tuple[str, ...]:
        return self.on_unsupported(policy)  # type: ignore[no-any-return]  # as above

    @hookimpl
    def launcher(self, policy: SandboxPolicy) -> Launcher:
        return self.on_launcher(policy)  # type: ignore[no-any-return]  # as above


class FakeLauncher:
    strength = STRENGTH

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(eq=False)
class Policy(ApprovalPolicy):
    """An approval policy whose answer can be set."""

    answer: Callable[..., Any]

    @hookimpl
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict | None:
        return self.answer(action, policy)  # type: ignore[no-any-return]  # as above


@dataclass(eq=False)
class Gate(ToolGate):
    """A tool gate whose answer can be set."""

    answer: Callable[..., Any]

    @hookimpl
    def gate_tool(self, tool: str, config: Mapping[str, Any]) -> Verdict | None:
        return self.answer(tool, config)  # type: ignore[no-any-return]  # as above


def with_backend(backend: Backend) -> Host:
    host = Host()
    host.sandbox_backends.register(backend, "fake")
    return host


def with_policies(*answers: Callable[..., Any]) -> Host:
    host = Host()
    for number, answer in enumerate(answers):
        host.approval_policies.register(Policy(answer), f"p{number}")
    return host


# Sandbox backends


def test_without_a_backend_nothing_runs() -> None:
    for ask in (Host().launcher, Host().unsupported, lambda _: Host().probe()):
        with pytest.raises(SandboxUnavailableError, match="no sandbox"):
            ask(POLICY)


def test_a_backend_that_is_not_installed_is_named_with_the_command_that_installs_it(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site_packages)])
    choice = Choice(SandboxBackend.namespace, "linux", "sandbox_backend", "")
    with pytest.raises(SandboxUnavailableError, match=r"codex-sandbox-linux.*pip install \./plugins/sandbox_linux"):
        Host.load([choice])


def test_two_backends_are_refused_as_none_is() -> None:
    host = with_backend(Backend())
    host.sandbox_backends.register(Backend(), "second")
    with pytest.raises(SandboxUnavailableError, match="2 plugins are loaded"):
        host.probe()


@pytest.mark.parametrize("answer", [fail, stop, answering(None), answering("strong")])
def test_a_backend_whose_probe_fails_keeps_nothing(answer: Callable[..., Any]) -> None:
    strength = with_backend(Backend(on_probe=answer)).probe()
    assert strength.kept == frozenset()
    assert set(strength.lost) == set(Promise)
    assert strength.backend == "fake"


def test_what_a_backend_cannot_keep_refuses_the_run_with_all_reasons_in_one_line() -> None:
    reasons = answering(["no\nnamespaces", "no Landlock"])
    launched: list[object] = []
    host = with_backend(Backend(on_unsupported=reasons, on_launcher=launched.append))
    with pytest.raises(SandboxUnavailableError, match=r"no namespaces; no Landlock"):
        host.launcher(POLICY)
    assert launched == []


@pytest.mark.parametrize("answer", [fail, stop, answering(None), answering(""), answering("no"), answering([1])])
def test_a_backend_that_does_not_say_what_it_cannot_keep_refuses_the_run(answer: Callable[..., Any]) -> None:
    launched: list[object] = []
    host = with_backend(Backend(on_unsupported=answer, on_launcher=launched.append))
    with pytest.raises(SandboxUnavailableError) as caught:
        host.launcher(POLICY)
    assert "\n" not in str(caught.value)
    assert launched == []


class NoStrength(FakeLauncher):
    strength = "strong"  # type: ignore[assignment]  # what is refused


class RaisingStrength(FakeLauncher):
    @property
    def strength(self) -> Strength:  # type: ignore[override]  # what is refused
        raise SystemExit(0)


@pytest.mark.parametrize(
    "answer", [fail, stop, answering(None), answering(7), answering(NoStrength()), answering(RaisingStrength())]
)
def test_a_backend_that_gives_no_launcher_refuses_the_run(answer: Callable[..., Any]) -> None:
    with pytest.raises(SandboxUnavailableError) as caught:
        with_backend(Backend(on_launcher=answer)).launcher(POLICY)
    assert "\n" not in str(caught.value)


def test_a_refusal_by_the_backend_itself_passes_as_it_is() -> None:
    def refuse(_: object) -> None:
        raise SandboxUnavailableError("no user namespaces here")

    with pytest.raises(SandboxUnavailableError, match=r"^no user namespaces here$"):
        with_backend(Backend(on_launcher=refuse)).launcher(POLICY)


def test_the_launcher_of_the_backend_is_handed_on() -> None:
    launcher: object = FakeLauncher()
    assert with_backend(Backend(on_launcher=answering(launcher))).launcher(POLICY) is launcher


# Approval policies

VERDICTS = st.builds(Verdict, st.sampled_from(Decision), st.sampled_from("abc"), st.sampled_from("xy"), st.booleans())
ANSWERS = st.lists(st.one_of(st.none(), VERDICTS), max_size=5)


@given(ANSWERS, st.randoms())
def test_the_order_of_approval_policies_never_matters(answers: list[Verdict | None], random: Random) -> None:
    shuffled = list(enumerate(answers))
    random.shuffle(shuffled)
    hosts = Host(), Host()
    for host, order in zip(hosts, (enumerate(answers), shuffled), strict=True):
        for number, answer in order:
            host.approval_policies.register(Policy(answering(answer)), f"p{number}")
    one, other = (host.review(ACTION, POLICY) for host in hosts)
    assert one == other
    spoken = [answer for answer in answers if answer]
    assert one.decision is max((verdict.decision for verdict in spoken), default=Decision.PROMPT)
    assert one.unsandboxed is (bool(spoken) and all(verdict.unsandboxed for verdict in spoken))


WRONG = [
    answering(Decision.ALLOW),
    answering("ALLOW"),
    answering(0),
    answering(not 0),
    answering(Verdict(0, "an int is no decision")),  # type: ignore[arg-type]  # what is refused
    answering(Verdict(Decision.ALLOW, None)),  # type: ignore[arg-type]  # as above
    answering(Verdict(Decision.ALLOW, "", unsandboxed="yes")),  # type: ignore[arg-type]  # as above
]


@given(ANSWERS, st.sampled_from([fail, stop, *WRONG]), st.integers(0, 5))
def test_a_policy_that_raises_or_answers_nonsense_forbids_whatever_the_others_say(
    answers: list[Verdict | None], broken: Callable[..., Any], position: int
) -> None:
    callables = [answering(answer) for answer in answers]
    callables.insert(position, broken)
    verdict = with_policies(*callables).review(ACTION, POLICY)
    assert verdict.decision is Decision.FORBID
    name = f"policy:p{min(position, len(answers))}"
    assert name in verdict.source
    assert f"{name} failed" in verdict.reason
    assert "\n" not in verdict.reason


def test_where_no_policy_speaks_a_person_is_asked() -> None:
    assert with_policies().review(ACTION, POLICY).decision is Decision.PROMPT
    assert with_policies(answering(None)).review(ACTION, POLICY).decision is Decision.PROMPT


def test_a_policy_cannot_speak_in_the_name_of_the_user_a_rule_or_another_policy() -> None:
    for source in ("", "user", "session", "/etc/codex/requirements.toml:1", "policy:other"):
        verdict = with_policies(answering(Verdict(Decision.ALLOW, "yes", source))).review(ACTION, POLICY)
        assert verdict.source == "policy:p0"


def test_a_policy_passes_on_what_a_rule_says_and_may_say_more_of_itself() -> None:
    ruled = replace(ACTION, safety=Safety(SafetyClass.ASK, "why", "/r.toml:1", Decision.ALLOW))
    for source in ("/r.toml:1", "policy:p0: night shift"):
        verdict = with_policies(answering(Verdict(Decision.ALLOW, "yes", source))).review(ruled, POLICY)
        assert verdict.source == source


def test_a_policy_that_wraps_the_hook_does_not_reach_the_verdicts_of_others() -> None:
    class Silencer(ApprovalPolicy):
        @hookimpl(wrapper=True)
        def review(self) -> Generator[None, object, object]:  # type: ignore[override]  # a wrapper is a generator
            yield
            return []

    host = with_policies(answering(Verdict(Decision.FORBID, "no")))
    host.approval_policies.register(Silencer(), "silencer")
    assert host.approval_policies.hook.review(action=ACTION, policy=POLICY) == []
    assert host.review(ACTION, POLICY).decision is Decision.FORBID


def test_a_missing_approval_policy_refuses_to_start() -> None:
    with pytest.raises(PluginNotFoundError, match="'does-not-exist'"):
        Host.load([Choice(ApprovalPolicy.namespace, "does-not-exist", "plugins.approval_policies", "")])


# Tool gates


def test_a_tool_is_offered_where_its_gate_says_so() -> None:
    host = Host()
    host.tool_gates.register(Gate(lambda _, config: Verdict(Decision.ALLOW, config["why"])), "web_search")
    assert host.gate_tool("web_search", {"why": "live"}) == Verdict(Decision.ALLOW, "live", "gate:web_search")


@pytest.mark.parametrize("answer", [fail, stop, answering(None), *WRONG])
def test_a_tool_whose_gate_fails_or_is_silent_is_not_offered(answer: Callable[..., Any]) -> None:
    host = Host()
    host.tool_gates.register(Gate(answer), "web_search")
    assert host.gate_tool("web_search", {}).decision is Decision.FORBID


def test_a_tool_whose_gate_is_missing_is_not_offered() -> None:
    verdict = Host().gate_tool("no_such_gate", {})
    assert verdict.decision is Decision.FORBID
    assert "'no_such_gate'" in verdict.reason


def test_a_configured_gate_that_is_missing_forbids_what_other_gates_allow() -> None:
    host = Host.load([Choice(ToolGate.namespace, "missing-gate", "plugins.tool_gates", "")])
    host.tool_gates.register(Gate(answering(Verdict(Decision.ALLOW, "fine"))), "web_search")
    verdict = host.gate_tool("web_search", {})
    assert verdict.decision is Decision.FORBID
    assert "'missing-gate'" in verdict.reason


def test_a_gate_cannot_change_the_configuration() -> None:
    def change(_: str, config: dict[str, str]) -> Verdict:
        config["web_search"] = "live"
        return Verdict(Decision.ALLOW, "changed")

    host = Host()
    host.tool_gates.register(Gate(change), "web_search")
    config = {"web_search": "disabled"}
    assert host.gate_tool("web_search", config).decision is Decision.FORBID
    assert config == {"web_search": "disabled"}


# Exporters, models, frontends


class Sink:
    dropped = 0

    def export(self, event: Event) -> None:
        pass

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        pass


@dataclass(eq=False)
class Opener(Exporter):
    """An exporter whose sink can be set."""

    answer: Callable[..., Any]

    @hookimpl
    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> EventSink:
        return self.answer(settings, resource)  # type: ignore[no-any-return]  # as above


def with_exporter(answer: Callable[..., Any]) -> Host:
    host = Host()
    host.exporters.register(Opener(answer), "fake")
    return host


def test_the_sink_of_the_exporter_is_handed_on() -> None:
    sink = Sink()
    asked: list[object] = []

    def answer(settings: Mapping[str, Any], resource: Mapping[str, str]) -> Sink:
        asked.append((dict(settings), dict(resource)))
        return sink

    assert with_exporter(answer).open_sink({"endpoint": "x"}, {"env": "dev"}) is sink
    assert asked == [({"endpoint": "x"}, {"env": "dev"})]


@pytest.mark.parametrize("answer", [fail, stop, answering(None), answering(object())])
def test_an_exporter_that_opens_no_sink_refuses_to_start(answer: Callable[..., Any]) -> None:
    with pytest.raises(PluginLoadError, match="'fake'"):
        with_exporter(answer).open_sink({}, {})


def test_without_an_exporter_nothing_starts() -> None:
    with pytest.raises(PluginLoadError, match="0 plugins are loaded"):
        Host().open_sink({}, {})
    with pytest.raises(PluginNotFoundError):
        Host.load([Choice(Exporter.namespace, "does-not-exist", "otel.exporter", "")])


def test_what_an_exporter_finds_wrong_in_its_configuration_passes_as_it_is() -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("config.toml:3: otel.otlp-http.endpoint: no URL")

    with pytest.raises(ConfigError, match=r"^config\.toml:3"):
        with_exporter(refuse).open_sink({}, {})


def test_a_model_provider_that_fails_refuses_to_start() -> None:
    class Provider(ModelProvider):
        @hookimpl
        def open_model(self, settings: Mapping[str, Any]) -> object:
            return settings["model"]

    host = Host()
    host.model_providers.register(Provider(), "fake")
    assert host.open_model({"model": "m"}) == "m"
    for settings in ({}, {"model": None}):
        with pytest.raises(PluginLoadError, match="'fake'"):
            host.open_model(settings)


def test_a_frontend_that_is_missing_leaves_the_conversation_to_core() -> None:
    class Terminal(Frontend):
        @hookimpl
        def interact(self, session: object) -> int:
            return session  # type: ignore[return-value]  # what is refused

    host = Host.load([Choice(Frontend.namespace, "does-not-exist", "frontend", "")])
    assert host.interact(3) is None
    host.frontends.register(Terminal(), "fake")
    assert host.interact(3) == 3
    with pytest.raises(PluginLoadError, match="instead of an exit code"):
        host.interact("three")


# Config sources


@dataclass(eq=False)
class Source(ConfigSource):
    """A config source whose answer can be set."""

    answer: Callable[..., Any]

    @hookimpl
    def config_layers(self, context: ConfigContext) -> Sequence[Layer]:
        return self.answer(context)  # type: ignore[no-any-return]  # as above


CONTEXT = ConfigContext("/home/.codex", "/", {})


def test_layers_of_config_sources_come_lowest_first_whatever_the_order_of_sources() -> None:
    low, high, also_high = (
        Layer("low", 10, {}),
        Layer("high", 35, {}, path="/a"),
        Layer("also high", 35, {}, path="/b"),
    )
    for order in (("a", "b"), ("b", "a")):
        host = Host()
        answers = {"a": answering([high, low]), "b": answering((also_high,))}
        for name in order:
            host.config_sources.register(Source(answers[name]), name)
        assert host.config_layers(CONTEXT) == (low, high, also_high)


@pytest.mark.parametrize(
    "answer",
    [
        fail,
        stop,
        answering("text"),
        answering({}),
        answering([None]),
        answering([Layer("managed", 40, {})]),
        answering([Layer("above", 60, {})]),
        answering([Layer("defaults", 0, {})]),
    ],
)
def test_a_config_source_that_fails_or_reaches_for_the_managed_layers_refuses_to_start(
    answer: Callable[..., Any],
) -> None:
    host = Host()
    host.config_sources.register(Source(answer), "source")
    with pytest.raises(PluginLoadError, match="'source'"):
        host.config_layers(CONTEXT)


# Observers


def test_an_observer_that_fails_is_logged_and_the_others_still_see_the_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @dataclass(eq=False)
    class Watcher(Observer):
        answer: Callable[..., Any]

        @hookimpl
        def on_event(self, event: Event) -> None:
            self.answer(event)

    seen: list[Event] = []
    host = Host()
    for name, answer in {"first": seen.append, "raises": fail, "exits": stop, "last": seen.append}.items():
        host.observers.register(Watcher(answer), name)
    event = UserPrompt(conversation_id="c", timestamp=0.0, prompt_length=0, prompt="")
    host.emit(event)
    assert seen == [event, event]
    assert re.findall(r"observer '(\w+)' failed", caplog.text) == ["raises", "exits"]


def test_an_observer_that_cannot_be_loaded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Host.load([Choice(Observer.namespace, "does-not-exist", "plugins.observers", "")])
    assert "'does-not-exist'" in caplog.text


# Choosing


@dataclass(frozen=True)
class Plugins:
    approval_policies: tuple[str, ...] = ()
    tool_gates: tuple[str, ...] = ()
    observers: tuple[str, ...] = ()
    config_sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Otel:
    exporter: str = "none"


@dataclass(frozen=True)
class Config:
    sandbox_mode: SandboxMode = SandboxMode.READ_ONLY
    sandbox_backend: str = ""
    approval_policy: ApprovalMode = ApprovalMode.ON_REQUEST
    plugins: Plugins = field(default_factory=Plugins)
    otel: Otel = field(default_factory=Otel)


def test_every_choice_says_which_key_made_it() -> None:
    plugins = Plugins(("company", "on-request"), ("gate",), ("watcher",), ("vault",))
    chosen = select(Config(plugins=plugins), "linux")
    assert [(choice.namespace.partition(".")[2], choice.name, choice.key) for choice in chosen] == [
        ("config_sources", "vault", "plugins.config_sources"),
        ("approval_policies", "on-request", "approval_policy"),
        ("approval_policies", "company", "plugins.approval_policies"),
        ("tool_gates", "gate", "plugins.tool_gates"),
        ("sandbox_backends", "linux", "sandbox_backend"),
        ("exporters", "none", "otel.exporter"),
        ("observers", "watcher", "plugins.observers"),
    ]


def test_a_configured_backend_goes_before_the_one_of_the_system() -> None:
    (choice,) = [
        choice
        for choice in select(Config(sandbox_backend="mine"), "linux")
        if choice.namespace == SandboxBackend.namespace
    ]
    assert (choice.name, choice.why) == ("mine", "the value of sandbox_backend")


def test_without_a_sandbox_no_backend_is_chosen() -> None:
    chosen = select(Config(sandbox_mode=SandboxMode.DANGER_FULL_ACCESS), "linux")
    assert SandboxBackend.namespace not in {choice.namespace for choice in chosen}


def test_a_host_loads_what_is_chosen(install: Install) -> None:
    source = """
from codex_core.hookspecs import ApprovalPolicy, Exporter, hookimpl

class Company(ApprovalPolicy):
    @hookimpl
    def review(self, action, policy):
        return None

class Archive(Exporter):
    @hookimpl
    def open_sink(self, settings, resource):
        return None
"""
    install(
        "plugins",
        f"[{ApprovalPolicy.namespace}]\ncompany = chosen_module:Company\n"
        f"[{Exporter.namespace}]\narchive = chosen_module:Archive\n",
        {"chosen_module": source},
    )
    host = Host.load(
        [Choice(ApprovalPolicy.namespace, "company", "", ""), Choice(Exporter.namespace, "archive", "", "")]
    )
    assert [name for name, _ in host.approval_policies.plugins] == ["company"]
    assert [name for name, _ in host.exporters.plugins] == ["archive"]


def test_a_conflict_over_a_chosen_plugin_refuses_to_start(install: Install) -> None:
    for distribution in ("one", "two"):
        install(distribution, "[codex_core.exporters]\ntwice = module:Opener\n")
    with pytest.raises(PluginConflictError, match=r"one 1\.0.*two 1\.0"):
        Host.load([Choice(Exporter.namespace, "twice", "otel.exporter", "")])
