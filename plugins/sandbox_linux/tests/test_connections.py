"""Sockets: those of the command's own work, those of programs outside are not reached, whatever is tried."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from codex_core.types import Operation, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.sandbox_linux.tests.conftest import Box, Fifo, Listener

NETWORKS = pytest.mark.parametrize("network", [False, True], ids=["offline", "online"])
KINDS = pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET"])

# What every program here begins with.
COMMON = """
import ctypes, errno, os, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def server(address, kind=socket.SOCK_STREAM, backlog=8):
    made = socket.socket(socket.AF_UNIX, kind); made.bind(address); made.listen(backlog); return made
def client(address, kind=socket.SOCK_STREAM):
    made = socket.socket(socket.AF_UNIX, kind); made.settimeout(10); made.connect(address); return made
def patient(address):
    made = socket.socket(socket.AF_UNIX); made.connect(address); return made
def talk(listening, address, kind=socket.SOCK_STREAM):
    mine = client(address, kind); theirs, _ = listening.accept(); mine.send(b'x'); assert theirs.recv(1) == b'x'
def attempt(*arguments):
    try: client(*arguments); print('reached')
    except OSError as error: print(errno.errorcode[error.errno])
"""


def works(box: Box, source: str, *words: str, network: bool = False) -> None:
    """Check that a program succeeds without the sandbox, and within it."""
    free = box.free_py(COMMON + source, *words)
    assert free.returncode == 0, free.stderr
    box.renew()
    box.open(network=network, forge="helper")
    result = box.py(COMMON + source, *words)
    assert (result.returncode, result.stdout) == (0, free.stdout), result.stderr
    assert result.denials == ()


# Own sockets


@KINDS
@pytest.mark.parametrize(
    ("setup", "bound", "connected"),
    [
        ("", "ws + '/socket'", "ws + '/socket'"),
        ("", "'socket'", "'socket'"),
        ("", "'socket'", "'./../ws/socket'"),
        ("", "'\\0own'", "'\\0own'"),
        ("", "b'\\0own\\0with\\xffbytes'", "b'\\0own\\0with\\xffbytes'"),
        ("os.symlink('.', 'link')", "'socket'", "ws + '/link/socket'"),
        ("os.symlink('socket', 'link')", "'socket'", "'link'"),
        ("os.mkdir('sub')", "'socket'", "(os.chdir('sub'), '../socket')[1]"),
        ("os.symlink(ws, 'absolute')", "'socket'", "'absolute/socket'"),
        ("", "'socket'", "'/proc/self/cwd/socket'"),
        ("", "'socket'", "(os.rename('socket', 'moved'), 'moved')[1]"),
        ("", "'socket'", "(os.link('socket', 'linked'), 'linked')[1]"),
        ("os.mkdir('/dev/shm/d')", "'/dev/shm/d/socket'", "'/dev/shm/d/socket'"),
        ("", "b'\\xff\\xfe'", "b'\\xff\\xfe'"),
    ],
)
def test_sockets_of_its_own_are_reached(any_box: Box, setup: str, bound: str, connected: str, kind: str) -> None:
    any_box.open()
    source = f"{setup}\nkind = socket.{kind}\nlistening = server({bound}, kind)\ntalk(listening, {connected}, kind)"
    result = any_box.py(COMMON + source)
    assert result.returncode == 0, result.stderr
    assert result.denials == ()


def test_a_program_that_was_forked_before_reaches_the_server_of_its_parent(box: Box) -> None:
    works(box, """
ready, go = os.pipe()
if os.fork() == 0:
    os.read(ready, 1); client('socket').send(b'child'); os._exit(0)
listening = server('socket')
os.write(go, b'.')
print(listening.accept()[0].recv(5), os.wait()[1])
""")  # fmt: skip


def test_threads_reach_a_server_at_the_same_time(box: Box) -> None:
    works(box, """
listening = server('socket', backlog=300)
done = []
def work():
    for _ in range(10): client('socket'); done.append(1)
threads = [threading.Thread(target=work) for _ in range(20)]
for thread in threads: thread.start()
for _ in range(200): listening.accept()
for thread in threads: thread.join()
print(len(done))
""")  # fmt: skip


def test_a_full_queue_makes_a_blocking_client_wait_and_a_non_blocking_one_go_on(box: Box) -> None:
    works(box, """
