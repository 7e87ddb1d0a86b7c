"""``codex config``: show, check and edit the configuration."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from codex_core.cli import options
from codex_core.config import checks, load_config, mdm, sources
from codex_core.config.files import decode, read_file, write_file
from codex_core.config.keys import dotted, visible
from codex_core.config.layers import find, givers
from codex_core.config.model import Config
from codex_core.config.overrides import parse_key, parse_value
from codex_core.config.spelling import canonical, canonical_path
from codex_core.config.writing import masked, toml
from codex_core.errors import CodexError, ConfigError, PluginError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from codex_core.config import Layer, Loaded, Origin
    from codex_core.config.report import Drift, Entry
    from codex_core.table import Table

T = TypeVar("T")

_TEXT = """\
Show, check and edit the configuration.

  show                 what holds, and which layer, file and line says so
      --effective      defaults too
      --origins        also what each value overrode
      --layer NAME     what one layer says: defaults, user, overrides, flags, managed, mdm, ...
  get KEY              the value that holds; 1 if nothing sets it
  set KEY VALUE        write a value into the user's file; VALUE is TOML, or else text
  unset KEY            take a value out of the user's file
  check [FILE]         say everything that is wrong with FILE, or with all files and the settings of
                       the plugins that they choose; 1 if anything is
      --as KIND        take FILE for a user, managed or requirements file (by default by its name)
  audit                what the user's file says against managed values and constraints; 1 if anything
  schema [KIND]        JSON Schema, for editors: of config.toml, with the tables of chosen plugins, or of
                       requirements
  path                 where the user's file is; with --all every file, and whether it is there

Values are shown as TOML, with --json as JSON."""

_OWN = (("--json", "print JSON"),)
_FLAGS = ("--json", "--effective", "--origins", "--all", "--help", "-h")
_VALUED = ("--layer", "--as")
_KINDS = {"config.toml": "user", "managed_config.toml": "managed", "requirements.toml": "requirements"}
_OF_COMMAND = {
    "show": {"--json", "--effective", "--origins", "--layer"},
    "get": {"--json"},
    "set": set[str](),
    "unset": set[str](),
    "check": {"--json", "--as"},
    "audit": {"--json"},
    "schema": set[str](),
    "path": {"--json", "--all"},
}


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a subcommand of ``codex config``."""

    asked: options.Given
    chosen: dict[str, str]
    """The options that do not concern a run, with their values."""
    words: tuple[str, ...]
    context: sources.ConfigContext

    def has(self, flag: str) -> bool:
        return flag in self.chosen

    def load(self) -> Loaded:
        return load_config(
            cwd=self.context.cwd,
            overrides=self.asked.overrides,
            environ=self.context.environ,
            system_root=self.context.system_root,
            strict=self.asked.strict,
        )

    def expect(self, count: int, synopsis: str) -> None:
        if len(self.words) != count:
            raise UsageError(f"say `codex config {synopsis}`")


def main(argv: Sequence[str], *, system_root: str = "/") -> int:
    """Run ``codex config``; *system_root* stands for ``/`` in tests."""
    pairs, chosen, words = _taken_apart(argv)
    if {"--help", "-h"} & chosen.keys():
        sys.stdout.write(options.usage("codex config SUBCOMMAND [options]", _TEXT, _OWN))
        return 0
    name = words[0] if words else ""
    if name not in _COMMANDS:
        raise UsageError(f"say `codex config` with one of: {', '.join(_COMMANDS)}")
    foreign = chosen.keys() - _OF_COMMAND[name]
    if foreign:
        raise UsageError(f"`codex config {name}` has no option {min(foreign)}")
    asked = options.given(pairs)
    context = sources.ConfigContext(sources.codex_home(os.environ), asked.cwd, os.environ, system_root)
    return _COMMANDS[name](_Call(asked, chosen, tuple(words[1:]), context))


def _taken_apart(argv: Sequence[str]) -> tuple[list[tuple[str, str]], dict[str, str], list[str]]:
    """Take options from everywhere before ``--``."""
    pairs: list[tuple[str, str]] = []
    chosen: dict[str, str] = {}
    words: list[str] = []
    rest: Sequence[str] = argv
    while True:
        parsed = options.parse(rest, flags=_FLAGS, valued=_VALUED)
        pairs += parsed.pairs
        chosen |= parsed.others
        if parsed.separated or not parsed.rest:
            return pairs, chosen, [*words, *parsed.rest]
        words.append(parsed.rest[0])
        rest = parsed.rest[1:]


