"""Distributions for tests: installed the way an installer leaves them, without running one."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder at the end of ``sys.path`` that plugins count in; what is imported from it is forgotten."""
    folder = tmp_path / "environment" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(site_packages: Path) -> Callable[..., Path]:
    """Give ``install(distribution, entry_points, modules={}, version="1.0", folder=site_packages)``.

    It writes a ``*.dist-info`` with that text as ``entry_points.txt``, and modules by name from their source.
    """

    def install(
        distribution: str,
        entry_points: str,
        modules: Mapping[str, str] | None = None,
        version: str = "1.0",
        folder: Path = site_packages,
    ) -> Path:
        metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(entry_points)
        for name, source in (modules or {}).items():
            (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return metadata

    return install
