"""Attacks and ordinary work as a table: each tried without the sandbox first, then in every mode.

An attack that does nothing without the sandbox proves nothing and is skipped with that reason; a
program that did not begin inside proves nothing either and fails.
"""

# ruff: noqa: E501 - a row of the tables is one program

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from codex_core.types import SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codex_core.types import CommandResult

    from plugins.sandbox_linux.tests.conftest import Box, User

    Rooms = Callable[[str], Box]

FREE, READ_ONLY, OFFLINE, ONLINE = "without a sandbox", "read-only", "workspace-write", "workspace-write with network"
BEGIN = """
import ctypes, errno, fcntl, mmap, os, signal, socket, stat, struct, subprocess, sys, tempfile, threading, time
print('begun', flush=True)
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def write(path, text='changed'):
    with open(path, 'w') as file: file.write(text)
victim, port = map(int, sys.argv[1:3])
"""


@dataclass(frozen=True)
class Attack:
    """A program that must not change anything outside, reach a server, or say that it has got something."""

    name: str
    source: str
    machine: str = ""
    """The only processor that it is for; it uses its numbers of system calls."""
    modes: tuple[str, ...] = (READ_ONLY, OFFLINE, ONLINE)


ATTACKS = (
    Attack("a relative path upwards", "os.chdir(ws); write('../outside/new')"),
    Attack("through the root of the own process", "write('/proc/self/root' + outside + '/new')"),
    Attack("through the root of another process", "write(f'/proc/{victim}/root{outside}/new')"),
    Attack("through the folder of another process", "write(f'/proc/{victim}/cwd/new')"),
    Attack("through a descriptor of another process", "write(f'/proc/{victim}/fd/3')"),
    Attack("through a link to a folder", "os.symlink(outside, ws + '/l'); write(ws + '/l/new')", modes=(OFFLINE, ONLINE)),
    Attack("through a hard link", "os.link(outside + '/file', ws + '/l'); write(ws + '/l')", modes=(OFFLINE, ONLINE)),
    Attack("a file moved out", "write(ws + '/f'); os.rename(ws + '/f', outside + '/new')", modes=(OFFLINE, ONLINE)),
    Attack("a file moved in", "os.rename(outside + '/file', ws + '/f')"),
    Attack("a file exchanged", "write(ws + '/f'); call(316, -100, (outside + '/file').encode(), -100, (ws + '/f').encode(), 2)",
           "x86_64", (OFFLINE, ONLINE)),
    Attack("a nameless file linked outside", "d = os.open(ws, os.O_TMPFILE | os.O_RDWR, 0o644);"
           "os.link(f'/proc/self/fd/{d}', outside + '/new', src_dir_fd=d)", modes=(OFFLINE, ONLINE)),
    Attack("truncation by path", "os.truncate(outside + '/file', 0)"),
    Attack("a pipe made outside", "os.mkfifo(outside + '/new')"),
    Attack("a folder made outside", "os.mkdir(outside + '/new')"),
    Attack("a link made outside", "os.symlink('x', outside + '/new')"),
    Attack("a folder removed outside", "os.rmdir(outside + '/folder')"),
    Attack("a folder beside whose name begins alike", "write(ws + '-other/new')"),
    Attack("the workspace moved", "os.rename(ws, ws + '.old')"),
    Attack("inode flags", "d = os.open(outside + '/file', os.O_RDONLY); b = bytearray(8); fcntl.ioctl(d, 0x80086601, b);"
           "fcntl.ioctl(d, 0x40086602, struct.pack('<Q', struct.unpack('<Q', b)[0] | 0x40))"),
    Attack("a rights list", "os.setxattr(outside + '/file', 'user.codex', b'1')"),
    Attack("a folder that is now real and now a link", """
os.mkdir(ws + '/d'); os.symlink(outside, ws + '/s'); stop = False
def flip():
    while not stop:
        with contextlib.suppress(OSError):
            for a, b in (('d', 't'), ('s', 'd'), ('d', 's'), ('t', 'd')): os.rename(f'{ws}/{a}', f'{ws}/{b}')
import contextlib
thread = threading.Thread(target=flip); thread.start()
end = time.monotonic() + 0.7
while time.monotonic() < end:
    with contextlib.suppress(OSError): write(ws + '/d/new')
stop = True; thread.join()
""", modes=(OFFLINE, ONLINE)),
    Attack("start-up files of the shell", "write(home + '/.bashrc')"),
    Attack("units of the session", "os.makedirs(home + '/.config/systemd/user'); write(home + '/.config/systemd/user/x.service')"),
    Attack("programs in the path of the user", "os.makedirs(home + '/.local/bin'); write(home + '/.local/bin/git')"),
    Attack("a home that leads nowhere yet", "os.mkdir(os.path.realpath(home + '/nowhere')); write(home + '/nowhere/new')"),
    Attack("root changed and left", "d = os.open('/', os.O_RDONLY); os.chroot(ws); os.fchdir(d);"
           "[os.chdir('..') for _ in range(40)]; os.chroot('.'); write(outside + '/new')"),
    Attack("a user namespace", "call(272, 0x10000000); print('got')", "x86_64"),
    Attack("a user namespace by clone3", """
b = ctypes.create_string_buffer(struct.pack('<8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)
pid = call(435, b, 64)
if pid == 0: os._exit(0)
print('got')
"""),
    Attack("a file system mounted", "os.makedirs(ws + '/m', exist_ok=True); call(165, b'none', (ws + '/m').encode(), b'tmpfs', 0, 0);"
           "call(166, (ws + '/m').encode(), 2); print('got')", "x86_64", (OFFLINE, ONLINE)),
    Attack("the namespace of another process", "call(308, os.open(f'/proc/{victim}/ns/mnt', os.O_RDONLY), 0); print('got')", "x86_64"),
    Attack("memory of another process read", "open(f'/proc/{victim}/mem', 'rb'); print('got')"),
    Attack("memory of another process copied", """
b = ctypes.create_string_buffer(8); one = (ctypes.c_uint64 * 2)(ctypes.addressof(b), 8)
maps = open(f'/proc/{victim}/maps').readline().split('-')[0]; other = (ctypes.c_uint64 * 2)(int(maps, 16), 8)
call(310, victim, one, 1, other, 1, 0); print('got')
""", "x86_64"),
    Attack("the environment of another process", "print('got' if open(f'/proc/{victim}/environ', 'rb').read(1) else '')"),
    Attack("another process traced", "call(101, 16, victim, 0, 0); os.waitpid(victim, 0); call(101, 17, victim, 0, 0); print('got')", "x86_64"),
    Attack("another process stopped", "signal.pidfd_send_signal(os.pidfd_open(victim), 0); print('got')"),
    Attack("a descriptor of another process taken", "call(438, os.pidfd_open(victim), 1, 0); print('got')"),
    Attack("the processors of another process", "os.sched_setaffinity(victim, os.sched_getaffinity(victim)); print('got')"),
    Attack("a key in the ring of the user", "call(248, b'user', b'codex-test', b'x', 1, -2); print('got')", "x86_64"),
    Attack("io_uring", "call(425, 4, ctypes.create_string_buffer(120)); print('got')"),
    Attack("a map in the kernel", "call(321, 0, ctypes.create_string_buffer(struct.pack('<5I', 2, 4, 4, 1, 0), 72), 72); print('got')", "x86_64"),
    Attack("a socket of the x32 ABI", "call(0x40000000 | 41, 2, 1, 0); print('got')", "x86_64"),
    Attack("a server of the host, by TCP", "socket.create_connection(('127.0.0.1', port), 5)", modes=(READ_ONLY, OFFLINE)),
    Attack("a server of the host, by a mapped address", "socket.create_connection(('::ffff:127.0.0.1', port), 5)", modes=(READ_ONLY, OFFLINE)),
    Attack("a server of the host, with the first bytes", "socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', port)); time.sleep(.1)",
           modes=(READ_ONLY, OFFLINE)),
    Attack("the workspace in read-only mode", "write(ws + '/new'); print('got')", modes=(READ_ONLY,)),
    Attack("a file removed in read-only mode", "os.unlink(ws + '/kept'); print('got')", modes=(READ_ONLY,)),
)  # fmt: skip

