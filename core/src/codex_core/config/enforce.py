"""What happens to a configured value that the constraints do not allow.

On the command line and inside a session it is refused: somebody asked for it just now and is there to
choose again.  In a file it is replaced by the least strict value that is allowed and no looser than what
was asked for, with a warning; where there is none, the start is refused.  So a constraint never loosens
anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_core.config.keys import dotted, shown
from codex_core.config.layers import Layer, givers
from codex_core.config.requirements import STRICTEST_FIRST, Constraints, Violation
from codex_core.config.sources import DEFAULTS, FLAGS, OVERRIDES, REQUIREMENTS, SESSION
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from codex_core.config.model import Config
    from codex_core.config.positions import KeyPath

_NETWORK = ("sandbox_workspace_write", "network_access")
_DOMAINS = ("sandbox_workspace_write", "allowed_domains")
_EXPORTER = ("otel", "exporter")


def enforce(
    constraints: Constraints, layers: Sequence[Layer], config: Config
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Give the layers that replace what is not allowed, and a warning for each value that was configured.

    Raises ConfigError for a value that came from the command line or a session, or that nothing can replace.
    """
    replacements, warnings = [], []
    for path, value in constrained(config):
        violation = constraints.check(dotted(path), value)
        if violation is None:
            continue
        giver = next(iter(givers(layers, path)), None)
        place = f"{giver.place(path)}: " if giver is not None else ""
        instead = _instead(constraints, path, value)
        if instead is None or (giver is not None and giver.precedence in {OVERRIDES, FLAGS, SESSION}):
            raise ConfigError(f"{place}{violation}")
        replacements.append(_layer(violation, path, instead))
        if giver is not None and giver.precedence > DEFAULTS:
            warnings.append(f"{place}{violation}; {shown(instead)} holds instead")
    return tuple(replacements), tuple(warnings)


def constrained(config: Config) -> Iterator[tuple[tuple[str, ...], Any]]:
    """List the effective values that a requirement may have something to say about."""
    for key in STRICTEST_FIRST:
        yield (key,), str(getattr(config, key))
    for question, asked in config.ask_about:
        if isinstance(asked, bool):
            yield ("ask_about", question), asked
    yield _NETWORK, config.sandbox_workspace_write.network_access
    yield _DOMAINS, list(config.sandbox_workspace_write.allowed_domains)
    yield _EXPORTER, config.otel.exporter
    for name, table in config.backend_tables.items():
        yield (f"sandbox_{name}", "allow_degraded"), [str(promise) for promise in table.allow_degraded]


def _instead(constraints: Constraints, path: tuple[str, ...], value: Any) -> Any:  # noqa: ANN401 - any configured value
    """Give what may stand in the place of a value, and is stricter; None where nothing may."""
    if path[0] in STRICTEST_FIRST:
        return constraints.stricter(path[0], value)
    if path == _NETWORK or path[0] == "ask_about":
        return False
    if path == _EXPORTER:
        return None
    return [promise for promise in value if constraints.check(dotted(path), [promise]) is None]


def _layer(violation: Violation, path: tuple[str, ...], value: object) -> Layer:
    values: Any = value
    for part in reversed(path):
        values = {part: values}
    source = violation.layer
    renames: dict[KeyPath, KeyPath] = {path: (violation.requirement,)}
    if path == ("web_search",):
        values["features"] = {"web_search_request": value != "disabled"}
        renames["features", "web_search_request"] = (violation.requirement,)
    return Layer("requirements", REQUIREMENTS, values, source.path, source.positions, renames)
