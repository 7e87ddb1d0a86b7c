"""What fails around a launcher, at every step: one line or a right result, and nothing stays running or lying about.

Descriptors, memory and processes are really taken away, by limits of the process that owns the launcher.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import SandboxUnavailableError, shortage
from codex_core.sandbox.policy import SandboxSettings
from codex_core.types import SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugins.sandbox_linux.tests.conftest import Box, User

FORGES = pytest.mark.parametrize("forge", ["local", "helper"])
ENOUGH = 16
"""Descriptors, beyond those that the owner has, with which everything works."""


@contextlib.contextmanager
def limited(box: Box, kind: int, most: int) -> Iterator[None]:
    """Let the owner, and what it starts, have no more than *most* of something."""
    before = box.ask("limit", kind, most)
    try:
        yield
    finally:
        box.ask("limit", kind, before)


def attempt(box: Box, forge: str) -> bool:
    """Open a launcher and run a command; whether that worked, and if not the reason is one line."""
    failure: Exception | None = None
    try:
        strength = box.open(forge=forge)
        result = box.run(["echo", "done"])
    except (SandboxUnavailableError, OSError) as error:  # the latter of the pipes to the command
        failure = error
    if failure is not None:
        assert "\n" not in str(failure)
        assert shortage(failure) or "ulimit" in str(failure), failure
        return False
    assert strength.rung == "namespaces", "what is short for a moment is no reason for a weaker sandbox"
    assert (result.returncode, result.stdout) == (0, b"done\n")
    return True


def of_the_box(box: Box) -> list[int]:
    """List the processes that were started for this box; those of a jail only root can tell."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if os.fsencode(box.base) in file.read():
                    found.append(int(name))
    return found


# What runs out


@FORGES
def test_without_descriptors_every_step_is_refused_in_one_line_and_leaves_nothing(box: Box, forge: str) -> None:
    box.open(forge=forge)
    assert box.run(["true"]).returncode == 0
    box.close()
    before, files = box.census(), box.files()
    worked = []
    for more in range(ENOUGH):
        with limited(box, resource.RLIMIT_NOFILE, before["descriptors"] + more):
            worked.append(attempt(box, forge))
        box.close()
        assert (box.census(), box.files()) == (before, files), f"with {more} descriptors"
    assert worked == sorted(worked), "more is never worse"
    assert worked[-1]
    assert not worked[0]


@FORGES
def test_without_processes_it_is_refused_in_one_line_and_leaves_nothing(
    ordinary_user: User, box_as: Callable[[User], Box], forge: str
) -> None:
    box = box_as(ordinary_user)
    assert attempt(box, forge)
    box.close()
    before = box.census()
    for most in range(1, 6):
        with limited(box, resource.RLIMIT_NPROC, most):
            worked = attempt(box, forge)
        assert most > 1 or not worked
        box.close()
        assert box.census() == before
    assert attempt(box, forge)


@FORGES
def test_without_memory_it_is_refused_in_one_line_and_leaves_nothing(box: Box, forge: str) -> None:
    assert attempt(box, forge)
    box.close()
    before = box.census()
    with open(f"/proc/{box.owner.pid}/statm", "rb") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    for more in (0, 64 << 10, 256 << 10, 1 << 20, 2 << 20):
        with limited(box, resource.RLIMIT_AS, has + more), contextlib.suppress(SandboxUnavailableError, MemoryError):
            box.open(forge=forge)
            assert box.run(["echo", "done"]).returncode in {0, 1, 127}, "which is the command's own trouble"
        box.close()
        assert box.census() == before
    assert attempt(box, forge)


def test_a_jail_that_breaks_says_why_and_the_next_command_gets_another(box: Box) -> None:
    box.open(forge="helper")
    box.ask("limit", resource.RLIMIT_NOFILE, 4, jail_of(box))
    with pytest.raises(SandboxUnavailableError, match="broke before the command ran: channel: Too many open files"):
        box.run(["true"])
    assert box.run(["echo", "done"]).stdout == b"done\n"


def test_a_command_that_cannot_be_started_does_not_take_the_jail_of_another_along(
    ordinary_user: User, box_as: Callable[[User], Box]
) -> None:
    box = box_as(ordinary_user)
    box.open(forge="helper")
    jail = jail_of(box)
    before = box.ask("limit", resource.RLIMIT_NPROC, 0, jail)
    with pytest.raises(SandboxUnavailableError, match="ulimit -u"):
        box.run(["true"])
    box.ask("limit", resource.RLIMIT_NPROC, before, jail)
    assert box.run(["echo", "done"]).stdout == b"done\n"
    assert jail_of(box) == jail


def jail_of(box: Box) -> int:
    """Give the only jail of an owner with a helper."""
    [helper] = box.children()
    [jail] = box.children(helper)
    return jail


@pytest.fixture
def full(box: Box) -> Iterator[Callable[[str], str]]:
    """Give ``full(NAME)``: a folder on a file system without any room."""
    with contextlib.ExitStack() as held:

        def make(name: str) -> str:
            folder = os.path.join(box.base, name)
            os.makedirs(folder, exist_ok=True)
            options = f"size=64k,nr_inodes=16,mode=0755,uid={box.user.uid},gid={box.user.uid}"
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False
            )
            if mounted.returncode != 0:
                pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
            held.callback(subprocess.run, ["umount", "-l", folder], check=True)
            with open(f"{folder}/filling", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1024))
            with contextlib.suppress(OSError):
                for number in range(16):
                    os.mkdir(f"{folder}/{number}")
            box.user.owns(folder)
            return folder

        yield make


