"""The facts that each process reports with its heartbeat, so that the doctor can find mismatches."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping, Set
from importlib.metadata import version
from typing import Any

from config.settings import Settings
from voicequeue.auth.callback_secrets import root_marks
from voicequeue.auth.signatures import mark
from voicequeue.domain.store_format import CURRENT
from voicequeue.storage.connection.redis_url import masked
from voicequeue.storage.format import KNOWN_FORMAT
from voicequeue.storage.heartbeats import CALLBACK_ROOTS, ROTATION_MARK
from voicequeue.storage.summaries import KEEPS_SUMMARIES
from voicequeue.version import VERSION
from workers.dependencies import callback_secrets

#: Facts of a heartbeat: the load of the host in the last minute, and the number of its processors.
LOAD, CPUS = "load", "cpus"

#: Facts of a heartbeat: how many tasks a process runs at once, how many it runs now, and the jobs in these.
CONCURRENCY, ACTIVE_TASKS, IN_PROGRESS = "concurrency", "active_tasks", "in_progress"

_STARTED = time.time()

_OF_WORKERS = frozenset(
    {
        "MUSICAPI_BASE_URL",
        "MUSICAPI_KEY",
        "VOICEQUEUE_ARCHIVE_URL",
        "VOICEQUEUE_CHECK_RECORDINGS",
        "VOICEQUEUE_REQUIRE_CONSENT",
        "VOICEQUEUE_REPLICAS_ACK",
        "VOICEQUEUE_RETENTION_DAYS",
        "VOICEQUEUE_PUBLIC_URL",
        "VOICEQUEUE_REUSE_VOICES",
        "VOICEQUEUE_SECRET",
        "VOICEQUEUE_UNSURE_POLICY",
    }
)

#: The settings that must be the same everywhere, by the kinds of process that use them. A process reports no others:
#: it gets no secret that it does not need.
REPORTED_SETTINGS: Mapping[str, Set[str]] = {
    "worker": _OF_WORKERS,
    "doctor": _OF_WORKERS,
    "gateway": frozenset({"VOICEQUEUE_CALLBACK_SECRET", "VOICEQUEUE_PUBLIC_URL", "VOICEQUEUE_SECRET"}),
    "callbacks": frozenset({"VOICEQUEUE_CALLBACK_SECRET"}),
    "archive": frozenset({"VOICEQUEUE_ARCHIVE_URL"}),
}


def process_facts(configured: Settings, kind: str) -> Mapping[str, Any]:
    """Return the host, the id and the start (Unix seconds) of this process, the versions, the format that this release
    knows, and the marks of its settings that must be the same everywhere."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": VERSION,
        KNOWN_FORMAT: CURRENT.version,
        KEEPS_SUMMARIES: True,
        "celery": version("celery"),
        "python": platform.python_version(),
        "started": _STARTED,
        "marks": {name: text for name, text in _marks(configured).items() if name in REPORTED_SETTINGS[kind]},
        **_old_secret(configured, kind),
        **({CALLBACK_ROOTS: root_marks(callback_secrets(configured))} if kind == "callbacks" else {}),
    }


def host_facts() -> Mapping[str, Any]:
    """Return the load of this host and the number of its processors; nothing where the system does not report it."""
    if not hasattr(os, "getloadavg"):
        return {}
    return {LOAD: round(os.getloadavg()[0], 1), CPUS: os.cpu_count() or 1}


def _old_secret(configured: Settings, kind: str) -> dict[str, str]:
    """Return the mark of the old value of the secret, while the process accepts one."""
    _, *old = configured.secrets or ("",)
    if not old or "VOICEQUEUE_SECRET" not in REPORTED_SETTINGS[kind]:
        return {}
    return {ROTATION_MARK: mark(old[0], "VOICEQUEUE_SECRET", old[0])}


def _marks(configured: Settings) -> dict[str, str]:
    """Return a mark per setting. Only long random secrets are used as keys."""
    secret, callback_secret = configured.signing_secret, " ".join(callback_secrets(configured))
    public = {
        "MUSICAPI_BASE_URL": masked(configured.musicapi_base_url),
        "VOICEQUEUE_ARCHIVE_URL": masked(configured.archive_url.get_secret_value()),
        "VOICEQUEUE_CHECK_RECORDINGS": str(configured.check_recordings),
        "VOICEQUEUE_REQUIRE_CONSENT": str(configured.require_consent),
        "VOICEQUEUE_REPLICAS_ACK": str(configured.replicas_ack),
        "VOICEQUEUE_RETENTION_DAYS": str(configured.retention_days),
        "VOICEQUEUE_PUBLIC_URL": masked(configured.public_url or ""),
        "VOICEQUEUE_REUSE_VOICES": str(configured.reuse_voices),
        "VOICEQUEUE_UNSURE_POLICY": configured.unsure_policy,
    }
    marks = {name: mark("", name, value) for name, value in public.items()}
    marks["VOICEQUEUE_SECRET"] = mark(secret, "VOICEQUEUE_SECRET", secret)
    marks["VOICEQUEUE_CALLBACK_SECRET"] = mark(callback_secret, "VOICEQUEUE_CALLBACK_SECRET", callback_secret)
    if secret:
        marks["MUSICAPI_KEY"] = mark(secret, "MUSICAPI_KEY", configured.musicapi_key.get_secret_value())
    return marks
