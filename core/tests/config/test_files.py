"""What can be wrong with a file, a folder or a variable: one line each, and never a traceback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config import sources
from codex_core.config.files import MAX_BYTES, read_file
from codex_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = \n", ":1:5: Invalid value"),
        (b"a = 1\na = 2\n", ":2:"),
        (b'a = "x\n', ":1:"),
        (b"a = [1,\n  2\n", ":"),
        (b"a\x00 = 1\n", ":1:2: "),
        (b"ok = 1\n\nb = \xff\n", ":3: not UTF-8 (byte 0xff)"),
        ("sandbox_mode = 'read-only'".encode("utf-16"), ":1: not UTF-8"),
        (b"a = " + b"[" * 100_000, ": "),
        (b".".join([b"a"] * 5000) + b" = 1", ": nested "),
        (b".".join([b"a"] * 65) + b" = 1", ": nested more than 64 levels deep"),
        (b"a = " + b"9" * 5000, ": "),
        (b"\x1b[31m = 1", ":1:1: "),
    ],
    ids=[
        "no value",
        "twice",
        "open string",
        "open array",
        "NUL",
        "Latin-1",
        "UTF-16",
        "deep array",
        "deep key",
        "key of 65 levels",
        "long integer",
        "escape sequence",
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_place(machine: Any, content: bytes, says: str) -> None:
    machine.user_file.write_bytes(content)
    message = refusal(machine.load)
    assert message.startswith(f"{machine.user_file}{says}")
    assert message.isprintable()
    assert machine.quick() is None


def test_windows_line_ends_and_a_byte_order_mark_are_read(machine: Any) -> None:
    machine.user_file.write_bytes(b'\xef\xbb\xbf# first\r\nmodel = "m"\r\nwrong = 1\r\n')
    loaded = machine.load()
    assert loaded.config.model == "m"
    assert loaded.origins["model"].line == 2
    assert loaded.warnings[0].startswith(f"{machine.user_file}:3:1: ")


def test_a_directory_in_place_of_the_file_is_refused(machine: Any) -> None:
    machine.user_file.mkdir()
    assert refusal(machine.load) == f"{machine.user_file}: is a directory, where a TOML file is expected"


def test_a_pipe_in_place_of_the_file_is_refused_without_waiting_for_a_writer(machine: Any) -> None:
    os.mkfifo(machine.user_file)
    assert refusal(machine.load) == f"{machine.user_file}: is not a regular file, where a TOML file is expected"


def test_a_loop_of_links_is_refused(machine: Any) -> None:
    machine.user_file.symlink_to(machine.user_file)
    assert refusal(machine.load).startswith(f"{machine.user_file}: ")


def test_a_link_that_leads_nowhere_is_refused_rather_than_taken_for_no_file(machine: Any) -> None:
    machine.user_file.symlink_to(machine.home / "gone.toml")
    assert refusal(machine.load) == f"{machine.user_file}: is a link that leads nowhere"


def test_a_link_to_a_file_is_followed(machine: Any) -> None:
    (machine.home / "elsewhere.toml").write_text('model = "m"')
    machine.user_file.symlink_to(machine.home / "elsewhere.toml")
    assert machine.load().config.model == "m"


def test_an_unreadable_file_is_refused(machine: Any, not_root: Any) -> None:
    machine.user("")
    machine.user_file.chmod(0)
    with not_root():
        assert refusal(lambda: read_file(str(machine.user_file))).endswith("cannot be read: Permission denied")


def test_an_error_while_reading_is_refused(machine: Any) -> None:
    machine.user_file.symlink_to("/proc/self/mem")  # opens, and fails at the first byte
    assert refusal(machine.load) == f"{machine.user_file}: cannot be read: Input/output error"


def test_a_file_of_fifty_megabytes_is_refused_unread(machine: Any) -> None:
    with machine.user_file.open("wb") as file:
        file.truncate(50 << 20)
    assert refusal(machine.load) == f"{machine.user_file}: larger than {MAX_BYTES >> 20} MiB, which is no configuration"


def test_a_file_that_changes_while_it_is_read_is_read_again(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.user_file.write_bytes(b'model = "ol')
    real = os.read
    reads: list[bytes] = []

    def read(descriptor: int, size: int) -> bytes:
        part = real(descriptor, size)
        if not reads:
            machine.user_file.write_bytes(b'model = "new"\n')
        reads.append(part)
        return part

    monkeypatch.setattr(os, "read", read)
    assert read_file(str(machine.user_file)) == b'model = "new"\n'


def test_a_file_that_never_stops_changing_is_refused(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.user("a = 1\n")
    real = os.read

    def read(descriptor: int, size: int) -> bytes:
        part = real(descriptor, size)
        if not part:
            with machine.user_file.open("a") as file:
                file.write("# more\n")
        return part

    monkeypatch.setattr(os, "read", read)
    assert refusal(lambda: read_file(str(machine.user_file))).endswith("changes while it is read; try again")


def test_no_file_is_no_layer(machine: Any) -> None:
    loaded = machine.load()
    assert [layer.name for layer in loaded.layers] == ["defaults"]
    assert loaded.codex_home == str(machine.codex_home)


def test_codex_home_names_the_folder_of_the_file(machine: Any) -> None:
    machine.user('model = "from the default place"')
    other = machine.home / "other"
    other.mkdir()
    (other / "config.toml").write_text('model = "m"')
    machine.environ["CODEX_HOME"] = str(other)
    loaded = machine.load()
    assert (loaded.codex_home, loaded.config.model) == (str(other), "m")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CODEX_HOME": "relative"}, "CODEX_HOME is relative: it must be an absolute path"),
        ({"CODEX_HOME": "/no/such\nfolder"}, "CODEX_HOME is /no/such\\nfolder: there is no such folder; create it"),
        ({"CODEX_HOME": "/etc/passwd"}, "CODEX_HOME is /etc/passwd: there is no such folder"),
        ({}, "HOME is not set: set it, or set CODEX_HOME"),
        ({"HOME": ""}, "HOME is not set"),
        ({"HOME": "here"}, "HOME is here, which is no absolute path"),
    ],
)
def test_a_home_that_is_none_is_refused(machine: Any, environ: dict[str, str], says: str) -> None:
    assert refusal(lambda: machine.load(environ=environ)).startswith(says)
    assert machine.quick(environ=environ) is None


def test_an_empty_codex_home_counts_as_unset(machine: Any) -> None:
    machine.environ["CODEX_HOME"] = ""
    assert machine.load().codex_home == str(machine.codex_home)


def test_without_a_home_codex_home_is_enough(machine: Any) -> None:
    assert machine.load(environ={"CODEX_HOME": str(machine.codex_home)}).codex_home == str(machine.codex_home)


def test_a_missing_managed_file_is_skipped_and_a_broken_one_stops_the_run(machine: Any) -> None:
    assert machine.load().warnings == ()
    machine.managed("sandbox_mode = ")
    assert refusal(machine.load).startswith(f"{machine.managed_file}:1:")
    machine.managed('sandbox_mode = "anything"')
    assert refusal(machine.load).startswith(f"{machine.managed_file}:1:1: sandbox_mode: ")


def test_a_managed_file_that_everybody_may_write_stops_the_run(machine: Any) -> None:
    machine.managed("")
    machine.load()
    machine.managed_file.chmod(0o666)
    assert "everybody may write to it" in refusal(machine.load)


def test_a_managed_file_that_everybody_may_replace_stops_the_run(machine: Any) -> None:
    machine.managed("")
    machine.managed_file.parent.chmod(0o777)
    assert "everybody may replace it" in refusal(machine.load)


def test_a_managed_file_of_another_user_stops_the_run(machine: Any) -> None:
    machine.managed("")
    machine.load()
    if os.geteuid() == 0:
        os.chown(machine.managed_file, 65534, -1)
        assert "belongs to user 65534, not to the administrator" in refusal(machine.load)
    else:  # seen from the real root, a file of ours is one of another user
        assert "not to the administrator" in refusal(lambda: read_file(str(machine.managed_file), guard="/"))


def test_a_managed_folder_that_cannot_be_looked_into_stops_the_run(machine: Any, not_root: Any) -> None:
    machine.managed("")
    machine.managed_file.parent.chmod(0)
    try:
        with not_root():
            context = sources.ConfigContext("/", "/", {}, str(machine.root))
            assert refusal(lambda: sources.managed_layers(context)).endswith("Permission denied")
            assert sources.has_managed(context)
    finally:
        machine.managed_file.parent.chmod(0o700)


def test_a_managed_folder_that_is_a_link_into_nothing_stops_the_run(machine: Any) -> None:
    (machine.root / "etc").mkdir()
    (machine.root / "etc" / "codex").symlink_to("/not/mounted")
    assert refusal(machine.load).endswith("is a link that leads nowhere")
