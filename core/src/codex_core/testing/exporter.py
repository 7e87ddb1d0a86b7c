"""What every exporter has to keep; see :mod:`codex_core.testing` for how to use it."""

from __future__ import annotations

import dataclasses
import threading
import typing
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from codex_core.events import Event
from codex_core.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from codex_core.hookspecs import Exporter
    from codex_core.telemetry.emitter import EventSink

_VALUES: dict[object, Any] = {str: "text \udcff \x1b[0m", int: 2**53, bool: True, float: 1.5}
_DEADLINE = 5.0


def sample_events() -> tuple[Event, ...]:
    """Give one event of each kind, with odd text in it."""
    events: list[Event] = []
    for kind in _kinds(Event):
        types = typing.get_type_hints(kind)
        values: dict[str, Any] = {each.name: _VALUES.get(types[each.name]) for each in dataclasses.fields(kind)}
        events.append(kind(**values))
    return tuple(events)


def _kinds(kind: type[Event]) -> Iterator[type[Event]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


class ExporterContract:
    """Tests that every exporter passes, whether or not anything listens to what it sends."""

    @pytest.fixture
    def plugin(self) -> Exporter:
        """Give the exporter to test: override this."""
        pytest.fail("override the fixture `plugin` to give the exporter")

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """Give the exporter's table of the configuration: override this where it needs one."""
        return {}

    @pytest.fixture
    def sink(self, plugin: Exporter, settings: Mapping[str, Any]) -> EventSink:
        """Give a sink that the host has accepted."""
        host = Host()
        host.exporters.register(plugin, "contract")
        return host.open_sink(settings, {"service.name": "contract", "env": "test"})

    def test_every_kind_of_event_is_taken(self, sink: EventSink) -> None:
        """Whatever is in it; what is lost is counted."""
        for event in sample_events():
            sink.export(event)
        sink.flush(_DEADLINE)
        sink.close(_DEADLINE)
        assert isinstance(sink.dropped, int)
        assert 0 <= sink.dropped <= len(sample_events())

    def test_events_are_taken_from_several_threads(self, sink: EventSink) -> None:
        """A sink is called from any thread."""
        events = sample_events() * 8
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(sink.export, events))
        sink.close(_DEADLINE)
        assert 0 <= sink.dropped <= len(events)

    def test_closing_twice_does_no_harm(self, sink: EventSink) -> None:
        """Also with events that come too late: they do not raise."""
        sink.close(_DEADLINE)
        sink.close(_DEADLINE)
        for event in sample_events():
            sink.export(event)
        sink.flush(0.0)

    def test_a_closed_sink_leaves_no_thread_behind(self, plugin: Exporter, settings: Mapping[str, Any]) -> None:
        """Every way out closes the sink, and then nothing of it may hold the program."""
        host = Host()
        host.exporters.register(plugin, "contract")
        before = set(threading.enumerate())
        sink = host.open_sink(settings, {"service.name": "contract"})
        for event in sample_events():
            sink.export(event)
        sink.close(_DEADLINE)
        left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
        assert left == []
