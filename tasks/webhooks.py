"""Webhooks of upstream: where it shall send them, and what one of them leads to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tasks.musicapi import Webhook
from voicequeue.auth import signatures
from voicequeue.client.orders import Named, name_order
from voicequeue.domain.claims import Charged, ChargedOrder, Planned
from voicequeue.domain.job import MAY_BE_LATE, Job, State
from voicequeue.domain.stage import Stage
from voicequeue.storage.job_store import Store


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where upstream reaches the gateway, and the secret that everything is derived from."""

    public_url: str
    secret: str = field(repr=False)

    def of(self, claim: Charged) -> Webhook:
        """The address and the secret for one order: nobody else can make them."""
        token = signatures.webhook_token(self.secret, claim.job_id, claim.stage, claim.attempt)
        path = f"/hooks/musicapi/{claim.job_id}/{claim.stage}"
        url = f"{self.public_url.rstrip('/')}{path}?attempt={claim.attempt}&token={token}"
        return Webhook(url, signatures.webhook_secret(self.secret, claim.job_id))


#: States in which upstream may have an order of ours that it has not delivered.
MAY_BE_ASKED = MAY_BE_LATE | {State.PENDING}


#: An order that a webhook speaks of was not ready so long ago (seconds), as far as anybody knows.
JUST_S = 1.0


class Hint(Enum):
    """What a webhook led to."""

    POLL = "poll"  # ask upstream about the job at once
    COUNTED = "counted"  # its order was lost and replaced: it was charged, and is counted
    NOTHING = "nothing"  # it came twice, or late
    UNKNOWN = "unknown"  # there is no such job


def take(store: Store, job_id: str, stage: Stage, attempt: int, task_id: str | None) -> Hint:
    """Take a webhook, whose sender is known, for a hint: it decides nothing by itself.

    It gives back a task id that we lost with the answer to our POST; the poll that follows decides.
    """
    now = store.clock()
    if task_id is not None:
        order = ChargedOrder(job_id, stage, attempt, task_id)
        match name_order(store, order, now, reason="a webhook told the task id"):
            case Named.TAKEN_UP:
                return Hint.POLL
            case Named.COUNTED:
                return Hint.COUNTED
            case Named.UNKNOWN:
                return Hint.UNKNOWN
    [job] = store.get([job_id])
    if job is None:
        return Hint.UNKNOWN
    is_asked = job.stage is stage and _can_be_asked(job)
    planned = is_asked and store.plan([Planned(job.id, job.version, due=now, asked=now - JUST_S)])
    return Hint.POLL if planned else Hint.NOTHING


def _can_be_asked(job: Job) -> bool:
    return job.state in MAY_BE_ASKED and job.may_still_come