listening = server('socket', backlog=0)
first = client('socket')
impatient = socket.socket(socket.AF_UNIX); impatient.setblocking(False)
try: impatient.connect('socket')
except BlockingIOError as error: print(error.errno == errno.EAGAIN)
state = []
def wait():
    made = patient('socket'); state.append('connected'); made.send(b'p')
thread = threading.Thread(target=wait); thread.start()
time.sleep(0.2); print(state)
listening.accept()
thread.join(); print(state, listening.accept()[0].recv(1))
""")  # fmt: skip


def test_errors_of_own_sockets_are_the_usual_ones(box: Box) -> None:
    box.open()
    result = box.py(COMMON + "attempt('missing')\nopen('file', 'w').close()\nattempt('file/below')")
    assert result.stdout == b"ENOENT\nENOTDIR\n"
    result = box.py(
        COMMON
        + "s = socket.socket(socket.AF_UNIX)\n"
        + "for a, n in ((None, 4), (b'\\1\\0x', 1), (b'\\1\\0x', 4096), (ctypes.c_void_p(4096), 16)):\n"
        + "    print(libc.connect(s.fileno(), a, n), ctypes.get_errno() != 0)\n"
        + "print(libc.connect(999, b'\\1\\0x', 4), errno.errorcode[ctypes.get_errno()])"
    )
    assert result.stdout == b"-1 True\n" * 4 + b"-1 EBADF\n"
    address = "struct.pack('<H', 2) + b'socket' + bytes(8)"
    source = (
        f"s = socket.socket(socket.AF_UNIX); made = server('socket'); print(libc.connect(s.fileno(), {address}, 16))"
    )
    result = box.py(COMMON + source + "\nprint(errno.errorcode[ctypes.get_errno()])")
    assert (result.stdout, result.denials) == (b"-1\nEINVAL\n", ()), "an address of another family"


def test_pairs_of_sockets_work_and_asyncio_with_them(box: Box) -> None:
    works(box, """
one, other = socket.socketpair(); one.send(b'x'); assert other.recv(1) == b'x'
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); one.send(b'x'); assert other.recv(1) == b'x'
import asyncio
async def main():
    async def serve(reader, writer): writer.write(await reader.readline()); await writer.drain(); writer.close()
    await asyncio.start_unix_server(serve, 'socket')
    reader, writer = await asyncio.open_unix_connection('socket')
    writer.write(b'line\\n'); print(await reader.readline())
    writer.close()
asyncio.run(main())
""")  # fmt: skip


def test_multiprocessing_managers_work(box: Box) -> None:
    works(box, """
