"""What a command may touch: settings in, one frozen answer out.

The same :class:`SandboxPolicy` answers for tools that run in this process (:meth:`SandboxPolicy.check`)
and is handed to the backend for subprocesses, so that a rule cannot hold in one tool only.

The rules, in the order in which they are applied:

1. Writable roots are the configured ones, the working directory, ``/tmp`` and ``$TMPDIR``, each
   resolved through every link.  A root that is missing is left out and named in a notice: less is
   writable then, and a configuration shared between machines goes on working.
2. In each root ``.git``, ``.codex`` and ``.agents`` are protected, whatever their case and whether
   they exist or not, together with what they lead to: link targets, the repository that a
   ``gitdir:`` file names, and its common directory.  Repositories in subfolders are protected as
   far as :func:`nested_repositories` finds them.
3. The home of codex and the folders that its code runs from are protected wherever they lie.  Who
   works on codex itself, in the checkout that the running codex is installed from, finds those
   source folders read-only inside the sandbox: the code that guards is not changed from within.
4. A root that equals, or lies inside, something protected is dropped, and a notice says so.  So
   protected beats writable however roots nest.

Importing this module costs no more than :mod:`os` and :mod:`codex_core.types`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codex_core.errors import CommandNotFoundError, ConfigError
from codex_core.types import Denial, Limits, Network, Operation, ProtectGit, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROTECTED_NAMES = (".git", ".codex", ".agents")
_GIT_CODE = (
    "config",
    "config.worktree",
    "commondir",
    "hooks",
    "info/attributes",
    "modules",
    "worktrees",
    "rebase-merge",
)
"""What git runs programs from: configuration, hooks, filters, the ``exec`` lines of a rebase, and other
repositories' configuration (gitrepository-layout(5), githooks(5), gitattributes(5))."""

