"""What each process says of itself with its pulse, so that somebody can see what does not fit together."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Set
from importlib.metadata import version
from typing import Any

from config.settings import Settings
from voicequeue.auth import signatures
from voicequeue.storage.connection.redis_url import masked
from workers.dependencies import callback_secrets

_STARTED = time.time()

_OF_WORKERS = frozenset(
    {
        "MUSICAPI_BASE_URL",
        "MUSICAPI_KEY",
        "VOICEQUEUE_ARCHIVE",
        "VOICEQUEUE_KEEP_DAYS",
        "VOICEQUEUE_PUBLIC_URL",
        "VOICEQUEUE_REUSE",
        "VOICEQUEUE_SECRET",
        "VOICEQUEUE_UNSURE",
    }
)

#: The settings that each kind of process works with, of those that must be the same everywhere. It reports no others:
#: a process is given no secret that it does not need.
REPORTED: Mapping[str, Set[str]] = {
    "worker": _OF_WORKERS,
    "doctor": _OF_WORKERS,
    "gateway": frozenset({"VOICEQUEUE_PUBLIC_URL", "VOICEQUEUE_SECRET"}),
    "callbacks": frozenset({"VOICEQUEUE_CALLBACK_SECRET"}),
    "archive": frozenset({"VOICEQUEUE_ARCHIVE"}),
}


def facts(chosen: Settings, kind: str) -> Mapping[str, Any]:
    """Return versions, when this process of that kind started (Unix seconds), and marks of the settings that must be
    the same everywhere."""
    return {
        "version": version("voicequeue"),
        "celery": version("celery"),
        "python": platform.python_version(),
        "started": _STARTED,
        "marks": {name: mark for name, mark in _marks(chosen).items() if name in REPORTED[kind]},
    }


def _marks(chosen: Settings) -> dict[str, str]:
    """Return what tells whether two settings are the same, and nothing else: whoever reads Redis could try out what a
    secret may be, so that only long random ones are used as keys."""
    secret, signs = chosen.secret.get_secret_value(), " ".join(callback_secrets(chosen))
    public = {
        "MUSICAPI_BASE_URL": masked(chosen.musicapi_base_url),
        "VOICEQUEUE_ARCHIVE": masked(chosen.archive.get_secret_value()),
        "VOICEQUEUE_KEEP_DAYS": str(chosen.keep_days),
        "VOICEQUEUE_PUBLIC_URL": masked(chosen.public_url or ""),
        "VOICEQUEUE_REUSE": str(chosen.reuse),
        "VOICEQUEUE_UNSURE": chosen.unsure,
    }
    marks = {name: _mark("", name, value) for name, value in public.items()}
    marks["VOICEQUEUE_SECRET"] = _mark(secret, "VOICEQUEUE_SECRET", secret)
    marks["VOICEQUEUE_CALLBACK_SECRET"] = _mark(signs, "VOICEQUEUE_CALLBACK_SECRET", signs)
    if secret:
        marks["MUSICAPI_KEY"] = _mark(secret, "MUSICAPI_KEY", chosen.musicapi_key.get_secret_value())
    return marks


def _mark(key: str, name: str, value: str) -> str:
    return signatures.derive(key, "mark", name, value)[:12]
