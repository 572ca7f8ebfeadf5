"""Recordings: the jobs to check before their order is sent, outcomes that all workers share, corrected URLs."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import cast

from voicequeue.domain.recording_check import CheckOutcome, UncheckedJob, outcome_text, parse_outcome, parse_recheck
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.connection.keyspace import Keyspace

#: Seconds for which the outcome of a check is kept.
OUTCOME_TTL_S = 120


@dataclass(frozen=True, slots=True)
class CorrectedJob:
    """A job at this version, with the spec, the shared voice ('' = none) and the voice by URL of its new recording."""

    job_id: str
    version: int
    spec: VoiceJob
    shared_voice: str
    recording: str


@dataclass(frozen=True, slots=True)
class NamedVoice:
    """A voice that jobs share by name: the job that is to create it, its persona, and how many jobs share it."""

    creator: str | None
    persona_id: str | None
    jobs: int


_FIELDS = ("state", "stage", "version", "spec", "recheck", "lost_orders", "created")


class Recordings:
    """The recordings of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def unchecked(self, job_ids: Sequence[str]) -> list[UncheckedJob]:
        """Return those of the jobs that are admitted to the voice stage."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(self._space.key(f"job:{job_id}"), *_FIELDS)
            records = cast(list[list[str | None]], pipe.execute())
        jobs = (_unchecked(job_id, *record) for job_id, record in zip(job_ids, records, strict=True))
        return [job for job in jobs if job is not None]

    def outcomes(self, urls: Collection[str]) -> dict[str, CheckOutcome]:
        """Return the outcomes of recent checks by URL."""
        if not urls:
            return {}
        texts = cast(list[str | None], self._redis.mget([self._key(url) for url in urls]))
        outcomes = {url: parse_outcome(text) for url, text in zip(urls, texts, strict=True)}
        return {url: outcome for url, outcome in outcomes.items() if outcome is not None}

    def record_outcome(self, url: str, outcome: CheckOutcome) -> None:
        """Keep the outcome of a check for two minutes."""
        self._redis.set(self._key(url), outcome_text(outcome), ex=OUTCOME_TTL_S)

    def named_voice(self, voice: str) -> NamedVoice:
        """Return a named voice by its id."""
        fields = cast(
            list[str | None], self._redis.hmget(self._space.key(f"voice:{voice}"), "creator", "persona_id", "jobs")
        )
        creator, persona_id, jobs = fields
        return NamedVoice(creator, persona_id, int(jobs or 0))

    def correct(self, jobs: Sequence[CorrectedJob], now: float, *, reason: str) -> list[bool]:
        """Give jobs with the same new URL their new recording; False for a job whose version has changed.

        Earlier checks of that URL are forgotten.
        """
        arguments = [
            argument
            for job in jobs
            for argument in (job.job_id, job.version, job.spec.canonical_content(), job.shared_voice)
        ]
        url = jobs[0].spec.audio_url
        if url is not None:
            self._redis.delete(self._key(url))
        results = self._space.run_change("correct_recording", f"{now:.6f}", jobs[0].recording, reason, *arguments)
        return [bool(is_written) for is_written in results]

    def _key(self, url: str) -> str:
        return self._space.key(f"recording_check:{sha1(url.encode(), usedforsecurity=False).hexdigest()}")


def _unchecked(
    job_id: str,
    state: str | None,
    stage: str | None,
    version: str | None,
    content: str | None,
    recheck: str | None,
    lost_orders: str | None,
    created: str | None,
) -> UncheckedJob | None:
    if state != State.ADMITTED or stage != Stage.VOICE or version is None or content is None:
        return None
    url = json.loads(content).get("audio_url")
    return UncheckedJob(
        job_id,
        int(version),
        url,
        parse_recheck(recheck),
        may_be_charged=bool(lost_orders),
        created=float(created or 0.0),
    )
