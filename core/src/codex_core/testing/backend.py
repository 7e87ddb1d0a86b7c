"""What every sandbox backend has to keep; see :mod:`codex_core.testing` for how to use it.

Each test of a promise first shows that the thing works without the sandbox.  For POSIX systems.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from codex_core.errors import CommandNotExecutableError, CommandNotFoundError, SandboxUnavailableError
from codex_core.host import Host
from codex_core.sandbox.direct import DirectLauncher
from codex_core.sandbox.policy import SandboxSettings, build_policy
from codex_core.sandbox.runner import run
from codex_core.types import Command, Ended, Promise, SandboxMode, Strength

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codex_core.hookspecs import SandboxBackend
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import CommandResult, Launcher

REQUIRE = "CODEX_CORE_REQUIRE"
READ_ONLY, WORKSPACE_WRITE = SandboxMode.READ_ONLY, SandboxMode.WORKSPACE_WRITE
BOTH = pytest.mark.parametrize("mode", [READ_ONLY, WORKSPACE_WRITE])

_TIMEOUT = 30.0
"""Seconds after which a command counts as hanging."""

_WRITE = "import sys; open(sys.argv[1], 'w').write('written')"
_CONNECT = """
import socket, sys
family, kind, *address = sys.argv[1:]
connection = socket.socket(getattr(socket, family), getattr(socket, kind))
connection.settimeout(10)
connection.connect(address[0] if family == "AF_UNIX" else (address[0], int(address[1])))
connection.send(b"reached")
"""
_HOLD = """
import sys, time
with open(sys.argv[1], "w") as fifo:
    fifo.write("ready")
    fifo.flush()
    time.sleep(60)
"""
_DETACH = """
import os, sys, time
ready, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1], "w") as fifo:
            fifo.write(f"{os.getpid()}\\n")
            fifo.flush()
            os.write(told, b".")
            time.sleep(60)
    os._exit(0)
