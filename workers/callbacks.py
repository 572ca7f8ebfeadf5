"""The dispatcher of callback workers: sends due callbacks to the queue `callbacks`, and reports a heartbeat.

It runs in these workers only, so that no messages accumulate without one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from celery import Celery
from redis.exceptions import RedisError

from config.settings import settings
from tasks.callbacks.delivery import CallbackServices
from tasks.celery_tasks import DELIVER_TASK
from voicequeue.errors import StoreUnavailableError
from voicequeue.storage.celery_queues import consumed_by
from workers.background import BackgroundStep, FactsAt, LeaseDispatcher, Publish, facts_of, no_facts, publish
from workers.dependencies import build_callbacks, callback_secrets
from workers.process_info import CONCURRENCY, process_facts
from workers.store_check import require_usable_store

log = logging.getLogger("voicequeue.dispatcher")

#: The maximum number of callbacks per message.
CALLBACKS_PER_MESSAGE = 10


def callback_dispatcher(
    services: CallbackServices, publish: Publish, *, worker: str, facts: FactsAt = no_facts
) -> LeaseDispatcher:
    """Return the dispatcher of callbacks: several due callbacks per message."""
    return LeaseDispatcher(
        outbox=services.callbacks,
        publish=publish,
        task=DELIVER_TASK,
        chunk=CALLBACKS_PER_MESSAGE,
        lease_s=services.timeouts.lease_s,
        heartbeats=services.heartbeats,
        clock=services.clock,
        worker=worker,
        facts=facts,
    )


class CallbackStep(BackgroundStep):
    """Runs the dispatcher in a thread of each worker that consumes the queue `callbacks`."""

    queues = frozenset(consumed_by("callbacks"))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None]:
        """Build the dispatcher."""
        configured = settings()
        require_usable_store(configured)
        if not callback_secrets(configured):
            log.warning("callbacks cannot be signed: set VOICEQUEUE_CALLBACK_SECRET or VOICEQUEUE_SECRET")
        services = build_callbacks(configured)
        facts = {**process_facts(configured, "callbacks"), CONCURRENCY: processes}
        _encrypt_again(services)
        dispatcher = callback_dispatcher(
            services,
            partial(publish, app),
            worker=worker,
            facts=facts_of(app, self.queues, facts),
        )
        return partial(dispatcher.run_until, self.stopping, configured.dispatch_interval_s)


def _encrypt_again(services: CallbackServices) -> None:
    """Encrypt callback secrets of API keys with the current root secret, so that the old one can be removed."""
    try:
        if count := services.signer.encrypt_again():
            log.info("callback secrets encrypted again: %d", count)
    except (RedisError, StoreUnavailableError) as error:
        log.warning("callback secrets stay encrypted with the old secret: %s; restart", type(error).__name__)
