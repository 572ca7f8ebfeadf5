"""The erasure of jobs: records with all that names them, in events, callbacks, rejected messages and the audit log."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from itertools import chain, islice
from typing import Any, cast

from redis.exceptions import ResponseError

from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import DEFAULT, index_of, named_in, namespace_of, qualify
from voicequeue.domain.states import State
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.indexes import JobIndexes

_PAGE = 500

#: The action of a plan to erase.
ERASE = "erase"

#: How long the workers may take to complete an erasure (seconds); unsure jobs have to be settled first.
ERASURE_MAX_S = 86_400

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
    audit_entries_left: int = 0


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
        self._indexes = JobIndexes(keyspace)

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
        events, audit_entries, remaining = self._forget_traces(now)
        return Erased(
            tuple(sorted(outcomes.keys() - set(pending))), pending, callbacks, events, audit_entries, remaining
        )

    def due(self) -> list[str]:
        """Return ids of marked jobs, the earliest first."""
        return cast(list[str], self._redis.zrange(self._space.key("erasing"), 0, -1))

    def count_unfinished(self, before: float) -> int:
        """Return how many jobs were marked, or had files to delete, before this time, and still are."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in ("erasing", "erased_files"):
                pipe.zcount(self._space.key(name), "-inf", before)
            return sum(cast(list[int], pipe.execute()))

    def callback_ids(self, job_ids: Collection[str]) -> list[str]:
        """Return the ids of the stored callbacks of jobs."""
        owner_ids = set(job_ids)
        callback_ids: set[str] = set()
        for name in ("pending", "undelivered"):
            entries = self._redis.zscan_iter(self._space.key(f"callbacks:{name}"), count=_PAGE)
            callback_ids.update(entry for entry, _ in entries if entry.partition("-")[0] in owner_ids)
        return sorted(callback_ids)

    def count_sharing(self, jobs: Collection[Job]) -> int:
        """Return how many other jobs name one of these jobs' recordings, by its URL or hash. All jobs are examined."""
        own_ids, recordings = {job.id for job in jobs}, self._recordings(jobs)
        sharing: set[str] = set()
        for start in range(0, len(recordings), _PAGE):
            criteria = {"recordings": recordings[start : start + _PAGE]}
            for index in self._job_indexes():
                sharing.update(self._matching(index, criteria))
        return len(sharing - own_ids)

    def _recordings(self, jobs: Collection[Job]) -> list[str]:
        """Return the ids of the voices of these jobs' recordings, by URL and by hash."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hget(self._space.key(f"job:{job.id}"), "sha256")
            hashes = cast(list[str | None], pipe.execute())
        by_url = {job.spec.recording_voice(job.namespace) for job in jobs}
        by_hash = {qualify(job.namespace, f"sha256-{it}") for job, it in zip(jobs, hashes, strict=True) if it}
        return sorted(by_url - {""} | by_hash)

    def _job_indexes(self) -> Iterator[str]:
        """Yield the indexes that together have every job in scope."""
        for priority, lane in self._indexes.lanes():
            yield f"lane:{priority.rank}:{lane}"
        for namespace in self._space.namespaces():
            yield from (index_of(f"state:{state}", namespace) for state in State if state is not State.QUEUED)

    def _matching(self, index: str, criteria: Mapping[str, Any]) -> Iterator[str]:
        last, is_last = None, False
        while not is_last:
            page = self._indexes.filter_page(index, last, _PAGE, criteria)
            last, is_last = page.last, page.is_last
            yield from (job_id for job_id, _ in page.members)

    # ── what names them ────────────────────────────────────────────────────────────────────────

    def _forget_traces(self, now: float) -> tuple[int, int, int]:
        """Delete what names erased jobs; return the numbers of events, of replaced entries of the audit log, and of
        those that a worker replaces later, because this process may not."""
        key = self._space.key("erased_traces")
        traces = list(cast(set[str], self._redis.smembers(key)))
        if not traces:
            return 0, 0, 0
        jobs = [json.loads(trace) for trace in traces]
        job_ids, batches = {job["id"] for job in jobs}, {job["batch"] for job in jobs} - {""}
        ended = {batch for batch in batches if not self._has_jobs(batch)}
        for callback_id in self.callback_ids(job_ids):
            self._delete_callback(callback_id)
        self._erase_voices(job_ids, {job["recording"] for job in jobs} - {""}, now)
        for batch in ended:
            self._delete_batch_callbacks(batch)

        def is_theirs(fields: Mapping[str, str]) -> bool:
            return fields.get("id") in job_ids or fields.get("batch") in ended

        self._delete_plans(job_ids, ended)
        events = self._delete_entries("events", is_theirs)
        self._delete_entries("purged", lambda fields: fields.get("batch") in ended)
        audit_entries, remaining = self._redact_audit_log(job_ids, ended)
        for start in range(0, len(traces), _PAGE) if not remaining else ():
            self._redis.srem(key, *traces[start : start + _PAGE])
        return events, audit_entries, remaining

    def _erase_voices(self, job_ids: Collection[str], recordings: Collection[str], now: float) -> None:
        """Erase voices that erased jobs created, and those of their recordings under a hash or a name.

        All voices are scanned: a copy may have any hash or name.
        """
        root = self._space.key("voice:")
        keys = cast(Iterator[str], self._redis.scan_iter(match=f"{root}*", count=_PAGE))
        while page := [key.removeprefix(root) for key in islice(keys, _PAGE)]:
            with self._redis.pipeline(transaction=False) as pipe:
                for voice in page:
                    pipe.hmget(f"{root}{voice}", "job", "audio_url")
                records = cast(list[list[str | None]], pipe.execute())
            theirs = [
                voice
                for voice, (job_id, url) in zip(page, records, strict=True)
                if job_id in job_ids or (url and qualify(namespace_of(voice), f"url-{_sha1(url)}") in recordings)
            ]
            if theirs:
                self._space.run_script("erase_voices", f"{now:.6f}", *theirs)

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

    def _delete_plans(self, job_ids: Collection[str], batches: Collection[str]) -> None:
        """Delete plans of bulk changes that name these jobs or batches. Plans of erasures contain ids only."""
        for key in self._redis.scan_iter(match=self._space.key("bulk_plan:*"), count=_PAGE):
            header, *lines = cast(list[str], self._redis.lrange(key, 0, -1)) or ["{}"]
            plan = json.loads(header)
            is_theirs = _names_batch(plan, batches) or any(line.partition(" ")[0] in job_ids for line in lines)
            if is_theirs and plan.get("action") != ERASE:
                self._redis.delete(key)

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

    def _redact_audit_log(self, job_ids: Collection[str], batches: Collection[str]) -> tuple[int, int]:
        """Replace the entries that name these jobs or batches: who did what and when stays.

        Return how many were replaced, and how many this process may not replace: the gateway only appends to the log.
        """
        replacements = [
            (entry_id, _redacted(entry_id, fields))
            for entry_id, fields in self._stream("audit_log")
            if _names_batch(fields, batches)
            or fields.get("job_id") in job_ids
            or any(job_id in fields.get("details", "") for job_id in job_ids)
        ]
        count = 0
        for number, (entry_id, fields) in enumerate(replacements):
            try:
                count += int(
                    self._space.run_script("redact_audit_entry", entry_id, *chain.from_iterable(fields.items()))
                )
            except ResponseError as error:
                if "permission" not in str(error):
                    raise
                return count, len(replacements) - number
        return count, 0

    # ── rejected messages ──────────────────────────────────────────────────────────────────────

    def rejected(self, metadata: Mapping[str, str], jobs: Collection[Job]) -> dict[str, list[str]]:
        """Return by namespace the hashes of rejected messages with these metadata, or the key or recording of a job."""
        urls = {job.spec.audio_url for job in jobs if job.spec.audio_url}
        hashes: dict[str, list[str]] = {}
        for namespace in self._space.namespaces():
            keys = {job.spec.key for job in jobs if job.spec.key and job.namespace == namespace}
            person = _Person(metadata, frozenset(urls), frozenset(keys))
            index = self._space.key(index_of("rejected_messages", namespace))
            lines = cast(list[str], self._redis.lrange(index, 0, -1))
            hashes[namespace] = [_sha1(line) for line in lines if person.is_named_in(json.loads(line)["job"])]
        return {namespace: of_messages for namespace, of_messages in hashes.items() if of_messages}

    def delete_rejected(self, hashes: Mapping[str, Sequence[str]]) -> None:
        """Delete rejected messages by namespace and hash."""
        for namespace, of_messages in hashes.items():
            self._space.run_change("delete_rejected_messages", namespace, *of_messages)

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


def _redacted(entry_id: str, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of an entry of the audit log without job, batch, reason and details."""
    kept = {name: REDACTED if name in ("job_id", "batch", "reason") else text for name, text in fields.items()}
    kept.pop("details", None)
    return {**kept, "at": fields.get("at", entry_id)}


