"""The format of what a queue stores, by which releases of different ages know whether they may share it.

docs/guides/upgrading.md describes the rules. Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreFormat:
    """The format in which a queue is stored.

    Attributes:
        version: Format that its releases write.
        oldest_reader: Oldest format that a release has to know to use the queue.
    """

    version: int
    oldest_reader: int

    def __str__(self) -> str:
        return str(self.version)


#: The format of this release: a new queue gets it, and `voicequeue upgrade` raises an older one to it. A change that
#: the previous release does not understand raises both numbers.
CURRENT = StoreFormat(version=1, oldest_reader=1)

#: The format of queues without a stamp, which were made before there was one.
UNSTAMPED = StoreFormat(version=1, oldest_reader=1)

#: The oldest format that this release can use.
OLDEST_USABLE = 1


def misfit(stored: StoreFormat, release: StoreFormat = CURRENT, oldest_usable: int = OLDEST_USABLE) -> str:
    """Return why a release must not use a queue, and what to do; '' if it may.

    `release` is the format of the release, and `oldest_usable` the oldest one that it can use.
    """
    if stored.oldest_reader > release.version:
        return too_old(stored.oldest_reader, release)
    if stored.version < oldest_usable:
        return (
            f"this release is too new for the queue: it needs format {oldest_usable}, and the queue has format "
            f"{stored.version}; run `voicequeue upgrade` with a release in between first"
        )
    return ""


def too_old(oldest_reader: int, release: StoreFormat = CURRENT) -> str:
    """Return that a release is too old for a queue, and what to do."""
    return (
        f"this release is too old for the queue: it knows format {release.version}, and the queue needs format "
        f"{oldest_reader}; upgrade voicequeue here"
    )
