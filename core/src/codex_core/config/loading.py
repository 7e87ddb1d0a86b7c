"""From the command line and the files to one frozen configuration, with the origin of every value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from codex_core.config import checks, mdm, requirements, sources
from codex_core.config.defaults import AUTO, BACKENDS, BY_TRUST, CAREFUL, repository_of, trust_entry
from codex_core.config.enforce import enforce
from codex_core.config.headers import checked_header, expanded
from codex_core.config.keys import dotted, quoted, shown, visible
from codex_core.config.layers import Layer, Origin, find, givers, merge, merge_layers, origins
from codex_core.config.model import EXPORTERS, GATES, Config, Plugins, is_plugin_table
from codex_core.config.overrides import Override, parse_override
from codex_core.config.plugin_tables import PluginTables
from codex_core.config.requirements import Constraints
from codex_core.config.sources import ConfigContext
from codex_core.config.spelling import TOOLS_WEB_SEARCH, canonical
from codex_core.errors import ConfigError
from codex_core.types import ApprovalMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from codex_core.config.positions import KeyPath

CONFIG_SOURCES = ("plugins", "config_sources")


@dataclass(frozen=True)
class Loaded:
    """A configuration and where it came from."""

    config: Config
    layers: tuple[Layer, ...]
    """Every layer that says something, the lowest first, in its one form (see :mod:`codex_core.config.spelling`)."""
    values: Mapping[str, Any]
    """The layers merged."""
    warnings: tuple[str, ...]
    codex_home: str
    constraints: Constraints = field(default_factory=Constraints)
    """What may be chosen, now and in the course of a session: ask before every change."""
    defaults_note: str | None = None
    """One line for the user where nothing chose the mode."""
    context: ConfigContext = field(kw_only=True, repr=False)
    strict: bool = field(default=False, kw_only=True)
    """Whether a key that is not known is an error."""

    def plugin_tables(self) -> PluginTables:
        """Give what hands plugins their settings; its warnings are complete once they are loaded."""
        return PluginTables(self.layers, self.values, self.strict)

    def exporter_settings(self) -> dict[str, Any]:
        """Give the settings of the chosen exporter, with the variables in its headers expanded.

        Header names are in lower case, as OTLP over gRPC wants them.  Raises ConfigError for a variable
        that is not set, and for a header that cannot be sent.
        """
        name = self.config.otel.exporter
        settings = self.config.otel.exporter_table(name).model_dump(exclude_none=True, by_alias=True)
        headers = {}
        for header, value in settings.get("headers", {}).items():
            path = ("otel", name, "headers", header)
            try:
                headers[checked_header(header)] = expanded(value, self.context.environ)
            except ConfigError as error:
                layer = givers(self.layers, path)[0]
                raise ConfigError(f"{layer.place(path)}: {dotted(layer.spelled(path))}: {error}") from None
        return settings | {"headers": headers}

    @cached_property
    def origins(self) -> Mapping[str, Origin]:
        """Where each value comes from, by dotted key.  Found at the first question: the files are scanned then."""
        return origins(self.layers, self.values)


def load_config(
    *,
    cwd: str,
    overrides: Sequence[Override | str] = (),
    environ: Mapping[str, str] | None = None,
    system_root: str = "/",
    strict: bool = False,
) -> Loaded:
    """Read all layers, check each by itself, and merge them.

    *cwd* is the folder that the run is about, absolute.  With *strict* an unknown key is an error.

    Raises UsageError for an override that is none, and ConfigError for everything else.
    """
    environ = os.environ if environ is None else environ
    context = ConfigContext(sources.codex_home(environ), cwd, environ, system_root)
    words = [parse_override(one) if isinstance(one, str) else one for one in overrides]
    check = _Check(context, strict=strict)

    constraints = requirements.load(context)
    managed = check((*sources.managed_layers(context), *mdm.config_layers(context)))
    base = check(sources.user_layers(context))
    tables = PluginTables(managed, merge_layers(managed), strict)
    base = _sorted((*base, *check(_third_party_layers(tables, constraints, context))))
    chosen = (*base, *check(sources.override_layers(words, merge_layers(base))), *managed)
    check.warn(tables.warnings)
    _refuse_config_sources(chosen)
    return _settled(chosen, constraints, check)


def changed(loaded: Loaded, values: Mapping[str, Any]) -> Loaded:
    """Lay what is chosen inside a session over everything that was loaded, within the constraints.

    *values* is a table, such as ``{"approval_policy": "never"}``; what was chosen before stays, unless it is
    chosen anew.  The warnings are those of this change.

    Raises ConfigError for values that are wrong or not allowed; nothing is changed then.
    """
    check = _Check(loaded.context, strict=loaded.strict)
    computed = {sources.DEFAULTS, sources.PROFILE, sources.SESSION, sources.REQUIREMENTS}
    chosen = [layer for layer in loaded.layers if layer.precedence not in computed]
    before = merge_layers(layer for layer in loaded.layers if layer.precedence == sources.SESSION)
    session = Layer("session", sources.SESSION, merge(before, values))
    return _settled((*chosen, *check([session])), loaded.constraints, check)


def _settled(chosen: Sequence[Layer], constraints: Constraints, check: _Check) -> Loaded:
    """Add to the layers that somebody wrote what follows from them, and enforce the constraints."""
    context = check.context
    chosen = _sorted((*chosen, *check(_profile_layers(chosen))))
    layers = (*_default_layers(context, chosen), *chosen)
    config = Config.model_validate(merge_layers(layers))
    replaced, refusals = enforce(constraints, layers, config)
    layers = (*layers, *replaced)
    values = merge_layers(layers)
    check.warn(_without_effect(layers, values))
    return Loaded(
        config=Config.model_validate(values) if replaced else config,
        layers=layers,
        values=values,
        warnings=(*check.warnings, *refusals, *_deprecations(layers, values)),
        codex_home=context.codex_home,
        constraints=constraints,
        defaults_note=_defaults_note(context, layers, values),
        context=context,
        strict=check.strict,
    )


def _sorted(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    return tuple(sorted(layers, key=lambda layer: layer.precedence))


class _Check:
    """Brings layers to their one form and checks them; collects the warnings."""

    def __init__(self, context: ConfigContext, *, strict: bool) -> None:
        self.warnings: list[str] = []
        self.context = context
        self.strict = strict

    def __call__(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        return tuple(map(self._checked, layers))

    def warn(self, about: Iterable[str]) -> None:
        """Collect warnings; raises ConfigError for the first where warnings are errors."""
        for line in about:
            if self.strict:
                raise ConfigError(line)
            self.warnings.append(line)

    def _checked(self, layer: Layer) -> Layer:
        layer = canonical(layer, folder=self._folder(layer), environ=self.context.environ)
        layer, unknown = checks.without_unknown(layer)
        self.warn(checks.unknown_line(layer, one) for one in unknown)
        checks.validate(layer, Config)
        return layer

    def _folder(self, layer: Layer) -> str | None:
        """Say where the relative paths of a layer start; None where it has no place to start at."""
        if layer.precedence in {sources.OVERRIDES, sources.FLAGS, sources.SESSION}:
            return self.context.cwd
        if layer.precedence == sources.MDM or layer.path is None or not os.path.isabs(layer.path):
            return None
        return os.path.dirname(layer.path)


def _third_party_layers(managed: PluginTables, constraints: Constraints, context: ConfigContext) -> tuple[Layer, ...]:
    names = find(managed.values, CONFIG_SOURCES)[1]
    if not names:
        return ()
    from codex_core.config import third_party

    return third_party.load(names, constraints, context, managed)


def _refuse_config_sources(layers: Iterable[Layer]) -> None:
    for layer in layers:
        if layer.precedence < sources.MANAGED and find(layer.values, CONFIG_SOURCES)[1]:
            raise ConfigError(f"{layer.place(CONFIG_SOURCES)}: only managed configuration may name config sources")


def _profile_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Make layers of the tables that ``profile`` names, one for each layer that has such a table."""
    values = merge_layers(layers)
    name = values.get("profile")
    if name is None:
        return ()
    path = ("profiles", name)
    if not find(values, path)[0]:
        place = givers(layers, ("profile",))[0].place(("profile",))
        names = ", ".join(map(quoted, values.get("profiles", {}))) or "none"
        raise ConfigError(f"{place}: there is no profile {quoted(name)}; there are: {names}")
    tables = [(layer, find(layer.values, path)[1]) for layer in layers]
    return tuple(
        replace(
            layer,
            name=f"profile {name}",
            precedence=sources.PROFILE,
            values=table,
            renames={(key,): (*path, key) for key in table},
        )
        for layer, table in tables
        if table
    )


