"""``.git``, ``.codex`` and ``.agents`` stay closed, whether they exist or not, and nothing is left in the tree."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import SandboxUnavailableError
from codex_core.types import Denial, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugins.sandbox_linux.tests.conftest import Box, Fifo

NAMES = pytest.mark.parametrize("name", [".git", ".codex", ".agents"])

# Everything a program can do to a path, each tried and reported.
ATTACK = """
import os, shutil, sys
path = sys.argv[1]
def attempt(name, call):
    try: call(); print(name)
    except OSError: pass
attempt('write', lambda: open(path + '/config', 'w').write('planted'))
attempt('create', lambda: open(path + '/new', 'w').write('planted'))
attempt('mkdir', lambda: os.mkdir(path + '/newdir'))
attempt('remove', lambda: os.unlink(path + '/config'))
attempt('chmod', lambda: os.chmod(path, 0o777))
attempt('utime', lambda: os.utime(path, (1, 1)))
attempt('rename', lambda: os.rename(path, path + '.old'))
attempt('rmdir', lambda: shutil.rmtree(path))
attempt('unlink', lambda: os.unlink(path))
os.mkdir(ws + '/mine'); os.mkdir(ws + '/mine/hooks'); open(ws + '/mine/config', 'w').write('planted')
attempt('replace', lambda: os.rename(ws + '/mine', path))
attempt('link', lambda: os.symlink('mine', path))
"""

# A repository whose configuration runs a program: what "git status" outside must never come upon.
PLANT = """
import os, sys
def plant(path, ran):
    for folder in ('', '/objects', '/refs', '/hooks'): os.makedirs(path + folder, exist_ok=True)
    open(path + '/HEAD', 'w').write('ref: refs/heads/main\\n')
    open(path + '/config', 'w').write('[core]\\n\\trepositoryformatversion = 0\\n')
    open(path + '/config', 'a').write('\\tfsmonitor = "touch %s; false"\\n' % ran)
"""


@pytest.fixture
def ran(box: Box) -> str:
    """Give the file that a planted program makes, and show that it makes it where nothing is protected."""
    path = os.path.join(box.outside, "ran")
    victim = os.path.join(box.base, "victim")
    os.mkdir(victim)
    box.user.owns(box.base)
    box.free_py(PLANT + "plant(sys.argv[1] + '/.git', sys.argv[2])", victim, path)
    box.free(["git", "status"], cwd=victim)
    assert os.path.exists(path), "git does run what a planted configuration names"
    os.unlink(path)
    return path


def repository(box: Box, path: str) -> None:
    """Make a repository with one commit, as the user's own."""
    made = 'git init -q -b main "$0" && cd "$0" && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m one'
    done = box.free(["sh", "-c", made, path])
    assert done.returncode == 0, done.stderr


def snapshot(path: str) -> dict[str, tuple[int, int, int]]:
    """Give identity, mode and time of change of everything below *path*, links not followed."""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in (".", *folders, *files):
            found[os.path.normpath(os.path.join(folder, name))] = last_change(os.path.join(folder, name))
    return found


def last_change(path: str) -> tuple[int, int, int]:
    """Give what any change of a file changes; when it was last read is not among it."""
    status = os.lstat(path)
    return status.st_ino, status.st_mode, status.st_ctime_ns


# What exists


@NAMES
def test_an_existing_folder_cannot_be_changed_moved_or_replaced(box: Box, name: str) -> None:
    path = f"{box.ws}/{name}"
    box.write(f"ws/{name}/config")
    assert len(box.free_py(ATTACK, path).stdout.split()) >= 7
    shutil.rmtree(box.ws)
    os.mkdir(box.ws)
    box.write(f"ws/{name}/config")
    before = snapshot(path)
    box.open()
    result = box.py(ATTACK, path)
    assert (result.returncode, result.stdout) == (0, b""), result.stderr
    assert snapshot(path) == before


@NAMES
def test_an_existing_file_cannot_be_changed_moved_or_replaced(box: Box, name: str) -> None:
    path = box.write(f"ws/{name}")
    before = last_change(path)
    box.open()
    source = ATTACK + "attempt('rewrite', lambda: open(path, 'w')); attempt('cut', lambda: os.truncate(path, 0))"
    assert box.py(source, path).stdout == b""
    assert last_change(path) == before


