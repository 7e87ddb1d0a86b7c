"""The options that concern a run; every subcommand that reads the configuration takes them.

They may stand before and after the subcommand, and always before ``--``.  Read by hand here, as
``codex sandbox`` cannot pay for argparse; :func:`add_config_options` gives the same ones to a parser.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codex_core.config.overrides import Override, parse_override
from codex_core.errors import CommandNotFoundError, NotPermittedError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Sequence

    from codex_core.config import Loaded
    from codex_core.host import Choice, Host
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Command, CommandResult, Denial

HELP = (
    ("-c", "--config", "KEY=VALUE", "set a configuration value; VALUE is TOML, or else text"),
    ("-s", "--sandbox", "MODE", "read-only, workspace-write or danger-full-access"),
    ("-a", "--ask-for-approval", "POLICY", "untrusted, on-request, on-failure or never"),
    ("-p", "--profile", "NAME", "use the values of this profile of the configuration"),
    ("-C", "--cd", "DIR", "work in DIR"),
    ("", "--add-dir", "DIR", "let commands write to DIR as well; may be repeated"),
    ("", "--dangerously-bypass-approvals-and-sandbox", "", "no sandbox and no questions; also --yolo"),
    ("", "--search", "", "let the model's server search the web"),
    ("", "--strict-config", "", "take an unknown key of the configuration for an error"),
)
OUTPUT_NOT_LIMITED = "limits.output_size is not kept: the output goes straight to where yours does"
_YOLO = "--dangerously-bypass-approvals-and-sandbox"
_KEYS = {"--sandbox": "sandbox_mode", "--ask-for-approval": "approval_policy", "--profile": "profile"}
_LONG = {short: name for short, name, _, _ in HELP if short} | {"--yolo": _YOLO}
_VALUED = frozenset(name for _, name, metavar, _ in HELP if metavar)
_FLAGS = frozenset(name for _, name, metavar, _ in HELP if not metavar)


@dataclass(frozen=True, slots=True)
class Given:
    """What the options of one command line ask for."""

    cwd: str
    """Absolute."""
    overrides: tuple[Override, ...]
    strict: bool = False
    """Whether an unknown key is an error."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A command line, taken apart."""

    pairs: tuple[tuple[str, str], ...]
    """The options that concern a run, by their long names, in order; ``""`` where there is no value."""
    others: dict[str, str]
    """The subcommand's own options."""
    rest: tuple[str, ...]
    """From the first word that is no option, or behind ``--``."""
    separated: bool
    """Whether there was a ``--`` before *rest*."""


def parse(words: Sequence[str], *, flags: Collection[str] = (), valued: Collection[str] = ()) -> Parsed:
    """Take options up to the first word that is none.  *flags* and *valued* are further long names.

    Raises UsageError.
    """
    pairs: list[tuple[str, str]] = []
    others: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in {"-", "--"}:
        name, attached = _split(words[at])
        at += 1
        if name in _VALUED or name in valued:
            if attached is None:
                if at == len(words):
                    raise UsageError(f"{name} needs a value")
                attached = words[at]
                at += 1
        elif name not in _FLAGS and name not in flags:
            raise UsageError(f"there is no option {name}{_nearest(name, {*_VALUED, *_FLAGS, *flags, *valued})}")
        elif attached is not None:
            raise UsageError(f"{name} takes no value")
        if name in _VALUED or name in _FLAGS:
            pairs.append((name, attached or ""))
        else:
            others[name] = attached or ""
    separated = at < len(words) and words[at] == "--"
    return Parsed(tuple(pairs), others, tuple(words[at + separated :]), separated)