# show and get


def _show(call: _Call) -> int:
    from codex_core.config.report import constraints, entries, management_note

    call.expect(0, "show [--effective] [--origins] [--layer NAME] [--json]")
    loaded = call.load()
    _warn(loaded.warnings)
    if call.has("--layer"):
        _print(_layer_lines(loaded, call.chosen["--layer"], as_json=call.has("--json")))
        return 0
    shown = entries(loaded, defaults=call.has("--effective"))
    if call.has("--json"):
        _print_json(
            {
                "codex_home": loaded.codex_home,
                "layers": [{"name": one.name, "precedence": one.precedence, "path": one.path} for one in loaded.layers],
                "values": {one.key: _entry_as_dict(one) for one in shown},
                "constraints": [_constraint_as_dict(*one) for one in constraints(loaded)],
                "warnings": loaded.warnings,
            }
        )
        return 0
    for entry in shown:
        note = "constrained by" if entry.constrained else entry.origin.layer
        _print([f"{entry.key} = {toml(masked(entry.path, entry.value))}  # {_place(note, entry.origin)}"])
        for said in entry.overrode if call.has("--origins") or entry.constrained else ():
            value = toml(masked(entry.path, said.value))
            _print([f"#   instead of {value} from {_place(said.origin.layer, said.origin)}"])
    _print(f"# constraint {constraint}  # {place}" for constraint, place in constraints(loaded))
    _print(management_note(loaded))
    return 0


def _layer_lines(loaded: Loaded, name: str, *, as_json: bool) -> list[str]:
    import json

    from codex_core.config.layers import leaves, origin

    layers = [layer for layer in loaded.layers if layer.name == name]
    if not layers:
        names = ", ".join(dict.fromkeys(layer.name for layer in loaded.layers))
        raise ConfigError(f"there is no layer {name!r}; there are: {names}")
    found = [(layer, path, value) for layer in layers for path, value in leaves(layer.values)]
    if as_json:
        return [json.dumps({dotted(path): masked(path, value) for _, path, value in found}, indent=2, default=str)]
    return [
        f"{dotted(path)} = {toml(masked(path, value))}  # {_place(layer.name, origin(layer, path))}"
        for layer, path, value in found
    ]


def _constraint_as_dict(text: str, place: str) -> dict[str, str]:
    return {"constraint": text, "place": place}


def _entry_as_dict(entry: Entry) -> dict[str, Any]:
    return {
        "value": masked(entry.path, entry.value),
        "origin": _origin_as_dict(entry.origin),
        "constrained": entry.constrained,
        "overrode": [
            {"value": masked(entry.path, said.value), "origin": _origin_as_dict(said.origin)} for said in entry.overrode
        ],
    }


def _origin_as_dict(origin: Origin) -> dict[str, Any]:
    return {"layer": origin.layer, "path": origin.path, "line": origin.line, "column": origin.column}


def _place(layer: str, origin: Origin) -> str:
    if origin.path is None:
        return layer
    line = "" if origin.line is None else f":{origin.line}"
    return f"{layer} {visible(origin.path)}{line}"


def _get(call: _Call) -> int:
    from codex_core.config.report import effective_values

    call.expect(1, "get KEY")
    path = canonical_path(parse_key(call.words[0]))
    loaded = call.load()
    found, value = find(loaded.values, path)
    if not found:
        found, value = find(effective_values(loaded.config), path)
    if not found:
        _refuse_unknown(path)
        return 1
    if call.has("--json"):
        _print_json(value)
    elif isinstance(value, dict):
        from codex_core.config.layers import leaves

        _print(f"{dotted(key)} = {toml(one)}" for key, one in leaves(value))
    else:
        _print([str(value) if isinstance(value, str) else toml(value)])
    return 0


def _refuse_unknown(path: Sequence[str]) -> None:
    """Raise ConfigError for a key that no model knows."""
    unknown = checks.unknown_path(path)
    if unknown is not None:
        guess = f"; did you mean {dotted((*unknown.path[:-1], unknown.nearest))}?" if unknown.nearest else ""
        raise ConfigError(f"unknown key {dotted(unknown.path)}{guess}")


# set and unset


