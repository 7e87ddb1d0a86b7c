"""Constraints: what an administrator lets anybody choose.

They come from ``requirements.toml`` beside the managed file and from managed preferences, and bind
every layer, every flag and every change inside a session.  Each file is one :class:`Requirement`;
:class:`Constraints` holds them all, and a value is allowed where every single one allows it.  So adding
a file can only tighten: the constraints form a meet semilattice whose top is the empty set of files.

A key that is not known is an error here, never a warning: a constraint that cannot be kept must not be
passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from codex_core.config import checks, mdm, sources
from codex_core.config.keys import shown
from codex_core.config.model import Requirements, WebSearch
from codex_core.errors import ConfigError
from codex_core.sandbox.domains import parse_pattern
from codex_core.types import ApprovalMode, Promise, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from codex_core.config.layers import Layer
    from codex_core.config.sources import ConfigContext
    from codex_core.types import Strength

STRICTEST_FIRST: dict[str, tuple[str, ...]] = {
    "sandbox_mode": tuple(map(str, SandboxMode)),
    "approval_policy": tuple(map(str, ApprovalMode)),
    "web_search": tuple(map(str, WebSearch)),
}
"""The values of the keys that have an order, so that a value may be replaced by a stricter one."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A value that a requirement does not allow."""

    key: str
    value: Any
    allowed: str
    """What is allowed instead, in words."""
    layer: Layer
    """The file that does not allow it."""
    requirement: str
    """The key of that file."""

    @property
    def place(self) -> str:
        """Where the requirement stands: ``FILE:LINE:COLUMN``."""
        return self.layer.place((self.requirement,))

    @property
    def owner(self) -> str:
        """Who may change it."""
        return "device management" if self.layer.name == "mdm" else "the administrator of this machine"

    def __str__(self) -> str:
        said = self.value if self.key in _UNQUOTED else f"{self.key} = {shown(self.value)}"
        return f"{said} is not allowed: {self.place} allows {self.allowed}; only {self.owner} may change that"


@dataclass(frozen=True, slots=True)
class Rule:
    """A restriction of commands, with the place that it stands at."""

    prefix: tuple[tuple[str, ...], ...]
    """For each of the first words of a command the words that it may be."""
    decision: Literal["prompt", "forbid"]
    reason: str
    place: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One file of constraints."""

    layer: Layer
    allowed: Requirements

    @property
    def needs(self) -> dict[str, tuple[Promise, ...]]:
        """The promises that a sandbox has to keep, by the key that asks for them.

        Hosts that nobody may reach are out of reach only where the sandbox keeps the network closed.
        """
        allowed = self.allowed
        needed = {"minimum_strength": allowed.minimum_strength}
        if allowed.allow_network_access is False:
            needed["allow_network_access"] = (Promise.NETWORK,)
        if allowed.allowed_domains is not None:
            needed["allowed_domains"] = (Promise.NETWORK,)
        return needed

    def violated(self, key: str, value: Any) -> Violation | None:  # noqa: ANN401 - any configured value
        """Judge the value of one key, by its dotted name."""
        check = _CHECKS.get(key)
        if check is None and key.startswith("ask_about."):
            check = _question
        if check is None and key.startswith("sandbox_") and key.endswith(".allow_degraded"):
            check = _allow_degraded
        return check(self, key, value) if check else None

    def refuse(self, key: str, value: object, requirement: str, allowed: str) -> Violation:
        """Say that *requirement*, a key of this file, does not allow *value*."""
        return Violation(key, value, allowed, self.layer, requirement)


@dataclass(frozen=True, slots=True)
class Constraints:
    """All files of constraints together; without any, everything is allowed."""

    requirements: tuple[Requirement, ...] = ()

    def __and__(self, other: Constraints) -> Constraints:
        """Give the constraints that allow what both allow."""
        return Constraints((*self.requirements, *other.requirements))

    def check(self, key: str, value: Any) -> Violation | None:  # noqa: ANN401 - any configured value
        """Judge a value for *key*, a dotted name such as ``sandbox_mode``; None allows it.

        To be asked for every choice, also one inside a session.
        """
        violations = (requirement.violated(key, value) for requirement in self.requirements)
        return next((violation for violation in violations if violation is not None), None)

    def check_strength(self, strength: Strength) -> Violation | None:
        """Judge what a launcher keeps; to be asked before a command runs, also for one outside the sandbox."""
        for requirement in self.requirements:
            for field, promises in requirement.needs.items():
                lost = [promise for promise in promises if promise not in strength.kept]
                if lost:
                    said = f"a run without {', '.join(lost)} ({strength.backend}/{strength.rung})"
                    return requirement.refuse("strength", said, field, "none that loses " + ", ".join(promises))
        return None

    def check_plugin(self, distribution: str) -> Violation | None:
        """Judge a plugin by the distribution that it comes from; to be asked before it is imported."""
        for requirement in self.requirements:
            names = requirement.allowed.allowed_plugins
            if names is not None and _normalised(distribution) not in map(_normalised, names):
                said = f"a plugin from {shown(distribution)}"
                return requirement.refuse("plugin", said, "allowed_plugins", _listed(names))
        return None

    def stricter(self, key: str, value: str) -> str | None:
        """Give the least strict value that is allowed and not looser than *value*; None where there is none."""
        order = STRICTEST_FIRST[key]
        upto = order[: order.index(value) + 1]
        return next((one for one in reversed(upto) if self.check(key, one) is None), None)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The restrictions of commands, of all files.  The strictest that matches a command wins."""
        return tuple(
            Rule(
                tuple((word,) if isinstance(word, str) else word for word in rule.prefix),
                rule.decision,
                rule.reason,
                requirement.layer.place(("rules", index)),
            )
            for requirement in self.requirements
            for index, rule in enumerate(requirement.allowed.rules)
        )


