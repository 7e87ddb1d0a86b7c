"""Outside: decide every connect of a jail, without a race.

The jail's filter stops each ``connect`` and asks (seccomp_unotify(2)).  We copy the address from the
caller's memory, open what it names, decide on the opened object, fetch the caller's socket, and connect
*that* socket to *that* object.  The kernel never reads the address again, so changing it is no use.

A unix socket may be reached if somebody inside the jail listens on it.  Which these are we know from
``listen``, which is notified too: the kernel's diagnostics (sock_diag(7)) say which file a listening
socket is bound to, and give each socket a cookie that is never used again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from codex_core.sandbox.policy import closed_socket
from codex_core.types import Denial, Network, Operation

from codex_sandbox_linux import gateway, kernel, observe

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy

    from codex_sandbox_linux.allowed_sockets import AllowedSockets
    from codex_sandbox_linux.filtering import Link

_RECEIVE: Final = 0xC050_2100
_SEND: Final = 0xC018_2101
_STILL_VALID: Final = 0x4008_2102
_CONTINUE: Final = 1
_NOTIFICATION: Final = struct.Struct("<QIIiIQ6Q")  # id, pid, flags; number, arch, instruction pointer, arguments
_RESPONSE: Final = struct.Struct("<QqiI")  # id, value, error, flags
_SYS_CONNECT: Final = {"x86_64": 42, "aarch64": 203}.get(kernel.MACHINE, -1)
_LONGEST_ADDRESS: Final = 128  # sizeof(struct sockaddr_storage)
_FAMILY: Final = struct.Struct("<H")
_FAMILY_SIZE: Final = _FAMILY.size
_RETRY: Final = 0.01
"""Seconds between two tries for callers that wait."""
_MOST_WAITING: Final = 64
_MOST_CLOSING: Final = 16
_CLOSING_TURNS: Final = 50
_CLOSING_TURN: Final = 0.002
_MOST_OWN: Final = 4096
MOST_DENIALS: Final = 100
"""Of one command; what it goes on to try is denied and not written down."""

_SO_NETNS_COOKIE: Final = 71
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_UDIAG_SHOW_NAME_AND_VFS: Final = 3
_UNIX_DIAG_VFS: Final = 1
_LISTENING: Final = 10
_ANY_COOKIE: Final = (1 << 64) - 1
_DIAG_HEAD: Final = struct.Struct("<IHHII")
_DIAG_ANSWER: Final = struct.Struct("<BBBBIQ")

_KNOWN_LISTENER: Final = (gateway.ADDRESSES[socket.AF_INET], gateway.PROXY_PORT)
_LONGEST_QUEUE: Final = 4096
_HANDED_IN: Final = "a socket that was handed in"
_LISTENER: Final = "a port of this machine's"
_SOCKET_RULE: Final = "sockets of programs outside the sandbox are closed"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A connect that could not be answered at once."""

    connecting: socket.socket
    address: bytes
    held: contextlib.ExitStack
    """What is to be closed afterwards."""


@dataclass(frozen=True, slots=True)
class _Socket:
    """A listening socket inside the jail, as the kernel names it."""

    inode: int
    cookie: int


