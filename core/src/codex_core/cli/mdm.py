"""``codex mdm``: turn a policy file into the value that device management wants, and back."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from codex_core.cli import options
from codex_core.config import checks, mdm
from codex_core.config.files import decode, parse, read_file
from codex_core.config.keys import visible
from codex_core.config.layers import Layer
from codex_core.config.model import Config
from codex_core.config.positions import Positions
from codex_core.config.requirements import requirement
from codex_core.config.sources import MDM
from codex_core.config.spelling import canonical
from codex_core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEXT = """\
Turn policy files into values for device management (macOS managed preferences), and back.

  encode FILE    print FILE as base64 on one line, for the key config_toml_base64, or, where the
                 file is called requirements.toml or --requirements is given, for
                 requirements_toml_base64; nothing is printed if codex would refuse it
  decode FILE    print the TOML of a value; with - for FILE it is read from standard input"""
_OWN = (("--requirements", "take the file for constraints"),)


def main(argv: Sequence[str]) -> int:
    """Run ``codex mdm``."""
    words: list[str] = []
    flags: set[str] = set()
    rest = tuple(argv)
    while rest:
        parsed = options.parse(rest, flags=("--requirements", "--help", "-h"))
        flags |= parsed.others.keys()
        words += parsed.rest if parsed.separated else parsed.rest[:1]
        rest = () if parsed.separated else parsed.rest[1:]
    if {"--help", "-h"} & flags:
        sys.stdout.write(options.usage("codex mdm encode|decode FILE", _TEXT, _OWN))
        return 0
    match words:
        case ["encode", file]:
            sys.stdout.write(_encoded(file, constraints="--requirements" in flags or _named_requirements(file)) + "\n")
        case ["decode", file]:
            sys.stdout.write(mdm.decode_payload(_read(file), file))
        case _:
            raise UsageError("say `codex mdm encode FILE` or `codex mdm decode FILE`")
    return 0


def _named_requirements(file: str) -> bool:
    return os.path.basename(file) == "requirements.toml"


def _encoded(file: str, *, constraints: bool) -> str:
    """Encode a file that codex would accept; raises ConfigError for one that it would not."""
    text = _read(file)
    layer = Layer("mdm", MDM, parse(text, visible(file)), os.path.abspath(file), Positions(text))
    if constraints:
        requirement(layer)
        return mdm.encode_payload(text)
    checked, unknown = checks.without_unknown(canonical(layer, folder=None, environ={}))
    if unknown:
        raise ConfigError(checks.unknown_line(layer, unknown[0]))
    checks.validate(checked, Config)
    return mdm.encode_payload(text)


def _read(file: str) -> str:
    if file == "-":
        return decode(sys.stdin.buffer.read(), file)
    content = read_file(os.path.abspath(file))
    if content is None:
        raise ConfigError(f"{visible(file)}: there is no such file")
    return decode(content, file)
