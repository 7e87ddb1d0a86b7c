"""Reading configuration files: every fault is one line, and nothing is taken for an empty file.

Importing this module costs no more than :mod:`os`; the TOML reader is imported for the first text.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Any

from codex_core.config.keys import visible
from codex_core.errors import ConfigError

MAX_BYTES = 8 << 20
"""A larger file is a mistake: two hundred projects take 20 kB."""
MAX_DEPTH = 64
_BOM = b"\xef\xbb\xbf"
_READ_ATTEMPTS = 3


def parse(text: str, where: str) -> dict[str, Any]:
    """Parse TOML 1.1; raises ConfigError that begins with *where*."""
    import tomli

    try:
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{where}:{error.lineno}:{error.colno}: {visible(error.msg)}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    except ValueError as error:  # such as an integer of more digits than Python converts
        raise ConfigError(f"{where}: {visible(str(error))}") from None
    if deeper_than(values):
        raise ConfigError(f"{where}: nested more than {MAX_DEPTH} levels deep")
    return values


def deeper_than(values: object, limit: int = MAX_DEPTH) -> bool:
    """Say whether tables and arrays are nested more than *limit* levels deep."""
    level: list[object] = [values]
    for _ in range(limit):
        level = [
            below
            for value in level
            if isinstance(value, (dict, list))
            for below in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True


def decode(content: bytes, path: str) -> str:
    """Decode UTF-8, with or without a byte-order mark; raises ConfigError."""
    try:
        return content.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{visible(path)}:{line}: not UTF-8 (byte {content[error.start]:#04x})") from None


def read_file(path: str, *, guard: str | None = None) -> bytes | None:
    """Read a regular file whole; None where there is none.

    With *guard*, the root of the system, a file is refused that anybody but the administrator could
    have written: it must belong to root, or to the owner of that folder, and neither it nor the
    folder that holds it may be writable by everybody.

    Raises ConfigError for anything that is no readable regular file of sensible size.
    """
    descriptor = _open(path)
    if descriptor is None:
        return None
    try:
        for _ in range(_READ_ATTEMPTS):
            before = _checked_status(descriptor, path, guard)
            content = _read(descriptor)
            after = os.fstat(descriptor)
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, len(content)):
                return content
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)
    raise ConfigError(f"{visible(path)}: changes while it is read; try again")


def _open(path: str) -> int | None:
    try:
        # Not blocking, so that a named pipe in place of the file does not hold the start up.
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        for entry in (path, os.path.dirname(path)):
            if os.path.islink(entry) and not os.path.exists(entry):
                raise ConfigError(f"{visible(entry)}: is a link that leads nowhere") from None
        return None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"{visible(path)}: cannot be read: {error.strerror}")


def _checked_status(descriptor: int, path: str, guard: str | None) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ConfigError(f"{visible(path)}: is {kind}, where a TOML file is expected")
    if guard is not None:
        _check_guarded(path, status, guard)
    if status.st_size > MAX_BYTES:
        raise ConfigError(f"{visible(path)}: larger than {MAX_BYTES >> 20} MiB, which is no configuration")
    return status


def _check_guarded(path: str, status: os.stat_result, guard: str) -> None:
    """Raise ConfigError where a file that should be the administrator's can be changed by others."""
    if os.name == "nt":
        return  # mode bits say nothing there
    shown = visible(path)
    if status.st_uid not in {0, os.stat(guard).st_uid}:
        raise ConfigError(
            f"{shown}: belongs to user {status.st_uid}, not to the administrator; run: chown root {shown}"
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{shown}: everybody may write to it; run: chmod o-w {shown}")
    folder = os.path.dirname(path)
    if os.stat(folder).st_mode & stat.S_IWOTH:
        raise ConfigError(f"{shown}: everybody may replace it; run: chmod o-w {visible(folder)}")


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    content = b""
    while len(content) <= MAX_BYTES and (part := os.read(descriptor, MAX_BYTES)):
        content += part
    return content


def write_file(path: str, text: str, before: bytes | None) -> None:
    """Replace a file whole, or leave it as it was; its mode, owner and links are kept.

    *before* is what the file was read as, None if there was none.

    Raises ConfigError where it has changed since, or cannot be written.
    """
    target = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        temporary = f"{target}.{os.getpid()}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if before is not None:
                    _copy_owner_and_mode(target, file.fileno())
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            _check_unchanged(path, before)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(f"{visible(path)}: cannot be written: {error.strerror}") from None


def _check_unchanged(path: str, before: bytes | None) -> None:
    if read_file(path) != before:
        raise ConfigError(f"{visible(path)}: was changed by somebody else just now; try again")


def _copy_owner_and_mode(source: str, descriptor: int) -> None:
    if os.name == "nt":
        return
    status = os.stat(source)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # who may not give it away becomes its owner, as with any editor
            os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
