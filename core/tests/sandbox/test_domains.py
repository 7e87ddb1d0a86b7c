"""Which hosts a pattern means, and that nothing is guessed at."""

from __future__ import annotations

import ipaddress

import pytest
from codex_core.errors import ConfigError
from codex_core.sandbox.addresses import CLOSED, closed, facets
from codex_core.sandbox.domains import Pattern, Rules, join_port, parse_host, parse_pattern, split_port
from codex_core.sandbox.policy import SandboxSettings, build_policy
from codex_core.types import Network, Operation, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.one_of(st.none(), st.integers(1, 65535))


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    port = draw(PORTS)
    kind = draw(st.sampled_from(["name", "below", "any", "address", "network"]))
    if kind == "any":
        return Pattern("*", None, port)
    if kind in {"name", "below"}:
        return Pattern(("*." if kind == "below" else "") + draw(NAMES), None, port)
    address = parse_host(str(draw(ADDRESSES)))
    assert not isinstance(address, str)
    bits = draw(st.integers(0, address.max_prefixlen)) if kind == "network" else address.max_prefixlen
    return Pattern("", ipaddress.ip_network((address, bits), strict=False), port)


@pytest.mark.parametrize(
    ("pattern", "host", "port", "matches"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "EXAMPLE.com.", 443, True),
        ("Example.COM.", "example.com", 443, True),
        ("example.com", "www.example.com", 443, False),
        ("example.com", "notexample.com", 443, False),
        ("example.com", "example.com.evil.test", 443, False),
        ("*.example.com", "www.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "evilexample.com", 443, False),
        ("example.com:443", "example.com", 443, True),
        ("example.com:443", "example.com", 80, False),
        ("*", "anything.test", 22, True),
        ("**", "anything.test", 22, True),
        ("*", "192.0.2.1", 22, False),
        ("*", "2001:db8::1", 22, False),
        ("192.0.2.1", "192.0.2.1", 22, True),
        ("192.0.2.1", "::ffff:192.0.2.1", 22, True),
        ("::ffff:192.0.2.1", "192.0.2.1", 22, True),
        ("192.0.2.0/24", "192.0.2.77", 22, True),
        ("192.0.2.0/24", "192.0.3.1", 22, False),
        ("192.0.2.0/24:22", "192.0.2.1", 23, False),
        ("2001:DB8::1", "2001:db8:0::1", 22, True),
        ("[2001:db8::1]:22", "2001:db8::1", 22, True),
        ("xn--bcher-kva.example", "XN--BCHER-KVA.example", 443, True),
    ],
)
def test_a_pattern_matches_what_the_table_says(pattern: str, host: str, port: int, *, matches: bool) -> None:
    assert Rules.parse([pattern]).decide(host, port).allowed is matches
    assert Rules.parse(["*", host], [pattern]).decide(host, port).allowed is not matches, "the same holds for denying"


