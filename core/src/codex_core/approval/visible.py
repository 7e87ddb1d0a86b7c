"""Show a text so that what is seen is what is there."""

from __future__ import annotations

import re
from unicodedata import category, name

_BLANKS_SHOWN = 8
_UNDECODED = range(0xDC80, 0xDD00)
"""How :func:`os.fsdecode` keeps bytes that are not UTF-8."""


def visible(text: str) -> str:
    r"""Give *text* so that what is seen is what is there.

    Control characters, marks that reorder or hide text, unusual blanks and bytes that are not text
    become escapes such as ``\x1b`` and ``\u202e``; long rows of blanks, which push what follows out
    of sight, are counted.
    """
    escaped = "".join(char if _is_plain(char) else _escape(char) for char in text)
    return re.sub(
        f" {{{_BLANKS_SHOWN + 1},}}",
        lambda blanks: f"<{len(blanks.group())} blanks>",
        escaped,
    )


def _is_plain(char: str) -> bool:
    return char == " " or category(char)[0] not in "CZ"


def _escape(char: str) -> str:
    if ord(char) in _UNDECODED:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return f"\\x{ord(char):02x}" if char.isascii() else char.encode("ascii", "backslashreplace").decode()


def look_alikes(text: str) -> list[str]:
    """Name the letters in *text* that stand beside ASCII letters and come from another script, such as a Cyrillic a."""
    found = []
    for word in re.findall(r"\w+", text):
        letters = [char for char in word if category(char).startswith("L")]
        if any(char.isascii() for char in letters):
            strangers = [char for char in letters if not name(char, "LATIN").startswith("LATIN")]
            found += [f"{visible(word)!r} has U+{ord(char):04X} {name(char)}" for char in dict.fromkeys(strangers)]
    return found
