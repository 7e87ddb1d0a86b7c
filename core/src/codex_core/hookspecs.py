"""The extension points: what a plugin may implement, when it is called, and who wins.

Each class is three things at once: the hook specification that pluggy checks a plugin against, the
base class that a plugin derives from (so that mypy checks the same contract), and its documentation.
A plugin subclasses one of them, marks the methods it implements with :data:`hookimpl`, and is
declared as an entry point in the namespace of the same row::

    [project.entry-points."codex_core.sandbox_backends"]
    my-backend = "my_package.plugin:MyBackend"

The class is instantiated without arguments, or with its settings where it has a model for them (see
:class:`Extension`).  Each extension point has a plugin manager of its own, so a plugin can only take
part where it was declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codex_core.config.layers import Layer
    from codex_core.config.sources import ConfigContext
    from codex_core.events import Event
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.table import Table
    from codex_core.telemetry.emitter import EventSink
    from codex_core.types import Action, Launcher, Strength, Verdict

PROJECT = "codex_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Extension:
    """What all specifications have in common."""

    namespace: ClassVar[str]
    """The namespace of the entry points."""
    settings_model: ClassVar[type[Table] | None] = None
    """The model of the plugin's own table in the configuration: ``[sandbox_<name>]`` for a backend,
    ``[otel.<name>]`` for an exporter, ``[plugins.<name>]`` for all others, *name* being the entry point's.

    The class is then instantiated with one argument, its settings: an instance of the model, checked.
    Without a model a key in that table is unknown, unless core knows it.
    """


class ConfigSource(Extension):
    """A place that configuration comes from, such as a company's secret store.

    The layers of core (defaults, user file, overrides, managed file) are not plugins, so that no
    uninstallation removes them.
    """

    namespace: ClassVar[str] = "codex_core.config_sources"

    @hookspec
    def config_layers(self, context: ConfigContext) -> Sequence[Layer]:
        """Give the layers of this source.

        Called once, before anything else is decided; the source's own settings come from managed layers
        alone.  An empty sequence means: nothing to say.  Layers of all sources are merged by precedence; a
        plugin cannot stand at or above the managed layers.  A raise stops the start: configuration that
        was asked for is never left out.
        """
        raise NotImplementedError


class SandboxBackend(Extension):
    """Confines commands with the means of one operating system."""

    namespace: ClassVar[str] = "codex_core.sandbox_backends"

    @hookspec(firstresult=True)
    def probe(self) -> Strength:
        """Say what this backend can keep on this host, found by doing it and not by version numbers.

        Called by ``codex doctor`` and before the first command.  Must leave nothing behind.
        A raise counts as "keeps nothing".
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def unsupported(self, policy: SandboxPolicy) -> Sequence[str]:
        """Name what this backend cannot keep of *policy* on this host, one line with its cure each.

        Called before every launcher is made.  Anything in the answer, or a raise, refuses the run:
        a policy is kept whole or not at all.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def launcher(self, policy: SandboxPolicy) -> Launcher:
        """Make a launcher that confines commands to *policy*.

        Called once for each policy; the caller closes it.  A raise refuses the run.  The launcher
        must have proved its confinement from inside before the first command runs.
        """
        raise NotImplementedError


class ApprovalPolicy(Extension):
    """Has a say in whether an action goes ahead."""

    namespace: ClassVar[str] = "codex_core.approval_policies"

    @hookspec
    def review(self, action: Action, policy: SandboxPolicy) -> Verdict | None:
        """Judge one action that would run under *policy*.

        Called for every action, on every loaded policy.  None abstains.  The strictest verdict
        wins, whatever the order; if nobody speaks, a person is asked; a raise forbids.

        Connections to hosts that no list of domains names come here too (``tool`` is ``"network"``), each on
        a thread of its own, while their command runs.
        """
        raise NotImplementedError


class ToolGate(Extension):
    """Decides whether a tool, such as web search, is offered at all."""

    namespace: ClassVar[str] = "codex_core.tool_gates"

    @hookspec
    def gate_tool(self, tool: str, config: Mapping[str, Any]) -> Verdict | None:
        """Judge one tool under the effective configuration.

        Called when a session starts and when its configuration changes.  None abstains; the
        strictest verdict wins; a gated tool whose gate is missing or raises is not offered.
        """
        raise NotImplementedError


class Exporter(Extension):
    """Carries events to where they are kept."""

    namespace: ClassVar[str] = "codex_core.exporters"

    @hookspec(firstresult=True)
    def open_sink(self, settings: Mapping[str, Any], resource: Mapping[str, str]) -> EventSink:
        """Open the sink that ``[otel] exporter`` asks for.

        Called once a session with that exporter's table and the resource attributes.  A raise stops
        the start: audit that was asked for is never left out.  Failing to send later does not stop
        anything; the sink counts what it lost.  Events arrive redacted.
        """
        raise NotImplementedError


class ModelProvider(Extension):
    """Speaks to a model."""

    namespace: ClassVar[str] = "codex_core.model_providers"

    @hookspec(firstresult=True)
    def open_model(self, settings: Mapping[str, Any]) -> object:
        """Open the model that ``model_provider`` names.

        Called once a session.  A raise stops the start.
        """
        raise NotImplementedError


class Frontend(Extension):
    """The face of ``codex`` without a subcommand."""

    namespace: ClassVar[str] = "codex_core.frontends"

    @hookspec(firstresult=True)
    def interact(self, session: object) -> int:
        """Hold the conversation and give the exit code.

        Called once.  Where none is installed, or it raises at load, core falls back to plain lines.
        """
        raise NotImplementedError


class Observer(Extension):
    """Watches.  Its answers do not count and its failures are logged and forgotten."""

    namespace: ClassVar[str] = "codex_core.observers"

    @hookspec
    def on_event(self, event: Event) -> None:
        """See one event, redacted, on the thread where it happened: be quick."""
        raise NotImplementedError
