"""The Landlock part of a jail, alone: what it handles, and that the library's habits do no harm."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from codex_core.types import Promise, SandboxMode
from codex_sandbox_linux import kernel
from codex_sandbox_linux.plan import Plan, Rung, strength
from codex_sandbox_linux.seccomp import Supervision

if TYPE_CHECKING:
    from pathlib import Path

    from plugins.sandbox_linux.tests.conftest import Box

# landlock(7): the last file right of each ABI, and what else came with it.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}

CONFINE = """
import ctypes, errno, os, sys
from codex_sandbox_linux import kernel, landlock_rules
from codex_sandbox_linux.plan import Plan, Rung
from codex_sandbox_linux.seccomp import Supervision
writable = tuple(sys.argv[1:2])
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
{before}
landlock_rules.restrict(Plan(Rung.FLOOR, writable, (), (), False, Supervision.CONNECTS), kernel.landlock_abi())
def attempt(name, call):
    try: call(); print(name, 'done')
    except OSError as error: print(name, errno.errorcode[error.errno])
"""


@pytest.fixture(autouse=True)
def _landlock() -> None:
    if kernel.landlock_abi() == 0:
        pytest.skip("this kernel has no Landlock")


def confined(source: str, *words: str, before: str = "") -> list[str]:
    """Run a program that puts itself under Landlock, with nothing else around it."""
    argv = [sys.executable, "-c", CONFINE.format(before=before) + source, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_right_of_the_running_kernel_is_handled() -> None:
    """What is not handled is allowed: so the ruleset must name all that the kernel knows."""
    source = """
made = []
create = kernel.landlock_ruleset
def spy(handled):
    made.append(list(handled))
    return create(handled)
kernel.landlock_ruleset = spy
"""
    argv = CONFINE.format(before=source) + "print(*made[0])"
    done = subprocess.run([sys.executable, "-c", argv], capture_output=True, text=True, check=True, timeout=30)
    files, *others = map(int, done.stdout.split())
    abi = kernel.landlock_abi()
    assert files == (1 << FILE_RIGHTS[min(abi, 5)]) - 1
    assert others == ([] if abi < 4 else [3] if abi < 6 else [3, 3])
    if abi <= 7:  # nor is there a right beyond these
        with pytest.raises(OSError, match="Invalid argument"):
            kernel.landlock_ruleset([1 << FILE_RIGHTS[min(abi, 5)]])


def test_files_are_moved_and_linked_between_folders_of_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "file").write_text("x")
    source = """
attempt('rename', lambda: os.rename(writable[0] + '/one/file', writable[0] + '/two/file'))
attempt('link', lambda: os.link(writable[0] + '/two/file', writable[0] + '/one/file'))
attempt('folder', lambda: os.rename(writable[0] + '/one', writable[0] + '/two/one'))
"""
    if kernel.landlock_abi() < 2:
        pytest.skip("Landlock ABI 1 forbids it always")
    assert confined(source, os.fspath(tmp_path)) == ["rename done", "link done", "folder done"]


def test_files_are_not_moved_out_nor_in(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    source = """
folder = writable[0]
attempt('out', lambda: os.rename(folder + '/a', folder + '/../a'))
attempt('in', lambda: os.rename(folder + '/../b', folder + '/b'))
attempt('link', lambda: os.link(folder + '/../b', folder + '/b'))
attempt('write', lambda: open(folder + '/../b', 'a'))
attempt('truncate', lambda: os.truncate(folder + '/../b', 0))
attempt('remove', lambda: os.unlink(folder + '/../b'))
"""
    lines = confined(source, os.fspath(tmp_path / "inside"))
    assert [line.split()[0] for line in lines if line.endswith("done")] == []
    assert len(lines) == 6


def test_device_nodes_are_not_made_even_by_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make device nodes at all")
    source = """
import stat
for name, kind in (('char', stat.S_IFCHR), ('block', stat.S_IFBLK)):
    attempt(name, lambda: os.mknod(writable[0] + '/' + name, kind | 0o600, os.makedev(1, 3)))
attempt('fifo', lambda: os.mkfifo(writable[0] + '/fifo'))
attempt('socket', lambda: os.mknod(writable[0] + '/socket', stat.S_IFSOCK | 0o600))
"""
    os.mknod(tmp_path / "before", 0o020600, os.makedev(1, 3))
    expected = ["char EACCES", "block EACCES", "fifo done", "socket done"]
    assert confined(source, os.fspath(tmp_path)) == expected


def test_a_stale_error_number_does_no_harm(tmp_path: Path) -> None:
    """The library raises for an error number that anything before it has left in ctypes."""
    stale = "ctypes.set_errno(errno.ENOENT)"
    library = f"import ctypes, errno; from landlock import Ruleset; {stale}; Ruleset()"
    done = subprocess.run([sys.executable, "-c", library], capture_output=True, check=False, timeout=30)
    assert done.returncode != 0, "the library has mended it: the care taken here can go"
    source = "attempt('write', lambda: open(writable[0] + '/new', 'w'))"
    assert confined(source, os.fspath(tmp_path), before=stale) == ["write done"]


def test_signals_and_abstract_sockets_are_scoped() -> None:
    if kernel.landlock_abi() < 6:
        pytest.skip("Landlock ABI 6 brought scopes")
    source = """
import socket
attempt('signal', lambda: os.kill(os.getppid(), 0))
attempt('connect', lambda: socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1]))
attempt('own', lambda: os.kill(os.getpid(), 0))
"""
    name = f"codex-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        assert confined(source, name) == ["signal EPERM", "connect EPERM", "own done"]


def test_tcp_is_closed_where_there_is_no_network_namespace() -> None:
    if kernel.landlock_abi() < 4:
        pytest.skip("Landlock ABI 4 brought rules for TCP")
    source = """
import socket
attempt('bind', lambda: socket.socket().bind(('127.0.0.1', 0)))
attempt('connect', lambda: socket.socket().connect(('127.0.0.1', 9)))
"""
    assert confined(source) == ["bind EACCES", "connect EACCES"]


def test_that_terminals_of_the_host_are_open_on_the_floor_is_stated() -> None:
    """Terminals of the command's own need /dev/pts, which only a namespace makes private."""
    ours, theirs = os.openpty()
    try:
        source = "attempt('open', lambda: os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY))"
        assert confined(source, os.ttyname(theirs)) == ["open done"]
    finally:
        os.close(ours)
        os.close(theirs)
    floor = Plan(Rung.FLOOR, (), (), (), network=False, supervision=Supervision.CONNECTS)
    assert "terminals" in strength(floor, kernel.landlock_abi()).lost[Promise.DEVICES]


def test_a_workspace_that_is_a_file_is_writable_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("x")
    source = """
attempt('write', lambda: open(writable[0], 'w'))
attempt('beside', lambda: open(writable[0] + '2', 'w'))
"""
    assert confined(source, os.fspath(tmp_path / "root")) == ["write done", "beside EACCES"]


def test_reading_works_everywhere_but_devices(box: Box) -> None:
    box.open(SandboxMode.READ_ONLY, allow_degraded=["protected_paths"])
    path = box.write("outside/file", "text")
    assert box.run(["cat", path]).stdout == b"text"
    assert box.run(["ls", "/", "/etc", "/usr"]).returncode == 0
