"""Writing values for people: as TOML, with secrets masked."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from codex_core.config.keys import dotted, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

MASK = "***"
_SECRET_TABLES = frozenset({"headers", "http_headers", "query_params"})
_SECRET_NAME = re.compile(r"(?i)key|secret|token|passw|credential")
_NAMES_A_SECRET = frozenset({"env_key", "env_key_instructions", "client-private-key"})
"""Keys that only say where a secret is."""
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_PASSWORD_IN_ADDRESS = re.compile(r"(//[^/@\s]*:)[^/@\s]+@")


def toml(value: Any) -> str:  # noqa: ANN401 - any TOML value
    """Write a value on one line of TOML."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{dotted([key])} = {toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return repr(value)  # numbers; `inf` and `nan` are the same in TOML


def masked(path: Sequence[str], value: Any) -> Any:  # noqa: ANN401 - any configured value
    """Give the value as it may be shown: what may be a secret is not, nor are passwords in addresses."""
    if isinstance(value, dict):
        return {key: masked((*path, key), one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(path, one) for one in value]
    if not isinstance(value, str):
        return value
    in_secret_table = len(path) > 1 and path[-2] in _SECRET_TABLES
    named_so = path[-1] not in _NAMES_A_SECRET and _SECRET_NAME.search(path[-1]) is not None
    if (in_secret_table or named_so) and _VARIABLE.sub("", value):
        return MASK
    return _PASSWORD_IN_ADDRESS.sub(rf"\1{MASK}@", value)
