"""What each process says of itself with its pulse, so that somebody can see what does not fit together."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from config.settings import Settings
from voicequeue import signing

_STARTED = time.time()


def facts(chosen: Settings) -> Mapping[str, Any]:
    """Versions, when it started (Unix seconds), and marks of the settings that must be the same everywhere."""
    return {
        "version": version("voicequeue"),
        "celery": version("celery"),
        "python": platform.python_version(),
        "started": _STARTED,
        "marks": _marks(chosen),
    }


def _marks(chosen: Settings) -> dict[str, str]:
    """They tell whether two settings are the same, and nothing else, as long as nobody knows the queue's secret; where
    there is none, of other secrets nothing is told at all."""
    secret = chosen.secret.get_secret_value()
    open_to_all = {
        "VOICEQUEUE_SECRET": secret,
        "MUSICAPI_BASE_URL": chosen.musicapi_base_url,
        "VOICEQUEUE_PUBLIC_URL": chosen.public_url or "",
        "VOICEQUEUE_UNSURE": chosen.unsure,
        "VOICEQUEUE_REUSE": str(chosen.reuse),
        "VOICEQUEUE_KEEP_DAYS": str(chosen.keep_days),
    }
    kept = {
        "MUSICAPI_KEY": chosen.musicapi_key.get_secret_value(),
        "VOICEQUEUE_ARCHIVE": chosen.archive.get_secret_value(),
    }
    told = open_to_all | (kept if secret else {})
    return {name: signing.derive(secret, "mark", name, value)[:12] for name, value in told.items()}
