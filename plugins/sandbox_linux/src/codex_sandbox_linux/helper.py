"""Processes of our own outside the sandbox: the same interpreter, started anew, that serves over one socket."""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from codex_core.errors import SandboxUnavailableError, shortage

from codex_sandbox_linux import channel, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTROL: Final = 3
"""The helper's end of its socket."""
_PATIENCE: Final = 5.0
"""Seconds that a helper gets to end by itself."""
_BOOT: Final = "import sys; sys.path[:0] = sys.argv[2:]; from codex_sandbox_linux import {0}; {0}.serve()"


def start(module: str) -> tuple[int, socket.socket]:
    """Run ``serve()`` of a module of this package in a process of its own; its pid and our end of the socket.

    Raises SandboxUnavailableError.
    """
    ours, theirs = channel.pair()
    arguments = [sys.executable, "-I", "-S", "-c", _BOOT.format(module), f"codex-{module}", *_code_folders()]
    environment = {"HOME": os.environ.get("HOME", "/")}
    onto = [
        *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)),
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CONTROL),
    ]
    if theirs.fileno() == _CONTROL:  # duplicating a descriptor onto itself would leave it to be closed on exec
        os.set_inheritable(_CONTROL, True)  # noqa: FBT003 - the standard library's signature
    try:
        pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=onto, setsigmask=(), setsid=True)
    except OSError as error:
        ours.close()
        why = shortage(error) or f"{sys.executable!r}: {error.strerror}"
        msg = f"the sandbox helper cannot be started: {why}"
        raise SandboxUnavailableError(msg) from error
    finally:
        theirs.close()
    return pid, ours


def collect(pid: int) -> None:
    """Wait for the end of a helper whose socket has been closed; kill it if that takes long."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # somebody else in this process has collected it
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if not poll.poll(_PATIENCE * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:  # as above, and a stranger has its number by now
        return
    finally:
        os.close(pidfd)


def control() -> socket.socket:
    """Inside a helper: keep its end of the socket, and nothing else."""
    kernel.close_from(_CONTROL + 1)
    os.set_inheritable(_CONTROL, False)  # noqa: FBT003 - the standard library's signature
    return socket.socket(fileno=_CONTROL)


def leave() -> NoReturn:
    """Inside a helper: end, without the interpreter's own leave-taking."""
    os._exit(0)


def _code_folders() -> Sequence[str]:
    """Where the helper finds its code; it is started without site-packages and their hooks."""
    folders: dict[str, None] = {}
    for name in ("codex_sandbox_linux", "codex_core", "landlock"):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            msg = f"the package {name!r} is missing: install codex-sandbox-linux again"
            raise SandboxUnavailableError(msg)
        folders[os.path.dirname(os.path.abspath(spec.submodule_search_locations[0]))] = None
    return tuple(folders)