@pytest.mark.parametrize(
    "host",
    [
        *("evil\0.allowed.example", "evil.example\0.allowed.example", "a b.allowed.example", " a.allowed.example"),
        *("user@a.allowed.example", "a%2e.allowed.example", "a.allowed.example/x", "a.allowed.example:80"),
        *("a..allowed.example", ".allowed.example", "a.allowed.example..", "-a.allowed.example", "a-.allowed.example"),
        *(
            "ä.allowed.example",
            "a\u3002allowed.example",
            "\uff41.allowed.example",
            "a\r\n.allowed.example",
            "a\\.allowed.example",
        ),
        *("[::1]", "[a.allowed.example]", "fe80::1%eth0", "::1%1", "::ffff:0x7f.1", "1:2:3"),
        *("127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "127.0.0.01", "1.2.3.4.5", "a.0x1"),
        *("", ".", "*", "*.allowed.example", "x" * 64 + ".allowed.example", "a." * 125 + "allowed.example"),
    ],
)
def test_a_host_that_two_programs_could_read_differently_is_refused(host: str) -> None:
    rules = Rules.parse(["*", "*.allowed.example", "0.0.0.0/0", "::/0"])
    assert rules.decide("a.allowed.example", 80).allowed
    if host != "127.0.0.1.":  # a dot at the end of an address: what is left is the usual form
        assert not rules.decide(host, 80).allowed


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("https://example.com/", "without a scheme"),
        ("exa*mple.com", "in front"),
        ("*.*.com", "in front"),
        ("*.192.0.2.1", "does not go with an address"),
        ("10.0.0.1/8", "'10.0.0.0/8' is the network"),
        ("10.0.0.0/255.0.0.0", "not a network"),
        ("example.com/path", "not a network"),
        ("bücher.example", "'xn--bcher-kva.example'"),
        ("example.com:https", "not a port"),
        ("example.com:0", "not a port"),
        ("example.com:+80", "not a port"),
        ("example.com:080", "not a port"),
        ("example.com:65536", "not a port"),
        ("127.1", "usual form"),
        ("", "not the name"),
    ],
)
def test_a_pattern_that_is_none_is_explained(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_pattern(pattern)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[a.example]:80", "[a.example]", "[::1]x443", "[::1]]:443", "[::1", "[]:80"])
def test_brackets_hold_an_ipv6_address_and_a_port_may_follow_them(text: str) -> None:
    assert split_port("[::1]:443") == ("::1", 443)
    with pytest.raises(ValueError, match="brackets that hold no IPv6 address"):
        split_port(text)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_what_is_no_port_is_not_allowed(port: int) -> None:
    rules = Rules.parse(["*"])
    assert rules.decide("a.example", 65535).allowed
    assert rules.decide("a.example", port).rule == f"{port} is not a port"


def test_a_denied_port_closes_that_port_and_not_the_name() -> None:
    rules = Rules.parse(["a.example"], ["a.example:25"])
    assert [rules.decide("a.example", port).allowed for port in (25, 26, None)] == [False, True, True]


@pytest.mark.parametrize("pattern", ["192.0.2.1", "10.0.0.0/8", "::1"])
def test_a_pattern_of_every_name_covers_no_address(pattern: str) -> None:
    every, addresses = parse_pattern("*"), parse_pattern(pattern)
    assert every.covers(parse_pattern("a.example"))
    assert not every.covers(addresses)
    assert not addresses.covers(every)


@given(st.text(max_size=40), st.integers())
def test_any_text_is_decided_without_an_exception(text: str, port: int) -> None:
    ruling = Rules.parse(["*", "::/0", "0.0.0.0/0"]).decide(text, port)
    assert ruling.rule


@given(st.text(alphabet="ab.*:[]/%@0129-_ \0ä", max_size=24))
def test_what_is_read_as_a_host_is_written_as_it_is_read(text: str) -> None:
    try:
        host = parse_host(text)
    except ValueError:
        return
    assert parse_host(str(host)) == host
    assert not set(str(host)) - set("abcdefghijklmnopqrstuvwxyz0123456789-_.:")


@given(patterns())
def test_a_pattern_is_written_as_it_is_read(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern)) == pattern


@given(NAMES, PORTS)
def test_a_port_is_joined_and_split(name: str, port: int | None) -> None:
    assert split_port(join_port(name, port)) == (name, port)
    assert split_port(join_port("::1", port)) == ("::1", port)


@given(
    st.lists(patterns(), max_size=4),
    st.lists(patterns(), max_size=4),
    NAMES | ADDRESSES.map(str),
    st.integers(1, 65535),
)
def test_deny_wins_and_lists_only_add(allowed: list[Pattern], denied: list[Pattern], host: str, port: int) -> None:
    both = Rules(tuple(allowed), tuple(denied)).decide(host, port)
    without = Rules(tuple(allowed)).decide(host, port)
    assert both.allowed == (without.allowed and Rules(tuple(denied)).decide(host, port).allowed is False)
    assert both.allowed or both.rule


@given(patterns(), patterns(), NAMES | ADDRESSES.map(str), st.integers(1, 65535))
def test_what_covers_a_pattern_matches_all_that_it_matches(one: Pattern, other: Pattern, text: str, port: int) -> None:
    host = parse_host(text)
    assert one.covers(one)
    if one.covers(other) and other.matches(host, port):
        assert one.matches(host, port)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "127.0.0.1", "127.255.255.254", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1"),
        *(
            "169.254.169.254",
            "169.254.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
        ),
        *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b:1::1", "2001:0:7f00:1::"),
    ],
)
def test_an_allowed_name_does_not_lead_to_a_private_address_in_any_form(address: str) -> None:
    rules = Rules.parse(["*"])
    parsed = ipaddress.ip_address(address)
    assert closed(parsed)
    assert not rules.judge_address(parsed, 443).allowed
    assert Rules.parse(["*", address]).judge_address(parsed, 443).allowed, "unless it is listed"
    assert (
        not Rules.parse(["*", f"{address}:1" if ":" not in address else f"[{address}]:1"])
        .judge_address(parsed, 443)
        .allowed
    )


