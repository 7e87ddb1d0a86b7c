"""Compile :mod:`codex_sandbox_linux.seccomp_rules` with libseccomp: ``python -m codex_sandbox_linux.generate_filters``.

For maintainers, after a change of the table.  Needs libseccomp 2.5 or newer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import pyseccomp

from codex_sandbox_linux.seccomp import FILTERS, PROGRAMS, Supervision, Variant, file_name
from codex_sandbox_linux.seccomp_rules import Comparison, Condition, rules

_ARCHITECTURES: Final = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
_ENOSYS: Final = 38
_FREQUENT: Final = ("openat", "fcntl", "ioctl")
"""Calls that are made often and looked at each time, since a rule depends on their arguments: compared first."""


def _argument(condition: Condition) -> pyseccomp.Arg:
    if condition.comparison is Comparison.MASKED:
        return pyseccomp.Arg(condition.argument, pyseccomp.MASKED_EQ, condition.mask, condition.value)
    operator = pyseccomp.GE if condition.comparison is Comparison.AT_LEAST else pyseccomp.NE
    return pyseccomp.Arg(condition.argument, operator, condition.value)


def compile_filter(machine: str, variant: Variant, supervision: Supervision) -> bytes:
    """Compile one filter to BPF, 8 bytes an instruction."""
    compiled = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    # Calls of a foreign ABI (i386, x32) do not exist here. Architectures come first: a later one gets no rules.
    compiled.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(_ENOSYS))
    if pyseccomp.system_arch() != _ARCHITECTURES[machine]:
        compiled.add_arch(_ARCHITECTURES[machine])
        compiled.remove_arch(pyseccomp.system_arch())
    for call in _FREQUENT:
        compiled.syscall_priority(call, 255)
    for rule in rules(variant, supervision):
        action = pyseccomp.ERRNO(rule.error) if rule.error else pyseccomp.NOTIFY
        compiled.add_rule(action, rule.call, *(_argument(condition) for condition in rule.conditions))
    with tempfile.TemporaryFile() as file:
        compiled.export_bpf(file)
        file.seek(0)
        return file.read()


def main() -> None:
    """Write every filter."""
    for machine in _ARCHITECTURES:
        for variant, supervision in PROGRAMS:
            target = Path(FILTERS) / file_name(machine, variant, supervision)
            target.write_bytes(compile_filter(machine, variant, supervision))
            sys.stdout.write(f"{target.name}: {target.stat().st_size // 8} instructions\n")


if __name__ == "__main__":
    main()
