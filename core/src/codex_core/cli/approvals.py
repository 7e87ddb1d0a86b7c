"""``codex approvals``: what was allowed always, and taking it back."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from codex_core.agent.review import RULES_FOLDER
from codex_core.approval.memory import REMEMBERED, remove_rule
from codex_core.cli import options, rules
from codex_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = """\
examples:
  codex approvals list
  codex approvals revoke 2
  codex approvals revoke --all

What is allowed for a session is forgotten when the session ends.
"""


def main(argv: Sequence[str]) -> int:
    """Run one of the subcommands."""
    parser = argparse.ArgumentParser(
        prog="codex approvals",
        description="List and revoke what you allowed always.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_config_options(parser)
    subparsers = parser.add_subparsers(dest="do", required=True)
    listing = subparsers.add_parser("list", help="list what was allowed always, numbered")
    listing.add_argument("--json", action="store_true", help="print JSON")
    revoking = subparsers.add_parser("revoke", help="take one back, or all")
    which = revoking.add_mutually_exclusive_group(required=True)
    which.add_argument("number", nargs="?", type=int, help="as `codex approvals list` shows it")
    which.add_argument("--all", action="store_true", help="take everything back")
    for subparser in (listing, revoking):
        options.add_config_options(subparser)
    args = parser.parse_args(argv)
    loaded = options.load(args)
    path = os.path.join(loaded.codex_home, RULES_FOLDER, REMEMBERED)
    allowed = [rule for rule in rules.list_rules(loaded) if rule["source"].startswith(f"{path}:")]
    if args.do == "list":
        if args.json:
            sys.stdout.write(json.dumps(allowed) + "\n")
        else:
            lines = rules.render_list(allowed).splitlines() if allowed else ["nothing is allowed always"]
            numbered = [f"{number:>3}  {line}" for number, line in enumerate(lines, 1)] if allowed else lines
            sys.stdout.write("\n".join([*numbered, ""]))
        return 0
    for rule in reversed(allowed if args.all else [_numbered(allowed, args.number)]):
        remove_rule(path, int(rule["source"].rpartition(":")[2]))
        sys.stdout.write(f"revoked: {rule['about']}\n")
    return 0


def _numbered(allowed: list[dict[str, str]], number: int) -> dict[str, str]:
    if not 1 <= number <= len(allowed):
        raise UsageError(f"there is no approval {number}; `codex approvals list` shows what there is")
    return allowed[number - 1]
