"""Every error that codex-core raises on purpose.

* CodexError                      1    the base class; ``str(error)`` is one line for the user
  x UsageError                    2    the command line makes no sense
  x ConfigError                   1    a configuration layer cannot be read, parsed or accepted
  x PatchError                    1    a patch makes no sense, or does not fit the files; nothing was changed
  x PluginError                 125    a plugin that the configuration names cannot be used
    + PluginNotFoundError                no installed distribution declares it
    + PluginConflictError                two installed distributions declare it
    + PluginLoadError                    it fails to import, to start, or to match its specification
  x SandboxUnavailableError     125    the sandbox cannot be set up, or cannot keep the policy here
  x NotPermittedError           126    an approval verdict, or a person, said no
    + StoppedError                       a person said no, and that the turn ends
  x CommandNotExecutableError   126    the program exists and cannot be run
  x CommandNotFoundError        127    there is no such program

The number is :attr:`CodexError.exit_code`, what ``codex`` exits with (125-127 as ``env`` and
``timeout`` of the GNU coreutils use them).
"""

import errno
import os

_SHORTAGES = {
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close some of the machine's open files",
    errno.ENOMEM: "free some memory, or allow more (ulimit -v)",
    errno.EAGAIN: "allow more processes (ulimit -u)",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
}


def shortage(error: BaseException) -> str:
    """Say in one line what this machine has run out of, and what mends it; empty where *error* has another reason."""
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    if number not in _SHORTAGES:
        return ""
    named = getattr(error, "filename", None)
    return f"{f'{named}: ' if named else ''}{os.strerror(number)}: {_SHORTAGES[number]}"


class CodexError(Exception):
    """Base class; the message is one line that says what is wrong and, where possible, what mends it."""

    exit_code = 1


class UsageError(CodexError):
    """The command line makes no sense."""

    exit_code = 2


class ConfigError(CodexError):
    """A configuration layer cannot be read, parsed or accepted; names file, line and key where it can."""


class PatchError(CodexError):
    """A patch makes no sense, or does not fit the files that it is about; nothing was changed."""


class PluginError(CodexError):
    """A plugin that the configuration names cannot be used."""

    exit_code = 125

    def __init__(self, namespace: str, name: str, reason: str) -> None:
        """Say which plugin (*name* in the entry-point *namespace*) and why."""
        super().__init__(f"plugin {name!r} ({namespace}): {reason}")
        self.namespace = namespace
        self.name = name
        self.reason = reason


class PluginNotFoundError(PluginError):
    """No installed distribution declares this entry point."""


class PluginConflictError(PluginError):
    """Two installed distributions declare this entry point; neither was imported."""


class PluginLoadError(PluginError):
    """The plugin fails to import, to start, or to match its hook specification."""


class SandboxUnavailableError(CodexError):
    """The sandbox cannot be set up, or cannot keep the policy on this host; nothing was run."""

    exit_code = 125


class NotPermittedError(CodexError):
    """An approval verdict, or the person who was asked, said no; nothing was run."""

    exit_code = 126


class StoppedError(NotPermittedError):
    """The person who was asked said no, and wants nothing further to be tried."""


class CommandNotExecutableError(CodexError):
    """The program exists and cannot be run."""

    exit_code = 126


class CommandNotFoundError(CodexError):
    """There is no such program, or its working directory is gone."""

    exit_code = 127
