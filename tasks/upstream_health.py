"""Effect of upstream's answers on the orders of all jobs: which errors hold them back, and for how long.

An error about one order or task concerns that job only, until others get the same. Refused orders, unanswered requests
and rate limits close the gate; other answers to polls lead to a trial at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tasks.musicapi import (
    AmbiguousFailure,
    ConnectionFailed,
    Forbidden,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from voicequeue.domain.gate import HoldEffect, HoldReason, Refusal
from voicequeue.domain.timeouts import Timeouts
from voicequeue.storage.flow_control import UPSTREAM_HOLD_MAX_S, FlowControl, UpstreamFailure

log = logging.getLogger("voicequeue")

#: Maximum Retry-After that is respected, in seconds.
COOLDOWN_MAX_S = 300.0

#: How often one order may be rate limited while others are accepted before its job fails. Higher than for other
#: refusals, as a limit may hit some orders more often.
RATE_LIMITED_MAX = 8

#: The longest time between two attempts to send an order while Redis's replicas do not record its claim, in seconds.
UNREPLICATED_HOLD_MAX_S = 30.0

#: After this time without another such attempt, the replicas are taken to have recorded claims again, in seconds.
UNREPLICATED_GAP_S = 60.0

#: Subject of a failed balance request, in place of a job id.
BALANCE = "balance"

_CLOSED = {
    HoldReason.COOLDOWN: "upstream rate limit (%s)",
    HoldReason.OUT_OF_CREDITS: "charging is suspended until the account can pay: %s. Add credits; it resumes by itself",
    HoldReason.UNAUTHORIZED: "charging is suspended, upstream denies access: %s. One job is tried from time to time",
    HoldReason.UPSTREAM_DOWN: "charging is suspended, upstream does not answer: %s. It is retried automatically",
}
_WRONG_KEY = (
    "charging is suspended, the key is wrong: %s. Fix MUSICAPI_KEY, restart the workers, then run: voicequeue resume"
)


class UpstreamHealth:
    """Reports what this process learns about upstream to all workers. Safe to share between threads."""

    def __init__(self, flow_control: FlowControl, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self._flow_control = flow_control
        self._timeouts = timeouts
        self._clock = clock
        self._has_failures = False
        #: While Redis's replicas record no claims: since when, and until when orders are held (as the clock).
        self._unreplicated_since = self._unreplicated_until = 0.0

    def report_order(self, job_id: str, result: object) -> Refusal | None:
        """Report the result of an order; return the refusal if it may apply to other orders too."""
        match result:
            case ConnectionFailed() | AmbiguousFailure():
                self._report_failures({job_id: result})
            case UpstreamError() if reason := _reason(result):
                return self._refusal(result, reason)
            case _:
                self._report_recovery()
        return None

    def report_polls(self, results: Mapping[str, object]) -> set[str]:
        """Report the results of polls by job id; return the jobs whose polls alone failed."""
        errors = {job_id: error for job_id, error in results.items() if isinstance(error, UpstreamError)}
        failures = {job_id: error for job_id, error in errors.items() if _reason(error)}
        if len(failures) < len(results):
            self._report_recovery()
            return set(failures)
        return self._report_failures(failures)

    def report_balance(self, result: object) -> None:
        """Report the result of a balance request. Of its errors, only a wrong key says anything about orders."""
        match result:
            case Unauthorized() | Unavailable() | AmbiguousFailure():
                self._report_failures({BALANCE: result})
            case UpstreamError():
                pass
            case _:
                self._report_recovery()

    def report_unreplicated(self) -> None:
        """Suspend charging for a moment, because Redis has too few replicas that record claims in time.

        Then orders are tried, the more rarely the longer this lasts: each attempt writes to the timelines of jobs.
        """
        now = self._clock()
        if now > self._unreplicated_until + UNREPLICATED_GAP_S:
            self._unreplicated_since = now
        lasting_s = now - self._unreplicated_since
        hold_s = max(self._timeouts.cooldown_s, min(lasting_s / 2, UNREPLICATED_HOLD_MAX_S))
        self._unreplicated_until = now + hold_s
        detail = "Redis's replicas do not acknowledge claims in time; VOICEQUEUE_REPLICAS_ACK requires it"
        if self._flow_control.add_hold(HoldReason.UNREPLICATED, detail, now, now + hold_s):
            log.error("charging is suspended: %s. It is tried again automatically", detail)

    def report_replicated(self) -> None:
        """Count the next time without replicas from its own start: this one has ended."""
        self._unreplicated_until = -UNREPLICATED_GAP_S

    def log_refusal(self, job_id: str, refusal: Refusal, effect: HoldEffect) -> None:
        """Log the effect of a refused order on all orders."""
        text = _WRONG_KEY if refusal.max_hold_s is None else _CLOSED[refusal.reason]
        _log_effect(text, refusal.reason, refusal.message, effect, {"job": job_id})

    def _refusal(self, error: UpstreamError, reason: HoldReason) -> Refusal:
        cooldown_s, account_s = self._timeouts.cooldown_s, self._timeouts.account_hold_s
        if isinstance(error, RateLimited):
            wait_s, max_s = self._retry_after_s(error), COOLDOWN_MAX_S
            return Refusal(
                reason,
                error.message,
                cooldown_s,
                max_s,
                max_rest_s=max_s,
                wait_s=wait_s,
                max_attempts=RATE_LIMITED_MAX,
            )
        max_s = UPSTREAM_HOLD_MAX_S if reason is HoldReason.UPSTREAM_DOWN else account_s
        most_s = None if isinstance(error, Unauthorized) else max_s
        return Refusal(reason, error.message, cooldown_s, most_s, max_rest_s=max_s)

    def _report_failures(self, errors: Mapping[str, UpstreamError]) -> set[str]:
        """Report failed or refused requests by subject; return those that no other request shares."""
        if not errors:
            return set()
        self._has_failures = True
        failures = [self._failure(subject, error) for subject, error in errors.items()]
        effects = self._flow_control.record_failures(failures, self._clock(), initial_hold_s=self._timeouts.cooldown_s)
        for (subject, error), failure, effect in zip(errors.items(), failures, effects, strict=True):
            extra = {} if subject == BALANCE else {"job": subject}
            _log_effect(_CLOSED[failure.reason], failure.reason, error.message, effect, extra)
        return {subject for subject, effect in zip(errors, effects, strict=True) if effect is HoldEffect.ALONE}

    def _failure(self, subject: str, error: UpstreamError) -> UpstreamFailure:
        reason = _reason(error) or HoldReason.UPSTREAM_DOWN
        is_wrong_key = subject == BALANCE and isinstance(error, Unauthorized)
        concerns_all = isinstance(error, ConnectionFailed) or is_wrong_key
        wait_s = 0.0
        if isinstance(error, RateLimited):
            wait_s = self._retry_after_s(error) or self._timeouts.cooldown_s
        detail = f"{error.message} ({'get-credits' if subject == BALANCE else f'job {subject}'})"
        return UpstreamFailure("" if concerns_all else subject, reason, detail, wait_s)

    def _retry_after_s(self, error: RateLimited) -> float:
        return min(error.retry_after or 0.0, COOLDOWN_MAX_S)

    def _report_recovery(self) -> None:
        """Report that upstream answers again, if it failed before."""
        if self._has_failures:
            self._has_failures = False
            self._flow_control.clear_failures()


def _reason(error: UpstreamError) -> HoldReason | None:
    """Return why an error may hold back orders; None where it concerns its request only."""
    match error:
        case RateLimited():
            return HoldReason.COOLDOWN
        case PaymentRequired():
            return HoldReason.OUT_OF_CREDITS
        case Unauthorized() | Forbidden():
            return HoldReason.UNAUTHORIZED
        case Unavailable() | AmbiguousFailure():
            return HoldReason.UPSTREAM_DOWN
    return None


def _log_effect(template: str, reason: HoldReason, message: str, effect: HoldEffect, extra: dict[str, str]) -> None:
    cause = message.rstrip(".")
    if effect is HoldEffect.CLOSED:
        log.log(logging.WARNING if reason is HoldReason.COOLDOWN else logging.ERROR, template, cause, extra=extra)
    elif effect is HoldEffect.ON_TRIAL:
        log.warning("%s: %s. Trying one job at a time, other jobs first", reason, cause, extra=extra)