@FORGES
def test_on_a_full_disk_commands_run_and_find_it_full(box: Box, full: Callable[[str], str], forge: str) -> None:
    workspace = full("ws/full")
    before = os.listdir(workspace)
    box.open(cwd=workspace, forge=forge)
    result = box.run(["sh", "-c", "echo x >more"], cwd=workspace)
    assert result.returncode != 0
    assert b"No space left" in result.stderr
    assert box.run(["sh", "-c", "wc -c <filling"], cwd=workspace).returncode == 0
    assert os.listdir(workspace) == before


def test_a_protected_name_is_disarmed_though_the_quarantine_is_full(box: Box, full: Callable[[str], str]) -> None:
    full("home/.codex")
    box.open()
    result = box.py("import os; os.mkdir('m'); open('m/config', 'wb').write(bytes(100_000)); os.rename('m', '.git')")
    assert result.returncode == 0
    assert [denial.target for denial in result.denials] == [f"{box.ws}/.git"]
    assert not os.path.lexists(f"{box.ws}/.git")


def test_a_home_of_codex_that_has_to_be_made_on_a_full_disk_is_one_line(box: Box, full: Callable[[str], str]) -> None:
    home = full("home/full")
    before = box.census()
    settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, (home,), exclude_slash_tmp=True)
    with pytest.raises(SandboxUnavailableError, match="No space left") as caught:
        box.ask("open", settings, box.ws, f"{home}/.codex", "helper")
    assert "\n" not in str(caught.value)
    assert box.census() == before


# What is killed


OPENING = (
    "channel.pair",
    "kernel.clone",
    "namespaces.write_id_maps",
    "connections.Supervisor._connect",
    "launcher.strength",
)
RUNNING = ("channel.send_command", "connections.Supervisor._listen", "connections.Supervisor._connect")
ENDING = ("launcher.Running._finish", "launcher.LinuxLauncher.give_back", "watch.Watch.settle")
CLOSING = ("launcher.Jail.close", "allowed_sockets.AllowedSockets.close", "watch.Watch.close")
CONNECT = """
import os, socket
own = socket.socket(socket.AF_UNIX)
own.bind(ws + '/own')
own.listen()
socket.socket(socket.AF_UNIX).connect(ws + '/own')
"""


@pytest.mark.parametrize("place", [*OPENING, *RUNNING, *ENDING, *CLOSING])
@FORGES
def test_an_owner_that_is_killed_at_any_step_leaves_nothing_running(
    box: Box, forge: str, place: str, eventually: Callable[[Callable[[], object]], None]
) -> None:
    if forge == "helper" and place in {"kernel.clone", "namespaces.write_id_maps"}:
        pytest.skip("that is done by the helper")
    files = box.files()
    if place in OPENING:
        box.ask("die_at", place)
    with pytest.raises((EOFError, BrokenPipeError)):  # noqa: PT012 - it dies at one of these steps
        box.open(forge=forge)
        if place not in CLOSING:
            box.ask("die_at", place)
        assert box.py(CONNECT).returncode == 0
        box.ask("die_at", place)
        box.close()
    assert box.owner.wait(10) == -signal.SIGKILL
    eventually(lambda: not of_the_box(box))
    assert box.files() - {f"{box.ws}/own"} == files


def test_a_helper_that_stands_still_is_given_up_and_ended(
    box: Box, eventually: Callable[[Callable[[], object]], None]
) -> None:
    before = box.census()
    for module in ("forge", "helper"):
        box.ask("set", module, "_PATIENCE", 0.5)
    box.open(forge="helper")
    (helper,) = box.children()
    os.kill(box.children(helper)[0], signal.SIGKILL)  # so that another jail is needed
    eventually(lambda: not box.children(helper))
    os.kill(helper, signal.SIGSTOP)
    with pytest.raises(SandboxUnavailableError, match="does not answer"):
        box.run(["true"])
    os.kill(helper, signal.SIGCONT)
    with pytest.raises(SandboxUnavailableError, match="start codex again"):  # and no jail of the last request
        box.run(["true"])
    box.close()
    assert box.census() == before
    assert not os.path.exists(f"/proc/{helper}")


def test_a_stranger_with_the_number_of_a_dead_helper_is_neither_waited_for_nor_signalled(box: Box) -> None:
    box.ask("set", "helper", "_PATIENCE", 0.1)
    with subprocess.Popen(box.user.command(["sleep", "60"])) as stranger:
        box.ask("collect", stranger.pid)
        assert stranger.poll() is None
        stranger.kill()


def test_a_stranger_with_the_number_of_a_dead_jail_is_not_signalled(any_box: Box) -> None:
    """Of what a forge has started it knows the numbers only; who is no child of its own has got one of them anew."""
    source = f"""
import sys
sys.path[:0] = {list(any_box.user.folders)!r}
from codex_sandbox_linux.forge import LocalForge
forge = LocalForge()
forge._jails.add(int(sys.argv[1]))
forge.close()
"""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        assert any_box.free_py(source, str(stranger.pid)).returncode == 0
        assert stranger.poll() is None
        stranger.kill()
