"""The messages between a jail and the process that owns it, over a SOCK_SEQPACKET pair.

Requests come from outside and are trusted; replies come from inside and are therefore fixed structures.

=======  =======================================================================================
request  ``kind, flags, argc`` as ``<BBI``, then the NUL-separated bytes of cwd, argv and environment;
         with :data:`IN_MEMORY_FILE` those stand in a memfd, since one packet holds about 200 KiB
reply    ``kind, value`` as ``<Bi``; :data:`BROKEN` is followed by UTF-8 text
=======  =======================================================================================
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from codex_core.errors import CommandNotExecutableError, CommandNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.types import Command

# Requests.
RUN: Final = 1
"""Run a command; descriptors: stdin, stdout, stderr, the terminal (or stdin again), and the memfd if any."""
SIGNAL: Final = 2
"""Send the signal *argc* to the process group of the command."""

# Flags of RUN.
TERMINAL: Final = 1
IN_MEMORY_FILE: Final = 2
SILENT_SHIFT: Final = 4
"""From this bit on: which of stdin, stdout and stderr are to be the jail's own /dev/null."""

# What is found.
PRIVATE_PROC: Final = 1
OWN_SOCKETS: Final = 2

# Replies.
LISTENER: Final = 1
"""The supervisor's descriptors, where there is one: a socket for sock_diag(7), and the seccomp listener."""
READY: Final = 2
"""Confined and proved; *value* is what was found: :data:`PRIVATE_PROC` and :data:`OWN_SOCKETS`."""
BROKEN: Final = 3
"""Could not be set up; *value* is an error number, the text says what failed."""
ENDED: Final = 4
"""The command and its tree are gone; *value* is the wait status (wait(2))."""
REUSABLE: Final = 8
"""Follows the answer to each :data:`RUN` when the jail takes another one; a jail that the command has changed ends."""
STOPPED: Final = 5
"""Job control stopped the command with the signal *value*."""
LIMITED: Final = 9
"""The command is being ended for a limit; *value* is its number in :data:`codex_sandbox_linux.usage.LIMITS`."""
NO_FOLDER: Final = 6
"""The working directory cannot be entered; *value* is the error number."""
GATEWAY: Final = 10
"""The sockets that the jail has made for the filter; the text says what each is for."""
NO_EXEC: Final = 7
"""The program cannot be run; *value* is the error number."""

_HEAD: Final = struct.Struct("<BBI")
_REPLY: Final = struct.Struct("<Bi")
_PACKET_LIMIT: Final = 65536
_MOST_DESCRIPTORS: Final = 8
_DESCRIPTOR: Final = struct.Struct("i")


def receive(channel: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive one packet of at most *size* bytes, and the descriptors that came with it, closed on exec.

    Raises OSError: EMFILE where not all of it arrived.  The standard library's ``recv_fds`` leaves descriptors
    open in every program that is started.
    """
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR.size)
    packet, ancillary, flags, _ = channel.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = [number for _, _, data in ancillary for (number,) in _DESCRIPTOR.iter_unpack(data)]
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "channel")
    return packet, descriptors


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def encoded(command: Command) -> tuple[int, bytes]:
    """Give the number of words of *command*, and all words as they travel.

    Raises CommandNotFoundError where there is no program, CommandNotExecutableError for words and variables that none
    can be given: what is run must be what was judged, word for word.
    """
    if not command.argv:
        raise CommandNotFoundError("no command was given")
    words = [command.cwd, *command.argv, *(f"{name}={value}" for name, value in command.env.items())]
    try:
        body = b"\0".join(map(os.fsencode, words))
    except UnicodeEncodeError as error:
        raise CommandNotExecutableError(f"{command.argv[0]}: a word or a variable is no text: {error}") from error
    if body.count(b"\0") != len(words) - 1:
        raise CommandNotExecutableError(f"{command.argv[0]}: a word or a variable has a NUL in it")
    if any("=" in name for name in command.env):
        raise CommandNotExecutableError(f"{command.argv[0]}: the name of a variable has a = in it")
    return len(command.argv), body


def send_command(
    channel: socket.socket, words: tuple[int, bytes], descriptors: Sequence[int], terminal: int | None, silent: int
) -> None:
    """Ask the jail to run a command, *encoded* before, on three *descriptors*.

    Those whose bit is in *silent* become the jail's own /dev/null.
    """
    count, body = words
    flags = (0 if terminal is None else TERMINAL) | silent << SILENT_SHIFT
    sent = [*descriptors, descriptors[0] if terminal is None else terminal]
    memory = None
    if len(body) > _PACKET_LIMIT:
        memory = os.memfd_create("command")
        with open(memory, "wb", closefd=False) as file:
            file.write(body)
        sent.append(memory)
        flags, body = flags | IN_MEMORY_FILE, b""
    try:
        socket.send_fds(channel, [_HEAD.pack(RUN, flags, count) + body], sent)
    finally:
        if memory is not None:
            os.close(memory)


def send_request(channel: socket.socket, kind: int, value: int = 0) -> None:
    """Send :data:`SIGNAL`; quietly nothing if the jail is gone."""
    try:
        channel.send(_HEAD.pack(kind, 0, value))
    except OSError:
        return


def receive_request(channel: socket.socket) -> tuple[int, int, int, list[bytes], list[int]] | None:
    """Give kind, flags, count, words and descriptors; None once the owner is gone."""
    packet, descriptors = receive(channel, _HEAD.size + _PACKET_LIMIT)
    if not packet:
        return None
    kind, flags, count = _HEAD.unpack_from(packet)
    body = packet[_HEAD.size :]
    if flags & IN_MEMORY_FILE:
        memory = descriptors.pop()
        with open(memory, "rb") as file:
            file.seek(0)
            body = file.read()
    return kind, flags, count, body.split(b"\0") if body else [], descriptors


def send_reply(channel: socket.socket, kind: int, value: int, text: str = "", descriptors: Sequence[int] = ()) -> None:
    """Answer the owner."""
    socket.send_fds(channel, [_REPLY.pack(kind, value) + text.encode()[:_PACKET_LIMIT]], descriptors)


def receive_reusable(channel: socket.socket) -> bool:
    """Say whether the next packet is :data:`REUSABLE`; not where the jail is gone."""
    try:
        return channel.recv(_REPLY.size) == _REPLY.pack(REUSABLE, 0)
    except ConnectionResetError:
        return False


def receive_reply(channel: socket.socket) -> tuple[int, int, str, list[int]] | None:
    """Give kind, value, text and descriptors; None once the jail is gone.

    Raises BlockingIOError where the channel is non-blocking and there is nothing.
    """
    try:
        packet, descriptors = receive(channel, _REPLY.size + _PACKET_LIMIT)
    except ConnectionResetError:
        return None
    if len(packet) < _REPLY.size:
        return None
    kind, value = _REPLY.unpack_from(packet)
    return kind, value, packet[_REPLY.size :].decode(errors="replace"), descriptors
