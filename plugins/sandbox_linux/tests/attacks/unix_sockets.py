"""Reaching a unix listener outside, by a name that a check could misread (connect(2), unix(7)).

The supervisor decides about connect from what it reads in the caller's memory, so everything that makes
two readers see different things is tried: links, roots, descriptor tables, threads.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from plugins.sandbox_linux.tests.attacks.tools import (
    LIBC,
    call,
    checked,
    connect,
    connect_raw,
    gained,
    serve,
    unix_address,
)

if TYPE_CHECKING:
    from plugins.sandbox_linux.tests.attacks.tools import World

_CLONE_FILES = 0x400
_PR_SET_DUMPABLE = 4
_SO_PEERPIDFD = 77


def a_hard_link_in_the_workspace(world: World) -> None:
    """The file is the listener's, whatever name it has."""
    os.link(world.socket, f"{world.ws}/link")
    connect(f"{world.ws}/link")


def the_name_of_an_own_listener_that_leads_elsewhere_now(world: World) -> None:
    """A name that was decided upon once is given a new meaning."""
    name = f"{world.ws}/own"
    serve(name)
    connect(name)
    os.unlink(name)
    os.symlink(world.socket, name)
    connect(name)


def the_root_of_the_process(world: World) -> None:
    """A magic link of proc(5) in front of the path."""
    connect(f"/proc/self/root{world.socket}")


def a_descriptor_of_the_folder(world: World) -> None:
    """A magic link of proc(5) that is another folder for the supervisor."""
    folder = os.open(world.outside, os.O_PATH)
    connect(f"/proc/self/fd/{folder}/socket")


def a_relative_name(world: World) -> None:
    """It is meant from the caller's folder, not from the supervisor's."""
    os.chdir(world.outside)
    connect("socket")


def a_path_without_an_end(world: World) -> None:
    """unix(7): all 108 bytes may be used, without a NUL."""
    padding = "/" * (108 - len(world.socket))
    connect_raw(socket.socket(socket.AF_UNIX), unix_address(padding + world.socket))


def a_thread_whose_process_has_a_dead_leader(world: World) -> None:
    """/proc/PID of a zombie leader shows no descriptors and no memory, while its threads go on."""

    def attack() -> None:
        time.sleep(0.2)
        try:
            connect(world.socket)
        finally:
            os._exit(0)  # the interpreter's end would wait for the main thread

    threading.Thread(target=attack).start()
    call(60, 0)  # exit of this thread only


def a_thread_with_descriptors_of_its_own(world: World) -> None:
    """unshare(CLONE_FILES): the number is another socket in the leader's table."""
    errors: list[OSError] = []

    def attack() -> None:
        try:
            checked(LIBC.unshare(_CLONE_FILES))
            connect(world.socket)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=attack)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def a_process_that_cannot_be_read(world: World) -> None:
    """prctl(2), PR_SET_DUMPABLE: an ordinary supervisor cannot read the memory of the caller any more."""
    LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    connect(world.socket)


def an_abstract_name(world: World) -> None:
    """unix(7): abstract names have no file whose rights are checked."""
    connect("\0" + world.abstract)


def an_abstract_name_that_is_also_its_own(world: World) -> None:
    """Where names are those of the host, the own listener cannot have it."""
    own = socket.socket(socket.AF_UNIX)
    try:
        own.bind("\0" + world.abstract)
        own.listen()
    except OSError:
        pass
    connect("\0" + world.abstract)


def a_handle_on_the_peer(world: World) -> None:
    """SO_PEERPIDFD (Linux 6.5) of a connection that a supervisor makes is a handle on the supervisor.

    Without a sandbox it is one on the command itself.
    """
    own = socket.socket(socket.AF_UNIX)
    own.bind(f"{world.ws}/own")
    own.listen()
    client = connect(f"{world.ws}/own")
    peer = struct.unpack("i", own.accept()[0].getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    signal.pidfd_send_signal(peer, 0)
    gained(client.getsockname())


def another_spelling_of_itself(world: World) -> None:
    """/proc/self is the reader, and a supervisor is another one."""
    os.chdir(world.outside)
    connect("/proc/../proc//self/cwd/socket")


def the_folder_of_a_child(world: World) -> None:
    """A magic link that belongs to another process of the command."""
    child = os.fork()
    if child == 0:
        os.chdir(world.outside)
        time.sleep(10)
        os._exit(0)
    try:
        time.sleep(0.2)
        connect(f"/proc/{child}/cwd/socket")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def numbers_with_high_bits(world: World) -> None:
    """The kernel reads the descriptor and the length as an int."""
    address = unix_address(world.socket) + b"\0"
    call(42, 1 << 32 | socket.socket(socket.AF_UNIX).detach(), address, 1 << 32 | len(address))


def a_socket_of_its_own_first(world: World) -> None:
    """connect(2) of a socket that has been connected; one that was allowed once is judged again."""
    serve(f"{world.ws}/own")
    first = connect(f"{world.ws}/own")
    connecting = socket.socket(socket.AF_UNIX)
    os.dup2(connecting.fileno(), first.fileno())
    first.connect(world.socket)
