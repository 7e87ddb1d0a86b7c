from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config import Origin, Override
from codex_core.errors import ConfigError
from codex_core.types import ApprovalMode, SandboxMode

if TYPE_CHECKING:
    from pathlib import Path

    from codex_core.config.loading import Loaded


def origin(loaded: Loaded, key: str) -> tuple[str, str | None, int | None]:
    found = loaded.origins[key]
    return found.layer, found.path, found.line


def modes(loaded: Loaded) -> tuple[str, str]:
    return str(loaded.config.sandbox_mode), str(loaded.config.approval_policy)


# Folder defaults and trust


def test_a_version_controlled_folder_starts_with_workspace_write_and_says_so(machine: Any) -> None:
    (machine.cwd / ".git").mkdir()
    below = machine.cwd / "a" / "b"
    below.mkdir(parents=True)
    for folder in (machine.cwd, below):
        loaded = machine.load(cwd=str(folder))
        assert modes(loaded) == ("workspace-write", "on-request")
        assert loaded.origins["sandbox_mode"] == Origin("defaults")
        assert loaded.defaults_note == (
            f"workspace-write and on-request, because {machine.cwd} is version-controlled and nothing chooses a mode"
        )


def test_any_other_folder_starts_read_only_and_says_so(machine: Any) -> None:
    loaded = machine.load()
    assert modes(loaded) == ("read-only", "on-request")
    assert loaded.defaults_note == (
        f"read-only and on-request, because {machine.cwd} is not version-controlled and nothing chooses a mode"
    )


def test_a_folder_reached_by_a_link_is_judged_where_it_lies(machine: Any) -> None:
    (machine.cwd / ".git").mkdir()
    link = machine.home / "link"
    link.symlink_to(machine.cwd)
    assert modes(machine.load(cwd=str(link))) == ("workspace-write", "on-request")


@pytest.mark.parametrize("chosen", ["user", "override", "flag", "managed"])
def test_where_something_chooses_the_mode_there_is_no_note(machine: Any, chosen: str) -> None:
    words: list[Any] = []
    if chosen in {"user", "managed"}:
        getattr(machine, chosen)('sandbox_mode = "danger-full-access"')
    else:
        flag = "--sandbox" if chosen == "flag" else ""
        words.append(Override(("sandbox_mode",), "danger-full-access", flag))
    loaded = machine.load(*words)
    assert loaded.config.sandbox_mode is SandboxMode.DANGER_FULL_ACCESS
    assert loaded.defaults_note is None


def test_trust_chooses_what_nothing_else_chooses(machine: Any) -> None:
    machine.user(f'\n[projects."{machine.cwd}"]\ntrust_level = "trusted"\n')
    loaded = machine.load()
    assert modes(loaded) == ("workspace-write", "on-request")
    assert origin(loaded, "sandbox_mode") == ("trust", str(machine.user_file), 3)
    assert loaded.defaults_note is None
    assert modes(machine.load("sandbox_mode=read-only")) == ("read-only", "on-request")


def test_an_untrusted_folder_is_read_only_and_asks_for_everything_also_under_version_control(machine: Any) -> None:
    (machine.cwd / ".git").mkdir()
    machine.user(f'projects."{machine.cwd}".trust_level = "untrusted"\n')
    assert modes(machine.load()) == ("read-only", "untrusted")


def test_trust_in_a_repository_covers_its_folders_and_the_nearest_entry_wins(machine: Any) -> None:
    (machine.cwd / ".git").mkdir()
    below = machine.cwd / "vendor"
    below.mkdir()
    machine.user(
        f'[projects."{machine.cwd}"]\ntrust_level = "trusted"\n[projects."{below}"]\ntrust_level = "untrusted"\n'
    )
    assert modes(machine.load(cwd=str(below))) == ("read-only", "untrusted")
    assert modes(machine.load(cwd=str(machine.cwd))) == ("workspace-write", "on-request")
    other = machine.cwd / "other"
    other.mkdir()
    assert modes(machine.load(cwd=str(other))) == ("workspace-write", "on-request")