def _split(word: str) -> tuple[str, str | None]:
    """Split one word into the option's long name and the value attached to it."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return _LONG.get(name, name), value if equals else None
    short, value = word[:2], word[2:].removeprefix("=")
    return _LONG.get(short, word), value if len(word) > len(short) and short in _LONG else None


def given(pairs: Iterable[tuple[str, str]]) -> Given:
    """Say what *pairs*, as in :class:`Parsed`, ask for.  Dedicated options beat ``--config``.

    Raises UsageError, and CommandNotFoundError where the current directory is gone.
    """
    pairs = tuple(pairs)
    names = {name for name, _ in pairs}
    if _YOLO in names and names & {"--sandbox", "--ask-for-approval"}:
        raise UsageError(f"{_YOLO} chooses sandbox and approval: leave out --sandbox and --ask-for-approval")
    folders = [value for name, value in pairs if name == "--cd"]
    cwd = _absolute(folders[-1] if folders else "")
    first = [parse_override(value) for name, value in pairs if name == "--config"]
    dedicated = (override for name, value in pairs for override in _overrides(name, value))
    return Given(cwd, (*first, *dedicated), strict="--strict-config" in names)


def _overrides(name: str, value: str) -> tuple[Override, ...]:
    if name == _YOLO:
        mode = Override(("sandbox_mode",), "danger-full-access", name)
        return (mode, Override(("approval_policy",), "never", name))
    if name == "--add-dir":
        roots = ("sandbox_workspace_write", "writable_roots")
        return (Override(roots, [_absolute(value)], name, extend=True),)
    if name == "--search":
        return (Override(("web_search",), "live", name),)
    return (Override((_KEYS[name],), value, name),) if name in _KEYS else ()


def _absolute(folder: str) -> str:
    if os.path.isabs(folder):
        return os.path.normpath(folder)
    try:
        return os.path.normpath(os.path.join(os.getcwd(), folder))
    except FileNotFoundError:
        raise CommandNotFoundError("the current directory no longer exists: change to one that does") from None


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the options that concern a run, for :func:`load`; nested parsers may have them too."""
    import argparse

    destination = f"config_options {parser.prog}"  # a nested parser must not overwrite what the outer one got

    class Collect(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,  # noqa: ARG002 -- the signature of the base class
            namespace: argparse.Namespace,
            values: object,
            option_string: str | None = None,
        ) -> None:
            name = _LONG.get(option_string or "", option_string or "")
            collected = getattr(namespace, destination, ())
            setattr(namespace, destination, (*collected, (name, values if isinstance(values, str) else "")))

    group = parser.add_argument_group("configuration")
    for short, name, metavar, text in HELP:
        names = [word for word in (short, name, *(["--yolo"] if name == _YOLO else [])) if word]
        arguments = {"metavar": metavar} if metavar else {"nargs": 0}
        group.add_argument(*names, action=Collect, dest=destination, default=argparse.SUPPRESS, help=text, **arguments)


def load(args: argparse.Namespace) -> Loaded:
    """Load the configuration that the options of :func:`add_config_options` ask for; warnings go to stderr.

    Raises ConfigError or UsageError.
    """
    collected = sorted((len(key), value) for key, value in vars(args).items() if key.startswith("config_options "))
    return load_given(given(pair for _, pairs in collected for pair in pairs))


def load_given(asked: Given) -> Loaded:
    """Load the configuration for what was asked; warnings go to stderr.  Raises ConfigError."""
    from codex_core.config import load_config

    loaded = load_config(cwd=asked.cwd, overrides=asked.overrides, strict=asked.strict)
    for warning in loaded.warnings:
        warn(warning)
    return loaded


def load_host(loaded: Loaded, choices: Iterable[Choice]) -> Host:
    """Load plugins with their settings; warnings go to stderr.  Raises as :meth:`Host.load`."""
    from codex_core.host import Host

    tables = loaded.plugin_tables()
    host = Host.load(choices, loaded.constraints.check_plugin, tables)
    for warning in tables.warnings:
        warn(warning)
    return host


def run_by_host(policy: SandboxPolicy, command: Command, backend: str, loaded: Loaded | None) -> CommandResult:
    """Run one command on the caller's own descriptors by a backend's hooks, within the constraints.

    Raises as :meth:`Host.load` and :func:`codex_core.sandbox.terminal.attach`, and NotPermittedError where the
    backend keeps less than the constraints want.
    """
    from codex_core.hookspecs import SandboxBackend
    from codex_core.host import Choice, Host
    from codex_core.sandbox.terminal import attach

    choice = Choice(SandboxBackend.namespace, backend, "sandbox_backend", "the command line asks for it")
    host = load_host(loaded, [choice]) if loaded else Host.load([choice])
    launcher = host.launcher(policy)
    try:
        violation = loaded.constraints.check_strength(launcher.strength) if loaded else None
        if violation is not None:
            raise NotPermittedError(f"not permitted: {violation}")
        return attach(launcher, command, timeout=policy.limits.wall_time)
    finally:
        launcher.close()


def say(message: str) -> None:
    """Print one line for the user."""
    sys.stderr.write(f"codex: {visible(message)}\n")


def warn(message: str) -> None:
    """Print a warning for the user."""
    say(f"warning: {message}")


def denial_line(denial: Denial) -> str:
    """Say in one line what the sandbox refused, why, and what would allow it."""
    certain = "denied" if denial.certain else "probably denied"
    cure = f"; to allow it: {denial.cure}" if denial.cure else ""
    return f"{certain}: {denial.operation} {denial.target} ({denial.rule}){cure}"


def visible(text: str) -> str:
    """Give *text* as one line that cannot do anything to a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, sorted(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def words(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Give *pairs*, as in :class:`Parsed`, as words of a command line again."""
    return [f"{name}={value}" if name in _VALUED else name for name, value in pairs]


def usage(synopsis: str, text: str, own: Iterable[tuple[str, str]] = ()) -> str:
    """Give the help of a subcommand that reads its options by hand."""
    rows = [*own]
    for short, name, metavar, help_ in HELP:
        rows.append((f"{short}, {name} {metavar}" if short else f"{name} {metavar}".rstrip(), help_))
    lines = [f"  {option}\n{'':<12}{help_}" for option, help_ in rows]
    return "\n".join([f"usage: {synopsis}", "", text, "", "options:", *lines, ""])
