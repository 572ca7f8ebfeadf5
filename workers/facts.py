"""What each process says of itself with its pulse, so that somebody can see what does not fit together."""

from __future__ import annotations

import hashlib
import hmac
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from config.settings import Settings

_STARTED = time.time()


def facts(chosen: Settings) -> Mapping[str, Any]:
    """Versions, when it started (Unix seconds), and marks of the settings that must be the same everywhere.

    A mark tells whether two settings are the same, and nothing else: it is made with the queue's secret.
    """
    return {
        "version": version("voicequeue"),
        "celery": version("celery"),
        "python": platform.python_version(),
        "started": _STARTED,
        "marks": {
            "VOICEQUEUE_SECRET": _mark(chosen, "secret"),
            "MUSICAPI_KEY": _mark(chosen, chosen.musicapi_key.get_secret_value()),
            "MUSICAPI_BASE_URL": _mark(chosen, chosen.musicapi_base_url),
            "VOICEQUEUE_PUBLIC_URL": _mark(chosen, chosen.public_url or ""),
            "VOICEQUEUE_UNSURE": _mark(chosen, chosen.unsure),
            "VOICEQUEUE_REUSE": _mark(chosen, str(chosen.reuse)),
            "VOICEQUEUE_ARCHIVE": _mark(chosen, chosen.archive.get_secret_value()),
        },
    }


def _mark(chosen: Settings, value: str) -> str:
    # Slow to try values on: who reads Redis shall not guess a key by it.
    salt = b"voicequeue.facts" + chosen.secret.get_secret_value().encode()
    key = hashlib.scrypt(value.encode(), salt=salt, n=2**12, r=8, p=1, dklen=16)
    return hmac.new(key, b"mark", "sha256").hexdigest()[:12]