def _set(call: _Call) -> int:
    from codex_core.config.edit import with_value

    call.expect(2, "set KEY VALUE")
    path, value = parse_key(call.words[0]), parse_value(call.words[1])
    _refuse_unknown(canonical_path(path))
    violation = call.load().constraints.check(dotted(canonical_path(path)), value)
    if violation is not None:
        raise ConfigError(str(violation))
    return _edit(call, path, lambda text, where: with_value(text, path, value, where))


def _unset(call: _Call) -> int:
    from codex_core.config.edit import without_value

    call.expect(1, "unset KEY")
    path = parse_key(call.words[0])
    return _edit(call, path, lambda text, where: without_value(text, path, where))


def _edit(call: _Call, path: tuple[str, ...], change: Callable[[str, str], str]) -> int:
    """Change the user's file, if what comes of it loads; say so where another layer has the last word."""
    file = os.path.join(call.context.codex_home, sources.USER_FILE)
    before = read_file(file)
    text = decode(before or b"", file)
    edited = change(text, visible(file))
    layer = sources.text_layer("user", sources.USER, edited, file)
    checks.validate(_clean(layer, call.context), Config)
    bom = "\ufeff" if (before or b"").startswith(b"\xef\xbb\xbf") else ""
    write_file(file, bom + edited, before)
    loaded = call.load()
    path = canonical_path(path)
    winner = next(iter(givers(loaded.layers, path)), None)
    if winner is not None and winner.precedence > sources.USER:
        value = toml(masked(path, find(winner.values, path)[1]))
        _note(f"{winner.place(path)} ({winner.name}) has the last word: {value}")
    return 0


def _clean(layer: Layer, context: sources.ConfigContext) -> Layer:
    folder = os.path.dirname(layer.path) if layer.path else None
    return checks.without_unknown(canonical(layer, folder=folder, environ=context.environ))[0]


# check and audit


def _check(call: _Call) -> int:
    if len(call.words) > 1:
        raise UsageError("say `codex config check [FILE]`")
    problems = _file_problems(call) if call.words else _all_problems(call)
    if call.has("--json"):
        _print_json({"problems": problems})
    else:
        _print(problems)
    return 1 if problems else 0


def _file_problems(call: _Call) -> list[str]:
    path = os.path.join(call.context.cwd, call.words[0])
    kind = call.chosen.get("--as") or _KINDS.get(os.path.basename(path), "user")
    if kind not in _KINDS.values():
        raise UsageError(f"--as is one of: {', '.join(_KINDS.values())}")
    layers = _or_problem(lambda: sources.file_layers(kind, sources.USER, path))
    if isinstance(layers, str):
        return [layers]
    if not layers:
        raise ConfigError(f"{visible(path)}: there is no such file")
    return _layer_problems(layers[0], kind, call)


def _layer_problems(layer: Layer, kind: str, call: _Call) -> list[str]:
    from codex_core.config.model import Requirements

    if kind == "requirements":
        cleaned, unknown = checks.without_unknown(layer, Requirements)
        return [*(checks.unknown_line(layer, one) for one in unknown), *checks.errors(cleaned, Requirements)]
    folder = os.path.dirname(layer.path or "/")
    found = _or_problem(lambda: canonical(layer, folder=folder, environ=call.context.environ))
    if isinstance(found, str):
        return [found]
    cleaned, unknown = checks.without_unknown(found)
    return [*(checks.unknown_line(found, one) for one in unknown), *checks.errors(cleaned, Config)]


def _all_problems(call: _Call) -> list[str]:
    """Check each file by itself, and then what comes of them together."""
    context = call.context
    problems: list[str] = []
    readers: tuple[tuple[str, Callable[[], Sequence[Layer]]], ...] = (
        ("user", lambda: sources.user_layers(context)),
        ("managed", lambda: sources.managed_layers(context)),
        ("managed", lambda: mdm.config_layers(context)),
        ("requirements", lambda: sources.requirements_layers(context)),
        ("requirements", lambda: mdm.requirements_layers(context)),
    )
    for kind, read in readers:
        layers = _or_problem(read)
        if isinstance(layers, str):
            problems.append(layers)
            continue
        for layer in layers:
            problems += _layer_problems(layer, kind, call)
    if not problems:
        loaded = _or_problem(call.load)
        problems = [loaded] if isinstance(loaded, str) else [*loaded.warnings, *_plugin_problems(loaded)]
    return problems


