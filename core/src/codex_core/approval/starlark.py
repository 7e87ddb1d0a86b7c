"""Read the reference client's ``.rules`` files, which are Starlark, as far as they only state rules.

Starlark's calls and literals are written as Python's are, so Python's parser reads them; nothing is run.
A file that computes its rules is refused.
"""

from __future__ import annotations

import ast
import shlex
from typing import Any

from codex_core.approval.visible import visible
from codex_core.errors import ConfigError

MAX_BYTES = 1 << 20
_DECISIONS = {"allow": "allow", "prompt": "prompt", "forbidden": "forbid"}
_KEYS = frozenset({"pattern", "decision", "justification", "match", "not_match"})


def convert(text: str, path: str) -> list[dict[str, Any]]:
    """Give the rules in *text* as tables of a TOML file of rules.

    ``allow`` does not become ``unsandboxed``: there it meant both, here it is to be said.
    Raises ConfigError that begins with the file and the line.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{visible(path)}: larger than {MAX_BYTES >> 20} MiB, which is no file of rules")
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        raise ConfigError(f"{visible(path)}:{error.lineno or 1}: {visible(error.msg)}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ConfigError(f"{visible(path)}: {visible(str(error)) or 'nested too deeply'}") from None
    return [_table(statement, path) for statement in statements if not _is_text(statement)]


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _table(statement: ast.stmt, path: str) -> dict[str, Any]:
    match statement:
        case ast.Expr(ast.Call(ast.Name("prefix_rule"), [], keywords)):
            pass
        case _:
            raise ConfigError(
                f"{visible(path)}:{statement.lineno}: only calls of prefix_rule(key = value, ...) are read"
            )
    values: dict[str, Any] = {}
    for keyword in keywords:
        if keyword.arg not in _KEYS:
            raise ConfigError(f"{visible(path)}:{statement.lineno}: prefix_rule has no {visible(str(keyword.arg))!r}")
        try:
            values[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError):
            raise ConfigError(f"{visible(path)}:{statement.lineno}: {keyword.arg} is computed") from None
    decision = _DECISIONS.get(str(values.get("decision", "allow")))
    if decision is None:
        raise ConfigError(f"{visible(path)}:{statement.lineno}: decision is one of {', '.join(_DECISIONS)}")
    table: dict[str, Any] = {"pattern": values.get("pattern", []), "decision": decision}
    if values.get("justification"):
        table["justification"] = values["justification"]
    for key in ("match", "not_match"):
        if values.get(key):
            table[key] = [line if isinstance(line, str) else shlex.join(map(str, line)) for line in values[key]]
    return table
