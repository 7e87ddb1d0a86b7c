"""Git run so that it only reads, whatever the repository holds.

A repository makes git run programs by its configuration and by what that switches on.  So a call is
harmless only where three things hold, and what they are is in ``data/git.toml``:

* its subcommand and its options only read;
* the configuration of the repository, read here and strictly, holds no key but harmless ones;
* it is run as :class:`~codex_core.types.Neutralised` says: on the very repository that was looked at,
  with no other configuration and no variable of git's own, and with everything switched off that
  could start a program, should the configuration change in between.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from codex_core.approval.reading import MANY, NotSafeError, Options, Reading
from codex_core.approval.tables import frozen, is_like, load_table, options_of, try_examples
from codex_core.sandbox.policy import contains
from codex_core.types import Neutralised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_READ_AT_MOST = 65_536
"""Bytes of one file of the repository; more than any configuration that people write."""
_BEFORE_SUBCOMMAND = frozenset({"--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs"})
_ENTRIES_AT_MOST = 50_000
"""In a repository; git packs its objects long before."""
_READ_UNASKED = (".gitignore", ".mailmap")
"""Files of a work tree that git reads for itself, besides ``.gitattributes``, which is looked into."""
_VERIFYING = re.compile(r"%[-+ ]?G|%\(\*?signature|^(--sort=|[-*]|v\w*:)*signature")
"""What makes a format call ``gpg``, or sorts by what only that can tell."""
_SECTION = re.compile(r'\[([A-Za-z0-9-]+)(?:[ \t]+"([^"\\\n]*)")?\]')
_ENTRY = re.compile(r"([A-Za-z][A-Za-z0-9-]*)[ \t]*(?:=[ \t]*([^\\]*))?")
_PASSWORD = re.compile(r"(?<!ssh)://[^/]*@")
_FILTER = re.compile(rb"\bfilter\s*=")


@dataclass(frozen=True, slots=True)
class Call:
    """A harmless call of git."""

    reason: str
    reading: Reading
    folder: str
    """Where it looks from."""
    neutralised: Neutralised


@dataclass(frozen=True, slots=True, kw_only=True)
class Subcommand:
    """One table of ``data/git.toml``."""

    name: str
    reason: str
    options: Options
    operands: tuple[int, int] = (0, MANY)
    operands_with: tuple[str, ...] = ()
    each: str = ""
    contents: bool | tuple[str, ...] = False
    insert: tuple[str, ...] = ()

    def read(self, words: Sequence[str]) -> tuple[tuple[str, ...], bool]:
        """Give the operands among *words*, and whether it prints what is in files.

        Raises NotSafeError if it does more than read, or if that is not known.
        """
        seen, operands = self.options.split(words, mixed=True)
        if self.operands_with and seen.isdisjoint(self.operands_with):
            least, most = 0, 0
        else:
            least, most = self.operands
        if not least <= len(operands) <= most:
            raise NotSafeError(f"git {self.name} is not known to be harmless with {len(operands)} operands")
        for operand in operands:
            if operand.startswith(("-", ":")) or (self.each and not re.fullmatch(self.each, operand)):
                raise NotSafeError(f"the operand {operand!r} is not known to be harmless")
        if any(_VERIFYING.search(word) for word in words):
            raise NotSafeError("it may start gpg to verify a signature")
        return operands, self.contents if isinstance(self.contents, bool) else not seen.isdisjoint(self.contents)


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a repository lies."""

    work_tree: str
    git_dir: str
    common_dir: str
    """Holds what the work trees of a repository share."""


def read_git(program: str, words: Sequence[str], folder: str, home: str) -> Call:
    """Say how the git at *program* is run harmlessly when it gets *words* in *folder*.

    Raises NotSafeError if it cannot be.
    """
    before, start = _before_subcommand(words)
    folder = os.path.join(folder, *before)
    name, given = words[start], tuple(words[start + 1 :])
    subcommand = subcommand_named(name)
    if subcommand is None:
        raise NotSafeError(f"git {name} is not known to be harmless")
    operands, contents = subcommand.read(given)
    repository = find_repository(folder)
    if contains(repository.work_tree, os.path.realpath(home)):
        raise NotSafeError("the repository holds the whole home folder")
    _require_own_and_whole(repository)
    _require_harmless_configuration(repository)
    paths = [part for operand in operands for part in (operand, operand.partition(":")[2]) if part]
    return Call(
        reason=f"git {subcommand.reason}, and runs with nothing that the repository could start",
        reading=Reading(
            paths=(folder, *paths, *([repository.work_tree] if contents else [])),
            recursive=contents,
            contents=contents,
        ),
        folder=folder,
        neutralised=Neutralised(
            argv=(program, *words[:start], name, *subcommand.insert, *given),
            without="GIT_",
            environ=_environment(repository),
        ),
    )


