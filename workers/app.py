"""The Celery app: `celery -A workers.app worker` works as it is, on all queues but `callbacks` and `archive`."""

from __future__ import annotations

from celery import Celery

from config.celeryconfig import configuration
from config.settings import settings
from tasks.celery_tasks import register
from workers import broker
from workers.archive import ArchiveStep
from workers.callbacks import CallbackStep
from workers.pulse import PulseStep
from workers.services import archive_services, callback_services, services

broker.install()
app = Celery("voicequeue", amqp=broker.Amqp, set_as_current=True)
app.conf.update(configuration(settings()))
app.steps["worker"].update({PulseStep, CallbackStep, ArchiveStep})
register(app, services, callback_services, archive_services)
