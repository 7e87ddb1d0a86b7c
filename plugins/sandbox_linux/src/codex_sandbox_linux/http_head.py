"""The head of a request to an HTTP proxy (RFC 9110, 9112), read strictly.  Pure.

What two readers could understand differently is refused: bare CR or LF, folded lines, a space before
the colon, two lengths, a length beside an encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from codex_core.sandbox.domains import join_port, split_port

HEAD_LIMIT: Final = 16384
"""Bytes."""
CHUNKED: Final = -1

_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TARGET: Final = frozenset(range(0x21, 0x7F))
_VALUE: Final = frozenset({*b"\t ", *range(0x21, 0x7F), *range(0x80, 0x100)})
_DIGITS: Final = frozenset(b"0123456789")
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade", b"host")
)
_HTTP_PORT: Final = 80
_LONGEST_LENGTH: Final = 18


class HeadError(ValueError):
    """A request that is not understood; the text says why, the status is that of the answer."""

    def __init__(self, text: str, status: str = "400 Bad Request") -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """What a program asks of the proxy."""

    host: str
    """As it is written."""
    port: int
    forward: bytes = b""
    """What to send on instead; nothing for a tunnel."""
    length: int = 0
    """Bytes of the body, or :data:`CHUNKED`."""


def parse_head(head: bytes) -> Head:
    """Read a head, without the empty line at its end; raises HeadError."""
    first, *rest = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or words[2] not in {b"HTTP/1.0", b"HTTP/1.1"}:  # noqa: PLR2004 - method, target, version
        raise HeadError("this is not a request of HTTP/1.1")
    method, target, _ = words
    if not method or not _TOKEN.issuperset(method) or not target or not _TARGET.issuperset(target):
        raise HeadError("the first line holds what does not belong there")
    fields = [_field(line) for line in rest]
    if method == b"CONNECT":
        return Head(*_authority(target, None))
    if not target.lower().startswith(b"http://"):
        raise HeadError("this is the way out of the codex sandbox: a proxy, which takes CONNECT and http:// only")
    authority, path = _split_target(target[len(b"http://") :])
    host, port = _authority(authority, _HTTP_PORT)
    kept = _end_to_end(fields)
    named = join_port(host, None if port == _HTTP_PORT else port).encode("ascii", "backslashreplace")
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: " + named, *(b"%s: %s" % field for field in kept)]
    return Head(host, port, b"\r\n".join([*lines, b"Connection: close", b"", b""]), _length(fields))


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or not _TOKEN.issuperset(name) or not _VALUE.issuperset(value):
        raise HeadError("a header holds what does not belong there")
    return name, value.strip(b"\t ")


def _split_target(rest: bytes) -> tuple[bytes, bytes]:
    ends = [at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0]
    end = min(ends, default=len(rest))
    path = rest[end:].partition(b"#")[0]
    return rest[:end], path if path.startswith(b"/") else b"/" + path


def _authority(text: bytes, default: int | None) -> tuple[str, int]:
    decoded = text.decode("ascii")
    if "@" in decoded:
        raise HeadError("names and passwords in an address are not passed on")
    try:
        host, port = split_port(decoded)
    except ValueError as error:
        raise HeadError(str(error)) from None
    port = port or default
    if not host or port is None or (":" in host and not decoded.startswith("[")):
        raise HeadError(f"{decoded!r} is not host:port")
    return host, port


def _end_to_end(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    named = {
        one.strip().lower() for name, value in fields if name.lower() == b"connection" for one in value.split(b",")
    }
    framing = {b"content-length", b"transfer-encoding"}
    dropped = _HOP_BY_HOP | (named - framing)
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def _length(fields: list[tuple[bytes, bytes]]) -> int:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    encodings = [value.lower() for name, value in fields if name.lower() == b"transfer-encoding"]
    if encodings:
        if lengths or encodings != [b"chunked"]:
            raise HeadError("the length of the body can be read in two ways")
        return CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0] or not _DIGITS.issuperset(lengths[0]) or len(lengths[0]) > _LONGEST_LENGTH:
        raise HeadError("the length of the body can be read in two ways")
    return int(lengths[0])


def parse_chunk_size(line: bytes) -> int:
    """Read the line before a chunk, without its end; raises HeadError."""
    digits, _, extension = line.partition(b";")
    if not digits or not frozenset(b"0123456789abcdefABCDEF").issuperset(digits) or len(digits) > 15:  # noqa: PLR2004 - 60 bits
        raise HeadError("the length of a chunk cannot be read")
    if not _VALUE.issuperset(extension):
        raise HeadError("a chunk holds what does not belong there")
    return int(digits, 16)


def answer(status: str, text: str) -> bytes:
    """Make a whole answer of one line of text, which also stands in the status line: some clients show only that."""
    line = "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text)
    body = f"codex sandbox: {line}\n".encode("ascii")
    head = f"HTTP/1.1 {status}: {line}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode("ascii") + body
