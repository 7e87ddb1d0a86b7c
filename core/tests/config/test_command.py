"""``codex config`` and ``codex mdm``, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from codex_core.cli import config, mdm
from codex_core.errors import CodexError, ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def codex(machine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run ``codex config`` on a machine: the exit code, the lines printed and the lines on stderr."""
    monkeypatch.chdir(machine.cwd)
    monkeypatch.setenv("HOME", str(machine.home))
    monkeypatch.delenv("CODEX_HOME", raising=False)

    def run(*words: str) -> tuple[int, list[str], list[str]]:
        code = config.main(words, system_root=str(machine.root))
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


def refusal(codex: Callable[..., Any], *words: str, kind: type[CodexError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        codex(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def company(machine: Any) -> None:
    """Set up a user and a company that disagree."""
    machine.user('sandbox_mode = "danger-full-access"\napproval_policy = "never"\nmodel = "mine"\n')
    machine.managed('model = "ours"\n[otel]\nexporter = "otlp-http"\n')
    machine.requirements('allowed_sandbox_modes = ["read-only", "workspace-write"]\n')


# show


def test_show_prints_what_holds_with_layer_file_and_line(machine: Any, codex: Any) -> None:
    company(machine)
    code, lines, errors = codex("show")
    assert code == 0
    assert lines == [
        f'approval_policy = "never"  # user {machine.user_file}:2',
        f'model = "ours"  # managed {machine.managed_file}:1',
        f'otel.exporter = "otlp-http"  # managed {machine.managed_file}:3',
        f'sandbox_mode = "workspace-write"  # constrained by {machine.requirements_file}:1',
        f'#   instead of "danger-full-access" from user {machine.user_file}:1',
        '#   instead of "read-only" from defaults',
        (f'# constraint allowed_sandbox_modes = ["read-only", "workspace-write"]  # {machine.requirements_file}:1:1'),
        (
            "# Managed values are starting values: a session may change them, within the constraints; "
            "they come back at the next start."
        ),
    ]
    assert '"workspace-write" holds instead' in errors[0]


def test_show_is_toml_that_says_what_holds(machine: Any, codex: Any) -> None:
    company(machine)
    _code, lines, _errors = codex("show", "--effective", "--origins")
    values = tomli.loads("\n".join(lines))
    assert values["sandbox_mode"] == "workspace-write"
    assert values["otel"] == {"environment": "dev", "exporter": "otlp-http", "log_user_prompt": False}


def test_show_origins_names_what_was_overridden(machine: Any, codex: Any) -> None:
    company(machine)
    _code, lines, _errors = codex("show", "--origins", "-c", "model=override")
    at = next(number for number, line in enumerate(lines) if line.startswith("model = "))
    assert lines[at + 1 : at + 3] == [
        '#   instead of "override" from overrides',
        f'#   instead of "mine" from user {machine.user_file}:3',
    ]


def test_show_json_has_the_same_for_programs(machine: Any, codex: Any) -> None:
    company(machine)
    _code, lines, _errors = codex("show", "--json")
    shown = json.loads("\n".join(lines))
    assert shown["values"]["model"] == {
        "value": "ours",
        "origin": {"layer": "managed", "path": str(machine.managed_file), "line": 1, "column": 1},
        "constrained": False,
        "overrode": [
            {"value": "mine", "origin": {"layer": "user", "path": str(machine.user_file), "line": 3, "column": 1}}
        ],
    }
    assert shown["values"]["sandbox_mode"]["constrained"]
    assert [layer["name"] for layer in shown["layers"]] == ["defaults", "user", "managed", "requirements"]
    assert len(shown["warnings"]) == len(shown["constraints"]) == 1


def test_show_layer_prints_what_one_layer_says(machine: Any, codex: Any) -> None:
    company(machine)
    assert codex("show", "--layer", "managed")[1] == [
        f'model = "ours"  # managed {machine.managed_file}:1',
        f'otel.exporter = "otlp-http"  # managed {machine.managed_file}:3',
    ]
    assert json.loads("\n".join(codex("show", "--layer", "managed", "--json")[1])) == {
        "model": "ours",
        "otel.exporter": "otlp-http",
    }
    assert "there are: defaults, user, managed, requirements" in refusal(codex, "show", "--layer", "nope")


def test_show_masks_secrets_also_in_what_was_overridden(machine: Any, codex: Any) -> None:
    secret = "s3cr3t"
    machine.user(f'[otel.otlp-http]\nheaders = {{ x = "{secret}" }}\nendpoint = "https://me:{secret}@host"\n')
    for words in (["show"], ["show", "--json"], ["show", "--layer", "user"]):
        printed = "\n".join(codex(*words)[1])
        assert secret not in printed
        assert "***" in printed
    assert secret not in "\n".join(codex("show", "--origins", "-c", "otel.otlp-http.headers.x=other")[1])


def test_options_may_stand_anywhere(codex: Any) -> None:
    for words in (["-s", "read-only", "show"], ["show", "-s", "read-only"], ["show", "--sandbox=read-only"]):
        assert 'sandbox_mode = "read-only"  # flags' in codex(*words)[1]


# get, set and unset


def test_get_prints_the_value_that_holds(machine: Any, codex: Any) -> None:
    company(machine)
    assert codex("get", "sandbox_mode")[:2] == (0, ["workspace-write"])
    assert codex("get", "otel")[1] == ['exporter = "otlp-http"']
    assert codex("get", "otel.environment")[1] == ["dev"]
    assert codex("get", "sandbox_workspace_write.writable_roots", "--json")[1] == ["[]"]
    assert codex("get", "profile")[:2] == (1, [])
    assert refusal(codex, "get", "sandbox_mod") == "unknown key sandbox_mod; did you mean sandbox_mode?"


@pytest.mark.parametrize(
    ("key", "value", "printed"),
    [
        ("model", "gpt", "gpt"),
        ("sandbox_workspace_write.network_access", "true", "true"),
        ('projects."/a.b".trust_level', "trusted", "trusted"),
        ("otel.exporter.otlp-http.endpoint", "https://x", "https://x"),
        ("sandbox_workspace_write.writable_roots", '["/a"]', '["/a"]'),
        ("sandbox_linux.allow_degraded", '["ipc"]', '["ipc"]'),
    ],
)
def test_what_is_set_is_what_get_gives(machine: Any, codex: Any, key: str, value: str, printed: str) -> None:
    machine.user("# kept\n")
    assert codex("set", key, value)[:2] == (0, [])
    assert codex("get", key)[1] == [printed]
    assert machine.user_file.read_text().startswith("# kept\n")
    assert codex("unset", key)[0] == 0
    assert codex("get", key)[1] != [printed]


def test_set_makes_the_file_for_its_owner_only(machine: Any, codex: Any) -> None:
    machine.codex_home.rmdir()
    codex("set", "model", "m")
    assert machine.user_file.read_text() == 'model = "m"\n'
    assert machine.user_file.stat().st_mode & 0o777 == 0o600
    assert machine.codex_home.stat().st_mode & 0o777 == 0o700


def test_set_keeps_mode_byte_order_mark_line_ends_and_the_link(machine: Any, codex: Any) -> None:
    real = machine.home / "real.toml"
    real.write_bytes(b'\xef\xbb\xbf# c\r\nmodel = "a"\r\n')
    real.chmod(0o640)
    machine.user_file.symlink_to(real)
    codex("set", "model", "b")
    assert machine.user_file.is_symlink()
    assert real.read_bytes() == b'\xef\xbb\xbf# c\r\nmodel = "b"\r\n'
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(machine.codex_home)) == ["config.toml"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("sandbox_mode", "full", 'sandbox_mode: "full" is not allowed'),
        ("sandbox_mod", "read-only", "unknown key sandbox_mod; did you mean sandbox_mode?"),
        ("model.name", "x", "model is no table"),
        ("otel.exporter", "{ a = {}, b = {} }", 'names "a", "b", where one exporter is expected'),
        ("approval_policy", "never", 'approval_policy = "never" is not allowed'),
    ],
)
def test_set_refuses_what_would_not_load_and_leaves_the_file_alone(
    machine: Any, codex: Any, key: str, value: str, says: str
) -> None:
    machine.user('model = "m"\n')
    machine.requirements('allowed_approval_policies = ["untrusted", "on-request"]\n')
    assert says in refusal(codex, "set", key, value)
    assert machine.user_file.read_text() == 'model = "m"\n'


def test_set_says_when_a_managed_layer_has_the_last_word(machine: Any, codex: Any) -> None:
    machine.managed('model = "ours"\n')
    code, _lines, errors = codex("set", "model", "mine")
    assert code == 0
    assert errors == [f'codex: note: {machine.managed_file}:1:1 (managed) has the last word: "ours"']


def test_set_does_not_overwrite_what_somebody_else_just_wrote(
    machine: Any, codex: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.user('model = "a"\n')
    real = os.fsync

    def fsync(descriptor: int) -> None:
        machine.user('model = "theirs"\n')
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert "was changed by somebody else just now" in refusal(codex, "set", "model", "b")
    assert machine.user_file.read_text() == 'model = "theirs"\n'
    assert sorted(os.listdir(machine.codex_home)) == ["config.toml"]


def test_set_that_cannot_write_leaves_the_file_as_it_was(machine: Any, codex: Any, not_root: Any) -> None:
    machine.user('model = "a"\n')
    # Root becomes somebody else below, who has to get as far as the file.
    for folder in (machine.home.parent, *machine.home.parent.parents[:-2]) if os.geteuid() == 0 else ():
        folder.chmod(folder.stat().st_mode | 0o055)
    for folder in (machine.home, machine.codex_home, machine.cwd, machine.root):
        folder.chmod(0o555)
    try:
        with not_root():
            message = refusal(codex, "set", "model", "b")
    finally:
        machine.codex_home.chmod(0o700)
    assert message.endswith("cannot be written: Permission denied")
    assert machine.user_file.read_text() == 'model = "a"\n'


# check and audit


def test_check_names_everything_that_is_wrong_with_every_file(machine: Any, codex: Any) -> None:
    machine.user('sandbox_mode = "full"\nmodel = 5\nmodle = "x"\n')
    machine.managed("broken = \n")
    machine.requirements("allowed_sandbox_mode = []\n")
    code, lines, _errors = codex("check")
    assert code == 1
    assert [line.partition(": ")[0] for line in lines] == [
        f"{machine.user_file}:3:1",
        f"{machine.user_file}:1:1",
        f"{machine.user_file}:2:1",
        f"{machine.managed_file}:1:10",
        f"{machine.requirements_file}:1:1",
    ]
    assert json.loads("\n".join(codex("check", "--json")[1])) == {"problems": lines}


def test_check_takes_a_file_for_what_its_name_says_or_what_it_is_told(machine: Any, codex: Any) -> None:
    file = machine.cwd / "requirements.toml"
    file.write_text('allowed_sandbox_modes = ["read-only"]\n')
    assert codex("check", "requirements.toml") == (0, [], [])
    assert codex("check", "requirements.toml", "--as", "user")[1] == [
        f"{file}:1:1: unknown key allowed_sandbox_modes; did you mean sandbox_mode?"
    ]
    assert "no such file" in refusal(codex, "check", "gone.toml")


def test_check_finds_what_only_the_files_together_show(machine: Any, codex: Any) -> None:
    machine.user('profile = "gone"\n')
    code, lines, _errors = codex("check")
    assert (code, lines) == (1, [f'{machine.user_file}:1:1: there is no profile "gone"; there are: none'])


def test_audit_tells_drift_from_policy_and_exits_with_one(machine: Any, codex: Any) -> None:
    assert codex("audit") == (0, [], [])
    company(machine)
    code, lines, _errors = codex("audit")
    assert code == 1
    assert lines == [
        f'model = "mine" (user {machine.user_file}:3) is overridden: "ours" (managed {machine.managed_file}:1)',
        (
            f'sandbox_mode = "danger-full-access" (user {machine.user_file}:1) is forbidden: allowed is "read-only", '
            f'"workspace-write" (requirements {machine.requirements_file}:1)'
        ),
    ]
    code, lines, _errors = codex("audit", "--json")
    assert code == 1
    assert [(one["key"], one["kind"]) for one in json.loads("\n".join(lines))["drift"]] == [
        ("model", "overridden"),
        ("sandbox_mode", "forbidden"),
    ]


def test_path_names_the_files(machine: Any, codex: Any) -> None:
    assert codex("path")[1] == [str(machine.user_file)]
    machine.managed("")
    files = {one["path"]: one["exists"] for one in json.loads("\n".join(codex("path", "--all", "--json")[1]))}
    assert files[str(machine.user_file)] is False
    assert files[str(machine.managed_file)] is True
    assert len(files) == 5


# Mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say `codex config` with one of: show, get"),
        (["shwo"], "say `codex config` with one of"),
        (["get"], "say `codex config get KEY`"),
        (["set", "model"], "say `codex config set KEY VALUE`"),
        (["set", "a..b", "1"], "invalid key"),
        (["show", "--as", "user"], "`codex config show` has no option --as"),
        (["show", "--layr", "user"], "there is no option --layr; did you mean --layer?"),
        (["check", "x", "--as", "nonsense"], "--as is one of: user, managed, requirements"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(codex: Any, words: list[str], says: str) -> None:
    assert says in refusal(codex, *words, kind=UsageError)


def test_strict_config_makes_unknown_keys_errors(machine: Any, codex: Any) -> None:
    machine.user("nonsense = 1\n")
    assert "unknown key nonsense" in codex("show")[2][0]
    assert "unknown key nonsense" in refusal(codex, "show", "--strict-config")


def test_help_is_printed_whatever_else_is_wrong(machine: Any, codex: Any) -> None:
    machine.user("broken = ")
    code, lines, _errors = codex("show", "--help")
    assert code == 0
    assert lines[0] == "usage: codex config SUBCOMMAND [options]"


def test_the_command_works_from_the_shell_and_errors_are_one_line(machine: Any) -> None:
    program = [sys.executable, "-m", "codex_core.cli.main", "config"]
    environ = {**os.environ, "HOME": str(machine.home)}
    environ.pop("CODEX_HOME", None)
    machine.user("broken = ")
    done = subprocess.run([*program, "show"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"codex: {machine.user_file}:1:")
    assert done.stderr.count("\n") == 1


# mdm


@pytest.fixture
def codex_mdm(
    machine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(machine.cwd)

    def run(*words: str) -> tuple[int, str]:
        code = mdm.main(words)
        return code, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("policy.toml", [], 'sandbox_mode = "read-only"\n# caf\u00e9\n'),
        ("requirements.toml", [], 'allowed_sandbox_modes = ["read-only"]\n'),
        ("other.toml", ["--requirements"], "allow_network_access = false\n"),
    ],
)
def test_what_is_encoded_is_one_line_that_decodes_to_the_same_file(
    machine: Any, codex_mdm: Any, name: str, words: list[str], text: str
) -> None:
    (machine.cwd / name).write_text(text)
    code, encoded = codex_mdm("encode", name, *words)
    assert code == 0
    assert encoded.count("\n") == 1
    (machine.cwd / "value").write_text(encoded)
    assert codex_mdm("decode", "value") == (0, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("broken = ", "policy.toml:1:10"),
        ('sandbox_mode = "full"', "policy.toml:1:1: sandbox_mode"),
        ("nonsense = 1", "policy.toml:1:1: unknown key nonsense"),
        ('[sandbox_workspace_write]\nwritable_roots = ["rel"]', "must be absolute here"),
    ],
)
def test_what_codex_would_refuse_is_not_encoded(machine: Any, codex_mdm: Any, text: str, says: str) -> None:
    (machine.cwd / "policy.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        codex_mdm("encode", "policy.toml")
    assert says in str(caught.value)


def test_what_is_no_value_is_not_decoded(machine: Any, codex_mdm: Any) -> None:
    (machine.cwd / "value").write_text("!!!")
    with pytest.raises(ConfigError, match=r"^value: not base64"):
        codex_mdm("decode", "value")
    with pytest.raises(UsageError, match="say `codex mdm encode FILE`"):
        codex_mdm("encode")


def test_an_encoded_policy_is_what_a_device_obeys(machine: Any, codex_mdm: Any) -> None:
    import plistlib

    (machine.cwd / "policy.toml").write_text('sandbox_mode = "read-only"\n')
    _code, encoded = codex_mdm("encode", "policy.toml")
    preferences = machine.root / "Library" / "Managed Preferences" / "com.openai.codex.plist"
    preferences.parent.mkdir(parents=True)
    preferences.write_bytes(plistlib.dumps({"config_toml_base64": encoded.strip()}, fmt=plistlib.FMT_BINARY))
    assert machine.load("sandbox_mode=workspace-write").config.sandbox_mode == "read-only"


# The options that choose


def test_a_profile_and_web_search_are_chosen_by_their_options(machine: Any, codex: Any) -> None:
    machine.user('[profiles.quiet]\napproval_policy = "never"\n')
    lines = codex("-p", "quiet", "show", "--search")[1]
    assert f'approval_policy = "never"  # profile quiet {machine.user_file}:2' in lines
    assert 'web_search = "live"  # flags' in lines
    machine.requirements('allowed_web_search_modes = ["cached"]\n')
    assert "web_search" in refusal(codex, "--search", "show")
