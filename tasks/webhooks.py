"""Webhooks of upstream: where it shall send them, and what one of them leads to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tasks.musicapi import Webhook
from voicequeue import changes, signing
from voicequeue.claims import Charged, Planned
from voicequeue.job import MAY_BE_LATE, Code, Job, State
from voicequeue.stage import Stage
from voicequeue.store import Store


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where upstream reaches the gateway, and the secret that everything is derived from."""

    public_url: str
    secret: str = field(repr=False)

    def of(self, claim: Charged) -> Webhook:
        """The address and the secret for one order: nobody else can make them."""
        token = signing.webhook_token(self.secret, claim.job_id, claim.stage, claim.attempt)
        path = f"/hooks/musicapi/{claim.job_id}/{claim.stage}"
        url = f"{self.public_url.rstrip('/')}{path}?attempt={claim.attempt}&token={token}"
        return Webhook(url, signing.webhook_secret(self.secret, claim.job_id))


#: States in which upstream may have an order of ours that it has not delivered.
MAY_BE_ASKED = MAY_BE_LATE | {State.PENDING}


#: An order that a webhook speaks of was not ready so long ago (seconds), as far as anybody knows.
JUST_S = 1.0


class Hint(Enum):
    """What a webhook led to."""

    POLL = "poll"  # ask upstream about the job at once
    NOTHING = "nothing"  # it came twice, late, or of an order that does not count any more
    UNKNOWN = "unknown"  # there is no such job


def take(store: Store, job_id: str, stage: Stage, attempt: int, task_id: str | None) -> Hint:
    """Take a webhook, whose sender is known, for a hint: it decides nothing by itself.

    It gives back a task id that we lost with the answer to our POST; the poll that follows decides.
    """
    now = store.clock()
    [job] = store.get([job_id])
    if job is None:
        return Hint.UNKNOWN
    if job.stage is not stage:
        return Hint.NOTHING
    if job.state in (State.UNSURE, State.CHARGING) and job.attempt == attempt and task_id is not None:
        taken_up = changes.take_up(job, now, task_id=task_id, reason="a webhook told the task id")
        return Hint.POLL if store.apply([taken_up], now) == [True] else Hint.NOTHING
    if _was_given_up(job) and job.attempt == attempt and task_id is not None:
        found = changes.found_late(job, now, task_id=task_id)
        return Hint.POLL if store.apply([found], now) == [True] else Hint.NOTHING
    return (
        Hint.POLL
        if _can_be_asked(job) and store.plan([Planned(job.id, job.version, due=now, asked=now - JUST_S)])
        else Hint.NOTHING
    )


def _was_given_up(job: Job) -> bool:
    return job.failure is not None and job.failure.code is Code.ABANDONED and job.stage not in job.task_ids


def _can_be_asked(job: Job) -> bool:
    return job.state in MAY_BE_ASKED and job.may_still_come
