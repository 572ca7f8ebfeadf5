"""Builds the services of the tasks from the settings, once per process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial

from config import tracing
from config.settings import Settings, settings
from tasks.archive.downloader import Bounds, Fetcher
from tasks.archive.storage import Shelf
from tasks.archive.task import ArchiveServices
from tasks.callbacks.delivery import CallbackServices
from tasks.callbacks.host_limiter import Hosts
from tasks.callbacks.sender import Sender
from tasks.context import Services
from tasks.musicapi import MusicApi
from tasks.webhooks import Webhooks
from voicequeue.auth import signatures
from voicequeue.domain.gate import Limits
from voicequeue.domain.poll_schedule import PollPlan
from voicequeue.domain.stage import Stage
from voicequeue.domain.timeouts import ArchivePatience, CallbackPatience, Patience
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Times
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import Store
from voicequeue.storage.monitoring.metrics import Tally
from workers.lifeline import lifeline

#: Seconds for which each call retries while Redis is unavailable: a task id that was paid for must not be lost.
#: Threads outlive the time limit of their task; only further work waits.
STORE_WAIT_S = 600.0

#: The number of callbacks that one process sends at once.
CALLBACK_THREADS = 32


def services() -> Services:
    """Return the services of this process. A forked child builds its own: sockets and threads are not shared."""
    return _services_of(os.getpid())


@lru_cache(maxsize=1)
def _services_of(pid: int) -> Services:  # noqa: ARG001  the key of the cache
    return replace(build(settings()), stopping=lifeline.is_cut)


def callback_services() -> CallbackServices:
    """Return the callback services of this process."""
    return _callback_services_of(os.getpid())


@lru_cache(maxsize=1)
def _callback_services_of(pid: int) -> CallbackServices:  # noqa: ARG001  the key of the cache
    return build_callbacks(settings())


def archive_services() -> ArchiveServices:
    """Return the archive services of this process. Raises Unusable."""
    return _archive_services_of(os.getpid())


@lru_cache(maxsize=1)
def _archive_services_of(pid: int) -> ArchiveServices:  # noqa: ARG001  the key of the cache
    return build_archive(settings())


def last_words(**_: object) -> None:
    """Write this process's remaining metrics to Redis before it exits; a handler of Celery's signals."""
    if _services_of.cache_info().currsize:
        services().store.tally.flush()
    if _callback_services_of.cache_info().currsize:
        callback_services().tally.flush()


def build(configured: Settings) -> Services:
    """Build the services of the tasks from the settings."""
    store = Store(
        connect(configured.redis_url, wait_s=STORE_WAIT_S),
        configured.prefix,
        limits=limits(configured),
        reuse=configured.reuse,
        archives=bool(configured.archive.get_secret_value()),
    )
    return Services(
        store=store,
        upstream=MusicApi(
            configured.musicapi_base_url,
            configured.musicapi_key.get_secret_value(),
            connect_s=configured.connect_timeout_s,
            answer_s=configured.answer_timeout_s,
            connections=configured.http_threads,
            heard=partial(_count_request, store.tally),
        ),
        clock=store.clock,
        plan=PollPlan(configured.poll_min_s, configured.poll_max_s),
        patience=_patience(configured),
        chunk=configured.chunk,
        webhooks=webhooks(configured),
        span=tracing.spans(),
        deadlines={Stage.VOICE: configured.voice_deadline_s, Stage.MUSIC: configured.music_deadline_s},
    )


def _count_request(tally: Tally, operation: str, outcome: str, seconds: float) -> None:
    tally.count("call", operation, outcome)
    tally.measure("call", operation, seconds)


def build_callbacks(configured: Settings) -> CallbackServices:
    """Build the callback services from the settings."""
    store = Store(connect(configured.redis_url, wait_s=STORE_WAIT_S), configured.prefix)
    return CallbackServices(
        callbacks=store.callbacks,
        clock=store.clock,
        pulses=store.pulses["callbacks"],
        tally=store.tally,
        sender=Sender(
            callback_secrets(configured),
            allowed=Allowed.of(configured.callback_allow, setting="VOICEQUEUE_CALLBACK_ALLOW"),
            times=Times(configured.callback_connect_s, configured.callback_answer_s),
        ),
        hosts=Hosts(rest_s=configured.callback_rest_s),
        threads=ThreadPoolExecutor(CALLBACK_THREADS, thread_name_prefix="callback"),
        patience=CallbackPatience(
            configured.callback_first_s,
            configured.callback_max_s,
            configured.callback_for_s,
            # An attempt starts within `lane_s` of its claim and takes at most `answer_s`; the rest is a margin.
            lease_s=4 * configured.callback_answer_s,
            lane_s=configured.callback_answer_s,
        ),
    )


def build_archive(configured: Settings) -> ArchiveServices:
    """Build the archive services from the settings. Raises Unusable."""
    store = Store(connect(configured.redis_url, wait_s=STORE_WAIT_S), configured.prefix)
    return ArchiveServices(
        archive=store.archive,
        clock=store.clock,
        pulses=store.pulses["archive"],
        fetcher=Fetcher(
            allowed=Allowed.of(configured.audio_allow, setting="VOICEQUEUE_AUDIO_ALLOW"),
            bounds=Bounds(
                configured.archive_max_bytes,
                configured.archive_file_s,
                configured.archive_connect_s,
                configured.archive_silent_s,
                configured.archive_slowest,
            ),
        ),
        shelf=Shelf.at(configured.archive.get_secret_value()),
        patience=ArchivePatience(
            configured.archive_first_s, configured.archive_max_s, configured.archive_for_s, configured.archive_lease_s
        ),
    )


def callback_secrets(configured: Settings) -> list[str]:
    """Return the root secrets that sign callbacks; empty if no secret is set."""
    if secrets := configured.callback_secret.get_secret_value().split():
        return secrets
    shared_secret = configured.secret.get_secret_value()
    return [signatures.callback_secret(shared_secret)] if shared_secret else []


def webhooks(configured: Settings) -> Webhooks | None:
    """Return the builder of webhook URLs; None without a public URL."""
    return Webhooks(configured.public_url, configured.secret.get_secret_value()) if configured.public_url else None


def limits(configured: Settings) -> Limits:
    """Return the configured limits of submission."""
    return Limits(configured.max_in_flight, configured.first_in_flight, configured.submit_rate, configured.credit_floor)


def _patience(configured: Settings) -> Patience:
    return Patience(
        charge_s=configured.charge_lease_s,
        poll_s=configured.charge_lease_s,
        stale_s=configured.stale_s,
        late_s=configured.late_s,
        cooldown_s=configured.cooldown_s,
        account_s=configured.credits_every_s,
    )
