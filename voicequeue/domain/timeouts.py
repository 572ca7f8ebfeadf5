"""Timeouts, and delays between attempts. Pure; all times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass


def late_poll_delay(age_s: float) -> float:
    """Return the delay before the next poll for a late result: half the time since the order.

    That makes about a dozen polls a day.
    """
    return age_s / 2


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of the work on a job."""

    #: Lease of one POST, from its claim to its answer; then an unanswered charge is unsure.
    submit_lease_s: float = 90.0
    #: Lease of one round of polls; then another worker may poll the same jobs.
    poll_lease_s: float = 90.0
    #: Time past its due time after which maintenance dispatches a job again.
    redispatch_after_s: float = 10.0
    #: Time in which one submit task sends POSTs; the remaining jobs go into another task.
    submit_s: float = 20.0
    #: Time since its order in which a late result is polled.
    late_result_ttl_s: float = 86_400.0
    #: Time that the gate stays closed after a 429 without Retry-After, or a failed connection.
    cooldown_s: float = 5.0
    #: Time that the gate stays closed when the account cannot pay or the key is wrong.
    account_hold_s: float = 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry schedule: delays between attempts, and the time after which the work is given up."""

    #: Delay after the first attempt; each further delay is three times as long,
    backoff_initial_s: float = 5.0
    #: up to this one.
    backoff_max_s: float = 3600.0
    #: Time since the first attempt was possible after which it is given up.
    give_up_after_s: float = 86_400.0

    def next_attempt_at(self, since: float, attempts: int, now: float, *, min_delay_s: float = 0.0) -> float | None:
        """Return the time of the next attempt after `attempts` failed ones; None to give up.

        The last attempt is made when the time is just over. `since` and `now` are in Unix seconds, and `min_delay_s` is
        a minimum delay, such as a Retry-After.
        """
        end = since + self.give_up_after_s
        if now >= end:
            return None
        wait = min(self.backoff_max_s, self.backoff_initial_s * 3.0 ** min(attempts - 1, 50))
        return min(end, now + min(self.backoff_max_s, max(wait, min_delay_s)))


@dataclass(frozen=True, slots=True)
class CheckTimeouts(RetryPolicy):
    """Timeouts of checks of a recording."""

    backoff_initial_s: float = 10.0
    backoff_max_s: float = 600.0
    give_up_after_s: float = 1800.0
    #: Time for which a job keeps its slot during a check.
    hold_s: float = 2.0
    #: Time without checks at a host after three failed ones in a row.
    host_pause_s: float = 30.0


@dataclass(frozen=True, slots=True)
class CallbackTimeouts(RetryPolicy):
    """Timeouts of callbacks."""

    #: Lease of a claim; then another worker may try.
    lease_s: float = 40.0
    #: Time after a claim in which attempts are started; the remaining ones go into another task.
    start_window_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ArchiveTimeouts(RetryPolicy):
    """Timeouts of archiving."""

    #: Lease of a claim that its holder has stopped renewing; then another worker may try.
    lease_s: float = 60.0

    @property
    def message_lost_after_s(self) -> float:
        """The time after which a message that no worker has started on counts as lost."""
        return 5 * self.lease_s
