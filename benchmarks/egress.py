"""How fast bytes come through the filter, against the same bytes over plain loopback: ``python benchmarks/egress.py``.

The same client reads from the same server, outside by a direct connection and inside through the proxy, in turns; the
figure is the median of the ratios.  First a pair that does nothing but send and receive; then curl and nginx, where
they are installed.  At last: what one connection costs.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING

from codex_core import Command, SandboxMode, SandboxSettings, build_policy
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.runner import run
from codex_sandbox_linux.forge import HelperForge
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NGINX = """\
daemon off; user {user}; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {folder}/files; }} }}
"""
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


@contextlib.contextmanager
def nginx(folder: str) -> Iterator[str]:
    """Serve a file of :data:`SIZE` bytes, and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.mkdir(f"{folder}/files")
    with open(f"{folder}/files/big", "wb") as file:
        file.truncate(SIZE)
    with open(f"{folder}/nginx.conf", "w", encoding="ascii") as file:
        file.write(NGINX.format(folder=folder, port=port, user=pwd.getpwuid(os.geteuid()).pw_name))
    with subprocess.Popen(("nginx", "-c", f"{folder}/nginx.conf"), stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
            yield f"http://127.0.0.1:{port}/big"
        finally:
            process.terminate()


def compare(name: str, seconds: Callable[[bool], float]) -> None:
    """Print the throughput outside and inside, where *seconds* takes whether it is inside, and the ratio."""
    ratios = []
    for _ in range(ROUNDS):
        direct, through = seconds(False), seconds(True)  # noqa: FBT003 - it is the only argument
        ratios.append(direct / through)
        print(f"direct {SIZE / direct / 1e9:5.2f} GB/s   through the filter {SIZE / through / 1e9:5.2f} GB/s")
    print(f"{name}: throughput through the filter / direct: {statistics.median(ratios):.2f}")


def main() -> None:
    """Measure and print."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
    port = listening.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, allowed_domains=("127.0.0.1",))
        policy = build_policy(settings, cwd=folder, environ={}, codex_home=f"{folder}/.codex")
        inside, outside = LinuxLauncher(policy, HelperForge()), DirectLauncher()

        def seconds(argv: Sequence[str], *, confined: bool) -> float:
            command = Command(tuple(argv), folder, {"PATH": os.environ["PATH"]})
            result = run(inside if confined else outside, command, timeout=120)
            assert result.returncode == 0, result.stderr  # noqa: S101 - a measurement of something else
            return float(result.stdout)

        def receive(size: int, count: int, *, confined: bool) -> float:
            words = ("127.0.0.1", str(port), "13128" if confined else "", str(size), str(count))
            return seconds((sys.executable, "-I", "-S", "-c", CLIENT, *words), confined=confined)

        compare("a pair that only sends and receives", lambda confined: receive(SIZE, 1, confined=confined))
        if shutil.which("nginx") and shutil.which("curl"):
            with nginx(folder) as url:
                curl = ("curl", "--silent", "--fail", "--output", os.devnull, "--write-out", "%{time_total}", url)
                compare("curl and nginx", lambda confined: seconds(curl, confined=confined))
        direct, through = receive(1, 500, confined=False), receive(1, 500, confined=True)
        print(f"one connection: direct {direct * 2:.2f} ms, through the filter {through * 2:.2f} ms")
        inside.close()


if __name__ == "__main__":
    main()
