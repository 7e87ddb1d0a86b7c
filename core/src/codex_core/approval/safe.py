"""Judge one command by its words: known to be harmless, known to be dangerous, or to ask about.

What is called safe here still runs in the sandbox; it only runs without a question.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from codex_core.approval.command import programs
from codex_core.approval.danger import danger_in_words
from codex_core.approval.reading import NotSafeError
from codex_core.approval.tables import safe_named, secrets
from codex_core.approval.visible import visible
from codex_core.approval.windows import STARTUP_FOLDERS, language_of, read_line
from codex_core.sandbox.policy import canonical, contains, is_path_text
from codex_core.types import Safety, SafetyClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codex_core.approval.reading import Reading
    from codex_core.sandbox.policy import SandboxPolicy

SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin")
_UNMAPPED = 65534
"""Who owns the system's files where root is somebody outside, as in a rootless container (user_namespaces(7))."""
_ENTRIES_LOOKED_AT = 2000
"""A secret that lies deeper is not found before the question that is not asked."""
_RULES_OF_READERS = frozenset({".gitattributes", ".gitignore", ".ignore", ".mailmap", ".rgignore"})
UNDERSTOOD_SHELLS = frozenset({"bash", "dash", "sh", "zsh"})
_STARTUP_FILES = (".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshenv", ".zprofile", ".zlogin")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the meaning of a command depends on besides its words."""

    policy: SandboxPolicy
    folder: str | None
    """Where the command runs; None where that is not known, as after ``cd`` in a line."""
    environ: Mapping[str, str]
    home: str
    piped: bool = False
    """Its input is the output of another command."""
    in_shell: bool = False
    """A shell runs it, so that built-in commands need no program."""
    neutralises: bool = False
    """Who asks runs a safe command as its ``neutralised`` says."""


def classify(
    argv: Sequence[str], policy: SandboxPolicy, *, cwd: str | None = None, environ: Mapping[str, str] | None = None
) -> Safety:
    """Judge a plain command under *policy*.

    *cwd* is where it would run (the policy's, unless given), *environ* what it would get (this
    process's own, unless given).
    """
    environ = os.environ if environ is None else environ
    home = environ.get("HOME") or os.path.expanduser("~")
    return judge(argv, Surroundings(policy, policy.cwd if cwd is None else cwd, environ, home))


def judge(argv: Sequence[str], around: Surroundings) -> Safety:
    """Judge one command in its *around*; dangerous beats safe."""
    if not argv or not argv[0]:
        return Safety(SafetyClass.ASK, "there is no program to judge")
    if danger := danger_in_words(argv):
        return Safety(SafetyClass.DANGEROUS, visible(danger))
    if not all(is_path_text(word) for word in argv):
        return Safety(SafetyClass.ASK, "a word holds what no program can be given")
    try:
        match argv:
            case [shell, "-c" | "-lc", line] if is_understood_shell(shell):
                reason = _why_line_is_safe(shell, line, around)
            case [program, _, *_] if _can_be_neutralised(program, around):
                return _judge_git(argv, around)
            case [program, *_] if language_of(program):
                reason = _why_windows_line_is_safe(argv, around)
            case _:
                reason = _why_safe(argv, around)
        return Safety(SafetyClass.SAFE, reason)
    except NotSafeError as error:
        return Safety(SafetyClass.ASK, visible(str(error)))


def _why_safe(argv: Sequence[str], around: Surroundings) -> str:
    name = argv[0].rsplit("/", 1)[-1]
    program = safe_named(name)
    if program is None:
        msg = f"{name} is not known to be harmless"
        raise NotSafeError(msg)
    for variable in program.closed_by:
        if variable in around.environ:
            msg = f"{variable} is set, which changes what {name} does"
            raise NotSafeError(msg)
    _require_harmless_startup(around, program.startup, ())
    if not (around.in_shell and program.builtin and argv[0] == name):
        _require_system_program(argv[0], around)
    _require_harmless_reading(program.read(argv[1:], piped=around.piped), around)
    return f"{name} {program.reason}"


def _can_be_neutralised(program: str, around: Surroundings) -> bool:
    starts_it = around.neutralises and not around.in_shell
    return starts_it and os.name == "posix" and os.path.basename(program) == "git"


def _judge_git(argv: Sequence[str], around: Surroundings) -> Safety:
    from codex_core.approval.git import read_git

    program = _require_system_program(argv[0], around)
    if program is None:
        msg = "there is no git"
        raise NotSafeError(msg)
    call = read_git(program, argv[1:], around.folder or os.curdir, around.home)
    _require_harmless_reading(call.reading, replace(around, folder=call.folder))
    return Safety(SafetyClass.SAFE, call.reason, neutralised=call.neutralised)


def _why_line_is_safe(shell: str, line: str, around: Surroundings) -> str:
    _require_system_program(shell, around)
    variables = [around.environ.get(name, "") for name in ("BASH_ENV", "ENV", "ZDOTDIR")]
    _require_harmless_startup(around, _STARTUP_FILES, variables)
    reasons = []
    for program in programs(line):
        inside = replace(around, in_shell=True, piped=program.piped)
        reasons.append(_why_safe(program.words, inside))
        if program.words[0] == "cd":
            around = replace(around, folder=None)
    return "; ".join(dict.fromkeys(reasons))


def _why_windows_line_is_safe(argv: Sequence[str], around: Surroundings) -> str:
    _require_system_program(argv[0], around)
    modules = around.environ.get("PSModulePath", "").split(os.pathsep)
    _require_harmless_startup(around, STARTUP_FOLDERS, modules)
    reasons = []
    for reason, reading in read_line(argv):
        _require_harmless_reading(reading, around)
        reasons.append(reason)
    if not reasons:
        msg = "it runs nothing"
        raise NotSafeError(msg)
    return "; ".join(dict.fromkeys(reasons))


def _require_harmless_startup(around: Surroundings, names: Sequence[str], more: Sequence[str]) -> None:
    """Insist that nothing which is read first, *names* in the home and *more*, was put there by a command."""
    for place in [*(os.path.join(around.home, name) for name in names), *filter(None, more)]:
        inside = any(contains(root, canonical(place)) for root in around.policy.writable_roots)
        if inside and os.path.lexists(place):
            msg = f"it first reads {place}, where commands can write"
            raise NotSafeError(msg)


def _require_system_program(word: str, around: Surroundings) -> str | None:
    """Insist that the program is one that nobody but root can have put there; one that is missing does no harm."""
    found = found_program(word, around)
    if found is not None:
        _require_system_file(found, around)
    return found


def found_program(word: str, around: Surroundings) -> str | None:
    """Find the file of a program as the system will, None if there is none.

    Raises NotSafeError where that depends on the folder, and the folder is not known or in ``PATH``.
    """
    if "/" in word:
        if around.folder is None and not os.path.isabs(word):
            msg = f"after cd it is not known where {word!r} is"
            raise NotSafeError(msg)
        return os.path.join(around.folder or "/", word)
    for folder in around.environ.get("PATH", os.defpath).split(os.pathsep):
        if not os.path.isabs(folder):
            msg = f"PATH has the entry {folder!r}, so {word} may come from any folder"
            raise NotSafeError(msg)
        found = os.path.join(folder, word)
        if os.path.lexists(found) and not os.path.isdir(found):
            return found
    return None


def is_understood_shell(word: str) -> bool:
    """Say whether *word* names a shell whose lines can be read; not whether that is what it runs."""
    return os.path.basename(word) in UNDERSTOOD_SHELLS


def _require_system_file(path: str, around: Surroundings) -> None:
    resolved = canonical(path)
    folders = {os.path.dirname(path), os.path.dirname(resolved)}
    if not folders <= _system_folders():
        msg = f"{path} is not a program of the system"
        raise NotSafeError(msg)
    if any(contains(root, resolved) for root in around.policy.writable_roots):
        msg = f"{path} lies in a writable root"
        raise NotSafeError(msg)
    for place in (resolved, *folders):
        try:
            status = os.stat(place)
        except OSError as error:
            msg = f"{path} cannot be looked at: {error.strerror}"
            raise NotSafeError(msg) from error
        owner_is_far = status.st_uid == 0 or (status.st_uid == _UNMAPPED != os.geteuid())
        if not owner_is_far or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            msg = f"{place} can be changed by others than root"
            raise NotSafeError(msg)


def _require_harmless_reading(reading: Reading, around: Surroundings) -> None:
    for path in reading.paths:
        if around.folder is None and not os.path.isabs(path):
            msg = f"after cd it is not known where {path!r} is"
            raise NotSafeError(msg)
        written = os.path.normpath(os.path.join(around.folder or "/", path))
        resolved = canonical(os.path.join(around.folder or "/", path))
        _require_no_secret(path, written, resolved, around)
        _require_file_or_folder(path, resolved)
        if reading.recursive and contains(resolved, canonical(around.home)):
            msg = f"{path!r} holds the whole home folder"
            raise NotSafeError(msg)
        if reading.recursive and reading.contents and (found := _secret_below(resolved, reading)):
            msg = f"{path!r} holds {found}, which may be a secret, or leads to one"
            raise NotSafeError(msg)


def _require_no_secret(path: str, written: str, resolved: str, around: Surroundings) -> None:
    for place in (written, resolved):
        # What the workspace itself is called says nothing about the files in it.
        inside = place[len(around.policy.cwd) :] if contains(around.policy.cwd, place) else place
        if secret := secrets().named_in(inside):
            msg = f"{path!r} may hold a secret ({secret})"
            raise NotSafeError(msg)
    open_places = (around.policy.cwd, *around.policy.writable_roots, *_public_places())
    if not any(contains(place, resolved) for place in open_places):
        msg = f"{path!r} lies outside the workspace"
        raise NotSafeError(msg)


def _secret_below(folder: str, reading: Reading) -> str | None:
    """Look for what is a secret below *folder*, nearest first, no further than a bound; follow no link.

    Where the reader follows links, each of them may lead to one; where a file that is read for its rules is a pipe, the
    reader waits for ever.
    """
    left = _ENTRIES_LOOKED_AT
    folders = [folder]
    for here in folders:
        if os.path.basename(here) == ".git" and (found := _password_in(here)):
            return os.path.relpath(found, folder)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return os.path.relpath(here, folder) if reading.follows else None
                    is_folder = entry.is_dir(follow_symlinks=False)
                    named = secrets().is_content(entry.name) and (not is_folder or entry.name.startswith("."))
                    leads = reading.follows and entry.is_symlink()
                    waits = entry.name in _RULES_OF_READERS and not entry.is_file()
                    if named or leads or waits:
                        return os.path.relpath(entry.path, folder)
                    if is_folder and entry.name == ".git":
                        if found := _password_in(entry.path):
                            return os.path.relpath(found, folder)
                    elif is_folder:
                        folders.append(entry.path)
        except OSError:
            continue
    return None


def _password_in(git_dir: str) -> str | None:
    from codex_core.approval.git import password_in

    return password_in(git_dir)


@cache
def _system_folders() -> frozenset[str]:
    return frozenset({*SYSTEM_FOLDERS, *map(canonical, SYSTEM_FOLDERS)})


@cache
def _public_places() -> tuple[str, ...]:
    return tuple(dict.fromkeys([*secrets().public, *map(canonical, secrets().public)]))


def _require_file_or_folder(path: str, resolved: str) -> None:
    try:
        mode = os.stat(resolved).st_mode
    except OSError:
        return  # what is missing, or closed to us, gives the command an error and nothing else
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or resolved == os.devnull):
        msg = f"{path!r} is a device, a pipe or a socket"
        raise NotSafeError(msg)
