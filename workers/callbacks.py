"""The outbox of callbacks in workers that deliver them: hands out due callbacks and sends heartbeats.

Only such workers run it, so messages do not pile up where there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import Celery

from config.settings import settings
from tasks.callbacks.delivery import CallbackServices
from tasks.celery_tasks import DELIVER
from workers.background import BackgroundStep, LeaseDispatcher, Publish, publish
from workers.dependencies import build_callbacks, callback_secrets
from workers.process_info import facts

log = logging.getLogger("voicequeue.pulse")

#: Callbacks that one message carries at most.
CHUNK = 10


def callback_dispatcher(
    services: CallbackServices, publish: Publish, *, worker: str, facts: Mapping[str, Any] | None = None
) -> LeaseDispatcher:
    """Return the dispatcher of callbacks."""
    return LeaseDispatcher(
        services.callbacks,
        publish,
        task=DELIVER,
        chunk=CHUNK,
        lease_s=services.patience.lease_s,
        heartbeats=services.pulses,
        clock=services.clock,
        worker=worker,
        facts=facts,
    )


class CallbackStep(BackgroundStep):
    """Runs the dispatcher in each worker that consumes the queue `callbacks`."""

    queues = frozenset({"callbacks"})

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:  # noqa: ARG002  one is enough
        """Build the dispatcher."""
        config = settings()
        if not callback_secrets(config):
            log.warning("no callback can be signed: neither VOICEQUEUE_CALLBACK_SECRET nor VOICEQUEUE_SECRET is set")
        dispatcher = callback_dispatcher(
            build_callbacks(config), partial(publish, app), worker=worker, facts=facts(config, "callbacks")
        )
        return partial(dispatcher.run_until, self.stopping, config.pulse_s)
