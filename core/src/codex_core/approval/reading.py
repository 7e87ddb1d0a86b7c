"""What is made of the words behind a program's name, and what it then reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MANY = 10_000
"""Operands, where there is no bound."""


class NotSafeError(Exception):
    """Why a word takes a command out of the safe set; never leaves this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that a program is known to have; see ``data/safe.toml`` for the fields."""

    short: str = ""
    short_value: str = ""
    long: frozenset[str] = frozenset()
    long_value: frozenset[str] = frozenset()
    long_optional: frozenset[str] = frozenset()
    short_optional: str = ""
    number: bool = False
    apart: bool = False
    """A value is never glued to its letter."""

    def split(self, words: Sequence[str], *, mixed: bool) -> tuple[frozenset[str], tuple[str, ...]]:
        """Split the words after a program's name into the options seen and the operands.

        With *mixed*, options may follow operands, as GNU programs allow; otherwise the first operand
        ends them.  Raises NotSafeError at an option that is not known.
        """
        seen: set[str] = set()
        operands: list[str] = []
        ahead = list(reversed(words))
        while ahead:
            word = ahead.pop()
            if word == "--":
                return frozenset(seen), (*operands, *reversed(ahead))
            if word.startswith("--"):
                seen.add(self._long(word, ahead))
            elif word.startswith("-") and word != "-":
                seen |= self._short(word, ahead)
            else:
                operands.append(word)
                if not mixed:
                    return frozenset(seen), (*operands, *reversed(ahead))
        return frozenset(seen), tuple(operands)

    def _long(self, word: str, ahead: list[str]) -> str:
        name, given, _ = word[2:].partition("=")
        if name in self.long_value:
            if not given:
                take_value(word, ahead)
        elif name not in self.long_optional and (given or name not in self.long):
            msg = f"the option {word} is not known to be harmless"
            raise NotSafeError(msg)
        return f"--{name}"

    def _short(self, word: str, ahead: list[str]) -> set[str]:
        if self.number and word[1:].isascii() and word[1:].isdigit():
            return set()
        seen = set()
        for at, letter in enumerate(word[1:], start=1):
            seen.add(f"-{letter}")
            if letter in self.short_value:
                if at == len(word) - 1:
                    take_value(word, ahead)
                elif self.apart:
                    msg = f"{word} is not known to be harmless"
                    raise NotSafeError(msg)
                break
            if letter in self.short_optional:
                break
            if letter not in self.short:
                msg = f"the option -{letter} is not known to be harmless"
                raise NotSafeError(msg)
        return seen


def take_value(option: str, ahead: list[str]) -> str:
    """Take the value of *option* off the words *ahead*, which are in reverse; raises NotSafeError if there is none."""
    if not ahead:
        msg = f"the option {option} lacks its value"
        raise NotSafeError(msg)
    return ahead.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a safe command reads."""

    paths: tuple[str, ...] = ()
    recursive: bool = False
    """It walks the folders among *paths*."""
    follows: bool = False
    """It follows the links that it finds there."""
    contents: bool = False
    """It prints what is in the files that it finds there."""
