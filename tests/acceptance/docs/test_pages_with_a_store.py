"""Pages whose blocks need Redis and jobs in certain states, but no workers: each is followed from top to bottom.

`tests/unit/project/test_docs_blocks.py` checks what is not run here.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

import voicequeue
from tests.store.life import (
    accept_order,
    apply_transition,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    job_in_state,
    job_with_song,
)
from tests.support.docs.blocks import ROOT, blocks_of
from tests.support.docs.clone import environment, make_clone
from tests.support.docs.reader import Reader
from tests.support.docs.shell import Shell
from tests.support.jobs import voice, voice_with_song
from voicequeue import FailureCode, State, VoiceJob, VoiceQueue
from voicequeue.storage.job_store import JobStore

#: A spreadsheet with a row that is no job.
ROWS = """audio_url,title,prompt,tags
{base}/ana.mp3,Harbour Lights,"[Verse]
The harbour lights are counting ships",warm folk
{base}/bo.mp3,,,
audio/cy.mp3,,,
"""

SECRET = "a secret of these pages, long enough to sign"


def populate(store: JobStore) -> dict[str, list[str]]:
    """Enqueue jobs in many states into the batch `spring`; return what readers put in for placeholders."""
    now = time.time()
    unsure = [_brought(store, State.UNSURE, f"unsure-{number}", now) for number in range(3)]
    failed = []
    for code in (FailureCode.DEADLINE, FailureCode.RECORDING_UNREACHABLE):
        [job_id] = enqueue_jobs(store, voice_with_song(key=f"failed-{code}", batch="spring"), now=now)
        store.admit(now, at_most=1_000)
        claim_admitted(store, job_id, now)
        if code is FailureCode.DEADLINE:
            accept_order(store, job_id, now)
        failed.append(fail_job(store, store.get([job_id])[0], code, now).id)  # type: ignore[arg-type]
    song = job_with_song(store, key="done", batch="spring")
    [sung] = enqueue_jobs(store, voice(key="sung", audio_url="https://recordings.example/sung.wav"), now=now)
    store.admit(now, at_most=1_000)
    claim_admitted(store, sung, now)
    apply_transition(store, accept_order(store, sung, now), State.SUCCEEDED, now, fields={"settled": str(now)})
    store.flow_control.record_balance(100_000, spent_before=0, requested_at=now, now=now)
    queued = enqueue_jobs(store, *(voice_with_song(key=f"queued-{n}", batch="spring") for n in range(3)), now=now)
    return {"UNSURE": unsure, "FAILED": failed, "QUEUED": queued, "DONE": [song.id]}


def order_voice(queue: VoiceQueue, customer: int) -> str:
    """Enqueue the order of a customer, as the app of `testing.md` does."""
    spec = VoiceJob(
        audio_url="https://shop.example/a.wav", metadata={"customer": str(customer)}, key=f"order-{customer}"
    )
    return queue.enqueue(spec).id


def _brought(store: JobStore, state: State, key: str, now: float) -> str:
    return job_in_state(store, state, voice_with_song(key=key, batch="spring"), now).id


#: The pages, with the jobs that replace `JOB_ID`, one after the other.
PAGES = {
    "docs/guides/cancel.md": "QUEUED",
    "docs/guides/retry.md": "FAILED",
    "docs/guides/unsure-jobs.md": "UNSURE",
    "docs/guides/budgets.md": "QUEUED",
    "docs/guides/spending.md": "QUEUED",
    "docs/guides/limit-a-batch.md": "QUEUED",
    "docs/guides/api-keys.md": "QUEUED",
    "docs/guides/alerts.md": "QUEUED",
    "docs/guides/troubleshooting.md": "QUEUED",
    "docs/guides/testing.md": "QUEUED",
    "docs/guides/spreadsheets.md": "QUEUED",
    "docs/guides/shared-voices.md": "QUEUED",
    "docs/guides/redis-outages.md": "QUEUED",
    "docs/explanation/flow-control.md": "QUEUED",
    "docs/explanation/concepts.md": "QUEUED",
    "docs/reference/audit-log.md": "QUEUED",
    "docs/reference/files.md": "QUEUED",
    "docs/reference/command-line.md": "QUEUED",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_right_about_every_block(
    page: str,
    store: JobStore,
    valkey_url: str,
    prefix: str,
    commands: Path,
    recordings: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its commands work in this order, and print what it shows."""
    if page == "docs/guides/testing.md":
        pytest.importorskip("fakeredis")
    clone = make_clone(tmp_path / "clone", commands, recordings)
    jobs = populate(store)
    if page == "docs/guides/spreadsheets.md":
        (clone / "voices.csv").write_text(ROWS.format(base=recordings), encoding="utf-8")
    env = environment(
        clone,
        REDIS_URL=valkey_url,
        VOICEQUEUE_PREFIX=prefix,
        VOICEQUEUE_SECRET=SECRET,
        VOICEQUEUE_AUDIO_ALLOWED_HOSTS="127.0.0.1",
        RECORDINGS=recordings,
    )
    with (
        VoiceQueue(valkey_url, prefix=prefix, namespace="*") as queue,
        Shell(clone, tmp_path / "scratch", env) as shell,
        patch.dict(os.environ, env),
    ):
        monkeypatch.setitem(sys.modules, "shop", SimpleNamespace(order_voice=order_voice))
        names = {**vars(voicequeue), "queue": queue, "url": valkey_url, "job_id": jobs["DONE"][0]}
        reader = Reader(
            shell, placeholders={"JOB_ID": jobs[PAGES[page]], "PERSONA_ID": ["p-1"]}, prepared={}, names=names
        )
        problems = reader.read(blocks_of(ROOT / page))
    assert not problems, "\n\n".join(problems)
