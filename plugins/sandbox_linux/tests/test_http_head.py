"""Heads of requests to the proxy: one meaning, or none."""

from __future__ import annotations

import pytest
from codex_sandbox_linux.http_head import CHUNKED, Head, HeadError, answer, parse_chunk_size, parse_head
from hypothesis import given
from hypothesis import strategies as st


def test_a_tunnel_is_asked_for_by_host_and_port() -> None:
    assert parse_head(b"CONNECT example.com:443 HTTP/1.1\r\nHost: other.test") == Head("example.com", 443)
    assert parse_head(b"CONNECT [2001:db8::1]:443 HTTP/1.0") == Head("2001:db8::1", 443)


def test_what_is_sent_on_names_the_host_of_the_request_line_once() -> None:
    head = parse_head(
        b"POST http://Example.com:8080/a?b#c HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: Basic x\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nAccept: */*\r\nHOST: third.test\r\nContent-Length: 12"
    )
    assert (head.host, head.port, head.length) == ("Example.com", 8080, 12)
    assert head.forward == (
        b"POST /a?b HTTP/1.1\r\nHost: Example.com:8080\r\nAccept: */*\r\nContent-Length: 12\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert parse_head(b"GET http://example.com HTTP/1.1").forward.startswith(b"GET / HTTP/1.1\r\nHost: example.com\r\n")
    assert parse_head(b"GET http://example.com?x HTTP/1.1").forward.startswith(b"GET /?x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"", 0),
        (b"\r\nContent-Length: 0", 0),
        (b"\r\nTransfer-Encoding: chunked", CHUNKED),
        (b"\r\ncontent-length:7", 7),
    ],
)
def test_the_length_of_the_body_is_known(head: bytes, length: int) -> None:
    assert parse_head(b"POST http://example.com/ HTTP/1.1" + head).length == length


@pytest.mark.parametrize(
    "head",
    [
        *(
            b"",
            b"GET",
            b"GET http://a/",
            b"GET  http://a/ HTTP/1.1",
            b"GET http://a/ HTTP/1.1 ",
            b"GET http://a/ http/1.1",
        ),
        *(b"G\0T http://a/ HTTP/1.1", b"GET http://a/\xff HTTP/1.1", b"GET ftp://a/ HTTP/1.1", b"GET / HTTP/1.1"),
        *(b"CONNECT a HTTP/1.1", b"CONNECT a:0 HTTP/1.1", b"CONNECT ::1:443 HTTP/1.1", b"CONNECT u@a:1 HTTP/1.1"),
        *(b"CONNECT [::1 HTTP/1.1", b"CONNECT :443 HTTP/1.1", b"GET http:///x HTTP/1.1", b"GET http://u:p@a/ HTTP/1.1"),
        *(b"GET http://a/ HTTP/1.1\r\n folded", b"GET http://a/ HTTP/1.1\r\nA : b", b"GET http://a/ HTTP/1.1\r\nA"),
        *(
            b"GET http://a/ HTTP/1.1\r\n: b",
            b"GET http://a/ HTTP/1.1\r\nA: b\nC: d",
            b"GET http://a/ HTTP/1.1\r\nA: b\rC: d",
        ),
        *(b"GET http://a/ HTTP/1.1\r\nA: \0", b"GET http://a/ HTTP/1.1\nHost: x"),
        b"POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
        b"POST http://a/ HTTP/1.1\r\nContent-Length: -1",
        b"POST http://a/ HTTP/1.1\r\nContent-Length: ",
        b"POST http://a/ HTTP/1.1\r\nContent-Length: 1000000000000000000",
        b"POST http://a/ HTTP/1.1\r\nContent-Length: 1, 1",
        b"POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
        b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(HeadError):
        parse_head(head)


def test_what_is_meant_for_the_proxy_is_not_sent_on_and_the_length_of_the_body_always_is() -> None:
    fields = (b"Keep-Alive: 5", b"Proxy-Connection: x", b"TE: trailers", b"Upgrade: h2c", b"Content-Length: 3")
    head = b"\r\n".join((b"POST http://a/ HTTP/1.1", b"Connection: X-Hop, Content-Length", b"X-Hop: 1", *fields))
    assert parse_head(head).forward == (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(head: bytes) -> None:
    for read in (parse_head, parse_chunk_size):
        for text in (head, b"GET http://" + head, b"CONNECT " + head + b" HTTP/1.1"):
            try:
                read(text)
            except HeadError:
                continue


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=4), st.binary(max_size=20))
def test_what_is_sent_on_is_one_head(fields: list[tuple[bytes, bytes]], path: bytes) -> None:
    head = b"GET http://example.com/" + path + b" HTTP/1.1" + b"".join(b"\r\n%s: %s" % field for field in fields)
    try:
        forward = parse_head(head).forward
    except HeadError:
        return
    assert forward.count(b"\r\n\r\n") == 1
    assert forward.endswith(b"\r\n\r\n")
    assert b"\n" not in forward.replace(b"\r\n", b"")
    assert forward.lower().count(b"\r\nhost:") == 1


@pytest.mark.parametrize(("line", "size"), [(b"0", 0), (b"1f", 31), (b"A;x=y", 10)])
def test_a_chunk_says_its_size(line: bytes, size: int) -> None:
    assert parse_chunk_size(line) == size


@pytest.mark.parametrize("line", [b"", b"-1", b"0x1", b" 1", b"1 ", b"f" * 16, b"1;\0", b"g"])
def test_a_chunk_of_unclear_size_is_refused(line: bytes) -> None:
    with pytest.raises(HeadError):
        parse_chunk_size(line)


def test_an_answer_cannot_be_split_by_what_it_quotes() -> None:
    assert answer("403 Forbidden", "a\r\nSet-Cookie: b\0\u00e4").split(b"\r\n")[1] == b"Content-Type: text/plain"
