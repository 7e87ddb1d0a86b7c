"""The configurations that the documentation of the reference client shows load as they stand there."""

from __future__ import annotations

from typing import Any

import pytest
from codex_core.config.model import WebSearch
from codex_core.types import ApprovalMode, SandboxMode

NETWORK = """\
[sandbox_workspace_write]
network_access = true
"""
WEB_SEARCH = """\
[features]
web_search_request = true
"""
APPROVAL = """\
# ask always
approval_policy = "untrusted"
sandbox_mode    = "read-only"

# for workspace-write
[sandbox_workspace_write]
network_access = true
"""
PROFILES = """\
[profiles.full_auto]
approval_policy = "on-request"
sandbox_mode    = "workspace-write"

[profiles.readonly_quiet]
approval_policy = "never"
sandbox_mode    = "read-only"
"""
OTEL_OFF = """\
[otel]
environment = "staging"   # any name
exporter = "none"          # none | otlp-http | otlp-grpc
log_user_prompt = false     # prompts stay redacted
"""
OTEL_HTTP = """\
[otel]
exporter = { otlp-http = {
  endpoint = "https://otel.example.com/v1/logs",
  protocol = "binary",
  headers = { "x-otlp-api-key" = "${OTLP_TOKEN}" }
}}
"""
OTEL_GRPC = """\
[otel]
exporter = { otlp-grpc = {
  endpoint = "https://otel.example.com:4317",
  headers = { "x-otlp-meta" = "abc123" }
}}
"""
OTEL_TLS = """\
[otel.exporter."otlp-http"]
endpoint = "https://otel.example.com/v1/logs"
protocol = "binary"

[otel.exporter."otlp-http".headers]
"x-otlp-api-key" = "${OTLP_TOKEN}"

[otel.exporter."otlp-http".tls]
ca-certificate = "certs/otel-ca.pem"
client-certificate = "/etc/codex/certs/client.pem"
client-private-key = "/etc/codex/certs/client-key.pem"
"""
MANAGED = """\
# careful starting values
approval_policy = "on-request"
sandbox_mode    = "workspace-write"

[sandbox_workspace_write]
network_access = false             # closed unless it is allowed

[otel]
environment = "prod"
exporter = "otlp-http"            # the collector
log_user_prompt = false            # prompts stay redacted
# the details stand in the tables of the exporters
"""
REQUIREMENTS = """\
allowed_approval_policies = ["untrusted", "on-request", "on-failure"]
allowed_sandbox_modes = ["read-only", "workspace-write"]
"""
ENVIRONMENT = """\
[shell_environment_policy]
inherit = "core"
ignore_default_excludes = false
exclude = ["AWS_*", "AZURE_*"]
set = { CI = "1" }
include_only = ["PATH", "HOME"]
"""
PROVIDERS = """\
model = "o3"
model_provider = "azure"
model_reasoning_effort = "high"
model_reasoning_summary = "none"
model_verbosity = "low"

[model_providers.azure]
name = "Azure"
base_url = "https://example.openai.azure.com/openai"
env_key = "AZURE_OPENAI_API_KEY"
query_params = { api-version = "2025-04-01-preview" }
wire_api = "responses"
http_headers = { "X-Example-Header" = "example-value" }
env_http_headers = { "X-Example-Features" = "EXAMPLE_FEATURES" }
request_max_retries = 4
stream_max_retries = 10
stream_idle_timeout_ms = 300000
"""


def loaded(machine: Any, text: str, *words: Any) -> Any:
    machine.user(text)
    result = machine.load(*words)
    assert result.warnings == ()
    return result


def test_network_access(machine: Any) -> None:
    assert loaded(machine, NETWORK).config.sandbox_settings().network_access


def test_web_search(machine: Any) -> None:
    assert loaded(machine, WEB_SEARCH).config.web_search is WebSearch.LIVE


def test_approval_and_sandbox(machine: Any) -> None:
    config = loaded(machine, APPROVAL).config
    assert (config.approval_policy, config.sandbox_mode) == (ApprovalMode.UNTRUSTED, SandboxMode.READ_ONLY)


@pytest.mark.parametrize(
    ("profile", "approval", "mode"),
    [
        ("full_auto", ApprovalMode.ON_REQUEST, SandboxMode.WORKSPACE_WRITE),
        ("readonly_quiet", ApprovalMode.NEVER, SandboxMode.READ_ONLY),
    ],
)
def test_profiles(machine: Any, profile: str, approval: ApprovalMode, mode: SandboxMode) -> None:
    config = loaded(machine, PROFILES, f"profile={profile}").config
    assert (config.approval_policy, config.sandbox_mode) == (approval, mode)


def test_telemetry_that_is_off(machine: Any) -> None:
    otel = loaded(machine, OTEL_OFF).config.otel
    assert (otel.environment, otel.exporter, otel.log_user_prompt) == ("staging", "none", False)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (
            OTEL_HTTP,
            {
                "endpoint": "https://otel.example.com/v1/logs",
                "protocol": "binary",
                "headers": {"x-otlp-api-key": "abc"},
            },
        ),
        (OTEL_GRPC, {"endpoint": "https://otel.example.com:4317", "headers": {"x-otlp-meta": "abc123"}}),
    ],
)
def test_telemetry_by_inline_tables_of_several_lines(machine: Any, text: str, settings: dict[str, Any]) -> None:
    machine.environ["OTLP_TOKEN"] = "abc"
    assert loaded(machine, text).exporter_settings() == settings


def test_telemetry_with_certificates_beside_the_file(machine: Any) -> None:
    machine.environ["OTLP_TOKEN"] = "abc"
    assert loaded(machine, OTEL_TLS).exporter_settings()["tls"] == {
        "ca-certificate": f"{machine.codex_home}/certs/otel-ca.pem",
        "client-certificate": "/etc/codex/certs/client.pem",
        "client-private-key": "/etc/codex/certs/client-key.pem",
    }


def test_managed_values_beat_overrides_and_take_the_details_of_the_exporter_from_the_user(machine: Any) -> None:
    machine.managed(MANAGED)
    machine.environ["OTLP_TOKEN"] = "abc"
    result = loaded(machine, OTEL_HTTP, "approval_policy=never", "sandbox_workspace_write.network_access=true")
    assert result.config.approval_policy is ApprovalMode.ON_REQUEST
    assert not result.config.sandbox_settings().network_access
    assert result.config.otel.environment == "prod"
    assert result.exporter_settings()["endpoint"] == "https://otel.example.com/v1/logs"


def test_requirements(machine: Any) -> None:
    machine.requirements(REQUIREMENTS)
    constraints = machine.load().constraints
    assert constraints.check("approval_policy", "never") is not None
    assert constraints.check("sandbox_mode", "danger-full-access") is not None
    assert constraints.check("sandbox_mode", "workspace-write") is None


def test_the_environment_of_commands(machine: Any) -> None:
    settings = loaded(machine, ENVIRONMENT).config.environment_settings()
    assert (settings.inherit, settings.exclude, settings.set, settings.include_only) == (
        "core",
        ("AWS_*", "AZURE_*"),
        {"CI": "1"},
        ("PATH", "HOME"),
    )


def test_providers_of_models(machine: Any) -> None:
    config = loaded(machine, PROVIDERS).config
    assert config.model_providers[config.model_provider].query_params == {"api-version": "2025-04-01-preview"}