import multiprocessing
manager = multiprocessing.get_context('fork').Manager()
numbers = manager.dict(); numbers['a'] = 1; print(numbers['a']); manager.shutdown()
""")  # fmt: skip


# Sockets of programs outside


@NETWORKS
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize(
    ("place", "setup", "address"),
    [
        ("outside", "", "path"),
        ("outside", "os.chdir(outside)", "'socket'"),
        ("outside", "os.chdir(outside)", "'/proc/self/cwd/socket'"),
        ("outside", "os.symlink(path, ws + '/link')", "ws + '/link'"),
        ("outside", "os.symlink(outside, ws + '/folder')", "ws + '/folder/socket'"),
        ("outside", "folder = os.open(outside, os.O_PATH)", "'/proc/self/fd/%d/socket' % folder"),
        ("outside", "target = os.open(path, os.O_PATH)", "'/proc/self/fd/%d' % target"),
        ("outside", "", "'/proc/self/root' + path"),
        ("outside", "", "'/proc/thread-self/root' + path"),
        ("outside", "own = server(ws + '/own'); os.unlink(ws + '/own'); os.symlink(path, ws + '/own')", "ws + '/own'"),
        ("ws", "", "path"),
        ("ws", "os.chdir(ws)", "'socket'"),
        ("ws", "own = server(ws + '/own'); os.rename(path, ws + '/own')", "ws + '/own'"),
        ("ws", "os.link(path, ws + '/hard')", "ws + '/hard'"),
    ],
)
def test_a_socket_of_the_host_is_not_reached(  # noqa: PLR0913, PLR0917 - a table
    any_box: Box,
    listen: Callable[..., Listener],
    kind: socket.SocketKind,
    place: str,
    setup: str,
    address: str,
    *,
    network: bool,
) -> None:
    path = os.path.join(any_box.base, place, "socket")
    source = COMMON + f"path = sys.argv[1]\n{setup}\nattempt({address}, {int(kind)})"
    host = listen(socket.AF_UNIX, kind, path)
    assert any_box.free_py(source, path).stdout == b"reached\n"
    assert host.reached()
    any_box.renew()
    host = listen(socket.AF_UNIX, kind, path)
    any_box.open(network=network)
    result = any_box.py(source, path)
    assert not host.reached()
    if "/proc/" in address:  # "self" is nobody where the supervisor looks
        assert result.stdout in {b"EACCES\n", b"ENOENT\n"}, result.stderr
        return
    assert result.stdout == b"EACCES\n", result.stderr
    (denial,) = result.denials
    real = "own" if "rename" in setup else "hard" if "hard" in setup else "socket"
    assert (denial.operation, denial.target) == (Operation.CONNECT, os.path.join(any_box.base, place, real))


@NETWORKS
@pytest.mark.parametrize("mode", [SandboxMode.READ_ONLY, SandboxMode.WORKSPACE_WRITE])
def test_users_and_modes_make_no_difference(
    box: Box, listen: Callable[..., Listener], mode: SandboxMode, *, network: bool
) -> None:
    path = os.path.join(box.outside, "socket")
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
    assert box.free_py(COMMON + "attempt(sys.argv[1])", path).stdout == b"reached\n"
    assert host.reached()
    box.open(mode, network=network)
    assert box.py(COMMON + "attempt(sys.argv[1])", path).stdout == b"EACCES\n"
    assert not host.reached()


@NETWORKS
@KINDS
def test_an_abstract_socket_of_the_host_is_not_reached(
    box: Box, listen: Callable[..., Listener], kind: str, *, network: bool
) -> None:
    name = f"codex-test-{os.getpid()}-{kind}-{network}"
    host = listen(socket.AF_UNIX, getattr(socket, kind), "\0" + name)
    source = COMMON + f"attempt('\\0' + sys.argv[1], socket.{kind})"
    assert box.free_py(source, name).stdout == b"reached\n"
    assert host.reached()
    box.open(network=network)
    result = box.py(source, name)
    assert result.stdout == b"EACCES\n"
    assert not host.reached()
    assert [denial.target for denial in result.denials] == ["@" + name]


def test_a_socket_that_the_host_binds_while_the_command_runs_is_not_reached(
    box: Box, fifo: Callable[[str], Fifo], listen: Callable[..., Listener]
) -> None:
    pipe = fifo(f"{box.ws}/pipe")
    path = f"{box.ws}/socket"
    source = (
        COMMON
        + """
open(sys.argv[1], 'w').write('.')
while not os.path.exists(ws + '/socket'): time.sleep(0.01)
time.sleep(0.1)
with open(ws + '/result', 'w') as sys.stdout: attempt(ws + '/socket')
"""
    )
    box.open()
    box.start(box.program(source, pipe.path))
    assert pipe.read()
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
    ended, denials = box.wait()
    assert ended is not None
    assert not host.reached()
    with open(f"{box.ws}/result", encoding="utf-8") as file:
        assert file.read() == "EACCES\n"
    assert [denial.target for denial in denials] == [path]


def test_the_path_of_an_own_socket_is_worth_nothing_once_the_host_has_it(
    box: Box, fifo: Callable[[str], Fifo], listen: Callable[..., Listener]
) -> None:
    """The file may even have the number of the one before: the socket that listened there is what counts."""
    pipe = fifo(f"{box.ws}/pipe")
    source = (
        COMMON
        + """
own = server(ws + '/socket'); talk(own, ws + '/socket'); own.close(); os.unlink(ws + '/socket')
open(sys.argv[1], 'w').write('.')
while not os.path.exists(ws + '/socket'): time.sleep(0.01)
time.sleep(0.1)
with open(ws + '/result', 'w') as sys.stdout: attempt(ws + '/socket')
"""
    )
    box.open()
    box.start(box.program(source, pipe.path))
    box.drive(pipe)
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{box.ws}/socket")
    assert box.wait()[0] is not None
    assert not host.reached()
    with open(f"{box.ws}/result", encoding="utf-8") as file:
        assert file.read() == "EACCES\n"


def test_sockets_of_an_earlier_command_are_foreign(box: Box) -> None:
    box.open()
    assert box.py(COMMON + "server(ws + '/socket'); server('\\0name')").returncode == 0
    assert box.py(COMMON + "attempt(ws + '/socket')\nattempt('\\0name')").stdout in {
        b"EACCES\nEACCES\n",
        b"ECONNREFUSED\n" * 2,
    }


RACE_ADDRESS = """
path = sys.argv[1].encode(); own = (ws + '/own').encode()
listening = server(own.decode(), backlog=4096)
size = max(len(path), len(own)) + 3
fill = lambda name: struct.pack('<H', 1) + name + bytes(size - 2 - len(name))
good, bad = fill(own), fill(path)
shared = ctypes.create_string_buffer(good, size)
stop = False
def flip():
    while not stop:
        ctypes.memmove(shared, bad, size); ctypes.memmove(shared, good, size)