def _before_subcommand(words: Sequence[str]) -> tuple[list[str], int]:
    """Give the folders of ``-C`` and where the subcommand stands."""
    folders: list[str] = []
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "-C" and at + 1 < len(words):
            at += 1
            folders.append(words[at])
        elif words[at] not in _BEFORE_SUBCOMMAND:
            raise NotSafeError(f"git {words[at]} is not known to be harmless")
        at += 1
    if at == len(words):
        raise NotSafeError("git has no subcommand")
    return folders, at


@lru_cache(maxsize=1024)
def subcommand_named(name: str) -> Subcommand | None:
    """Give what is known to be safe about a subcommand, its examples tried; None if nothing is."""
    table = load_table("git")["subcommand"].get(name)
    return None if table is None else subcommand(name, table)


def subcommand(name: str, table: Mapping[str, Any]) -> Subcommand:
    """Make a subcommand from a table of ``git.toml`` and try its examples."""
    groups = load_table("git")["options"]
    merged = {key: value for key, value in table.items() if key not in {"uses", "safe", "ask"}}
    for group in table.get("uses", ()):
        for key, value in groups[group].items():
            merged[key] = merged[key] + value if key in merged else value
    rest, options = options_of(merged)
    made = Subcommand(name=name, options=options, **{key: frozen(value) for key, value in rest.items()})
    try_examples(lambda line: made.read(shlex.split(line)[1:]), table, f"git.toml: [subcommand.{name}]")
    return made


# The repository


def password_in(git_dir: str) -> str | None:
    """Give the file of configuration in a repository's folder, or in that of a submodule, that may hold a password."""
    places = [git_dir]
    left = _ENTRIES_AT_MOST
    for folder, folders, files in os.walk(os.path.join(git_dir, "modules")):
        folders[:] = [name for name in folders if name != "objects"]
        left -= len(folders) + len(files)
        if left < 0:
            return folder
        places.append(folder)
    for place in places:
        path = os.path.join(place, "config")
        try:
            content = os.fsdecode(_read(path))
        except NotSafeError:
            return path
        if _PASSWORD.search(content) or "extraheader" in content.casefold():
            return path
    return None


def find_repository(folder: str) -> Repository:
    """Find the repository that *folder* belongs to.  Raises NotSafeError where there is none, or it is in doubt."""
    work_tree = os.path.realpath(folder)
    while not os.path.lexists(os.path.join(work_tree, ".git")):
        parent = os.path.dirname(work_tree)
        if parent == work_tree:
            raise NotSafeError("there is no repository here")
        work_tree = parent
    entry = os.path.join(work_tree, ".git")
    if stat.S_ISDIR(os.lstat(entry).st_mode):
        return Repository(work_tree, entry, entry)
    git_dir = os.path.realpath(os.path.join(work_tree, _line(entry, "gitdir: ")))
    common_dir = os.path.realpath(os.path.join(git_dir, _line(os.path.join(git_dir, "commondir"))))
    # Whoever writes in the work tree can name any repository there; only the repository itself knows its work trees.
    known = os.path.dirname(git_dir) == os.path.join(common_dir, "worktrees")
    if not known or os.path.realpath(_line(os.path.join(git_dir, "gitdir"))) != entry:
        raise NotSafeError(f"{common_dir} does not know {work_tree} as a work tree")
    return Repository(work_tree, git_dir, common_dir)


def _line(path: str, prefix: str = "") -> str:
    content = os.fsdecode(_read(path))
    if not content.startswith(prefix) or content.count("\n") != 1 or not content.endswith("\n"):
        raise NotSafeError(f"{path} is not understood")
    return content[len(prefix) : -1]


