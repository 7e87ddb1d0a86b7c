"""``codex run`` and ``codex sandbox`` as a user starts them, with every distribution installed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]
    Codex = Callable[..., Done]

CODEX = [sys.executable, "-I", "-m", "codex_core.cli.main"]
CONFINED = ["read-only", "workspace-write"]
FULL = "danger-full-access"
HOW = [["run", "-a", "never"], ["sandbox", "linux"]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a repository to work in, with everything else outside of the writable roots."""
    project = tmp_path / "project"
    (project / ".git" / "hooks").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text(
        "[sandbox_workspace_write]\nexclude_slash_tmp = true\nexclude_tmpdir_env_var = true\n"
    )
    return project


@pytest.fixture
def env(project: Path) -> dict[str, str]:
    home = str(project.parent / "home")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "CODEX_HOME": home, "LC_ALL": "C.UTF-8"}


@pytest.fixture
def codex(project: Path, env: dict[str, str]) -> Codex:
    def codex(*words: str, **options: Any) -> Done:  # noqa: ANN401 - those of subprocess.run
        arguments = {"cwd": project, "env": env, "stdin": subprocess.DEVNULL, "timeout": 120, **options}
        return subprocess.run(
            [*CODEX, *words], capture_output=True, text=True, errors="surrogateescape", check=False, **arguments
        )

    return codex


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        yield server


@pytest.mark.parametrize("how", HOW)
def test_the_limit_that_was_hit_is_named(codex: Codex, how: list[str]) -> None:
    done = codex(*how, "-c", "limits.wall_time=0.5", "--", "sleep", "60")
    assert done.returncode in {124, 137}
    assert done.stderr.endswith("codex: ended: it went over limits.wall_time\n")
    done = codex(*how, "-c", "limits.processes=8", "--", "sh", "-c", "for n in $(seq 20); do sleep 60 & done; wait")
    assert done.returncode == 137
    assert done.stderr.endswith("codex: ended: it went over limits.processes\n")


def test_the_result_says_what_keeps_each_limit(codex: Codex) -> None:
    said = json.loads(codex("run", "--json", "-a", "never", "-c", "limits.open_files=100", "--", "true").stdout)
    assert said["strength"]["limits"] == {"open_files": "setrlimit(2)"}
    assert json.loads(codex("run", "--json", "-a", "never", "--", "true").stdout)["strength"]["limits"] == {}


@pytest.mark.parametrize("how", HOW)
def test_a_limit_that_is_not_kept_is_reported(codex: Codex, how: list[str]) -> None:
    done = codex(*how, "-c", "limits.output_size=100", "--", "seq", "1000")
    assert done.returncode == 0
    assert "codex: warning: limits.output_size is not kept" in done.stderr
    done = codex(*how, "-s", FULL, "-c", "limits.processes=1", "--", "true")
    assert done.returncode == 0
    assert "codex: warning: no limit is kept: danger-full-access applies nothing" in done.stderr


