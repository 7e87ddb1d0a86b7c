"""From the command line and the files to one frozen configuration, with the origin of every value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from codex_core.config import checks, sources
from codex_core.config.defaults import AUTO, BACKENDS, BY_TRUST, CAREFUL, repository_of, trust_entry
from codex_core.config.keys import dotted, quoted, visible
from codex_core.config.layers import Origin, find, givers, merge_layers, origins
from codex_core.config.model import EXPORTERS, Config, is_plugin_table
from codex_core.config.overrides import Override, parse_override
from codex_core.config.sources import ConfigContext, Layer
from codex_core.config.spelling import canonical
from codex_core.errors import ConfigError
from codex_core.types import ApprovalMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from codex_core.config.positions import KeyPath


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
    defaults_note: str | None = None
    """One line for the user where nothing chose the mode."""
    context: ConfigContext = field(kw_only=True, repr=False)

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

    layers = check(sources.user_layers(context))
    layers += check(sources.override_layers(words, merge_layers(layers)))
    layers += check(sources.managed_layers(context))
    layers += check(_profile_layers(layers))
    layers = tuple(sorted(layers, key=lambda layer: layer.precedence))
    below, note = _defaults(context, layers)
    layers = (*below, *layers)
    values = merge_layers(layers)
    check.warn(_without_effect(layers, values))
    return Loaded(
        config=Config.model_validate(values),
        layers=layers,
        values=values,
        warnings=(*check.warnings, *_deprecations(layers, values)),
        codex_home=context.codex_home,
        defaults_note=note,
        context=context,
    )


class _Check:
    """Brings layers to their one form and checks them; collects the warnings."""

    def __init__(self, context: ConfigContext, *, strict: bool) -> None:
        self.warnings: list[str] = []
        self._context = context
        self._strict = strict

    def __call__(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        return tuple(map(self._checked, layers))

    def warn(self, about: Iterable[str]) -> None:
        """Collect warnings; raises ConfigError for the first where warnings are errors."""
        for line in about:
            if self._strict:
                raise ConfigError(line)
            self.warnings.append(line)

    def _checked(self, layer: Layer) -> Layer:
        folder = self._context.cwd if layer.path is None else os.path.dirname(layer.path)
        layer = canonical(layer, folder=folder, environ=self._context.environ)
        layer, unknown = checks.without_unknown(layer)
        self.warn(checks.unknown_line(layer, one) for one in unknown)
        checks.validate(layer)
        return layer


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


def _defaults(context: ConfigContext, layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], str | None]:
    """Make the layer below all others, and the note about it where nothing chose the mode."""
    values = merge_layers(layers)
    repository = repository_of(context.cwd)
    entry = trust_entry(values.get("projects"), context.cwd, repository)
    if entry is not None:
        path = ("projects", entry, "trust_level")
        giver = givers(layers, path)[0]
        chosen = BY_TRUST[find(values, path)[1]]
        renames: dict[KeyPath, KeyPath] = {(key,): giver.spelled(path) for key in chosen}
        return (replace(giver, name="trust", precedence=sources.DEFAULTS, values=chosen, renames=renames),), None
    chosen = CAREFUL if repository is None else AUTO
    note = None
    if "sandbox_mode" not in values:
        mode, approval = chosen["sandbox_mode"], values.get("approval_policy", chosen["approval_policy"])
        why = "is not version-controlled" if repository is None else "is version-controlled"
        note = f"{mode} and {approval}, because {visible(repository or context.cwd)} {why} and nothing chooses a mode"
    return (Layer("defaults", sources.DEFAULTS, chosen),), note


def _without_effect(layers: Sequence[Layer], values: Mapping[str, Any]) -> Iterator[str]:
    """Warn of the tables of plugins that are neither known nor chosen: most are slips of the pen."""
    otel = values.get("otel", {})
    for prefix, table, names, chooser, chosen in (
        ("sandbox_", values, BACKENDS, "sandbox_backend", values.get("sandbox_backend")),
        ("", otel, EXPORTERS, "otel.exporter", otel.get("exporter")),
    ):
        for key in table:
            name = key.removeprefix(prefix)
            path = (key,) if table is values else ("otel", key)
            if is_plugin_table(path) and name not in names and name != chosen:
                place = givers(layers, path)[0].place(path)
                yield f"{place}: {dotted(path)} has no effect: {chooser} is not {quoted(name)}"


def _deprecations(layers: Sequence[Layer], values: Mapping[str, Any]) -> tuple[str, ...]:
    if values.get("approval_policy") != ApprovalMode.ON_FAILURE:
        return ()
    key = ("approval_policy",)
    place = givers(layers, key)[0].place(key)
    return (f'{place}: approval_policy = "on-failure" is deprecated; use "on-request"',)