_LINKS_FOLLOWED = 40
"""As many as Linux follows in one path (path_resolution(7))."""
_LINKS_LISTED = 1000
"""Entries of one folder that are looked at for links: each becomes a mount."""
_POINTER_BYTES = 8192
"""Enough for ``gitdir: `` and the longest path."""
_CASE_INSENSITIVE = sys.platform in {"darwin", "win32"}


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """The part of the configuration that a policy is built from; roots are absolute."""

    mode: SandboxMode = SandboxMode.READ_ONLY
    writable_roots: tuple[str, ...] = ()
    network_access: bool = False
    allowed_domains: tuple[str, ...] = ()
    """Patterns of :mod:`codex_core.sandbox.domains`; where there are any, nothing else is reached."""
    denied_domains: tuple[str, ...] = ()
    allowed_unix_sockets: tuple[str, ...] = ()
    """Absolute paths."""
    exclude_slash_tmp: bool = False
    exclude_tmpdir_env_var: bool = False
    protect_git: ProtectGit = ProtectGit.ALL
    limits: Limits = field(default_factory=Limits)
    allow_degraded: tuple[str, ...] = ()
    """Promises, by name, that may be lost where the host cannot keep them."""
    backend: str = ""
    """Entry-point name of the backend; empty chooses by operating system."""


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """What may be touched.  All paths are absolute and resolved; see the module for the rules."""

    mode: SandboxMode
    cwd: str
    writable_roots: tuple[str, ...]
    """Existing directories or files, none of them inside anything protected; empty unless workspace-write."""
    protected: tuple[str, ...]
    """Paths below some writable root that stay closed, existing or not, sorted."""
    protected_names: tuple[str, ...] = PROTECTED_NAMES
    """A direct child of a writable root with such a name, in any case, is protected too."""
    network: Network = Network.OFF
    allowed_domains: tuple[str, ...] = ()
    """Canonical patterns of :mod:`codex_core.sandbox.domains`, where the network is filtered."""
    denied_domains: tuple[str, ...] = ()
    allowed_unix_sockets: tuple[str, ...] = ()
    """Sockets of other programs that may be reached, whatever the network; canonical, existing or not."""
    allow_degraded: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    quarantine: str = ""
    """Where a backend moves what appears at a protected path: a folder in the home of codex, made when needed."""
    observe: bool = False
    """Report every refused write as a fact, at the price of speed, where the backend can."""
    opened: tuple[str, ...] = ()
    """Repositories that may be committed to: what git runs programs from is in *protected*, one by one."""
    pinned: tuple[str, ...] = ()
    """Existing directories between a root and something protected: writable inside, but not to be
    renamed or removed, or the protected path could be moved away and another put in its place."""
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Why each protected path is protected, in a few words."""
    notices: tuple[str, ...] = field(default=(), compare=False)
    """What a person should know about the roots, one line each."""

    def check(self, operation: Operation, target: str) -> Denial | None:
        """Judge one operation; None allows it.  Never raises.

        A ``WRITE`` is judged where it would land: at the end of all links, and, because a link can
        itself be replaced, at the link too; a ``REMOVE`` at the link.  Reading is allowed in every mode.
        """
        if operation is Operation.READ or self.mode is SandboxMode.DANGER_FULL_ACCESS:
            return None
        if operation is Operation.CONNECT:
            return self._check_connect(target)
        if not os.path.isabs(target) or not is_path_text(target):
            return Denial(operation, target, "only an absolute path can be judged")
        entry = _entry(target)
        if operation is Operation.REMOVE:
            return self._check_write(operation, entry) or self._check_stays(entry)
        resolved = canonical(target)
        if _is_loop(resolved):
            return Denial(operation, target, "its links lead round in a circle")
        return self._check_write(operation, resolved) or self._check_write(operation, entry)

    def _check_connect(self, target: str) -> Denial | None:
        if os.path.isabs(target):
            return self._check_socket(target)
        if self.network is Network.ON:
            return None
        if self.network is Network.FILTERED:
            return self._check_host(target)
        cure = "sandbox_workspace_write.network_access = true"
        if self.mode is SandboxMode.READ_ONLY:
            cure = f'sandbox_mode = "workspace-write" and {cure}'
        return Denial(Operation.CONNECT, target, "the network is off", cure)

    def _check_socket(self, path: str) -> Denial | None:
        if is_path_text(path) and canonical(path) in self.allowed_unix_sockets:
            return None
        return closed_socket(path)

    def _check_host(self, target: str) -> Denial | None:
        from codex_core.sandbox.domains import Rules, split_port

        try:
            host, port = split_port(target)
            ruling = Rules.parse(self.allowed_domains, self.denied_domains).decide(host, port)
        except ValueError as error:
            return Denial(Operation.CONNECT, target, str(error))
        return None if ruling.allowed else Denial(Operation.CONNECT, target, ruling.rule, ruling.cure)

    def _check_write(self, operation: Operation, path: str) -> Denial | None:
        if self.mode is SandboxMode.READ_ONLY:
            return Denial(operation, path, "read-only mode", 'sandbox_mode = "workspace-write"')
        holding = [root for root in self.writable_roots if contains(root, path)]
        if not holding:
            folder = path if os.path.isdir(path) else os.path.dirname(path)
            cure = f"add {folder!r} to sandbox_workspace_write.writable_roots"
            return Denial(operation, path, "outside every writable root", cure)
        for closed in self.protected:
            if contains(closed, path):
                return Denial(operation, path, f"{closed} is protected: {self.reasons.get(closed, 'by policy')}")
        for root in holding:
            child = path[len(root) :].lstrip(os.sep).partition(os.sep)[0]
            if child.casefold() in self.protected_names and os.path.join(root, child) not in self.opened:
                return Denial(operation, path, f"{child} is protected in every writable root")
        return None

    def _check_stays(self, path: str) -> Denial | None:
        if path in self.pinned:
            return Denial(Operation.REMOVE, path, "it holds something protected")
        if all(root == path for root in self.writable_roots if contains(root, path)):
            cure = f"add {os.path.dirname(path)!r} to sandbox_workspace_write.writable_roots"
            return Denial(Operation.REMOVE, path, "it is a writable root, and not in another one", cure)
        return None


def closed_socket(path: str) -> Denial:
    """Say that the unix socket at *path* is closed, and what would open it."""
    cure = f"add {path!r} to sandbox_workspace_write.allowed_unix_sockets"
    return Denial(Operation.CONNECT, path, "sockets of programs outside the sandbox are closed", cure)


def canonical(path: str) -> str:
    """Resolve every link in an absolute path; what does not exist is kept as it is written."""
    return os.path.realpath(path)


def is_path_text(text: str) -> bool:
    """Say whether the system can be given *text*: without NUL, and as :func:`os.fsdecode` makes it."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def contains(folder: str, path: str) -> bool:
    """Say whether *path* equals *folder* or lies below it; both canonical."""
    if _CASE_INSENSITIVE:
        folder, path = folder.casefold(), path.casefold()
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def build_policy(
    settings: SandboxSettings,
    *,
    cwd: str,
    environ: Mapping[str, str],
    codex_home: str,
    code_locations: Iterable[str] = (),
) -> SandboxPolicy:
    """Resolve *settings* against this machine.

    *cwd*, *codex_home* and *code_locations* (folders that the running codex, its plugins and its
    interpreter were loaded from) are absolute.  Nothing is changed on the machine.

    Raises CommandNotFoundError if *cwd* is gone, ConfigError if a configured root or socket is not an
    absolute path, or a domain no pattern.
    """
    folder = _existing(cwd)
    if folder is None or not os.path.isdir(folder):
        msg = f"the working directory {cwd!r} does not exist: change to one that does, or name one with --cd"
        raise CommandNotFoundError(msg)
    allow_degraded = frozenset(settings.allow_degraded)
    if settings.mode is not SandboxMode.WORKSPACE_WRITE:
        network = Network.ON if settings.mode is SandboxMode.DANGER_FULL_ACCESS else Network.OFF
        unlimited = settings.mode is SandboxMode.DANGER_FULL_ACCESS and settings.limits != Limits()
        return SandboxPolicy(
            settings.mode,
            folder,
            (),
            (),
            network=network,
            allow_degraded=allow_degraded,
            limits=settings.limits,
            notices=("no limit is kept: danger-full-access applies nothing",) if unlimited else (),
        )

    work_roots, notices = _configured_roots(settings.writable_roots)
    work_roots = list(dict.fromkeys([*work_roots, folder]))
    roots = list(dict.fromkeys([*work_roots, *_temporary_roots(settings, environ)]))

    hooks_only = settings.protect_git is ProtectGit.HOOKS
    closed: dict[str, str] = {}
    opened: list[str] = []
    for path in [codex_home, *_linked_children(codex_home)]:
        _close(closed, path, "it belongs to codex itself")
    for path in code_locations:
        _close(closed, path, "codex runs code from it")
    for root in roots:
        opened += _close_names(closed, root, hooks_only=hooks_only)
    firm = tuple(closed)
    nested: dict[str, str] = {}
    for root in work_roots:
        repositories, complete = nested_repositories(root)
        for repository in repositories:
            opened += _close_repository(nested, repository, hooks_only=hooks_only)
        if not complete:
            notices.append(f"repositories deep below {root} are not protected: it has too many folders to look into")
    # A command may have made these: they close what is theirs, and never a root with all that is in it.
    closed |= {
        path: why
        for path, why in nested.items()
        if path not in closed
        and any(contains(root, path) for root in work_roots)
        and not any(contains(path, root) for root in roots)
    }

    network, allowed, denied = _network(settings)
    writable = [root for root in roots if _why_dropped(root, closed) is None]
    notices += [f"{root} is not writable: {why}" for root in roots if (why := _why_dropped(root, closed)) is not None]
    notices += [
        f"{root} belongs to another user: inside the sandbox root has no rights beyond those of a user"
        for root in writable
        if _is_closed_to_plain_root(root)
    ]
    protected = sorted(path for path in closed if any(contains(root, path) for root in writable))
    return SandboxPolicy(
        mode=settings.mode,
        cwd=folder,
        writable_roots=tuple(writable),
        protected=tuple(protected),
        network=network,
        allowed_domains=allowed,
        denied_domains=denied,
        allowed_unix_sockets=_sockets(settings.allowed_unix_sockets),
        allow_degraded=allow_degraded,
        limits=settings.limits,
        quarantine=os.path.join(codex_home, "quarantine"),
        opened=tuple(opened),
        pinned=tuple(sorted({step for path in firm for root in writable for step in _between(root, path)})),
        reasons={path: closed[path] for path in protected},
        notices=tuple(notices),
    )


