"""Guess from the words of a failed command what the sandbox did not let it write.

Kernels refuse files without telling anybody but the program.  What it says is a hint; the policy
decides whether the path that it names is one that the sandbox closes.  So an ordinary "permission
denied" is no denial, and neither is a path that only contains the word "sandbox".
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from codex_core.types import Operation

if TYPE_CHECKING:
    from codex_core.sandbox.policy import SandboxPolicy
    from codex_core.types import Denial

_REFUSALS = re.compile(rb"read-only file system|permission denied|operation not permitted", re.IGNORECASE)
# Between quotes, as coreutils, Python and git name a path, or up to the colon that ends it.  What opens a path cannot
# stand in one: else a long line of openers, tried from each of them, would keep this process busy for hours.
_QUOTED = re.compile(rb"(?:['\"`]|\xe2\x80\x98)([^'\"`\xe2]+)['\"`\xe2]")
_PLAIN = re.compile(rb"(?:^|[\s:])([^\s:'\"]+)")
_LINES_READ = 200
_LONGEST_PATH = 4096
"""Bytes: what is longer can be given to no kernel (path_resolution(7))."""
_PATHS_JUDGED = 64


def suspects(output: bytes, policy: SandboxPolicy, cwd: str) -> tuple[Denial, ...]:
    """Give the denials that *output* of a command in *cwd* speaks of, each once, as uncertain ones."""
    found: dict[str, Denial] = {}
    for path in _paths(output)[:_PATHS_JUDGED]:
        target = os.path.normpath(os.path.join(cwd, path))
        denial = policy.check(Operation.WRITE, target)
        if denial is not None and os.path.isdir(os.path.dirname(target)):
            found.setdefault(denial.target, replace(denial, certain=False))
    return tuple(found.values())


def _paths(output: bytes) -> list[str]:
    paths: dict[str, None] = {}
    for line in output.splitlines()[-_LINES_READ:]:
        refusal = _REFUSALS.search(line)
        if refusal is None:
            continue
        quoted = _QUOTED.findall(line)
        plain = [word for word in _PLAIN.findall(line[: refusal.start()]) if b"/" in word]
        paths |= dict.fromkeys(os.fsdecode(path) for path in quoted or plain[-1:] if len(path) <= _LONGEST_PATH)
    return list(paths)
