"""kombu's poller of connections to Redis, which notices lost ones also where there is no event loop, as in Flower."""

from __future__ import annotations

import time
from typing import Any

from kombu.transport.redis import MultiChannelPoller


class Poller(MultiChannelPoller):
    """Checks subscriptions too when nothing arrives; kombu's leaves that to a timer of the event loop."""

    _channels: set[Any]
    _in_protected_read: bool
    _checked_at = 0.0

    def maybe_check_brpop_health(self) -> None:
        """Check the blocking reads, and the subscriptions if no timer does."""
        super().maybe_check_brpop_health()  # type: ignore[misc]  # kombu's types leave it out
        now, interval_s = time.monotonic(), max(channel.health_check_interval for channel in self._channels)
        if self._in_protected_read and now - self._checked_at >= interval_s:
            self._checked_at = now
            self.maybe_check_subclient_health()
