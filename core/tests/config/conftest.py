from __future__ import annotations

import os
import plistlib
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config import load_config
from codex_core.config.quick import Quick, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from codex_core.config.loading import Loaded

NOBODY = 65534


class Machine:
    """A computer of its own for each test: a system root, a home, a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.home = folder / "home"
        self.cwd = folder / "work"
        self.codex_home = self.home / ".codex"
        for made in (self.root, self.codex_home, self.cwd):
            made.mkdir(parents=True)
        self.environ = {"HOME": str(self.home)}

    @property
    def user_file(self) -> Path:
        return self.codex_home / "config.toml"

    @property
    def managed_file(self) -> Path:
        return self.root / "etc" / "codex" / "managed_config.toml"

    @property
    def requirements_file(self) -> Path:
        return self.root / "etc" / "codex" / "requirements.toml"

    def user(self, text: str) -> None:
        self.user_file.write_text(text)

    def managed(self, text: str) -> None:
        self.managed_file.parent.mkdir(parents=True, exist_ok=True)
        self.managed_file.write_text(text)

    def requirements(self, text: str) -> None:
        self.requirements_file.parent.mkdir(parents=True, exist_ok=True)
        self.requirements_file.write_text(text)

    def mdm(self, text: str, key: str = "config_toml_base64") -> None:
        preferences = self.root / "Library" / "Managed Preferences" / "com.openai.codex.plist"
        preferences.parent.mkdir(parents=True, exist_ok=True)
        payload = b64encode(text.encode()).decode()
        preferences.write_bytes(plistlib.dumps({key: payload}, fmt=plistlib.FMT_BINARY))

    def load(self, *overrides: Any, **options: Any) -> Loaded:
        return load_config(**self._arguments(overrides, options))

    def quick(self, *overrides: Any, **options: Any) -> Quick | None:
        return settings(**self._arguments(overrides, options))

    def _arguments(self, overrides: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        return {
            "cwd": str(self.cwd),
            "overrides": overrides,
            "environ": self.environ,
            "system_root": str(self.root),
            **options,
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="session")
def new_machine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make a machine for each example of a property."""
    return lambda: Machine(tmp_path_factory.mktemp("machine"))


@contextmanager
def _not_root() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def not_root() -> Any:
    """Give a context in which permissions count, also when root runs the tests."""
    return _not_root
