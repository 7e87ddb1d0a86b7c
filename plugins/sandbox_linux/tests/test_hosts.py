"""Hosts that cannot do everything: what is kept is kept, what is lost is said, and nothing is weakened in silence."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import SandboxUnavailableError
from codex_core.types import Promise, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.sandbox_linux.tests.conftest import Box, Listener

FLOOR_LOSES = {
    *(Promise.METADATA, Promise.PROTECTED_PATHS, Promise.PROCESS_TREE, Promise.PROCESSES, Promise.IPC),
    *(Promise.LOOPBACK, Promise.DEVICES),
}
NO_NAMESPACES = pytest.mark.parametrize("features", ["namespaces", "mounts"])
ACCEPTED = ("protected_paths",)


def test_this_host_keeps_every_promise(box: Box) -> None:
    """What the tests of weaker hosts are compared with."""
    strength = box.open()
    assert strength.rung == "namespaces"
    assert set(strength.lost) <= {Promise.PROCESSES}, "only /proc may not be replaceable, as in containers"


@NO_NAMESPACES
@pytest.mark.parametrize("forge", ["local", "helper"])
def test_without_namespaces_workspace_write_is_refused_with_one_line_that_names_the_cure(
    box_without: Callable[[str], Box], features: str, forge: str
) -> None:
    box = box_without(features)
    with pytest.raises(SandboxUnavailableError) as caught:
        box.open(forge=forge)
    message = str(caught.value)
    assert "\n" not in message
    assert "allow user namespaces" in message
    assert 'allow_degraded = ["protected_paths"]' in message
    assert "Operation not permitted" in message or "Permission denied" in message, "and says what was refused"


@NO_NAMESPACES
def test_without_namespaces_read_only_needs_no_leave(box_without: Callable[[str], Box], features: str) -> None:
    box = box_without(features)
    strength = box.open(SandboxMode.READ_ONLY)
    assert strength.rung == "floor"
    box.py("open(ws + '/file', 'w')")
    assert os.listdir(box.ws) == []


@NO_NAMESPACES
@pytest.mark.parametrize("forge", ["local", "helper"])
def test_the_floor_says_what_is_lost_and_keeps_the_rest(
    box_without: Callable[[str], Box], listen: Callable[..., Listener], features: str, forge: str
) -> None:
    box = box_without(features)
    strength = box.open(allow_degraded=ACCEPTED, forge=forge)
    assert (strength.rung, set(strength.lost)) == ("floor", FLOOR_LOSES)
    assert all("\n" not in reason for reason in strength.lost.values())
    box.write("outside/file", "original")
    unix = listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{box.outside}/socket")
    tcp = listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    attacks = [
        "open(outside + '/new', 'w')",
        "open(outside + '/file', 'w')",
        "os.truncate(outside + '/file', 0)",
        "os.unlink(outside + '/file')",
        "os.rename(outside + '/file', ws + '/file')",
        "os.link(outside + '/file', ws + '/file')",
        "socket.socket(socket.AF_UNIX).connect(outside + '/socket')",
        f"socket.create_connection(('127.0.0.1', {tcp.address[1]}))",
        f"os.kill({os.getpid()}, 0)",
        f"os.kill({box.owner.pid}, 0)",
        "open('/proc/%d/mem' % os.getppid())",
        "open('/proc/%d/environ' % os.getppid())",
        f"open('/proc/{box.owner.pid}/mem')",
        "os.readlink('/proc/%d/fd/3' % os.getppid())",
        "os.unshare(0x10000000) if hasattr(os, 'unshare') else os.chroot(ws)",
        "os.open('/dev/kmsg', os.O_WRONLY)",
    ]
    source = "import os, socket\n" + "".join(
        f"try: {attack}\nexcept OSError: pass\nelse: print({attack!r})\n" for attack in attacks
    )
    result = box.py(source)
    assert (result.returncode, result.stdout) == (0, b""), result.stderr
    assert not unix.reached()
    assert not tcp.reached()
    assert box.py("open(ws + '/new', 'w').write('x')").returncode == 0, "and work goes on"
    assert result.strength == strength, "every result says it"


def test_on_the_floor_own_unix_sockets_work(box_without: Callable[[str], Box]) -> None:
    box = box_without("namespaces")
    strength = box.open(allow_degraded=ACCEPTED)
    assert Promise.OWN_SOCKETS in strength.kept
    source = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('socket'); s.listen();"
        "c = socket.socket(socket.AF_UNIX); c.connect('socket'); c.send(b'x'); assert s.accept()[0].recv(1) == b'x'"
    )
    result = box.py(source)
    assert result.returncode == 0, result.stderr


def test_on_the_floor_the_network_is_reached_when_it_is_on_and_unix_sockets_are_not(
    box_without: Callable[[str], Box], listen: Callable[..., Listener]
) -> None:
    box = box_without("namespaces")
    tcp = listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    unix = listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{box.outside}/socket")
    name = f"codex-test-{os.getpid()}-floor-{box.user.uid}"
    abstract = listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + name)
    strength = box.open(allow_degraded=ACCEPTED, network=True)
    assert Promise.LOOPBACK in strength.kept
    assert box.py(f"import socket; socket.create_connection(('127.0.0.1', {tcp.address[1]}))").returncode == 0
    assert tcp.reached()
    assert box.py("import socket; socket.socket(socket.AF_UNIX).connect(outside + '/socket')").returncode != 0
    assert box.py(f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')").returncode != 0
    assert not unix.reached()
    assert not abstract.reached()


def test_on_the_floor_what_a_command_started_ends_with_it(box_without: Callable[[str], Box]) -> None:
    box = box_without("namespaces")
    box.open(allow_degraded=ACCEPTED)
    before = box.census()
    assert box.run(["sh", "-c", "setsid sleep 600 & (setsid sleep 600 &) ; exit 5"]).returncode == 5
    assert box.census() == before
    assert box.run(["sleep", "600"], timeout=0.3).timed_out
    assert box.run(["true"]).returncode == 0
    box.close()
    assert box.census()["processes"] == 0


@pytest.mark.parametrize("forge", ["local", "helper"])
@pytest.mark.parametrize("mode", [SandboxMode.READ_ONLY, SandboxMode.WORKSPACE_WRITE])
def test_without_landlock_everything_is_refused(
    box_without: Callable[[str], Box], forge: str, mode: SandboxMode
) -> None:
    box = box_without("landlock")
    with pytest.raises(SandboxUnavailableError, match="Landlock") as caught:
        box.open(mode, allow_degraded=tuple(Promise), forge=forge)
    assert "\n" not in str(caught.value)
    assert "lsm=" in str(caught.value), "with the cure"


@pytest.mark.parametrize("features", ["supervisor", "supervisor,namespaces"])
def test_under_another_supervisor_own_sockets_are_lost_and_foreign_ones_closed(
    box_without: Callable[[str], Box], listen: Callable[..., Listener], features: str
) -> None:
    box = box_without(features)
    strength = box.open(allow_degraded=ACCEPTED)
    lost = FLOOR_LOSES if "namespaces" in features else set()
    assert set(strength.lost) - {Promise.PROCESSES} == (lost | {Promise.OWN_SOCKETS}) - {Promise.PROCESSES}
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{box.outside}/socket")
    assert box.py("import socket; socket.socket(socket.AF_UNIX).connect(outside + '/socket')").returncode != 0
    assert not host.reached()
    pair = "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'"
    assert box.py(pair).returncode == 0, "pairs work"


def test_a_promise_that_may_be_lost_is_kept_where_it_can_be(box: Box) -> None:
    """allow_degraded accepts a loss, it does not ask for one."""
    strength = box.open(allow_degraded=tuple(Promise))
    assert strength.rung == "namespaces"
    assert Promise.PROTECTED_PATHS in strength.kept