@NAMES
def test_a_link_cannot_be_changed_nor_what_it_leads_to(box: Box, name: str) -> None:
    path = f"{box.ws}/{name}"
    box.write("ws/real/config")
    os.symlink("real", path)
    before = snapshot(f"{box.ws}/real")
    box.open()
    assert box.py(ATTACK, path).stdout == b""
    assert box.py(ATTACK.replace("/mine", "/mine2"), f"{box.ws}/real").stdout == b""
    assert os.readlink(path) == "real"
    assert snapshot(f"{box.ws}/real") == before


@NAMES
def test_what_a_dangling_link_leads_to_does_not_come_into_being(box: Box, name: str) -> None:
    os.symlink("later", f"{box.ws}/{name}")
    box.open()
    result = box.py("import os; os.mkdir(ws + '/later'); open(ws + '/later/config', 'w')")
    assert not os.path.exists(f"{box.ws}/{name}")
    assert not os.path.exists(f"{box.ws}/later")
    assert [denial.target for denial in result.denials] == [f"{box.ws}/later"]


@pytest.mark.parametrize("name", [".GIT", ".Git", ".CODEX", ".Agents"])
def test_case_makes_no_difference(box: Box, name: str) -> None:
    """On some file systems, and for git everywhere, these are the same name."""
    path = f"{box.ws}/{name}"
    box.write(f"ws/{name}/config")
    before = snapshot(path)
    box.open()
    assert box.py(ATTACK, path).stdout == b""
    assert snapshot(path) == before


def test_the_folders_above_cannot_be_moved_away(box: Box) -> None:
    box.write("ws/sub/.git/config")
    box.write("ws/.git/config")
    source = """
import os
for a, b in ((ws, ws + '2'), (ws + '/sub', ws + '/other'), (ws + '/sub', '/dev/shm/sub')):
    try: os.rename(a, b); print('moved', a)
    except OSError: pass
"""
    before = snapshot(box.ws)
    box.open(roots=[f"{box.ws}/sub"])
    assert box.py(source).stdout == b""
    assert snapshot(box.ws).keys() == before.keys()


def test_a_workspace_inside_another_root_is_protected_there_too(box: Box) -> None:
    """Each root leaves out what any root protects."""
    box.write("ws/project/.git/config")
    before = snapshot(f"{box.ws}/project")
    box.open(roots=[box.ws], cwd=f"{box.ws}/project")
    source = """
import os
for a, b in ((ws + '/project', ws + '/old'), (ws + '/project/.git', ws + '/old')):
    try: os.rename(a, b); print('moved', a)
    except OSError: pass
"""
    assert box.py(source).stdout == b""
    assert box.py(ATTACK, f"{box.ws}/project/.git").stdout == b""
    assert snapshot(f"{box.ws}/project") == before


def test_a_nested_repository_is_closed(box: Box, ran: str) -> None:
    repository(box, f"{box.ws}/vendor/library")
    box.open()
    path = f"{box.ws}/vendor/library/.git"
    assert box.py(PLANT + "plant(sys.argv[1], sys.argv[2])", path, ran).returncode != 0
    box.free(["git", "status"], cwd=f"{box.ws}/vendor/library")
    assert not os.path.exists(ran)


@pytest.mark.parametrize("where", ["ws/real", "outside/real"])
def test_the_repository_that_a_pointer_names_is_closed(box: Box, ran: str, where: str) -> None:
    real = os.path.join(box.base, where)
    repository(box, f"{box.base}/made")
    os.rename(f"{box.base}/made/.git", real)
    box.write("ws/.git", f"gitdir: {real}\n")
    box.open(roots=[os.path.dirname(real)])
    assert box.py(PLANT + "plant(sys.argv[1], sys.argv[2])", real, ran).returncode != 0
    assert box.py(ATTACK, real).stdout == b""
    box.py("import os; os.unlink(ws + '/.git'); open(ws + '/.git', 'w').write('gitdir: mine')")
    box.free(["git", "status"], cwd=box.ws)
    assert not os.path.exists(ran)
    with open(f"{box.ws}/.git", encoding="utf-8") as file:
        assert file.read() == f"gitdir: {real}\n"