def worktree(machine: Any, *, honest: bool) -> tuple[str, str]:
    main = machine.home / "main"
    gitdir = main / ".git" / "worktrees" / "one"
    gitdir.mkdir(parents=True)
    (machine.cwd / ".git").write_text(f"gitdir: {gitdir}\n")
    (gitdir / "gitdir").write_text(f"{machine.cwd if honest else main}/.git\n")
    return str(machine.cwd), str(main)


def test_a_worktree_has_the_trust_of_its_main_repository(machine: Any) -> None:
    _cwd, main = worktree(machine, honest=True)
    machine.user(f'projects."{main}".trust_level = "untrusted"\n')
    assert modes(machine.load()) == ("read-only", "untrusted")


def test_a_folder_cannot_claim_to_be_a_worktree_of_a_trusted_repository(machine: Any) -> None:
    _cwd, main = worktree(machine, honest=False)
    machine.user(f'projects."{main}".trust_level = "untrusted"\n')
    assert modes(machine.load()) == ("workspace-write", "on-request")


def test_a_project_without_a_trust_level_says_nothing(machine: Any) -> None:
    machine.user(f'[projects."{machine.cwd}"]\n')
    assert modes(machine.load()) == ("read-only", "on-request")


# Precedence


def test_each_layer_beats_the_one_below(machine: Any) -> None:
    machine.user('model = "user"\nprofile = "p"\n[profiles.p]\nmodel = "profile"')
    assert machine.load().config.model == "profile"
    assert machine.load("model=override").config.model == "override"
    flag = Override(("model",), "flag", "--model")
    assert machine.load(flag, "model=override").config.model == "flag"
    machine.managed('model = "managed"')
    loaded = machine.load(flag, "model=override")
    assert loaded.config.model == "managed"
    assert origin(loaded, "model") == ("managed", str(machine.managed_file), 1)
    assert [layer.name for layer in loaded.layers] == ["defaults", "user", "profile p", "overrides", "flags", "managed"]


def test_a_managed_value_leaves_the_neighbours_of_a_table_to_the_user(machine: Any) -> None:
    machine.user('[sandbox_workspace_write]\nwritable_roots = ["/x"]\nnetwork_access = true\n')
    machine.managed("[sandbox_workspace_write]\nnetwork_access = false\n")
    loaded = machine.load("sandbox_workspace_write.network_access=true")
    assert loaded.config.sandbox_workspace_write.writable_roots == ("/x",)
    assert loaded.config.sandbox_workspace_write.network_access is False
    assert origin(loaded, "sandbox_workspace_write.writable_roots") == ("user", str(machine.user_file), 2)
    assert origin(loaded, "sandbox_workspace_write.network_access") == ("managed", str(machine.managed_file), 2)


def test_added_folders_join_the_configured_ones(machine: Any) -> None:
    machine.user('[sandbox_workspace_write]\nwritable_roots = ["/x"]\n')
    key = ("sandbox_workspace_write", "writable_roots")
    added = [Override(key, ["/y"], "--add-dir", extend=True), Override(key, ["z"], "--add-dir", extend=True)]
    settings = machine.load(*added).config.sandbox_settings()
    assert settings.writable_roots == ("/x", "/y", f"{machine.cwd}/z")
    settings = machine.load(*added, 'sandbox_workspace_write.writable_roots=["/o"]').config.sandbox_settings()
    assert settings.writable_roots == ("/o", "/y", f"{machine.cwd}/z")


def test_a_profile_that_is_not_there_is_refused_with_the_names_of_those_that_are(machine: Any) -> None:
    machine.user('profile = "fast"\n[profiles.slow]\n[profiles.deep]\n')
    with pytest.raises(ConfigError, match=r':1:1: there is no profile "fast"; there are: "slow", "deep"$'):
        machine.load()


def test_a_profile_chosen_on_the_command_line_takes_its_values_from_the_file(machine: Any) -> None:
    machine.user('approval_policy = "never"\n[profiles.careful]\napproval_policy = "untrusted"\n')
    loaded = machine.load(Override(("profile",), "careful", "--profile"))
    assert loaded.config.approval_policy is ApprovalMode.UNTRUSTED
    assert origin(loaded, "approval_policy") == ("profile careful", str(machine.user_file), 3)