thread = threading.Thread(target=flip); thread.start()
begun = time.monotonic(); counts = {}
while time.monotonic() < begun + 1 or (time.monotonic() < begun + 10 and not {'connected', 'EACCES'} <= counts.keys()):
    caller = socket.socket(socket.AF_UNIX)
    result = libc.connect(caller.fileno(), shared, size)
    key = 'connected' if result == 0 else errno.errorcode[ctypes.get_errno()]
    counts[key] = counts.get(key, 0) + 1
    caller.close()
    if result == 0: listening.accept()[0].close()
stop = True; thread.join()
print(*counts)
"""


def test_changing_the_address_during_the_call_reaches_nothing(box: Box, listen: Callable[..., Listener]) -> None:
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(box.outside, "socket"))
    box.open(forge="helper")
    result = box.py(COMMON + RACE_ADDRESS, host.address)
    assert result.returncode == 0, result.stderr
    assert {b"connected", b"EACCES"} <= set(result.stdout.split()), "both addresses were seen"
    assert not host.reached()


RACE_DESCRIPTOR = """
path = sys.argv[1]
own = ws + '/own'
listening = server(own, backlog=4096)
stop = False
number = 200
def swap():
    while not stop:
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            made = socket.socket(socket.AF_UNIX, kind); os.dup2(made.fileno(), number); made.close()
thread = threading.Thread(target=swap)
first = socket.socket(socket.AF_UNIX)
os.dup2(first.fileno(), number)
thread.start()
end = time.monotonic() + 1; counts = {}
turn = 0
while time.monotonic() < end:
    turn += 1
    name = (own if turn % 2 else path).encode()
    address = struct.pack('<H', 1) + name + b'\\0'
    result = libc.connect(number, address, len(address))
    key = 'connected' if result == 0 else errno.errorcode[ctypes.get_errno()]
    counts[key] = counts.get(key, 0) + 1
    if result == 0: listening.accept()[0].close()
stop = True; thread.join()
print(*counts)
"""


def test_swapping_the_descriptor_during_the_call_reaches_nothing(box: Box, listen: Callable[..., Listener]) -> None:
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(box.outside, "socket"))
    box.open(forge="helper")
    result = box.py(COMMON + RACE_DESCRIPTOR, host.address)
    assert result.returncode == 0, result.stderr
    assert b"EACCES" in result.stdout
    assert not host.reached()


RACE_PATH = """
path = sys.argv[1]
listening = server(ws + '/own', backlog=4096)
os.symlink(path, ws + '/bad'); os.link(ws + '/own', ws + '/good')
os.link(ws + '/own', ws + '/name')
stop = False
def swap():
    turn = 0
    while not stop:
        turn += 1
        os.symlink(path, ws + '/t'); os.rename(ws + '/t', ws + '/name')
        os.link(ws + '/own', ws + '/t'); os.rename(ws + '/t', ws + '/name')
thread = threading.Thread(target=swap); thread.start()
begun = time.monotonic(); counts = {}
while time.monotonic() < begun + 1 or (time.monotonic() < begun + 10 and not {'connected', 'EACCES'} <= counts.keys()):
    caller = socket.socket(socket.AF_UNIX)
    try: caller.connect(ws + '/name'); listening.accept()[0].close(); key = 'connected'
    except OSError as error: key = errno.errorcode[error.errno]
    counts[key] = 1
    caller.close()