def test_a_linked_worktree_and_its_main_repository_are_closed(box: Box, ran: str) -> None:
    main, tree = f"{box.ws}/main", f"{box.ws}/tree"
    repository(box, main)
    assert box.free(["git", "worktree", "add", "-q", tree], cwd=main).returncode == 0
    before = snapshot(f"{main}/.git")
    box.open(roots=[box.ws], cwd=tree)
    for path in (f"{main}/.git", f"{main}/.git/worktrees/tree", f"{tree}/.git"):
        assert box.py(PLANT + "plant(sys.argv[1], sys.argv[2])", path, ran).returncode != 0
    box.free(["git", "status"], cwd=tree)
    assert not os.path.exists(ran)
    assert set(snapshot(f"{main}/.git")) >= set(before)


def test_git_reads_a_protected_repository_as_ever(box: Box) -> None:
    repository(box, box.ws)
    box.open()
    result = box.run(["git", "-c", "core.quotePath=false", "status", "--porcelain"])
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert box.run(["git", "log", "--format=%s"]).stdout == b"one\n"


def test_the_home_of_codex_inside_a_root_is_closed(box: Box) -> None:
    box.write("home/.codex/config.toml")
    before = snapshot(box.codex_home)
    box.open(roots=[box.home])
    assert box.py(ATTACK, box.codex_home).stdout == b""
    assert snapshot(box.codex_home) == before
    assert box.py("open(home + '/file', 'w')").returncode == 0, "the rest of that root is open"


def test_the_home_of_codex_that_is_missing_inside_a_root_cannot_be_made(box: Box) -> None:
    box.open(roots=[box.home])
    box.py("import os; os.makedirs(home + '/.codex', exist_ok=True); open(home + '/.codex/config.toml', 'w')")
    assert not os.path.exists(f"{box.codex_home}/config.toml")


# What does not exist


@NAMES
@pytest.mark.parametrize("kind", ["folder", "file", "link", "moved", "upper case"])
def test_what_appears_is_moved_to_the_quarantine_whole_and_reported(box: Box, name: str, kind: str) -> None:
    source = {
        "folder": "os.mkdir(path)",
        "file": "open(path, 'w').write('planted')",
        "link": "os.symlink('planted', path)",
        "moved": "os.makedirs('m/sub'); open('m/sub/config', 'w').write('planted'); os.rename('m', path)",
        "upper case": "path = path.upper().replace(ws.upper(), ws); open(path, 'w').write('planted')",
    }[kind]
    shown = name.upper() if kind == "upper case" else name
    box.open()
    result = box.py("import os, sys; path = sys.argv[1]\n" + source, f"{box.ws}/{name}")
    assert result.returncode == 0, result.stderr
    assert os.listdir(box.ws) == []
    (denial,) = result.denials
    assert (denial.operation, denial.target, denial.certain) == (Operation.WRITE, f"{box.ws}/{shown}", True)
    (moment,) = os.listdir(f"{box.codex_home}/quarantine")
    kept = f"{box.codex_home}/quarantine/{moment}/{shown}"
    assert kept in denial.rule
    if kind == "link":
        assert os.readlink(kept) == "planted"
    elif kind == "folder":
        assert os.listdir(kept) == []
    else:
        with open(kept if kind in {"file", "upper case"} else f"{kept}/sub/config", encoding="utf-8") as file:
            assert file.read() == "planted"
    assert os.lstat(kept).st_uid == box.user.uid


def test_where_the_host_has_no_watches_left_what_appears_does_not_stay_either(box: Box) -> None:
    box.ask("set", "watch", "_IN_NONBLOCK_CLOEXEC", 1)  # which inotify_init1(2) refuses
    box.open()
    result = box.py("import os; os.mkdir(ws + '/.GIT')")
    assert result.returncode == 0, result.stderr
    assert os.listdir(box.ws) == []
    assert [denial.target for denial in result.denials] == [f"{box.ws}/.GIT"]


FLOOD = """
import os, time
while not os.path.exists('go'): time.sleep(0.01)
for number in range(int(os.environ['EVENTS'])):
    name = str(number % 2)
    os.close(os.open(name, os.O_CREAT)); os.unlink(name)
os.mkdir('.GIT')
open(os.environ['DONE'], 'w').write('x')
"""


