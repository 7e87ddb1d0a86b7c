"""The sockets of a filtered network, on the jail's own loopback: made inside, served outside.

A jail makes them while it may still bind port 53, and hands them out; inside nothing of them is left.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

ADDRESSES: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PROXY_PORT: Final = 13128
TRANSPARENT_PORT: Final = 13129
"""Both below the ports that the kernel gives out by itself (ip_local_port_range, 32768 on)."""
_DNS_PORT: Final = 53
_QUEUE: Final = 1024

_ADDRESS: Final = f"http://{ADDRESSES[socket.AF_INET]}:{PROXY_PORT}"
_NEAR: Final = "localhost,127.0.0.1,::1"
ENVIRONMENT: Final = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), _ADDRESS),
    **dict.fromkeys(("NO_PROXY", "no_proxy", "npm_config_noproxy"), _NEAR),
    **dict.fromkeys(("npm_config_proxy", "npm_config_https_proxy", "CARGO_HTTP_PROXY"), _ADDRESS),
    "NODE_USE_ENV_PROXY": "1",
}
"""What tells common programs about the proxy.  ALL_PROXY is an HTTP proxy too: some clients start only with a
package of their own when it names SOCKS."""


def open_all() -> list[tuple[str, socket.socket]]:
    """Listen for everything that the filter serves; pairs of what a socket is for, and the socket.

    Raises OSError.
    """
    made = [("dns-udp", _bound(socket.AF_INET, socket.SOCK_DGRAM, _DNS_PORT))]
    made.append(("dns-tcp", _bound(socket.AF_INET, socket.SOCK_STREAM, _DNS_PORT)))
    for kind, port in (("proxy", PROXY_PORT), ("transparent", TRANSPARENT_PORT)):
        made.append((kind, _bound(socket.AF_INET, socket.SOCK_STREAM, port)))
        with contextlib.suppress(OSError):  # a host without IPv6
            made.append((kind, _bound(socket.AF_INET6, socket.SOCK_STREAM, port)))
    return made


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