# Paths


def test_paths_start_at_the_folder_of_their_file_and_overrides_at_the_working_directory(machine: Any) -> None:
    machine.user('[sandbox_workspace_write]\nwritable_roots = ["a", "../b", "~/c", "~", "/d"]\n')
    home = str(machine.home)
    assert machine.load().config.sandbox_settings().writable_roots == (
        f"{machine.codex_home}/a",
        f"{machine.codex_home}/../b",
        f"{home}/c",
        home,
        "/d",
    )
    loaded = machine.load('sandbox_workspace_write.writable_roots=["a", "~/b"]')
    assert loaded.config.sandbox_settings().writable_roots == (f"{machine.cwd}/a", f"{home}/b")


@pytest.mark.parametrize("path", ["", "a\\u0000b", "~other/x"])
def test_a_path_without_a_meaning_is_refused(machine: Any, path: str) -> None:
    machine.user(f'[sandbox_workspace_write]\nwritable_roots = [\n  "/ok",\n  "{path}",\n]\n')
    with pytest.raises(ConfigError, match=r":4:3: sandbox_workspace_write.writable_roots\[1\]: "):
        machine.load()


def test_a_path_that_is_not_utf_8_survives_from_the_command_line(machine: Any) -> None:
    path = b"/caf\xe9".decode("utf-8", "surrogateescape")
    added = Override(("sandbox_workspace_write", "writable_roots"), [path], "--add-dir", extend=True)
    assert machine.load(added).config.sandbox_settings().writable_roots == (path,)


# Mistakes


def test_an_unknown_key_warns_with_the_nearest_known_one_and_is_an_error_when_strict(machine: Any) -> None:
    machine.user('sandbox_mod = "read-only"\n\n[sandbox_workspace_write]\nwriteable_roots = []\n')
    loaded = machine.load()
    assert loaded.warnings == (
        f"{machine.user_file}:1:1: unknown key sandbox_mod; did you mean sandbox_mode?",
        (
            f"{machine.user_file}:4:1: unknown key sandbox_workspace_write.writeable_roots; "
            "did you mean sandbox_workspace_write.writable_roots?"
        ),
    )
    assert "sandbox_mod" not in loaded.origins
    with pytest.raises(ConfigError, match=r":1:1: unknown key sandbox_mod; did you mean sandbox_mode\?$"):
        machine.load(strict=True)


def test_a_misspelt_table_is_not_taken_for_the_table_of_a_backend_or_an_exporter(machine: Any) -> None:
    machine.user("[sandbox_workspace_wirte]\nnetwork_access = true\n[otel.enviroment]\n")
    assert [warning.partition("unknown key ")[2] for warning in machine.load().warnings] == [
        "sandbox_workspace_wirte; did you mean sandbox_workspace_write?",
        "otel.enviroment; did you mean otel.environment?",
    ]


def test_the_tables_of_plugins_are_passed_on(machine: Any) -> None:
    machine.user("[sandbox_mine]\nx = 1\n[otel.my-exporter]\ny = 2\n")
    loaded = machine.load("sandbox_backend=mine", "otel.exporter=my-exporter")
    assert loaded.warnings == ()
    assert loaded.config.backend_table("mine").model_extra == {"x": 1}
    assert loaded.config.otel.exporter_table("my-exporter").model_extra == {"y": 2}


