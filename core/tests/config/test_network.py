"""The keys of the network: what they accept, where a mistake is shown, and what constraints make of them."""

from __future__ import annotations

from typing import Any

import pytest
from codex_core.errors import ConfigError


def test_domains_and_sockets_reach_the_settings(machine: Any) -> None:
    machine.user(
        "[sandbox_workspace_write]\n"
        'allowed_domains = ["*.example.com:443", "192.0.2.0/24"]\n'
        'denied_domains = ["evil.example.com"]\n'
        'allowed_unix_sockets = ["~/agent", "/run/docker.sock"]\n'
    )
    settings = machine.load().config.sandbox_settings()
    assert settings.allowed_domains == ("*.example.com:443", "192.0.2.0/24")
    assert settings.denied_domains == ("evil.example.com",)
    assert settings.allowed_unix_sockets == (f"{machine.home}/agent", "/run/docker.sock")
    assert machine.quick() is None, "the cold path leaves these keys to the full one"


@pytest.mark.parametrize("key", ["allowed_domains", "denied_domains"])
def test_a_mistake_in_a_list_is_shown_where_it_stands(machine: Any, key: str) -> None:
    machine.user(f'[sandbox_workspace_write]\n{key} = [\n  "example.com",\n  "https://example.com/",\n]\n')
    with pytest.raises(ConfigError) as caught:
        machine.load()
    said = str(caught.value)
    assert said.startswith(f"{machine.user_file}:4:3: sandbox_workspace_write.{key}")
    assert "without a scheme and a path" in said
    assert "\n" not in said


def test_a_constraint_takes_out_the_domains_that_it_does_not_allow(machine: Any) -> None:
    machine.requirements('allowed_domains = ["*.example.com:443"]\n')
    machine.user(
        "[sandbox_workspace_write]\n"
        'allowed_domains = ["a.example.com:443", "*", "b.example.com", "*.x.example.com:443"]\n'
    )
    loaded = machine.load()
    assert loaded.config.sandbox_workspace_write.allowed_domains == ("a.example.com:443", "*.x.example.com:443")
    assert len(loaded.warnings) == 1


def test_no_network_means_no_domains_either(machine: Any) -> None:
    machine.requirements("allow_network_access = false\n")
    machine.user('[sandbox_workspace_write]\nallowed_domains = ["example.com"]\n')
    assert machine.load().config.sandbox_workspace_write.allowed_domains == ()
