"""Erasure by structure: all that Redis and the archive keep of a person is gone afterwards.

The structures are those that scripts/lib/keys.lua documents. A new one fails the test until the person of this test has
a part in it, or it is listed as one that names no person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha1
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from redis import Redis

from tasks.archive.downloader import Download, Downloader
from tasks.archive.storage import ArchiveStorage
from tasks.archive.task import ArchiveServices, archive_jobs, delete_erased
from tests.store.flow.test_resting import rest
from tests.store.jobs.test_erasure import MARK, PERSON, WORD
from tests.store.life import (
    CLIPS,
    NOW,
    REACHABLE,
    apply_transition,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    job_with_song,
    rate_limit_order,
    refuse_order,
)
from tests.store.outbox.callback_steps import claim_due
from tests.support.jobs import SONG, voice
from voicequeue import FailureCode, Filter, Job, RejectedMessage, State, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.gate import Limits
from voicequeue.domain.recording_check import CheckOutcome
from voicequeue.domain.timeouts import ArchiveTimeouts
from voicequeue.storage import scripts
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.summaries import Size

KEYS_LUA = (Path(scripts.__file__).parent / "lib" / "keys.lua").read_text(encoding="utf-8")
STRUCTURES = re.findall(r"^--   ([a-z_]+\S*) +(?:hash|zset|set|list|string|stream) ", KEYS_LUA, re.MULTILINE)

#: Structures that name no job, batch or recording, and why.
IMPERSONAL = {
    "numbers": {
        *(
            "namespace:<name>",
            "key:<name>",
            "state_counts",
            "event_cursor",
            "summarized:at",
            "backlog",
            "wake",
            "flow",
            "budget:<owner>",
            "budgets:reported",
        ),
        *("poll_durations:<kind>", "poll_kinds", "poll_schedules", "counters", "account", "balances", "metrics"),
        *("rejected_messages:bytes", "settings", "limits", "format", "replication_marker"),
    },
    "names and secrets of operators, apps and processes": {
        *(
            "namespaces",
            "owners",
            "budgets",
            "budgets:reported",
            "id_secret",
            "callback_secrets",
            "api_keys",
            "api_keys:version",
            "api_keys:last_used",
        ),
        *("api_keys:rate:<name>", "heartbeats", "heartbeats:facts", "old_secrets", "lock:<name>", "consent_required"),
        *("failed_logins", "failed_logins:attempts", "session:<id>", "sessions:<name>"),
    },
    "upstream's words about the account": {"gate"},
    "what replaces the person": {"tombstones"},
    "filled only while an erasure is interrupted (test_erasure.py)": {"erased_traces", "voices:decided"},
    "expires after a minute": {"session:<id>:notice"},
    "deleted by each erasure": {"admit_stops"},
    "hashes, deleted with the summaries that name them (test_summaries.py)": {"summary:<id>"},
    "subjects of requests that were just sent; emptied by the next response": {"unanswered:<reason>"},
}

#: The id of the person's voice at upstream, and where it remains: with the certificate, for a day.
PERSONA = "p-5b1e"
WITH_PERSONA = {"bulk_plan:<token>"}

#: Where ids of erased jobs, which reveal nothing, remain: for clients that follow changes, in plans of erasures for an
#: hour, and in the reason of a hold until it ends.
WITH_IDS = {"purged", "bulk_plan:<token>", "gate"}


def structure_of(name: str) -> str | None:
    """Return the structure that a key belongs to; `name` is without the prefix of the queue."""
    name = name.partition("/")[0] if name.partition("/")[0] in STRUCTURES else name
    matching = [one for one in STRUCTURES if re.fullmatch(re.sub("<[a-z]+>", "[^:]+(:[0-9a-z/-]+)*", one), name)]
    return name if name in STRUCTURES else max(matching, key=len, default=None)


@dataclass(frozen=True)
class Naming:
    """The structures that name the person, by a word of theirs, or by the id of one of their jobs."""

    by_word: set[str]
    by_id: set[str]

    @classmethod
    def scan(cls, redis: Redis, prefix: str, job_ids: set[str]) -> Naming:
        """Read every key and value."""
        by_word, by_id = set(), set()
        for key, value in dump_keys(redis, prefix).items():
            name, text = key.removeprefix(f"{{{prefix}}}:"), f"{key} {value}"
            structure = structure_of(name) or name
            by_word |= {structure} if WORD in text else set()
            by_id |= {structure} if any(job_id in text for job_id in job_ids) else set()
        return cls(by_word, by_id)


class Files:
    """Upstream's files, without a network."""

    def download(self, url: str, into: BinaryIO) -> Download:
        """Write a file of the type that the URL names."""
        into.write(b"ID3\x03" if url.endswith(".mp3") else b"\xff\xd8\xff\xe0")
        return Download(into, 4, 4, b"ID3\x03" if url.endswith(".mp3") else b"\xff\xd8\xff\xe0")