class Supervisor:
    """Answers the notifications of one jail.  Its :meth:`fileno` polls readable when there are any."""

    def __init__(  # noqa: PLR0913 - each is something that decisions depend on
        self,
        policy: SandboxPolicy,
        listener: int,
        diagnostics: int,
        *,
        isolated: bool,
        sockets: AllowedSockets,
        link: Link | None = None,
    ) -> None:
        """Take over the two descriptors; *diagnostics* is a netlink socket of the jail's network namespace.

        *isolated* says that this namespace is not the host's, *link* leads to the process that filters the network.
        """
        self._policy = policy
        self._sockets = sockets
        self._link = link
        self._isolated = isolated
        self._listener = listener
        with contextlib.ExitStack() as held:
            held.callback(os.close, listener)
            self._diagnostics = held.enter_context(socket.socket(fileno=diagnostics))
            self._diagnostics.settimeout(1)
            self._timer = kernel.timer()
            held.callback(os.close, self._timer)
            self._epoll = held.enter_context(select.epoll())
            self._epoll.register(listener, select.EPOLLIN)
            self._epoll.register(self._timer, select.EPOLLIN)
            self._held = held.pop_all()
        self._own: dict[tuple[int, int] | bytes, _Socket] = {}
        self._waiting: dict[int, _Waiting] = {}
        """By the notification that has to be answered."""
        self.is_abused = False
        """Whether closing the caller's sockets takes so long that only the end of the jail can help."""
        self._closer: queue.SimpleQueue[socket.socket | None] | None = None
        self.denials: dict[Denial, None] = {}
        """What was denied, in order; no more than :data:`MOST_DENIALS`."""

    def fileno(self) -> int:
        """Give a descriptor that polls readable when :meth:`handle` has something to do."""
        return self._epoll.fileno()

    def forget(self) -> None:
        """Forget what belonged to the last command: its sockets are gone."""
        self._own.clear()
        self.denials.clear()
        for waiting in self._waiting.values():
            waiting.held.close()
        self._waiting.clear()

    def close(self) -> None:
        """Stop answering: what still asks gets ENOSYS."""
        self.forget()
        if self._closer is not None:
            self._closer.put(None)
        self._held.close()

    def handle(self) -> None:
        """Answer what is waiting, without blocking."""
        for descriptor, events in self._epoll.poll(0):
            if descriptor == self._timer:
                with contextlib.suppress(BlockingIOError):  # set anew in the meantime
                    os.read(self._timer, 8)
                self._retry()
            elif events & select.EPOLLIN:
                self._answer_one()
            else:  # everybody who could ask is gone
                self._epoll.unregister(self._listener)

    def _answer_one(self) -> None:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer)
        except OSError:  # the caller was killed in the meantime
            return
        identity, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        try:
            if number == _SYS_CONNECT:
                self._connect(identity, thread, arguments[0], arguments[1], arguments[2])
                return
            goes_on = _CONTINUE
            if observe.is_observed(number):
                self._note(observe.refused(self._policy, thread, number, arguments))
            elif self._listen(identity, thread, arguments[0], arguments[1]):
                goes_on = 0
            self._respond(identity, 0, goes_on)
        except OSError as error:
            self._respond(identity, error.errno or errno.EACCES)
        except Exception:  # noqa: BLE001 - what the caller hands over must not harm this process
            self._respond(identity, errno.EFAULT)

    def _respond(self, identity: int, error: int, flags: int = 0) -> None:
        try:
            fcntl.ioctl(self._listener, _SEND, _RESPONSE.pack(identity, 0, -error, flags))
        except OSError:  # the caller was killed in the meantime
            return

    def _check_still_asking(self, identity: int) -> None:
        """Make sure that what was read of the caller was not read of another process with its number."""
        try:
            fcntl.ioctl(self._listener, _STILL_VALID, struct.pack("<Q", identity))
        except OSError as error:
            raise OSError(errno.EACCES, "gone") from error

    def _fetch(self, identity: int, thread: int, descriptor: int) -> socket.socket:
        pidfd = os.pidfd_open(_process_of(thread))
        try:
            self._check_still_asking(identity)
            fetched = kernel.pidfd_getfd(pidfd, descriptor & 0xFFFF_FFFF)
        finally:
            os.close(pidfd)
        try:
            return socket.socket(fileno=fetched)
        except OSError:
            os.close(fetched)
            raise

    def _is_inside(self, other: socket.socket) -> bool:
        """Whether a socket belongs to the jail's own network; one that was handed in may lead anywhere."""
        try:
            networks = {one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) for one in (self._diagnostics, other)}
        except OSError:  # Linux before 5.14 does not tell
            return False
        return self._isolated and len(networks) == 1

    # -- listen: remember what is the jail's own ---------------------------------------------------

    def _listen(self, identity: int, thread: int, descriptor: int, backlog: int) -> bool:
        """Remember a listening socket; whether it listens already, or the kernel is to go on.

        Whatever socket we get to see belongs to the jail, even if the caller has swapped it by the time that the
        kernel goes on: then the other one is simply not known.  Where that may be one of the host's network, we do
        not let the kernel go on.
        """
        listening = self._fetch(identity, thread, descriptor)
        exposed = not self._isolated and self._policy.network is not Network.ON
        try:
            if listening.family != socket.AF_UNIX:
                if self._policy.network is not Network.ON and not self._is_inside(listening):
                    raise self._denied(_HANDED_IN if self._link is None else _LISTENER)
                return False
            if exposed:
                listening.listen(min(backlog & 0xFFFF_FFFF, _LONGEST_QUEUE))
            inode = os.fstat(listening.fileno()).st_ino
            name = listening.getsockname()
        finally:
            self._discard(listening)
        self._remember(inode, name)
        return exposed

    def _remember(self, inode: int, name: str | bytes) -> None:
        found = self._diagnose(inode, _ANY_COOKIE)
        if found is None:
            return
        known = _Socket(inode, found[1])
        key = name if isinstance(name, bytes) else found[2]
        if key:
            if len(self._own) >= _MOST_OWN:
                self._own = {key: one for key, one in self._own.items() if self._is_own(key)}
            if len(self._own) < _MOST_OWN:
                self._own[key] = known

    def _is_own(self, key: tuple[int, int] | bytes) -> bool:
        """Whether a socket of the jail still listens there."""
        known = self._own.get(key)
        if known is None:
            return False
        found = self._diagnose(known.inode, known.cookie)
        return found is not None and found[0] == _LISTENING and (isinstance(key, bytes) or found[2] == key)

    def _listens(self, host: str, port: int) -> bool:
        """Whether somebody inside listens on a TCP port; also where the kernel does not tell."""
        return self._finds_listener(host, port) or not self._finds_listener(*_KNOWN_LISTENER)

    def _finds_listener(self, host: str, port: int) -> bool:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        head = struct.pack("<BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFF_FFFF)
        there = struct.pack(">HH", port, 0) + socket.inet_pton(family, host).ljust(16, b"\0") + bytes(16 + 4)
        return self._ask_kernel(head + there + struct.pack("<Q", _ANY_COOKIE)) is not None

    def _ask_kernel(self, request: bytes) -> bytes | None:
        """Ask for one socket (sock_diag(7)); None where there is no such socket."""
        size = _DIAG_HEAD.size + len(request)
        try:
            self._diagnostics.send(_DIAG_HEAD.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + request)
            answer = self._diagnostics.recv(4096)
        except OSError:
            return None
        return answer if _DIAG_HEAD.unpack_from(answer)[1] == _SOCK_DIAG_BY_FAMILY else None

    def _diagnose(self, inode: int, cookie: int) -> tuple[int, int, tuple[int, int] | None] | None:
        """Give state, cookie and file (device, inode) of a unix socket; None if there is none."""
        request = struct.pack("<BBHIIIQ", socket.AF_UNIX, 0, 0, 0xFFFF_FFFF, inode, _UDIAG_SHOW_NAME_AND_VFS, cookie)
        answer = self._ask_kernel(request)
        if answer is None:
            return None
        _, _, state, _, _, found_cookie = _DIAG_ANSWER.unpack_from(answer, _DIAG_HEAD.size)
        file = None
        offset = _DIAG_HEAD.size + _DIAG_ANSWER.size
        while offset + 4 <= len(answer):
            length, kind = struct.unpack_from("<HH", answer, offset)
            if kind == _UNIX_DIAG_VFS:
                file_inode, device = struct.unpack_from("<II", answer, offset + 4)
                file = (device, file_inode)
            offset += max(4, (length + 3) & ~3)
        return state, found_cookie, file

    # -- connect -----------------------------------------------------------------------------------

    def _connect(self, identity: int, thread: int, descriptor: int, address: int, length: int) -> None:
        raw = _read_memory(thread, address, length)
        with contextlib.ExitStack() as held:
            connecting = self._fetch(identity, thread, descriptor)
            held.callback(self._discard, connecting)
            if connecting.family != socket.AF_UNIX:
                raw = self._internet_address(connecting, raw)
            elif int.from_bytes(raw[:_FAMILY_SIZE], "little") != socket.AF_UNIX:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            else:
                raw = self._own_address(identity, thread, connecting, raw[_FAMILY_SIZE:], held)
            try:
                _connect_without_waiting(connecting, raw)
            except BlockingIOError:
                if not os.get_blocking(connecting.fileno()):
                    raise
                if len(self._waiting) >= _MOST_WAITING:
                    raise
                self._waiting[identity] = _Waiting(connecting, raw, held.pop_all())
                self._try_again(identity)  # a connection within one machine stands by now
                if self._waiting:
                    kernel.set_timer(self._timer, _RETRY)
                return
            except OSError as error:
                if self._link is None and error.errno == errno.ENETUNREACH and (host := _host_and_port(raw)):
                    denial = self._policy.check(Operation.CONNECT, host)
                    self._note([denial] if denial else [])
                raise
        self._respond(identity, 0)

    def _internet_address(self, connecting: socket.socket, raw: bytes) -> bytes:
        """Give the address to connect a socket to that is no unix socket; else deny."""
        target = _host_and_port(raw)
        led = self._link is not None and not self._link.isolated  # from the host's network, and nowhere else
        if self._policy.network is not Network.ON and not led and not self._is_inside(connecting):
            raise self._denied(target or _HANDED_IN)
        return raw if self._link is None else self._link.way(connecting, raw, target, self._listens)

    def _own_address(
        self, identity: int, thread: int, connecting: socket.socket, name: bytes, held: contextlib.ExitStack
    ) -> bytes:
        """Give the address of one of the jail's own sockets, which does not change any more; else deny."""
        if not name or name[:1] == b"\0":
            # The same name may be somebody else's in the network namespace of a socket that was handed in.
            if (self._isolated and not self._is_inside(connecting)) or not self._is_own(name):
                raise self._denied("@" + os.fsdecode(name[1:]))
            return _FAMILY.pack(socket.AF_UNIX) + name
        target = _open_as_seen_by(thread, name.partition(b"\0")[0])
        held.callback(os.close, target)
        self._check_still_asking(identity)
        if not self._is_own(_file_identity(thread, target)) and not self._sockets.hold(target):
            raise self._denied(os.readlink(f"/proc/self/fd/{target}"))
        return _FAMILY.pack(socket.AF_UNIX) + f"/proc/self/fd/{target}".encode() + b"\0"

    def _retry(self) -> None:
        """Try again, for callers that wait in connect(2): it says what became of the first try."""
        for identity in list(self._waiting):
            self._try_again(identity)
        if not self._waiting:
            kernel.set_timer(self._timer, 0)

    def _try_again(self, identity: int) -> None:
        waiting, error = self._waiting[identity], 0
        try:
            self._check_still_asking(identity)
            _connect_without_waiting(waiting.connecting, waiting.address)
        except BlockingIOError:
            return
        except OSError as failed:
            error = 0 if failed.errno == errno.EISCONN else failed.errno or errno.EACCES
        del self._waiting[identity]
        waiting.held.close()
        self._respond(identity, error)

    def _discard(self, fetched: socket.socket) -> None:
        """Close a socket of the caller's; the last close of one that lingers waits (socket(7), SO_LINGER)."""
        if fetched.family == socket.AF_UNIX or fetched.type != socket.SOCK_STREAM:
            fetched.close()
            return
        if self._closer is None:
            self._closer = queue.SimpleQueue()
            threading.Thread(target=_close_all, args=(self._closer,), daemon=True).start()
        self._closer.put(fetched)
        for _ in range(_CLOSING_TURNS):  # a busy machine, or many connects at once, are no abuse
            if self._closer.qsize() <= _MOST_CLOSING:
                return
            time.sleep(_CLOSING_TURN)
        self.is_abused = True

    def _denied(self, target: str) -> OSError:
        known = closed_socket(target) if os.path.isabs(target) else Denial(Operation.CONNECT, target, _SOCKET_RULE)
        self._note([known])
        return OSError(errno.EACCES, os.strerror(errno.EACCES))

    def _note(self, denials: list[Denial]) -> None:
        for denial in denials:
            if len(self.denials) < MOST_DENIALS:
                self.denials.setdefault(denial)


def _close_all(sockets: queue.SimpleQueue[socket.socket | None]) -> None:
    while (fetched := sockets.get()) is not None:
        fetched.close()


def _connect_without_waiting(connecting: socket.socket, address: bytes) -> None:
    """Connect; the blocking mode, which the caller's descriptor shares, is the old one afterwards.

    Raises BlockingIOError where it would wait.
    """
    descriptor = connecting.fileno()
    blocking = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        kernel.connect(descriptor, address)
    finally:
        os.set_blocking(descriptor, blocking)


def _host_and_port(address: bytes) -> str:
    """Give ``host:port`` of an internet address, empty for any other (ip(7), ipv6(7))."""
    family = int.from_bytes(address[:_FAMILY_SIZE], "little")
    port = int.from_bytes(address[2:4], "big")
    if family == socket.AF_INET and len(address) >= 8:  # noqa: PLR2004 - the end of sin_addr
        return f"{socket.inet_ntop(socket.AF_INET, address[4:8])}:{port}"
    if family == socket.AF_INET6 and len(address) >= 24:  # noqa: PLR2004 - the end of sin6_addr
        return f"[{socket.inet_ntop(socket.AF_INET6, address[8:24])}]:{port}"
    return ""


def _process_of(thread: int) -> int:
    with open(f"/proc/{thread}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))


def _read_memory(thread: int, address: int, length: int) -> bytes:
    if not _FAMILY_SIZE <= length & 0xFFFF_FFFF <= _LONGEST_ADDRESS:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        raw = memory.read(length & 0xFFFF_FFFF)
    if len(raw) != length & 0xFFFF_FFFF:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return raw


def _open_as_seen_by(thread: int, path: bytes) -> int:
    for own in (b"/proc/self/", b"/proc/thread-self/"):  # in our /proc, not theirs, that would be us
        if path.startswith(own):
            return os.open(b"/proc/%d/%s" % (thread, path.removeprefix(own)), os.O_PATH)
    base = os.open(f"/proc/{thread}/{'root' if path[:1] == b'/' else 'cwd'}", os.O_PATH)
    try:
        return os.open(path.lstrip(b"/") or b".", os.O_PATH, dir_fd=base)
    finally:
        os.close(base)


def _file_identity(thread: int, descriptor: int) -> tuple[int, int]:
    """Give device and inode as the kernel's diagnostics do; what stat(2) says differs on overlayfs and btrfs."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        info = dict(line.split(b":", 1) for line in file if b":" in line)
    mount = info[b"mnt_id"].strip()
    inode = int(info[b"ino"]) if b"ino" in info else os.fstat(descriptor).st_ino  # "ino" is new in Linux 5.14
    for process in (thread, "self"):  # an absolute link leads through our own mounts, to the same files
        with open(f"/proc/{process}/mountinfo", "rb") as file:
            for line in file:
                fields = line.split(b" ", 3)
                if fields[0] == mount:
                    major, minor = map(int, fields[2].split(b":"))
                    return (major << 20) | minor, inode & 0xFFFF_FFFF
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
