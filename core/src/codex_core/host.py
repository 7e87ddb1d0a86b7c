"""The typed face of the extension points: one method for each hook, and what happens when a plugin fails.

============================ ==============================================================================
extension point              missing, broken or raising
============================ ==============================================================================
config sources               refuse to start
sandbox backends             SandboxUnavailableError: nothing runs, and never outside the sandbox instead
approval policies            missing or broken: refuse to start; raising: the action is forbidden
tool gates                   no tool is offered that gates are asked about
exporters                    refuse to start
model providers              refuse to start
frontends                    plain lines instead
observers                    logged, and otherwise ignored
============================ ==============================================================================

Which plugins are loaded is decided before, by :func:`select`, from the configuration alone.  A :class:`Host` is
built and passed on; there is no global one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from codex_core import discovery
from codex_core.approval.combine import combine
from codex_core.config.defaults import os_backend
from codex_core.errors import CodexError, PluginError, PluginLoadError, SandboxUnavailableError
from codex_core.extension import ExtensionPoint
from codex_core.hookspecs import (
    ApprovalPolicy,
    ConfigSource,
    Exporter,
    Extension,
    Frontend,
    ModelProvider,
    Observer,
    SandboxBackend,
    ToolGate,
)
from codex_core.types import Decision, Promise, SandboxMode, Strength, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from codex_core.config.layers import Layer
    from codex_core.config.sources import ConfigContext
    from codex_core.events import Event
    from codex_core.extension import Settings
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.telemetry.emitter import EventSink
    from codex_core.types import Action, Launcher

    Refusal = Callable[[str], object | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """One plugin that the configuration, or a default, names."""

    namespace: str
    name: str
    key: str
    """The dotted key that decides."""
    why: str
    """What that key says, for people."""


class _Plugins(Protocol):
    @property
    def approval_policies(self) -> tuple[str, ...]: ...
    @property
    def tool_gates(self) -> tuple[str, ...]: ...
    @property
    def observers(self) -> tuple[str, ...]: ...
    @property
    def config_sources(self) -> tuple[str, ...]: ...


class _Otel(Protocol):
    @property
    def exporter(self) -> str: ...


class Selectable(Protocol):
    """The part of :class:`codex_core.config.model.Config` that names plugins."""

    @property
    def sandbox_mode(self) -> SandboxMode:
        """Without a sandbox, no backend is chosen."""
        ...

    @property
    def sandbox_backend(self) -> str:
        """Empty chooses by operating system."""
        ...

    @property
    def approval_policy(self) -> str:
        """Name the approval policy that is always asked."""
        ...

    @property
    def plugins(self) -> _Plugins:
        """What is chosen besides."""
        ...

    @property
    def otel(self) -> _Otel:
        """Where events go."""
        ...


def select(config: Selectable, os_backend: str) -> tuple[Choice, ...]:
    """Decide which plugins to load, in order, each once, and say why.  Pure.

    *os_backend* is what :func:`codex_core.config.defaults.os_backend` gives.
    """
    choices = _named(ConfigSource, config.plugins.config_sources, "plugins.config_sources")
    choices += _named(ApprovalPolicy, [config.approval_policy], "approval_policy")
    choices += _named(ApprovalPolicy, config.plugins.approval_policies, "plugins.approval_policies")
    choices += _named(ToolGate, config.plugins.tool_gates, "plugins.tool_gates")
    if config.sandbox_mode != SandboxMode.DANGER_FULL_ACCESS:
        if config.sandbox_backend:
            choices += _named(SandboxBackend, [config.sandbox_backend], "sandbox_backend")
        else:
            why = "the default on this operating system"
            choices.append(Choice(SandboxBackend.namespace, os_backend, "sandbox_backend", why))
    choices += _named(Exporter, [config.otel.exporter], "otel.exporter")
    choices += _named(Observer, config.plugins.observers, "plugins.observers")
    unique: dict[tuple[str, str], Choice] = {}
    for choice in choices:
        unique.setdefault((choice.namespace, choice.name), choice)
    return tuple(unique.values())


def _named(spec: type[Extension], names: Iterable[str], key: str) -> list[Choice]:
    return [Choice(spec.namespace, str(name), key, f"the value of {key}") for name in names]


class Host:
    """All extension points of one session, and the plugins loaded into them.

    Hooks are called on the thread of the caller.  Every error message is one line.
    """

    def __init__(self, refused: Refusal | None = None, settings: Settings | None = None) -> None:
        self._refused = refused
        self._settings = settings
        self.config_sources = ExtensionPoint(ConfigSource)
        self.sandbox_backends = ExtensionPoint(SandboxBackend)
        self.approval_policies = ExtensionPoint(ApprovalPolicy)
        self.tool_gates = ExtensionPoint(ToolGate)
        self.exporters = ExtensionPoint(Exporter)
        self.model_providers = ExtensionPoint(ModelProvider)
        self.frontends = ExtensionPoint(Frontend)
        self.observers = ExtensionPoint(Observer)
        self._silent_gates: dict[str, Verdict] = {}

    @classmethod
    def for_config(cls, config: Selectable, refused: Refusal | None = None, settings: Settings | None = None) -> Host:
        """Load what the configuration names; raises as :meth:`load`."""
        return cls.load(select(config, os_backend()), refused, settings)

    @classmethod
    def load(cls, choices: Iterable[Choice], refused: Refusal | None = None, settings: Settings | None = None) -> Host:
        """Build a host and load the chosen plugins.

        *refused* says why plugins of a distribution may not be used, and None where they may; it is asked
        before anything of it is imported (see ``Constraints.check_plugin``).  *settings* gives each its
        settings (see ``Loaded.plugin_tables``).

        Raises PluginError, or SandboxUnavailableError for a backend, and ConfigError for wrong settings.  An
        observer or a frontend that cannot be loaded is logged, and a gate that cannot be loaded forbids.
        """
        host = cls(refused, settings)
        for choice in choices:
            if choice.namespace == ToolGate.namespace:
                host._load_gate(choice.name)
            else:
                host.add(choice)
        return host

    def add(self, choice: Choice) -> None:
        """Load one more plugin that is no gate; raises as :meth:`load`."""
        point = next(point for point in self.points if point.namespace == choice.namespace)
        try:
            self._require_allowed(choice.namespace, choice.name)
            point.load(choice.name, self._settings)
        except PluginError as error:
            if choice.namespace == SandboxBackend.namespace:
                raise SandboxUnavailableError(f"no sandbox: {error}") from error
            if choice.namespace not in {Observer.namespace, Frontend.namespace}:
                raise
            log.warning("%s", error)

    def _load_gate(self, name: str) -> None:
        try:
            self._require_allowed(ToolGate.namespace, name)
            self.tool_gates.load(name, self._settings)
        except PluginError as error:
            self._silent_gates[name] = Verdict(Decision.FORBID, str(error), f"gate:{name}")

    def _require_allowed(self, namespace: str, name: str) -> None:
        """Raise PluginLoadError where a plugin comes from a distribution that may not be used."""
        if self._refused is None:
            return
        reason = self._refused(discovery.find(namespace, name).distribution)
        if reason is not None:
            raise PluginLoadError(namespace, name, str(reason))

    @property
    def points(self) -> tuple[ExtensionPoint[Any], ...]:
        """All extension points."""
        return tuple(point for point in vars(self).values() if isinstance(point, ExtensionPoint))

    def config_layers(self, context: ConfigContext) -> tuple[Layer, ...]:
        """Collect the layers of all config sources, lowest precedence first; of equals, by name of the source.

        Raises PluginLoadError when a source raises or gives anything but layers between the defaults and the
        managed ones.
        """
        from codex_core.config.third_party import collect

        return collect(self.config_sources, context)

    def probe(self) -> Strength:
        """Ask the backend what it can keep here; one that raises or answers nonsense keeps nothing.

        Raises SandboxUnavailableError where no backend is loaded.
        """
        name = self._backend()
        try:
            strength = self.sandbox_backends.hook.probe()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            fault = f"its probe failed ({_describe(error)})"
        else:
            if isinstance(strength, Strength):
                return strength
            fault = f"its probe gave {_kind(strength)} instead of a Strength"
        return Strength(name, "none", frozenset(), dict.fromkeys(Promise, fault))

    def unsupported(self, policy: SandboxPolicy) -> tuple[str, ...]:
        """Ask the backend what it cannot keep of *policy* here, with the cure of each.

        Raises SandboxUnavailableError where no backend is loaded, or it raises or answers nonsense.
        """
        name = self._backend()
        reasons = self._ask_backend("unsupported", policy)
        if not _is_sequence(reasons) or not all(isinstance(reason, str) for reason in reasons):
            raise SandboxUnavailableError(f"the sandbox backend {name!r} does not say what it cannot keep")
        return tuple(" ".join(reason.split()) for reason in reasons)

    def launcher(self, policy: SandboxPolicy) -> Launcher:
        """Have the backend make a launcher for *policy*; the caller closes it.

        Raises SandboxUnavailableError where no backend is loaded, it cannot keep all of the policy on this host
        (with every reason), or it fails.
        """
        name = self._backend()
        if reasons := self.unsupported(policy):
            raise SandboxUnavailableError(f"the sandbox {name!r} cannot keep this policy here: {'; '.join(reasons)}")
        launcher = self._ask_backend("launcher", policy)
        try:
            fits = callable(launcher.start) and callable(launcher.close) and isinstance(launcher.strength, Strength)
        except (Exception, SystemExit) as error:
            raise SandboxUnavailableError(f"the sandbox {name!r} gave no launcher: {_describe(error)}") from error
        if not fits:
            raise SandboxUnavailableError(f"the sandbox {name!r} gave {_kind(launcher)} instead of a Launcher")
        return launcher  # type: ignore[no-any-return]  # as far as can be seen from outside

    def review(self, action: Action, policy: SandboxPolicy) -> Verdict:
        """Ask every approval policy about *action*; the strictest verdict wins, whatever their order.

        A policy that raises or answers nonsense forbids.  Where none speaks, a person is to be asked.
        """
        verdicts: list[Verdict] = []
        for name, _ in self.approval_policies.plugins:
            verdicts += _verdicts(self.approval_policies, "review", name, action=action, policy=policy)
        return combine(verdicts)

    def gate_tool(self, tool: str, config: Mapping[str, Any]) -> Verdict:
        """Ask every tool gate whether *tool* is offered under the effective configuration.

        The gate that has the tool's name is loaded if it is not yet.  FORBID, with the reason, where it, or a gate
        that the configuration names, is missing; where one raises or answers nonsense; and where none speaks.
        """
        if tool not in self._silent_gates and tool not in dict(self.tool_gates.plugins):
            self._load_gate(tool)
        verdicts = list(self._silent_gates.values())
        for name, _ in self.tool_gates.plugins:
            verdicts += _verdicts(self.tool_gates, "gate_tool", name, tool=tool, config=MappingProxyType(config))
        return combine(verdicts or [Verdict(Decision.FORBID, f"no gate speaks for {tool}", f"gate:{tool}")])

    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> EventSink:
        """Open the sink of the exporter.

        Raises PluginLoadError where no exporter is loaded, or it raises or gives nothing; an error of ours that
        it raises passes.
        """
        arguments = {"settings": MappingProxyType(settings), "resource": MappingProxyType(resource)}
        name = _only_one(self.exporters)
        sink = _ask(self.exporters, "open_sink", name, **arguments)
        if not all(callable(getattr(sink, method, None)) for method in ("export", "flush", "close")):
            raise PluginLoadError(Exporter.namespace, name, f"it gave {_kind(sink)} instead of an EventSink")
        return sink  # type: ignore[no-any-return]  # as far as can be seen from outside

    def open_model(self, settings: Mapping[str, Any]) -> object:
        """Open the model; raises PluginLoadError as :meth:`open_sink`."""
        name = _only_one(self.model_providers)
        model: object = _ask(self.model_providers, "open_model", name, settings=MappingProxyType(settings))
        if model is None:
            raise PluginLoadError(ModelProvider.namespace, name, "it gave no model")
        return model

    def interact(self, session: object) -> int | None:
        """Let the frontend hold the conversation and give its exit code; None where no frontend is loaded.

        Raises PluginLoadError where it raises or gives no exit code.
        """
        if not self.frontends.plugins:
            return None
        name = _only_one(self.frontends)
        code = _ask(self.frontends, "interact", name, session=session)
        if not isinstance(code, int):
            raise PluginLoadError(Frontend.namespace, name, f"it gave {_kind(code)} instead of an exit code")
        return code

    def emit(self, event: Event) -> None:
        """Show *event*, redacted already, to every observer; what they raise is logged and forgotten."""
        for name, _ in self.observers.plugins:
            try:
                self.observers.caller("on_event", name)(event=event)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
                log.warning("the observer %r failed on %s: %s", name, event.name, _describe(error))

    def _backend(self) -> str:
        try:
            return _only_one(self.sandbox_backends)
        except PluginError as error:
            raise SandboxUnavailableError(f"no sandbox: {error}") from error

    def _ask_backend(self, hook: str, policy: SandboxPolicy) -> Any:  # noqa: ANN401 - judged by the caller
        try:
            return _ask(self.sandbox_backends, hook, self._backend(), policy=policy)
        except PluginError as error:
            raise SandboxUnavailableError(f"no sandbox: {error}") from error


def _only_one(point: ExtensionPoint[Any]) -> str:
    """Give the name of the plugin of a point that has one; PluginLoadError where it has not."""
    names = [name for name, _ in point.plugins]
    if len(names) != 1:
        reason = f"{len(names)} plugins are loaded, where exactly one has to be"
        raise PluginLoadError(point.namespace, ", ".join(names) or "none", reason)
    return names[0]


def _ask(point: ExtensionPoint[Any], hook: str, name: str, **arguments: object) -> Any:  # noqa: ANN401 - as above
    """Call one hook of one plugin; what it raises becomes a PluginLoadError, unless it is ours."""
    try:
        return point.caller(hook, name)(**arguments)
    except CodexError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginLoadError(point.namespace, name, f"its {hook} failed: {_describe(error)}") from error


def _verdicts(point: ExtensionPoint[Any], hook: str, name: str, **arguments: object) -> list[Verdict]:
    """Ask one plugin: no verdict where it abstains, FORBID where it raises or answers nonsense."""
    source = f"{'policy' if hook == 'review' else 'gate'}:{name}"
    safety = getattr(arguments.get("action"), "safety", None)
    try:
        answers = point.caller(hook, name)(**arguments)
        return [_checked(answer, source, "" if safety is None else safety.source) for answer in answers]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        return [Verdict(Decision.FORBID, f"{source} failed, and what fails forbids: {_describe(error)}", source)]


def _checked(answer: object, source: str, rule: str) -> Verdict:
    if not isinstance(answer, Verdict):
        raise TypeError(f"it gave {answer!r} instead of a Verdict")
    parts: tuple[tuple[object, type], ...] = (
        (answer.decision, Decision),
        (answer.reason, str),
        (answer.source, str),
        (answer.unsandboxed, bool),
    )
    if not all(isinstance(value, kind) for value, kind in parts):
        raise TypeError(f"it gave a Verdict with parts of wrong types, {answer!r}")
    # A plugin speaks for itself, and passes on what a rule says; only the core speaks for the user.
    own = answer.source in {source, rule} or answer.source.startswith(f"{source}:")
    return answer if own and answer.source else replace(answer, source=source)


def _is_sequence(answer: object) -> bool:
    return isinstance(answer, (list, tuple))


def _kind(answer: object) -> str:
    return "nothing" if answer is None else f"a {type(answer).__qualname__}"


def _describe(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
