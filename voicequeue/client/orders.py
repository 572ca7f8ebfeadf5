"""Orders whose reply was lost and that turn out to be charged: their job continues with one, or counts its charge."""

from __future__ import annotations

from enum import Enum

from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import Store


class Named(Enum):
    """The effect of `name_order`."""

    TAKEN_UP = "taken up"  # the job continues with the order, or keeps its result
    COUNTED = "counted"  # the job does not need the order; its charge is counted
    KNOWN = "known"  # the charge is counted already, or the order is not of this job
    UNKNOWN = "unknown"  # no such job


def name_order(store: Store, order: ChargedOrder, now: float, *, reason: str) -> Named:
    """Record the upstream task of an order that was charged. Its charge is counted once, however often it is called."""
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
            counted = store.book(order, now, reason=f"{reason}; this order was charged and is not needed")
            return {None: Named.UNKNOWN, True: Named.COUNTED, False: Named.KNOWN}[counted]
