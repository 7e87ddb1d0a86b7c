"""The configuration as frozen pydantic models: every key, its type, its default, what it means.

The reference page (docs/configuration.md) and the JSON Schema are made from these models, so the
descriptions are written for users.  Plugins own three kinds of table: ``[sandbox_<backend>]``,
``[otel.<exporter>]``, and ``[plugins.<name>]``; core knows the keys in them that it acts on itself, and the
others are checked against the model that the plugin brings.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from codex_core.table import Table, build
from codex_core.types import ApprovalMode, Limits, Promise, ProtectGit, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codex_core.sandbox.environment import EnvironmentSettings
    from codex_core.sandbox.policy import SandboxSettings


class WebSearch(StrEnum):
    """How the model's server may search the web for the model."""

    DISABLED = "disabled"
    CACHED = "cached"
    INDEXED = "indexed"
    LIVE = "live"


class TrustLevel(StrEnum):
    """How far the user trusts what is in a folder."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Inherit(StrEnum):
    """Which variables a command starts from."""

    ALL = "all"
    CORE = "core"
    NONE = "none"


class OtlpProtocol(StrEnum):
    """How records are encoded over HTTP."""

    BINARY = "binary"
    JSON = "json"


class WireApi(StrEnum):
    """What a model server speaks."""

    RESPONSES = "responses"
    CHAT = "chat"


class ReasoningEffort(StrEnum):
    """How long the model may think."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


class ReasoningSummary(StrEnum):
    """How much of its thinking the model shows."""

    AUTO = "auto"
    CONCISE = "concise"
    DETAILED = "detailed"
    NONE = "none"


