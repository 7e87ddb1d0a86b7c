"""DNS messages from programs and servers that nobody trusts."""

from __future__ import annotations

import ipaddress

import pytest
from codex_sandbox_linux import dns
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.lists(st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=5).map(".".join)
KINDS = st.sampled_from([dns.A, dns.AAAA])


@given(st.integers(0, 0xFFFF), NAMES, KINDS)
def test_a_question_is_read_as_it_was_written(identity: int, name: str, kind: int) -> None:
    question = dns.parse_question(dns.query(identity, name, kind))
    assert (question.identity, question.name, question.kind) == (identity, name, kind)


@given(st.integers(0, 0xFFFF), NAMES, KINDS, st.lists(st.ip_addresses(), max_size=20), st.integers(0, 2**31))
def test_an_answer_holds_the_addresses_of_its_kind_and_fits_a_datagram(
    identity: int, name: str, kind: int, addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address], ttl: int
) -> None:
    message = dns.reply(dns.parse_question(dns.query(identity, name, kind)), dns.NO_ERROR, addresses, ttl)
    assert len(message) <= 512
    answer = dns.parse_answer(message, identity, name, kind)
    fitting = [one for one in addresses if one.version == (4 if kind == dns.A else 6)]
    assert answer.addresses == tuple(fitting[: dns.MOST_ADDRESSES])
    assert answer.ttl == (ttl if fitting else 0)


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    for read in (dns.parse_question, lambda bytes_: dns.parse_answer(bytes_, 0, "a.b", dns.A)):
        try:
            read(message)
        except ValueError:
            continue


@given(st.data())
def test_a_damaged_answer_is_read_or_refused(data: st.DataObject) -> None:
    question = dns.parse_question(dns.query(7, "a.example", dns.A))
    message = bytearray(dns.reply(question, dns.NO_ERROR, [ipaddress.ip_address("192.0.2.1")] * 3, 60))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        answer = dns.parse_answer(bytes(message), 7, "a.example", dns.A)
    except ValueError:
        return
    assert all(address.version == 4 for address in answer.addresses)


def answered(*records: bytes, identity: int = 7, name: str = "a.example") -> bytes:
    query = dns.query(identity, name, dns.A)
    return query[:2] + b"\x81\x80" + query[4:6] + len(records).to_bytes(2, "big") + query[8:] + b"".join(records)


def record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + kind.to_bytes(2, "big") + b"\0\x01" + b"\0\0\0\x3c" + len(data).to_bytes(2, "big") + data


QUERY = dns.query(7, "a.example", dns.A)


@pytest.mark.parametrize(
    "message",
    [
        QUERY[:2] + b"\x81\x00" + QUERY[4:],  # an answer
        QUERY[:2] + b"\x29\x00" + QUERY[4:],  # an update (RFC 2136)
        QUERY[:4] + b"\0\2" + QUERY[6:] + QUERY[12:],
        QUERY[:6] + b"\0\1" + QUERY[8:],
        QUERY[:8] + b"\0\1" + QUERY[10:],
        QUERY[:4] + b"\0\0" + QUERY[6:12],
        QUERY[:-1],
    ],
)
def test_what_is_no_plain_query_with_one_question_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        dns.parse_question(message)


def test_names_are_read_in_lower_case_and_given_back_as_they_came() -> None:
    question = dns.parse_question(dns.query(7, "A.eXample", dns.A))
    assert question.name == "a.example"
    assert b"\x01A\x07eXample\0" in dns.reply(question, dns.NO_ERROR)


SELF = b"\xc0\x0c"
OTHER = b"\x05other\x04test\0"


def test_aliases_are_followed_and_other_names_are_not_believed() -> None:
    chain = answered(record(SELF, 5, OTHER), record(OTHER, dns.A, b"\x01\x02\x03\x04"))
    assert dns.parse_answer(chain, 7, "a.example", dns.A).addresses == (ipaddress.ip_address("1.2.3.4"),)
    foreign = answered(record(OTHER, dns.A, b"\x01\x02\x03\x04"))
    assert dns.parse_answer(foreign, 7, "a.example", dns.A).addresses == ()
    six = answered(record(SELF, dns.AAAA, bytes(16)))
    assert dns.parse_answer(six, 7, "a.example", dns.A).addresses == (), "of another kind than was asked for"
    chaos = answered(record(SELF, dns.A, b"\x01\x02\x03\x04").replace(b"\0\x01\0\x01", b"\0\x01\0\x03"))
    assert dns.parse_answer(chaos, 7, "a.example", dns.A).addresses == (), "of another class"
    circle = answered(record(SELF, 5, OTHER), record(OTHER, 5, SELF))
    assert dns.parse_answer(circle, 7, "a.example", dns.A).addresses == ()


@pytest.mark.parametrize(
    "message",
    [
        answered(identity=8),
        answered(name="b.example"),
        answered()[:-1] + b"\3",
        answered()[:-3] + b"\x1c" + answered()[-2:],
        answered()[:4] + b"\0\2" + answered()[6:],
        dns.query(7, "a.example", dns.A),
        answered(record(b"\xc0\xff", dns.A, b"\x01\x02\x03\x04")),
        answered(record(SELF, dns.A, b"\x01\x02\x03\x04"))[:-1],
        b"\0\7\x81\x80\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01",
    ],
)
def test_an_answer_to_something_else_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        dns.parse_answer(message, 7, "a.example", dns.A)


@pytest.mark.parametrize("label", [b"\x03a.b", b"\x02\xc3\xa4", b"\x41" + b"a" * 65])
def test_a_label_that_is_no_part_of_a_host_is_refused(label: bytes) -> None:
    query = dns.query(7, "x", dns.A)
    with pytest.raises(ValueError, match=r"\w"):
        dns.parse_question(query[:12] + label + b"\0" + query[-4:])
