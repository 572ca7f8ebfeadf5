"""Orders whose reply was lost and that turn out to be charged: their job continues with one, or counts its charge."""

from __future__ import annotations

from enum import Enum

from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import JobStore


class OrderEffect(Enum):
    """The effect of `record_charged_order`."""

    CONTINUED = "taken up"  # the job continues with the order, or keeps its result
    COUNTED = "counted"  # the job does not need the order; its charge is counted
    ALREADY_COUNTED = "known"  # the charge is counted already, or the order is not of this job
    JOB_NOT_FOUND = "unknown"  # no such job


def record_charged_order(store: JobStore, order: ChargedOrder, now: float, *, reason: str) -> OrderEffect:
    """Record the upstream task of an order that was charged. Its charge is counted once, however often it is called."""
    while True:
        [job] = store.get([order.job_id])
        if job is None:
            return OrderEffect.JOB_NOT_FOUND
        if not 1 <= order.attempt <= job.attempt:
            return OrderEffect.ALREADY_COUNTED
        if move := transitions.continue_with_order(job, order, now, reason=reason):
            if store.apply_transitions([move], now) == [True]:
                return OrderEffect.CONTINUED
        elif order.attempt in job.charged_task_ids:
            return OrderEffect.ALREADY_COUNTED
        else:
            counted = store.count_order(order, now, reason=f"{reason}; this order was charged and is not needed")
            return {None: OrderEffect.JOB_NOT_FOUND, True: OrderEffect.COUNTED, False: OrderEffect.ALREADY_COUNTED}[
                counted
            ]
