"""The user's own word on commands: allow, prompt, or forbid.

Rules are TOML, one ``[[rule]]`` for each::

    [[rule]]
    pattern = ["git", ["fetch", "pull"], "origin"]   # a prefix of the words; a list is a choice
    decision = "allow"
    justification = "our own server"
    match = ["git fetch origin --prune"]
    not_match = ["git push origin"]

The strictest rule that matches wins.  *match* and *not_match* are examples, tried when the rule is
loaded.  ``allow`` runs in the sandbox, without a question; only ``unsandboxed = true`` leaves it.

A rule with ``hosts = ["example.com", "*.example.org:443"]`` in the place of a pattern is about connections,
of all commands in the sandbox.  It allows or forbids: what nothing allows is asked about anyhow.

A rule that allows has to fit exactly: the first word as it is written; it leaves the sandbox only with
a program that lies where commands cannot write; and what is known to be dangerous it allows only with
``exact = true``.  A rule that asks or forbids fits generously: by the program's name wherever it lies,
and anywhere in a shell line.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

from codex_core.approval.tables import program_name
from codex_core.approval.visible import visible
from codex_core.errors import ConfigError
from codex_core.sandbox.domains import parse_host, parse_pattern, split_port
from codex_core.sandbox.policy import canonical, contains
from codex_core.types import Decision, Network, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from codex_core.sandbox.domains import Host
    from codex_core.sandbox.policy import SandboxPolicy

_DECISIONS = {decision.name.casefold(): decision for decision in Decision}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; every condition that it has must hold."""

    decision: Decision
    source: str
    """``FILE:LINE``."""
    pattern: tuple[frozenset[str], ...] = ()
    exact: bool = False
    """No words may follow those of the pattern."""
    program: str = ""
    """The file, all links followed, that the first word must lead to."""
    cwd: str = ""
    """The folder, or one below it, where the command must run."""
    hosts: tuple[str, ...] = ()
    """For connections instead of commands: canonical patterns of :mod:`codex_core.sandbox.domains`."""
    expires: datetime | None = None
    unsandboxed: bool = False
    justification: str = ""

    def matches(self, words: Sequence[str], cwd: str | None, *, found: str | None = None) -> bool:
        """Say whether the rule speaks about a command; *cwd* and *found* (the program's file) None if not known."""
        if self.hosts or len(words) < len(self.pattern) or (self.exact and len(words) != len(self.pattern)):
            return False
        allows = self.decision is Decision.ALLOW
        given = [words[0] if allows else program_name(words[0]), *words[1:]]
        if not all(word in choice for word, choice in zip(given, self._choices(allows=allows), strict=False)):
            return False
        return self._holds_here(cwd, found, allows=allows)

    def names(self, words: Sequence[str]) -> bool:
        """Say whether the rule, which matches, is about exactly these words and no others."""
        return self.exact and len(self.pattern) == len(words)

    def matches_host(self, host: Host, port: int | None) -> bool:
        """Say whether the rule speaks about connections to *host*; without a port, on any if it allows, else on all."""
        some = port is not None or self.decision is Decision.ALLOW
        patterns = map(parse_pattern, self.hosts)
        return any(pattern.matches(host, port) and (some or pattern.port is None) for pattern in patterns)

    def _choices(self, *, allows: bool) -> tuple[frozenset[str], ...]:
        if allows:
            return self.pattern
        return (frozenset(map(program_name, self.pattern[0])), *self.pattern[1:])

    def _holds_here(self, cwd: str | None, found: str | None, *, allows: bool) -> bool:
        # What is not known speaks for the strict side.
        if self.program and (allows if found is None else canonical(found) != self.program):
            return False
        return not (self.cwd and (allows if cwd is None else not contains(self.cwd, canonical(cwd))))

    @property
    def prefix(self) -> str:
        """The words that it is about, for people."""
        if self.hosts:
            return ", ".join(self.hosts)
        return " ".join("|".join(map(shlex.quote, sorted(choice))) for choice in self.pattern)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules that hold for a session."""

    rules: tuple[Rule, ...] = ()

    def live(self, at: datetime) -> Rules:
        """Leave out the rules that have expired at a point in time."""
        return Rules(tuple(rule for rule in self.rules if rule.expires is None or at < rule.expires))

    def restrict(self) -> bool:
        """Say whether any rule asks or forbids."""
        return any(rule.decision is not Decision.ALLOW for rule in self.rules)

    def about(self, words: Sequence[str], cwd: str | None, *, found: str | None = None) -> tuple[Rule, ...]:
        """Give the rules that speak about a command, the strictest first."""
        return strictest_first(rule for rule in self.rules if words and rule.matches(words, cwd, found=found))

    def about_host(self, target: str) -> tuple[Rule, ...]:
        """Give the rules that speak about connections to ``HOST[:PORT]``, the strictest first.

        Raises ValueError for what is no host.
        """
        name, port = split_port(target)
        host = parse_host(name)
        return strictest_first(rule for rule in self.rules if rule.matches_host(host, port))

    def reaching(self, policy: SandboxPolicy) -> SandboxPolicy:
        """Give *policy* with what the rules say about hosts.

        What the mode closes altogether no rule opens.
        """
        allowed = tuple(host for rule in self.rules if rule.decision is Decision.ALLOW for host in rule.hosts)
        closed = tuple(host for rule in self.rules if rule.decision is not Decision.ALLOW for host in rule.hosts)
        matters = {Network.OFF: allowed, Network.ON: closed, Network.FILTERED: (*allowed, *closed)}[policy.network]
        if policy.mode is not SandboxMode.WORKSPACE_WRITE or not matters:
            return policy
        base = ("*",) if policy.network is Network.ON else policy.allowed_domains
        return replace(
            policy,
            network=Network.FILTERED,
            allowed_domains=tuple(dict.fromkeys((*base, *allowed))),
            denied_domains=tuple(dict.fromkeys((*policy.denied_domains, *closed))),
        )

    def closing(self, target: str) -> str | None:
        """Say which rule closes ``HOST[:PORT]``, and why, in words; None where no rule does."""
        try:
            matched = self.about_host(target)
        except ValueError:
            return None
        if not matched or matched[0].decision is Decision.ALLOW:
            return None
        return ": ".join(filter(None, (matched[0].source, visible(matched[0].justification))))


def strictest_first(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Order rules, each once, so that the order of files and plugins cannot be seen."""
    return tuple(sorted(dict.fromkeys(rules), key=lambda rule: (-rule.decision, rule.source)))


