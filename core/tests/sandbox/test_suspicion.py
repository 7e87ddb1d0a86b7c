from __future__ import annotations

import subprocess
import sys

import pytest
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.sandbox.suspicion import suspects
from codex_core.types import SandboxMode

READ_ONLY = SandboxPolicy(SandboxMode.READ_ONLY, "/", (), ())


@pytest.mark.parametrize(
    "words",
    [
        b"touch: cannot touch '/note': Permission denied",
        b"touch: cannot touch \xe2\x80\x98/note\xe2\x80\x99: Permission denied",
        b"PermissionError: [Errno 13] Permission denied: '/note'",
        b"error: could not lock `/note': Read-only file system",
        b"bash: /note: Operation not permitted",
    ],
)
def test_a_refused_path_is_found_however_it_is_quoted(words: bytes) -> None:
    assert [(denial.target, denial.certain) for denial in suspects(words, READ_ONLY, "/")] == [("/note", False)]


@pytest.mark.parametrize(
    "line",
    [
        "b'\\x80' * 1_000_000 + b' permission denied'",
        'b"\'" * 1_000_000 + b" permission denied"',
        "b'\\xe2\\x80\\x98' * 300_000 + b' permission denied'",
        "b'permission denied: \\'' + b'a/' * 500_000 + b'\\''",
    ],
)
def test_no_words_of_a_command_keep_codex_busy(line: str) -> None:
    """With one more step for each pair of bytes it would be hours; the bound only keeps this test from hanging."""
    source = (
        "from codex_core.sandbox.policy import SandboxPolicy\n"
        "from codex_core.sandbox.suspicion import suspects\n"
        "from codex_core.types import SandboxMode\n"
        f"print(suspects({line}, SandboxPolicy(SandboxMode.READ_ONLY, '/', (), ()), '/'))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"()\n"
