"""Builds what the steps work with from the settings, once in each process."""

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

#: How long (seconds) each call keeps trying while Redis is away: a task id that was paid for must not
#: be dropped. Threads outlive the time limit of their task; only what else they could do waits.
STORE_WAIT_S = 600.0

#: Callbacks on their way at once, in one process.
CALLBACK_THREADS = 32


def services() -> Services:
    """This process's services. A forked child builds its own: sockets and threads are not shared."""
    return _services_of(os.getpid())


@lru_cache(maxsize=1)
def _services_of(pid: int) -> Services:  # noqa: ARG001  the key of the cache
    return replace(build(settings()), stopping=lifeline.is_cut)


def callback_services() -> CallbackServices:
    """What this process delivers callbacks with."""
    return _callback_services_of(os.getpid())


@lru_cache(maxsize=1)
def _callback_services_of(pid: int) -> CallbackServices:  # noqa: ARG001  the key of the cache
    return build_callbacks(settings())


def archive_services() -> ArchiveServices:
    """What this process archives with. Raises Unusable."""
    return _archive_services_of(os.getpid())


@lru_cache(maxsize=1)
def _archive_services_of(pid: int) -> ArchiveServices:  # noqa: ARG001  the key of the cache
    return build_archive(settings())


def last_words(**_: object) -> None:
    """What this process has counted and not told yet, before it ends; as Celery's signals call it."""
    if _services_of.cache_info().currsize:
        services().store.tally.flush()
    if _callback_services_of.cache_info().currsize:
        callback_services().tally.flush()


def build(chosen: Settings) -> Services:
    """Services as the settings say."""
    store = Store(
        connect(chosen.redis_url, wait_s=STORE_WAIT_S),
        chosen.prefix,
        limits=limits(chosen),
        reuse=chosen.reuse,
        archives=bool(chosen.archive.get_secret_value()),
    )
    return Services(
        store=store,
        upstream=MusicApi(
            chosen.musicapi_base_url,
            chosen.musicapi_key.get_secret_value(),
            connect_s=chosen.connect_timeout_s,
            answer_s=chosen.answer_timeout_s,
            connections=chosen.http_threads,
            heard=partial(_tell, store.tally),
        ),
        clock=store.clock,
        plan=PollPlan(chosen.poll_min_s, chosen.poll_max_s),
        patience=_patience(chosen),
        chunk=chosen.chunk,
        webhooks=webhooks(chosen),
        span=tracing.spans(),
        deadlines={Stage.VOICE: chosen.voice_deadline_s, Stage.MUSIC: chosen.music_deadline_s},
    )


def _tell(tally: Tally, operation: str, outcome: str, seconds: float) -> None:
    tally.count("call", operation, outcome)
    tally.measure("call", operation, seconds)


def build_callbacks(chosen: Settings) -> CallbackServices:
    """What callbacks are delivered with, as the settings say."""
    store = Store(connect(chosen.redis_url, wait_s=STORE_WAIT_S), chosen.prefix)
    return CallbackServices(
        callbacks=store.callbacks,
        clock=store.clock,
        pulses=store.pulses["callbacks"],
        tally=store.tally,
        sender=Sender(
            callback_secrets(chosen),
            allowed=Allowed.of(chosen.callback_allow, setting="VOICEQUEUE_CALLBACK_ALLOW"),
            times=Times(chosen.callback_connect_s, chosen.callback_answer_s),
        ),
        hosts=Hosts(rest_s=chosen.callback_rest_s),
        threads=ThreadPoolExecutor(CALLBACK_THREADS, thread_name_prefix="callback"),
        patience=CallbackPatience(
            chosen.callback_first_s,
            chosen.callback_max_s,
            chosen.callback_for_s,
            # A try begins within `lane_s` of its claim, and is over within one `answer_s`: the rest is for pauses.
            lease_s=4 * chosen.callback_answer_s,
            lane_s=chosen.callback_answer_s,
        ),
    )


def build_archive(chosen: Settings) -> ArchiveServices:
    """What songs are archived with, as the settings say. Raises Unusable."""
    store = Store(connect(chosen.redis_url, wait_s=STORE_WAIT_S), chosen.prefix)
    return ArchiveServices(
        archive=store.archive,
        clock=store.clock,
        pulses=store.pulses["archive"],
        fetcher=Fetcher(
            allowed=Allowed.of(chosen.audio_allow, setting="VOICEQUEUE_AUDIO_ALLOW"),
            bounds=Bounds(
                chosen.archive_max_bytes,
                chosen.archive_file_s,
                chosen.archive_connect_s,
                chosen.archive_silent_s,
                chosen.archive_slowest,
            ),
        ),
        shelf=Shelf.at(chosen.archive.get_secret_value()),
        patience=ArchivePatience(
            chosen.archive_first_s, chosen.archive_max_s, chosen.archive_for_s, chosen.archive_lease_s
        ),
    )


def callback_secrets(chosen: Settings) -> list[str]:
    """What callbacks are signed with; nothing where no secret is set."""
    if own := chosen.callback_secret.get_secret_value().split():
        return own
    common = chosen.secret.get_secret_value()
    return [signatures.callback_secret(common)] if common else []


def webhooks(chosen: Settings) -> Webhooks | None:
    """How upstream reaches us, if it can."""
    return Webhooks(chosen.public_url, chosen.secret.get_secret_value()) if chosen.public_url else None


def limits(chosen: Settings) -> Limits:
    """How much is charged at most."""
    return Limits(chosen.max_in_flight, chosen.first_in_flight, chosen.submit_rate, chosen.credit_floor)


def _patience(chosen: Settings) -> Patience:
    return Patience(
        charge_s=chosen.charge_lease_s,
        poll_s=chosen.charge_lease_s,
        stale_s=chosen.stale_s,
        late_s=chosen.late_s,
        cooldown_s=chosen.cooldown_s,
        account_s=chosen.credits_every_s,
    )
