"""The commands `watch` and `export`."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.conftest import Command
from tests.store.life import CLIPS, NOW, REACHABLE, apply_transition, fail_job, job_in_state, job_with_song
from tests.support.jobs import LYRICS, URL, voice
from voicequeue import FailureCode, State, VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore

# ── watch ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "code"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.CANCELLED, 1), (State.UNSURE, 1)]
)
def test_watching_a_settled_batch_ends_at_once(command: Command, store: JobStore, state: State, code: int) -> None:
    """With 0 if every job succeeded, else with 1."""
    job_in_state(store, state, voice(batch="b"))
    job_in_state(store, State.SUCCEEDED, voice(batch="b"))

    ended = command("watch", "--batch", "b")

    assert ended.code == code
    assert state in ended.out


@pytest.mark.parametrize("state", [state for state in REACHABLE if state not in (State.UNSURE,)])
def test_watching_without_a_batch_watches_jobs_without_a_batch_too(
    command: Command, store: JobStore, state: State
) -> None:
    """A job that is in no batch counts as well."""
    job = job_in_state(store, state, voice())

    ended = command("watch", "--timeout", 0, "--json")

    assert ended.code == {State.SUCCEEDED: 0, State.FAILED: 1, State.CANCELLED: 1, State.UNSURE: 1}.get(state, 4)
    [batch] = json.loads(ended.out.splitlines()[-1])
    assert (batch["name"], batch["total"], batch["states"][state], batch["credits"]) == (
        "(no batch)",
        1,
        1,
        job.credits,
    )


def test_watching_follows_the_jobs_until_they_have_settled(command: Command, store: JobStore) -> None:
    """One line for every change; in the last one all have settled."""
    first, second = (job_in_state(store, State.PENDING, voice(batch="b")) for _ in range(2))
    with ThreadPoolExecutor(1) as thread:

        def settle() -> None:
            apply_transition(store, first, State.SUCCEEDED)
            apply_transition(store, second, State.SUCCEEDED)

        settling = thread.submit(settle)
        ended = command("watch", "--batch", "b", "--interval", 0.05, "--json")
        settling.result()

    last = json.loads(ended.out.splitlines()[-1])
    assert ended.code == 0
    assert last == [
        {
            "name": "b",
            "namespace": "",
            "states": {**{state.value: 0 for state in State}, "succeeded": 2},
            "total": 2,
            "settled": True,
            "credits": 8,
            "credits_reserved": 0,
            "credits_queued": 0,
            "failed_by_code": {},
            "stopped": None,
        }
    ]


def test_watching_ends_after_its_timeout(command: Command, queue: VoiceQueue) -> None:
    """With an exit code of its own, so that scripts distinguish it from a failure."""
    queue.enqueue(voice(batch="b"))

    ended = command("watch", "--batch", "b", "--timeout", 0.05, "--interval", 0.05)

    assert (ended.code, ended.out) == (4, "b: 1 queued, 0 credits\n")
    assert ended.err == "1 job had not settled when --timeout was over\n"


def test_watching_nothing_ends_at_once(command: Command) -> None:
    """With 0: no job has failed."""
    assert command("watch").code == 0


# ── export ────────────────────────────────────────────────────────────────────────────────────────


def test_a_csv_export_has_one_row_for_each_job(command: Command, store: JobStore) -> None:
    """With the order, the result, and both songs in columns."""
    songs = (replace(CLIPS[0], lyrics="[Verse]\nla", tags="calm, pop"), CLIPS[1])
    job = job_with_song(store, songs, batch="b", name="Ana", key="k", metadata={"row": "7"})
    pending = job_in_state(store, State.PENDING, voice(batch="b"), now=NOW + 1)
    lost = fail_job(store, pending, FailureCode.UPSTREAM_FAILED, NOW + 5)

    done, other = csv.DictReader(io.StringIO(command("export", "--batch", "b").out))

    assert json.loads(done.pop("song")) == {"mv": "sonic-v5", "custom_mode": True, "title": "A song", "prompt": LYRICS}
    assert done == {
        "id": job.id, "key": "k", "batch": "b", "row": "", "name": "Ana", "priority": "normal", "state": "succeeded",
        "stage": "music", "audio_url": URL, "persona_id": "p-1", "voice_name": "ana",
        "song_1_url": "https://cdn.example/1.mp3", "song_1_title": "First, take", "song_1_duration": "61.5",
        "song_1_archived": "", "song_1_cover_archived": "", "song_2_archived": "", "song_2_cover_archived": "",
        "song_2_url": "https://cdn.example/2.mp3", "song_2_title": "", "song_2_duration": "",
        "incomplete": "no", "song_1_clip_id": "c-1", "song_2_clip_id": "c-2", "song_1_state": "succeeded",
        "song_2_state": "succeeded", "song_1_image_url": "https://cdn.example/1.jpg", "song_2_image_url": "",
        "song_1_lyrics": "[Verse]\nla", "song_1_tags": "calm, pop",
        **{f"song_2_{field}": "" for field in ("lyrics", "tags")},
        **{f"song_{number}_{field}": "" for number in (1, 2)
           for field in ("video_url", "mv", "created_at", "gpt_description_prompt")},
        "failure_code": "", "failure_stage": "", "failure_message": "", "credits": "19",
        "created_at": to_iso8601(NOW), "settled_at": to_iso8601(NOW + 60), "metadata": '{"row": "7"}',
    }  # fmt: skip
    assert (other["id"], other["failure_code"], other["failure_stage"], other["failure_message"], other["song"]) == (
        lost.id,
        "upstream_failed",
        "voice",
        "no",
        "",
    )


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", " \t=1", "\r=1"])
def test_no_cell_of_a_csv_export_is_a_formula(command: Command, store: JobStore, text: str) -> None:
    """Titles are untrusted: they are quoted with '. JSON Lines are unchanged."""
    job_with_song(store, (replace(CLIPS[0], title=text),), name=text)

    [row] = csv.DictReader(io.StringIO(command("export").out))
    [line] = command("export", "--format", "jsonl").out.splitlines()

    assert row["song_1_title"] in (f"'{text}", " \t'=1", "\\r=1")
    assert row["name"] == f"'{text.strip()}"
    assert json.loads(line)["clips"][0]["title"] == text


