"""Everything that was paid for is kept: each field of a song arrives at each place where results are read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import pytest
from redis import Redis

from tests.store.life import NOW, get_job, job_with_song
from tests.store.outbox.callback_steps import HOOK, claim_due, only, payload
from tests.support.cli import run_in_process
from tests.support.clips import full_clip
from tests.web.conftest import Gateway
from tests.web.seen import get_page
from voicequeue import ArchivedFile, Clip, Job
from voicequeue.domain import schemas
from voicequeue.domain.serialization import archived_field, clips_text, parse_clips
from voicequeue.domain.states import ClipPart
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

CLIP = full_clip()
FIELDS = tuple(field.name for field in fields(Clip))
ARCHIVED = {"archived_audio": ClipPart.AUDIO, "archived_image": ClipPart.IMAGE}
IN_CSV = {"audio_url": "url", "archived_audio": "archived", "archived_image": "cover_archived"}


@pytest.fixture
def job(store: JobStore, redis: Redis, prefix: str) -> Job:
    """Return a finished job with a song that has every field, whose files are in the archive."""
    job = job_with_song(store, (CLIP,), callback_url=HOOK)
    for field, part in ARCHIVED.items():
        text = json.dumps(asdict(getattr(CLIP, field)))
        redis.hset(f"{{{prefix}}}:job:{job.id}", archived_field(part, CLIP.clip_id), text)
    return job


def text_of(value: Any) -> str:
    """Return a value as a table shows it."""
    return value.url if isinstance(value, ArchivedFile) else str(value)


def test_the_schema_has_every_field_of_a_song() -> None:
    """It is the contract of the API, of callbacks and of JSON exports."""
    assert set(schemas.Clip.__annotations__) == set(FIELDS)


def test_the_record_keeps_every_field_of_a_song(store: JobStore, job: Job) -> None:
    """Links of archived files have fields of their own."""
    assert get_job(store, job.id).clips == (CLIP,)
    [stored] = parse_clips(clips_text((CLIP,)))
    assert {name for name in FIELDS if getattr(stored, name) != getattr(CLIP, name)} == ARCHIVED.keys()


def test_the_api_returns_every_field_of_a_song(gateway: Gateway, job: Job) -> None:
    """With its value."""
    assert gateway.get(f"/v1/jobs/{job.id}")["clips"] == [asdict(CLIP)]


def test_a_callback_reports_every_field_of_a_song(store: JobStore, job: Job) -> None:
    """Except the links of archived files: songs are archived after the job has succeeded."""
    [clip] = payload(only(claim_due(store.callbacks, NOW + 100)))["data"]["clips"]

    assert job.callback_id
    assert clip == {**asdict(CLIP), **dict.fromkeys(ARCHIVED)}


def test_the_page_of_a_job_shows_every_field_of_its_songs(local: Gateway, job: Job) -> None:
    """In its text or as a link; the length as minutes and seconds."""
    page = get_page(local, f"/job/{job.id}")
    values = {name: text_of(getattr(CLIP, name)) for name in FIELDS} | {"duration": "1:01"}

    assert [name for name, value in values.items() if value not in page.text and value not in page.links()] == []


def as_json_lines(url: str) -> dict[str, Any]:
    """Return the song of the only line of an export."""
    [line] = run_in_process(url, "export", "--format", "jsonl").stdout.splitlines()
    [clip] = json.loads(line)["clips"]
    return {name: value["url"] if isinstance(value, dict) else str(value) for name, value in clip.items()}


def as_csv(url: str, *options: str) -> dict[str, Any]:
    """Return the song of the only row of an export."""
    text = run_in_process(url, "export", *options).stdout
    [row] = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    return {name: row[f"song_1_{IN_CSV.get(name, name)}"] for name in FIELDS}


def as_sheet(url: str) -> dict[str, Any]:
    """Return the song of the only row of an export for spreadsheet programs."""
    return as_csv(url, "--excel")


@pytest.mark.parametrize("read", [as_json_lines, as_csv, as_sheet])
def test_every_export_has_every_field_of_a_song(
    job: Job, valkey_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, read: Callable[[str], dict[str, Any]]
) -> None:
    """Archived files as their links."""
    monkeypatch.setenv("VOICEQUEUE_PREFIX", prefix)

    assert job.clips
    assert read(valkey_url) == {name: text_of(getattr(CLIP, name)) for name in FIELDS}
