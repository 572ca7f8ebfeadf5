"""The pulse of a worker that delivers callbacks: hands out those that are due, and says that it lives.

Only such workers carry it: where there is none, no messages pile up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from celery import Celery

from config.settings import settings
from tasks.callbacks.deliver import CallbackServices
from tasks.celery_tasks import DELIVER
from workers.facts import facts
from workers.pulse import Beating, HandOut, chunks, publish, survive
from workers.services import build_callbacks, callback_secrets

log = logging.getLogger("voicequeue.pulse")

#: Callbacks that one message carries at most.
CHUNK = 10


class CallbackPulse:
    """Hands out callbacks; `worker` is the name it is heard under, with these facts."""

    def __init__(
        self, services: CallbackServices, give: HandOut, *, worker: str, facts: Mapping[str, Any] | None = None
    ) -> None:
        self._services = services
        self._give = give
        self._worker = worker
        self._facts = facts

    def gone(self) -> None:
        """Say that this worker ends."""
        self._services.pulses.gone(self._worker)

    def beat(self) -> None:
        """Say that this worker lives, and hand out what is due."""
        now = self._services.clock()
        self._services.pulses.heard(self._worker, now, self._facts)
        for chunk in chunks(self._services.callbacks.hand_out(now, patience=self._services.patience.lease_s), CHUNK):
            self._give(DELIVER, chunk)


class CallbackStep(Beating):
    """Beats in a thread of each worker that consumes the queue `callbacks`."""

    queues = frozenset({"callbacks"})

    def run(self, app: Celery, worker: str) -> None:
        """Beat until the worker stops."""
        chosen = settings()
        if not callback_secrets(chosen):
            log.warning("no callback can be signed: neither VOICEQUEUE_CALLBACK_SECRET nor VOICEQUEUE_SECRET is set")
        pulse = CallbackPulse(build_callbacks(chosen), partial(publish, app), worker=worker, facts=facts(chosen))
        while not self.stopping.is_set():
            survive(pulse.beat)
            self.stopping.wait(chosen.pulse_s)
        survive(pulse.gone)
