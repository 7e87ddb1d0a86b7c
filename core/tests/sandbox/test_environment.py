from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from codex_core.errors import ConfigError
from codex_core.sandbox.environment import EnvironmentSettings, child_environment, without_steering
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Network, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

OFF = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, "/ws", ("/ws",), ())
ON = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, "/ws", ("/ws",), (), network=Network.ON)
CALLER = {"PATH": "/bin", "HOME": "/h", "EDITOR": "vi", "AWS_SECRET_ACCESS_KEY": "1", "npm_token": "2", "Monkey": "3"}


def child(**given_settings: object) -> dict[str, str]:
    return child_environment(CALLER, EnvironmentSettings(**given_settings), OFF, "")  # type: ignore[arg-type]


def test_what_is_named_like_a_credential_stays_behind_whatever_its_case() -> None:
    assert child() == {"PATH": "/bin", "HOME": "/h", "EDITOR": "vi"}


def test_the_default_excludes_can_be_ignored() -> None:
    assert child(ignore_default_excludes=True) == CALLER


def test_core_keeps_what_a_shell_needs_and_none_keeps_nothing() -> None:
    assert child(inherit="core") == {"PATH": "/bin", "HOME": "/h"}
    assert child(inherit="none") == {}


def test_excludes_come_before_set_and_include_only_comes_last() -> None:
    chosen = child(exclude=("edit*",), set={"EDITOR": "ed", "MY_TOKEN": "t"}, include_only=("E?ITOR", "MY_*"))
    assert chosen == {"EDITOR": "ed", "MY_TOKEN": "t"}


def test_a_confined_command_is_told_who_confines_it_and_that_the_network_is_off() -> None:
    settings = EnvironmentSettings(inherit="none", include_only=("NOTHING",))
    marks = {"CODEX_SANDBOX": "linux", "CODEX_SANDBOX_NETWORK_DISABLED": "1"}
    assert child_environment(CALLER, settings, OFF, "linux") == marks
    assert child_environment(CALLER, settings, ON, "linux") == {"CODEX_SANDBOX": "linux"}
    assert child_environment(CALLER, settings, OFF, "none") == {}


@pytest.mark.parametrize(
    "broken", [{"inherit": "some"}, {"set": {"": "x"}}, {"set": {"A=B": "x"}}, {"set": {"A": "\0"}}]
)
def test_what_no_environment_can_hold_is_an_error(broken: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="shell_environment_policy"):
        child(**broken)


@given(name=st.text("abK*_", min_size=1, max_size=8), pattern=st.text("abk*?_", max_size=8))
def test_patterns_mean_what_fnmatch_makes_of_them(name: str, pattern: str) -> None:
    settings = EnvironmentSettings(ignore_default_excludes=True, exclude=(pattern,))
    kept = child_environment({name: "x"}, settings, OFF, "")
    assert (name not in kept) == fnmatchcase(name.casefold(), pattern.casefold())


def test_a_hostile_pattern_takes_no_exponential_time() -> None:
    assert child_environment({"a" * 500: "x"}, EnvironmentSettings(exclude=("*a" * 60 + "b",)), OFF, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_PRELOAD", "/ws/evil.so"),
        ("LD_PRELOAD", "/usr/lib/good.so /ws/evil.so"),
        ("PYTHONPATH", "/usr/lib/python:/ws/lib"),
        ("PYTHONPATH", "src"),
        ("LD_LIBRARY_PATH", "/usr/lib:"),  # an empty element is the working directory
        ("BASH_ENV", "./env"),
        ("NODE_OPTIONS", "--max-old-space-size=4096 --require=/ws/evil.js"),
        ("JAVA_TOOL_OPTIONS", "-javaagent:/ws/evil.jar"),
        ("GIT_SSH_COMMAND", "'/ws/ssh' -v"),
        ("EDITOR", "../ws/editor"),
        ("PYTHONPYCACHEPREFIX", "/ws/cache"),
        ("MAKEFILES", "/etc/good.mk /ws/bad.mk"),
        ("KUBECONFIG", "kube.yaml"),
        ("GIT_CONFIG_VALUE_0", "!/ws/pager"),
        ("npm_config_script_shell", "/ws/sh"),
        ("LESSOPEN", "|/ws/open %s"),
        ("LUA_INIT", "@/ws/init.lua"),
        ("CFLAGS", "-O2 -fplugin=/ws/x.so"),
        ("RUBYOPT", "-w -Ilib"),
        ("RUSTC_WORKSPACE_WRAPPER", "/ws/rustc"),
    ],
)
def test_outside_the_sandbox_no_variable_steers_to_what_commands_can_write(name: str, value: str) -> None:
    environ = {name: value, "PATH": "/ws/bin:/bin"}
    assert without_steering(environ, OFF, "/ws") == {"PATH": "/ws/bin:/bin"}
    read_only = replace(OFF, mode=SandboxMode.READ_ONLY, writable_roots=())
    assert without_steering(environ, read_only, "/ws") == environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_PRELOAD", "/usr/lib/good.so"),
        ("PYTHONPATH", "/opt/lib:/usr/lib/python"),
        ("NODE_OPTIONS", "--max-old-space-size=4096"),
        ("EDITOR", "/usr/bin/vi"),
        ("EDITOR", "vi"),  # looked up in PATH
        ("PYTHONUNBUFFERED", "1"),
        ("ANYTHING", "/ws/x"),
    ],
)
def test_what_commands_cannot_change_is_passed_on_outside(name: str, value: str) -> None:
    assert without_steering({name: value}, OFF, "/ws") == {name: value}