stop = True; thread.join()
print(*counts)
"""


def test_swapping_what_the_path_names_during_the_call_reaches_nothing(
    box: Box, listen: Callable[..., Listener]
) -> None:
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(box.outside, "socket"))
    box.open(forge="helper")
    result = box.py(COMMON + RACE_PATH, host.address)
    assert result.returncode == 0, result.stderr
    assert {b"connected", b"EACCES"} <= set(result.stdout.split())
    assert not host.reached()


@NETWORKS
@pytest.mark.parametrize(
    "source",
    [
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', path)",
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(path); s.send(b'x')",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'x', path)",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.connect(path); a.send(b'x')",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendmsg([b'x'], [], 0, path)",
        "f = libc.socket(0x1_0000_0001, 2, 0); socket.socket(fileno=f).sendto(b'x', path)",
        "f = libc.socket(1, 3, 0); socket.socket(fileno=f).sendto(b'x', path)",
    ],
)
def test_datagrams_to_the_host_are_not_sent(
    any_box: Box, listen: Callable[..., Listener], source: str, *, network: bool
) -> None:
    path = os.path.join(any_box.outside, "socket")
    host = listen(socket.AF_UNIX, socket.SOCK_DGRAM, path)
    source = COMMON + "path = sys.argv[1]\nlibc.socket.argtypes = (ctypes.c_ulong,) * 3\n" + source
    assert any_box.free_py(source, path).returncode == 0
    assert host.reached()
    any_box.open(network=network)
    assert any_box.py(source, path).returncode != 0
    assert not host.reached()


def test_ends_of_own_pairs_cannot_be_turned_to_the_host(any_box: Box, listen: Callable[..., Listener]) -> None:
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(any_box.outside, "socket"))
    source = (
        COMMON
        + """
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    for call in (
        lambda: a.connect(sys.argv[1]),
        lambda: a.sendto(b'x', sys.argv[1]),
        lambda: a.sendmsg([b'x'], [], 0, sys.argv[1]),
    ):
        try: call()
        except OSError: pass
"""
    )
    any_box.open()
    any_box.py(source, host.address)
    assert not host.reached()


# Sockets that are handed in, and belong to the network of the host

LISTED = pytest.mark.parametrize("domains", [(), ("allowed.test",)], ids=["offline", "filtered"])


def handed(box: Box, source: str, family: int, kind: int, *words: str) -> str:
    """Run a program on a socket of the host's, ``handed``; what it prints."""
    source = COMMON + "handed = socket.socket(fileno=0); sys.stdout = open(ws + '/result', 'w')\n" + source
    box.ask("start_on_socket", box.command(box.program(source, *words)), family, kind)
    assert box.wait()[0] is not None
    with open(f"{box.ws}/result", encoding="utf-8") as file:
        return file.read()


@LISTED
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_that_was_handed_in_is_not_connected(
    box: Box, listen: Callable[..., Listener], family: socket.AddressFamily, domains: tuple[str, ...]
) -> None:
    host = listen(family, socket.SOCK_STREAM, ("127.0.0.1" if family is socket.AF_INET else "::1", 0))
    source = """
try: handed.connect((sys.argv[1], int(sys.argv[2]))); print('reached')
except OSError as error: print(errno.errorcode[error.errno])
"""
    words = tuple(map(str, host.address[:2]))
    assert handed(box, source, family, socket.SOCK_STREAM, *words) == "reached\n"
    assert host.reached()
    box.open(allowed_domains=domains)
    assert handed(box, source, family, socket.SOCK_STREAM, *words) == "EACCES\n"
    assert not host.reached()


@LISTED
def test_a_socket_that_was_handed_in_does_not_listen(box: Box, domains: tuple[str, ...]) -> None:
    source = """
try: handed.listen(); print('listens')
except OSError as error: print(errno.errorcode[error.errno])
"""
    assert handed(box, source, socket.AF_INET, socket.SOCK_STREAM) == "listens\n"
    box.open(allowed_domains=domains)
    assert handed(box, source, socket.AF_INET, socket.SOCK_STREAM) == "EACCES\n"


@NETWORKS
def test_an_abstract_name_of_its_own_means_nothing_to_a_socket_that_was_handed_in(
    box: Box, listen: Callable[..., Listener], *, network: bool
) -> None:
    name = f"codex-test-{os.getpid()}-handed-{network}"
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + name)
    source = """
try: own = server('\\0' + sys.argv[1]); talk(own, '\\0' + sys.argv[1])
except OSError as error: print(errno.errorcode[error.errno])
try: handed.connect('\\0' + sys.argv[1]); print('reached')
except OSError as error: print(errno.errorcode[error.errno])
"""
    assert handed(box, source, socket.AF_UNIX, socket.SOCK_STREAM, name) == "EADDRINUSE\nreached\n"
    assert host.reached()
    box.open(network=network)
    expected = "EADDRINUSE\nEACCES\n" if network else "EACCES\n"
    assert handed(box, source, socket.AF_UNIX, socket.SOCK_STREAM, name) == expected
    assert not host.reached()


