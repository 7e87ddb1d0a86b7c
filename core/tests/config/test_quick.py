from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import tomlkit
from codex_core.config import Override
from codex_core.errors import CodexError
from codex_core.sandbox.environment import EnvironmentSettings
from codex_core.sandbox.policy import SandboxSettings
from codex_core.types import Promise, SandboxMode
from hypothesis import given
from hypothesis import strategies as st


def test_a_folder_without_any_configuration_is_plain(machine: Any) -> None:
    quick = machine.quick()
    assert quick.sandbox == SandboxSettings(mode=SandboxMode.READ_ONLY)
    assert quick.codex_home == str(machine.codex_home)


def test_a_usual_configuration_is_plain(machine: Any) -> None:
    machine.user(
        f"""
        model = "m"
        approval_policy = "on-request"
        [sandbox_workspace_write]
        writable_roots = ["~/cache", "beside"]
        network_access = true
        [sandbox_linux]
        allow_degraded = ["protected_paths"]
        [projects."{machine.cwd}"]
        trust_level = "trusted"
        """
    )
    added = Override(("sandbox_workspace_write", "writable_roots"), ["more"], "--add-dir", extend=True)
    quick = machine.quick("sandbox_workspace_write.exclude_slash_tmp=true", added)
    assert quick.sandbox == SandboxSettings(
        mode=SandboxMode.WORKSPACE_WRITE,
        writable_roots=(f"{machine.home}/cache", f"{machine.codex_home}/beside", f"{machine.cwd}/more"),
        network_access=True,
        exclude_slash_tmp=True,
        allow_degraded=("protected_paths",),
    )
    assert (
        quick.sandbox == machine.load("sandbox_workspace_write.exclude_slash_tmp=true", added).config.sandbox_settings()
    )


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        'sandbox_mode = "full"',
        "sandbox_mode = 1",
        'approval_policy = "on-failure"',
        "model = 1",
        'profile = "x"',
        "[profiles.x]",
        "[shell_environment_policy]",
        "[otel]",
        "[plugins]",
        "[features]",
        'projects."/x" = 1',
        'projects."/x".trust_level = "some"',
        'sandbox_workspace_write.writable_roots = "x"',
        "sandbox_workspace_write.writable_roots = [1]",
        'sandbox_workspace_write.writable_roots = ["~other"]',
        "sandbox_workspace_write.network_access = 1",
        "sandbox_workspace_write.other = true",
        "sandbox_linux.other = true",
        'sandbox_linux.allow_degraded = ["all"]',
        "sandbox_mine.x = true",
        "broken = ",
    ],
)
def test_what_is_not_plain_is_left_to_the_full_path(machine: Any, text: str) -> None:
    machine.user(text)
    assert machine.quick() is None


@pytest.mark.parametrize("kind", ["managed", "requirements"])
def test_managed_configuration_is_left_to_the_full_path_whatever_it_says(machine: Any, kind: str) -> None:
    assert machine.quick() is not None
    getattr(machine, kind)("")
    assert machine.quick() is None


def test_managed_preferences_are_left_to_the_full_path(machine: Any) -> None:
    (machine.root / "Library" / "Managed Preferences").mkdir(parents=True)
    assert machine.quick() is None


def test_an_override_that_is_none_is_left_to_the_full_path(machine: Any) -> None:
    assert machine.quick("nonsense") is None


