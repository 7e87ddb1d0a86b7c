"""Headers of exporters: the only place of the configuration where variables are expanded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from codex_core.config.keys import shown
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
"""A token of RFC 9110, section 5.6.2, in lower case."""


def expanded(value: str, environ: Mapping[str, str]) -> str:
    """Put the values of variables in the place of ``${NAME}``; nothing else in *value* means anything.

    Raises ConfigError, without a place, for a variable that is not set or has no name, and for a value
    that no header can have.
    """

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if not _VARIABLE_NAME.fullmatch(name) or not match[0].endswith("}"):
            raise ConfigError(f"{shown(match[0])} is no variable; write ${{NAME}}")
        if name not in environ:
            raise ConfigError(f"the environment variable {name} is not set")
        return environ[name]

    result = _VARIABLE.sub(variable, value)
    if not result.isascii() or not result.isprintable():
        raise ConfigError("holds characters that no header can have")
    return result


def checked_header(name: str) -> str:
    """Give a header's name in lower case; raises ConfigError, without a place, where it is none."""
    lowered = name.lower()
    if not _HEADER_NAME.fullmatch(lowered):
        raise ConfigError(f"{shown(name)} is no name of a header")
    return lowered