def test_more_events_than_the_kernel_keeps_hide_nothing(box: Box, fifo: Callable[[str], Fifo]) -> None:
    done = fifo(f"{box.ws}/done")
    with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as file:
        events = int(file.read())
    if events > 1 << 17:
        pytest.skip(f"this host keeps {events} events")
    box.open()
    box.start(["env", f"EVENTS={events}", f"DONE={done.path}", *box.program(FLOOD)])
    os.kill(box.owner.pid, signal.SIGSTOP)  # nobody takes the events
    try:
        box.write("ws/go")
        assert done.read() == b"x"
    finally:
        os.kill(box.owner.pid, signal.SIGCONT)
    _, denials = box.wait()
    assert sorted(os.listdir(box.ws)) == ["done", "go"]
    assert [denial.target for denial in denials] == [f"{box.ws}/.GIT"]


def test_what_is_moved_away_while_the_command_runs_is_complete_at_its_end(box: Box) -> None:
    source = """
import os, time
os.mkdir(ws + '/made'); folder = os.open(ws + '/made', os.O_RDONLY)
os.rename(ws + '/made', ws + '/.git')
for number in range(50):
    os.close(os.open('file%d' % number, os.O_CREAT | os.O_WRONLY, dir_fd=folder)); time.sleep(0.002)
"""
    box.open()
    assert box.py(source).returncode == 0
    (moment,) = os.listdir(f"{box.codex_home}/quarantine")
    assert len(os.listdir(f"{box.codex_home}/quarantine/{moment}/.git")) == 50


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o100])
def test_a_folder_that_its_maker_has_closed_is_moved_all_the_same(box: Box, mode: int) -> None:
    box.open()
    source = f"os.mkdir('m'); open('m/config', 'w'); os.chmod('m', {mode}); os.rename('m', '.git')"
    result = box.py("import os; " + source)
    assert os.listdir(box.ws) == []
    assert len(result.denials) == 1
    (moment,) = os.listdir(f"{box.codex_home}/quarantine")
    kept = f"{box.codex_home}/quarantine/{moment}/.git"
    os.chmod(kept, 0o700)
    assert os.listdir(kept) == ["config"]


def test_a_workspace_that_the_command_has_closed_is_cleaned_all_the_same(box: Box) -> None:
    box.open()
    box.py("import os; os.mkdir(ws + '/.git'); os.chmod(ws, 0o555)")
    os.chmod(box.ws, 0o755)
    assert os.listdir(box.ws) == []


def test_git_outside_never_runs_what_a_command_has_planted(box: Box, ran: str) -> None:
    box.open()
    sources = [
        "plant(ws + '/.git', sys.argv[1])",
        "plant(ws + '/g', sys.argv[1]); os.rename(ws + '/g', ws + '/.git')",
        "plant(ws + '/g', sys.argv[1]); os.symlink('g', ws + '/.git')",
        "plant(ws + '/g', sys.argv[1]); open(ws + '/.git', 'w').write('gitdir: g\\n')",
        "[plant(ws + '/.git', sys.argv[1]) for _ in range(20)]",
        "os.fork() or os.setsid() or [plant(ws + '/.git', sys.argv[1]) for _ in range(99)]; plant('.git', sys.argv[1])",
    ]
    for source in sources:
        result = box.py(PLANT + source, ran)
        box.free(["git", "status"], cwd=box.ws)
        assert not os.path.exists(ran), source
        assert not os.path.lexists(f"{box.ws}/.git"), source
        assert result.denials, source
        shutil.rmtree(f"{box.ws}/g", ignore_errors=True)


def test_a_repository_that_the_host_makes_between_two_commands_is_closed_for_the_second(box: Box, ran: str) -> None:
    box.open()
    assert box.py("open(ws + '/file', 'w')").returncode == 0
    repository(box, box.ws)
    before = snapshot(f"{box.ws}/.git")
    result = box.py(PLANT + "plant(ws + '/.git', sys.argv[1])", ran)
    assert result.returncode != 0
    assert result.denials == ()
    assert snapshot(f"{box.ws}/.git") == before


