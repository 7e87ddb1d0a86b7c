"""The exporter keeps the contract of all exporters."""

from __future__ import annotations

import pytest
from codex_core.testing import ExporterContract
from codex_exporter_none import NoneExporter


class TestNoneExporter(ExporterContract):
    @pytest.fixture
    def plugin(self) -> NoneExporter:
        return NoneExporter()