roots = st.lists(st.sampled_from(["/x", "rel", "~", "~/y", "~z", "", "/caf\udce9"]) | st.just(3), max_size=3)
good_roots = st.lists(st.sampled_from(["/x", "rel", "~", "~/y"]), max_size=3)
odd: st.SearchStrategy[Any] = st.sampled_from([None, 0, 1, "", "true", [], {}, 1.5, "nonsense", {"x": 1}])
workspaces = st.fixed_dictionaries(
    {},
    optional={
        "writable_roots": good_roots | roots | odd,
        "network_access": st.booleans() | st.booleans() | odd,
        "exclude_slash_tmp": st.booleans(),
        "exclude_tmpdir_env_var": st.booleans(),
        "protect_git": st.sampled_from(["all", "hooks"]) | odd,
    },
)
promises = st.lists(st.sampled_from([str(one) for one in Promise] + ["nonsense"]), max_size=2)
plain_tables = {
    "sandbox_mode": st.sampled_from([str(mode) for mode in SandboxMode]),
    "approval_policy": st.sampled_from(["untrusted", "on-failure", "on-request", "never"]),
    "sandbox_workspace_write": workspaces,
    "sandbox_backend": st.sampled_from(["", "linux", "macos", "mine"]),
    "sandbox_linux": st.fixed_dictionaries({}, optional={"allow_degraded": promises, "x": st.just(1)}),
    "sandbox_macos": st.fixed_dictionaries({}, optional={"allow_degraded": promises}),
    "model": st.sampled_from(["m", ""]),
    "projects": st.dictionaries(
        st.sampled_from(["CWD", "/elsewhere"]),
        st.fixed_dictionaries({}, optional={"trust_level": st.sampled_from(["trusted", "untrusted", "?"])}) | odd,
        max_size=2,
    ),
}
layers = st.fixed_dictionaries(
    {},
    optional={key: strategy | strategy | strategy | odd for key, strategy in plain_tables.items()}
    | {"surprise": st.just(1), "features": st.just({"web_search_request": True}), "profile": st.just("p")},
)
plain_layers = st.fixed_dictionaries({}, optional=plain_tables)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Any, list[Any], list[str]]:
    """Draw a user's file, overrides in order, and folders to add."""
    user = draw(plain_layers | layers)
    words = draw(plain_layers | layers | st.just({}))
    flags = draw(st.fixed_dictionaries({}, optional={"sandbox_mode": plain_tables["sandbox_mode"]}))
    overrides = [(key, value, "") for key, value in words.items()]
    overrides += [(key, value, "--sandbox") for key, value in flags.items()]
    return user, overrides, draw(st.lists(st.sampled_from(["/x", "rel", "/caf\udce9"]), max_size=2))


def _for(folder: str, values: Any) -> Any:
    """Take out what TOML cannot say, and name the working directory."""
    if isinstance(values, dict):
        return {folder if key == "CWD" else key: _for(folder, one) for key, one in values.items() if one is not None}
    if isinstance(values, list):
        return [one for one in values if one != "/caf\udce9"]
    return values


@given(run=runs(), under_git=st.booleans())
def test_the_quick_path_gives_what_the_full_path_gives_or_nothing(
    new_machine: Any, run: Any, *, under_git: bool
) -> None:
    machine = new_machine()
    user, words, added = run
    if under_git:
        (machine.cwd / ".git").mkdir()
    machine.user(tomlkit.dumps(_for(str(machine.cwd), user)))
    overrides = [Override((key,), _for(str(machine.cwd), value), flag) for key, value, flag in words]
    if added:
        key = ("sandbox_workspace_write", "writable_roots")
        overrides.append(Override(key, added, "--add-dir", extend=True))
    quick = machine.quick(*overrides)
    try:
        full = machine.load(*overrides)
    except CodexError:
        assert quick is None
        return
    if quick is not None:
        # Compared as text too: an enumeration's member and its value are equal, and not the same.
        assert repr(quick.sandbox) == repr(full.config.sandbox_settings())
        assert (quick.sandbox, quick.codex_home) == (full.config.sandbox_settings(), full.codex_home)
        assert full.warnings == ()
        assert full.config.environment_settings() == EnvironmentSettings()


def test_the_quick_path_imports_neither_pydantic_nor_a_toml_reader_it_does_not_need(machine: Any) -> None:
    program = (
        "import sys; from codex_core.config import quick;"
        f"assert quick.settings(cwd='/', overrides=['sandbox_mode=read-only'], environ={machine.environ!r},"
        f" system_root={str(machine.root)!r}) is not None;"
        "heavy = {'pydantic', 'tomli', 'tomlkit', 'pluggy', 'stevedore', 'argparse', 'subprocess', 'pathlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
