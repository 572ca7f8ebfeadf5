"""The settings VOICEQUEUE_AUDIO_*: their names, defaults and descriptions, and the preflight rules that they make.

The only declaration of them: `ingest --preflight`, docs/reference/configuration.md and the doctor read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from voicequeue.ingest.preflight import ALLOWED_HOSTS_SETTING, RecordingRules
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts

_DEFAULTS = RecordingRules()


@dataclass(frozen=True, slots=True)
class AudioSetting:
    """One setting: its name in the environment, its default (None: no limit) and its description in Markdown."""

    name: str
    default: float | None
    description: str
    is_count: bool = False

    def value(self, environment: Mapping[str, str]) -> float:
        """Return the value that the environment gives, infinity for no limit. Raises ValueError, which names the
        setting."""
        text = environment.get(self.name)
        if not text:
            return math.inf if self.default is None else self.default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(f"{self.name} must be a number above 0, not {text!r}")
        if self.is_count and number != int(number):
            raise ValueError(f"{self.name} must be a whole number, not {text!r}")
        return number


_MAX_MB = AudioSetting(
    "VOICEQUEUE_AUDIO_MAX_MB", _DEFAULTS.max_bytes / 1_000_000, "Maximum size of a recording, in MB."
)
_MAX_DURATION_S = AudioSetting(
    "VOICEQUEUE_AUDIO_MAX_DURATION_S",
    _DEFAULTS.max_s,
    "Maximum duration of a recording, in seconds. Unset: no maximum (MusicAPI documents none).",
)
_CONNECT_TIMEOUT_S = AudioSetting(
    "VOICEQUEUE_AUDIO_CONNECT_TIMEOUT_S",
    _DEFAULTS.timeouts.connect_s,
    "Timeout for connecting to the host of a recording.",
)
_FIRST_BYTE_TIMEOUT_S = AudioSetting(
    "VOICEQUEUE_AUDIO_FIRST_BYTE_TIMEOUT_S", _DEFAULTS.timeouts.response_s, "Timeout for the first byte of a recording."
)
_TIMEOUT_S = AudioSetting(
    "VOICEQUEUE_AUDIO_TIMEOUT_S", _DEFAULTS.timeouts.total_s, "Timeout for a whole recording, connecting included."
)
_MIN_KB_PER_S = AudioSetting(
    "VOICEQUEUE_AUDIO_MIN_KB_PER_S",
    _DEFAULTS.timeouts.min_speed / 1_000,
    "Minimum download speed, in kB per second. A slower download is given up after `VOICEQUEUE_AUDIO_SLOW_TIMEOUT_S`.",
)
_SLOW_TIMEOUT_S = AudioSetting(
    "VOICEQUEUE_AUDIO_SLOW_TIMEOUT_S",
    _DEFAULTS.timeouts.min_speed_window_s,
    "How long a download may stay below the minimum speed.",
)
_RETRY_DELAY_S = AudioSetting(
    "VOICEQUEUE_AUDIO_RETRY_DELAY_S", _DEFAULTS.retry_delay_s, "Delay before a temporary failure is retried, once."
)
_CONCURRENCY = AudioSetting(
    "VOICEQUEUE_AUDIO_CONCURRENCY", _DEFAULTS.max_concurrent, "Recordings downloaded at once.", is_count=True
)
_CONCURRENCY_PER_HOST = AudioSetting(
    "VOICEQUEUE_AUDIO_CONCURRENCY_PER_HOST",
    _DEFAULTS.max_per_host,
    "Recordings downloaded at once from one host.",
    is_count=True,
)

AUDIO_SETTINGS = (
    *(_MAX_MB, _MAX_DURATION_S, _CONNECT_TIMEOUT_S, _FIRST_BYTE_TIMEOUT_S, _TIMEOUT_S),
    *(_MIN_KB_PER_S, _SLOW_TIMEOUT_S, _RETRY_DELAY_S, _CONCURRENCY, _CONCURRENCY_PER_HOST),
)


def rules_from(environment: Mapping[str, str]) -> RecordingRules:
    """Return the preflight rules that the environment sets. Raises ValueError, which names the setting."""
    return RecordingRules(
        policy=AddressPolicy.parse(environment.get(ALLOWED_HOSTS_SETTING) or "", setting=ALLOWED_HOSTS_SETTING),
        timeouts=HttpTimeouts(
            connect_s=_CONNECT_TIMEOUT_S.value(environment),
            total_s=_TIMEOUT_S.value(environment),
            response_s=_FIRST_BYTE_TIMEOUT_S.value(environment),
            min_speed=1_000 * _MIN_KB_PER_S.value(environment),
            min_speed_window_s=_SLOW_TIMEOUT_S.value(environment),
        ),
        max_bytes=round(1_000_000 * _MAX_MB.value(environment)),
        max_s=_MAX_DURATION_S.value(environment),
        retry_delay_s=_RETRY_DELAY_S.value(environment),
        max_concurrent=int(_CONCURRENCY.value(environment)),
        max_per_host=int(_CONCURRENCY_PER_HOST.value(environment)),
    )