def test_a_repository_that_the_host_removes_may_not_be_made_anew(box: Box) -> None:
    repository(box, box.ws)
    box.open()
    assert box.run(["true"]).returncode == 0
    shutil.rmtree(f"{box.ws}/.git")
    result = box.py("import os; os.mkdir(ws + '/.git')")
    assert not os.path.exists(f"{box.ws}/.git")
    assert len(result.denials) == 1


@pytest.fixture
def other_file_system(box: Box) -> Iterator[str]:
    """Give a folder of the user's that is not on the file system of the quarantine."""
    folder = os.path.join(box.base, "tmpfs")
    os.mkdir(folder)
    options = f"size=1m,mode=0755,uid={box.user.uid},gid={box.user.uid}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def mount(box: Box) -> Iterator[Callable[[str, str], None]]:
    """Give ``mount(path, options)``: mount an empty file system of the user's at a folder."""
    with contextlib.ExitStack() as stack:

        def make(path: str, options: str) -> None:
            os.makedirs(path)
            options = f"mode=0755,uid={box.user.uid},gid={box.user.uid},{options}"
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
            stack.callback(subprocess.run, ["umount", path], check=True)

        yield make


def test_file_systems_inside_the_workspace_stay_as_they_are_and_those_below_a_repository_are_closed(
    box: Box, mount: Callable[[str, str], None]
) -> None:
    write = "import os, sys; os.utime(sys.argv[1]); open(sys.argv[1] + '/new', 'w')"
    places = {"open": ("rw", True), "closed": ("ro", False), ".git/modules": ("rw", False)}
    for name, (options, _) in places.items():
        mount(f"{box.ws}/{name}", options)
    assert box.free_py(write, f"{box.ws}/.git/modules").returncode == 0
    assert box.open().rung == "namespaces"
    for name, (_, writable) in places.items():
        assert (box.py(write, f"{box.ws}/{name}").returncode == 0) is writable, name


@pytest.mark.parametrize(
    "fill",
    [
        "for number in range(1001): open(f'made/{number}', 'w')",
        "os.truncate('made', 17 << 20)",
        "os.makedirs('made/' + 'x/' * 52)",
    ],
    ids=["entries", "bytes", "levels"],
)
def test_what_is_too_large_to_be_copied_to_another_file_system_is_renamed_and_stays(
    box: Box, other_file_system: str, fill: str
) -> None:
    box.open(cwd=other_file_system)
    begin = "open('made', 'w')" if "truncate" in fill else "os.mkdir('made')"
    result = box.py(f"import os\n{begin}\n{fill}\nos.rename('made', '.git')", cwd=other_file_system)
    assert result.returncode == 0, result.stderr
    (name,) = os.listdir(other_file_system)
    assert name.startswith(".git.quarantined-")
    (moment,) = os.listdir(f"{box.codex_home}/quarantine")
    assert os.listdir(f"{box.codex_home}/quarantine/{moment}") == []


MAKE_REPOSITORY = """
import os
os.makedirs('made/sub'); open('made/sub/config', 'w').write('planted'); os.symlink('nowhere', 'made/link')
os.rename('made', '.git')
"""


def test_the_quarantine_may_be_on_another_file_system(box: Box, other_file_system: str) -> None:
    box.open(cwd=other_file_system)
    result = box.py(MAKE_REPOSITORY, cwd=other_file_system)
    assert result.returncode == 0, result.stderr
    assert os.listdir(other_file_system) == []
    (moment,) = os.listdir(f"{box.codex_home}/quarantine")
    kept = f"{box.codex_home}/quarantine/{moment}/.git"
    with open(f"{kept}/sub/config", encoding="utf-8") as file:
        assert file.read() == "planted"
    assert os.readlink(f"{kept}/link") == "nowhere"
    assert len(result.denials) == 1


