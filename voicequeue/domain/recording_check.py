"""The check of a recording before its order is sent: what it found, and what a job remembers of earlier ones. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from voicequeue.domain.newer_records import known_fields, stored
from voicequeue.domain.states import FailureCode


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """The outcome of a check that began `at` that time (Unix seconds).

    `code` is the failure of the job, None if the recording is fit. `message` is the reason, without the URL. A
    temporary failure may pass at a later check, not before `retry_after_s` seconds.
    """

    at: float
    code: FailureCode | None = None
    message: str = ""
    is_temporary: bool = False
    retry_after_s: float = 0.0

    @property
    def result(self) -> str:
        """The outcome as one word, for logs and metrics."""
        if self.code is None:
            return "fit"
        return "retry" if self.is_temporary else self.code.removeprefix("recording_")


@dataclass(frozen=True, slots=True)
class Recheck:
    """Checks of a job's recording that failed temporarily: `count` of them, the first `since` that time, the last one
    `checked_at` (Unix seconds).

    Zero failed if the job only waits for a check, `since` that time; then earlier outcomes than `checked_at`, when the
    job was retried, do not apply to it.
    """

    since: float
    checked_at: float
    count: int


@dataclass(frozen=True, slots=True)
class UncheckedJob:
    """An admitted job whose recording is to be checked; without a `url` its record is wrong, and no order will be sent.

    `may_be_charged`: an order of it was lost.
    """

    job_id: str
    version: int
    url: str | None
    recheck: Recheck | None = None
    may_be_charged: bool = False
    created: float = 0.0

    @property
    def has_waited(self) -> bool:
        """True if the job has waited for a check that is still in progress, or that its host was left alone."""
        return self.recheck is not None and not self.recheck.count and self.recheck.since > self.recheck.checked_at

    @property
    def waits_since(self) -> float | None:
        """The time since which its recording cannot be checked; None if no check was due before."""
        return self.recheck.since if self.recheck and (self.recheck.count or self.has_waited) else None

    @property
    def asked_at(self) -> float:
        """The time of the last request for a check: the job was enqueued or retried, or its last check failed."""
        return max(self.created, self.recheck.checked_at if self.recheck else 0.0)

    def accepts(self, outcome: CheckOutcome) -> bool:
        """Return whether the outcome of an earlier check applies: a failure does not if the job was enqueued or retried
        after it, and each temporary one counts once."""
        return outcome.code is None or outcome.at > self.asked_at

    def waiting(self, now: float) -> Recheck:
        """Return what the job remembers while it waits for a check that has not failed."""
        if self.recheck is not None and self.waits_since is not None:
            return self.recheck
        return Recheck(now, self.recheck.checked_at if self.recheck else 0.0, 0)


def outcome_text(outcome: CheckOutcome) -> str:
    """Return an outcome as text for Redis."""
    return json.dumps(asdict(outcome), ensure_ascii=False)


def parse_outcome(text: str | None) -> CheckOutcome | None:
    """Return an outcome from Redis."""
    if not text:
        return None
    fields = json.loads(text)
    code = fields["code"]
    return CheckOutcome(
        fields["at"],
        stored(FailureCode, code) if code else None,
        fields["message"],
        fields["is_temporary"],
        fields.get("retry_after_s", 0.0),
    )


def recheck_text(recheck: Recheck) -> str:
    """Return failed checks as a record field."""
    return json.dumps(asdict(recheck))


def parse_recheck(text: str | None) -> Recheck | None:
    """Return the failed checks in a record field."""
    return Recheck(**known_fields(Recheck, json.loads(text))) if text else None
