"""What a command finds when it looks around: itself, and nothing of what is above it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import SandboxUnavailableError
from codex_core.types import SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.sandbox_linux.tests.conftest import Box, Fifo, Listener, User

FORGES = pytest.mark.parametrize("forge", ["local", "helper"])
MODES = pytest.mark.parametrize("mode", [SandboxMode.READ_ONLY, SandboxMode.WORKSPACE_WRITE])

LIST_DESCRIPTORS = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"


@FORGES
def test_no_descriptor_is_inherited(box: Box, forge: str) -> None:
    # The fourth is the folder that is being listed.
    assert box.free_py(LIST_DESCRIPTORS).stdout == b"[0, 1, 2, 3]\n"
    box.open(forge=forge)
    for _ in range(2):
        assert box.py(LIST_DESCRIPTORS).stdout == b"[0, 1, 2, 3]\n"
    many = box.run(box.program(LIST_DESCRIPTORS, "x" * 70_000))
    assert many.stdout == b"[0, 1, 2, 3]\n", "a command that does not fit into one packet comes in a file"


def test_what_the_jail_and_the_owner_hold_is_closed_in_their_children(box: Box) -> None:
    box.open()
    pids = [box.owner.pid]
    if os.geteuid() == 0:  # a jail shows its descriptors to nobody else
        pids += box.children()
    for pid in pids:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if int(name) > 2:
                with open(f"/proc/{pid}/fdinfo/{name}", encoding="ascii") as file:
                    flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
                assert flags & os.O_CLOEXEC, os.readlink(f"/proc/{pid}/fd/{name}")


CHANGE_STDIN = """
import os
try: os.fchmod(0, os.fstat(0).st_mode & 0o7777)
except OSError: changed = 'refused'
else: changed = 'changed'
open(ws + '/result', 'w').write(changed)
"""


def test_a_null_device_that_it_is_given_leads_to_no_device_of_the_host(any_box: Box) -> None:
    """A descriptor carries the mount that it was opened on, and root may change the mode of what is on it."""
    if os.geteuid() != 0:
        pytest.skip("the device belongs to root")
    result = os.path.join(any_box.ws, "result")
    for confined, expected in ((False, "changed"), (True, "refused")):
        if confined:
            any_box.open()
        any_box.start(any_box.program(CHANGE_STDIN))
        any_box.wait()
        with open(result, encoding="ascii") as file:
            assert file.read() == expected


def test_a_folder_as_its_input_is_refused_since_it_would_open_what_lies_below(box: Box) -> None:
    change = ["chmod", "700", "/proc/self/fd/0"]
    box.start(change, box.outside)
    box.wait()
    assert os.stat(box.outside).st_mode & 0o777 == 0o700
    box.open()
    before = box.census()
    with pytest.raises(SandboxUnavailableError, match="descriptor 0 is a folder"):
        box.start(change, box.outside)
    assert box.census() == before


@MODES
def test_a_command_has_no_capability_and_can_gain_none(box: Box, mode: SandboxMode) -> None:
    box.open(mode)
    status = dict(
        line.split(":\t", 1)
        for line in box.run(["cat", "/proc/self/status"]).stdout.decode().splitlines()
        if ":\t" in line
    )
    assert {
        name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    } == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_a_setuid_program_gains_nothing(ordinary_user: User, any_box: Box, box_as: Callable[[User], Box]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a setuid-root program")
    program = os.path.join(any_box.base, "id")
    shutil.copy(shutil.which("id") or "/usr/bin/id", program)
    os.chown(program, 0, 0)
    os.chmod(program, 0o4755)
    box = box_as(ordinary_user)
    assert box.free([program, "-u"]).stdout == b"0\n", "it does gain root where it may"
    box.open()
    assert box.run([program, "-u"]).stdout == f"{ordinary_user.uid}\n".encode()


def test_a_command_leads_its_own_session(box: Box) -> None:
    box.open()
    assert box.py("import os; print(os.getsid(0) == os.getpid() == os.getpgrp())").stdout == b"True\n"


def test_the_terminal_of_the_caller_is_out_of_reach(box: Box) -> None:
    box.open()
    result = box.py("import os\ntry: os.open('/dev/tty', os.O_RDWR)\nexcept OSError as error: print(error.strerror)")
    assert result.stdout == b"No such device or address\n"


READ_PARENT = """
import os
for name in ("mem", "environ", "maps", "task/%d/mem" % os.getppid()):
    try: os.close(os.open(f"/proc/{os.getppid()}/{name}", os.O_RDONLY)); print(name.split("/")[0])
    except PermissionError: pass
