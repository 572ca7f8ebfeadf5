"""The Celery app. `python -m workers worker` consumes all queues except `callbacks` and `archive`."""

from __future__ import annotations

import gc

from celery.signals import (
    setup_logging,
    worker_before_create_process,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)

from config import logs, tracing
from config.celeryconfig import configuration
from config.flower import is_read_only
from config.settings import settings
from tasks.celery_tasks import register
from workers import lifeline
from workers.archive import ArchiveStep
from workers.callbacks import CallbackStep
from workers.celery_app import CeleryApp
from workers.clock import event_loop_time
from workers.dependencies import archive_services, callback_services, close_upstream, flush_metrics, services
from workers.dispatcher import DispatcherStep
from workers.lifeline import LifelineStep
from workers.messaging import redis_transport
from workers.messaging.retries import report_retries_cheaply

redis_transport.install(event_loop_time, settings().redis_url, may_stop=not is_read_only())
app = CeleryApp("voicequeue", amqp=redis_transport.Amqp, set_as_current=True)
app.conf.update(configuration(settings()))
app.steps["worker"].update({LifelineStep, DispatcherStep, CallbackStep, ArchiveStep})
lifeline.install(flush_metrics)
register(app, services, callback_services, archive_services)
setup_logging.connect(lambda **_: logs.configure(settings()), weak=False)
# Objects created at startup are exempt from garbage collection: scanning them would cost time, and copy their memory
# pages in each child.
worker_ready.connect(lambda **_: gc.freeze(), weak=False)
worker_before_create_process.connect(lambda **_: gc.freeze(), weak=False)
worker_process_init.connect(lambda **_: gc.freeze(), weak=False)
worker_process_init.connect(lambda **_: tracing.instrument_celery("worker"), weak=False)
worker_process_init.connect(lambda **_: report_retries_cheaply(app), weak=False)
for signal in (worker_process_shutdown, worker_shutdown):
    signal.connect(flush_metrics)
worker_shutdown.connect(close_upstream)
