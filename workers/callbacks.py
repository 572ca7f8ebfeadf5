"""The pulse of a worker that delivers callbacks: hands out those that are due, and says that it lives.

Only such workers carry it: where there is none, no messages pile up.
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

#: Callbacks that one message carries at most.
CHUNK = 10


class CallbackPulse(SidePulse[CallbackServices]):
    """Hands out callbacks."""

    def hand_out(self, now: float) -> None:
        """Those that are due, some with each message."""
        patience = self._services.patience.lease_s
        for chunk in chunks(self._services.callbacks.hand_out(now, patience=patience), CHUNK):
            self._give(DELIVER, chunk)


class CallbackStep(Beating):
    """Beats in a thread of each worker that consumes the queue `callbacks`."""

    queues = frozenset(consumed_by("callbacks"))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:  # noqa: ARG002  one is enough
        """Build the pulse."""
        chosen = settings()
        if not callback_secrets(chosen):
            log.warning("no callback can be signed: neither VOICEQUEUE_CALLBACK_SECRET nor VOICEQUEUE_SECRET is set")
        pulse = CallbackPulse(
            build_callbacks(chosen), partial(publish, app), worker=worker, facts=facts(chosen, "callbacks")
        )
        return partial(pulse.beat_until, self.stopping, chosen.pulse_s)
