"""The settings VOICEQUEUE_AUDIO_…: limits of recordings, and timeouts of fetching them."""

from __future__ import annotations

import math
import os

from voicequeue.cli.terminal import CannotBegin
from voicequeue.ingest.preflight import SETTING, Rules
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Times


def audio_rules() -> Rules:
    """Return the rules that the environment sets. Raises CannotBegin, which names the setting."""
    defaults = Rules()
    return Rules(
        allowed=Allowed.of(os.environ.get(SETTING) or "", setting=SETTING),
        times=Times(
            connect_s=_number("CONNECT_S", defaults.times.connect_s),
            whole_s=_number("WHOLE_S", defaults.times.whole_s),
            answer_s=_number("ANSWER_S", defaults.times.answer_s),
            least_speed=1_000 * _number("LEAST_KB_S", defaults.times.least_speed / 1_000),
            slow_s=_number("SLOW_S", defaults.times.slow_s),
        ),
        max_bytes=round(1_000_000 * _number("MAX_MB", defaults.max_bytes / 1_000_000)),
        max_s=_number("MAX_S", defaults.max_s or math.inf),
        again_s=_number("AGAIN_S", defaults.again_s),
        at_once=_count("AT_ONCE", defaults.at_once),
        per_host=_count("PER_HOST", defaults.per_host),
    )


def _number(name: str, default: float | None) -> float:
    text = os.environ.get(f"VOICEQUEUE_AUDIO_{name}")
    if not text:
        return math.inf if default is None else default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise CannotBegin(f"VOICEQUEUE_AUDIO_{name} must be a number above 0, not {text!r}")
    return value


def _count(name: str, default: int) -> int:
    value = _number(name, default)
    if value != int(value):
        raise CannotBegin(f"VOICEQUEUE_AUDIO_{name} must be a whole number")
    return int(value)