os.read(ready, 1)
time.sleep(float(sys.argv[2]))
"""


def required() -> frozenset[Promise]:
    """Give the promises that ``CODEX_CORE_REQUIRE`` names; fails the test at a name that is none."""
    names = {name.strip() for name in os.environ.get(REQUIRE, "").split(",")} - {""}
    if "all" in names:
        return frozenset(Promise)
    if unknown := names - set(Promise):
        pytest.fail(f"{REQUIRE} names {', '.join(sorted(unknown))}, which are no promises: use {', '.join(Promise)}")
    return frozenset(map(Promise, names))


@dataclass(frozen=True)
class Laboratory:
    """A workspace, a folder outside it, and ways to run Python programs with and without the sandbox."""

    host: Host
    strength: Strength
    base: str
    """A folder of a short name, because paths of sockets are short."""

    @property
    def inside(self) -> str:
        """The workspace: the only writable root."""
        return os.path.join(self.base, "inside")

    @property
    def outside(self) -> str:
        """A folder that no policy makes writable."""
        return os.path.join(self.base, "outside")

    def renew(self) -> None:
        """Bring the workspace into its first state: a repository, and nothing else."""
        shutil.rmtree(self.inside, ignore_errors=True)
        os.makedirs(os.path.join(self.inside, ".git"))
        _write(os.path.join(self.inside, ".git", "config"), "[core]\n")

    def need(self, promise: Promise) -> None:
        """Skip the test, or fail it, where the backend says that it does not keep *promise* here."""
        if promise not in self.strength.kept:
            reason = f"{promise} is not kept here: {self.strength.lost.get(promise, 'no reason given')}"
            if promise in required():
                pytest.fail(f"{reason} ({REQUIRE} asks for it)")
            pytest.skip(reason)

    def policy(self, mode: SandboxMode, *, network: bool = False) -> SandboxPolicy:
        """Build a policy that is weaker only by what the backend says it cannot keep here."""
        settings = SandboxSettings(
            mode=mode,
            network_access=network,
            exclude_slash_tmp=True,
            exclude_tmpdir_env_var=True,
            allow_degraded=tuple(promise.value for promise in self.strength.lost),
        )
        home = os.path.join(self.base, "home")
        return build_policy(settings, cwd=self.inside, environ={}, codex_home=home)

    @contextlib.contextmanager
    def launcher(self, mode: SandboxMode, *, network: bool = False) -> Iterator[Launcher]:
        """Have the backend make a launcher; skip, or fail, where it refuses the policy on this host."""
        policy = self.policy(mode, network=network)
        if reasons := self.host.unsupported(policy):
            if required():
                pytest.fail(f"the backend refuses: {'; '.join(reasons)} ({REQUIRE} is set)")
            pytest.skip(f"the backend refuses: {'; '.join(reasons)}")
        launcher = self.host.launcher(policy)
        try:
            yield launcher
        finally:
            launcher.close()

    def command(self, source: str, *words: str) -> Command:
        """Make a command of a Python program."""
        argv = (sys.executable, "-I", "-S", "-B", "-c", source, *words)
        return Command(argv, self.inside, {"PATH": os.defpath, "HOME": self.inside})

    def free(self, source: str, *words: str) -> CommandResult:
        """Run a Python program without any sandbox."""
        launcher = DirectLauncher()
        try:
            return run(launcher, self.command(source, *words), timeout=_TIMEOUT)
        finally:
            launcher.close()

    def confined(
        self, source: str, *words: str, mode: SandboxMode = WORKSPACE_WRITE, network: bool = False, stdin: bytes = b""
    ) -> CommandResult:
        """Run a Python program in the sandbox."""
        with self.launcher(mode, network=network) as launcher:
            result = run(launcher, self.command(source, *words), stdin=stdin, timeout=_TIMEOUT)
        assert not result.timed_out, f"the command hangs in the sandbox: {result.stderr!r}"
        return result


class Listener:
    """A server of the test's own, and whether anything has reached it."""

    def __init__(self, family: socket.AddressFamily, kind: socket.SocketKind, address: str) -> None:
        self._socket = socket.socket(family, kind)
        self._socket.bind(address if family is socket.AF_UNIX else (address, 0))
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        if kind is socket.SOCK_STREAM:
            self._socket.listen()
        name = self._socket.getsockname()
        self.words = (family.name, kind.name, *([name] if isinstance(name, str) else [name[0], str(name[1])]))

    def __enter__(self) -> Listener:  # noqa: PYI034 - nobody derives from it
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def reached(self) -> bool:
        """Say whether a connection or a datagram has come in since the last question."""
        try:
            if self._socket.type is socket.SOCK_STREAM:
                self._socket.accept()[0].close()
            else:
                self._socket.recv(64)
        except BlockingIOError:
            return False
        return True


class Fifo:
    """A pipe in the workspace that tells whether a detached process still lives: it holds the writing end."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def __enter__(self) -> Fifo:  # noqa: PYI034 - nobody derives from it
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        os.unlink(self.path)

    def read(self, seconds: float | None = None) -> bytes | None:
        """Wait for what comes next: some bytes, nothing once the process has ended, or None if neither happens."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return os.read(self._descriptor, 64) if poll.poll((_TIMEOUT if seconds is None else seconds) * 1000) else None


