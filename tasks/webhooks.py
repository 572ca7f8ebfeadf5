"""Webhooks from upstream: their URLs, and the effect of one that was received."""

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
    """Public URL of the gateway, and the secret that webhook tokens and signing secrets are derived from."""

    public_url: str
    secret: str = field(repr=False)

    def of(self, claim: Charged) -> Webhook:
        """Return the webhook URL and signing secret of one order; they cannot be forged without the secret."""
        token = signatures.webhook_token(self.secret, claim.job_id, claim.stage, claim.attempt)
        path = f"/hooks/musicapi/{claim.job_id}/{claim.stage}"
        url = f"{self.public_url.rstrip('/')}{path}?attempt={claim.attempt}&token={token}"
        return Webhook(url, signatures.webhook_secret(self.secret, claim.job_id))


#: States in which upstream may have an order that it has not delivered yet.
POLLABLE = MAY_BE_LATE | {State.PENDING}

#: The order of a webhook is assumed to have been unfinished this many seconds earlier.
ASSUMED_UNREADY_S = 1.0


class Hint(Enum):
    """Effect of a webhook."""

    POLL = "poll"  # the job is due: poll it at once
    COUNTED = "counted"  # its order was lost and replaced; its charge is now counted
    NOTHING = "nothing"  # it is a duplicate, or too late
    UNKNOWN = "unknown"  # the job does not exist


def take(store: Store, job_id: str, stage: Stage, attempt: int, task_id: str | None) -> Hint:
    """Process an authenticated webhook as a hint to poll; the poll decides about the job.

    Its task id restores an order whose answer was lost.
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
    is_pollable = job.stage is stage and _is_pollable(job)
    is_planned = is_pollable and store.plan([Planned(job.id, job.version, due=now, asked=now - ASSUMED_UNREADY_S)])
    return Hint.POLL if is_planned else Hint.NOTHING


def _is_pollable(job: Job) -> bool:
    return job.state in POLLABLE and job.may_still_come
