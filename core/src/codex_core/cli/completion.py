"""``codex completion bash|zsh|fish``: a completion script, made from the tables of the command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from codex_core.cli import options
from codex_core.cli.main import SUBCOMMANDS, available
from codex_core.errors import UsageError
from codex_core.types import ApprovalMode, SandboxMode

if TYPE_CHECKING:
    from collections.abc import Sequence

_VALUES = {"--sandbox": " ".join(SandboxMode), "--ask-for-approval": " ".join(ApprovalMode)}

_BASH = """\
_codex() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} at first=''
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
            --) _command_offset $((at + 1)) 2>/dev/null; return ;;
            {valued}) ((at++)) ;;
            -*) ;;
            *) first=${{first:-${{COMP_WORDS[at]}}}} ;;
        esac
    done
    case $before in
        -s|--sandbox) COMPREPLY=($(compgen -W '{modes}' -- "$word")); return ;;
        -a|--ask-for-approval) COMPREPLY=($(compgen -W '{policies}' -- "$word")); return ;;
        -C|--cd|--add-dir) COMPREPLY=($(compgen -d -- "$word")); return ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W '{options}' -- "$word"))
    elif [[ -z $first ]]; then
        COMPREPLY=($(compgen -W '{subcommands}' -- "$word"))
    elif [[ $first == completion ]]; then
        COMPREPLY=($(compgen -W 'bash zsh fish' -- "$word"))
    elif [[ $first == sandbox ]]; then
        COMPREPLY=($(compgen -W 'linux macos windows' -- "$word"))
    fi
}}
complete -o default -F _codex codex
"""


def main(argv: Sequence[str]) -> int:
    """Print the script for one shell."""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    words = options.parse(argv, flags=("--help", "-h"))
    if words.others:
        sys.stdout.write("usage: codex completion bash|zsh|fish\n\n  source <(codex completion bash)\n")
        return 0
    if len(words.rest) != 1 or words.rest[0] not in makers:
        raise UsageError("say `codex completion bash`, `zsh` or `fish`")
    sys.stdout.write(makers[words.rest[0]]())
    return 0


def _bash() -> str:
    return _BASH.format(
        valued="|".join(word for short, name, metavar, _ in options.HELP if metavar for word in (short, name) if word),
        modes=_VALUES["--sandbox"],
        policies=_VALUES["--ask-for-approval"],
        options=" ".join(["--help", "--version", *(name for _, name, _, _ in options.HELP)]),
        subcommands=" ".join(available()),
    )


def _zsh() -> str:
    # zsh runs bash's function; what it lacks for that, bashcompinit brings.
    return f"#compdef codex\nautoload -U +X bashcompinit && bashcompinit\n{_bash()}"


def _fish() -> str:
    names = available()
    lines = [f"complete -c codex -n 'not __fish_seen_subcommand_from {' '.join(names)}' -f"]
    lines += [f"complete -c codex -n __fish_use_subcommand -a {name} -d '{SUBCOMMANDS[name]}'" for name in names]
    for short, name, metavar, text in options.HELP:
        words = [f"-s {short[1:]}"] if short else []
        words += [f"-l {name[2:]}", *(["-r"] if metavar else [])]
        words += [f"-f -a '{_VALUES[name]}'"] if name in _VALUES else []
        lines.append(f"complete -c codex {' '.join(words)} -d '{text}'")
    return "\n".join(lines) + "\n"