def parse_rules(text: str, path: str, *, only_tighten: bool = False) -> tuple[Rule, ...]:
    """Read the rules in *text*, the content of *path*, and try their examples.

    With *only_tighten* rules that allow are left out: what comes with a workspace cannot loosen.
    Raises ConfigError that begins with the file and the line.
    """
    import tomli

    try:
        values = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{visible(path)}: {visible(str(error))}"
        raise ConfigError(msg) from error
    tables = values.pop("rule", [])
    if values or not isinstance(tables, list):
        msg = f"{visible(path)}: a file of rules holds [[rule]] tables and nothing else"
        raise ConfigError(msg)
    rules = [_rule(table, f"{path}:{line}") for table, line in zip(tables, rule_lines(text, len(tables)), strict=True)]
    return tuple(rule for rule in rules if not (only_tighten and rule.decision is Decision.ALLOW))


def rule_lines(text: str, count: int) -> list[int]:
    """Give the line of each of *count* rules; 1 where they are not written as ``[[rule]]``."""
    lines = [
        number for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*\"?rule\"?\s*\]\]", line)
    ]
    return lines if len(lines) == count else [1] * count


def _rule(table: Any, source: str) -> Rule:  # noqa: ANN401 - a TOML value is of any type, and checked here
    try:
        rule, examples = _checked(table, source)
        for expected, lines in examples.items():
            for line in lines:
                _try_example(rule, line, expected=expected)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{visible(source)}: {visible(str(error))}") from error
    return rule