def archiving(store: JobStore, folder: Path, at: float = NOW + 100) -> ArchiveServices:
    """Return a worker that archives into the folder."""
    timeouts = ArchiveTimeouts(backoff_initial_s=30, backoff_max_s=3_600, give_up_after_s=86_400, lease_s=60)
    return ArchiveServices(
        store.archive,
        store.heartbeats["archive"],
        cast(Downloader, Files()),
        ArchiveStorage.from_url(str(folder)),
        timeouts,
        lambda: at,
        store.erasure,
    )


def of_person(key: str, batch: str | None = "zoe-obrien", **fields: Any) -> VoiceJob:
    """Return a job of the person, with a text of theirs in every field."""
    return voice(
        **{
            "key": f"{MARK}-{key}",
            "name": MARK,
            "batch": batch,
            "audio_url": f"https://files.example/{WORD}-{key}.wav?signature={WORD}",
            "callback_url": f"https://hooks.example/{WORD}",
            "metadata": {**PERSON, WORD: f"{MARK} note"},
            "song": SONG.model_copy(update={"prompt": f"la {MARK}", "title": WORD}),
            **fields,
        }
    )


def live(store: JobStore, client: VoiceQueue, folder: Path) -> list[str]:
    """Give the person a part in every structure; return the ids of their jobs."""
    jobs = [job_in_state(store, state, of_person(state)) for state in REACHABLE if state is not State.QUEUED]
    songs = [replace(clip, title=MARK, lyrics=MARK) for clip in CLIPS]
    for number in range(4):
        shared = of_person(f"song-{number}", "spring" if number % 2 else "zoe-obrien")
        fields = {name: getattr(shared, name) for name in shared.model_fields_set}
        jobs.append(job_with_song(store, tuple(songs), **fields))
    created = job_in_state(store, State.PENDING, of_person("voice", reuse=True, song=None))
    persona = {"persona_id": PERSONA, "voice_name": MARK, "settled": str(NOW)}
    jobs.append(apply_transition(store, created, State.SUCCEEDED, fields=persona))
    late = job_in_state(store, State.PENDING, of_person("late"))
    jobs.append(apply_transition(store, late, State.CANCELLED, due=NOW + 60, fields={"settled": str(NOW)}))
    [resting_id] = enqueue_jobs(store, of_person("resting"))
    rest(store, [resting_id], NOW + 600)
    store.recordings.record_outcome(str(of_person("resting").audio_url), CheckOutcome(NOW))
    refused_ids = enqueue_jobs(store, of_person("refused"), of_person("limited"))
    store.admit(NOW, at_most=1_000)
    for job_id in refused_ids:
        claim_admitted(store, job_id)
    refuse_order(store, refused_ids[0])
    rate_limit_order(store, refused_ids[1])
    ids = [*(job.id for job in jobs), resting_id, *refused_ids]
    for key in ("sharing-1", "sharing-2"):
        same = {"audio_url": f"https://files.example/{WORD}.wav", "voice": WORD}
        ids += enqueue_jobs(store, of_person(key, start_within_s=86_400, **same))
    ids += enqueue_jobs(store, of_person("queued"), of_person("alone", None))
    list(store.indexes.summaries.build(lambda: NOW + 200, Size(full=10, smallest=1)))
    fill_outboxes(store, folder, [job for job in jobs if job.clips])
    name_in_operations(store, client, ids)
    return ids


def fill_outboxes(store: JobStore, folder: Path, songs: list[Job]) -> None:
    """Leave callbacks pending, leased and undelivered, and songs archived, pending, leased and failed."""
    claims = claim_due(store.callbacks)
    store.callbacks.mark_undelivered(claims[0].id, NOW, MARK, is_attempted=True)
    store.callbacks.redeliver([claims[0].id], NOW)
    store.callbacks.lease(NOW, lease_s=60)
    for callback in claims[1:3]:
        store.callbacks.mark_undelivered(callback.id, NOW, MARK, is_attempted=True)
    archived, failing, *_ = songs
    archive_jobs(archiving(store, folder), [archived.id])
    claim = store.archive.claim(failing.id, "holder", NOW + 100, lease_s=60)
    assert claim is not None
    store.archive.mark_failed(claim, NOW + 100, MARK)
    store.archive.lease(NOW + 100, lease_s=60)


