"""The erasure of jobs: records with all that names them, in events, callbacks, rejected messages and the audit log."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from itertools import chain, islice
from typing import Any, cast

from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import index_of, qualify
from voicequeue.storage.connection.keyspace import Keyspace

_PAGE = 500

#: The text that replaces a name in the audit log.
REDACTED = "(erased)"


@dataclass(frozen=True, slots=True)
class Erased:
    """The result of one call: ids of erased and of marked jobs, and numbers of what named them."""

    job_ids: tuple[str, ...] = ()
    pending_ids: tuple[str, ...] = ()
    callbacks: int = 0
    events: int = 0
    audit_entries: int = 0


@dataclass(frozen=True, slots=True)
class ErasedFiles:
    """A job whose archived files are to be deleted; `batch` is named with its namespace."""

    job_id: str
    batch: str
    entry: str


class Erasure:
    """The erasure of jobs of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def erase(self, job_ids: Collection[str], now: float) -> Erased:
        """Erase settled and deleted jobs with what names them, and mark the others.

        Each call also completes those that were interrupted: the script lists what it leaves in `erased_traces`.
        """
        callbacks, outcomes = len(self.callback_ids(job_ids)), dict[str, int]()
        remaining_ids = iter(job_ids)
        while page := list(islice(remaining_ids, _PAGE)):
            arguments = (f"{now:.6f}", secrets.token_hex(16), *page)
            outcomes.update(zip(page, self._space.run_change("erase_jobs", *arguments), strict=True))
        pending = tuple(job_id for job_id, outcome in outcomes.items() if outcome == 2)
        if pending:
            callbacks -= len(self.callback_ids(pending))
        events, audit_entries = self._forget_traces()
        return Erased(tuple(sorted(outcomes.keys() - set(pending))), pending, callbacks, events, audit_entries)

    def due(self) -> list[str]:
        """Return ids of marked jobs, the earliest first."""
        return cast(list[str], self._redis.zrange(self._space.key("erasing"), 0, -1))

    def callback_ids(self, job_ids: Collection[str]) -> list[str]:
        """Return the ids of the stored callbacks of jobs."""
        owner_ids = set(job_ids)
        callback_ids: set[str] = set()
        for name in ("pending", "undelivered"):
            entries = self._redis.zscan_iter(self._space.key(f"callbacks:{name}"), count=_PAGE)
            callback_ids.update(entry for entry, _ in entries if entry.partition("-")[0] in owner_ids)
        return sorted(callback_ids)

    def count_sharing(self, jobs: Collection[Job]) -> int:
        """Return how many other jobs have one of these jobs' named voices, or wait for one of their voices."""
        named: dict[str, int] = {}
        waiting: set[str] = set()
        ids = {job.id for job in jobs}
        for voice in _voices(jobs):
            members = cast(list[str], self._redis.zrange(self._space.key(f"waiting:{voice}"), 0, -1))
            waiting.update(set(members) - ids)
            sharing = cast(str | None, self._redis.hget(self._space.key(f"voice:{voice}"), "jobs"))
            own = sum(job.spec.shared_voice(namespace=job.namespace) == voice for job in jobs)
            named[voice] = max(0, int(sharing or 0) - own)
        return max(len(waiting), sum(named.values()))

    # ── what names them ────────────────────────────────────────────────────────────────────────

    def _forget_traces(self) -> tuple[int, int]:
        """Delete what names erased jobs; return the numbers of events and of entries of the audit log."""
        key = self._space.key("erased_traces")
        traces = list(cast(set[str], self._redis.smembers(key)))
        if not traces:
            return 0, 0
        jobs = [json.loads(trace) for trace in traces]
        job_ids, batches = {job["id"] for job in jobs}, {job["batch"] for job in jobs} - {""}
        ended = {batch for batch in batches if not self._has_jobs(batch)}
        for callback_id in self.callback_ids(job_ids):
            self._delete_callback(callback_id)
        for batch in ended:
            self._delete_batch_callbacks(batch)

        def is_theirs(fields: Mapping[str, str]) -> bool:
            return fields.get("id") in job_ids or fields.get("batch") in ended

        events = self._delete_entries("events", is_theirs)
        self._delete_entries("purged", lambda fields: fields.get("batch") in ended)
        audit_entries = self._redact_audit_log(job_ids, ended)
        for start in range(0, len(traces), _PAGE):
            self._redis.srem(key, *traces[start : start + _PAGE])
        return events, audit_entries

    def _has_jobs(self, batch: str) -> bool:
        return bool(self._redis.exists(self._space.key(f"batch:{batch}:jobs")))

    def _delete_callback(self, callback_id: str) -> None:
        with self._redis.pipeline() as pipe:
            for name in ("pending", "leased", "undelivered"):
                pipe.zrem(self._space.key(f"callbacks:{name}"), callback_id)
            pipe.delete(self._space.key(f"callback:{callback_id}"))
            pipe.execute()

    def _delete_batch_callbacks(self, batch: str) -> None:
        """Delete the undelivered callbacks of a batch that has no jobs; the script deleted those that were pending."""
        start = f"batch-{sha1(batch.encode(), usedforsecurity=False).hexdigest()[:16]}-"
        for callback_id, _ in self._redis.zscan_iter(self._space.key("callbacks:undelivered"), count=_PAGE):
            if callback_id.startswith(start):
                self._delete_callback(callback_id)

    def _stream(self, name: str) -> Iterator[tuple[str, dict[str, str]]]:
        start = "-"
        while page := cast(
            list[tuple[str, dict[str, str]]], self._redis.xrange(self._space.key(name), min=start, count=_PAGE)
        ):
            yield from page
            start = f"({page[-1][0]}"

    def _delete_entries(self, name: str, matches: Callable[[Mapping[str, str]], bool]) -> int:
        entry_ids = [entry_id for entry_id, fields in self._stream(name) if matches(fields)]
        for start in range(0, len(entry_ids), _PAGE):
            self._redis.xdel(self._space.key(name), *entry_ids[start : start + _PAGE])
        return len(entry_ids)

    def _redact_audit_log(self, job_ids: Collection[str], batches: Collection[str]) -> int:
        """Replace the entries that name these jobs or batches: who did what and when stays."""
        count = 0
        for entry_id, fields in list(self._stream("audit_log")):
            batch = qualify(fields.get("namespace", ""), fields.get("batch", ""))
            has_id = fields.get("job_id") in job_ids or any(it in fields.get("details", "") for it in job_ids)
            if not has_id and batch not in batches:
                continue
            kept = {name: REDACTED if name in ("job_id", "batch", "reason") else text for name, text in fields.items()}
            kept.pop("details", None)
            kept["at"] = fields.get("at", entry_id)
            count += int(self._space.run_script("redact_audit_entry", entry_id, *chain.from_iterable(kept.items())))
        return count

    # ── rejected messages ──────────────────────────────────────────────────────────────────────

    def rejected_lines(self, metadata: Mapping[str, str], urls: Collection[str]) -> list[tuple[str, str]]:
        """Return (namespace, line) of the rejected messages with these metadata, or one of these recordings."""
        return [
            (namespace, line)
            for namespace in self._space.namespaces()
            for line in cast(
                list[str], self._redis.lrange(self._space.key(index_of("rejected_messages", namespace)), 0, -1)
            )
            if _names_person(json.loads(line), metadata, urls)
        ]

    def delete_rejected(self, lines: Sequence[tuple[str, str]]) -> None:
        """Delete rejected messages by their lines."""
        for namespace, line in lines:
            with self._redis.pipeline() as pipe:
                pipe.lrem(self._space.key(index_of("rejected_messages", namespace)), 1, line)
                pipe.decrby(self._space.key(index_of("rejected_messages:bytes", namespace)), len(line.encode()))
                pipe.execute()

    # ── tombstones, plans, files, consent ──────────────────────────────────────────────────────

    def tombstones(self, names: Sequence[str]) -> list[str]:
        """Return the keyed hashes of ids or recordings; none if nothing was ever erased."""
        secret = cast(str | None, self._redis.hget(self._space.key("tombstones"), "secret"))
        return [] if secret is None else [_sha1(secret + _sha1(secret + name)) for name in names]

    def are_erased(self, names: Sequence[str]) -> list[bool]:
        """Return for each id or recording whether it has a tombstone."""
        hashes = self.tombstones(names)
        if not hashes:
            return [False] * len(names)
        return [at is not None for at in self._redis.hmget(self._space.key("tombstones"), hashes)]

    def forget_tombstones(self, names: Sequence[str]) -> int:
        """Delete the tombstones of ids or recordings; return how many there were."""
        hashes = self.tombstones(names)
        return int(self._space.run_change("forget_tombstones", *hashes)) if hashes else 0

    def delete_plan(self, token: str) -> None:
        """Delete an executed plan, which holds the metadata of the person."""
        self._redis.delete(self._space.key(f"bulk_plan:{token}"))

    def files_due(self, now: float, *, at_most: int = 100) -> list[ErasedFiles]:
        """Return jobs whose archived files are to be deleted now."""
        entries = cast(
            list[str],
            self._redis.zrange(self._space.key("erased_files"), "-inf", now, byscore=True, offset=0, num=at_most),
        )
        parsed = ((json.loads(entry), entry) for entry in entries)
        return [ErasedFiles(fields["id"], fields["batch"], entry) for fields, entry in parsed]

    def files_deleted(self, files: ErasedFiles) -> None:
        """Record that the files of a job are deleted."""
        self._redis.zrem(self._space.key("erased_files"), files.entry)

    def require_consent(self, *, is_required: bool) -> None:
        """Require `metadata.consent_ref` of every new job of the queue, or no longer."""
        key = self._space.key("consent_required")
        if is_required:
            self._redis.set(key, "1")
        else:
            self._redis.delete(key)

    def is_consent_required(self) -> bool:
        """Return whether new jobs need `metadata.consent_ref`."""
        return bool(self._redis.exists(self._space.key("consent_required")))


def _voices(jobs: Collection[Job]) -> set[str]:
    voices = {job.spec.shared_voice(namespace=job.namespace) for job in jobs}
    voices |= {job.spec.shared_voice(reuse=True, namespace=job.namespace) for job in jobs}
    voices |= {job.spec.recording_voice(job.namespace) for job in jobs}
    return voices - {""}


def _sha1(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _names_person(value: Any, metadata: Mapping[str, str], urls: Collection[str]) -> bool:
    """Return whether a value of JSON contains an object with these metadata, or one of these URLs."""
    if isinstance(value, dict):
        own = value.get("metadata")
        if isinstance(own, dict) and all(str(own.get(name)) == text for name, text in metadata.items()):
            return True
        return any(_names_person(part, metadata, urls) for part in value.values())
    if isinstance(value, list):
        return any(_names_person(part, metadata, urls) for part in value)
    if isinstance(value, str):  # a job may be stored as the beginning of its text
        has_all = all(json.dumps(it) in value for pair in metadata.items() for it in pair)
        return has_all or any(url in value for url in urls)
    return False
