"""A real shell with job control on a real terminal, for tests of what people do with a keyboard."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

PROMPT = "READY> "
_PATIENCE = 30.0
_BASH = ("setsid", "--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i")


class Shell:
    """An interactive bash; a context manager.

    What it prints is read by :meth:`expect` only, each piece once.  Linux only.
    """

    def __init__(self, env: Mapping[str, str], cwd: str, size: tuple[int, int] = (24, 80)) -> None:
        self._unread = ""
        self._master, slave = os.openpty()
        termios.tcsetwinsize(slave, size)
        self._bash = subprocess.Popen(  # noqa: S603 - what the test wants to run
            _BASH, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env={"TERM": "dumb", **env, "PS1": PROMPT}
        )
        os.close(slave)
        self.expect(re.escape(PROMPT))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._master)  # the hang-up ends what runs
        try:
            self._bash.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def line(self, text: str) -> None:
        """Type a line."""
        self.send(text + "\n")

    def expect(self, pattern: str, patience: float = _PATIENCE) -> re.Match[str]:
        """Read until *pattern* matches, and forget everything up to its end.

        Raises AssertionError with what was read instead, after *patience* seconds.
        """
        deadline = time.monotonic() + patience
        while (found := re.search(pattern, self._unread)) is None:
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {pattern!r} in {self._unread[-2000:]!r}")
            try:
                self._unread += os.read(self._master, 65536).decode(errors="replace")
            except OSError as error:
                raise AssertionError(f"the shell ended after {self._unread[-2000:]!r}") from error
        self._unread = self._unread[found.end() :]
        return found

    def prompt(self) -> None:
        """Wait until the shell is ready for the next line."""
        self.expect(re.escape(PROMPT))

    def answer(self, line: str) -> str:
        """Type a line and give what it printed."""
        self.line(f"{line}; echo 'an''swered'")
        text = self.expect(r"(?s)'an''swered'\r\n(.*?)answered\r\n").group(1)
        self.prompt()
        return text

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as a terminal's window does."""
        termios.tcsetwinsize(self._master, (rows, columns))

    def hang_up(self) -> None:
        """Take the terminal away."""
        os.kill(self._bash.pid, signal.SIGHUP)

    def modes(self) -> list[object]:
        """Give the settings of the terminal, see :func:`termios.tcgetattr`."""
        return termios.tcgetattr(self._master)
