"""``codex rules``: what the user's rules and the approval policies make of a command; and editing the rules."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from codex_core.agent.review import RULES_FOLDER, Reviewer, load_rules, reviewer
from codex_core.approval.command import UNKNOWN
from codex_core.approval.memory import add_rule, remove_rule
from codex_core.approval.rules import parse_rules
from codex_core.approval.visible import visible
from codex_core.cli import options
from codex_core.config.defaults import os_backend
from codex_core.config.files import decode, read_file
from codex_core.discovery import code_locations
from codex_core.errors import ConfigError, UsageError
from codex_core.hookspecs import ApprovalPolicy
from codex_core.host import select
from codex_core.sandbox.policy import build_policy
from codex_core.types import NETWORK_TOOL, SHELL_TOOL, Action, SafetyClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.config import Loaded

USER_FILE = "user.toml"
"""The file, in the folder of the user's rules, that ``codex rules add`` writes to."""
CLASSES = {SafetyClass.SAFE: "safe", SafetyClass.ASK: "ask", SafetyClass.DANGEROUS: "forbid"}

_EXAMPLES = """\
examples:
  codex rules check -- git push --force
  codex rules check -a untrusted --json -- bash -lc 'ls | head'
  codex rules add allow --justification 'our tests' -- make test
  codex rules add forbid -- terraform apply
  codex rules add allow --host packages.example.org
  codex rules list
  codex rules remove ~/.codex/rules/user.toml:1
  codex rules convert default.rules > ~/.codex/rules/converted.toml
"""


def main(argv: Sequence[str]) -> int:
    """Run one of the subcommands; 0 also where a command is forbidden, which the answer says."""
    words, command = _split(argv)
    args = _parser().parse_args(words)
    if command and args.do not in {"check", "add"}:
        raise UsageError(f"codex rules {args.do} takes no command")
    if args.do in {"check", "add"} and bool(command) == bool(args.host):
        raise UsageError(f"codex rules {args.do} needs a command behind `--`, or --host")
    loaded = options.load(args)
    if args.do == "check":
        answer = check(loaded, command or (args.host,), tool=NETWORK_TOOL if args.host else SHELL_TOOL)
        sys.stdout.write(json.dumps(answer) + "\n" if args.json else render_check(answer))
    elif args.do == "list":
        listed = list_rules(loaded)
        sys.stdout.write(json.dumps(listed) + "\n" if args.json else render_list(listed))
    elif args.do == "add":
        sys.stdout.write(f"added {add(loaded, command, args)}\n")
    elif args.do == "convert":
        sys.stdout.write(convert_file(args.file))
    else:
        path, line = _place(args.rule)
        remove_rule(path, line)
        sys.stdout.write(f"removed {args.rule}\n")
    return 0


