"""What ``codex config show`` and ``codex config audit`` tell, as data.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_core.config.enforce import constrained
from codex_core.config.keys import dotted
from codex_core.config.layers import Origin, find, givers, leaves, merge_layers, origin
from codex_core.config.model import Config
from codex_core.config.sources import DEFAULTS, MANAGED, MDM
from codex_core.config.writing import toml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.config.layers import Layer
    from codex_core.config.loading import Loaded


@dataclass(frozen=True, slots=True)
class Said:
    """What one layer says about a key."""

    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: what holds, who says so, and who would have said otherwise."""

    path: tuple[str, ...]
    value: Any
    origin: Origin
    overrode: tuple[Said, ...]
    """The layers below that speak about it too, the highest first."""

    @property
    def key(self) -> str:
        """The dotted name."""
        return dotted(self.path)

    @property
    def constrained(self) -> bool:
        """Whether a constraint put this value in the place of another one."""
        return self.origin.layer == "requirements"


@dataclass(frozen=True, slots=True)
class Drift:
    """A local value that the company's policy does not let stand."""

    path: tuple[str, ...]
    kind: str
    """``overridden`` by a managed value, or ``forbidden`` by a constraint."""
    local: Said
    policy: Said
    """The managed value, or what is allowed, in words; and where it stands."""


def entries(loaded: Loaded, *, defaults: bool) -> tuple[Entry, ...]:
    """List every key that some layer sets, or with *defaults* every key there is, by name."""
    said = dict(leaves(loaded.values))
    if defaults:
        said = dict(leaves(effective_values(loaded.config))) | {path: said[path] for path in said if said[path] != {}}
    return tuple(_entry(loaded.layers, path, value) for path, value in sorted(said.items()))


def effective_values(config: Config) -> dict[str, Any]:
    """Give all values of a configuration as plain tables; what has no value is left out."""
    return config.model_dump(by_alias=True, exclude_none=True)


def _entry(layers: Sequence[Layer], path: tuple[str, ...], value: object) -> Entry:
    speaking = [Said(find(layer.values, path)[1], origin(layer, path)) for layer in givers(layers, path)]
    if not speaking:
        return Entry(path, value, Origin("defaults"), ())
    return Entry(path, value, speaking[0].origin, tuple(speaking[1:]))


def drift(loaded: Loaded) -> tuple[Drift, ...]:
    """Compare what is set locally with the managed values and the constraints."""
    local = [layer for layer in loaded.layers if DEFAULTS < layer.precedence < MANAGED]
    managed = [layer for layer in loaded.layers if MANAGED <= layer.precedence <= MDM]
    found = []
    for path, value in leaves(merge_layers(managed)):
        below, above = givers(local, path), givers(managed, path)
        if below and above and (said := find(below[0].values, path)[1]) != value:
            found.append(
                Drift(path, "overridden", Said(said, origin(below[0], path)), Said(value, origin(above[0], path)))
            )
    for path, value in constrained(Config.model_validate(merge_layers(local))):
        violation = loaded.constraints.check(dotted(path), value)
        below = givers(local, path)
        if violation is not None and below:
            requirement = Said(violation.allowed, origin(violation.layer, (violation.requirement,)))
            found.append(Drift(path, "forbidden", Said(value, origin(below[0], path)), requirement))
    return tuple(sorted(found, key=lambda one: one.path))


def constraints(loaded: Loaded) -> tuple[tuple[str, str], ...]:
    """List what the constraints say, each as TOML and with its place."""
    return tuple(
        (f"{key} = {toml(value)}", requirement.layer.place((key,)))
        for requirement in loaded.constraints.requirements
        for key, value in requirement.layer.values.items()
    )


def management_note(loaded: Loaded) -> tuple[str, ...]:
    """Say what becomes of managed values, where there are some."""
    if not any(MANAGED <= layer.precedence <= MDM for layer in loaded.layers):
        return ()
    note = (
        "# Managed values are starting values: a session may change them, within the constraints; "
        "they come back at the next start."
    )
    return (note,)