@pytest.mark.parametrize(
    "block",
    [
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        *("::/96", "64:ff9b:1::/48", "100::/64", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32"),
        *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    ],
)
def test_a_block_that_is_not_public_is_closed_from_its_first_address_to_its_last(block: str) -> None:
    network = ipaddress.ip_network(block)
    assert closed(network[0])
    assert closed(network[-1])


def test_the_client_within_a_teredo_address_counts_too() -> None:
    """RFC 4380: its bits are turned over."""
    assert closed(ipaddress.ip_address("2001:0:808:808::80ff:fffe")) == "a loopback address in another form (127.0.0.1)"


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"])
def test_a_public_address_is_open_unless_it_is_denied(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert Rules.parse(["example.com"]).judge_address(parsed, 443).allowed
    assert not Rules.parse(["example.com", address], ["1.1.1.1", "2606:4700::/32"]).judge_address(parsed, 443).allowed


@given(
    st.sampled_from(CLOSED), st.integers(0, 2**128), st.sampled_from(["plain", "mapped", "nat64", "6to4", "compatible"])
)
def test_every_address_of_a_closed_block_is_closed_in_every_form(
    block: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str], offset: int, form: str
) -> None:
    network = block[0]
    address = network[offset % network.num_addresses]
    if isinstance(address, ipaddress.IPv4Address) and form != "plain":
        low = int(address)
        shifted = {"mapped": 0xFFFF << 32 | low, "nat64": 0x64FF9B << 96 | low, "6to4": 0x2002 << 112 | low << 80}
        address = ipaddress.IPv6Address(shifted.get(form, low))
    assert closed(address)
    assert facets(address)


def test_localhost_stands_for_the_loopback_addresses() -> None:
    rules = Rules.parse(["localhost:8080"])
    for address in ("127.0.0.1", "::1"):
        assert rules.judge_address(ipaddress.ip_address(address), 8080).allowed
        assert not rules.judge_address(ipaddress.ip_address(address), 8081).allowed
    assert not rules.judge_address(ipaddress.ip_address("10.0.0.1"), 8080).allowed
    assert not Rules.parse(["*"]).judge_address(ipaddress.ip_address("127.0.0.1"), 8080).allowed


@pytest.mark.parametrize(
    ("keys", "network", "allowed"),
    [
        ({}, Network.OFF, ()),
        ({"network_access": True}, Network.ON, ()),
        ({"denied_domains": ("a.test",)}, Network.OFF, ()),
        ({"allowed_domains": ("A.test.", "a.test")}, Network.FILTERED, ("a.test",)),
        ({"allowed_domains": ("a.test",), "network_access": True}, Network.FILTERED, ("a.test",)),
        ({"denied_domains": ("a.test",), "network_access": True}, Network.FILTERED, ("*",)),
    ],
)
def test_the_lists_and_the_switch_choose_the_network(
    keys: dict[str, object], network: Network, allowed: tuple[str, ...], tmp_path: object
) -> None:
    settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, **keys)  # type: ignore[arg-type] # what the rows hold
    policy = build_policy(settings, cwd=str(tmp_path), environ={}, codex_home=f"{tmp_path}/.codex")
    assert (policy.network, policy.allowed_domains) == (network, allowed)
    only_reading = build_policy(
        SandboxSettings(SandboxMode.READ_ONLY, **keys),  # type: ignore[arg-type] # as above
        cwd=str(tmp_path),
        environ={},
        codex_home=f"{tmp_path}/.codex",
    )
    assert only_reading.network is Network.OFF, "a read-only command reaches nothing"


def test_check_decides_as_the_lists_do(tmp_path: object) -> None:
    socket = f"{tmp_path}/agent"
    settings = SandboxSettings(
        SandboxMode.WORKSPACE_WRITE,
        allowed_domains=("*.example.com", "192.0.2.1:22"),
        denied_domains=("evil.example.com",),
        allowed_unix_sockets=(socket,),
    )
    policy = build_policy(settings, cwd=str(tmp_path), environ={}, codex_home=f"{tmp_path}/.codex")
    for target in ("a.example.com:443", "192.0.2.1:22", "[::ffff:192.0.2.1]:22", socket, f"{tmp_path}/x/../agent"):
        assert policy.check(Operation.CONNECT, target) is None, target
    for target, words in {
        "example.com:443": "add 'example.com' to sandbox_workspace_write.allowed_domains",
        "other.test:8443": "add 'other.test:8443' to",
        "192.0.2.1:23": "add '192.0.2.1:23'",
        "evil.example.com:443": "take 'evil.example.com' out of sandbox_workspace_write.denied_domains",
        "/run/docker.sock": "add '/run/docker.sock' to sandbox_workspace_write.allowed_unix_sockets",
    }.items():
        denial = policy.check(Operation.CONNECT, target)
        assert denial is not None
        assert words in denial.cure
    assert policy.check(Operation.CONNECT, "a.example.com:0x50") is not None
    assert policy.check(Operation.CONNECT, "[a.example.com:80") is not None


@pytest.mark.parametrize(
    "keys",
    [
        {"allowed_domains": ("a b",)},
        {"network_access": True, "denied_domains": ("a b",)},
        {"allowed_unix_sockets": ("x",)},
    ],
)
def test_a_bad_entry_stops_the_policy(keys: dict[str, object], tmp_path: object) -> None:
    settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, **keys)  # type: ignore[arg-type] # what the rows hold
    with pytest.raises(ConfigError, match=r"^sandbox_workspace_write\.\w+: "):
        build_policy(settings, cwd=str(tmp_path), environ={}, codex_home=f"{tmp_path}/.codex")
