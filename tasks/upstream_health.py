"""What upstream's answers mean for the orders of all jobs: who must wait, and how long.

What it says of one order or task alone is that job's own affair. Only orders that it refuses close the gate, or calls
that it does not answer; what it says of questions leads to a trial at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tasks.musicapi import (
    CannotPay,
    Forbidden,
    NoAnswer,
    NoConnection,
    SlowDown,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from voicequeue.domain.gate import Effect, Reason, Refusal
from voicequeue.domain.timeouts import Patience
from voicequeue.storage.flow_control import TROUBLE_MAX_S, Controls, Trouble

log = logging.getLogger("voicequeue")

#: The longest Retry-After that is believed, in seconds.
COOLDOWN_MAX_S = 300.0

#: How often one job is told to slow down, while others are taken, before it fails: limits hit some more often.
SLOW_TRIES = 8

#: What is asked about where it is no task.
BALANCE = "balance"

_CLOSED = {
    Reason.COOLDOWN: "upstream says: slow down (%s)",
    Reason.OUT_OF_CREDITS: "nothing is charged until the account can pay: %s. Add credits; it goes on by itself",
    Reason.UNAUTHORIZED: "nothing is charged, upstream forbids it: %s. One job is tried from time to time",
    Reason.UPSTREAM_DOWN: "nothing is charged, upstream does not answer: %s. It is tried again by itself",
}
_WRONG_KEY = "nothing is charged, the key is wrong: %s. Mend MUSICAPI_KEY, restart the workers, then: voicequeue resume"


class Health:
    """Tells all workers what this process learns from its calls. Safe to share between threads."""

    def __init__(self, controls: Controls, patience: Patience, clock: Callable[[], float]) -> None:
        self._controls = controls
        self._patience = patience
        self._clock = clock
        self._trouble = False

    def of_order(self, job_id: str, found: object) -> Refusal | None:
        """Note what came of an order; gives the refusal, if it may be meant for others too."""
        match found:
            case NoConnection() | NoAnswer():
                self._note({job_id: found})
            case UpstreamError() if reason := _reason(found):
                return self._refusal(found, reason)
            case _:
                self._answered()
        return None

    def of_questions(self, found: Mapping[str, object]) -> set[str]:
        """Note what was answered about tasks, by their jobs; gives those that upstream tells nothing of, alone."""
        silent = {job_id: error for job_id, error in found.items() if isinstance(error, UpstreamError)}
        silent = {job_id: error for job_id, error in silent.items() if _reason(error)}
        if len(silent) < len(found):
            self._answered()
            return set(silent)
        return self._note(silent)

    def of_balance(self, found: object) -> None:
        """Note what was answered about the account. What upstream refuses there says nothing of orders, but that it
        does not know the key."""
        match found:
            case Unauthorized() | Unavailable() | NoAnswer():
                self._note({BALANCE: found})
            case UpstreamError():
                pass
            case _:
                self._answered()

    def tell(self, job_id: str, refusal: Refusal, effect: Effect) -> None:
        """Log what follows for all orders from the refusal of this one."""
        text = _WRONG_KEY if refusal.most_s is None else _CLOSED[refusal.reason]
        _say(text, refusal.reason, refusal.message, effect, {"job": job_id})

    def _refusal(self, error: UpstreamError, reason: Reason) -> Refusal:
        cooldown, account = self._patience.cooldown_s, self._patience.account_s
        if isinstance(error, SlowDown):
            wait, most = self._wait(error), COOLDOWN_MAX_S
            return Refusal(reason, error.message, cooldown, most, rest_s=most, wait_s=wait, tries=SLOW_TRIES)
        most = TROUBLE_MAX_S if reason is Reason.UPSTREAM_DOWN else account
        return Refusal(reason, error.message, cooldown, None if isinstance(error, Unauthorized) else most, rest_s=most)

    def _note(self, errors: Mapping[str, UpstreamError]) -> set[str]:
        """Note calls about these that were not answered, or refused; gives those that are the only ones."""
        if not errors:
            return set()
        self._trouble = True
        troubles = [self._about(about, error) for about, error in errors.items()]
        effects = self._controls.trouble(troubles, self._clock(), wait=self._patience.cooldown_s)
        for (about, error), trouble, effect in zip(errors.items(), troubles, effects, strict=True):
            extra = {} if about == BALANCE else {"job": about}
            _say(_CLOSED[trouble.reason], trouble.reason, error.message, effect, extra)
        return {about for about, effect in zip(errors, effects, strict=True) if effect is Effect.ALONE}

    def _about(self, about: str, error: UpstreamError) -> Trouble:
        reason = _reason(error) or Reason.UPSTREAM_DOWN
        is_of_all = isinstance(error, NoConnection) or (about == BALANCE and isinstance(error, Unauthorized))
        wait = self._wait(error) or self._patience.cooldown_s if isinstance(error, SlowDown) else 0.0
        detail = f"{error.message} ({'get-credits' if about == BALANCE else f'job {about}'})"
        return Trouble("" if is_of_all else about, reason, detail, wait)

    def _wait(self, error: SlowDown) -> float:
        return min(error.retry_after or 0.0, COOLDOWN_MAX_S)

    def _answered(self) -> None:
        """Whatever it said, it is there."""
        if self._trouble:
            self._trouble = False
            self._controls.recovered()


def _reason(error: UpstreamError) -> Reason | None:
    """Why orders may have to wait after such an error; None where it is this request's alone."""
    match error:
        case SlowDown():
            return Reason.COOLDOWN
        case CannotPay():
            return Reason.OUT_OF_CREDITS
        case Unauthorized() | Forbidden():
            return Reason.UNAUTHORIZED
        case Unavailable() | NoAnswer():
            return Reason.UPSTREAM_DOWN
    return None


def _say(closed: str, reason: Reason, message: str, effect: Effect, extra: dict[str, str]) -> None:
    why = message.rstrip(".")
    if effect is Effect.CLOSED:
        log.log(logging.WARNING if reason is Reason.COOLDOWN else logging.ERROR, closed, why, extra=extra)
    elif effect is Effect.ON_TRIAL:
        log.warning("%s: %s. One order at a time is tried, beginning with others", reason, why, extra=extra)
