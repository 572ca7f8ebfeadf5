"""The dispatcher of callback workers: sends due callbacks to the queue `callbacks`, and reports a heartbeat.

It runs in these workers only, so that no messages accumulate without one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from celery import Celery

from config.settings import settings
from tasks.callbacks.delivery import CallbackServices
from tasks.celery_tasks import DELIVER
from voicequeue.storage.celery_queues import consumed_by
from workers.dependencies import build_callbacks, callback_secrets
from workers.process_info import facts
from workers.pulse import Beating, SidePulse, chunks, publish

log = logging.getLogger("voicequeue.pulse")

#: The maximum number of callbacks per message.
CHUNK = 10


class CallbackPulse(SidePulse[CallbackServices]):
    """Sends messages for due callbacks."""

    def hand_out(self, now: float) -> None:
        """Send messages for the due callbacks, several per message."""
        lease_s = self._services.patience.lease_s
        for chunk in chunks(self._services.callbacks.hand_out(now, patience=lease_s), CHUNK):
            self._give(DELIVER, chunk)


class CallbackStep(Beating):
    """Runs the dispatcher in a thread of each worker that consumes the queue `callbacks`."""

    queues = frozenset(consumed_by("callbacks"))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:  # noqa: ARG002  one dispatcher is enough
        """Build the dispatcher."""
        configured = settings()
        if not callback_secrets(configured):
            log.warning("callbacks cannot be signed: set VOICEQUEUE_CALLBACK_SECRET or VOICEQUEUE_SECRET")
        dispatcher = CallbackPulse(
            build_callbacks(configured), partial(publish, app), worker=worker, facts=facts(configured, "callbacks")
        )
        return partial(dispatcher.beat_until, self.stopping, configured.pulse_s)