class Verbosity(StrEnum):
    """How long the model's answers are."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


EXPORTERS = ("none", "otlp-http", "otlp-grpc")
"""The exporters that come with this project; plugins bring others."""
GATES = ("web_search",)
"""The tools that a gate of this project speaks for; such a gate need not be chosen."""

# TOML has neither enumerations nor tuples: such fields read strings and arrays, all others are strict.
_LAX = Field(strict=False)
Strings = Annotated[tuple[str, ...], _LAX]


def _domain(text: str) -> str:
    from codex_core.sandbox.domains import parse_pattern

    try:
        parse_pattern(text)
    except ValueError as error:
        raise PydanticCustomError("domain", "{why}", {"why": str(error)}) from None
    return text


Domains = Annotated[tuple[Annotated[str, AfterValidator(_domain)], ...], _LAX]


class WorkspaceWrite(Table):
    """What the mode ``workspace-write`` allows; without effect in the other modes."""

    writable_roots: Strings = Field(
        default=(),
        description="Folders that commands may write to, besides the working directory. Relative paths and `~` "
        "start at the folder of the file that names them, on the command line at the working directory.",
    )
    network_access: bool = Field(default=False, description="Whether commands may reach the network.")
    allowed_domains: Domains = Field(
        default=(),
        description="The only hosts that commands may reach; `network_access` is not needed for them. A name, "
        "`*.example.com` for all names below one, `*` for every name, an address or a network such as `192.0.2.0/24`, "
        "each with `:PORT` if only that port is meant. A name that leads to a private address is refused unless the "
        "address is listed too; `localhost` stands for this machine.",
    )
    denied_domains: Domains = Field(
        default=(),
        description="Hosts that commands may not reach although `allowed_domains` or `network_access` would let them, "
        "in the same form.",
    )
    allowed_unix_sockets: Strings = Field(
        default=(),
        description="Sockets of other programs that commands may connect to, by path, whatever the network. Whoever "
        "may reach the socket of a container engine, for one, can do everything on this machine.",
    )
    exclude_tmpdir_env_var: bool = Field(
        default=False, description="Whether the folder that `$TMPDIR` names stays closed."
    )
    exclude_slash_tmp: bool = Field(default=False, description="Whether `/tmp` stays closed.")
    protect_git: Annotated[ProtectGit, _LAX] = Field(
        default=ProtectGit.ALL,
        description="What of a git repository is closed inside a writable folder: everything, or only what git runs "
        "programs from (`hooks`: configuration, hooks, attributes, submodules), so that commits work.",
    )


def _bytes(value: object) -> object:
    """Read ``"512M"`` as a number of bytes; what is no such text is left to be judged as it is."""
    if isinstance(value, str) and value[:-1].isdecimal() and value[-1:] in _UNITS:
        return int(value[:-1]) * _UNITS[value[-1]]
    return value


_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(ge=1)]


class LimitsTable(Table):
    """What one command, with all that it starts, may use up. Sizes are bytes, or text such as `"512M"`."""

    wall_time: float | None = Field(default=None, gt=0, description="Seconds until it is ended.")
    cpu_time: float | None = Field(
        default=None, gt=0, description="Seconds of processor time, of all processes together."
    )
    memory: Bytes | None = Field(default=None, description="Memory that is not files, of all processes together.")
    processes: int | None = Field(default=None, ge=1, description="Processes and threads at the same time.")
    open_files: int | None = Field(default=None, ge=64, description="Open files of each process.")
    file_size: Bytes | None = Field(default=None, description="Size of each file that is written.")
    output_size: Bytes | None = Field(
        default=None, description="Output, where it is captured; elsewhere a warning says that it is not kept."
    )


class BackendTable(Table):
    """Settings of one sandbox backend; the backend checks those that are not listed here."""

    model_config = ConfigDict(extra="allow")

    allow_degraded: tuple[Annotated[Promise, _LAX], ...] = Field(
        default=(),
        strict=False,
        description="Promises of the sandbox that may be lost on a host that cannot keep them. "
        "Without this a run on such a host is refused.",
    )


class EnvironmentPolicy(Table):
    """Which environment variables commands get.  Patterns know `*` and `?` and ignore case."""

    inherit: Annotated[Inherit, _LAX] = Field(
        default=Inherit.ALL,
        description="Start from all variables, from the core ones such as `PATH` and `HOME`, or from none.",
    )
    ignore_default_excludes: bool = Field(
        default=False, description="Whether variables named like `*KEY*`, `*SECRET*` and `*TOKEN*` are kept."
    )
    exclude: Strings = Field(default=(), description="Patterns of names to leave out.")
    set: dict[str, str] = Field(default={}, description="Variables to set.")
    include_only: Strings = Field(
        default=(), description="Where not empty, only names that match one of these patterns stay."
    )


class Features(Table):
    """Switches."""

    web_search_request: bool = Field(
        default=False, description='Whether the model may ask its server to search the web (as `web_search = "live"`).'
    )


class AskAbout(Table):
    """Which questions may be asked at all.  The answer to one that is switched off is no."""

    commands: bool = Field(default=True, description="Commands that the approval policy asks about.")
    escalation: bool = Field(
        default=True, description="Leaving the sandbox, whether the model asks for it or the sandbox stopped a command."
    )
    rules: bool = Field(default=True, description="What a rule asks about.")
    patches: bool = Field(default=True, description="Changes of files by a patch.")
    network: bool = Field(default=True, description="Hosts that the lists of domains and the rules do not open.")
    timeout: float | None = Field(
        default=None, gt=0, description="Seconds on the terminal after which the answer is no; without it, none."
    )


class Tools(Table):
    """An older place of switches."""

    web_search: bool | None = Field(
        default=None, description="Another spelling of `features.web_search_request`; deprecated."
    )


class Project(Table):
    """What is known about one folder."""

    trust_level: Annotated[TrustLevel, _LAX] | None = Field(
        default=None,
        description="Where nothing else chooses: `trusted` starts with workspace-write and on-request, "
        "`untrusted` with read-only and untrusted.",
    )


class PluginTable(Table):
    """Settings of one plugin that is neither a backend nor an exporter; the plugin checks them."""

    model_config = ConfigDict(extra="allow")


class Plugins(Table):
    """Which installed plugins take part, by the name of their entry point."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, PluginTable] = Field(init=False)

    approval_policies: Strings = Field(
        default=(),
        description="Approval policies that are asked besides `approval_policy`; the strictest verdict wins.",
    )
    tool_gates: Strings = Field(default=(), description="Gates that decide whether a tool is offered.")
    observers: Strings = Field(default=(), description="Observers that see every event.")
    config_sources: Strings = Field(
        default=(), description="Further sources of configuration. Only managed configuration may name them."
    )


