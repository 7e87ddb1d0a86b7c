"""What is known about an action: what it runs, what the user's rules say, and what the tables say."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from codex_core.approval.command import NotSimpleError, Program, programs
from codex_core.approval.danger import possible_commands
from codex_core.approval.reading import NotSafeError
from codex_core.approval.rules import now, strictest_first
from codex_core.approval.safe import Surroundings, found_program, is_understood_shell, judge
from codex_core.approval.visible import visible
from codex_core.sandbox.policy import canonical, contains
from codex_core.types import NETWORK_TOOL, Decision, Safety, SafetyClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codex_core.approval.rules import Rule, Rules
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Action


@dataclass(frozen=True, slots=True)
class Assessment:
    """The whole of what is known; *safety* is the sum that policies get."""

    safety: Safety
    programs: tuple[tuple[str, ...], ...]
    """What it runs, each with its words; what could be made out where it is not provably simple."""
    reasons: tuple[tuple[str, str], ...]
    """Everything that led to the sum: what, and from where."""


def assess(action: Action, policy: SandboxPolicy, rules: Rules, *, environ: Mapping[str, str]) -> Assessment:
    """Look at a command under *policy* and the user's *rules*; *environ* is what it would get."""
    if action.tool == NETWORK_TOOL:
        return _assess_connection(action, rules.live(now()))
    home = environ.get("HOME") or os.path.expanduser("~")
    around = Surroundings(policy, action.cwd, environ, home, neutralises=True)
    known = judge(action.argv, around)
    simple = _simple_programs(action.argv)
    shown = tuple(program.words for program in simple)
    rules = rules.live(now())
    if shown and not rules.rules:
        return Assessment(known, shown, ((known.reason, known.source),))
    possible, complete = possible_commands(action.argv)
    shown = shown or tuple(possible[1:]) or (action.argv,)
    strict = _strict_rules((*shown, *possible), action, rules, around)
    if not complete and rules.restrict():
        reason = "it is nested too deeply to be checked against the rules"
        safety = Safety(known.level, reason, ruled=Decision.FORBID)
    elif strict:
        safety = Safety(known.level, _say(strict[0]), strict[0].source, strict[0].decision)
    else:
        safety = _allowed(action, simple, rules, around) or known
    reasons = [(_say(rule), rule.source) for rule in strict]
    reasons += [(safety.reason, safety.source), (known.reason, known.source)]
    return Assessment(safety, shown, tuple(dict.fromkeys(reasons)))


def program_of(action: Action, policy: SandboxPolicy, *, environ: Mapping[str, str]) -> str | None:
    """Give the file that the first word of a command leads to, None where commands could put another in its place."""
    return _found(action.argv, Surroundings(policy, action.cwd, environ, ""))


def _assess_connection(action: Action, rules: Rules) -> Assessment:
    target = action.argv[0] if action.argv else ""
    try:
        matched = rules.about_host(target)
    except ValueError as error:
        return Assessment(Safety(SafetyClass.ASK, visible(str(error)), ruled=Decision.FORBID), (action.argv,), ())
    if matched:
        safety = Safety(SafetyClass.ASK, _say(matched[0]), matched[0].source, matched[0].decision)
    else:
        safety = Safety(SafetyClass.ASK, f"no rule speaks about {visible(target)}")
    return Assessment(safety, (action.argv,), tuple((_say(rule), rule.source) for rule in matched))


def _strict_rules(
    commands: Sequence[tuple[str, ...]], action: Action, rules: Rules, around: Surroundings
) -> tuple[Rule, ...]:
    """Give the rules that ask or forbid about any of *commands*, the strictest first."""
    moves = any(words[:1] in {("cd",), ("pushd",)} for words in commands)
    return strictest_first(
        rule
        for words in dict.fromkeys(commands)
        for rule in rules.about(words, None if moves else action.cwd, found=_found(words, around))
        if rule.decision is not Decision.ALLOW
    )


def _say(rule: Rule) -> str:
    return visible(rule.justification or f"a rule says {rule.decision.name.casefold()}: {rule.prefix}")


def _simple_programs(argv: Sequence[str]) -> tuple[Program, ...]:
    """Give the programs of a plain command, or of a shell line if it is provably simple; else none."""
    match argv:
        case [shell, "-c" | "-lc", line] if is_understood_shell(shell):
            try:
                return programs(line)
            except NotSimpleError:
                return ()
    return (Program(tuple(argv)),)


def _allowed(action: Action, simple: Sequence[Program], rules: Rules, around: Surroundings) -> Safety | None:
    """Say that rules allow all of the action, if they do.

    A shell line is allowed as a whole by a rule that names all of it, or by one rule or the tables
    for each of its programs.  What is dangerous takes a rule that names every word.
    """
    in_line = len(simple) != 1 or simple[0].words != action.argv
    if in_line:
        found = _found(action.argv, around)
        naming = [rule for rule in rules.about(action.argv, action.cwd, found=found) if rule.names(action.argv)]
        if naming:
            return _by_rules(naming[:1], leaves=naming[0].unsandboxed and found is not None)
        if len(simple) > 1 and judge(action.argv, around).level is SafetyClass.DANGEROUS:
            return None
    matched: list[Rule] = []
    leaves = True
    for program in simple:
        inside = replace(around, in_shell=in_line, piped=program.piped)
        level = judge(program.words, inside).level
        found = _found(program.words, inside)
        allowing = rules.about(program.words, inside.folder, found=found)
        if level is SafetyClass.DANGEROUS:
            allowing = tuple(rule for rule in allowing if rule.names(program.words))
        if not allowing and level is not SafetyClass.SAFE:
            return None
        matched += allowing[:1]
        leaves &= bool(allowing) and allowing[0].unsandboxed and found is not None
        if program.words[0] == "cd":
            around = replace(around, folder=None)
    return _by_rules(matched, leaves=leaves) if matched else None


def _by_rules(matched: Sequence[Rule], *, leaves: bool) -> Safety:
    return Safety(
        SafetyClass.SAFE,
        "; ".join(dict.fromkeys(map(_say, matched))),
        ", ".join(dict.fromkeys(rule.source for rule in matched)),
        Decision.ALLOW,
        unsandboxed=leaves,
    )


def _found(words: Sequence[str], around: Surroundings) -> str | None:
    """Find the program's file, None if there is none or if commands can put another in its place."""
    try:
        found = found_program(words[0], around) if words else None
    except NotSafeError:
        return None
    if found is None:
        return None
    program = canonical(found)
    # A link that commands can write leads wherever the next one wants.
    named = os.path.join(canonical(os.path.dirname(found)), os.path.basename(found))
    replaceable = any(contains(root, place) for root in around.policy.writable_roots for place in (named, program))
    return None if replaceable else program
