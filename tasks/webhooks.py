"""Webhooks from upstream: their URLs, and the effect of one that was received."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tasks.musicapi import Webhook
from voicequeue.auth import signatures
from voicequeue.client.orders import OrderEffect, record_charged_order
from voicequeue.domain.claims import ChargedOrder, PollReschedule, SubmitClaim
from voicequeue.domain.job import Job
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import MAY_HAVE_LATE_RESULT, State
from voicequeue.storage.job_store import JobStore


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Public URL of the gateway, and the secret that webhook tokens and signing secrets are derived from."""

    public_url: str
    secret: str = field(repr=False)

    def for_order(self, claim: SubmitClaim) -> Webhook:
        """Return the webhook URL and signing secret of one order; they cannot be forged without the secret."""
        token = signatures.webhook_token(self.secret, claim.job_id, claim.stage, claim.attempt)
        path = f"/hooks/musicapi/{claim.job_id}/{claim.stage}"
        url = f"{self.public_url.rstrip('/')}{path}?attempt={claim.attempt}&token={token}"
        return Webhook(url, signatures.webhook_secret(self.secret, claim.job_id))


#: States in which upstream may have an order that it has not delivered yet.
POLLABLE = MAY_HAVE_LATE_RESULT | {State.PENDING}

#: The order of a webhook is assumed to have been unfinished this many seconds earlier.
ASSUMED_UNREADY_S = 1.0


class WebhookEffect(Enum):
    """Effect of a webhook."""

    POLL = "poll"  # the job is due: poll it at once
    COUNTED = "counted"  # its order was lost and replaced; its charge is now counted
    NOTHING = "nothing"  # it is a duplicate, or too late
    UNKNOWN = "unknown"  # the job does not exist


def process_webhook(store: JobStore, job_id: str, stage: Stage, attempt: int, task_id: str | None) -> WebhookEffect:
    """Process an authenticated webhook as a hint to poll; the poll decides about the job.

    Its task id restores an order whose answer was lost.
    """
    now = store.clock()
    if task_id is not None:
        order = ChargedOrder(job_id, stage, attempt, task_id)
        match record_charged_order(store, order, now, reason="task id from a webhook"):
            case OrderEffect.CONTINUED:
                return WebhookEffect.POLL
            case OrderEffect.COUNTED:
                return WebhookEffect.COUNTED
            case OrderEffect.JOB_NOT_FOUND:
                return WebhookEffect.UNKNOWN
    [job] = store.get([job_id])
    if job is None:
        return WebhookEffect.UNKNOWN
    is_pollable = job.stage is stage and _is_pollable(job)
    is_planned = is_pollable and store.reschedule_polls(
        [PollReschedule(job.id, job.version, due=now, last_not_ready_at=now - ASSUMED_UNREADY_S)]
    )
    return WebhookEffect.POLL if is_planned else WebhookEffect.NOTHING


def _is_pollable(job: Job) -> bool:
    return job.state in POLLABLE and job.may_have_late_result
