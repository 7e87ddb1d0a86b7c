"""A confinement with one part taken out is noticed by the jail itself, before any command runs."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import SandboxUnavailableError
from codex_sandbox_linux import kernel
from codex_sandbox_linux.seccomp import PROGRAMS, file_name
from landlock import FSAccess

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.sandbox_linux.tests.conftest import Box

ALLOW = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF_0000)
"""A filter that allows everything: ``BPF_RET | BPF_K, SECCOMP_RET_ALLOW``."""
ACCEPTED = ("protected_paths",)


def allow_every_call(box: Box) -> None:
    folder = os.path.join(box.base, "filters")
    os.mkdir(folder)
    for program in PROGRAMS:
        with open(os.path.join(folder, file_name(kernel.MACHINE, *program)), "wb") as file:
            file.write(ALLOW)
    box.ask("set", "seccomp", "FILTERS", folder)


def test_a_folder_outside_that_stays_writable_is_noticed(box_without: Callable[[str], Box]) -> None:
    box = box_without("namespaces")
    box.open(allow_degraded=ACCEPTED)
    box.ask("set", "landlock_rules", "_READ", FSAccess.all())
    with pytest.raises(SandboxUnavailableError, match=r"does not hold: .* is writable inside the sandbox"):
        box.open(allow_degraded=ACCEPTED)


def test_a_socket_outside_that_stays_open_is_noticed(box: Box) -> None:
    box.open(network=True)
    allow_every_call(box)
    box.ask("set", "landlock_rules", "_ALL_SCOPES", 0)
    with pytest.raises(SandboxUnavailableError, match=r"does not hold: .*a socket outside can be reached"):
        box.open(network=True)


def test_a_network_that_stays_open_beside_the_filter_is_noticed(box_without: Callable[[str], Box]) -> None:
    box = box_without("namespaces")
    box.open(allow_degraded=ACCEPTED, allowed_domains=["example.org"])
    allow_every_call(box)
    with pytest.raises(SandboxUnavailableError, match=r"does not hold: .*the network of this host can be reached"):
        box.open(allow_degraded=ACCEPTED, allowed_domains=["example.org"])


def test_capabilities_that_are_left_are_noticed(box: Box) -> None:
    box.open()
    box.ask("set", "kernel", "drop_capabilities", os.getpid)
    with pytest.raises(SandboxUnavailableError, match=r"does not hold: .*/proc/self/status says Cap"):
        box.open()