class Tls(Table):
    """Certificates for the connection to a collector, as PEM files."""

    ca_certificate: str | None = Field(default=None, alias="ca-certificate", description="Whom to trust.")
    client_certificate: str | None = Field(default=None, alias="client-certificate", description="Who we are.")
    client_private_key: str | None = Field(default=None, alias="client-private-key", description="The key to it.")


class ExporterTable(Table):
    """Settings of one exporter; the exporter checks those that are not listed here."""

    model_config = ConfigDict(extra="allow")

    endpoint: str | None = Field(default=None, description="Where to send, used as it stands.")
    protocol: Annotated[OtlpProtocol, _LAX] | None = Field(
        default=None, description="Encoding of `otlp-http`; binary if unset."
    )
    headers: dict[str, str] = Field(
        default={}, description="Headers to send. `${VAR}` stands for an environment variable, which must be set."
    )
    tls: Tls | None = Field(default=None, description="Certificates.")


class Otel(Table):
    """Telemetry: what is sent, and where."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ExporterTable] = Field(init=False)

    environment: str = Field(default="dev", description="The attribute `env` of every record.")
    exporter: str = Field(
        default="none",
        description="Which exporter sends: `none`, `otlp-http`, `otlp-grpc`, or one that a plugin brings. Its settings "
        "stand in `[otel.NAME]`, in `[otel.exporter.NAME]`, or in an inline table: `exporter = { NAME = { ... } }`.",
    )
    log_user_prompt: bool = Field(default=False, description="Whether the text of prompts is sent.")

    def exporter_table(self, name: str) -> ExporterTable:
        """Give the settings of one exporter; empty where nothing sets them."""
        return (self.__pydantic_extra__ or {}).get(name) or ExporterTable()


class ModelProvider(Table):
    """A server that speaks for models."""

    name: str | None = Field(default=None, description="What people call it.")
    base_url: str | None = Field(default=None, description="The address that `/responses` is appended to.")
    env_key: str | None = Field(default=None, description="The environment variable that holds the key.")
    env_key_instructions: str | None = Field(default=None, description="How to get a key, for who has none.")
    wire_api: Annotated[WireApi, _LAX] = Field(default=WireApi.RESPONSES, description="What the server speaks.")
    query_params: dict[str, str] = Field(default={}, description="Parameters to append to the address.")
    http_headers: dict[str, str] = Field(default={}, description="Headers to send.")
    env_http_headers: dict[str, str] = Field(default={}, description="Headers whose values are environment variables.")
    request_max_retries: int = Field(default=4, ge=0, le=100, description="How often a failed request is repeated.")
    stream_max_retries: int = Field(default=5, ge=0, le=100, description="How often a broken stream is taken up again.")
    stream_idle_timeout_ms: int = Field(
        default=300_000, ge=1, description="Silence after which a stream counts as broken."
    )
    requires_openai_auth: bool = Field(
        default=False, description="Whether the provider wants the login of the service."
    )
    web_search: bool | None = Field(
        default=None,
        description="Whether the server has a tool that searches the web; where it is not said, only the built-in "
        "provider is taken to have one.",
    )


class Profile(Table):
    """Values that `profile` chooses together."""

    model: str | None = Field(default=None, description="As the key of the same name.")
    model_provider: str | None = Field(default=None, description="As the key of the same name.")
    model_reasoning_effort: Annotated[ReasoningEffort, _LAX] | None = Field(
        default=None, description="As the key of the same name."
    )
    model_reasoning_summary: Annotated[ReasoningSummary, _LAX] | None = Field(
        default=None, description="As the key of the same name."
    )
    model_verbosity: Annotated[Verbosity, _LAX] | None = Field(default=None, description="As the key of the same name.")
    approval_policy: Annotated[ApprovalMode, _LAX] | None = Field(
        default=None, description="As the key of the same name."
    )
    sandbox_mode: Annotated[SandboxMode, _LAX] | None = Field(default=None, description="As the key of the same name.")
    web_search: Annotated[WebSearch, _LAX] | None = Field(default=None, description="As the key of the same name.")
    features: Features = Field(default={}, validate_default=True, description="As the table of the same name.")


class Config(Table):
    """Everything that can be configured."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, BackendTable] = Field(init=False)

    sandbox_mode: Annotated[SandboxMode, _LAX] = Field(
        default=SandboxMode.READ_ONLY,
        description="How far a command may reach. Where nothing sets it, a version-controlled folder gets "
        "`workspace-write`, any other `read-only`.",
    )
    approval_policy: Annotated[ApprovalMode, _LAX] = Field(
        default=ApprovalMode.ON_REQUEST, description="When a person is asked."
    )
    ask_about: AskAbout = Field(default={}, validate_default=True, description="Which questions may be asked at all.")
    sandbox_workspace_write: WorkspaceWrite = Field(
        default={}, validate_default=True, description="The mode `workspace-write`."
    )
    limits: LimitsTable = Field(default={}, validate_default=True, description="What a command may use up.")
    sandbox_backend: str = Field(
        default="",
        description="Entry-point name of the backend that confines; where empty, that of the operating system.",
    )
    shell_environment_policy: EnvironmentPolicy = Field(
        default={}, validate_default=True, description="The environment of commands."
    )
    web_search: Annotated[WebSearch, _LAX] = Field(
        default=WebSearch.DISABLED,
        description="Whether and how the model's server may search the web: `cached` and `indexed` from what it has, "
        "`live` from the network. Another spelling of `features.web_search_request`, which is `live`.",
    )
    features: Features = Field(default={}, validate_default=True, description="Switches.")
    tools: Tools = Field(default={}, validate_default=True, description="An older place of switches.")
    projects: dict[str, Project] = Field(default={}, description="What is known about folders, by absolute path.")
    plugins: Plugins = Field(default={}, validate_default=True, description="Which installed plugins take part.")
    otel: Otel = Field(default={}, validate_default=True, description="Telemetry.")
    model: str | None = Field(default=None, description="The model; the provider's own default where unset.")
    model_provider: str = Field(default="openai", description="Which of `model_providers` to ask.")
    model_providers: dict[str, ModelProvider] = Field(default={}, description="Servers that speak for models, by name.")
    model_reasoning_effort: Annotated[ReasoningEffort, _LAX] | None = Field(
        default=None, description="How long the model may think."
    )
    model_reasoning_summary: Annotated[ReasoningSummary, _LAX] | None = Field(
        default=None, description="How much of its thinking the model shows."
    )
    model_verbosity: Annotated[Verbosity, _LAX] | None = Field(default=None, description="How long its answers are.")
    model_context_window: int | None = Field(
        default=None, ge=1, description="Tokens that the model can take in; what is known of it where unset."
    )
    profile: str | None = Field(default=None, description="Which of `profiles` to use.")
    profiles: dict[str, Profile] = Field(default={}, description="Sets of values that are chosen together, by name.")

    @property
    def backend_tables(self) -> dict[str, BackendTable]:
        """Every ``[sandbox_<name>]`` by its name."""
        return {key.removeprefix("sandbox_"): table for key, table in (self.__pydantic_extra__ or {}).items()}

    def backend_table(self, name: str) -> BackendTable:
        """Give ``[sandbox_<name>]``; empty where nothing sets it."""
        return self.backend_tables.get(name) or BackendTable()

    def sandbox_settings(self) -> SandboxSettings:
        """Give what a sandbox policy is built from; paths are absolute."""
        from codex_core.config.defaults import os_backend
        from codex_core.sandbox.policy import SandboxSettings

        workspace = self.sandbox_workspace_write
        return SandboxSettings(
            mode=self.sandbox_mode,
            writable_roots=workspace.writable_roots,
            network_access=workspace.network_access,
            allowed_domains=workspace.allowed_domains,
            denied_domains=workspace.denied_domains,
            allowed_unix_sockets=workspace.allowed_unix_sockets,
            exclude_slash_tmp=workspace.exclude_slash_tmp,
            exclude_tmpdir_env_var=workspace.exclude_tmpdir_env_var,
            protect_git=workspace.protect_git,
            limits=Limits(**dict(self.limits)),
            allow_degraded=tuple(
                str(one) for one in self.backend_table(self.sandbox_backend or os_backend()).allow_degraded
            ),
            backend=self.sandbox_backend,
        )

    def environment_settings(self) -> EnvironmentSettings:
        """Give what the environment of commands is built from."""
        from codex_core.sandbox.environment import EnvironmentSettings

        policy = self.shell_environment_policy
        return EnvironmentSettings(
            inherit=str(policy.inherit),
            ignore_default_excludes=policy.ignore_default_excludes,
            exclude=policy.exclude,
            set=policy.set,
            include_only=policy.include_only,
        )


