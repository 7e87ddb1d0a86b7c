"""A workspace, a process that owns launchers in it, and the users that it is tried as."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.sandbox.policy import SandboxPolicy, SandboxSettings
from codex_core.types import Command, CommandResult, Denial, Ended, Limits, SandboxMode, Strength

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REQUIRE = "CODEX_CORE_REQUIRE"
_TESTS = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = ("codex_core", "codex_sandbox_linux", "landlock")
_TIMEOUT = 30.0
"""Seconds after which a command counts as hanging."""
_BECOME = """
import os, sys
uid = int(sys.argv[1])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
os.execv(sys.argv[2], sys.argv[2:])
"""


def missing(capability: str, reason: str) -> None:
    """Skip the test for what this machine lacks, or fail it where ``CODEX_CORE_REQUIRE`` names *capability*."""
    required = {name.strip() for name in os.environ.get(REQUIRE, "").split(",")}
    if required & {capability, "all"}:
        pytest.fail(f"{reason} ({REQUIRE} asks for {capability})")
    pytest.skip(reason)


@dataclass(frozen=True)
class User:
    """Somebody to run as."""

    name: str
    uid: int
    python: str
    """An interpreter that this user may run."""
    folders: tuple[str, ...]
    """Where this user finds the packages."""

    def command(self, argv: Sequence[str], without: str = "") -> list[str]:
        """Give the command line that runs *argv* as this user, on a host that lacks *without*."""
        words = list(argv)
        if self.uid != os.geteuid():
            words = [self.python, "-I", "-S", "-c", _BECOME, str(self.uid), *words]
        if without:
            words = [sys.executable, os.path.join(_TESTS, "host_without.py"), without, *words]
        return words

    def owns(self, path: str) -> None:
        """Give a tree to this user."""
        if self.uid != os.geteuid():
            for folder, _, files in os.walk(path):
                for name in (".", *files):
                    os.lchown(os.path.join(folder, name), self.uid, self.uid)


class Box:
    """A workspace and the process that owns launchers in it."""

    def __init__(self, user: User, base: str, *, without: str = "") -> None:
        self.user = user
        self.base = base
        self.policy: SandboxPolicy | None = None
        argv = [user.python, "-I", "-S", "-B", "-c", _read(os.path.join(_TESTS, "owner.py")), *user.folders]
        self.owner = subprocess.Popen(
            user.command(argv, without),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={"PATH": os.defpath, "HOME": self.home, "TMPDIR": self.outside},
        )

    @property
    def ws(self) -> str:
        """The workspace, the only writable root unless the test names more."""
        return os.path.join(self.base, "ws")

    @property
    def outside(self) -> str:
        """A folder of the same user that no policy makes writable."""
        return os.path.join(self.base, "outside")

    @property
    def home(self) -> str:
        """The user's home."""
        return os.path.join(self.base, "home")

    @property
    def codex_home(self) -> str:
        """The home of codex."""
        return os.path.join(self.home, ".codex")

    def renew(self) -> None:
        """Bring all folders into their first state."""
        for folder in (self.ws, self.outside, self.home):
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
        self.user.owns(self.base)

    def write(self, path: str, content: str = "original\n", mode: int = 0o644) -> str:
        """Write a file of the user's, with its folders; *path* is relative to the base."""
        path = os.path.join(self.base, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(path, mode)
        self.user.owns(self.base)
        return path

    def ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - each method has its own answer
        """Call a method of the owner."""
        assert self.owner.stdin is not None
        assert self.owner.stdout is not None
        pickle.dump((name, arguments), self.owner.stdin)
        self.owner.stdin.flush()
        answer = pickle.load(self.owner.stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def open(  # noqa: PLR0913 - each is one independent choice of a test
        self,
        mode: SandboxMode = SandboxMode.WORKSPACE_WRITE,
        *,
        network: bool = False,
        roots: Sequence[str] = (),
        allow_degraded: Sequence[str] = (),
        forge: str = "local",
        cwd: str = "",
        allowed_domains: Sequence[str] = (),
        denied_domains: Sequence[str] = (),
        allowed_unix_sockets: Sequence[str] = (),
        nameservers: Sequence[tuple[str, int]] = (),
        limits: Limits | None = None,
        longest_idle: float | None = None,
    ) -> Strength:
        """Make a launcher for the workspace, in place of the one before."""
        settings = SandboxSettings(
            mode,
            tuple(roots),
            network_access=network,
            exclude_slash_tmp=True,
            exclude_tmpdir_env_var=True,
            allow_degraded=tuple(allow_degraded),
            allowed_domains=tuple(allowed_domains),
            denied_domains=tuple(denied_domains),
            allowed_unix_sockets=tuple(allowed_unix_sockets),
            limits=limits or Limits(),
        )
        strength: Strength
        options = {"nameservers": tuple(nameservers), "longest_idle": longest_idle}
        arguments = (settings, cwd or self.ws, self.codex_home, forge, options)
        self.policy, strength = self.ask("open", *arguments)
        return strength

    def close(self) -> None:
        """Close the launcher."""
        self.ask("close")

    def command(self, argv: Sequence[str], cwd: str = "", env: Mapping[str, str] | None = None) -> Command:
        """Make a command with a plain environment."""
        environ = {"PATH": os.defpath, "HOME": self.home, "LC_ALL": "C.UTF-8"}
        return Command(tuple(argv), cwd or self.ws, environ if env is None else env)

    def program(self, source: str, *words: str) -> list[str]:
        """Give the command line of a Python program; ``ws``, ``outside`` and ``home`` are known to it."""
        names = f"ws,outside,home={self.ws!r},{self.outside!r},{self.home!r}\n"
        return [self.user.python, "-I", "-S", "-B", "-c", names + source, *words]

    def run(  # noqa: PLR0913 - each is one independent choice of a test
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT,
        limit: int = 1 << 20,
    ) -> CommandResult:
        """Run a command in the sandbox."""
        result: CommandResult = self.ask("run", self.command(argv, cwd, env), stdin, timeout, limit)
        assert not result.timed_out or timeout < _TIMEOUT, f"{argv} hangs in the sandbox: {result.stderr!r}"
        return result

    def py(self, source: str, *words: str, stdin: bytes = b"", cwd: str = "") -> CommandResult:
        """Run a Python program in the sandbox."""
        return self.run(self.program(source, *words), stdin=stdin, cwd=cwd)

    def free(self, argv: Sequence[str], *, cwd: str = "", env: Mapping[str, str] | None = None) -> CommandResult:
        """Run a command as the same user without any sandbox."""
        result: CommandResult = self.ask("free", self.command(argv, cwd, env), b"", _TIMEOUT)
        assert not result.timed_out, f"{argv} hangs without the sandbox: {result.stderr!r}"
        return result

    def free_py(self, source: str, *words: str) -> CommandResult:
        """Run a Python program as the same user without any sandbox."""
        return self.free(self.program(source, *words))

    @contextlib.contextmanager
    def victim(self) -> Iterator[int]:
        """Give a process of the same user outside, which has a file of the folder outside open as descriptor 3."""
        with open(os.path.join(self.outside, "open"), "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o666)
        source = (
            f"import os,time; os.chdir({self.outside!r}); os.open('open', os.O_RDWR); print(flush=True); time.sleep(60)"
        )
        argv = self.user.command([self.user.python, "-I", "-S", "-c", source])
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env={"SECRET": "x"}) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
            process.kill()

    def start(self, argv: Sequence[str], stdin: str = os.devnull) -> None:
        """Start a command in the sandbox, with *stdin* opened for reading, and go on."""
        self.ask("start", self.command(argv), stdin)

    def wait(self, timeout: float = _TIMEOUT) -> tuple[Ended | None, tuple[Denial, ...]]:
        """Wait for the command that was started."""
        answer: tuple[Ended | None, tuple[Denial, ...]] = self.ask("wait", timeout)
        return answer

    def drive(self, fifo: Fifo) -> None:
        """Keep the command that was started going until it tells through *fifo* that it has come so far."""
        for _ in range(100):
            if fifo.read(0):
                return
            assert self.wait(0.1)[0] is None, "it has ended"
        pytest.fail("the command does not come so far")

    def census(self) -> dict[str, int]:
        """Count what the owner holds."""
        answer: dict[str, int] = self.ask("census")
        return answer

    def files(self) -> set[str]:
        """List everything in the workspace, the folder outside (which is TMPDIR) and the home."""
        return {
            os.path.join(folder, name)
            for top in (self.ws, self.outside, self.home)
            for folder, folders, files in os.walk(top)
            for name in (*folders, *files)
        }

    def children(self, pid: int = 0) -> list[int]:
        """List the children of a process, by default of the owner."""
        pid = pid or self.owner.pid
        return [child for task in os.listdir(f"/proc/{pid}/task") for child in _children_of(pid, task)]

    def descendants(self) -> list[int]:
        """List every process that the owner has brought about."""
        found = self.children()
        for pid in found:
            with contextlib.suppress(FileNotFoundError):
                found += self.children(pid)
        return found

    def end_strays(self) -> None:
        """Kill what a free command has left below the owner, or below init."""
        marker = os.fsencode(self.base)
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in {self.owner.pid, os.getpid()}:
                with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                    if marker in file.read():
                        kill(int(name))

    def end(self) -> None:
        """End the owner with all that it has started."""
        assert self.owner.stdin is not None
        assert self.owner.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.owner.stdin.close()
        try:
            self.owner.wait(10)
        except subprocess.TimeoutExpired:
            self.owner.kill()
            self.owner.wait(10)
        self.owner.stdout.close()


def _children_of(pid: int, task: str) -> list[int]:
    with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
        return list(map(int, file.read().split()))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _free_uid() -> int:
    """Find a user id that owns no process and has no name."""
    with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
        taken = {int(line.split(":")[2]) for line in file if line.count(":") > 2}
    return next(uid for uid in range(54321, 60000) if uid not in taken)


def _can_use(user: User) -> str:
    """Say why *user* cannot run the packages, empty if it can."""
    check = (
        f"import sys; sys.path[:0] = sys.argv[1:]; assert sys.version_info >= (3, 11); import {', '.join(_PACKAGES)}"
    )
    argv = user.command([user.python, "-I", "-S", "-c", check, *user.folders])
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=20, cwd="/")
    except OSError as error:
        return f"{user.python}: {error.strerror}"
    return (
        f"{user.python}: {done.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}"
        if done.returncode
        else ""
    )


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[User]:
    """Give a user without privileges, with an interpreter and packages that it may read."""
    folders = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations
        folders.append(os.path.dirname(spec.submodule_search_locations[0]))
    if os.geteuid() != 0:
        yield User("ordinary", os.geteuid(), sys.executable, tuple(folders))
        return
    copies = tempfile.mkdtemp(prefix="codex-", dir="/var/tmp")
    os.chmod(copies, 0o755)
    try:
        for name, folder in zip(_PACKAGES, folders, strict=True):
            shutil.copytree(f"{folder}/{name}", f"{copies}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
        candidates = [
            User("ordinary", _free_uid(), python, place)
            for python in dict.fromkeys([sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"])
            for place in (tuple(dict.fromkeys(folders)), (copies,))
        ]
        reasons = []
        for candidate in candidates:
            reason = _can_use(candidate)
            if not reason:
                break
            reasons.append(reason)
        else:
            missing("ordinary_user", f"an ordinary user cannot run Python here: {'; '.join(reasons)}")
        yield candidate
    finally:
        shutil.rmtree(copies)


@pytest.fixture(scope="session")
def root_user() -> User:
    """Give root."""
    if os.geteuid() != 0:
        missing("root", "these tests do not run as root")
    folders = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations
        folders.append(os.path.dirname(spec.submodule_search_locations[0]))
    return User("root", 0, sys.executable, tuple(dict.fromkeys(folders)))


@pytest.fixture(scope="session", params=["root", "ordinary"])
def user(request: pytest.FixtureRequest) -> User:
    """Run the test once as root and once as an ordinary user."""
    found: User = request.getfixturevalue(f"{request.param}_user")
    return found


@contextlib.contextmanager
def _box(user: User, without: str = "") -> Iterator[Box]:
    base = os.path.realpath(tempfile.mkdtemp(prefix="cx-", dir="/tmp"))
    os.chmod(base, 0o755)
    box = Box(user, base, without=without)
    try:
        box.renew()
        yield box
    finally:
        box.end()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def box(user: User) -> Iterator[Box]:
    """Give a workspace of that user's."""
    with _box(user) as made:
        yield made


@pytest.fixture
def box_as() -> Iterator[Callable[[User], Box]]:
    """Give ``box_as(user)``: a workspace of that user's."""
    with contextlib.ExitStack() as stack:
        yield lambda user: stack.enter_context(_box(user))


@pytest.fixture
def any_box() -> Iterator[Box]:
    """Give a workspace of whoever runs the tests, where the user makes no difference."""
    folders = tuple(sys.path)
    with _box(User("self", os.geteuid(), sys.executable, folders)) as made:
        yield made


@pytest.fixture
def box_without(user: User) -> Iterator[Callable[[str], Box]]:
    """Give ``box_without(FEATURES)``: a workspace on a host that lacks them."""
    with contextlib.ExitStack() as stack:
        yield lambda features: stack.enter_context(_box(user, features))


@pytest.fixture(scope="session")
def make_box() -> Callable[[User], contextlib.AbstractContextManager[Box]]:
    """Give ``make_box(user)``: a context with a workspace of that user's, for a fixture of wider scope."""
    return _box


class Listener:
    """A server of the host's, and whether anybody has reached it."""

    def __init__(self, family: int, kind: int, address: Any) -> None:  # noqa: ANN401 - as the socket module
        self._socket = socket.socket(family, kind)
        self._socket.bind(address)
        if isinstance(address, str) and address[:1] != "\0":
            os.chmod(address, 0o777)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._listens = kind & 0xF != socket.SOCK_DGRAM
        if self._listens:
            self._socket.listen(128)
        self.address: Any = self._socket.getsockname()

    def reached(self) -> bool:
        """Say whether a connection or a datagram has come in since the last question."""
        try:
            if self._listens:
                self._socket.accept()[0].close()
            else:
                self._socket.recv(64)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Give ``listen(family, kind, address)``: a server of the host's."""
    with contextlib.ExitStack() as stack:

        def make(family: int, kind: int, address: Any) -> Listener:  # noqa: ANN401 - as the socket module
            made = Listener(family, kind, address)
            stack.callback(made.close)
            return made

        yield make


class Delegation:
    """A control group that was given to a user, as systemd gives one to a service."""

    def __init__(self, mount: str) -> None:
        self._mount = mount
        self.controllers = {"memory", "pids"} & set(_read(f"{mount}/cgroup.controllers").split())
        if self.controllers:
            self.write("cgroup.subtree_control", " ".join(f"+{name}" for name in self.controllers), mount)
        self.folder = tempfile.mkdtemp(prefix="test-", dir=mount)

    def give(self, box: Box) -> None:
        """Put the owner of *box* into it, and give it to its user."""
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(os.path.join(self.folder, name), box.user.uid, -1)
        leaf = os.path.join(self.folder, "codex-outside")  # the second one finds the first one there
        self.write("cgroup.procs", str(box.owner.pid), leaf if os.path.isdir(leaf) else "")

    def write(self, name: str, text: str, folder: str = "") -> None:
        """Write one of its files."""
        with open(os.path.join(folder or self.folder, name), "w", encoding="ascii") as file:
            file.write(text)

    def jails(self) -> list[str]:
        """List the groups of jails in it."""
        return [entry.path for entry in os.scandir(self.folder) if entry.name.startswith("codex-jail-")]

    def remove(self) -> None:
        """Remove it with everything in it."""
        self.write("cgroup.kill", "1")
        deadline = time.monotonic() + 10
        while "populated 1" in _read(f"{self.folder}/cgroup.events"):
            assert time.monotonic() < deadline, "it is still in use"
            time.sleep(0.01)
        for folder, _, _ in os.walk(self.folder, topdown=False):
            os.rmdir(folder)


@pytest.fixture
def delegation() -> Iterator[Delegation]:
    """Give a control group of version 2 that can be given to a user."""
    mounts = [line.split()[1] for line in _read("/proc/mounts").splitlines() if line.split()[2] == "cgroup2"]
    if os.geteuid() != 0 or not mounts:
        missing("root", "only root can delegate a control group, where version 2 is mounted")
    made = Delegation(mounts[0])
    yield made
    made.remove()


@pytest.fixture
def controllers(delegation: Delegation) -> None:
    """Skip the test where this host's controllers are taken; ``machine.py`` brings up one that has them."""
    if len(delegation.controllers) < 2:
        reason = "the controllers memory and pids are not free for control groups of version 2: see machine.py"
        if "control_groups" in os.environ.get(REQUIRE, ""):
            pytest.fail(reason)
        pytest.skip(reason)


class Fifo:
    """A pipe through which a program tells that it has begun, and by whose end of file that it is gone."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path)
        os.chmod(path, 0o666)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self, seconds: float = _TIMEOUT) -> bytes | None:
        """Wait for bytes, for ``b""`` when no writer is left, or for None if neither comes in time."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return os.read(self._descriptor, 64) if poll.poll(seconds * 1000) else None

    def close(self) -> None:
        """Stop reading."""
        os.close(self._descriptor)


@pytest.fixture
def fifo() -> Iterator[Callable[[str], Fifo]]:
    """Give ``fifo(path)``."""
    with contextlib.ExitStack() as stack:

        def make(path: str) -> Fifo:
            made = Fifo(path)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Give ``eventually(condition)``: wait until it holds, and fail if it never does."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it did not happen within ten seconds"
            time.sleep(0.01)

    return wait


def kill(pid: int) -> None:
    """Kill a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
