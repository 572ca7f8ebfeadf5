"""The Celery app: `celery -A workers.app worker` works as it is and consumes every queue but `callbacks`."""

from __future__ import annotations

from celery import Celery

from config.celeryconfig import configuration
from config.settings import settings
from tasks.celery_tasks import register
from workers import broker
from workers.callbacks import CallbackStep
from workers.pulse import PulseStep
from workers.services import callback_services, services

broker.install()
app = Celery("voicequeue", amqp=broker.Amqp, set_as_current=True)
app.conf.update(configuration(settings()))
app.steps["worker"].update({PulseStep, CallbackStep})
register(app, services, callback_services)
