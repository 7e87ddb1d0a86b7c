"""Acting on a process outside, or on the jail, by ways beside kill(2).

Landlock's signal scope (ABI 6) covers signals only; a pid namespace hides the numbers of all others.
What is done to the jail would last for the commands after this one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import struct
import time
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import call, gained

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_F_SETOWN, _F_SETSIG = 8, 10
_KCMP_FILES = 2
_PIDFD_GETFD, _PROCESS_MADVISE, _MADV_COLD = 438, 440, 20
_PTRACE, _SEIZE = 101, 0x4206


def limits(world: World) -> None:
    """prlimit(2) asks for the same user only; RLIMIT_CPU would end the process."""
    resource.prlimit(world.victim, resource.RLIMIT_CORE, (0, 0))


def a_signal_for_news_in_a_pipe(world: World) -> None:
    """fcntl(2), F_SETOWN: the kernel sends the signal, for another process's pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, _F_SETSIG, signal.SIGUSR1)
    fcntl.fcntl(reading, _F_SETOWN, world.victim)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writing, b"x")


def a_queued_signal(world: World) -> None:
    """rt_sigqueueinfo(2)."""
    information = ctypes.create_string_buffer(struct.pack("<iii", signal.SIGUSR1, 0, -1), 128)
    call(129, world.victim, signal.SIGUSR1, information)


def a_signal_by_its_folder(world: World) -> None:
    """pidfd_send_signal(2) takes a descriptor of /proc/PID."""
    signal.pidfd_send_signal(os.open(f"/proc/{world.victim}", os.O_RDONLY), signal.SIGUSR1)


def comparison_of_kernel_objects(world: World) -> None:
    """kcmp(2) orders the kernel's pointers."""
    gained(call(312, os.getpid(), world.victim, _KCMP_FILES, 0, 0))


def moving_its_memory(world: World) -> None:
    """migrate_pages(2)."""
    nodes = ctypes.c_ulong(1)
    gained(call(256, world.victim, 64, ctypes.byref(nodes), ctypes.byref(nodes)))


def an_address_in_it(world: World) -> None:
    """get_robust_list(2) tells where the memory of its thread lies."""
    head, length = ctypes.c_ulong(), ctypes.c_ulong()
    call(274, world.victim, ctypes.byref(head), ctypes.byref(length))
    gained(head.value)


def its_map(world: World) -> None:
    """proc_pid_maps(5)."""
    with open(f"/proc/{world.victim}/maps", encoding="utf-8") as maps:
        gained(maps.readline())


def its_namespace(world: World) -> None:
    """A descriptor for setns(2)."""
    gained(os.open(f"/proc/{world.victim}/ns/mnt", os.O_RDONLY))


def limits_of_the_jail(world: World) -> None:
    """The next command would inherit them, and fail or not even start."""
    resource.prlimit(world.parent, resource.RLIMIT_CORE, (0, 0))
    gained("other limits")


def stopping_the_jail(world: World) -> None:
    """SIGSTOP cannot be handled; only the first process of a pid namespace is spared."""
    os.kill(world.parent, signal.SIGSTOP)
    time.sleep(0.1)
    with open(f"/proc/{world.parent}/stat", encoding="utf-8") as stat:
        state = stat.read().rpartition(")")[2].split()[0]
    os.kill(world.parent, signal.SIGCONT)
    if state == "T":
        gained(state)


def tracing_the_jail(world: World) -> None:
    """ptrace(2), PTRACE_SEIZE."""
    gained(call(_PTRACE, _SEIZE, world.parent, 0, 0))


def the_memory_of_the_jail(world: World) -> None:
    """proc_pid_mem(5), as in CVE-2012-0056."""
    gained(os.open(f"/proc/{world.parent}/mem", os.O_RDWR))


def the_descriptors_of_the_jail(world: World) -> None:
    """Its channel to the owner is among them (as the leaked descriptor of CVE-2024-21626)."""
    folder = f"/proc/{world.parent}/fd"
    gained([os.readlink(f"{folder}/{name}") for name in os.listdir(folder)])


def a_signal_to_its_thread(world: World) -> None:
    """tgkill(2)."""
    call(234, world.victim, world.victim, signal.SIGUSR1)


def a_descriptor_of_it(world: World) -> None:
    """pidfd_getfd (Linux 5.6)."""
    gained(call(_PIDFD_GETFD, os.pidfd_open(world.victim), 1, 0))


def its_memory(world: World) -> None:
    """process_vm_readv(2), at the address of its program, which is not moved or stands in its map."""
    with open(f"/proc/{world.victim}/maps", encoding="utf-8") as maps:
        start = int(maps.readline().partition("-")[0], 16)
    here = ctypes.create_string_buffer(4)
    local = struct.pack("<QQ", ctypes.addressof(here), 4)
    remote = struct.pack("<QQ", start, 4)
    call(310, world.victim, local, 1, remote, 1, 0)
    gained(here.raw)


def dying_first_when_memory_ends(world: World) -> None:
    """proc_pid_oom_score_adj(5): more needs no privilege."""
    path = f"/proc/{world.victim}/oom_score_adj"
    with open(path, encoding="ascii") as file:
        before = int(file.read())
    with open(path, "w", encoding="ascii") as file:
        file.write(str(min(1000, before + 1)))
    gained(before)


def its_processors(world: World) -> None:
    """sched_setaffinity(2) asks for the same user only."""
    os.sched_setaffinity(world.victim, os.sched_getaffinity(world.victim))
    gained("affinity")


def its_scheduling(world: World) -> None:
    """sched_setscheduler(2), to a policy for which nobody waits."""
    os.sched_setscheduler(world.victim, os.SCHED_BATCH, os.sched_param(0))
    gained("scheduling")


def its_place_at_the_disk(world: World) -> None:
    """ioprio_set(2): the idle class."""
    call(251, 1, world.victim, 3 << 13)
    gained("priority")


def its_memory_made_cold(world: World) -> None:
    """process_madvise (Linux 5.10) needs the right to read the process."""
    with open(f"/proc/{world.victim}/maps", encoding="utf-8") as maps:
        start = int(maps.readline().partition("-")[0], 16)
    gained(call(_PROCESS_MADVISE, os.pidfd_open(world.victim), struct.pack("<QQ", start, 4096), 1, _MADV_COLD, 0))
