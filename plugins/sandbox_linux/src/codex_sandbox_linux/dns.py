"""DNS messages (RFC 1035), as much as the filter needs: questions for addresses, and their answers.  Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.sandbox.addresses import Address

A: Final = 1
AAAA: Final = 28
_CNAME: Final = 5
_INTERNET: Final = 1

NO_ERROR: Final = 0
SERVER_FAILURE: Final = 2
NO_SUCH_NAME: Final = 3
REFUSED: Final = 5

_HEAD: Final = struct.Struct(">HHHHHH")
_RECORD: Final = struct.Struct(">HHIH")
_QUESTION_TAIL: Final = struct.Struct(">HH")
_IS_ANSWER: Final = 0x8000
_OPCODE: Final = 0x7800
_TRUNCATED: Final = 0x0200
_WANT_RECURSION: Final = 0x0100
_HAVE_RECURSION: Final = 0x0080
_CODE: Final = 0x000F
_POINTER: Final = 0xC0
_LONGEST_CHAIN: Final = 16
MOST_ADDRESSES: Final = 8
"""So many fit, with the longest name, into the 512 bytes that every client takes."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a program asks for."""

    identity: int
    flags: int
    name: str
    kind: int
    raw: bytes
    """The question as it came: some clients vary the case of letters and want it back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says."""

    code: int
    truncated: bool
    addresses: tuple[Address, ...]
    ttl: int
    """Seconds."""


def parse_question(message: bytes) -> Question:
    """Read a query with one question; raises ValueError for everything else."""
    if len(message) < _HEAD.size:
        raise ValueError("too short")
    identity, flags, questions, answers, authorities, _ = _HEAD.unpack_from(message)
    if flags & (_IS_ANSWER | _OPCODE) or (questions, answers, authorities) != (1, 0, 0):
        raise ValueError("not a plain query")
    name, offset = _read_name(message, _HEAD.size)
    kind, _ = _unpack(_QUESTION_TAIL, message, offset)
    return Question(identity, flags, name, kind, message[_HEAD.size : offset + _QUESTION_TAIL.size])


def reply(question: Question, code: int, addresses: Sequence[Address] = (), ttl: int = 0) -> bytes:
    """Answer *question* with at most :data:`MOST_ADDRESSES` addresses of the kind that it asks for."""
    fitting = [one for one in addresses if (A if one.version == 4 else AAAA) == question.kind]  # noqa: PLR2004 - IPv4
    records = [
        b"\xc0\x0c" + _RECORD.pack(question.kind, _INTERNET, ttl, len(one.packed)) + one.packed
        for one in fitting[:MOST_ADDRESSES]
    ]
    flags = _IS_ANSWER | (question.flags & _WANT_RECURSION) | _HAVE_RECURSION | code
    return _HEAD.pack(question.identity, flags, 1, len(records), 0, 0) + question.raw + b"".join(records)


def query(identity: int, name: str, kind: int) -> bytes:
    """Ask for the addresses of a name, which is in the form that ``parse_host`` gives."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    return _HEAD.pack(identity, _WANT_RECURSION, 1, 0, 0, 0) + labels + b"\0" + _QUESTION_TAIL.pack(kind, _INTERNET)


def parse_answer(message: bytes, identity: int, name: str, kind: int) -> Answer:
    """Read the answer to :func:`query`; raises ValueError where it is none."""
    found, flags, questions, answers, _, _ = _unpack(_HEAD, message, 0)
    if found != identity or not flags & _IS_ANSWER or questions != 1:
        raise ValueError("not the answer to this query")
    asked, offset = _read_name(message, _HEAD.size)
    if (asked, _unpack(_QUESTION_TAIL, message, offset)) != (name, (kind, _INTERNET)):
        raise ValueError("the answer to another question")
    offset += _QUESTION_TAIL.size
    aliases: dict[str, str] = {}
    records: dict[str, list[tuple[Address, int]]] = {}
    if not flags & _TRUNCATED:
        for _ in range(answers):
            owner, offset = _read_name(message, offset)
            record, family, ttl, length = _unpack(_RECORD, message, offset)
            start = offset + _RECORD.size
            offset = start + length
            if offset > len(message):
                raise ValueError("a record is cut off")
            if record == _CNAME:
                aliases[owner] = _read_name(message, start)[0]
            elif (record, family, length) in {(A, _INTERNET, 4), (AAAA, _INTERNET, 16)} and record == kind:
                records.setdefault(owner, []).append((ipaddress.ip_address(message[start:offset]), ttl))
    for _ in range(_LONGEST_CHAIN):
        if name not in aliases:
            break
        name = aliases[name]
    there = records.get(name, [])
    ttl = min((ttl for _, ttl in there), default=0)
    return Answer(flags & _CODE, bool(flags & _TRUNCATED), tuple(address for address, _ in there), ttl)


def _unpack(form: struct.Struct, message: bytes, offset: int) -> tuple[int, ...]:
    try:
        return form.unpack_from(message, offset)
    except struct.error:
        raise ValueError("too short") from None


def _read_name(message: bytes, offset: int) -> tuple[str, int]:
    """Read a name, in lower case, and where it ends.  Pointers lead backwards only, so it always ends."""
    labels: list[str] = []
    end, bound = 0, offset
    while True:
        if offset >= len(message):
            raise ValueError("a name is cut off")
        length = message[offset]
        if length & _POINTER == _POINTER:
            target = int.from_bytes(message[offset : offset + 2], "big") & 0x3FFF
            end = end or offset + 2
            if target >= bound:
                raise ValueError("a name that leads forwards")
            bound = offset = target
            continue
        if length & _POINTER:
            raise ValueError("an unknown kind of label")
        label = message[offset + 1 : offset + 1 + length]
        offset += 1 + length
        if length == 0:
            return ".".join(labels), end or offset
        if not label.isascii() or b"." in label or len(label) != length:
            raise ValueError("a label that is no part of a host's name")
        labels.append(label.decode("ascii").lower())
