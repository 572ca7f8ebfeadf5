"""The main job, on real processes: voices go in, personas and songs come out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.conftest import eventually
from voicequeue import State

ROOT = Path(__file__).parents[2]


def run(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its users do."""
    command = [str(Path(sys.executable).parent / "voicequeue"), *arguments]
    env = {**os.environ, "REDIS_URL": house.redis_url}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_a_csv_of_voices_goes_in_and_personas_and_songs_come_out(build: Build) -> None:
    """Ingest, watch and export do the whole job; a second ingest adds nothing."""
    house = build()
    sample = str(ROOT / "samples" / "voices.csv")

    first = json.loads(run(house, "ingest", sample, "--batch", "sample", "--json").stdout)
    watched = run(house, "watch", "sample", "--every", "0.1", "--timeout", "60")
    second = json.loads(run(house, "ingest", sample, "--batch", "sample", "--json").stdout)
    exported = run(house, "export", "--batch", "sample", "--format", "jsonl")

    assert (first["new"], first["known"], first["credits"]) == (12, 0, 12 * 19)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert (second["new"], second["known"]) == (0, 12)
    results = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [len(result["clips"]) for result in results] == [2] * 12
    assert {result["persona_id"] for result in results} == {
        charge["subject"] for charge in house.ledger()["charges"] if charge["kind"] == "music"
    }
    assert [result["song"]["title"] for result in results] == [clip["clips"][0]["title"] for clip in results]
    assert house.ledger()["credits_spent"] == 12 * 19
    nothing_lost_nothing_paid_twice(house, 12, "sample")


def test_the_export_for_people_lists_every_voice_with_its_links(build: Build) -> None:
    """CSV export has one line a job, with the songs' links, names and lengths."""
    house = build(workers=1)
    with house.queue() as queue:
        queue.enqueue_many(jobs(3))
        eventually(lambda: settled(queue), within_s=40)

    rows = list(csv.DictReader(run(house, "export", "--batch", "voices").stdout.splitlines()))

    assert [row["state"] for row in rows] == ["succeeded"] * 3
    assert all(row["song_1_url"].startswith("http") and row["persona_id"] for row in rows)


def test_many_jobs_through_two_workers_are_each_paid_once(build: Build) -> None:
    """The ledger shows one voice and one song for each job, and our books agree with it."""
    house = build(VOICEQUEUE_MAX_IN_FLIGHT="200")
    with house.queue() as queue:
        queue.enqueue_many(jobs(200))
        eventually(lambda: settled(queue), within_s=60)

    states = nothing_lost_nothing_paid_twice(house, 200)

    kinds = [charge["kind"] for charge in house.ledger()["charges"]]
    assert states[State.SUCCEEDED] == 200
    assert (kinds.count("voice"), kinds.count("music")) == (200, 200)


def test_no_credits_means_nothing_fails_and_all_goes_on_when_there_are_some(build: Build) -> None:
    """Out of credits closes the gate; jobs stay queued, and finish once the account can pay."""
    house = build(workers=1, dials={"credits": 0}, VOICEQUEUE_CREDITS_EVERY_S="0.5")
    with house.queue() as queue:
        queue.enqueue_many(jobs(5))
        eventually(lambda: queue.status().gate.closed_for("out_of_credits"))
        assert queue.batch("voices").states[State.FAILED] == 0
        assert house.ledger()["charges"] == []

        house.dial(credits=1000)
        eventually(lambda: settled(queue), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 5)[State.SUCCEEDED] == 5
