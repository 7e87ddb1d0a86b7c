"""Where a control group is delegated, the kernel keeps the limits, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from codex_core.types import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.sandbox_linux.tests.conftest import Box, Delegation, Fifo, User

ACCEPTED = ("writes", "protected_paths")
MEMORY = 64 << 20
UNREAPED = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        sum(range(1_000_000))
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
print('done')
"""
"""Nobody waits for the children, so that the kernel adds their time to nobody's."""
MEMORY_FILE = """
import os
file = os.memfd_create('hog')
for _ in range(120): os.write(file, bytes(1 << 20))
print('done')
"""
FORKS = """
import os, time
for _ in range(60):
    if os.fork() == 0: time.sleep(30)
print('done', flush=True)
"""
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
IDLE = "import sys, time; open(sys.argv[1], 'w').write('x'); time.sleep(30)"


def group_of(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        return next(line.rstrip().rpartition("/")[2] for line in file if line.startswith("0::"))


# What is kept


def test_processor_time_counts_although_nobody_waited_for_the_process(box: Box, delegation: Delegation) -> None:
    assert box.free_py(UNREAPED, "20").stdout == b"done\n"
    delegation.give(box)
    strength = box.open(limits=Limits(cpu_time=0.5))
    assert strength.limits == {"cpu_time": "control group"}
    assert box.py(UNREAPED, "2000").ended.limit == "cpu_time"
    assert box.run(["echo", "next"]).stdout == b"next\n"


def test_each_command_has_the_whole_limit(box: Box, delegation: Delegation) -> None:
    delegation.give(box)
    box.open(limits=Limits(cpu_time=2.0))
    spend = "import time\nwhile time.process_time() < 0.7: pass"
    assert [box.py(spend).ended.limit for _ in range(4)] == [""] * 4
    assert len(delegation.jails()) == 1


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("hog", [MEMORY_FILE, "held = bytes(b'x') * (120 << 20)"], ids=["memory file", "private"])
def test_memory_of_every_kind_counts(box: Box, delegation: Delegation, hog: str) -> None:
    assert box.free_py(hog).returncode == 0
    delegation.give(box)
    strength = box.open(limits=Limits(memory=MEMORY))
    assert strength.limits == {"memory": "control group"}
    result = box.py(hog)
    assert (result.ended.limit, result.returncode) == ("memory", 128 + signal.SIGKILL)
    assert box.run(["echo", "next"]).stdout == b"next\n"


@pytest.mark.usefixtures("controllers")
def test_files_that_a_command_left_in_memory_do_not_count_for_the_next_one(box: Box, delegation: Delegation) -> None:
    delegation.give(box)
    with open("/proc/mounts", encoding="ascii") as file:
        kinds = {line.split()[1]: line.split()[2] for line in file}
    if kinds.get("/tmp", kinds["/"]) not in {"tmpfs", "rootfs"}:
        pytest.skip("the workspace is on a disk here")
    box.open(limits=Limits(memory=MEMORY))
    leave = "open('left', 'wb').write(bytes(40 << 20))"
    assert box.py(leave).ended.limit == ""
    assert box.py("held = bytes(b'x') * (40 << 20)").ended.limit == ""
    os.truncate(f"{box.ws}/left", 0)
    assert box.py(f"{leave}; held = bytes(b'x') * (40 << 20)").ended.limit == "memory"


@pytest.mark.usefixtures("controllers")
def test_there_are_never_more_processes_than_the_limit(box: Box, delegation: Delegation) -> None:
    assert box.free_py(FORKS).stdout == b"done\n"
    box.end_strays()
    delegation.give(box)
    strength = box.open(limits=Limits(processes=20))
    assert strength.limits == {"processes": "control group"}
    for program in (FORKS, BOMB):
        result = box.py(program)
        assert (result.ended.limit, result.stdout) == ("processes", b"")
    few = "import os\nfor _ in range(19):\n    if os.fork() == 0: os.read(0, 1); os._exit(0)\nprint('done')"
    assert box.py(few).stdout == b"done\n"


@pytest.mark.usefixtures("controllers")
def test_codex_and_its_helpers_are_not_counted(box: Box, delegation: Delegation) -> None:
    delegation.give(box)
    box.open(forge="helper", limits=Limits(processes=20, memory=MEMORY), allowed_domains=["127.0.0.1"])
    helpers = box.children()
    assert len(helpers) == 2
    assert {group_of(pid) for pid in (box.owner.pid, *helpers)} == {"codex-outside"}
    [jail] = box.children(helpers[0]) or box.children(helpers[1])
    assert group_of(jail).startswith("codex-jail-")


@pytest.mark.usefixtures("controllers")
def test_what_shares_the_group_of_codex_is_left_where_it_is(box: Box, delegation: Delegation) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        delegation.write("cgroup.procs", str(stranger.pid))
        delegation.give(box)
        strength = box.open(limits=Limits(processes=20))
        assert strength.limits["processes"].startswith("20 looks a second: the control group ")
        assert "holds other processes than codex: start codex with `systemd-run" in strength.limits["processes"]
        assert group_of(stranger.pid) == group_of(box.owner.pid) == os.path.basename(delegation.folder)
        assert box.py(FORKS).ended.limit == "processes"
        stranger.kill()


# What is not


def test_where_no_group_is_delegated_the_limits_are_looked_at(
    ordinary_user: User, box_as: Callable[[User], Box]
) -> None:
    box = box_as(ordinary_user)
    strength = box.open(limits=Limits(cpu_time=0.5, open_files=100))
    assert strength.limits["cpu_time"].startswith("20 looks a second: ")
    assert strength.limits["open_files"] == "setrlimit(2)"
    assert box.py("while True: pass").ended.limit == "cpu_time"


def test_without_limits_no_group_is_made_and_nobody_is_moved(box: Box, delegation: Delegation) -> None:
    delegation.give(box)
    assert box.open(forge="helper").limits == {}
    assert box.run(["true"]).returncode == 0
    assert [entry.name for entry in os.scandir(delegation.folder) if entry.is_dir()] == []
    assert group_of(box.owner.pid) == os.path.basename(delegation.folder)


@pytest.mark.parametrize("without", ["", "namespaces"])
def test_a_command_cannot_leave_its_group_or_lift_its_limits(
    box_without: Callable[[str], Box], delegation: Delegation, without: str
) -> None:
    leave = (
        f"import os\nbase = {delegation.folder!r}\n"
        "open(base + '/cgroup.procs', 'w').write(str(os.getpid()))\nos.mkdir(base + '/codex-jail-fake')"
    )
    control = box_without("")
    delegation.give(control)
    assert control.free_py(leave).returncode == 0
    os.rmdir(f"{delegation.folder}/codex-jail-fake")
    box = box_without(without)
    delegation.give(box)
    box.open(limits=Limits(cpu_time=60), allow_degraded=ACCEPTED)
    for line in leave.splitlines()[2:]:
        assert box.py("\n".join([*leave.splitlines()[:2], line])).returncode == 1, line
    [group] = delegation.jails()
    for name in ("cgroup.procs", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control"):
        assert box.py(f"open({group + '/' + name!r}, 'w').write('0')").returncode == 1, name


# What stays behind: nothing


def test_the_whole_tree_ends_with_its_group_although_the_host_has_no_namespaces(
    box_without: Callable[[str], Box], delegation: Delegation, fifo: Callable[[str], Fifo]
) -> None:
    box = box_without("namespaces")
    gone = fifo(f"{box.ws}/gone")
    daemon = f"""
import os, time
end = os.open({gone.path!r}, os.O_WRONLY)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid(); os.write(end, b'x'); time.sleep(60)
    os._exit(0)
os.wait()
while True: pass
"""
    delegation.give(box)
    box.open(limits=Limits(cpu_time=1.5), allow_degraded=ACCEPTED)
    assert box.py(daemon).ended.limit == "cpu_time"
    assert (gone.read(), gone.read()) == (b"x", b"")


def test_a_command_that_closes_the_files_of_its_group_ends_with_it_all_the_same(
    box_without: Callable[[str], Box], delegation: Delegation, fifo: Callable[[str], Fifo]
) -> None:
    """Where no namespace keeps it from changing modes."""
    box = box_without("namespaces")
    gone = fifo(f"{box.ws}/gone")
    delegation.give(box)
    box.open(limits=Limits(cpu_time=1.5), allow_degraded=ACCEPTED)
    [group] = delegation.jails()
    daemon = f"""
import os, time
for name in ('cgroup.kill', 'cgroup.procs'): os.chmod({group!r} + '/' + name, 0)
end = os.open({gone.path!r}, os.O_WRONLY)
if os.fork() == 0:
    os.setsid(); os.write(end, b'x'); time.sleep(60)
while True: pass
"""
    assert box.py(daemon).ended.limit == "cpu_time"
    assert (gone.read(), gone.read()) == (b"x", b"")
    assert box.run(["true"]).returncode == 0
    box.close()
    assert delegation.jails() == []


@pytest.mark.parametrize("forge", ["local", "helper"])
def test_no_group_and_no_descriptor_is_left(box: Box, delegation: Delegation, forge: str) -> None:
    delegation.give(box)
    before = box.census()
    box.open(forge=forge, limits=Limits(cpu_time=0.3))
    for _ in range(3):
        assert box.py("while True: pass").ended.limit == "cpu_time"
        assert box.run(["sleep", "60"], timeout=0.1).timed_out
        assert box.run(["true"]).returncode == 0
    box.close()
    assert (delegation.jails(), box.census()) == ([], before)


def test_groups_of_a_killed_codex_are_removed_by_the_next_one_and_those_of_a_living_one_are_not(
    user: User, box_as: Callable[[User], Box], delegation: Delegation, fifo: Callable[[str], Fifo]
) -> None:
    killed, living, third = box_as(user), box_as(user), box_as(user)
    delegation.give(killed)
    killed.open(forge="helper", limits=Limits(cpu_time=60))
    [stale] = delegation.jails()
    killed.owner.kill()
    killed.owner.wait()
    assert delegation.jails() == [stale]
    delegation.give(living)
    living.open(forge="helper", limits=Limits(cpu_time=60))
    [used] = delegation.jails()
    assert used != stale
    began = fifo(f"{living.ws}/began")
    living.start(living.program(IDLE, began.path))
    living.drive(began)
    delegation.give(third)
    third.open(limits=Limits(cpu_time=60))
    assert used in delegation.jails()
    assert living.wait(0)[0] is None
    third.close()
    living.close()
    assert delegation.jails() == []
