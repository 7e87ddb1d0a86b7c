"""What the policy says in this process, and what the kernel does in a jail, are the same.

Random trees, policies and operations: what succeeds without the sandbox has to succeed in it exactly where
``SandboxPolicy.check`` allows it.  Every operation is taken back at once, so that all meet the same tree.

CODEX_CORE_DECISIONS is how many decisions are compared for each kind of user and host, CODEX_CORE_SEED where the
random numbers start.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import socket
import stat
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codex_core.sandbox.policy import PROTECTED_NAMES, SandboxPolicy, SandboxSettings, canonical, contains
from codex_core.types import Operation, Promise, ProtectGit, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codex_core.types import CommandResult

    from plugins.sandbox_linux.tests.conftest import Box

_DECISIONS = int(os.environ.get("CODEX_CORE_DECISIONS", "2600"))
_SEED = int(os.environ.get("CODEX_CORE_SEED", "1"))
_QUESTIONS = 500
"""Asked of one jail; some are none, because without the sandbox it does not work either."""
_APPEARING = 8
"""Protected names that are made at the end; one command may not make many."""
_DRIVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attempts.py")

_NAMES = (
    *("a", "b", "deep", "file.txt", "two words", "line\nbreak", "\udcff\udcfe", "x" * 255, "-rf", "ü", "'\"$HOME"),
    *(".gitignore", ".github", "git", ".git2", "...", "HEAD", "config", "hooks"),
)
_SPELLINGS = (*PROTECTED_NAMES, ".Git", ".GIT", ".CODEX", ".Agents", ".agent\u017f")
_FOLLOWING = ("read", "write", "cut", "mode", "times", "attribute", "create", "nameless")
"""What these do, they do at the end of all links."""
_MAKING = ("file", "folder", "pipe", "symlink")
_METADATA = ("mode", "times", "attribute")

Question = tuple[str, str, str]


class Tree:
    """Random files, folders, links and repositories below some folders."""

    def __init__(self, numbers: random.Random, base: str, tops: list[str]) -> None:
        self.numbers = numbers
        self.base = base
        self.paths = list(tops)
        self.closed: list[tuple[str, int]] = []
        for top in tops:
            os.makedirs(top, exist_ok=True)
        for top in tops:
            self._grow(top, 3)
        for path, mode in self.closed:
            os.chmod(path, mode)

    def _grow(self, folder: str, levels: int) -> None:
        for _ in range(self.numbers.randint(2, 5)):
            name = self.numbers.choice(_SPELLINGS if self.numbers.random() < 0.3 else _NAMES)
            path = os.path.join(folder, name)
            if not os.path.lexists(path):
                self.numbers.choice(
                    (self._folder, self._folder, self._file, self._link, self._hard_link, self._repository)
                )(path, levels)
                self.paths.append(path)

    def _folder(self, path: str, levels: int) -> None:
        os.mkdir(path)
        if levels:
            self._grow(path, levels - 1)
        if self.numbers.random() < 0.1:
            self.closed.append((path, 0o555))

    def _file(self, path: str, _: int) -> None:
        pointer = f"gitdir: {self.numbers.choice(self.paths)}\n"
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(pointer if self.numbers.random() < 0.3 else "content\n")
        if self.numbers.random() < 0.1:
            self.closed.append((path, 0o444))

    def _link(self, path: str, _: int) -> None:
        target = self.numbers.choice([*self.paths, path, os.path.join(os.path.dirname(path), "missing")])
        os.symlink(self.numbers.choice([target, os.path.relpath(target, os.path.dirname(path))]), path)

    def _hard_link(self, path: str, levels: int) -> None:
        files = [known for known in self.paths if os.path.isfile(known) and not os.path.islink(known)]
        if files:
            os.link(self.numbers.choice(files), path)
        else:
            self._file(path, levels)

    def _repository(self, path: str, levels: int) -> None:
        bare = path if self.numbers.random() < 0.3 else os.path.join(path, self.numbers.choice((".git", ".GIT")))
        for name in ("objects", "refs", "hooks", "info"):
            os.makedirs(os.path.join(bare, name))
        for name in ("HEAD", "config", "hooks/pre-commit", "info/attributes"):
            self._file(os.path.join(bare, name), levels)
        self.paths += [bare, *(os.path.join(bare, name) for name in ("config", "hooks", "hooks/pre-commit", "HEAD"))]

    def spelled(self) -> str:
        """Give a path to something that exists, or does not, in one of its spellings."""
        path = self.numbers.choice(self.paths)
        way = self.numbers.randrange(8)
        if way == 0:
            path = os.path.join(path, self.numbers.choice((*_NAMES, *_SPELLINGS)))
        elif way == 1:
            path = os.path.join(os.path.dirname(path), self.numbers.choice((*_NAMES, *_SPELLINGS)))
        elif way == 2:
            path = os.path.join(os.path.dirname(path), os.curdir, "", os.path.basename(path))
        elif way == 3:
            path = os.path.join(path, os.pardir, os.path.basename(path))
        elif way == 4:  # perhaps through a link
            real = canonical(path)
            below = [os.path.basename(known) for known in self.paths if os.path.dirname(known) == real]
            path = os.path.join(path, *below[: self.numbers.randrange(3)][-1:])
        return path

    def is_inside(self, path: str) -> bool:
        """Whether nothing beyond the tree is touched, without the sandbox too."""
        return all(contains(self.base, end) for end in (canonical(path), _entry(path)))

    def snapshot(self) -> dict[str, tuple[int, int, str]]:
        """Give kind, size and content or target of everything."""
        found = {}
        for folder, folders, files in os.walk(self.base):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
                found[path] = (status.st_mode, 0 if stat.S_ISDIR(status.st_mode) else status.st_size, target)
        return found


def _entry(path: str) -> str:
    """Give where the last name of a path stands: links on the way are followed, the last is not."""
    folder, name = os.path.split(path)
    return canonical(path) if name in {"", os.curdir, os.pardir} else os.path.join(canonical(folder), name)


def _file(path: str) -> tuple[int, int] | str:
    """Give what is at a path; what does not exist is known by its name."""
    try:
        status = os.lstat(path)
    except OSError:
        return _entry(path)
    return status.st_dev, status.st_ino


def _names_of(path: str) -> int:
    return os.stat(path).st_nlink if os.path.exists(path) else 0


def _settings(numbers: random.Random, tree: Tree, sockets: list[str]) -> SandboxSettings:
    # Landlock knows a root that is a file by its inode: all its names are writable then, as the content is anyway.
    possible = [path for path in tree.paths if os.path.isdir(path) or _names_of(path) == 1]
    roots = numbers.sample(possible, min(len(possible), numbers.randint(0, 4)))
    return SandboxSettings(
        SandboxMode.READ_ONLY if numbers.random() < 0.1 else SandboxMode.WORKSPACE_WRITE,
        tuple(roots),
        network_access=numbers.random() < 0.3,
        allowed_unix_sockets=tuple(numbers.sample(sockets, 2)),
        exclude_slash_tmp=True,
        exclude_tmpdir_env_var=True,
        protect_git=numbers.choice(list(ProtectGit)),
        allow_degraded=("protected_paths",),
    )


def _questions(numbers: random.Random, tree: Tree, sockets: list[str], port: int) -> Iterator[Question]:
    for host in ("127.0.0.1", "::1"):
        yield "dial", host, str(port)
    for path in sockets:
        yield "connect", path, ""
    for _ in range(_QUESTIONS):
        path, other = tree.spelled(), tree.spelled()
        kinds = [*_FOLLOWING, "remove", "link", "move", "swap"] if os.path.lexists(path) else ["create", *_MAKING]
        kind = numbers.choice(kinds)
        if kind in {"link", "move"} and os.path.lexists(other):
            other += "-new"
        if all(map(tree.is_inside, (path, other))) and _file(path) != _file(other):
            yield kind, path, other


class Model:
    """What the policy says, as far as the host keeps it."""

    def __init__(self, policy: SandboxPolicy, kept: frozenset[Promise]) -> None:
        self.whole = self.policy = policy
        self.kept = kept
        if Promise.PROTECTED_PATHS not in kept:
            roots = policy.writable_roots
            outermost = tuple(root for root in roots if not any(contains(o, root) for o in roots if o != root))
            self.policy = replace(policy, writable_roots=outermost, protected=(), protected_names=(), pinned=())

    def allows(self, question: Question) -> bool:
        """Whether the operation is allowed."""
        if question[0] in _METADATA and Promise.METADATA not in self.kept:
            return True
        return all(self.policy.check(operation, target) is None for operation, target in _demands(*question))

    def moves_away(self, path: str) -> bool:
        """Whether what is made at *path*, or below it, is moved away: a protected path that did not exist."""
        ends = {canonical(path), _entry(path)} if path.startswith("/") else set()
        for end in ends:
            if any(contains(closed, end) and not os.path.lexists(closed) for closed in self.whole.protected):
                return True
            for root in self.whole.writable_roots:
                name = os.path.relpath(end, root).partition(os.sep)[0]
                path = os.path.join(root, name)
                if name.casefold() in self.whole.protected_names and (
                    not os.path.lexists(path) or (path == end and Promise.PROTECTED_PATHS not in self.kept)
                ):
                    return True
        return False


def _demands(kind: str, path: str, other: str) -> tuple[tuple[Operation, str], ...]:
    """Give all that has to be allowed for an operation."""
    end = canonical(path)
    demands = {
        "dial": ((Operation.CONNECT, f"[{path}]:{other}" if ":" in path else f"{path}:{other}"),),
        "connect": ((Operation.CONNECT, path),),
        "read": ((Operation.READ, path),),
        "nameless": ((Operation.WRITE, os.path.join(end, "nameless")),),
        "remove": ((Operation.REMOVE, path),),
        "link": ((Operation.REMOVE, path), (Operation.WRITE, other)),  # what has two names can be changed by each
        "move": ((Operation.REMOVE, path), (Operation.WRITE, other)),
        "swap": ((Operation.REMOVE, path), (Operation.REMOVE, other)),
        **dict.fromkeys(_MAKING, ((Operation.WRITE, path),)),
    }
    return demands.get(kind, ((Operation.WRITE, end),))


class Round:
    """One tree and one policy."""

    def __init__(self, box: Box, numbers: random.Random, held: ExitStack) -> None:
        self.box = box
        self.numbers = numbers
        self.base = f"{box.base}/round"
        held.callback(shutil.rmtree, self.base)
        self.tree = Tree(numbers, self.base, [f"{self.base}/{name}" for name in ("ws", "second", "outside")])
        self.sockets = list(self._listen(held))
        server = held.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        self.port = server.getsockname()[1]
        box.user.owns(self.base)

    def _listen(self, held: ExitStack) -> Iterator[str]:
        for number, top in enumerate(self.tree.paths[:3]):
            path = f"{top}/socket"
            server = held.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(path)
            server.listen(64)
            os.symlink(path, f"{self.base}/link{number}")
            yield from (path, f"{self.base}/link{number}")

    def compare(self) -> tuple[int, list[str]]:
        """Give how many decisions were compared, and which differ."""
        asked = list(_questions(self.numbers, self.tree, self.sockets, self.port))
        before = self.tree.snapshot()
        free = self._answers(asked, confined=False)
        assert self.tree.snapshot() == before, "an operation was not taken back"
        folders = [path for path in self.tree.paths if os.path.isdir(path)]
        homes = [
            self.box.codex_home,
            f"{self.base}/second/home",
            *(path for path in folders if path.endswith(".codex")),
        ]
        settings = _settings(self.numbers, self.tree, self.sockets)
        self.box.policy, strength = self.box.ask(
            "open", settings, self.numbers.choice(folders), self.numbers.choice(homes), "local"
        )
        model = Model(self.box.policy, strength.kept)
        possible = [
            question
            for question, error in zip(asked, free, strict=True)
            if error == 0 and not any(map(model.moves_away, question[1:]))
        ]
        before = self.tree.snapshot()
        inside = self._answers(possible, confined=True)
        assert self.tree.snapshot() == before, f"an operation was not taken back inside {model.whole}"
        different = []
        decisions = 0
        for question, error in zip(possible, inside, strict=True):
            allowed = model.allows(question)
            if allowed and error == errno.EXDEV:  # no policy decides about a move between two mounts: programs copy
                continue
            decisions += 1
            if allowed is not (error == 0):
                outcome = errno.errorcode.get(error, error) if error else "succeeds"
                different.append(f"{question}: the model {'allows' if allowed else 'denies'} it, and it {outcome}")
        if different:
            different.append(repr(model.whole))
        return decisions, different

    def what_stays(self) -> tuple[int, list[str]]:
        """Give how many protected names were made that did not exist, and which stayed or were not reported."""
        assert self.box.policy is not None
        policy = self.box.policy
        missing = [path for path in policy.protected if not os.path.lexists(path)]
        missing += [
            f"{root}/{self.numbers.choice(_SPELLINGS)}" for root in policy.writable_roots if os.path.isdir(root)
        ]
        missing = [path for path in dict.fromkeys(missing) if not os.path.lexists(path)]
        asked = [
            ("appear", path, f"{os.path.dirname(path)}/made" if self.numbers.random() < 0.5 else "")
            for path in self.numbers.sample(missing, min(len(missing), _APPEARING))
        ]
        result = self._run(asked, confined=True)
        assert result.returncode == 0, result
        reported = {denial.target for denial in result.denials}
        wrong = {
            path
            for (_, path, _), error in zip(asked, json.loads(result.stdout), strict=True)
            if os.path.lexists(path) or (error == 0 and path not in reported)
        }
        self.box.close()
        for _, path, other in asked:
            shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(other, ignore_errors=True)
        free = self._answers(asked, confined=False)
        return free.count(0), [
            path for (_, path, _), error in zip(asked, free, strict=True) if path in wrong and not error
        ]

    def _answers(self, asked: list[Question], *, confined: bool) -> list[int]:
        result = self._run(asked, confined=confined)
        assert result.returncode == 0, result
        answers: list[int] = json.loads(result.stdout)
        return answers

    def _run(self, asked: list[Question], *, confined: bool) -> CommandResult:
        path = f"{self.box.base}/questions"
        with open(path, "wb") as file:
            pickle.dump(asked, file)
        with open(_DRIVER, encoding="utf-8") as file:
            argv = [self.box.user.python, "-I", "-S", "-B", "-c", file.read(), path]
        if confined:
            return self.box.run(argv, cwd="/")
        # An ordinary user has nothing to give up.
        return self.box.free([*argv, *(self.box.user.folders if self.box.user.uid == 0 else ())], cwd="/")


@pytest.mark.parametrize("without", ["", "namespaces"])
def test_the_policy_and_the_kernel_decide_alike(box_without: Callable[[str], Box], without: str) -> None:
    box = box_without(without)
    numbers = random.Random(f"{_SEED} {box.user.name} {without}")
    decisions = 0
    while decisions < _DECISIONS:
        with ExitStack() as held:
            tried = Round(box, numbers, held)
            compared, different = tried.compare()
            assert not different, f"CODEX_CORE_SEED={_SEED}, after {decisions}:\n" + "\n".join(different)
            made, stayed = (0, []) if without else tried.what_stays()
            assert not stayed, f"CODEX_CORE_SEED={_SEED}, after {decisions}: {stayed}, {box.policy}"
        decisions += compared + made