WORK = {
    "shared memory": "from multiprocessing import shared_memory as m; s = m.SharedMemory(create=True, size=9); s.close(); s.unlink()",
    "a database": """
import sqlite3
d = sqlite3.connect(ws + '/x.db'); d.execute('pragma journal_mode=wal'); d.execute('create table t(a)'); d.commit()
sqlite3.connect(ws + '/x.db').execute('select * from t')
""",
    "locks and maps": """
with open(ws + '/f', 'w+b') as f:
    f.write(bytes(4096)); f.flush(); fcntl.flock(f, fcntl.LOCK_EX); m = mmap.mmap(f.fileno(), 0); m[:3] = b'new'; m.flush()
os.copy_file_range(os.open(ws + '/f', os.O_RDONLY), os.open(ws + '/g', os.O_WRONLY | os.O_CREAT), 99)
""",
    "a nameless file": "d = os.open(ws, os.O_TMPFILE | os.O_RDWR); os.link(f'/proc/self/fd/{d}', ws + '/n', src_dir_fd=d)",
    "times, modes, owners": "write(ws + '/f'); os.utime(ws + '/f', (1, 1)); os.chmod(ws + '/f', 0o755); os.chown(ws + '/f', os.getuid(), os.getgid())",
    "code made at run time": "mmap.mmap(-1, 4096, prot=7)[0] = 1",
    "a program in memory": "d = os.memfd_create('x', 0); os.write(d, open('/bin/true', 'rb').read()); subprocess.check_call([f'/proc/self/fd/{d}'], pass_fds=[d])",
    "processes in parallel": "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: assert p.map(abs, [-1, 2]) == [1, 2]",
    "a web server": """
import http.server, urllib.request
s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=s.serve_forever, daemon=True).start()
open_ = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
assert open_(f'http://127.0.0.1:{s.server_port}/').status == 200
""",
    "datagrams": """
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0)); socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', s.getsockname())
assert s.recv(9) == b'x'
""",
    "a socket in the workspace": """
s = socket.socket(socket.AF_UNIX); s.bind(ws + '/s'); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect(ws + '/s')
s.accept()[0].send(b'x'); assert c.recv(9) == b'x'
""",
    "a manager of processes": """
import multiprocessing as m
with m.get_context('fork').Manager() as manager: shared = manager.dict(); shared[1] = 2; assert shared[1] == 2
""",
    "a pseudo-terminal": """
import pty
pid, _ = pty.fork()
if pid == 0: os._exit(not os.isatty(0))
assert os.waitpid(pid, 0)[1] == 0
""",
    "an environment of its own": """
subprocess.check_call([sys.executable, '-m', 'venv', '--without-pip', ws + '/v'])
subprocess.check_call([ws + '/v/bin/python', '-c', 'import sys; assert sys.prefix != sys.base_prefix'])
""",
    "a debugger of its own child": """
pid = os.fork()
if pid == 0:
    call(101, 0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)
os.waitpid(pid, 0); call(101, 17, pid, 0, 0); os.waitpid(pid, 0)
""" if os.uname().machine == "x86_64" else "pass",
    "events": "import select; libc.inotify_init(); select.epoll(); os.eventfd(0)" if hasattr(os, "eventfd") else "pass",
    **{
        f"shell: {line}": f"subprocess.run(['bash', '-ec', {line!r}], check=True, cwd=ws)"
        for line in (
            "diff <(echo a) <(echo a) && echo x | cat /dev/stdin",
            "d=$(mktemp -d -p .); printf '#!/bin/sh\\necho ran' >$d/x; chmod +x $d/x; $d/x; rm -r $d",
            "printf '#!/bin/sh\\necho ran\\n' >s; chmod +x s; ./s",
            "echo 1 2 | awk '{print $2}' | xargs -n1 echo; timeout 2 true; env -i /bin/true; nohup true",
            "date; id; ps; hostname; getent hosts localhost; TZ=Europe/Berlin date",
            "mkdir -p a/b && cp -a a c && tar cf t.tar a && tar xf t.tar -C c && mv c d && rm -r a d && find . && grep -R x . || :",
            "git init -q new && cd new && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m m && git clone -q . ../copy",
            "printf 'int main(){return 0;}' >x.c; ! command -v gcc || { TMPDIR=$PWD gcc -o x x.c && ./x; }",
        )
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def rooms(user: User, make_box: Callable[[User], contextlib.AbstractContextManager[Box]]) -> Iterator[Rooms]:
    """Give ``rooms(mode)``: a workspace with an open launcher of that mode, kept for all tests of a user."""
    with contextlib.ExitStack() as stack:
        made: dict[str, Box] = {}

        def room(mode: str) -> Box:
            if mode not in made:
                made[mode] = stack.enter_context(make_box(user))
            if mode == FREE:
                made[mode].renew()
            elif made[mode].policy is None:
                sandbox_mode = SandboxMode.READ_ONLY if mode == READ_ONLY else SandboxMode.WORKSPACE_WRITE
                made[mode].open(sandbox_mode, network=mode == ONLINE, forge="helper")
            refill(made[mode])
            return made[mode]

        yield room


def refill(box: Box) -> None:
    """Bring the folders into their first state; they themselves stay, since they are mounted."""
    for folder in (box.ws, box.outside, box.home):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
    for name in ("later", "ws.old", "ws-other"):
        shutil.rmtree(f"{box.base}/{name}", ignore_errors=True)
    for path in ("ws/kept", "outside/file", "ws-other/file"):
        box.write(path)
    os.mkdir(f"{box.outside}/folder")
    os.symlink(f"{box.base}/later", f"{box.home}/nowhere")
    box.user.owns(box.base)


def witness(box: Box) -> dict[str, tuple[int, ...]]:
    """Give all that a command could change outside: everything below the base but the workspace's content."""
    seen: dict[str, tuple[int, ...]] = {}
    for folder, folders, files in os.walk(box.base):
        if folder == box.ws:
            folders.clear()
            continue
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            seen[path] = (status.st_ino, status.st_mode, 0 if path == box.ws else status.st_ctime_ns, status.st_uid)
    return seen


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Give a TCP server of the host's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
        yield listening


def run(box: Box, source: str, *words: str) -> CommandResult:
    return box.free_py(source, *words) if box.policy is None else box.py(source, *words)


def succeeds(box: Box, attack: Attack, server: socket.socket) -> tuple[bool, bytes]:
    """Run an attack; whether it got anything, and what it said."""
    with box.victim() as victim:
        before = witness(box)
        result = run(box, BEGIN + attack.source, str(victim), str(server.getsockname()[1]))
        assert result.stdout.startswith(b"begun\n"), result
        changed = witness(box) != before
    try:
        server.accept()[0].close()
        reached = True
    except BlockingIOError:
        reached = False
    return changed or reached or result.stdout.endswith(b"got\n"), result.stdout + result.stderr


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_an_attack_fails_in_every_mode(rooms: Rooms, attack: Attack, server: socket.socket) -> None:
    if attack.machine not in {"", os.uname().machine}:
        pytest.skip(f"written for {attack.machine}")
    works, said = succeeds(rooms(FREE), attack, server)
    if not works:
        pytest.skip(f"does nothing on this host: {said.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    for mode in attack.modes:
        works, said = succeeds(rooms(mode), attack, server)
        assert not works, (mode, said)


@pytest.mark.parametrize("work", list(WORK))
def test_ordinary_work_succeeds_in_the_workspace(rooms: Rooms, work: str) -> None:
    source = BEGIN + WORK[work]
    free = run(rooms(FREE), source, "0", "0")
    if free.returncode != 0:
        pytest.skip(
            f"does not work on this host: {free.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}"
        )
    for mode in (OFFLINE, ONLINE):
        result = run(rooms(mode), source, "0", "0")
        assert result.returncode == 0, (mode, result.stderr)


@pytest.mark.parametrize("mode", [READ_ONLY, OFFLINE, ONLINE])
def test_a_sane_program_runs_in_every_mode(rooms: Rooms, mode: str) -> None:
    """Or "blocked" would mean nothing."""
    assert rooms(mode).py(BEGIN, "0", "0").stdout == b"begun\n"
