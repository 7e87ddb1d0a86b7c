from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from codex_core.events import Event, TelemetryDropped, UserPrompt
from codex_core.telemetry.emitter import Emitter


class Kept:
    """A sink that keeps, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.events: list[Event] = []
        self.dropped = 0
        self.fails = fails
        self.forgets = False
        self.closed_within: float | None = None

    def export(self, event: Event) -> None:
        if self.fails:
            raise RuntimeError("no network")
        self.events.append(event)

    def flush(self, timeout: float) -> None:
        pass

    def close(self, timeout: float) -> None:
        if self.fails:
            raise RuntimeError("no network")
        self.closed_within = timeout


def test_an_event_is_stamped_redacted_and_seen_by_sink_and_observers_alike() -> None:
    sink, seen = Kept(), list[Event]()
    began = time.time()
    Emitter("conversation", sink, seen.append).emit(UserPrompt, prompt="secret", prompt_length=6)
    (event,) = sink.events
    assert isinstance(event, UserPrompt)
    assert (event.conversation_id, event.prompt) == ("conversation", "[REDACTED]")
    assert began <= event.timestamp <= time.time()
    assert seen == [event]


def test_nothing_is_made_for_a_sink_that_forgets_until_there_is_an_observer() -> None:
    sink, seen, observers = Kept(), list[Event](), list[str]()
    sink.forgets = True
    emitter = Emitter("conversation", sink, seen.append, is_observed=lambda: bool(observers))
    emitter.emit(_never, count=1)
    observers.append("one")
    emitter.emit(TelemetryDropped, count=1)
    assert [event.name for event in seen] == ["codex.telemetry_dropped"]
    assert sink.events == []


def _never(**_: object) -> Event:
    raise AssertionError("an event that nobody gets was made")


def test_a_sink_that_fails_is_counted_and_never_felt() -> None:
    sink, seen = Kept(fails=True), list[Event]()
    emitter = Emitter("conversation", sink, seen.append)
    emitter.emit(TelemetryDropped, count=1)
    emitter.emit(TelemetryDropped, count=2)
    assert emitter.dropped == 2
    assert len(seen) == 2
    emitter.close(1.0)
    assert emitter.dropped == 3


def test_what_the_sink_itself_lost_is_counted_too() -> None:
    sink = Kept()
    sink.dropped = 5
    assert Emitter("conversation", sink, lambda _: None).dropped == 5


def test_the_deadline_reaches_the_sink() -> None:
    sink = Kept()
    Emitter("conversation", sink, lambda _: None).close(1.5)
    assert sink.closed_within == 1.5


def test_failures_of_many_threads_are_all_counted() -> None:
    emitter = Emitter("conversation", Kept(fails=True), lambda _: None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: emitter.emit(TelemetryDropped, count=number), range(400)))
    assert emitter.dropped == 400