def test_the_table_of_a_plugin_that_is_not_chosen_warns(machine: Any) -> None:
    machine.user("[sandbox_lin]\nx = 1\n[otel.otlp]\ny = 2\n[sandbox_linux]\n[otel.otlp-http]\n")
    assert machine.load().warnings == (
        f'{machine.user_file}:1:1: sandbox_lin has no effect: sandbox_backend is not "lin"',
        f'{machine.user_file}:3:1: otel.otlp has no effect: otel.exporter is not "otlp"',
    )
    with pytest.raises(ConfigError, match="sandbox_lin has no effect"):
        machine.load(strict=True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            'sandbox_mode = "full"',
            'sandbox_mode: "full" is not allowed; expected one of "read-only", "workspace-write", "danger-full-access"',
        ),
        ("sandbox_mode = 1", 'sandbox_mode: 1 is not allowed; expected one of "read-only"'),
        ("approval_policy = { granular = {} }", "approval_policy: a table is not allowed; expected one of"),
        ('sandbox_workspace_write.network_access = "yes"', ': "yes" is not allowed; expected true or false'),
        ("sandbox_workspace_write.network_access = 1", ": 1 is not allowed; expected true or false"),
        ('sandbox_workspace_write.writable_roots = "/x"', ': "/x" is not allowed; expected an array'),
        ('sandbox_workspace_write.writable_roots = ["/x", 5]', "roots[1]: 5 is not allowed; expected a string"),
        ("sandbox_workspace_write = true", "sandbox_workspace_write: true is not allowed; expected a table"),
        ('projects = "all"', 'projects: "all" is not allowed; expected a table'),
        ('projects."/x".trust_level = "some"', 'projects."/x".trust_level: "some" is not allowed'),
        ('sandbox_linux.allow_degraded = ["all"]', 'sandbox_linux.allow_degraded[0]: "all" is not allowed'),
        ("model = 5", "model: 5 is not allowed; expected a string"),
        ("model_providers.x.request_max_retries = -1", "request_max_retries: -1 is not allowed: Input should be"),
        ("otel.log_user_prompt = 0", "otel.log_user_prompt: 0 is not allowed; expected true or false"),
        ("otel.exporter = 5", "otel.exporter: 5 is not allowed; expected a string"),
        ("shell_environment_policy.set.A = 1", "shell_environment_policy.set.A: 1 is not allowed; expected a string"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_column_key_and_what_is_allowed(
    machine: Any, line: str, says: str
) -> None:
    machine.user(f"# a comment\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        machine.load()
    message = str(caught.value)
    assert message.startswith(f"{machine.user_file}:2:")
    assert says in message
    assert "\n" not in message


def test_a_mistake_is_found_also_where_a_layer_above_hides_it(machine: Any) -> None:
    machine.user('sandbox_mode = "full"')
    with pytest.raises(ConfigError, match=r"config\.toml:1:1: sandbox_mode"):
        machine.load("sandbox_mode=read-only")


def test_a_deprecated_policy_is_accepted_with_a_warning(machine: Any) -> None:
    machine.user('approval_policy = "on-failure"')
    loaded = machine.load()
    assert loaded.config.approval_policy is ApprovalMode.ON_FAILURE
    assert loaded.warnings == (
        f'{machine.user_file}:1:1: approval_policy = "on-failure" is deprecated; use "on-request"',
    )


def test_the_configuration_cannot_be_changed_in_place(machine: Any) -> None:
    config = machine.load().config
    with pytest.raises(ValueError, match="frozen"):
        config.sandbox_mode = SandboxMode.DANGER_FULL_ACCESS


def test_the_normal_start_scans_no_file_for_positions(machine: Any) -> None:
    machine.user('model = "m"\n')
    loaded = machine.load()
    positions = loaded.layers[1].positions
    assert positions._found is None
    assert loaded.origins["model"].line == 1
    assert positions._found is not None


def test_no_plugin_of_pydantics_is_imported(machine: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    metadata = site / "evil-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pydantic]\nevil = evil:plugin\n")
    (site / "evil.py").write_text('raise SystemExit("imported")\n')
    machine.requirements("allow_network_access = false\n")

    def run(program: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        environ = {"HOME": str(machine.home), "PYTHONPATH": path}
        words = [sys.executable, "-c", program]
        return subprocess.run(words, env=environ, capture_output=True, text=True, check=False)

    attacked = run("import pydantic\nclass M(pydantic.BaseModel): a: int = 1\n")
    assert "imported" in attacked.stderr
    ours = (
        "import os; from codex_core.config import load_config, model;"
        f"loaded = load_config(cwd='/', environ=dict(os.environ), system_root={str(machine.root)!r});"
        "loaded.config.sandbox_settings(); loaded.exporter_settings(); loaded.config.backend_table('x');"
        "print('PYDANTIC_DISABLE_PLUGINS' in os.environ)"
    )
    done = run(ours)
    assert (done.stdout, done.stderr) == ("False\n", "")
