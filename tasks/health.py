"""What upstream's answers mean for everybody's charges: who must wait, and how long."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tasks.musicapi import CannotPay, Forbidden, NoAnswer, SlowDown, Unauthorized, Unavailable, UpstreamError
from voicequeue.controls import Controls
from voicequeue.flow import Patience
from voicequeue.gate import Reason

log = logging.getLogger("voicequeue")

#: The longest Retry-After that is believed, in seconds.
COOLDOWN_MAX_S = 3600.0


class Health:
    """Tells all workers what this process learns from its calls. Safe to share between threads."""

    def __init__(self, controls: Controls, patience: Patience, clock: Callable[[], float]) -> None:
        self._controls = controls
        self._patience = patience
        self._clock = clock
        self._trouble = False

    def of_order(self, found: object) -> None:
        """Hear what came of a call that costs credits: what was answered, or the error."""
        self._hear(found, self._slow_down)

    def of_question(self, found: object) -> None:
        """Hear what came of a call that is free."""
        self._hear(found, self._pause)

    def _hear(self, found: object, slowly: Callable[[SlowDown, float], bool]) -> None:
        if isinstance(found, UpstreamError):
            self._heed(found, slowly)
        else:
            self._answered()

    def _heed(self, error: UpstreamError, slowly: Callable[[SlowDown, float], bool]) -> None:
        """Close the gate where the error is everybody's, and say so once."""
        now, why = self._clock(), error.message.rstrip(".")
        match error:
            case SlowDown():
                if slowly(error, now):
                    log.warning("upstream says: slow down (%s)", why)
            case CannotPay():
                if self._controls.close(Reason.OUT_OF_CREDITS, error.message, now):
                    log.error(
                        "nothing is charged until the account can pay: %s. Add credits; it goes on by itself", why
                    )
            case Forbidden():
                if self._controls.close(Reason.UNAUTHORIZED, error.message, now, now + self._patience.account_s):
                    log.error("nothing is charged, upstream forbids it: %s. One job is tried each minute", why)
            case Unauthorized():
                if self._controls.close(Reason.UNAUTHORIZED, error.message, now):
                    log.error(
                        "nothing is charged, the key is wrong: %s. Mend MUSICAPI_KEY, restart the workers, "
                        "then: voicequeue resume",
                        why,
                    )
            case Unavailable() | NoAnswer():
                self._trouble = True
                if self._controls.trouble(error.message, now, wait=self._patience.cooldown_s):
                    log.error("nothing is charged, upstream does not answer: %s. It is tried again by itself", why)
            case _:
                self._answered()

    def _slow_down(self, error: SlowDown, now: float) -> bool:
        return self._controls.slow_down(error.message, now, wait=self._wait(error))

    def _pause(self, error: SlowDown, now: float) -> bool:
        return self._controls.close(Reason.COOLDOWN, error.message, now, now + self._wait(error))

    def _wait(self, error: SlowDown) -> float:
        return min(error.retry_after or self._patience.cooldown_s, COOLDOWN_MAX_S)

    def _answered(self) -> None:
        """Whatever it said, it is there."""
        if self._trouble:
            self._trouble = False
            self._controls.recovered()
