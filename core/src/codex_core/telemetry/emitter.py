"""From the spine to whoever keeps or watches events."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from codex_core.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from codex_core.events import Event


class EventSink(Protocol):
    """Where an exporter keeps events.  Called from any thread.

    One that has an attribute ``forgets``, which is true, is given no events: none need to be made for it.
    """

    @property
    def dropped(self) -> int:
        """Records that were lost so far."""
        ...

    def export(self, event: Event) -> None:
        """Take one event, redacted already.  Must not block on the network: queue, and count what is lost."""
        ...

    def flush(self, timeout: float) -> None:
        """Send what is queued, within *timeout* seconds."""
        ...

    def close(self, timeout: float) -> None:
        """Flush within *timeout* seconds and free everything; idempotent."""
        ...


class Emitter:
    """Stamps, redacts and hands out the events of one conversation.

    It never raises into the spine: a sink that fails is counted.
    """

    def __init__(
        self,
        conversation_id: str,
        sink: EventSink,
        observe: Callable[[Event], None],
        *,
        is_observed: Callable[[], bool] = lambda: True,
        log_user_prompt: bool = False,
    ) -> None:
        self.conversation_id = conversation_id
        self._sink = sink
        self._observe = observe
        self._is_observed = is_observed
        self._forgets = bool(getattr(sink, "forgets", False))
        self._log_user_prompt = log_user_prompt
        self._lock = threading.Lock()
        self._failures = 0

    @property
    def dropped(self) -> int:
        """Events that did not reach the sink, or were lost in it."""
        try:
            return self._failures + self._sink.dropped
        except Exception:  # noqa: BLE001 -- a plugin may raise anything
            return self._failures

    @property
    def is_heard(self) -> bool:
        """Whether anybody gets what is emitted."""
        return not self._forgets or self._is_observed()

    def emit(self, build: Callable[..., Event], /, **attributes: object) -> None:
        """Build an event of this conversation, now, and hand it to the sink and to the observers."""
        if not self.is_heard:
            return
        event = build(conversation_id=self.conversation_id, timestamp=time.time(), **attributes)
        event = redact(event, log_user_prompt=self._log_user_prompt)
        if not self._forgets:
            self._shielded(lambda: self._sink.export(event))
        self._observe(event)

    def close(self, timeout: float) -> None:
        """Flush and close the sink within *timeout* seconds."""
        self._shielded(lambda: self._sink.close(timeout))

    def _shielded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (Exception, SystemExit):  # noqa: BLE001 -- audit must not stop the work; what is lost is counted
            with self._lock:
                self._failures += 1