def nested_repositories(root: str, folders: int = 2000, entries: int = 50_000) -> tuple[list[str], bool]:
    """Find git repositories below *root*, nearest first: ``.git`` entries and bare layouts.

    Also says whether all of *root* was seen: it looks into at most so many *folders* with so many
    *entries* together, so that the cost is bounded.  Links are not followed, and the ``.git`` of *root*
    itself is not listed.
    """
    found: list[str] = []
    queue = [root]
    for looked, folder in enumerate(queue):
        if looked >= folders or entries <= 0:
            return found, False
        here = _entries(folder, entries)
        entries -= len(here)
        if folder != root:
            found += [entry.path for entry in here if entry.name.casefold() == ".git"]
            if {entry.name for entry in here} >= {"HEAD", "objects", "refs"}:
                found.append(folder)
                continue
        queue += [entry.path for entry in here if entry.name.casefold() not in PROTECTED_NAMES and _is_folder(entry)]
    return found, True


def _entry(path: str) -> str:
    """Give where the last name of an absolute path stands: links on the way are followed, and it is not."""
    parent, name = os.path.split(path)
    return canonical(path) if name in {"", os.curdir, os.pardir} else os.path.join(canonical(parent), name)


def _is_loop(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _is_closed_to_plain_root(root: str) -> bool:
    """Whether root can write to *root* only by a capability, which no sandbox leaves it."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    status = os.stat(root)
    return status.st_uid != 0 and not status.st_mode & stat.S_IWOTH


def _existing(path: str) -> str | None:
    try:
        return os.path.realpath(path, strict=True)
    except (OSError, ValueError):
        return None


def _configured_roots(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    roots, notices = [], []
    for path in paths:
        if not os.path.isabs(path):
            msg = f"sandbox_workspace_write.writable_roots: {path!r} is not an absolute path"
            raise ConfigError(msg)
        resolved = _existing(path)
        if resolved is None:
            notices.append(f"the writable root {path!r} does not exist and is left out")
        else:
            roots.append(resolved)
    return roots, notices


def _network(settings: SandboxSettings) -> tuple[Network, tuple[str, ...], tuple[str, ...]]:
    """Give how far the network reaches, and both lists in their canonical form where it is filtered."""
    if not settings.allowed_domains and not (settings.network_access and settings.denied_domains):
        return Network.ON if settings.network_access else Network.OFF, (), ()
    from codex_core.sandbox.domains import parse_pattern

    lists: list[tuple[str, ...]] = []
    for key, patterns in (
        ("allowed_domains", settings.allowed_domains or ("*",)),
        ("denied_domains", settings.denied_domains),
    ):
        try:
            lists.append(tuple(dict.fromkeys(str(parse_pattern(pattern)) for pattern in patterns)))
        except ValueError as error:
            raise ConfigError(f"sandbox_workspace_write.{key}: {error}") from None
    return Network.FILTERED, lists[0], lists[1]


def _sockets(paths: Iterable[str]) -> tuple[str, ...]:
    for path in paths:
        if not os.path.isabs(path) or not is_path_text(path):
            raise ConfigError(f"sandbox_workspace_write.allowed_unix_sockets: {path!r} is not an absolute path")
    return tuple(dict.fromkeys(map(canonical, paths)))


def _temporary_roots(settings: SandboxSettings, environ: Mapping[str, str]) -> Iterator[str]:
    named = environ.get("TMPDIR", "")
    wanted = []
    if not settings.exclude_slash_tmp and os.name == "posix":
        wanted.append("/tmp")  # noqa: S108 - the documented root, not a temporary file of ours
    if not settings.exclude_tmpdir_env_var and os.path.isabs(named):
        wanted.append(named)
    for path in wanted:
        resolved = _existing(path)
        if resolved is not None and os.path.isdir(resolved):
            yield resolved


def _close(closed: dict[str, str], path: str, why: str) -> None:
    """Protect *path*, every link on the way to it, and where it leads, existing or not."""
    for step in _trail(path):
        closed.setdefault(step, why if contains(path, step) else f"{path} leads to it")


def _close_names(closed: dict[str, str], root: str, *, hooks_only: bool) -> list[str]:
    """Protect the names in *root*; the repositories that stay open in part."""
    opened: list[str] = []
    if not os.path.isdir(root):
        return opened
    present: dict[str, list[str]] = {name: [] for name in PROTECTED_NAMES}
    for entry in _entries(root):
        if entry.name.casefold() in present:
            present[entry.name.casefold()].append(entry.path)
    for name, paths in present.items():
        for path in paths or [os.path.join(root, name)]:
            if name == ".git":
                opened += _close_repository(closed, path, hooks_only=hooks_only)
            else:
                for step in [path, *_linked_children(path)]:
                    _close(closed, step, f"{name} is protected in every writable root")
    if all(os.path.lexists(os.path.join(root, name)) for name in ("HEAD", "objects", "refs")):
        for name in ("config", "config.worktree", "commondir", "hooks", "info"):
            _close(closed, os.path.join(root, name), "git runs programs that it names")
    return opened


def _close_repository(closed: dict[str, str], path: str, *, hooks_only: bool) -> list[str]:
    """Protect the repository that *path* (``.git``, or a bare repository) is or points to.

    With *hooks_only*, a repository that really lies at *path* stays open but for what git runs programs
    from, and is given back.
    """
    why = "git runs programs that it names"
    if hooks_only and os.path.isdir(path) and not os.path.islink(path):
        for name in _GIT_CODE:
            code = os.path.join(path, name)
            for step in [code, *_linked_children(code)]:
                _close(closed, step, why)
        return [path]
    _close(closed, path, why)
    gitdir = _pointer(path, "gitdir: ") or path
    for folder in (gitdir, _pointer(os.path.join(gitdir, "commondir"), "", gitdir) or gitdir):
        for step in [folder, *_linked_children(folder), *_linked_children(os.path.join(folder, "hooks"))]:
            _close(closed, step, why)
    return []


def _pointer(path: str, prefix: str, base: str | None = None) -> str | None:
    """Read the path that a small regular file holds after *prefix*, as git reads it."""
    try:
        # O_NONBLOCK: a pipe put there must not hold us.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = os.fsdecode(os.read(descriptor, _POINTER_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    target = text.removeprefix(prefix).rstrip("\r\n")
    if not text.startswith(prefix) or not target or "\0" in target:
        return None
    return os.path.join(base or os.path.dirname(path), target)


def _linked_children(folder: str) -> list[str]:
    """List the links directly inside *folder*: where they lead is part of what it means."""
    return [entry.path for entry in _entries(folder, _LINKS_LISTED) if entry.is_symlink()]


def _entries(folder: str, limit: int = sys.maxsize) -> list[os.DirEntry[str]]:
    """At most *limit* entries of *folder*, none where it cannot be listed."""
    found: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(found) >= limit:
                    break
                found.append(entry)
    except (OSError, ValueError):
        return found
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _trail(path: str) -> list[str]:
    """List every link that is followed along an absolute path, and the end of the way."""
    links: list[str] = []
    drive, tail = os.path.splitdrive(path)
    here = drive + os.sep
    ahead = tail.split(os.sep)[::-1]
    while ahead:
        name = ahead.pop()
        if name in {"", os.curdir}:
            continue
        if name == os.pardir:
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, name)
        try:
            target = os.readlink(step)
        except (OSError, ValueError):
            here = step
            continue
        links.append(step)
        if len(links) > _LINKS_FOLLOWED:
            return links
        if os.path.isabs(target):
            drive, target = os.path.splitdrive(target)
            here = drive + os.sep
        ahead += target.split(os.sep)[::-1]
    return [*links, here]


def _why_dropped(root: str, closed: Mapping[str, str]) -> str | None:
    for path, why in closed.items():
        if contains(path, root):
            return f"it lies in {path}, which is protected: {why}"
    for name in root.split(os.sep):
        if name.casefold() in PROTECTED_NAMES:
            return f"it lies in a folder named {name}"
    return None


def _between(root: str, path: str) -> Iterator[str]:
    """Give the folders strictly between *root* and *path*, if *path* lies below *root*."""
    parent = os.path.dirname(path)
    while contains(root, parent) and parent != root:
        yield parent
        parent = os.path.dirname(parent)