for name in ("exe", "cwd", "root", "fd/0", "ns/mnt"):
    try: os.readlink(f"/proc/{os.getppid()}/{name}"); print(name)
    except PermissionError: pass
"""


def test_the_jail_cannot_be_read_by_what_it_runs(box: Box) -> None:
    assert box.free_py(READ_PARENT).stdout.split() == b"mem environ maps task exe cwd root fd/0 ns/mnt".split()
    box.open()
    result = box.py(READ_PARENT)
    assert (result.returncode, result.stdout) == (0, b""), result.stderr


TRACE_JAIL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
above = os.getppid()
print(libc.ptrace(16, above, 0, 0))  # PTRACE_ATTACH
libc.ptrace(17, above, 0, 0)
"""


def test_the_jail_cannot_be_traced_by_what_it_runs(box: Box) -> None:
    box.open()
    assert box.py(TRACE_JAIL).stdout == b"-1\n"
    assert box.py("print(1)").stdout == b"1\n", "and it still works"


def test_the_jail_cannot_be_killed_by_what_it_runs(box: Box) -> None:
    box.open()
    box.py("import os, signal; [os.kill(os.getppid(), s) for s in (1, 2, 3, 9, 15, 19, 20)]")
    assert box.py("print(1)").stdout == b"1\n"


def test_programs_above_the_jail_are_not_visible(box: Box) -> None:
    secret = "import os; print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit())[:3])"
    box.open()
    assert box.py(secret).stdout == b"[1, 2]\n"


@pytest.mark.parametrize(
    "source", ["import os; os.kill(int(words[1]), 9)", "import os; os.setpriority(0, int(words[1]), 7)"]
)
def test_processes_outside_are_neither_signalled_nor_reniced(box: Box, source: str) -> None:
    source = "import sys; words = sys.argv\n" + source
    argv = [box.user.python, "-I", "-S", "-c", "import time; time.sleep(60)"]
    for confined in (False, True):
        with subprocess.Popen(box.user.command(argv)) as victim:
            try:
                if confined:
                    box.open()
                    box.py(source, str(victim.pid))
                    assert victim.poll() is None
                    assert os.getpriority(os.PRIO_PROCESS, victim.pid) == os.getpriority(os.PRIO_PROCESS, 0)
                else:
                    assert box.free_py(source, str(victim.pid)).returncode == 0
            finally:
                victim.kill()


def test_a_process_in_a_parallel_command_is_not_visible(box: Box, fifo: Callable[[str], Fifo]) -> None:
    """Commands of one launcher are in different jails while they run beside each other."""
    begun = fifo(os.path.join(box.ws, "begun"))
    box.open()
    box.start(box.program(f"import os, time; open({begun.path!r}, 'w').write('.'); time.sleep(60)"))
    assert begun.read()
    assert box.py("import os; print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit()))").stdout == b"[1, 2]\n"


def test_shared_memory_and_queues_of_the_host_are_out_of_reach(box: Box) -> None:
    """System V by the ipc namespace, POSIX by a /dev/shm of its own."""
    name = f"/dev/shm/codex-test-{os.getpid()}"
    with open(name, "w", encoding="ascii") as file:
        file.write("host")
    os.chmod(name, 0o666)
    queue = "import ctypes; print(ctypes.CDLL(None).msgget(0x5b000123, 0o1666) >= 0)"
    look = "import ctypes; print(ctypes.CDLL(None).msgget(0x5b000123, 0o666) >= 0)"
    remove = "import ctypes; c = ctypes.CDLL(None); c.msgctl(c.msgget(0x5b000123, 0o666), 0, None)"
    try:
        assert box.free(["cat", name]).stdout == b"host"
        assert box.free_py(queue).stdout == b"True\n"
        assert box.free_py(look).stdout == b"True\n"
        box.open()
        assert box.run(["cat", name]).returncode != 0
        assert box.py(look).stdout == b"False\n"
        assert box.py("open('/dev/shm/mine', 'w').write('x'); print(open('/dev/shm/mine').read())").stdout == b"x\n"
        assert not os.path.exists("/dev/shm/mine")
    finally:
        os.unlink(name)
        box.free_py(remove)