class SandboxBackendContract:
    """Tests that every sandbox backend passes."""

    @pytest.fixture
    def plugin(self) -> SandboxBackend:
        """Give the backend to test: override this."""
        pytest.fail("override the fixture `plugin` to give the backend")

    @pytest.fixture
    def lab(self, plugin: SandboxBackend) -> Iterator[Laboratory]:
        """Give a workspace with a repository in it, and the backend in a host."""
        host = Host()
        host.sandbox_backends.register(plugin, "contract")
        base = os.path.realpath(tempfile.mkdtemp(prefix="codex-"))
        lab = Laboratory(host, host.probe(), base)
        os.mkdir(lab.outside)
        lab.renew()
        yield lab
        shutil.rmtree(base)

    # What the backend says about itself

    def test_every_promise_is_either_kept_or_lost_with_a_reason(self, lab: Laboratory) -> None:
        """``probe`` states each promise once."""
        assert lab.strength.backend
        assert lab.strength.rung
        assert lab.strength.kept | lab.strength.lost.keys() == set(Promise)
        assert not lab.strength.kept & lab.strength.lost.keys()
        assert all(lab.strength.lost.values())

    def test_required_promises_are_kept(self, lab: Laboratory) -> None:
        """``CODEX_CORE_REQUIRE`` is met, by the probe's own words."""
        for promise in sorted(required()):
            lab.need(promise)

    @BOTH
    def test_a_launcher_states_what_it_keeps(self, lab: Laboratory, mode: SandboxMode) -> None:
        """A launcher keeps no less than the probe said, and says so in every result."""
        result = lab.confined("", mode=mode)
        assert result.strength.backend == lab.strength.backend
        assert result.strength.kept >= lab.strength.kept

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list open descriptors")
    def test_nothing_is_left_open(self, lab: Laboratory) -> None:
        """Probing, and a launcher that was used and closed, leave no descriptor behind."""
        lab.confined("")  # what is opened once and kept for good is no leak
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(3):
            lab.host.probe()
            lab.confined("")
        assert set(os.listdir("/proc/self/fd")) <= before

    # Commands behave as without a sandbox

    @BOTH
    @pytest.mark.parametrize(
        ("source", "ended"),
        [
            ("", Ended(exit_code=0)),
            ("raise SystemExit(7)", Ended(exit_code=7)),
            (f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})", Ended(signal=signal.SIGTERM)),
        ],
    )
    def test_the_end_of_a_command_is_reported(
        self, lab: Laboratory, mode: SandboxMode, source: str, ended: Ended
    ) -> None:
        """Exit code or signal arrive as they are."""
        assert lab.free(source).ended == ended
        assert lab.confined(source, mode=mode).ended == ended

    @BOTH
    def test_input_and_output_pass_unchanged(self, lab: Laboratory, mode: SandboxMode) -> None:
        """Every byte, more than a pipe holds, on all three streams."""
        echo = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.stderr.buffer.write(b'\\xff')"
        data = bytes(range(256)) * 1024
        result = lab.confined(echo, mode=mode, stdin=data)
        assert (result.stdout, result.stderr) == (data, b"\xff")

    @BOTH
    def test_words_environment_and_directory_arrive_as_they_were_given(
        self, lab: Laboratory, mode: SandboxMode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also words that look like options or are no text; and nothing of the caller's environment."""
        monkeypatch.setenv("CODEX_CONTRACT", "the caller's own")
        show = "import os, sys; print([os.fsencode(word) for word in sys.argv[1:]], os.getcwd(), os.environ.get({!r}))"
        words = ("--", "-c", "", " two\nlines ", "\udcff", "$HOME")
        result = lab.confined(show.format("CODEX_CONTRACT"), *words, mode=mode)
        expected = f"{[os.fsencode(word) for word in words]} {lab.inside} None\n"
        assert result.stdout.decode() == expected
        assert lab.confined(show.format("HOME"), mode=mode).stdout.decode() == f"[] {lab.inside} {lab.inside}\n"

    def test_what_cannot_be_run_is_told_apart(self, lab: Laboratory) -> None:
        """A missing program or folder, and a program that cannot be executed."""
        plain = os.path.join(lab.inside, "plain")
        _write(plain, "no program")
        with lab.launcher(WORKSPACE_WRITE) as launcher:
            for argv, cwd, error in (
                (("does-not-exist",), lab.inside, CommandNotFoundError),
                ((os.path.join(lab.inside, "missing"),), lab.inside, CommandNotFoundError),
                ((sys.executable,), os.path.join(lab.inside, "missing"), CommandNotFoundError),
                ((plain,), lab.inside, CommandNotExecutableError),
            ):
                with pytest.raises(error):
                    run(launcher, Command(argv, cwd, {"PATH": os.defpath}), timeout=_TIMEOUT)
            assert run(launcher, lab.command(""), timeout=_TIMEOUT).returncode == 0

    def test_words_that_no_program_can_be_given_are_refused(self, lab: Laboratory) -> None:
        """None is split, cut or left out: what runs is what was judged."""
        with lab.launcher(WORKSPACE_WRITE) as launcher:
            for argv, env, error in (
                ((), {}, CommandNotFoundError),
                (("touch\0made",), {}, (CommandNotFoundError, CommandNotExecutableError)),
                (("touch", "made\0", "A=b"), {}, CommandNotExecutableError),
                (("touch", "made"), {"A": "b\0C=d"}, CommandNotExecutableError),
                (("touch", "made"), {"A=b": "c"}, CommandNotExecutableError),
                (("touch", "made\ud800"), {}, CommandNotExecutableError),
            ):
                with pytest.raises(error):
                    run(launcher, Command(argv, lab.inside, {"PATH": os.defpath, **env}), timeout=_TIMEOUT)
            assert os.listdir(lab.inside) == [".git"]
            assert run(launcher, lab.command(""), timeout=_TIMEOUT).returncode == 0

    def test_several_threads_use_one_launcher(self, lab: Laboratory) -> None:
        """Commands run beside each other and keep their results apart."""
        with lab.launcher(WORKSPACE_WRITE) as launcher, ThreadPoolExecutor(4) as pool:

            def work(number: int) -> bytes:
                command = lab.command("import sys; print(sys.argv[1])", str(number))
                return run(launcher, command, timeout=_TIMEOUT).stdout

            assert list(pool.map(work, range(8))) == [f"{number}\n".encode() for number in range(8)]

    def test_a_closed_launcher_runs_nothing(self, lab: Laboratory) -> None:
        """Closing twice does no harm."""
        with lab.launcher(WORKSPACE_WRITE) as launcher:
            launcher.close()
            launcher.close()
            with pytest.raises(SandboxUnavailableError):
                run(launcher, lab.command(""), timeout=_TIMEOUT)

    # What a command may change

    @BOTH
    @pytest.mark.parametrize("effect", ["create", "overwrite", "remove", "rename"])
    def test_nothing_outside_is_changed(self, lab: Laboratory, mode: SandboxMode, effect: str) -> None:
        """Outside every writable root, content stays."""
        lab.need(Promise.WRITES)
        kept, new = os.path.join(lab.outside, "kept"), os.path.join(lab.outside, "new")
        source, words = {
            "create": (_WRITE, [new]),
            "overwrite": (_WRITE, [kept]),
            "remove": ("import os, sys; os.unlink(sys.argv[1])", [kept]),
            "rename": ("import os, sys; os.rename(*sys.argv[1:])", [kept, new]),
        }[effect]
        _write(kept, "original")
        before = _content(lab.outside)
        assert lab.free(source, *words).returncode == 0
        assert _content(lab.outside) != before
        for name in os.listdir(lab.outside):
            os.unlink(os.path.join(lab.outside, name))
        _write(kept, "original")
        assert lab.confined(source, *words, mode=mode).returncode != 0
        assert _content(lab.outside) == before

    def test_a_link_out_of_the_workspace_leads_nowhere(self, lab: Laboratory) -> None:
        """A link inside does not make its target writable."""
        lab.need(Promise.WRITES)
        target, link = os.path.join(lab.outside, "target"), os.path.join(lab.inside, "link")
        os.symlink(target, link)
        assert lab.free(_WRITE, link).returncode == 0
        assert os.path.exists(target)
        os.unlink(target)
        assert lab.confined(_WRITE, link).returncode != 0
        assert not os.path.exists(target)

    def test_the_workspace_is_writable_in_workspace_write(self, lab: Laboratory) -> None:
        """The work can be done."""
        result = lab.confined(_WRITE, os.path.join(lab.inside, "file"))
        assert result.returncode == 0, result.stderr
        assert _content(lab.inside)["file"] == "written"

    def test_the_workspace_is_not_writable_in_read_only(self, lab: Laboratory) -> None:
        """Reading is all there is."""
        lab.need(Promise.WRITES)
        assert lab.free(_WRITE, os.path.join(lab.inside, "first")).returncode == 0
        assert lab.confined(_WRITE, os.path.join(lab.inside, "second"), mode=READ_ONLY).returncode != 0
        assert "second" not in os.listdir(lab.inside)

    @BOTH
    def test_everything_is_readable(self, lab: Laboratory, mode: SandboxMode) -> None:
        """Files outside can be read."""
        _write(os.path.join(lab.outside, "file"), "content")
        read = "import sys; print(open(sys.argv[1]).read(), end='')"
        assert lab.confined(read, os.path.join(lab.outside, "file"), mode=mode).stdout == b"content"

    @BOTH
    def test_metadata_outside_is_not_changed(self, lab: Laboratory, mode: SandboxMode) -> None:
        """Mode and times of files outside stay."""
        lab.need(Promise.METADATA)
        path = os.path.join(lab.outside, "file")
        _write(path, "content")
        touch = "import os, sys; os.{}"
        for change in ("chmod(sys.argv[1], 0o600)", "utime(sys.argv[1], (1, 1))"):
            os.chmod(path, 0o644)
            os.utime(path, (0, 0))
            before = os.stat(path)
            assert lab.free(touch.format(change), path).returncode == 0
            changed = os.stat(path)
            assert (changed.st_mode, changed.st_mtime) != (before.st_mode, before.st_mtime)
            os.chmod(path, 0o644)
            os.utime(path, (0, 0))
            assert lab.confined(touch.format(change), path, mode=mode).returncode != 0
            assert (os.stat(path).st_mode, os.stat(path).st_mtime) == (before.st_mode, before.st_mtime)

    # Protected paths

    @pytest.mark.parametrize(
        "source",
        [
            _WRITE,
            "import os, sys; os.unlink(sys.argv[1])",
            "import os, sys; os.rename(os.path.dirname(sys.argv[1]), 'moved')",
        ],
    )
    def test_a_protected_path_stays_as_it_is(self, lab: Laboratory, source: str) -> None:
        """Neither written to, removed, nor moved out of the way."""
        lab.need(Promise.PROTECTED_PATHS)
        folder = os.path.join(lab.inside, ".git")
        original = _content(folder)
        assert lab.free(source, os.path.join(folder, "config")).returncode == 0
        assert not os.path.exists(folder) or _content(folder) != original
        lab.renew()
        assert lab.confined(source, os.path.join(folder, "config")).returncode != 0
        assert _content(folder) == original

    @pytest.mark.parametrize("name", [".codex", ".agents", ".CODEX"])
    def test_a_protected_name_that_is_missing_is_missing_afterwards(self, lab: Laboratory, name: str) -> None:
        """Whether its creation fails or is undone, nothing of that name remains; and nothing stands in for it."""
        lab.need(Promise.PROTECTED_PATHS)
        create = "import os, sys; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/config.toml', 'w').write('planted')"
        assert lab.free(create, name).returncode == 0
        assert sorted(os.listdir(lab.inside)) == sorted([".git", name])
        lab.renew()
        lab.confined(create, name)
        assert os.listdir(lab.inside) == [".git"]

    # What a command may reach

    @BOTH
    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    def test_the_network_is_not_reached(self, lab: Laboratory, mode: SandboxMode, kind: socket.SocketKind) -> None:
        """A server of this host is out of reach, over TCP and UDP."""
        lab.need(Promise.NETWORK)
        with Listener(socket.AF_INET, kind, "127.0.0.1") as listener:
            assert lab.free(_CONNECT, *listener.words).returncode == 0
            assert listener.reached()
            lab.confined(_CONNECT, *listener.words, mode=mode)
            assert not listener.reached()

    def test_the_network_is_reached_where_the_policy_allows_it(self, lab: Laboratory) -> None:
        """The same server, with ``network_access``."""
        with Listener(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as listener:
            result = lab.confined(_CONNECT, *listener.words, network=True)
            assert result.returncode == 0, result.stderr
            assert listener.reached()

    def test_servers_of_the_commands_own_work_without_a_network(self, lab: Laboratory) -> None:
        """Loopback inside."""
        lab.need(Promise.LOOPBACK)
        serve = (
            "import socket; server = socket.create_server(('127.0.0.1', 0));"
            "socket.create_connection(server.getsockname()).send(b'.'); assert server.accept()[0].recv(1) == b'.'"
        )
        assert lab.free(serve).returncode == 0
        result = lab.confined(serve)
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize("network", [False, True])
    @pytest.mark.parametrize("folder", ["inside", "outside"])
    def test_sockets_of_programs_outside_are_not_reached(self, lab: Laboratory, folder: str, *, network: bool) -> None:
        """A unix socket by path, whether or not the network is on."""
        lab.need(Promise.UNIX_SOCKETS)
        path = os.path.join(lab.base, folder, "socket")
        with Listener(socket.AF_UNIX, socket.SOCK_STREAM, path) as listener:
            assert lab.free(_CONNECT, *listener.words).returncode == 0
            assert listener.reached()
            assert lab.confined(_CONNECT, *listener.words, network=network).returncode != 0
            assert not listener.reached()

    @BOTH
    def test_processes_outside_are_not_signalled(self, lab: Laboratory, mode: SandboxMode) -> None:
        """SIGKILL at a process of the test."""
        lab.need(Promise.PROCESSES)
        kill = "import os, sys; os.kill(int(sys.argv[1]), 9)"
        with _sleeper() as victim:
            assert lab.free(kill, str(victim.pid)).returncode == 0
            assert victim.wait(_TIMEOUT) == -signal.SIGKILL
        with _sleeper() as victim:
            lab.confined(kill, str(victim.pid), mode=mode)
            assert victim.poll() is None

    @BOTH
    def test_no_descriptor_is_inherited(self, lab: Laboratory, mode: SandboxMode) -> None:
        """A descriptor of a folder outside, inheritable, does not arrive."""
        number = 217
        show = f"import os; print(os.fstat({number}).st_ino)"
        folder = os.open(lab.outside, os.O_RDONLY)
        try:
            os.dup2(folder, number, inheritable=True)
            inode = f"{os.fstat(folder).st_ino}\n".encode()
            argv = [sys.executable, "-c", show]
            passed = subprocess.run(argv, close_fds=False, capture_output=True, check=False)  # noqa: S603 - our own program
            assert passed.stdout == inode
            assert lab.confined(show, mode=mode).stdout != inode
        finally:
            os.close(folder)
            os.close(number)

    # How a command ends

    def test_what_a_command_started_ends_with_it(self, lab: Laboratory) -> None:
        """A process that has left its session and its parents is gone when the command has ended."""
        lab.need(Promise.PROCESS_TREE)
        with Fifo(os.path.join(lab.inside, "free")) as fifo:
            assert lab.free(_DETACH, fifo.path, "0").returncode == 0
            pid = fifo.read()
            assert pid
            assert fifo.read(0.2) is None, "it ended by itself"
            os.kill(int(pid), signal.SIGKILL)
        with Fifo(os.path.join(lab.inside, "confined")) as fifo:
            result = lab.confined(_DETACH, fifo.path, "0")
            assert result.returncode == 0, result.stderr
            assert fifo.read()
            assert fifo.read() == b""

    def test_kill_ends_the_whole_tree(self, lab: Laboratory) -> None:
        """Also what has detached itself; the end is reported, as no success."""
        lab.need(Promise.PROCESS_TREE)
        with Fifo(os.path.join(lab.inside, "fifo")) as fifo, lab.launcher(WORKSPACE_WRITE) as launcher:
            ended = _kill_when_ready(launcher, lab.command(_DETACH, fifo.path, "60"), fifo)
            assert ended is not None
            assert ended.returncode != 0
            assert fifo.read() == b""

    def test_kill_ends_a_command(self, lab: Laboratory) -> None:
        """The command itself, at least."""
        with Fifo(os.path.join(lab.inside, "fifo")) as fifo, lab.launcher(WORKSPACE_WRITE) as launcher:
            ended = _kill_when_ready(launcher, lab.command(_HOLD, fifo.path), fifo)
            assert ended is not None
            assert ended.returncode != 0
            assert fifo.read() == b""

    def test_closing_the_launcher_ends_what_still_runs(self, lab: Laboratory) -> None:
        """Nothing outlives the launcher."""
        with Fifo(os.path.join(lab.inside, "fifo")) as fifo:
            with lab.launcher(WORKSPACE_WRITE) as launcher, _null() as null:
                launcher.start(lab.command(_HOLD, fifo.path), null, null, null)
                assert fifo.read()
            assert fifo.read() == b""


def _kill_when_ready(launcher: Launcher, command: Command, fifo: Fifo) -> Ended | None:
    with _null() as null:
        running = launcher.start(command, null, null, null)
        assert fifo.read()
        running.kill()
        poll = select.poll()
        poll.register(running.fileno(), select.POLLIN)
        deadline = time.monotonic() + _TIMEOUT
        while (ended := running.advance()) is None and time.monotonic() < deadline:
            poll.poll(1000)
        return ended


@contextlib.contextmanager
def _null() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def _content(folder: str) -> dict[str, str]:
    """Read every file directly in *folder*."""
    content = {}
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                content[name] = file.read()
    return content