def load(context: ConfigContext) -> Constraints:
    """Read all constraints.

    Raises ConfigError where a file is there and cannot be trusted, read, parsed or understood, and where
    together they leave nothing to choose.
    """
    layers = (*sources.requirements_layers(context), *mdm.requirements_layers(context))
    constraints = Constraints(tuple(map(requirement, layers)))
    for key, order in STRICTEST_FIRST.items():
        if all(constraints.check(key, value) for value in order):
            files = ", ".join(one.layer.place() for one in constraints.requirements)
            raise ConfigError(f"{files}: leave no value for {key}; only the administrator may change that")
    return constraints


def requirement(layer: Layer) -> Requirement:
    """Check one layer of constraints; raises ConfigError, also for a key that is not known."""
    cleaned, unknown = checks.without_unknown(layer, Requirements)
    if unknown:
        raise ConfigError(f"{checks.unknown_line(layer, unknown[0])}: a constraint that cannot be kept stops the run")
    return Requirement(cleaned, checks.validate(cleaned, Requirements))


def _one_of(field: str, always: str = "") -> Any:  # noqa: ANN401 - a check, see _CHECKS
    def check(one: Requirement, key: str, value: str) -> Violation | None:
        allowed = getattr(one.allowed, field)
        if allowed is None or value == always or value in allowed:
            return None
        return one.refuse(key, value, field, _listed(allowed))

    return check


def _sandbox_mode(one: Requirement, key: str, value: str) -> Violation | None:
    listed: Violation | None = _ALLOWED_MODES(one, key, value)
    if listed is not None or value != SandboxMode.DANGER_FULL_ACCESS:
        return listed
    for field, promises in one.needs.items():
        if promises:
            return one.refuse(key, value, field, "sandboxed modes only")
    return None


def _question(one: Requirement, key: str, value: bool) -> Violation | None:  # noqa: FBT001 - a check
    allowed = one.allowed.allowed_questions
    if not value or allowed is None or key.removeprefix("ask_about.") in allowed:
        return None
    return one.refuse(key, value, "allowed_questions", _listed(allowed))


def _web_search_request(one: Requirement, key: str, value: bool) -> Violation | None:  # noqa: FBT001 - a check
    mode = WebSearch.LIVE if value else WebSearch.DISABLED
    found = one.violated("web_search", mode)
    return replace(found, key=key, value=value) if found else None


def _network_access(one: Requirement, key: str, value: bool) -> Violation | None:  # noqa: FBT001 - a check
    if not value:
        return None
    if one.allowed.allow_network_access is False:
        return one.refuse(key, value, "allow_network_access", "false")
    if one.allowed.allowed_domains is not None:
        return one.refuse(key, value, "allowed_domains", f"the domains {_listed(one.allowed.allowed_domains)}")
    return None


def _allowed_domains(one: Requirement, key: str, value: Sequence[str]) -> Violation | None:
    if value and one.allowed.allow_network_access is False:
        return one.refuse(key, list(value), "allow_network_access", "none")
    allowed = one.allowed.allowed_domains
    for domain in value if allowed is not None else ():
        if not any(parse_pattern(pattern).covers(parse_pattern(domain)) for pattern in allowed or ()):
            return one.refuse(key, domain, "allowed_domains", _listed(allowed or ()))
    return None


def _allow_degraded(one: Requirement, key: str, value: Iterable[str]) -> Violation | None:
    for promise in value:
        for field, promises in one.needs.items():
            if promise in promises:
                return one.refuse(key, str(promise), field, "none of " + ", ".join(promises))
    return None


_ALLOWED_MODES = _one_of("allowed_sandbox_modes")
_UNQUOTED = frozenset({"strength", "plugin"})
_CHECKS: dict[str, Any] = {
    "sandbox_mode": _sandbox_mode,
    "approval_policy": _one_of("allowed_approval_policies"),
    "web_search": _one_of("allowed_web_search_modes", always=WebSearch.DISABLED),
    "features.web_search_request": _web_search_request,
    "otel.exporter": _one_of("allowed_exporters"),
    "sandbox_workspace_write.network_access": _network_access,
    "sandbox_workspace_write.allowed_domains": _allowed_domains,
}


def _listed(values: Iterable[str]) -> str:
    return ", ".join(shown(str(value)) for value in values) or "nothing"


def _normalised(distribution: str) -> str:
    """Normalise a distribution's name as PEP 503 does."""
    import re

    return re.sub(r"[-_.]+", "-", distribution).lower()