def _names_batch(fields: Mapping[str, Any], batches: Collection[str]) -> bool:
    """Return whether the `batch` that an entry or plan names, in its `namespace`, is one of these."""
    return qualify(*named_in(fields.get("namespace") or DEFAULT, fields.get("batch") or "")) in batches


def _sha1(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class _Person:
    """The texts by which a message names a person: metadata, URLs of recordings, and keys of jobs."""

    metadata: Mapping[str, str]
    urls: frozenset[str]
    keys: frozenset[str]

    def is_named_in(self, value: Any) -> bool:
        """Return whether a value of JSON contains an object with these metadata or a key, or one of the URLs."""
        if isinstance(value, dict):
            return self._is_owner(value) or any(map(self.is_named_in, value.values()))
        if isinstance(value, list):
            return any(map(self.is_named_in, value))
        return isinstance(value, str) and self._is_quoted_in(value)

    def _is_owner(self, job: Mapping[str, Any]) -> bool:
        own, key = job.get("metadata"), job.get("key")
        has_key = isinstance(key, str) and key in self.keys
        return has_key or all(_contains(own, name, text) for name, text in self.metadata.items())

    def _is_quoted_in(self, text: str) -> bool:
        """Return whether a job that is stored as its text, or the beginning of it, has the metadata or a URL."""
        has_all = all(
            any(form in text for form in _quoted(name))
            and any(form in text for form in (*_quoted(value), f": {value},", f": {value}}}"))
            for name, value in self.metadata.items()
        )
        has_key = any(f'"key": {form}' in text for key in self.keys for form in _quoted(key))
        return has_all or has_key or any(url in text for url in self.urls)


def _contains(metadata: Any, name: str, text: str) -> bool:
    """Return whether metadata of any shape have this name and value: the shape may be why a message was rejected."""
    if isinstance(metadata, dict):
        own = text in _texts(metadata[name]) if name in metadata else False
        return own or any(_contains(value, name, text) for value in metadata.values())
    if isinstance(metadata, list):
        return {name, text}.issubset(map(str, metadata)) or any(_contains(value, name, text) for value in metadata)
    return False


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value of JSON."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    else:
        yield str(value)


def _quoted(word: str) -> tuple[str, ...]:
    """Return a text as JSON and Python quote it."""
    return json.dumps(word), json.dumps(word, ensure_ascii=False), repr(word)