# Internet sockets


def test_servers_and_clients_of_its_own_work_while_the_network_is_off(box: Box) -> None:
    works(box, """
import asyncio
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    listening = socket.create_server((host, 0), family=family)
    mine = socket.create_connection(listening.getsockname()[:2], 5); mine.send(b'x')
    print(listening.accept()[0].recv(1))
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); datagram.bind(('127.0.0.1', 0))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'd', datagram.getsockname()); print(datagram.recv(1))
async def main():
    async def serve(reader, writer): writer.write(await reader.readline()); await writer.drain(); writer.close()
    made = await asyncio.start_server(serve, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*made.sockets[0].getsockname())
    writer.write(b'line\\n'); print(await reader.readline()); writer.close()
asyncio.run(main())
""")  # fmt: skip


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_loopback_of_the_host_is_not_reached_while_the_network_is_off(
    box: Box, listen: Callable[..., Listener], family: socket.AddressFamily, kind: socket.SocketKind
) -> None:
    host = listen(family, kind, ("127.0.0.1" if family is socket.AF_INET else "::1", 0))
    source = COMMON + (
        "family, kind, host, port = sys.argv[1:]\n"
        "s = socket.socket(int(family), int(kind)); s.connect((host, int(port))); s.send(b'x')"
    )
    words = (str(int(family)), str(int(kind)), *map(str, host.address[:2]))
    assert box.free_py(source, *words).returncode == 0
    assert host.reached()
    box.open()
    box.py(source, *words)
    assert not host.reached()
    box.open(network=True)
    assert box.py(source, *words).returncode == 0, "with the network on it is"
    assert host.reached()


@pytest.mark.parametrize("blocking", [True, False])
def test_with_the_network_on_a_refused_connection_is_refused_as_usual(any_box: Box, *, blocking: bool) -> None:
    works(any_box, f"""
closed = socket.create_server(('127.0.0.1', 0)); address = closed.getsockname(); closed.close()
caller = socket.socket(); caller.setblocking({blocking})
try: caller.connect(address)
except BlockingIOError:
    import select
    select.select([], [caller], [], 5); print(errno.errorcode[caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
except OSError as error: print(errno.errorcode[error.errno])
print(caller.getblocking(), os.get_blocking(caller.fileno()))
""", network=True)  # fmt: skip


def test_with_the_network_on_a_blocking_connection_that_takes_time_is_made(
    any_box: Box, listen: Callable[..., Listener]
) -> None:
    """A full queue makes TCP try again; the program waits, and nobody else does."""
    host = listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    any_box.open(network=True)
    source = (
        COMMON
        + """
made = [socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10) for _ in range(50)]
print(len(made))
"""
    )
    assert any_box.py(source, str(host.address[1])).stdout == b"50\n"


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        (17, 3, 0),
        (16, 3, 4),
        (16, 3, 9),
        (40, 1, 0),
        (38, 5, 0),
        (0x1_0000_0011, 3, 0),
        (0x1_0000_0028, 1, 0),
        (2, 3, 1),
    ],
    ids=["packet", "sock_diag", "audit", "vsock", "alg", "packet high", "vsock high", "raw"],
)
@NETWORKS
def test_odd_sockets_are_not_made(any_box: Box, family: int, kind: int, protocol: int, *, network: bool) -> None:
    source = (
        COMMON + f"libc.socket.argtypes = (ctypes.c_ulong,) * 3\nprint(libc.socket({family}, {kind}, {protocol}) >= 0)"
    )
    free = any_box.free_py(source)
    if free.stdout != b"True\n":
        pytest.skip("this host does not make it either")
    any_box.open(network=network)
    assert any_box.py(source).stdout == b"False\n"


# Supervision