@pytest.mark.parametrize("how", [["--format", "jsonl"], ["--json"]])
def test_a_json_lines_export_has_one_line_for_each_job(command: Command, store: JobStore, how: list[str]) -> None:
    """As `job` prints it, with the ordered song."""
    jobs = [job_with_song(store, batch="b"), job_in_state(store, State.QUEUED, voice(batch="b"), now=NOW + 1)]

    lines = [json.loads(line) for line in command("export", "--batch", "b", *how).out.splitlines()]

    assert lines == [
        {**jobs[0].as_dict(), "song": {"mv": "sonic-v5", "custom_mode": True, "title": "A song", "prompt": LYRICS}},
        {**jobs[1].as_dict(), "song": None},
    ]


def test_an_export_can_be_written_to_a_file(command: Command, store: JobStore, working_folder: Path) -> None:
    """The same bytes as on standard output, which stays empty."""
    job_with_song(store, name="Åse")
    on_screen = command("export").out

    ended = command("export", "--output", working_folder / "jobs.csv")

    assert (ended.code, ended.out) == (0, "")
    assert (working_folder / "jobs.csv").read_bytes().decode() == on_screen


def test_an_export_of_nothing_has_its_header(command: Command) -> None:
    """A state without jobs is no error."""
    ended = command("export", "--state", "failed")

    assert ended.code == 0
    assert ended.out.startswith("id,key,batch,")
    assert len(ended.out.splitlines()) == 1
    assert command("export", "--state", "failed", "--format", "jsonl").out == ""


@pytest.mark.parametrize("arguments", [["--batch", "nosuchbatch", "-o", "jobs.csv"], ["-o", "nosuchfolder/jobs.csv"]])
def test_an_invalid_export_leaves_no_file(command: Command, working_folder: Path, arguments: list[str]) -> None:
    """Exit code 2, without a traceback."""
    ended = command("export", *arguments)

    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert list(working_folder.iterdir()) == []
