"""Orders that upstream names after their answers were lost: the job continues with one, or only counts its charge."""

from __future__ import annotations

from enum import Enum

from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import Store


class Named(Enum):
    """The effect of naming an order."""

    TAKEN_UP = "taken up"  # the job continues with it, or keeps its result
    COUNTED = "counted"  # the job does without it; its charge is counted
    KNOWN = "known"  # it was known before, or is no order of this job
    UNKNOWN = "unknown"  # there is no such job


def name_order(store: Store, order: ChargedOrder, now: float, *, reason: str) -> Named:
    """Write down the task of an order, which upstream has charged. It is counted once, however often it is named."""
    while True:
        [job] = store.get([order.job_id])
        if job is None:
            return Named.UNKNOWN
        if not 1 <= order.attempt <= job.attempt:
            return Named.KNOWN
        if move := transitions.named(job, order, now, reason=reason):
            if store.apply([move], now) == [True]:
                return Named.TAKEN_UP
        elif order.attempt in job.orders:
            return Named.KNOWN
        else:
            counted = store.book(order, now, reason=f"{reason}; the job does without this order, which was charged")
            return {None: Named.UNKNOWN, True: Named.COUNTED, False: Named.KNOWN}[counted]
