from __future__ import annotations

import plistlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config import mdm
from codex_core.errors import ConfigError
from codex_core.types import ApprovalMode, SandboxMode
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = "someone"


@pytest.fixture(scope="module", autouse=True)
def _known_user() -> Iterator[None]:
    """Give whoever runs this a name: in a container there may be none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mdm, "_user_name", lambda: ME)
        yield


def payload(text: str) -> str:
    return b64encode(text.encode()).decode()


def push(machine: Any, preferences: Any, *, user: str = "", fmt: Any = plistlib.FMT_BINARY) -> Any:
    """Put a property list where device management puts it; for the device, or for one user."""
    path = machine.root / "Library" / "Managed Preferences" / user / "com.openai.codex.plist"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(preferences if isinstance(preferences, bytes) else plistlib.dumps(preferences, fmt=fmt))
    return path


def refusal(machine: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        machine.load()
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("fmt", [plistlib.FMT_BINARY, plistlib.FMT_XML], ids=["binary", "XML"])
def test_managed_preferences_beat_every_other_layer(machine: Any, fmt: Any) -> None:
    path = push(machine, {"config_toml_base64": payload('\nsandbox_mode = "read-only"\n')}, fmt=fmt)
    machine.managed('sandbox_mode = "workspace-write"\napproval_policy = "never"\n')
    loaded = machine.load("sandbox_mode=danger-full-access")
    assert loaded.config.sandbox_mode is SandboxMode.READ_ONLY
    assert loaded.config.approval_policy is ApprovalMode.NEVER
    origin = loaded.origins["sandbox_mode"]
    assert (origin.layer, origin.path, origin.line) == ("mdm", f"{path}#config_toml_base64", 2)


def test_the_preferences_of_the_user_win_over_those_of_the_device(machine: Any) -> None:
    push(machine, {"config_toml_base64": payload('model = "device"\n')})
    assert machine.load().config.model == "device"
    push(machine, {"config_toml_base64": payload('model = "user"\n')}, user=ME)
    assert machine.load().config.model == "user"
    push(machine, {"config_toml_base64": payload('model = "somebody else"\n')}, user="somebody")
    assert machine.load().config.model == "user"


@pytest.mark.parametrize("empty", ["", " \n", payload(""), payload("\n \n")])
def test_an_empty_value_hides_nothing(machine: Any, empty: str) -> None:
    push(machine, {"config_toml_base64": payload('model = "device"\n')})
    push(machine, {"config_toml_base64": empty}, user=ME)
    assert machine.load().config.model == "device"


def test_other_keys_of_the_domain_say_nothing(machine: Any) -> None:
    push(machine, {"something": 5, "config": [1]})
    assert [layer.name for layer in machine.load().layers] == ["defaults"]


def test_the_name_of_the_user_does_not_come_from_the_environment(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    push(machine, {"config_toml_base64": payload('model = "mine"\n')}, user=ME)
    for variable in ("USER", "LOGNAME", "USERNAME", "HOME"):
        monkeypatch.setenv(variable, "somebody")
    assert machine.load().config.model == "mine"


def test_white_space_and_wrapping_do_not_matter(machine: Any) -> None:
    text = payload('model = "m"\n' + "# filler\n" * 40)
    wrapped = "\r\n\t".join(text[at : at + 60] for at in range(0, len(text), 60))
    push(machine, {"config_toml_base64": f"\n  {wrapped} \n"})
    assert machine.load().config.model == "m"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (123, "#config_toml_base64: must be a string with base64 in it, not int"),
        (b"bytes", "#config_toml_base64: must be a string with base64 in it, not bytes"),
        ("!!!", "#config_toml_base64: not base64: "),
        ("YWJj=YWJj", "#config_toml_base64: not base64: "),
        (b64encode(b"\xff\xfe").decode(), "#config_toml_base64:1: not UTF-8 (byte 0xff)"),
        (payload("x = "), "#config_toml_base64:1:5: Invalid value"),
        (payload('\nsandbox_mode = "full"'), '#config_toml_base64:2:1: sandbox_mode: "full" is not allowed'),
        (payload("[sandbox_workspace_write]\nwritable_roots = ['rel']"), ": must be absolute here"),
    ],
)
def test_a_value_that_makes_no_sense_stops_the_run_with_one_line(machine: Any, value: object, says: str) -> None:
    path = push(machine, {"config_toml_base64": value})
    message = refusal(machine)
    assert message.startswith(f"{path}#config_toml_base64")
    assert says in message


@pytest.mark.parametrize(
    "content", [b"", b"not a property list", b"bplist00", b"bplist00" + b"\xff" * 40, b"<?xml version='1.0'?><plist>"]
)
def test_a_damaged_property_list_stops_the_run(machine: Any, content: bytes) -> None:
    path = push(machine, content)
    assert refusal(machine).startswith(f"{path}: not a property list: ")


def test_a_property_list_without_a_dictionary_stops_the_run(machine: Any) -> None:
    path = push(machine, ["a"])
    assert refusal(machine) == f"{path}: holds no dictionary"


def test_preferences_that_everybody_may_write_stop_the_run(machine: Any) -> None:
    path = push(machine, {"config_toml_base64": payload("")})
    machine.load()
    path.chmod(0o666)
    assert "everybody may write to it" in refusal(machine)


def test_constraints_of_every_scope_and_of_the_file_hold_together(machine: Any) -> None:
    push(machine, {"requirements_toml_base64": payload('allowed_approval_policies = ["untrusted", "on-request"]\n')})
    push(machine, {"requirements_toml_base64": payload('allowed_sandbox_modes = ["read-only"]\n')}, user=ME)
    machine.requirements('allowed_sandbox_modes = ["read-only", "workspace-write"]\nallow_network_access = false\n')
    check = machine.load().constraints.check
    assert check("sandbox_mode", "read-only") is None
    assert "allows" in str(check("sandbox_mode", "workspace-write"))
    assert "only device management may change that" in str(check("approval_policy", "never"))
    assert "only the administrator of this machine" in str(check("sandbox_workspace_write.network_access", value=True))


def test_an_empty_scope_loosens_no_constraint(machine: Any) -> None:
    push(machine, {"requirements_toml_base64": payload('allowed_sandbox_modes = ["read-only"]\n')})
    push(machine, {"requirements_toml_base64": ""}, user=ME)
    machine.requirements("")
    assert machine.load().constraints.check("sandbox_mode", "workspace-write") is not None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_payload_is_one_line_and_comes_back_as_it_was(text: str) -> None:
    encoded = mdm.encode_payload(text)
    assert "\n" not in encoded
    assert mdm.decode_payload(encoded, "here") == text.removeprefix("\ufeff")
