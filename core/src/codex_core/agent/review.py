"""The verdict on an action: the user's rules, the tables, the approval policies, and what was allowed before.

Nothing here asks a person.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from codex_core.approval.assess import assess
from codex_core.approval.combine import combine
from codex_core.approval.rules import Rule, Rules, parse_rules
from codex_core.config.defaults import repository_of, trust_entry
from codex_core.config.files import decode, read_file
from codex_core.errors import ConfigError
from codex_core.sandbox.environment import child_environment
from codex_core.types import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from codex_core.approval.assess import Assessment
    from codex_core.config import Loaded
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

    def assess(self, action: Action) -> Assessment:
        """Say what is known about *action*."""
        return assess(action, self.policy, self.rules, environ=self.environ)

    def review(self, action: Action) -> Verdict:
        """Give the verdict of rules and approval policies; the strictest wins.  Rules are about commands only.

        A rule that asks or forbids counts whatever the policies make of it.  What a person is asked
        about is run as it was asked, and so is what a rule allows.
        """
        if action.writes:
            return self.host.review(action, self.policy)
        safety = self.assess(action).safety
        verdicts = [self.host.review(replace(action, safety=safety), self.policy)]
        if safety.ruled in {Decision.PROMPT, Decision.FORBID}:
            # Where the policies would rather refuse than ask, they are the stricter ones.
            leaves = verdicts[0].unsandboxed
            verdicts.append(Verdict(safety.ruled, safety.reason, safety.source, unsandboxed=leaves))
        verdict = combine(verdicts)
        return replace(verdict, neutralised=safety.neutralised if verdict.decision is Decision.ALLOW else None)


def reviewer(loaded: Loaded, policy: SandboxPolicy, host: Host) -> Reviewer:
    """Make a reviewer for a configuration.  Raises ConfigError for rules that cannot be read or are wrong."""
    environ = child_environment(loaded.context.environ, loaded.config.environment_settings(), policy, "")
    return Reviewer(host, policy, Rules(tuple(load_rules(loaded))), environ)


def load_rules(loaded: Loaded) -> Iterator[Rule]:
    """Read all rules: the administrator's, the user's, and those of a trusted workspace, which only tighten.

    Raises ConfigError.
    """
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
