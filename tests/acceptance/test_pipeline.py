"""The main job, on real processes: voices go in, personas and songs come out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.conftest import eventually
from voicequeue import State

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """Two workers and room for many jobs; it looks for credits often."""
    return build_for_all(VOICEQUEUE_MAX_IN_FLIGHT="200", VOICEQUEUE_CREDITS_EVERY_S="0.5")


@pytest.fixture
def house(standing: House) -> House:
    """The house, for one test."""
    return standing.renew()


def run(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its users do."""
    command = [str(Path(sys.executable).parent / "voicequeue"), *arguments]
    env = {**os.environ, "REDIS_URL": house.redis_url}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_a_csv_of_voices_goes_in_and_personas_and_songs_come_out(house: House) -> None:
    """Ingest, watch and export do the whole job; a second ingest adds nothing."""
    sample = str(ROOT / "samples" / "voices.csv")

    first = json.loads(run(house, "ingest", sample, "--batch", "sample", "--json").stdout)
    watched = run(house, "watch", "--batch", "sample", "--interval", "0.1", "--timeout", "60")
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


def test_the_export_for_people_lists_every_voice_with_its_links(house: House) -> None:
    """CSV export has one line a job, with the songs' links, names and lengths."""
    with house.queue() as queue:
        queue.enqueue_many(jobs(3, "people"))
        eventually(lambda: settled(queue, "people"), within_s=40)

    rows = list(csv.DictReader(run(house, "export", "--batch", "people").stdout.splitlines()))

    assert [row["state"] for row in rows] == ["succeeded"] * 3
    assert all(row["song_1_url"].startswith("http") and row["persona_id"] for row in rows)


def test_many_jobs_through_two_workers_are_each_paid_once(house: House) -> None:
    """The ledger shows one voice and one song for each job, and our books agree with it."""
    with house.queue() as queue:
        queue.enqueue_many(jobs(200, "many"))
        eventually(lambda: settled(queue, "many"), within_s=60)

    states = nothing_lost_nothing_paid_twice(house, 200, "many")

    kinds = [charge["kind"] for charge in house.ledger()["charges"]]
    assert states[State.SUCCEEDED] == 200
    assert (kinds.count("voice"), kinds.count("music")) == (200, 200)


def test_no_credits_means_nothing_fails_and_all_goes_on_when_there_are_some(house: House) -> None:
    """Out of credits closes the gate; jobs stay queued, and finish once the account can pay."""
    house.dial(credits=0)
    with house.queue() as queue:
        queue.enqueue_many(jobs(5, "poor"))
        eventually(lambda: queue.status().gate.closed_for("out_of_credits"))
        assert queue.batch("poor").states[State.FAILED] == 0
        assert house.ledger()["charges"] == []

        house.dial(credits=1000)
        eventually(lambda: settled(queue, "poor"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 5, "poor")[State.SUCCEEDED] == 5
