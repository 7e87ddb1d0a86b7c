"""The sockets of a filtered network, on the loopback: made inside, served outside.

A jail makes them while it may still bind port 53, and hands them out; inside nothing of them is left.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESSES: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
TRANSPARENT: Final = "transparent"
"""What is led here by the supervisor, and served only then."""
PROXY: Final = "proxy"
DNS_UDP: Final = "dns-udp"
DNS_TCP: Final = "dns-tcp"

PROXY_PORT: Final = 13128
TRANSPARENT_PORT: Final = 13129
"""Both below the ports that the kernel gives out by itself (ip_local_port_range, 32768 on)."""
DNS_PORT: Final = 53
_QUEUE: Final = 1024

_ADDRESS: Final = f"http://{ADDRESSES[socket.AF_INET]}:{PROXY_PORT}"
_NEAR: Final = "localhost,127.0.0.1,::1"
_PROXIES: Final = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), _ADDRESS),
    **dict.fromkeys(("NO_PROXY", "no_proxy", "npm_config_noproxy"), _NEAR),
    **dict.fromkeys(("npm_config_proxy", "npm_config_https_proxy", "CARGO_HTTP_PROXY"), _ADDRESS),
    "NODE_USE_ENV_PROXY": "1",
}
"""What tells common programs about the proxy.  ALL_PROXY is an HTTP proxy too: some clients start only with a
package of their own when it names SOCKS."""


_NAMES_BY_TCP: Final = {"RES_OPTIONS": "use-vc"}
"""Where there are no datagrams (resolv.conf(5))."""


def environment(*, alone: bool) -> dict[str, str]:
    """Give what commands need to know; *alone* as for :func:`open_all`."""
    return _PROXIES if alone else {**_PROXIES, **_NAMES_BY_TCP}


def open_all(*, alone: bool) -> list[tuple[str, socket.socket]]:
    """Listen for everything that the filter serves; pairs of what a socket is for, and the socket.

    Where the loopback is not the jail's *alone*, all comes in through one port, whichever is free, and only what
    the supervisor has led there is served.

    Raises OSError.
    """
    if not alone:
        return list(_both(TRANSPARENT, 0))
    made = [(DNS_UDP, _bound(socket.AF_INET, socket.SOCK_DGRAM, DNS_PORT))]
    made.append((DNS_TCP, _bound(socket.AF_INET, socket.SOCK_STREAM, DNS_PORT)))
    return [*made, *_both(PROXY, PROXY_PORT), *_both(TRANSPARENT, TRANSPARENT_PORT)]


def kind_of(host: str, port: int) -> str:
    """Say what a program connects to that knows these addresses, where nothing listens on them."""
    if port == DNS_PORT:  # of whichever name server the host is configured with
        return DNS_TCP
    return PROXY if port == PROXY_PORT and host in ADDRESSES.values() else TRANSPARENT


def _both(kind: str, port: int) -> Iterator[tuple[str, socket.socket]]:
    yield kind, _bound(socket.AF_INET, socket.SOCK_STREAM, port)
    with contextlib.suppress(OSError):  # a host without IPv6
        yield kind, _bound(socket.AF_INET6, socket.SOCK_STREAM, port)


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((ADDRESSES[family], port))
        if kind == socket.SOCK_STREAM:
            made.listen(_QUEUE)
    except OSError:
        made.close()
        raise
    return made