def test_a_workspace_in_shared_memory_works(box: Box) -> None:
    if not os.path.ismount("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    folder = tempfile.mkdtemp(prefix="cx-", dir="/dev/shm")
    try:
        box.user.owns(folder)
        box.open(cwd=folder)
        assert box.run(["touch", "file"], cwd=folder).returncode == 0
        assert os.listdir(folder) == ["file"]
        assert box.run(["ls", "/dev/shm"]).stdout == f"{os.path.basename(folder)}\n".encode()
    finally:
        shutil.rmtree(folder)


# No residue


def test_nothing_is_in_the_tree_before_during_or_after(box: Box, fifo: Callable[[str], Fifo]) -> None:
    pipe = fifo(f"{box.ws}/pipe")
    box.write("ws/.git/config")
    before = snapshot(box.base)
    box.open()
    assert snapshot(box.base) == before
    box.start(["sh", "-c", f"echo >{pipe.path}; read x"])
    assert pipe.read()
    assert snapshot(box.base).keys() == before.keys()
    box.wait()
    box.close()
    assert snapshot(box.base).keys() == before.keys()
    mounts = "/proc/self/mountinfo"
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        assert box.base not in file.read()


def test_a_command_that_only_reads_leaves_no_home_of_codex(box: Box) -> None:
    box.open()
    box.run(["ls", box.ws])
    box.close()
    assert box.files() == set()


def test_ordinary_names_that_look_alike_stay_open(box: Box) -> None:
    box.open()
    result = box.py(
        "import os\nfor n in ('.gitignore', '.github', 'git', '.git2', '.codexrc', 'x.git'): os.mkdir(ws + '/' + n)"
    )
    assert result.returncode == 0, result.stderr
    assert len(os.listdir(box.ws)) == 6
    assert result.denials == ()


def test_a_denial_names_what_mends_it(box: Box) -> None:
    box.open()
    (denial,) = box.py("import os; os.mkdir(ws + '/.agents')").denials
    assert isinstance(denial, Denial)
    assert denial.cure
    assert "\n" not in denial.rule + denial.cure


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_the_host_replaces_between_two_commands_is_closed_though_it_has_the_same_inode_number(
    box: Box, kind: str
) -> None:
    """The kernel takes mounts off what is removed elsewhere, and file systems use the numbers of files again."""
    path = f"{box.ws}/.git"
    file = box.write(f"ws/{'.git/config' if kind == 'folder' else '.git'}")

    def replaced() -> int:
        shutil.rmtree(path) if kind == "folder" else os.unlink(path)
        box.write(file)
        return os.stat(path).st_ino

    for _ in range(20):  # other programs take free numbers too
        box.open()
        assert box.run(["true"]).returncode == 0
        number = os.stat(path).st_ino
        if number in (replaced() for _ in range(20)):
            break
    else:
        pytest.skip("this file system does not use numbers again")
    before = {name: seen for name, seen in snapshot(box.ws).items() if name.startswith(path)}
    assert box.py(ATTACK, path).stdout == b""
    assert {name: seen for name, seen in snapshot(box.ws).items() if name.startswith(path)} == before


def test_a_home_of_codex_that_cannot_be_made_is_one_line(box: Box) -> None:
    os.symlink("missing", f"{box.home}/.codex")
    before = box.census()
    with pytest.raises(SandboxUnavailableError, match="home of codex") as caught:
        box.open(roots=[box.home], forge="helper")
    assert "\n" not in str(caught.value)
    assert box.census() == before


def test_a_bare_repository_laid_out_in_the_workspace_does_not_stay(box: Box, ran: str) -> None:
    """Where there is no ``.git``, git takes the folder itself for a repository (git-rev-parse(1), is_git_directory)."""
    plant = PLANT + "plant('.', sys.argv[1]); open('config', 'a').write('\\tbare = false\\n\\tworktree = .\\n')"
    box.free_py(f"import os; os.chdir(ws)\n{plant}", ran)
    box.free(["git", "status"], cwd=box.ws)
    assert os.path.exists(ran), "git does run what such a configuration names"
    box.renew()
    box.open()
    result = box.py(plant, ran)
    assert result.returncode == 0, result.stderr
    box.free(["git", "status"], cwd=box.ws)
    assert not os.path.exists(ran)
    assert [denial.target for denial in result.denials] == [f"{box.ws}/HEAD"]


def test_a_bare_repository_that_the_host_makes_stays(box: Box) -> None:
    box.open()
    assert box.run(["true"]).returncode == 0
    assert box.free(["git", "init", "-q", "--bare", "."], cwd=box.ws).returncode == 0
    assert box.run(["true"]).denials == ()
    assert os.path.exists(f"{box.ws}/HEAD")