def _split(argv: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """Part the words at ``--``: argparse would take it for its own."""
    if "--" not in argv:
        return argv, ()
    at = list(argv).index("--")
    return argv[:at], tuple(argv[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codex rules",
        description="Show, check and edit the rules for commands.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_config_options(parser)
    subparsers = parser.add_subparsers(dest="do", required=True)
    checking = subparsers.add_parser("check", help="say what would happen to a command, without running it")
    listing = subparsers.add_parser("list", help="list the rules that hold, with their places")
    adding = subparsers.add_parser("add", help="add a rule about commands that begin with these words")
    removing = subparsers.add_parser("remove", help="remove a rule by its place")
    converting = subparsers.add_parser("convert", help="print a .rules file of the reference client as TOML")
    for subparser in (checking, listing, adding, removing, converting):
        options.add_config_options(subparser)
    for subparser in (checking, listing):
        subparser.add_argument("--json", action="store_true", help="print JSON")
    for subparser in (checking, adding):
        subparser.add_argument("--host", metavar="HOST", help="connections to HOST[:PORT] instead of a command")
    adding.add_argument("decision", choices=["allow", "prompt", "forbid"])
    adding.add_argument("--justification", default="", help="why; the question and the model see it")
    adding.add_argument("--exact", action="store_true", help="these words and no others")
    adding.add_argument("--in", dest="folder", metavar="DIR", help="only in this folder and below")
    adding.add_argument("--expires", metavar="DATE", help="until this date, as 2030-12-31")
    adding.add_argument("--unsandboxed", action="store_true", help="an allowed command leaves the sandbox")
    converting.add_argument("file", metavar="FILE", help="a file of prefix_rule(...) calls")
    removing.add_argument("rule", metavar="FILE:LINE", help="as `codex rules list` shows it")
    return parser


def check(loaded: Loaded, words: tuple[str, ...], *, tool: str = SHELL_TOOL) -> dict[str, Any]:
    """Give the verdict that a session would give on a command, or a host, as JSON values; nothing is run."""
    review = _reviewer(loaded)
    action = Action(words, review.policy.cwd, tool)
    assessment = review.assess(action)
    verdict = review.review(action)
    reasons = dict.fromkeys([(verdict.reason, verdict.source), *assessment.reasons])
    return {
        "decision": verdict.decision.name.casefold(),
        "class": CLASSES[assessment.safety.level],
        "unsandboxed": verdict.unsandboxed,
        "neutralised": None if verdict.neutralised is None else asdict(verdict.neutralised),
        "programs": [[word.replace(UNKNOWN, "…") for word in words] for words in assessment.programs],
        "reasons": [{"text": text, "source": source} for text, source in reasons],
    }


def _reviewer(loaded: Loaded) -> Reviewer:
    policy = build_policy(
        loaded.config.sandbox_settings(),
        cwd=loaded.context.cwd,
        environ=loaded.context.environ,
        codex_home=loaded.codex_home,
        code_locations=code_locations(),
    )
    choices = [one for one in select(loaded.config, os_backend()) if one.namespace == ApprovalPolicy.namespace]
    return reviewer(loaded, policy, options.load_host(loaded, choices))


def render_check(answer: dict[str, Any]) -> str:
    """Give the answer of :func:`check` as lines."""
    lines = [f"{answer['decision']}  ({answer['class']})"]
    lines += [f"  runs {visible(shlex.join(words))}" for words in answer["programs"]]
    if answer["neutralised"]:
        lines.append(f"  as {visible(shlex.join(answer['neutralised']['argv']))}, see --json")
    lines += [f"  {reason['text']}  [{reason['source']}]" for reason in answer["reasons"]]
    return "\n".join(lines) + "\n"


def list_rules(loaded: Loaded) -> list[dict[str, Any]]:
    """Give all rules that hold here, as JSON values."""
    return [
        {
            "source": rule.source,
            "decision": rule.decision.name.casefold(),
            "about": visible(rule.prefix),
            "exact": rule.exact,
            "cwd": rule.cwd,
            "program": rule.program,
            "expires": rule.expires.isoformat() if rule.expires else None,
            "unsandboxed": rule.unsandboxed,
            "justification": visible(rule.justification),
        }
        for rule in load_rules(loaded)
    ]


def render_list(listed: list[dict[str, Any]]) -> str:
    """Give the answer of :func:`list_rules` as lines."""
    if not listed:
        return "no rules\n"
    lines = []
    for rule in listed:
        more = [
            "exactly" if rule["exact"] else "",
            f"in {rule['cwd']}" if rule["cwd"] else "",
            f"with {rule['program']}" if rule["program"] else "",
            f"until {rule['expires']}" if rule["expires"] else "",
            "outside the sandbox" if rule["unsandboxed"] else "",
            f"({rule['justification']})" if rule["justification"] else "",
        ]
        lines.append(
            f"{rule['source']}  {rule['decision']:<6}  {rule['about']}  {' '.join(filter(None, more))}".rstrip()
        )
    return "\n".join(lines) + "\n"


def add(loaded: Loaded, command: tuple[str, ...], args: argparse.Namespace) -> str:
    """Write a rule to the user's file and give its place; raises ConfigError where it would not load."""
    import tomli

    about: dict[str, Any] = {"pattern": list(command)} if command else {"hosts": [args.host]}
    table = {**about, "decision": args.decision}
    if args.exact:
        table["exact"] = True
    if args.folder:
        table["cwd"] = os.path.realpath(os.path.join(loaded.context.cwd, args.folder))
    if args.expires:
        try:
            table["expires"] = tomli.loads(f"d = {args.expires}")["d"]
        except ValueError as error:
            raise UsageError("--expires: not a date, such as 2030-12-31") from error
    if args.unsandboxed:
        table["unsandboxed"] = True
    if args.justification:
        table["justification"] = args.justification
    import tomlkit

    parse_rules(tomlkit.dumps({"rule": [table]}), "codex rules add")
    path = os.path.join(loaded.codex_home, RULES_FOLDER, USER_FILE)
    return f"{path}:{add_rule(path, table)}"


def convert_file(path: str) -> str:
    """Give the rules of a ``.rules`` file as TOML that loads; raises ConfigError."""
    import tomlkit

    from codex_core.approval.starlark import convert

    content = read_file(path)
    if content is None:
        raise ConfigError(f"{path}: there is no such file")
    tables = convert(decode(content, path), path)
    converted = tomlkit.dumps({"rule": tables}) if tables else ""
    parse_rules(converted, path)
    return f"# What allows runs in the sandbox; unsandboxed = true would let it leave.\n{converted}"


def _place(text: str) -> tuple[str, int]:
    path, _, line = text.rpartition(":")
    if not path or not re.fullmatch("[0-9]{1,9}", line):
        raise UsageError("a rule is named by its place, FILE:LINE, as `codex rules list` shows it")
    return os.path.expanduser(path), int(line)