def _try_example(rule: Rule, line: object, *, expected: bool) -> None:
    if not isinstance(line, str):
        raise TypeError("match and not_match are lists of commands")
    words = shlex.split(line)
    if (bool(words) and rule.matches(words, rule.cwd or None, found=rule.program or None)) is not expected:
        raise ValueError(f"the example {line!r} is {'not ' if expected else ''}matched")


def _checked(table: Any, source: str) -> tuple[Rule, dict[bool, Sequence[Any]]]:  # noqa: ANN401 - as above
    if not isinstance(table, dict):
        raise TypeError("a rule is a table")
    rest: dict[str, Any] = dict(table)
    decision = _DECISIONS.get(str(rest.pop("decision", "")).casefold().replace("forbidden", "forbid"))
    if decision is None:
        raise ValueError(f"decision is one of {', '.join(_DECISIONS)}")
    hosts = _strings(rest, "hosts")
    pattern = _pattern(rest.pop("pattern", []))
    if bool(hosts) == bool(pattern):
        raise ValueError("a rule has either a pattern, of at least one word, or hosts")
    examples: dict[bool, Sequence[Any]] = {True: rest.pop("match", []), False: rest.pop("not_match", [])}
    if not all(isinstance(lines, list) for lines in examples.values()):
        raise TypeError("match and not_match are lists of commands")
    rule = Rule(
        decision=decision,
        source=source,
        pattern=pattern,
        hosts=tuple(str(parse_pattern(host)) for host in hosts),
        program=_path(rest, "program"),
        cwd=_path(rest, "cwd"),
        expires=_expiry(rest.pop("expires", None)),
        exact=_switch(rest, "exact"),
        unsandboxed=_switch(rest, "unsandboxed"),
        justification=_string(rest, "justification"),
    )
    if rest:
        raise ValueError(f"there is no key {min(rest)!r} in a rule")
    if rule.hosts and rule.decision is Decision.PROMPT:
        raise ValueError("a rule about hosts allows or forbids: a host that nothing allows is asked about anyhow")
    if rule.hosts and (rule.cwd or rule.program or rule.exact or rule.unsandboxed or any(examples.values())):
        raise ValueError("beside hosts only expires and justification have a meaning")
    if rule.unsandboxed and rule.decision is not Decision.ALLOW:
        raise ValueError("unsandboxed is for rules that allow")
    return rule, examples


def _pattern(value: Any) -> tuple[frozenset[str], ...]:  # noqa: ANN401 - as above
    if not isinstance(value, list):
        raise TypeError("pattern is a list of words, or of lists of words to choose from")
    choices = [[choice] if isinstance(choice, str) else choice for choice in value]
    if not all(
        isinstance(choice, list) and choice and all(isinstance(word, str) for word in choice) for choice in choices
    ):
        raise TypeError("pattern is a list of words, or of lists of words to choose from")
    return tuple(frozenset(choice) for choice in choices)


def _strings(rest: dict[str, Any], key: str) -> tuple[str, ...]:
    value = rest.pop(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise TypeError(f"{key} is a list of texts")
    return tuple(value)


def _string(rest: dict[str, Any], key: str) -> str:
    value = rest.pop(key, "")
    if not isinstance(value, str):
        raise TypeError(f"{key} is a text")
    return value


def _switch(rest: dict[str, Any], key: str) -> bool:
    value = rest.pop(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"{key} is true or false")
    return value


def _path(rest: dict[str, Any], key: str) -> str:
    value = _string(rest, key)
    if not value:
        return ""
    path = os.path.expanduser(value)
    if not os.path.isabs(path):
        raise ValueError(f"{key} is an absolute path")
    return canonical(path)


def _expiry(value: Any) -> datetime | None:  # noqa: ANN401 - as above
    if value is None:
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.astimezone()
    if isinstance(value, date):
        return datetime.combine(value, time.min).astimezone()
    raise TypeError("expires is a date, or a date with a time")


def now() -> datetime:
    """Give the time that rules expire by."""
    return datetime.now(UTC)
