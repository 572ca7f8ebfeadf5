"""The settings VOICEQUEUE_AUDIO_…: limits of recordings, and timeouts of fetching them."""

from __future__ import annotations

import math
import os

from voicequeue.cli.terminal import CommandSetupError
from voicequeue.ingest.preflight import ALLOWED_HOSTS_SETTING, RecordingRules
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts


def read_audio_rules() -> RecordingRules:
    """Return the rules that the environment sets. Raises CannotBegin, which names the setting."""
    defaults = RecordingRules()
    return RecordingRules(
        policy=AddressPolicy.parse(os.environ.get(ALLOWED_HOSTS_SETTING) or "", setting=ALLOWED_HOSTS_SETTING),
        timeouts=HttpTimeouts(
            connect_s=_number("CONNECT_S", defaults.timeouts.connect_s),
            total_s=_number("WHOLE_S", defaults.timeouts.total_s),
            response_s=_number("ANSWER_S", defaults.timeouts.response_s),
            min_speed=1_000 * _number("LEAST_KB_S", defaults.timeouts.min_speed / 1_000),
            min_speed_window_s=_number("SLOW_S", defaults.timeouts.min_speed_window_s),
        ),
        max_bytes=round(1_000_000 * _number("MAX_MB", defaults.max_bytes / 1_000_000)),
        max_s=_number("MAX_S", defaults.max_s or math.inf),
        retry_delay_s=_number("AGAIN_S", defaults.retry_delay_s),
        max_concurrent=_count("AT_ONCE", defaults.max_concurrent),
        max_per_host=_count("PER_HOST", defaults.max_per_host),
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
        raise CommandSetupError(f"VOICEQUEUE_AUDIO_{name} must be a number above 0, not {text!r}")
    return value


def _count(name: str, default: int) -> int:
    value = _number(name, default)
    if value != int(value):
        raise CommandSetupError(f"VOICEQUEUE_AUDIO_{name} must be a whole number")
    return int(value)
