"""How fast bytes come through the filter, against the same bytes over plain loopback: ``python benchmarks/egress.py``.

The same client reads from the same server, outside by a direct connection and inside through the proxy,
in turns; the figure is the median of the ratios.  Then: what one connection costs.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import tempfile
import threading

from codex_core import Command, SandboxMode, SandboxSettings, build_policy
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.runner import run
from codex_sandbox_linux.forge import HelperForge
from codex_sandbox_linux.launcher import LinuxLauncher

ROUNDS = 9
SIZE = 1 << 30
CLIENT = """
import socket, sys, time
host, port, via, size, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
buffer = bytearray(1 << 18)
began = time.perf_counter()
for _ in range(count):
    if via:
        s = socket.create_connection(("127.0.0.1", int(via)))
        s.sendall(f"CONNECT {host}:{port} HTTP/1.1\\r\\n\\r\\n".encode())
        assert b" 200 " in s.recv(39), "refused"
    else:
        s = socket.create_connection((host, port))
    s.sendall(size.to_bytes(8, "big"))
    got = 0
    while got < size:
        got += s.recv_into(buffer)
    s.close()
print(time.perf_counter() - began)
"""


def serve(listening: socket.socket) -> None:
    """Send to whoever connects as many bytes as they ask for."""
    piece = memoryview(bytes(1 << 20))
    while True:
        accepted, _ = listening.accept()

        def work(accepted: socket.socket = accepted) -> None:
            with accepted:
                left = int.from_bytes(accepted.recv(8), "big")
                while left:
                    left -= accepted.send(piece[:left])

        threading.Thread(target=work, daemon=True).start()


def main() -> None:
    """Measure and print."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
    port = listening.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, allowed_domains=("127.0.0.1",))
        policy = build_policy(settings, cwd=folder, environ={}, codex_home=f"{folder}/.codex")
        inside, outside = LinuxLauncher(policy, HelperForge()), DirectLauncher()
        proxy = "13128"

        def seconds(size: int, count: int, *, confined: bool) -> float:
            words = ("127.0.0.1", str(port), proxy if confined else "", str(size), str(count))
            command = Command((sys.executable, "-I", "-S", "-c", CLIENT, *words), folder, dict(os.environ))
            result = run(inside if confined else outside, command, timeout=120)
            assert result.returncode == 0, result.stderr  # noqa: S101 - a measurement of something else
            return float(result.stdout)

        ratios = []
        for _ in range(ROUNDS):
            direct, through = seconds(SIZE, 1, confined=False), seconds(SIZE, 1, confined=True)
            ratios.append(direct / through)
            print(f"direct {SIZE / direct / 1e9:5.2f} GB/s   through the filter {SIZE / through / 1e9:5.2f} GB/s")
        print(f"throughput through the filter / direct: {statistics.median(ratios):.2f}")
        direct, through = seconds(1, 500, confined=False), seconds(1, 500, confined=True)
        print(f"one connection: direct {direct * 2:.2f} ms, through the filter {through * 2:.2f} ms")
        inside.close()


if __name__ == "__main__":
    main()