@MODES
@pytest.mark.parametrize(
    "device", ["/dev/mem", "/dev/kmsg", "/dev/port", "/dev/loop-control", "/dev/net/tun", "/dev/fuse"]
)
def test_devices_beyond_the_harmless_ones_are_closed(box: Box, device: str, mode: SandboxMode) -> None:
    if box.user.uid != 0:
        pytest.skip("an ordinary user cannot open them anyway")
    if not os.path.exists(device) or box.free_py(f"import os; os.open({device!r}, os.O_RDWR)").returncode != 0:
        pytest.skip(f"{device} cannot be opened on this host")
    box.open(mode)
    assert box.py(f"import os; os.open({device!r}, os.O_RDONLY)").returncode != 0


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
@MODES
def test_the_kernel_cannot_be_configured(box: Box, path: str, mode: SandboxMode) -> None:
    if box.user.uid != 0:
        pytest.skip("an ordinary user cannot open them anyway")
    source = f"import os; os.open({path!r}, os.O_WRONLY)"
    if not os.path.exists(path) or box.free_py(source).returncode != 0:
        pytest.skip(f"{path} cannot be written on this host")
    box.open(mode)
    assert box.py(source).returncode != 0


def test_harmless_devices_and_terminals_of_its_own_work(box: Box) -> None:
    source = """
import os, pty
open('/dev/null', 'w').write('x')
assert open('/dev/zero', 'rb').read(3) == bytes(3)
assert len(open('/dev/urandom', 'rb').read(8)) == 8
try:
    with open('/dev/full', 'w') as full: full.write('x')
except OSError as error: assert error.errno == 28
pid, terminal = pty.fork()
if pid == 0: os.execvp('echo', ['echo', 'from a terminal'])
shown = b''
while not shown.endswith(b'\\n'): shown += os.read(terminal, 99)
print(shown)
"""
    box.open(SandboxMode.READ_ONLY)
    assert box.py(source).stdout == b"b'from a terminal\\r\\n'\n"


@MODES
def test_metadata_outside_is_not_changed(box: Box, mode: SandboxMode) -> None:
    source = """
import os, sys
path = outside + '/file'
for change in (
    lambda: os.chmod(path, 0o777),
    lambda: os.utime(path, (1, 1)),
    lambda: os.chown(path, os.getuid(), os.getgid()),
    lambda: os.setxattr(path, 'user.codex', b'1'),
    lambda: os.fchmod(os.open(path, os.O_RDONLY), 0o4755),
):
    try: change(); print('changed')
    except OSError: print('refused')
"""
    path = box.write("outside/file")
    assert box.free_py(source).stdout.splitlines() == [b"changed"] * 5
    os.chmod(path, 0o644)
    before = os.stat(path)
    box.open(mode)
    assert box.py(source).stdout.splitlines() == [b"refused"] * 5
    after = os.stat(path)
    assert (before.st_mode, before.st_ctime_ns) == (after.st_mode, after.st_ctime_ns)


def test_a_jail_inside_a_jail_states_what_it_lost_or_refuses(box: Box) -> None:
    """Sandboxed tools may themselves use this sandbox: it falls back, and never claims more than it keeps."""
    source = f"""
import sys
sys.path[:0] = {list(box.user.folders)!r}
from codex_core.errors import SandboxUnavailableError
from codex_core.sandbox.policy import SandboxSettings, build_policy
from codex_core.sandbox.runner import run
from codex_core.types import Command, SandboxMode, Promise
from codex_sandbox_linux.forge import LocalForge
from codex_sandbox_linux.launcher import LinuxLauncher
settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, exclude_slash_tmp=True, allow_degraded=tuple(sys.argv[1:]))
policy = build_policy(settings, cwd=ws, environ={{}}, codex_home=home + '/.codex')
try:
    launcher = LinuxLauncher(policy, LocalForge())
except SandboxUnavailableError as error:
    print('refused', error)
else:
    print(launcher.strength.rung, *sorted(launcher.strength.lost))
    inner = 'for path in "$@"; do echo x 2>/dev/null >$path && echo written || echo closed; done'
    argv = ('/bin/bash', '-c', inner, 'inner', ws + '/inner', outside + '/inner')
    print(run(launcher, Command(argv, ws, {{}})).stdout.decode())
    launcher.close()
"""
    box.open()
    refused = box.py(source)
    assert refused.stdout.startswith(b"refused "), refused
    assert b"allow_degraded" in refused.stdout
    degraded = box.py(source, "protected_paths")
    assert degraded.stdout.split(b"\n")[0].startswith(b"floor "), degraded
    assert b"own_sockets" in degraded.stdout, "there is only one supervisor"
    assert degraded.stdout.split(b"\n")[1:3] == [b"written", b"closed"]


def test_a_socket_in_the_jail_cannot_be_reached_with_credentials_of_root(
    box: Box, listen: Callable[..., Listener]
) -> None:
    """The supervisor of root connects for nobody who may not connect."""
    path = os.path.join(box.base, "private")
    server = listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
    os.chmod(path, 0o600)
    box.open()
    result = box.py(f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})")
    assert result.returncode != 0
    assert not server.reached()
