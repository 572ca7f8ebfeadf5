"""Steps of tests of summaries: what is built, and what is found."""

from __future__ import annotations

from redis import Redis

from tests.store.life import NOW, enqueue_jobs
from tests.support.jobs import voice
from voicequeue import Filter, Sort, VoiceQueue
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.summaries import SETTLED_S, Size

#: When the jobs of a test can be summarized.
LATER = NOW + SETTLED_S + 60

SMALL = Size(full=10, smallest=2)


def summarize(store: JobStore, now: float = LATER, size: Size = SMALL) -> int:
    """Build all summaries; return how many jobs were read."""
    return sum(store.indexes.summaries.build(lambda: now, size))


def crowd(store: JobStore, count: int = 6, now: float = NOW) -> list[str]:
    """Enqueue jobs of others. Their ids follow from their keys, so that a filter has the same bits in each run."""
    return enqueue_jobs(store, *(voice(name="Berta", key=f"{now}-{number}") for number in range(count)), now=now)


def keys_of(redis: Redis, prefix: str) -> set[str]:
    """Return the names of the keys that belong to summaries, but for the time of the last build."""
    names = {key.partition("}:")[2] for key in redis.scan_iter(f"{{{prefix}}}:summar*")}
    return names - {"summarized:at"}


def found_ids(queue: VoiceQueue, text: str) -> list[str]:
    """Return the ids of the jobs that are found, by both kinds of search."""
    ids = [job.id for job in queue.search(Filter(text=text)).items]
    assert sorted(ids) == sorted(job.id for job in queue.search(Filter(text=text), sort=Sort.CHANGED).items)
    return ids