def recordings(store: JobStore, job_ids: list[str]) -> set[str]:
    """Return the hashes of the URLs of these jobs' recordings."""
    urls = [str(get_job(store, job_id).spec.audio_url) for job_id in job_ids]
    return {sha1(url.encode(), usedforsecurity=False).hexdigest() for url in urls}


def name_in_operations(store: JobStore, client: VoiceQueue, job_ids: list[str]) -> None:
    """Reject messages, make plans, and change jobs and batches for reasons that name the person."""
    store.rejected_messages.add(RejectedMessage(NOW, "m", "t", MARK, {"job": {"metadata": PERSON}}, client.namespace))
    acting = client.on_behalf_of("cli:ana", reason=MARK)
    acting.set_batch_limits("zoe-obrien", stop_after=0.1, stop_min=1)
    acting.set_batch_callback("zoe-obrien", f"https://hooks.example/{WORD}")
    failed = next(job for job in store.get(job_ids) if job and job.state is State.FAILED)
    fail_job(store, acting.retry(failed.id), FailureCode.UPSTREAM_FAILED)
    acting.plan_bulk("cancel", Filter(batch="zoe-obrien"))
    acting.plan_erasure(PERSON)


def settled(store: JobStore) -> None:
    """Let the orders of marked jobs have an outcome, and erase them as maintenance does."""
    for job in store.get(store.erasure.due()):
        assert job is not None
        unsure = job
        if job.state is State.CHARGING:
            unsure = apply_transition(store, job, State.UNSURE, reason="no answer")
        store.apply_transitions([transitions.abandon(unsure, NOW)], NOW)
    store.erasure.erase(store.erasure.due(), NOW)


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_nothing_in_redis_and_the_archive_names_an_erased_person(
    redis: Redis, valkey_url: str, prefix: str, tmp_path: Path, namespace: str
) -> None:
    """No key, value, folder or file has a word of theirs, and no structure names their jobs; others keep theirs."""
    limits = Limits(in_flight=100_000, initial_in_flight=100_000)
    store = JobStore(redis, prefix, limits=limits, archives=True, namespace=namespace)
    worker = archiving(store, tmp_path / "songs")
    with VoiceQueue(valkey_url, prefix=prefix, namespace=namespace) as client:
        other = job_with_song(store, key="other", batch="spring", audio_url="https://files.example/other.wav")
        archive_jobs(worker, [other.id])
        job_ids = live(store, client, tmp_path / "songs")
        before = get_job(store, other.id)
        (next((tmp_path / "songs").rglob(f"{job_ids[7]}/*.json")).parent / ".c-1.mp3.0a1b.part").write_text(MARK)
        names = {*job_ids, *recordings(store, job_ids)}
        naming = Naming.scan(redis, prefix, names)

        certificate = client.erase(client.plan_erasure(PERSON).token)
        meanwhile = Naming.scan(redis, prefix, names)
        settled(store)
        delete_erased(archiving(store, tmp_path / "songs", at=NOW * 2))

        personal = naming.by_word | naming.by_id | meanwhile.by_id
        assert set(STRUCTURES) - set().union(*IMPERSONAL.values()) - personal == set()
        after = Naming.scan(redis, prefix, names)
        assert sorted(after.by_word) == []
        assert sorted(after.by_id - WITH_IDS) == []
        assert PERSONA in certificate.upstream_ids
        assert Naming.scan(redis, prefix, {PERSONA}).by_id == WITH_PERSONA
        assert WORD not in certificate.as_text() + str(certificate.as_dict())
        files = [path for path in (tmp_path / "songs").rglob("*") if WORD in str(path) or path.suffix == ".part"]
        assert files == []
        texts = [path.read_bytes() for path in (tmp_path / "songs").rglob("*") if path.is_file()]
        assert len(texts) > 0
        assert [text for text in texts if WORD.encode() in text] == []
        assert get_job(store, other.id) == before
    assert audit(redis, prefix) == []
