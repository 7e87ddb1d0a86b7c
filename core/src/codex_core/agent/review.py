"""The verdict on an action: the user's rules, the tables, the approval policies, and what was allowed before.

Nothing here asks a person.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from codex_core.approval.assess import assess, program_of
from codex_core.approval.combine import combine
from codex_core.approval.memory import REMEMBERED, granted
from codex_core.approval.rules import Rule, Rules, parse_rules
from codex_core.config.defaults import repository_of, trust_entry
from codex_core.config.files import decode, read_file
from codex_core.errors import ConfigError
from codex_core.sandbox.domains import ALLOWED_KEY
from codex_core.sandbox.environment import child_environment
from codex_core.types import NETWORK_TOOL, Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from codex_core.approval.assess import Assessment
    from codex_core.approval.memory import Grant
    from codex_core.config import Loaded
    from codex_core.config.requirements import Constraints
    from codex_core.host import Host
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Action

RULES_FOLDER = "rules"
_MANAGED_FOLDER = ("etc", "codex", RULES_FOLDER)


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Gives verdicts under one policy."""

    host: Host
    policy: SandboxPolicy
    rules: Rules
    environ: Mapping[str, str]
    """What commands get."""
    constraints: Constraints
    switched_off: frozenset[str] = frozenset()
    """The kinds of question that nobody may be asked, see :class:`codex_core.config.model.AskAbout`."""

    def assess(self, action: Action) -> Assessment:
        """Say what is known about *action*."""
        return assess(action, self.policy, self.rules, environ=self.environ)

    def review(self, action: Action) -> Verdict:
        """Give the verdict of rules, approval policies and requirements; the strictest wins.

        A rule that asks or forbids counts whatever the policies make of it; no rule is about a patch.  What a
        person is asked about is run as it was asked, and so is what a rule allows.
        """
        if not action.writes:
            action = replace(action, safety=self.assess(action).safety)
        verdicts = [self.host.review(action, self.policy)]
        safety = action.safety
        if safety is not None and safety.ruled in {Decision.PROMPT, Decision.FORBID}:
            # Where the policies would rather refuse than ask, they are the stricter ones.
            leaves = verdicts[0].unsandboxed
            verdicts.append(Verdict(safety.ruled, safety.reason, safety.source, unsandboxed=leaves))
        if action.tool == NETWORK_TOOL and verdicts[-1].decision is not Decision.FORBID:
            violation = self.constraints.check(ALLOWED_KEY, action.argv)
            if violation is not None:
                verdicts.append(Verdict(Decision.FORBID, str(violation), violation.place))
        verdict = self._unless_switched_off(combine(verdicts) if len(verdicts) > 1 else verdicts[0], action)
        if safety is None or safety.neutralised is None or verdict.decision is not Decision.ALLOW:
            return verdict
        return replace(verdict, neutralised=safety.neutralised)

    def _unless_switched_off(self, verdict: Verdict, action: Action) -> Verdict:
        off = sorted(self.switched_off & _kinds(action))
        if verdict.decision is not Decision.PROMPT or not off:
            return verdict
        reason = f"it would have to be asked about, which ask_about.{off[0]} = false rules out: {verdict.reason}"
        return Verdict(Decision.FORBID, reason, "ask_about")

    def grant(self, action: Action, verdict: Verdict) -> Grant:
        """Say what a yes for longer than once to what *verdict* asks would allow."""
        program = None if action.writes else program_of(action, self.policy, environ=self.environ)
        return granted(action, verdict, program=program)

    def lasting(self, action: Action, verdict: Verdict, grant: Grant) -> dict[str, Any] | None:
        """Give the rule after which *action* would not be asked about again; None where no rule can do that."""
        table = grant.rule()
        if table is None:
            return None
        import tomlkit

        added = parse_rules(tomlkit.dumps({"rule": [table]}), REMEMBERED)
        then = replace(self, rules=Rules((*self.rules.rules, *added))).review(replace(action, after_denial=None))
        return table if (then.decision, then.unsandboxed) == (Decision.ALLOW, verdict.unsandboxed) else None


def _kinds(action: Action) -> set[str]:
    """Give what a question about *action* would be about."""
    kinds = set()
    if action.writes:
        kinds.add("patches")
    elif action.tool == NETWORK_TOOL:
        kinds.add("network")
    elif action.escalated or action.after_denial is not None:
        kinds.add("escalation")
    if action.safety is not None and action.safety.ruled is Decision.PROMPT:
        kinds.add("rules")
    return kinds or {"commands"}


def reviewer(loaded: Loaded, policy: SandboxPolicy, host: Host) -> Reviewer:
    """Make a reviewer for a configuration.  Raises ConfigError for rules that cannot be read or are wrong."""
    environ = child_environment(loaded.context.environ, loaded.config.environment_settings(), policy, "")
    rules = Rules(tuple(load_rules(loaded)))
    off = frozenset(kind for kind, asked in loaded.config.ask_about if asked is False)
    return Reviewer(host, policy, rules, environ, loaded.constraints, off)


def load_rules(loaded: Loaded) -> Iterator[Rule]:
    """Read all rules: the administrator's, the user's, and those of a trusted workspace, which only tighten.

    Raises ConfigError, also for one that opens hosts which a requirement keeps closed.
    """
    for rule in _read_rules(loaded):
        if rule.hosts and rule.decision is Decision.ALLOW:
            violation = loaded.constraints.check(ALLOWED_KEY, rule.hosts)
            if violation is not None:
                raise ConfigError(f"{rule.source}: {violation}")
        yield rule


def _read_rules(loaded: Loaded) -> Iterator[Rule]:
    context = loaded.context
    for given in loaded.constraints.rules:
        yield Rule(
            decision=Decision[given.decision.upper()],
            pattern=tuple(map(frozenset, given.prefix)),
            justification=given.reason,
            source=given.place,
        )
    yield from _folder(os.path.join(context.system_root, *_MANAGED_FOLDER), guard=context.system_root)
    yield from _folder(os.path.join(context.codex_home, RULES_FOLDER))
    repository = repository_of(context.cwd)
    entry = trust_entry(loaded.values.get("projects"), context.cwd, repository)
    if entry is not None and loaded.values["projects"][entry]["trust_level"] == "trusted":
        yield from _folder(os.path.join(repository or context.cwd, ".codex", RULES_FOLDER), only_tighten=True)


def _folder(folder: str, *, guard: str | None = None, only_tighten: bool = False) -> Iterator[Rule]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be listed: {error.strerror}") from error
    for name in names:
        if name.endswith(".toml"):
            path = os.path.join(folder, name)
            content = read_file(path, guard=guard)
            if content is not None:
                yield from parse_rules(decode(content, path), path, only_tighten=only_tighten)
