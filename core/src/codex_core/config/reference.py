# ruff: noqa: E501 -- a row of a table cannot be broken
"""The reference page, docs/configuration.md, made from the models.

    python -m codex_core.config.reference > docs/configuration.md

A test compares the page with what this makes.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from codex_core.config.model import (
    BackendTable,
    Bytes,
    Config,
    ExporterTable,
    PluginTable,
    Requirements,
    RuleTable,
)
from codex_core.config.writing import toml
from codex_core.table import Table
from codex_core.types import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_INTRODUCTION = """\
# Configuration

<!-- Made by `python -m codex_core.config.reference > docs/configuration.md`; edit the models, not this page. -->

`codex config show` prints what holds in a folder, each value with the layer, file and line that says so;
`codex config show --effective` prints the defaults too. `codex config check` names every mistake, and
`codex config schema` gives editors the JSON Schema. Who manages the machines of others finds their side in
[administrators.md](administrators.md).

## Layers

Each layer lies over the ones above it in this table. Tables merge; everything else, arrays too, is replaced.

| layer | where |
|---|---|
| `defaults` | the defaults below; a version-controlled folder starts with `workspace-write`, any other with `read-only` |
| `user` | `$CODEX_HOME/config.toml`, by default `~/.codex/config.toml` |
| `profile` | the table of `profiles` that `profile` names |
| `overrides` | `-c key=value` on the command line, the later over the earlier |
| `flags` | `--sandbox`, `--ask-for-approval`, `--add-dir` and the like |
| `managed` | `/etc/codex/managed_config.toml`; on Windows `managed_config.toml` in `.codex` of the user's profile folder |
| `mdm` | macOS managed preferences: `config_toml_base64` of `com.openai.codex` |
| `session` | what was chosen inside a session, such as with `/approvals`; gone when it ends |
| `requirements` | what a constraint puts in the place of a value that it does not allow |

The files are TOML 1.1: inline tables may go over several lines. Relative paths and `~` start at the folder of the
file that names them, and on the command line at the working directory. A key that is not known is a warning, and an
error with `--strict-config`; a wrong value is an error that names file, line and column.

`-c key=value` takes a key as TOML writes it (`projects."/a.b".trust_level`) and a value that is TOML, or else text.
`codex config set KEY VALUE` writes the same into the user's file and keeps its comments; `codex config unset KEY` takes
it out again.

## Keys
"""

_PLUGIN_TABLES = """\
### `[sandbox_<backend>]`

{backend}

{backend_keys}

### `[otel.<exporter>]`

{exporter} The same table may stand in `[otel.exporter.<exporter>]`, or inline: `exporter = {{ <exporter> = {{ ... }} }}`.
A layer above may choose an exporter by its bare name and leave the details to a layer below.

{exporter_keys}

#### `[otel.<exporter>.tls]`

{tls}

{tls_keys}

### `[plugins.<name>]`

{plugin} What each plugin knows, its own documentation says, and `codex config schema` where it is chosen.
"""

_REQUIREMENTS = """\
## Constraints

The keys of `requirements.toml`, which only an administrator writes, beside the managed file or as
`requirements_toml_base64` of `com.openai.codex`. They bind every layer, every flag and every change in a session. With
several files a value has to be allowed by all of them. A key that is not known stops the start.

{keys}

### `[[rules]]`

{rule}

{rule_keys}
"""


def page() -> str:
    """Give the reference page."""
    exporter_fields = ExporterTable.model_fields
    tls = next(_tables(exporter_fields["tls"].annotation))
    parts = [
        _INTRODUCTION,
        _keys(Config) + "\n",
        *_sections(Config, ""),
        _PLUGIN_TABLES.format(
            backend=_sentence(BackendTable),
            backend_keys=_keys(BackendTable),
            exporter=_sentence(ExporterTable),
            exporter_keys=_keys(ExporterTable),
            tls=_sentence(tls),
            tls_keys=_keys(tls),
            plugin=_sentence(PluginTable),
        ),
        _REQUIREMENTS.format(keys=_keys(Requirements), rule=_sentence(RuleTable), rule_keys=_keys(RuleTable)),
    ]
    return "\n".join(parts)


def _sections(model: type[Table], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        for table in _tables(field.annotation):
            each = "" if _is_table(field.annotation) else ".<name>"
            path = f"{prefix}{name}{each}"
            yield f"### `[{path}]`\n\n{_sentence(table)}\n\n{_keys(table)}\n"
            yield from _sections(table, f"{path}.")


def _keys(model: type[Table]) -> str:
    rows = [
        f"| `{field.alias or name}` | {_type(field)} | {_default(field)} | {field.description} |"
        for name, field in model.model_fields.items()
        if not _is_table(field.annotation)
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) if rows else ""


def _sentence(model: type[Table]) -> str:
    return " ".join((model.__doc__ or "").replace("``", "`").split())


def _type(field: FieldInfo) -> str:
    return _described(field.annotation).replace("|", "\\|")


def _described(annotation: Any) -> str:  # noqa: ANN401 - annotations have no type of their own
    if isinstance(annotation, type):
        return _plain_type(annotation)
    if annotation == Bytes:
        return "integer, or text such as `512M`"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(_described(one) for one in arguments if one is not type(None))
    container = {tuple: "array of: ", dict: "table of: ", Annotated: ""}[origin]
    return container + _described(arguments[1 if origin is dict else 0])


def _plain_type(kind: type) -> str:
    if kind is Promise:
        return "[promises](security.md#what-each-promise-means)"
    if issubclass(kind, StrEnum):
        return ", ".join(f"`{value}`" for value in kind)
    if issubclass(kind, Table):
        return "tables, see below"
    return {bool: "true or false", str: "text", int: "integer", float: "number"}[kind]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    return "" if default is None or default == {} else f"`{toml(default)}`"


def _tables(annotation: Any) -> Iterator[type[Table]]:  # noqa: ANN401 - as above
    """Find the tables of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    elif get_origin(annotation) is dict:
        yield from _tables(get_args(annotation)[1])
    elif get_origin(annotation) in {Union, UnionType, Annotated}:
        for argument in get_args(annotation):
            yield from _tables(argument)


def _is_table(annotation: Any) -> bool:  # noqa: ANN401 - as above
    """Say whether a field is a single table, which has a section instead of a row."""
    return get_origin(annotation) is not dict and any(_tables(annotation))


if __name__ == "__main__":
    sys.stdout.write(page())
