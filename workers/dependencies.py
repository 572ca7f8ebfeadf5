"""Builds the services of the tasks from the settings, once per process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial

from config import tracing
from config.settings import Settings, SettingsError, settings
from tasks.archive.downloader import Downloader, DownloadLimits
from tasks.archive.storage import ArchiveStorage
from tasks.archive.task import ArchiveServices
from tasks.callbacks.delivery import CallbackServices
from tasks.callbacks.host_limiter import HostLimiter
from tasks.callbacks.sender import Sender
from tasks.callbacks.signing import CallbackSigner
from tasks.context import TaskContext
from tasks.musicapi import MusicApi
from tasks.process_lock import ProcessLock
from tasks.recordings import RecordingChecks
from tasks.sources import RecordingSources
from tasks.webhooks import Webhooks
from voicequeue.auth import signatures
from voicequeue.domain.gate import Limits
from voicequeue.domain.poll_schedule import PollSchedulePolicy
from voicequeue.domain.stage import Stage
from voicequeue.domain.timeouts import ArchiveTimeouts, CallbackTimeouts, CheckTimeouts, Timeouts
from voicequeue.ingest.audio_settings import rules_from
from voicequeue.ingest.preflight import ALLOWED_HOSTS_SETTING
from voicequeue.ingest.recording_head import HeadChecker
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.metrics import MetricsCounter
from workers.lifeline import lifeline

#: Seconds for which each call retries while Redis is unavailable: a task id that was paid for must not be lost.
#: Threads outlive the time limit of their task; only further work waits.
REDIS_RETRY_S = 600.0

#: Held by the process of this worker that repeats polls; opened before the processes are forked.
repeating = ProcessLock()

#: The longest time for the check of one recording, in seconds.
CHECK_TOTAL_S = 30.0

#: The number of callbacks that one process sends at once.
CALLBACK_THREADS = 32


def services() -> TaskContext:
    """Return the services of this process. A forked child builds its own: sockets and threads are not shared."""
    return _services_of(os.getpid())


@lru_cache(maxsize=1)
def _services_of(pid: int) -> TaskContext:  # noqa: ARG001  the key of the cache
    return replace(build_services(settings()), is_stopping=lifeline.is_cut, repeating=repeating)


def callback_services() -> CallbackServices:
    """Return the callback services of this process."""
    return _callback_services_of(os.getpid())


@lru_cache(maxsize=1)
def _callback_services_of(pid: int) -> CallbackServices:  # noqa: ARG001  the key of the cache
    return build_callbacks(settings())


def archive_services() -> ArchiveServices:
    """Return the archive services of this process. Raises ArchiveStorageError."""
    return _archive_services_of(os.getpid())


@lru_cache(maxsize=1)
def _archive_services_of(pid: int) -> ArchiveServices:  # noqa: ARG001  the key of the cache
    return build_archive(settings())


def flush_metrics(**_: object) -> None:
    """Write this process's remaining metrics to Redis before it exits; a handler of Celery's signals."""
    if _services_of.cache_info().currsize:
        services().store.metrics.flush()
    if _callback_services_of.cache_info().currsize:
        callback_services().metrics.flush()


def close_upstream(**_: object) -> None:
    """Close the main process's connections to upstream before it exits; a handler of Celery's signals."""
    if _services_of.cache_info().currsize:
        services().upstream.close()


def build_services(configured: Settings) -> TaskContext:
    """Build the services of the tasks from the settings."""
    store = JobStore(
        connect(configured.redis_url, wait_s=REDIS_RETRY_S, prefix=configured.prefix),
        configured.prefix,
        limits=build_limits(configured),
        reuse=configured.reuse_voices,
        archives=bool(configured.archive_url.get_secret_value()),
        replicas_ack=configured.replicas_ack,
    )
    sources = build_sources(configured)
    return TaskContext(
        store=store,
        upstream=MusicApi(
            configured.musicapi_base_url,
            configured.musicapi_key.get_secret_value(),
            connect_s=configured.upstream_connect_timeout_s,
            answer_s=configured.upstream_response_timeout_s,
            connections=configured.upstream_concurrency,
            on_request=partial(_count_request, store.metrics),
        ),
        clock=store.clock,
        poll_plan=PollSchedulePolicy(configured.poll_min_interval_s, configured.poll_max_interval_s),
        timeouts=_timeouts(configured),
        chunk_size=configured.task_chunk_size,
        webhooks=build_webhooks(configured),
        sources=sources,
        recordings=build_recording_checks(configured, store, sources) if configured.check_recordings else None,
        span=tracing.span_factory(),
        deadlines={Stage.VOICE: configured.voice_deadline_s, Stage.MUSIC: configured.music_deadline_s},
    )


def build_sources(configured: Settings) -> RecordingSources:
    """Build the links to recordings from the settings."""
    return RecordingSources(
        tuple(configured.signed_buckets.replace(",", " ").split()),
        configured.signed_link_ttl_s,
        AddressPolicy.parse(configured.audio_allowed_hosts, setting=ALLOWED_HOSTS_SETTING),
    )


def build_recording_checks(configured: Settings, store: JobStore, sources: RecordingSources) -> RecordingChecks:
    """Build the checks of recordings from the settings. Raises SettingsError."""
    try:
        rules = rules_from(os.environ)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    policy = AddressPolicy.parse(configured.audio_allowed_hosts, setting=ALLOWED_HOSTS_SETTING)
    times = replace(rules.timeouts, total_s=min(rules.timeouts.total_s, CHECK_TOTAL_S))
    return RecordingChecks(
        HeadChecker(replace(rules, policy=policy, timeouts=times)),
        store.recordings,
        store.metrics,
        sources=sources,
        clock=store.clock,
        timeouts=CheckTimeouts(
            backoff_initial_s=configured.check_backoff_initial_s, give_up_after_s=configured.check_retry_window_s
        ),
    )


def _count_request(metrics: MetricsCounter, operation: str, outcome: str, seconds: float) -> None:
    metrics.increment("upstream_request", operation, outcome)
    metrics.observe("upstream_request", operation, seconds)


def build_callbacks(configured: Settings) -> CallbackServices:
    """Build the callback services from the settings."""
    store = JobStore(connect(configured.redis_url, wait_s=REDIS_RETRY_S, prefix=configured.prefix), configured.prefix)
    return CallbackServices(
        callbacks=store.callbacks,
        clock=store.clock,
        heartbeats=store.heartbeats["callbacks"],
        metrics=store.metrics,
        signer=CallbackSigner(callback_secrets(configured), store.callback_secrets),
        sender=Sender(
            allowed=AddressPolicy.parse(configured.callback_allowed_hosts, setting="VOICEQUEUE_CALLBACK_ALLOWED_HOSTS"),
            times=HttpTimeouts(configured.callback_connect_timeout_s, configured.callback_timeout_s),
        ),
        host_limiter=HostLimiter(pause_s=configured.callback_host_cooldown_s),
        threads=ThreadPoolExecutor(CALLBACK_THREADS, thread_name_prefix="callback"),
        timeouts=CallbackTimeouts(
            configured.callback_backoff_initial_s,
            configured.callback_backoff_max_s,
            configured.callback_retry_window_s,
            # An attempt starts within `start_window_s` of its claim and takes at most `callback_timeout_s`; the
            # rest is a margin.
            lease_s=4 * configured.callback_timeout_s,
            start_window_s=configured.callback_timeout_s,
        ),
    )


def build_archive(configured: Settings) -> ArchiveServices:
    """Build the archive services from the settings. Raises ArchiveStorageError."""
    store = JobStore(connect(configured.redis_url, wait_s=REDIS_RETRY_S, prefix=configured.prefix), configured.prefix)
    return ArchiveServices(
        archive=store.archive,
        erasure=store.erasure,
        clock=store.clock,
        heartbeats=store.heartbeats["archive"],
        downloader=Downloader(
            allowed=AddressPolicy.parse(configured.audio_allowed_hosts, setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS"),
            bounds=DownloadLimits(
                configured.archive_max_file_bytes,
                configured.archive_file_timeout_s,
                configured.archive_connect_timeout_s,
                configured.archive_read_timeout_s,
                configured.archive_min_bytes_per_s,
            ),
        ),
        storage=ArchiveStorage.from_url(configured.archive_url.get_secret_value()),
        timeouts=ArchiveTimeouts(
            configured.archive_backoff_initial_s,
            configured.archive_backoff_max_s,
            configured.archive_retry_window_s,
            configured.archive_lease_s,
        ),
    )


def callback_secrets(configured: Settings) -> list[str]:
    """Return the root secrets that sign callbacks; empty if no secret is set. Each of them signs every callback."""
    if secrets := configured.callback_secret.get_secret_value().split():
        return secrets
    return [signatures.callback_secret(secret) for secret in configured.secrets]


def build_webhooks(configured: Settings) -> Webhooks | None:
    """Return the builder of webhook URLs; None without a public URL."""
    return Webhooks(configured.public_url, configured.signing_secret) if configured.public_url else None


def build_limits(configured: Settings) -> Limits:
    """Return the configured limits of submission."""
    return Limits(
        configured.max_in_flight, configured.initial_in_flight, configured.submit_rate, configured.min_balance
    )


def _timeouts(configured: Settings) -> Timeouts:
    return Timeouts(
        submit_lease_s=configured.submit_lease_s,
        poll_lease_s=configured.submit_lease_s,
        redispatch_after_s=configured.overdue_after_s,
        late_result_ttl_s=configured.late_result_ttl_s,
        cooldown_s=configured.cooldown_s,
        account_hold_s=configured.balance_interval_s,
    )
