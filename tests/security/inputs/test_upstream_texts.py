"""Half a character in upstream's answers: paid results are kept, and no id is guessed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tasks.archive.downloader import Downloader, DownloadLimits
from tasks.archive.storage import ArchiveStorage
from tasks.archive.task import ArchiveServices, archive_jobs
from tasks.musicapi import MusicReady, VoiceReady, responses
from tests.integration.conftest import Build, voice
from tests.security.inputs.halves import HALF, MENDED, URL
from tests.store.conftest import Command
from tests.support.scripted import Request, ScriptedServer, answer
from tests.web.conftest import Gateway
from voicequeue import Stage, State
from voicequeue.domain.timeouts import ArchiveTimeouts
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway


def _upstream(cdn: str) -> Any:
    """Return an upstream that accepts orders; its voices and songs have half a character in each text except ids."""
    texts = ("title", "tags", "lyrics", "mv", "created_at", "gpt_description_prompt")
    song = {**dict.fromkeys(texts, HALF), "clip_id": "c1", "state": "succeeded", "audio_url": f"{cdn}/1.mp3"}
    voice_made = {"code": 200, "data": {"persona_id": "p1", "name": HALF}, "message": HALF}

    def script(request: Request) -> Iterable[bytes]:
        if request.method == "POST":
            return [answer({"task_id": request.path[-5:], "message": HALF})]
        return [answer({"code": 200, "data": [song]} if "eate" in request.path else voice_made)]

    return script


def test_paid_results_with_half_a_character_in_each_text_are_kept(
    build_bench: Build, gateway: Gateway, command: Command, store: JobStore, tmp_path: Path
) -> None:
    """From MusicAPI to HTTP, the page, the command, the callback and the archive."""
    mp3 = answer("ID3\x04" + "x" * 4_000, headers=["Content-Type: audio/mpeg"])
    spec = voice().model_copy(update={"callback_url": "https://hooks.example/x"})
    with ScriptedServer(lambda _: [mp3]) as cdn, ScriptedServer(_upstream(cdn.url)) as upstream:
        bench = build_bench(upstream.url)
        [job_id] = bench.submitted(spec)
        assert bench.poll_when_due([job_id]).to_music == [job_id]
        bench.submit(Stage.MUSIC, [job_id])
        bench.poll_when_due([job_id])
        _archive(store, job_id, bench.clock.now, tmp_path)

    job = bench.job(job_id)
    assert (job.state, job.persona_id, job.credits) == (State.SUCCEEDED, "p1", 19)
    assert [(clip.clip_id, clip.title, clip.lyrics) for clip in job.clips] == [("c1", MENDED, MENDED)]
    shown_job = gateway.get(f"/v1/jobs/{job_id}")
    assert shown_job["clips"][0]["title"] == MENDED
    assert [row["id"] for row in gateway.get("/v1/jobs", params={"search": MENDED})["data"]] == [job_id]
    assert MENDED in command("job", job_id).out
    assert MENDED in command("export").out
    assert command("export", "--json").json()["clips"][0]["title"] == MENDED
    [call] = store.callbacks.claim(store.callbacks.lease(bench.clock.now, lease_s=60), bench.clock.now, lease_s=60)
    assert json.loads(call.body())["data"]["clips"][0]["title"] == MENDED
    [described] = tmp_path.rglob("*.json")
    assert json.loads(described.read_text(encoding="utf-8"))["title"] == MENDED


BROKEN_IDS: list[Any] = [
    {"task_id": HALF},
    {"data": {"taskId": HALF}, "id": "of-the-request"},
    {"task_id": HALF, "job_id": "another"},
    {"task_ids": [HALF, "another"]},
    {"data": {"id": HALF}},
]


@pytest.mark.parametrize("body", BROKEN_IDS, ids=str)
def test_an_id_with_half_a_character_is_not_used_and_not_replaced_by_another(body: Any) -> None:
    """A repaired id would be unknown upstream, or belong to another order."""
    assert responses.accepted_task_id(body) is None
    assert responses.find_task_id(body) is None


def test_a_voice_with_half_a_character_in_its_id_is_not_used() -> None:
    """It might be another voice. A song is identified by its position, with its link."""
    finished = {"code": 200, "data": {"state": "complete", "id": "p2", "persona": {"persona_id": HALF, "id": "p3"}}}
    song = {"clip_id": HALF, "id": "another", "state": "succeeded", "audio_url": URL}

    assert responses.task_result({"persona_id": HALF}, Stage.VOICE) is None
    assert not isinstance(responses.task_result(finished, Stage.VOICE), VoiceReady)
    result = responses.task_result({"data": [song]}, Stage.MUSIC)
    assert isinstance(result, MusicReady)
    assert [(clip.clip_id, clip.audio_url) for clip in result.clips] == [("clip-1", URL)]


def test_an_order_with_a_broken_id_is_kept_for_review(build_bench: Build) -> None:
    """It was charged: it is neither polled by another id nor submitted again."""
    received: list[Request] = []

    def script(request: Request) -> list[bytes]:
        received.append(request)
        return [answer({"task_id": HALF})]

    with ScriptedServer(script) as upstream:
        bench = build_bench(upstream.url)
        [job_id] = bench.admitted(voice())
        bench.submit(Stage.VOICE, [job_id])

    assert bench.job(job_id).state is State.UNSURE
    assert [request.method for request in received] == ["POST"]


def _archive(store: JobStore, job_id: str, now: float, folder: Path) -> None:
    """Archive the songs of a job in this folder."""
    assert store.archive.retry([job_id], now) == [True]
    downloader = Downloader(
        allowed=AddressPolicy.parse("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS"), bounds=DownloadLimits()
    )
    timeouts = ArchiveTimeouts(backoff_initial_s=30, backoff_max_s=3_600, give_up_after_s=86_400, lease_s=60)
    storage = ArchiveStorage.from_url(str(folder / "songs"))
    archive_jobs(
        ArchiveServices(store.archive, store.heartbeats["archive"], downloader, storage, timeouts, lambda: now),
        [job_id],
    )