def _read(path: str) -> bytes:
    """Read a small regular file, as empty if there is none; raises NotSafeError for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise NotSafeError(f"{path} cannot be read: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotSafeError(f"{path} is no file")
        content = file.read(_READ_AT_MOST + 1)
    if len(content) > _READ_AT_MOST:
        raise NotSafeError(f"{path} is too large to be looked through")
    return content


def _require_own_and_whole(repository: Repository) -> None:
    """Insist that everything in it is the user's, and that it shows nothing of another repository."""
    try:
        for folder in (repository.work_tree, repository.git_dir, repository.common_dir):
            if os.stat(folder).st_uid != os.geteuid():
                raise NotSafeError(f"{folder} belongs to another user")
        _require_plain_files(repository.common_dir)  # in which that of a work tree lies
        for name in _READ_UNASKED:
            _read(os.path.join(repository.work_tree, name))
    except OSError as error:
        raise NotSafeError(f"{error.filename} cannot be looked at: {error.strerror}") from error
    if os.path.lexists(os.path.join(repository.common_dir, "objects", "info", "alternates")):
        raise NotSafeError("the repository takes objects from another one")


def _require_plain_files(git_dir: str) -> None:
    """Insist that no link shows what lies elsewhere, and that nothing that is read waits for a writer."""
    left = _ENTRIES_AT_MOST
    folders = [git_dir]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                left -= 1
                if entry.is_symlink():
                    raise NotSafeError(f"{entry.path} is a link")
                if left < 0:
                    raise NotSafeError(f"{git_dir} holds more than is looked through")
                if entry.is_dir(follow_symlinks=False):
                    if (folder, entry.name) != (git_dir, "hooks"):  # none of them is run
                        folders.append(entry.path)
                elif not entry.is_file(follow_symlinks=False) and not stat.S_ISSOCK(os.lstat(entry).st_mode):
                    raise NotSafeError(f"{entry.path} is no file")


def _require_harmless_configuration(repository: Repository) -> None:
    harmless = load_table("git")["configuration"]["harmless"]
    for folder, name in ((repository.common_dir, "config"), (repository.git_dir, "config.worktree")):
        path = os.path.join(folder, name)
        for key, value in read_configuration(_read(path), path):
            if not any(is_like(key, pattern) for pattern in harmless):
                raise NotSafeError(f"{path} sets {key}, which is not known to be harmless")
            if _PASSWORD.search(value):
                raise NotSafeError(f"{path} holds a password")
    for folder, name in ((repository.work_tree, ".gitattributes"), (repository.common_dir, "info/attributes")):
        # No filter is configured, so none can run; but what git then says would be wrong.
        if _FILTER.search(_read(os.path.join(folder, name))):
            raise NotSafeError(f"{os.path.join(folder, name)} names a filter, which would not be run")


def read_configuration(content: bytes, path: str) -> Iterator[tuple[str, str]]:
    """Give the keys, in small letters, and the values of a file of git's configuration.

    Understands one section or one entry on each line, without escapes and continued lines.  Raises
    NotSafeError at anything else.
    """
    section = ""
    for number, raw in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), start=1):
        line = raw.strip(" \t")
        if not line or line[0] in "#;":
            continue
        if found := _SECTION.fullmatch(line):
            section = ".".join(filter(None, (found[1].casefold(), found[2])))
        elif (found := _ENTRY.fullmatch(line)) and section and line.isprintable():
            yield f"{section}.{found[1].casefold()}", found[2] or ""
        else:
            raise NotSafeError(f"{path}:{number} is not understood")


def _environment(repository: Repository) -> dict[str, str]:
    table = load_table("git")
    overrides: dict[str, str] = {}
    for at, (key, value) in enumerate(table["overrides"].items()):
        overrides |= {f"GIT_CONFIG_KEY_{at}": key, f"GIT_CONFIG_VALUE_{at}": value}
    return {
        **table["environment"],
        "GIT_DIR": repository.git_dir,
        "GIT_COMMON_DIR": repository.common_dir,
        "GIT_WORK_TREE": repository.work_tree,
        "GIT_CONFIG_COUNT": str(len(table["overrides"])),
        **overrides,
    }
