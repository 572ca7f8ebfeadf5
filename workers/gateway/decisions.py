"""Decisions about unsure orders, over HTTP and on the job page."""

from __future__ import annotations

from voicequeue import InvalidStateError, Job, VoiceQueue
from voicequeue.domain.charge_review import ReviewDecision, is_decided
from workers.gateway.api.schemas import ReviewRequest


def decide(queue: VoiceQueue, job_id: str, review: ReviewRequest) -> Job:
    """Apply a decision once. Raises JobNotFoundError, InvalidJobError, InvalidStateError."""
    try:
        match review.decision:
            case ReviewDecision.CONFIRM:
                return queue.confirm_charged(job_id, review.task_id or "", attempt=review.attempt)
            case ReviewDecision.RESUBMIT:
                return queue.resubmit(job_id, attempt=review.attempt)
            case ReviewDecision.ABANDON:
                return queue.abandon(job_id, attempt=review.attempt)
    except InvalidStateError:
        job = queue.get(job_id)
        if is_decided(job, review.decision, review.attempt, review.task_id):
            return job
        raise