def is_plugin_table(path: Sequence[str]) -> bool:
    """Say whether a key path is where a plugin has its table.

    That is ``sandbox_<backend>``, ``otel.<exporter>``, or ``plugins.<name>`` for all others.
    """
    match path:
        case [key]:
            return key.startswith("sandbox_") and key not in Config.model_fields
        case ["otel", key]:
            return key not in Otel.model_fields
        case ["plugins", key]:
            return key not in Plugins.model_fields
    return False


class RuleTable(Table):
    """Commands that nobody may run, or only after a question, whatever any other rule says."""

    prefix: tuple[str | Strings, ...] = Field(
        strict=False, min_length=1, description="The first words of the command; an array in it gives alternatives."
    )
    decision: Literal["prompt", "forbid"] = Field(description="Ask a person, or refuse.")
    reason: str = Field(default="", description="Why; shown to who is refused.")


class Requirements(Table):
    """The keys of ``requirements.toml``.  What is not there is not constrained."""

    allowed_sandbox_modes: tuple[Annotated[SandboxMode, _LAX], ...] | None = Field(
        default=None, strict=False, description="Which `sandbox_mode` may be chosen."
    )
    allowed_approval_policies: tuple[Annotated[ApprovalMode, _LAX], ...] | None = Field(
        default=None, strict=False, description="Which `approval_policy` may be chosen."
    )
    allowed_questions: tuple[Literal["commands", "escalation", "rules", "patches", "network"], ...] | None = Field(
        default=None, strict=False, description="Which keys of `ask_about` may be true."
    )
    allowed_web_search_modes: tuple[Annotated[WebSearch, _LAX], ...] | None = Field(
        default=None, strict=False, description="Which `web_search` may be chosen; `disabled` always may."
    )
    allowed_exporters: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="Which `otel.exporter` may be chosen. Leave out `none` to make telemetry mandatory.",
    )
    allowed_plugins: tuple[str, ...] | None = Field(
        default=None, strict=False, description="Distributions that plugins may come from, by name."
    )
    allowed_domains: Domains | None = Field(
        default=None,
        description="What `sandbox_workspace_write.allowed_domains` may list, in the same form; "
        "the unrestricted network is not allowed then.",
    )
    allow_network_access: bool | None = Field(
        default=None, description="Where false, commands may not reach the network in any mode."
    )
    minimum_strength: tuple[Annotated[Promise, _LAX], ...] = Field(
        default=(), strict=False, description="Promises that the sandbox has to keep; a run without them is refused."
    )
    rules: tuple[RuleTable, ...] = Field(default=(), strict=False, description="Commands that are restricted.")


for _model in (Config, BackendTable, ExporterTable, PluginTable, Requirements):
    build(_model)