def _default_layers(context: ConfigContext, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Make the layers below all others, from the folder and the trust in it."""
    values = merge_layers(layers)
    repository = repository_of(context.cwd)
    entry = trust_entry(values.get("projects"), context.cwd, repository)
    if entry is None:
        return (Layer("defaults", sources.DEFAULTS, CAREFUL if repository is None else AUTO),)
    path = ("projects", entry, "trust_level")
    giver = givers(layers, path)[0]
    chosen = BY_TRUST[find(values, path)[1]]
    renames: dict[KeyPath, KeyPath] = {(key,): giver.spelled(path) for key in chosen}
    return (replace(giver, name="trust", precedence=sources.DEFAULTS, values=chosen, renames=renames),)


def _defaults_note(context: ConfigContext, layers: Sequence[Layer], values: Mapping[str, Any]) -> str | None:
    """Say what holds, and why, where nothing chose the mode."""
    deciding = [layer.name for layer in givers(layers, ("sandbox_mode",))]
    if deciding[-1] != "defaults" or set(deciding) - {"defaults", "requirements"}:
        return None
    repository = repository_of(context.cwd)
    why = "is not version-controlled" if repository is None else "is version-controlled"
    bound = " (the administrator allows no more)" if "requirements" in deciding else ""
    chosen = f"{values['sandbox_mode']} and {values['approval_policy']}{bound}"
    return f"{chosen}, because {visible(repository or context.cwd)} {why} and nothing chooses a mode"


def _without_effect(layers: Sequence[Layer], values: Mapping[str, Any]) -> Iterator[str]:
    """Warn of the tables of plugins that are neither known nor chosen: most are slips of the pen."""
    otel, plugins = values.get("otel", {}), values.get("plugins", {})
    listed = [name for key in Plugins.model_fields for name in plugins.get(key, ())]
    chosen_plugins = {*GATES, values.get("approval_policy"), *listed}
    for above, table, prefix, chosen, reason in (
        ((), values, "sandbox_", {*BACKENDS, values.get("sandbox_backend")}, "sandbox_backend is not"),
        (("otel",), otel, "", {*EXPORTERS, otel.get("exporter")}, "otel.exporter is not"),
        (("plugins",), plugins, "", chosen_plugins, "nothing chooses a plugin"),
    ):
        for key in table:
            path, name = (*above, key), key.removeprefix(prefix)
            if is_plugin_table(path) and name not in chosen:
                place = givers(layers, path)[0].place(path)
                yield f"{place}: {dotted(path)} has no effect: {reason} {quoted(name)}"


def _deprecations(layers: Sequence[Layer], values: Mapping[str, Any]) -> Iterator[str]:
    for path, old, instead in (
        (("approval_policy",), ApprovalMode.ON_FAILURE, 'use "on-request"'),
        (TOOLS_WEB_SEARCH, None, "use features.web_search_request"),
    ):
        found, value = find(values, path)
        if found and old in {value, None}:
            place = givers(layers, path)[0].place(path)
            yield f"{place}: {dotted(path)} = {shown(value)} is deprecated; {instead}"