def test_a_caller_that_is_killed_while_it_connects_leaves_nothing(box: Box) -> None:
    source = (
        COMMON
        + """
import signal
listening = server('socket', backlog=0); client('socket')
pids = []
for _ in range(20):
    pid = os.fork()
    if pid == 0: patient('socket'); os._exit(0)
    pids.append(pid)
time.sleep(0.3)
for pid in pids: os.kill(pid, signal.SIGKILL)
print([os.waitpid(pid, 0)[1] for pid in pids] == [9] * 20)
listening.accept(); patient('socket'); print('works')
"""
    )
    box.open(forge="helper")
    box.py(COMMON + "talk(server('first'), 'first')")
    before = box.census()
    result = box.py(source)
    assert result.stdout == b"True\nworks\n", result.stderr
    assert box.census() == before


def test_a_signal_interrupts_or_restarts_a_connect_as_usual(box: Box) -> None:
    source = (
        COMMON
        + """
import signal
listening = server('socket', backlog=0); client('socket')
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
def accept():
    time.sleep(0.5); listening.accept()
thread = threading.Thread(target=accept); thread.start()
patient('socket'); print('connected')
signal.setitimer(signal.ITIMER_REAL, 0); thread.join()
"""
    )
    box.open(forge="helper")
    assert box.py(source).stdout == b"connected\n"


def test_a_timeout_ends_a_command_that_waits_in_connect(box: Box) -> None:
    box.open(forge="helper")
    result = box.run(
        box.program(COMMON + "s = server('socket', backlog=0); client('socket'); patient('socket')"), timeout=1
    )
    assert result.timed_out
    assert result.returncode == 128 + signal.SIGKILL
    assert box.py(COMMON + "talk(server('other'), 'other')").returncode == 0


def test_a_hundred_denials_are_kept_and_the_rest_is_denied_too(box: Box, listen: Callable[..., Listener]) -> None:
    name = f"codex-test-{os.getpid()}-many"
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + name)
    box.open()
    result = box.py(COMMON + f"for number in range(150): attempt('\\0{name}-%d' % number)\nattempt('\\0{name}')")
    assert result.stdout == b"EACCES\n" * 151
    assert [denial.target for denial in result.denials] == [f"@{name}-{number}" for number in range(100)]
    assert not host.reached()


def test_of_the_connects_that_wait_sixty_four_are_kept_and_the_rest_go_on(box: Box) -> None:
    box.open(forge="helper")
    source = """
listening = server('socket', backlog=0); client('socket')
failed = []
def wait():
    try: patient('socket')
    except OSError as error: failed.append(errno.errorcode[error.errno])
for _ in range(70): threading.Thread(target=wait, daemon=True).start()
deadline = time.monotonic() + 10
while len(failed) < 6 and time.monotonic() < deadline: time.sleep(0.01)
time.sleep(0.2)
print(*failed, flush=True); os._exit(0)
"""
    assert box.py(COMMON + source).stdout == b"EAGAIN EAGAIN EAGAIN EAGAIN EAGAIN EAGAIN\n"


def test_a_command_whose_sockets_linger_in_the_supervisor_is_ended_and_nothing_hangs(box: Box) -> None:
    """Closed by the program while the supervisor holds it, a socket with unsent data is the supervisor's to close."""
    source = """
listening = socket.create_server(('127.0.0.1', 0)); address = listening.getsockname()
raw = struct.pack('<H', 2) + address[1].to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8)
peers = []
for _ in range(100):
    made = socket.create_connection(address); peers.append(listening.accept()[0])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 20)); made.setblocking(False)
    try:
        while True: made.send(bytes(1 << 20))
    except BlockingIOError: pass
    number = made.fileno()
    def ask():
        while libc.connect(number, raw, 16) and ctypes.get_errno() != errno.EBADF: pass
    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking: thread.start()
    time.sleep(0.005); made.detach(); threading.Thread(target=os.close, args=(number,), daemon=True).start()
    for thread in asking: thread.join()
print('all', flush=True); os._exit(0)
"""
    box.open(forge="helper")
    result = box.py(COMMON + source)
    assert (result.returncode, result.stdout) == (128 + signal.SIGKILL, b""), result
    assert box.py("print('next')").stdout == b"next\n"


def test_a_program_that_hides_its_memory_is_refused(box: Box, listen: Callable[..., Listener]) -> None:
    host = listen(socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(box.outside, "socket"))
    box.open()
    result = box.py(COMMON + "libc.prctl(4, 0, 0, 0, 0)\nattempt(sys.argv[1])", host.address)
    assert result.stdout == b"EACCES\n"
    assert not host.reached()