def _plugin_problems(loaded: Loaded) -> list[str]:
    """Load the plugins that the configuration chooses, for what is wrong with them and their settings."""
    from codex_core.host import Host

    tables = loaded.plugin_tables()
    try:
        Host.for_config(loaded.config, loaded.constraints.check_plugin, tables)
    except CodexError as error:
        return [*tables.warnings, str(error)]
    return tables.warnings


def _or_problem(read: Callable[[], T]) -> T | str:
    try:
        return read()
    except ConfigError as error:
        return str(error)


def _audit(call: _Call) -> int:
    from codex_core.config.report import drift

    call.expect(0, "audit [--json]")
    loaded = call.load()
    found = drift(loaded)
    if call.has("--json"):
        _print_json({"drift": [_drift_as_dict(one) for one in found]})
    else:
        _print(map(_drift_line, found))
    return 1 if found else 0


def _drift_line(one: Drift) -> str:
    local = toml(masked(one.path, one.local.value))
    at = _place(one.local.origin.layer, one.local.origin)
    policy = _place(one.policy.origin.layer, one.policy.origin)
    if one.kind == "overridden":
        return (
            f"{dotted(one.path)} = {local} ({at}) is overridden: {toml(masked(one.path, one.policy.value))} ({policy})"
        )
    return f"{dotted(one.path)} = {local} ({at}) is forbidden: allowed is {one.policy.value} ({policy})"


def _drift_as_dict(one: Drift) -> dict[str, Any]:
    return {
        "key": dotted(one.path),
        "kind": one.kind,
        "local": {"value": masked(one.path, one.local.value), "origin": _origin_as_dict(one.local.origin)},
        "policy": {"value": masked(one.path, one.policy.value), "origin": _origin_as_dict(one.policy.origin)},
    }


# schema and path


def _schema(call: _Call) -> int:
    from codex_core.config.schema import config_schema, requirements_schema

    if call.words in {(), ("config",)}:
        _print_json(config_schema(_chosen_models(call)))
    elif call.words == ("requirements",):
        _print_json(requirements_schema())
    else:
        raise UsageError("say `codex config schema`, or `codex config schema requirements`")
    return 0


def _chosen_models(call: _Call) -> dict[tuple[str, ...], type[Table] | None]:
    """Collect the models of the plugins that the configuration chooses; one that does not load is left out."""
    from codex_core import discovery
    from codex_core.config.defaults import os_backend
    from codex_core.config.plugin_tables import table_path
    from codex_core.host import Host, select

    loaded = _or_problem(call.load)
    if isinstance(loaded, str):
        options.warn(f"the tables of plugins are described loosely: {loaded}")
        return {}
    models = {}
    points = {point.namespace: point for point in Host().points}
    for choice in select(loaded.config, os_backend()):
        try:
            violation = loaded.constraints.check_plugin(discovery.find(choice.namespace, choice.name).distribution)
            if violation is None:
                model = points[choice.namespace].settings_model(choice.name)
                models[table_path(choice.namespace, choice.name)] = model
        except PluginError as error:
            options.warn(f"the table of a plugin is described loosely: {error}")
    return models


def _path(call: _Call) -> int:
    call.expect(0, "path [--all] [--json]")
    user = os.path.join(call.context.codex_home, sources.USER_FILE)
    if not call.has("--all") and not call.has("--json"):
        _print([visible(user)])
        return 0
    files = [
        ("user", user),
        ("managed", sources.managed_path(call.context)),
        ("requirements", sources.requirements_path(call.context)),
        *(("mdm", path) for path in mdm.paths(call.context)),
    ]
    if call.has("--json"):
        _print_json([{"layer": name, "path": path, "exists": os.path.lexists(path)} for name, path in files])
    else:
        _print(f"{name:<13} {visible(path)}{'' if os.path.lexists(path) else '  (not there)'}" for name, path in files)
    return 0


_COMMANDS: dict[str, Callable[[_Call], int]] = {
    "show": _show,
    "get": _get,
    "set": _set,
    "unset": _unset,
    "check": _check,
    "audit": _audit,
    "schema": _schema,
    "path": _path,
}


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        options.warn(warning)


def _note(message: str) -> None:
    sys.stderr.write(f"codex: note: {options.visible(message)}\n")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


def _print_json(value: object) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