def running(mark: str) -> list[int]:
    """List the processes that have *mark* among their words."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(int(name))
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", CONFINED)
def test_nothing_outside_is_written(codex: Codex, project: Path, how: list[str], mode: str) -> None:
    target = project.parent / "outside"
    assert codex(*how, "-s", FULL, "--", "touch", str(target)).returncode == 0
    target.unlink()
    done = codex(*how, "-s", mode, "--", "touch", str(target))
    assert done.returncode == 1
    assert not target.exists()


@pytest.mark.parametrize("how", HOW)
def test_the_project_is_writable_in_workspace_write_only(codex: Codex, project: Path, how: list[str]) -> None:
    assert codex(*how, "-s", "read-only", "--", "touch", "made").returncode == 1
    assert not (project / "made").exists()
    assert codex(*how, "-s", "workspace-write", "--", "touch", "made").returncode == 0
    assert (project / "made").exists()


@pytest.mark.parametrize("how", HOW)
def test_hooks_of_the_repository_stay_as_they_are(codex: Codex, project: Path, how: list[str]) -> None:
    hook = project / ".git" / "hooks" / "pre-commit"
    write = [sys.executable, "-I", "-c", f"open({str(hook)!r}, 'w')"]  # no table of commands knows what this does
    assert codex(*how, "-s", FULL, "--", *write).returncode == 0
    hook.unlink()
    assert codex(*how, "-s", "workspace-write", "--", *write).returncode == 1
    assert not hook.exists()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", CONFINED)
def test_no_server_is_reached_unless_the_network_is_on(
    codex: Codex, listener: socket.socket, how: list[str], mode: str
) -> None:
    port = listener.getsockname()[1]
    connect = [sys.executable, "-I", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"]
    assert codex(*how, "-s", FULL, "--", *connect).returncode == 0
    listener.accept()[0].close()
    assert codex(*how, "-s", mode, "--", *connect).returncode != 0
    with pytest.raises(TimeoutError):
        listener.accept()
    if mode == "workspace-write":
        on = ["-c", "sandbox_workspace_write.network_access=true"]
        assert codex(*how, "-s", mode, *on, "--", *connect).returncode == 0
        listener.accept()[0].close()


def test_add_dir_opens_one_more_folder(codex: Codex, project: Path) -> None:
    (project.parent / "more").mkdir()
    for words in (["--add-dir", "../more", "run"], ["run", "--add-dir", "../more"]):
        assert codex(*words, "-a", "never", "--", "touch", "../more/made").returncode == 0
        (project.parent / "more" / "made").unlink()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", [*CONFINED, FULL])
def test_streams_and_exit_code_are_the_commands(codex: Codex, how: list[str], mode: str) -> None:
    script = "cat; echo err >&2; exit 7"
    done = codex(*how, "-s", mode, "--", "sh", "-c", script, stdin=None, input="in")
    assert (done.stdout, done.stderr, done.returncode) == ("in", "err\n", 7)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", ["workspace-write", FULL])
def test_bad_commands_are_one_line_and_the_usual_code(codex: Codex, project: Path, how: list[str], mode: str) -> None:
    (project / "plain").write_text("no program")
    for command, code in (
        (["no-such-program"], 127),
        (["./no-such-program"], 127),
        (["./plain"], 126),
        (["sh", "-c", "kill -TERM $$"], 143),
    ):
        done = codex(*how, "-s", mode, "--", *command)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.count("\n") == (code < 128)


@pytest.mark.parametrize("mode", ["workspace-write", FULL])
def test_ten_megabytes_of_arguments_are_one_line(project: Path, env: dict[str, str], mode: str) -> None:
    program = (
        "import sys; from codex_core.cli.main import main;"
        f"sys.exit(main(['run', '-a', 'never', '-s', {mode!r}, '--', 'true', 'x' * 10_000_000]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],  # as words of ours, no execve would carry them here
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", ["workspace-write", FULL])
def test_names_that_are_not_utf8_work(codex: Codex, project: Path, how: list[str], mode: str) -> None:
    odd = os.fsdecode(b"f\xff\xfe")
    assert codex(*how, "-s", mode, "--", "touch", odd).returncode == 0
    assert codex(*how, "-s", mode, "--", "ls").stdout.split("\n")[0] == odd
    assert os.fsencode(odd) in os.listdir(os.fsencode(project))


@pytest.mark.parametrize("mode", [*CONFINED, FULL])
def test_the_result_as_json(codex: Codex, mode: str) -> None:
    done = codex("run", "-a", "never", "-s", mode, "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert (result["stdout"], result["stderr"], result["exit_code"], result["signal"]) == ("out\n", "err\n", 3, None)
    assert result["strength"]["backend"] == ("none" if mode == FULL else "linux")
    assert ("writes" in result["strength"]["kept"]) == (mode != FULL)


def test_a_refused_write_is_a_denial_with_its_cure(codex: Codex, project: Path) -> None:
    target = project.parent / "outside"
    done = codex("run", "-a", "never", "-s", "workspace-write", "--json", "--", "touch", str(target))
    (denial,) = json.loads(done.stdout)["denials"]
    assert (denial["operation"], denial["target"]) == ("write", str(target))
    assert "writable_roots" in denial["cure"]
    assert str(target) in done.stderr


def test_an_ordinary_failure_is_no_denial(codex: Codex) -> None:
    done = codex("run", "-a", "never", "--json", "--", "cat", "no-such-file")
    assert json.loads(done.stdout)["denials"] == []


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_timeout_ends_the_whole_tree_in_the_sandbox(codex: Codex, as_json: list[str]) -> None:
    mark = f"{600 + time.time_ns() % 1000}.25{len(as_json)}"
    script = f"setsid sh -c 'setsid sleep {mark} & sleep {mark}' & sleep {mark}"
    done = codex("run", "-a", "never", *as_json, "--timeout", "1", "--", "sh", "-c", script)
    assert done.returncode == 124
    assert "1 seconds" in done.stderr
    wait_until(lambda: not running(mark))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", ["workspace-write", FULL])
def test_sigterm_goes_on_to_the_command(project: Path, env: dict[str, str], how: list[str], mode: str) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*CODEX, *how, "-s", mode, "--", "sh", "-c", script],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.read() == b"got\n"
        assert process.wait(30) == 9


@pytest.mark.parametrize("how", HOW)
def test_killing_codex_leaves_no_process_and_no_file(project: Path, env: dict[str, str], how: list[str]) -> None:
    mark = f"{700 + time.time_ns() % 1000}.5"
    script = f"setsid sleep {mark} & echo ready; sleep {mark}"
    with subprocess.Popen(
        [*CODEX, *how, "-s", "workspace-write", "--", "sh", "-c", script],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: len(running(mark)) >= 2)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not running(mark))
    assert [entry.name for entry in project.iterdir()] == [".git"]


def test_without_a_terminal_a_question_is_a_no(codex: Codex, project: Path) -> None:
    done = codex("run", "-a", "untrusted", "--", "touch", "made")
    assert done.returncode == 126
    assert done.stderr.startswith("codex: not permitted: there is no terminal")
    assert not (project / "made").exists()
    assert codex("run", "-a", "untrusted", "--", "ls").returncode == 0


def test_a_policy_that_is_not_installed_is_named_with_its_cure(codex: Codex) -> None:
    done = codex("run", "-c", 'plugins.approval_policies=["nobody"]', "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "nobody" in done.stderr
    done = codex("run", "-c", "sandbox_backend=nowhere", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    done = codex("sandbox", "-c", "sandbox_backend=nowhere", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)


def test_doctor_finds_everything_that_is_needed(codex: Codex) -> None:
    done = codex("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["ok"], found
    assert done.returncode == 0
    assert "sandbox writes" in [check["name"] for check in found["checks"]]


def test_the_public_api_in_five_lines(project: Path, env: dict[str, str]) -> None:
    from codex_core import open_session

    with open_session(str(project), overrides=["approval_policy=never"], environ=env) as session:
        result = session.run(["sh", "-c", "echo hello; touch ../outside"])
    assert (result.stdout, result.returncode, result.strength.backend) == (b"hello\n", 1, "linux")
    assert result.denials[0].target == str(project.parent / "outside")


def test_three_hundred_commands_and_fifty_at_once_leave_nothing(project: Path, env: dict[str, str]) -> None:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from codex_core import open_session

    descriptors, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    with open_session(str(project), overrides=["approval_policy=never"], environ=env) as session:
        for number in range(300):
            assert session.run(["echo", str(number)]).stdout == f"{number}\n".encode()
        with ThreadPoolExecutor(50) as pool:
            outputs = list(pool.map(lambda number: session.run(["echo", str(number)]).stdout, range(50)))
    assert outputs == [f"{number}\n".encode() for number in range(50)]
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
    assert [entry.name for entry in project.iterdir()] == [".git"]
