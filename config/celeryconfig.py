"""Celery's configuration. docs/explanation/why.md gives the measurements behind it."""

from __future__ import annotations

from typing import Any

from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # newer than its stubs
from kombu import Exchange, Queue

from config.settings import Settings
from voicequeue.storage.celery_queues import INTAKE, TASK_QUEUES, consumed_by
from voicequeue.storage.connection.client import CONNECT_TIMEOUT_S, KEEPALIVE_OPTIONS, REPLY_TIMEOUT_S
from voicequeue.storage.connection.keyspace import celery_root
from voicequeue.storage.connection.redis_url import RedisAddress, parse_redis_url

BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
    # Above the longest countdown of a poll (tasks.poll_scheduler.COUNTDOWN_MAX_S), which a worker holds unacknowledged.
    # A lost message does not wait for it: maintenance finds overdue jobs long before.
    "visibility_timeout": 180,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 60,
    "socket_timeout": REPLY_TIMEOUT_S,
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_keepalive": True,
    "socket_keepalive_options": KEEPALIVE_OPTIONS,
    # A lost connection gives no sign. The blocking read, which Redis answers within a second, counts as lost when its
    # reply is overdue by this (seconds), and a subscription when Redis has not answered two of these checks.
    "health_check_interval": 5,
    "retry_on_timeout": False,
}

#: The queues that a worker consumes when its command line names none (`-Q`).
WORKER_QUEUES = consumed_by("worker")


def configuration(settings: Settings) -> dict[str, Any]:
    """Return the values of `app.conf`."""
    address = parse_redis_url(settings.redis_url)
    return {
        "broker_url": _broker_url(settings.redis_url, address),
        # kombu adds the prefix to some commands one by one: tests watch what a new version sends (test_broker_keys.py).
        "broker_transport_options": {**BROKER_TRANSPORT_OPTIONS, "global_keyprefix": celery_root(settings.prefix)},
        # kombu's default accepts any certificate; the client of the jobs accepts valid ones only.
        "broker_use_ssl": False if address.tls is None else {"ssl_cert_reqs": "required", **address.tls},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Celery's default gives up after 0.6 s and loses the message.
        "task_publish_retry_policy": {
            "max_retries": 30,
            "interval_start": 0.5,
            "interval_step": 0.5,
            "interval_max": 3,
        },
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in WORKER_QUEUES],
        "task_routes": {queue.task: {"queue": queue.name} for queue in TASK_QUEUES},
        "task_default_queue": INTAKE,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_timeout": True,
        "task_ignore_result": True,
        # Tasks end by themselves, except for defects. A worker checks its clock again when Redis is back: a limit
        # shorter than the outage would then kill the child while it stores responses that were paid for.
        "task_time_limit": 900,
        "task_serializer": "json",
        "accept_content": ["json"],
        # One process more than the processors that this container may use: all but one send orders and wait for their
        # answers.
        "worker_concurrency": cpu_budget().count + 1,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_disable_rate_limits": True,
        "worker_max_tasks_per_child": 10_000,
        "worker_send_task_events": True,
        # Stores messages that are not for one of our tasks; Celery would drop them and log their content.
        "worker_consumer": "workers.messaging.consumer:Consumer",
    }


def _broker_url(url: str, address: RedisAddress) -> str:
    """Return the URL by which Celery selects the transport. It names one sentinel, and no login: the transport has
    both from the URL of the queue, which kombu cannot parse."""
    host, port = address.hosts[0]
    return f"sentinel://{f'[{host}]' if ':' in host else host}:{port}/{address.database}" if address.primary else url
