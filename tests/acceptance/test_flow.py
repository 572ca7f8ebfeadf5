"""Flow control on real processes: the queue stops without failing anything, shares fairly, and goes on by itself."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.acceptance.test_pipeline import run
from tests.conftest import eventually
from voicequeue import Event, Filter, State, VoiceJob, VoiceQueue
from voicequeue.domain.job import IN_FLIGHT
from voicequeue.domain.spec import Priority
from voicequeue.storage.job_store import connect
from voicequeue.storage.keyspace import DEFAULT_PREFIX, Keyspace

#: Upstream is quick, and the dials that other tests do not know are as they are at first.
AS_AT_FIRST = {
    "voice_s": 0.2,
    "music_s": 0.2,
    "api_key": None,
    "concurrency": None,
    "retry_after": None,
    "retry_after_form": "seconds",
    "latency_s": 0,
}


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """Two workers that look for credits often."""
    return build_for_all(
        VOICEQUEUE_MAX_IN_FLIGHT="200", VOICEQUEUE_FIRST_IN_FLIGHT="10", VOICEQUEUE_CREDITS_EVERY_S="0.3"
    )


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    """The house, for one test: nothing is held back, and nothing is known of what upstream bears."""
    standing.renew().dial(**AS_AT_FIRST)
    with standing.queue() as queue:
        queue.set_limits(in_flight=None, submit_rate=None, credit_floor=None)
        forget(standing, "flow", "gate")
        eventually(lambda: queue.status().gate.open and queue.status().account.left == 1_000_000)
        yield standing
        for batch in queue.batches():
            queue.resume(batch=batch.name)
            queue.carry_out("cancel", queue.plan("cancel", Filter(batch=batch.name)).token)
        eventually(lambda: queue.status().in_flight == 0)


def forget(house: House, *keys: str) -> None:
    """Take out what the workers have found out."""
    client = connect(house.redis_url)
    client.delete(*(Keyspace(client, DEFAULT_PREFIX).key(key) for key in keys))
    client.close()


def posts(house: House) -> int:
    """How often something was ordered, successfully or not."""
    calls = house.ledger()["calls"]
    return int(calls["create_voice"] + calls["create_music"])


def charged(house: House, batch: str, kind: str = "voice") -> list[float]:
    """When orders of that batch were charged."""
    return [
        charge["at"] for charge in house.ledger()["charges"] if charge["kind"] == kind and batch in charge["subject"]
    ]


def moves(house: House, batch: str) -> list[tuple[str, str, str]]:
    """Of all moves of that batch's jobs, in the very order they were written: id, state, stage."""
    return [(each.job_id, each.state, each.stage or "") for each in events(house) if each.batch == batch]


def most_in_flight(house: House, batch: str) -> int:
    """How many jobs of that batch held a slot at once, at most."""
    flying: set[str] = set()
    most = 0
    for job_id, state, _ in moves(house, batch):
        (flying.add if state in IN_FLIGHT else flying.discard)(job_id)
        most = max(most, len(flying))
    return most


def some_time_passes(queue: VoiceQueue) -> None:
    """The workers look around twice more."""
    before = queue.balances()[-1].at
    eventually(lambda: sum(balance.asked > before for balance in queue.balances()) >= 2)


def said(house: House) -> Callable[[str], int]:
    """Counts what the workers say from now on."""
    before = house.logs()
    return lambda words: house.logs().count(words) - before.count(words)


def stuck(queue: VoiceQueue, state: State) -> int:
    """How many jobs are in that state."""
    return queue.status().states[state]


def test_credits_for_40_of_100_jobs_make_40_and_the_rest_waits_until_there_are_more(house: House) -> None:
    """No job is begun that cannot be finished, nothing fails, and it is said once."""
    counts = said(house)
    with house.queue() as queue:
        house.dial(credits=760)
        eventually(lambda: queue.status().account.left == 760)
        queue.enqueue_many(jobs(100, "poor"))
        eventually(lambda: queue.batch("poor").states[State.SUCCEEDED] == 40 and queue.status().in_flight == 0)
        some_time_passes(queue)

        states = queue.batch("poor").states
        assert (states[State.SUCCEEDED], states[State.QUEUED], states[State.FAILED]) == (40, 60, 0)
        assert "out_of_credits" in run(house, "status").stdout
        assert house.ledger()["credits_spent"] == 760
        assert counts('"level": "error"') == 0
        # A balance that upstream gives while orders are on their way may say so once before it is so.
        assert counts("the credits do not suffice") in (1, 2)

        requests.post(f"{house.control}/credits", json={"add": 60 * 19}, timeout=5).raise_for_status()
        eventually(lambda: settled(queue, "poor"), within_s=40)
        assert queue.status().gate.open

    assert nothing_lost_nothing_paid_twice(house, 100, "poor")[State.SUCCEEDED] == 100
    assert counts("the credits do not suffice") in (1, 2)


def test_credits_that_somebody_else_spends_are_missed_once_and_nothing_fails(house: House) -> None:
    """Upstream refuses what we thought we could pay: the gate closes, with one line in the log."""
    counts = said(house)
    with house.queue() as queue:
        house.dial(credits=0)
        queue.enqueue_many(jobs(20, "robbed"))
        eventually(lambda: queue.status().gate.closed_for("out_of_credits") and queue.status().in_flight == 0)
        some_time_passes(queue)
        assert queue.batch("robbed").states[State.QUEUED] == 20
        refused, foreseen = counts('"level": "error"'), counts("the credits do not suffice")
        # Orders are refused, or the balance shows it before any is sent: whichever comes first.
        assert 1 <= refused + foreseen <= 2, house.logs()
        assert max(refused, foreseen) == 1

        house.dial(credits=1_000)
        eventually(lambda: settled(queue, "robbed"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 20, "robbed")[State.SUCCEEDED] == 20


def test_a_wrong_key_fails_nothing_and_says_what_to_do_once(house: House) -> None:
    """Mended, `voicequeue resume` goes on."""
    counts = said(house)
    with house.queue() as queue:
        house.dial(voice_s=3)
        queue.enqueue_many(jobs(20, "locked"))
        eventually(lambda: queue.batch("locked").states[State.PENDING] >= 5)
        house.dial(api_key="another")
        eventually(lambda: queue.status().gate.closed_for("unauthorized") and counts('"level": "error"'))
        eventually(lambda: not (stuck(queue, State.ADMITTED) or stuck(queue, State.CHARGING)))
        asked, before = house.ledger()["calls"]["task"], house.ledger()["charged"]
        eventually(lambda: house.ledger()["calls"]["task"] > asked + 20)

        assert "unauthorized" in run(house, "status").stdout
        assert queue.batch("locked").states[State.FAILED] == 0
        assert house.ledger()["charged"] == before
        assert (counts('"level": "error"'), counts("voicequeue resume")) == (1, 1)
        assert counts("asking about") <= 1  # of the first that learnt of it

        house.dial(api_key=None)
        assert run(house, "resume").returncode == 0
        eventually(lambda: settled(queue, "locked"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 20, "locked")[State.SUCCEEDED] == 20


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_slow_down_is_heeded_by_every_worker_for_as_long_as_upstream_says(house: House, form: str) -> None:
    """Until the time in Retry-After, in either of its forms, no order leaves; then all goes on."""
    with house.queue() as queue:
        house.dial(concurrency=0, retry_after=1.5, retry_after_form=form)
        queue.enqueue_many(jobs(16, form))
        eventually(lambda: queue.status().gate.closed_for("cooldown") and queue.status().in_flight == 0)
        hold = queue.status().gate.closed_for("cooldown")
        assert hold is not None
        assert hold.until is not None
        assert 1.4 < hold.until - hold.since < 4
        before = posts(house)
        while time.time() < hold.until - 0.1:
            assert posts(house) == before
        assert before <= 10, "no more than the first that left at once"

        house.dial(concurrency=None)
        eventually(lambda: settled(queue, form), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 16, form)[State.SUCCEEDED] == 16


def test_an_upstream_that_is_away_is_left_alone_and_tried_by_itself(house: House) -> None:
    """Refused connections cost nothing: every job waits, unharmed."""
    counts = said(house)
    with house.queue() as queue:
        requests.post(f"{house.control}/refuse", json={"for_s": 1.5}, timeout=5).raise_for_status()
        queue.enqueue_many(jobs(20, "away"))
        eventually(lambda: queue.status().gate.closed_for("upstream_down"))
        eventually(lambda: settled(queue, "away"), within_s=40)
        assert queue.status().gate.open

    assert nothing_lost_nothing_paid_twice(house, 20, "away")[State.SUCCEEDED] == 20
    assert counts("upstream does not answer") == 1


def test_an_upstream_that_answers_everything_with_5xx_makes_few_jobs_unsure(house: House) -> None:
    """Each such POST may have been charged: after a few in a row the gate closes, and one job at a time tries."""
    with house.queue() as queue:
        house.dial(post_faults={"error_before": 1}, get_faults={"error": 1})
        queue.enqueue_many(jobs(60, "broken"))
        eventually(lambda: queue.status().gate.closed_for("upstream_down"))
        some_trials = queue.batch("broken").states[State.UNSURE] + 1
        eventually(lambda: queue.batch("broken").states[State.UNSURE] > some_trials)

        house.dial(post_faults={}, get_faults={})
        eventually(lambda: settled(queue, "broken"), within_s=40)
        states = queue.batch("broken").states
        assert queue.status().gate.open

    assert states[State.FAILED] == 0
    assert states[State.UNSURE] < 25
    assert states[State.SUCCEEDED] == 60 - states[State.UNSURE]


def test_a_small_batch_takes_turns_with_the_large_one_that_came_before(house: House) -> None:
    """B is done while most of A still waits, and every second job that is begun is A's."""
    with house.queue() as queue:
        queue.set_limits(in_flight=10)
        queue.enqueue_many(jobs(1_000, "large"))
        eventually(lambda: queue.batch("large").states[State.SUCCEEDED] > 5)
        queue.enqueue_many(jobs(12, "small"))
        eventually(lambda: settled(queue, "small"), within_s=40)
        assert queue.batch("large").states[State.QUEUED] > 500

    small, large = charged(house, "small"), charged(house, "large")
    between = sum(min(small) < at < max(small) for at in large)
    assert 6 < between < 24


def test_a_lone_high_job_goes_before_all_that_wait(house: House) -> None:
    """After it came nothing else is admitted before it, however deep the backlog is."""
    with house.queue() as queue:
        queue.set_limits(in_flight=10)
        queue.enqueue_many(job.model_copy(update={"priority": Priority.BULK}) for job in jobs(5_000, "bulk"))
        eventually(lambda: queue.batch("bulk").states[State.SUCCEEDED] > 5)
        came = time.time()
        lone = queue.enqueue(VoiceJob(audio_url="https://recordings.example/lone.wav", batch="lone", priority="high"))
        eventually(lambda: charged(house, "lone"))
        job = queue.wait(lone.id, timeout=20)

    assert job.state is State.SUCCEEDED
    order = [(each.batch, str(each.state), str(each.stage or "")) for each in events(house)]
    after = order[order.index(("lone", "queued", "")) + 1 :]
    assert next(batch for batch, state, stage in after if (state, stage) == ("admitted", "voice")) == "lone"
    [at] = charged(house, "lone")
    assert at - came < 5


def events(house: House) -> list[Event]:
    """All that was announced of late, in order."""
    found: list[Event] = []
    with house.queue() as queue:
        while page := queue.events(found[-1].id if found else "0-0"):
            found += page
    return found


def test_pause_holds_everything_back_and_resume_goes_on(house: House) -> None:
    """What is in flight is asked about as ever; nothing is charged, not even the songs of voices that are ready."""
    with house.queue() as queue:
        queue.enqueue_many(jobs(20, "paused"))
        eventually(lambda: charged(house, "paused"))
        run(house, "pause", "--reason", "lunch")
        eventually(lambda: queue.status().in_flight == 0)
        before = posts(house)
        some_time_passes(queue)

        assert posts(house) == before
        assert "paused (lunch)" in run(house, "status").stdout
        queue.resume()
        eventually(lambda: settled(queue, "paused"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 20, "paused")[State.SUCCEEDED] == 20


def test_a_paused_stage_waits_and_nothing_spins(house: House) -> None:
    """Voices are made; their songs wait in the line and hold no slot."""
    with house.queue() as queue:
        queue.pause(stage="music")
        queue.enqueue_many(jobs(20, "silent"))
        eventually(lambda: len(charged(house, "silent")) == 20 and queue.status().in_flight == 0)
        before = moves(house, "silent")
        some_time_passes(queue)

        assert moves(house, "silent") == before
        assert all(len(queue.timeline(job.id)) <= 6 for job in queue.jobs(batch="silent"))
        assert {(job.state, job.stage) for job in queue.jobs(batch="silent")} == {("queued", "music")}
        queue.resume(stage="music")
        eventually(lambda: settled(queue, "silent"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 20, "silent")[State.SUCCEEDED] == 20


def test_a_paused_batch_waits_while_others_go_on(house: House) -> None:
    """Its jobs keep their places and hold no slot; resumed, they go on."""
    with house.queue() as queue:
        queue.pause()
        queue.enqueue_many([*jobs(5, "waits"), *jobs(5, "goes")])
        queue.pause(batch="waits")
        queue.resume()
        eventually(lambda: settled(queue, "goes"), within_s=40)
        assert queue.batch("waits").states[State.QUEUED] == 5
        queue.resume(batch="waits")
        eventually(lambda: settled(queue, "waits"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 5, "waits", spent_elsewhere=5 * 19)[State.SUCCEEDED] == 5


def test_a_batch_keeps_to_its_own_limits(house: House, tmp_path: Path) -> None:
    """It spends no more than it may, with no more jobs at once than it may; ingesting again lifts the limits."""
    file = tmp_path / "capped.csv"
    with file.open("w", newline="") as rows:
        csv.writer(rows).writerows(
            [("audio_url", "prompt"), *((f"https://recordings.example/capped/{n}.wav", "la la") for n in range(12))]
        )
    with house.queue() as queue:
        run(house, "ingest", str(file), "--batch", "capped", "--max-credits", "90", "--max-in-flight", "2")
        eventually(lambda: queue.batch("capped").states[State.SUCCEEDED] == 4, within_s=40)
        some_time_passes(queue)
        assert (queue.batch("capped").states[State.QUEUED], house.ledger()["credits_spent"]) == (8, 76)
        assert most_in_flight(house, "capped") == 2

        run(house, "ingest", str(file), "--batch", "capped", "--max-credits", "228", "--max-in-flight", "50")
        eventually(lambda: settled(queue, "capped"), within_s=40)

    assert nothing_lost_nothing_paid_twice(house, 12, "capped")[State.SUCCEEDED] == 12


def test_what_may_not_begin_in_time_expires_and_what_is_cancelled_costs_nothing(house: House) -> None:
    """Both while everything is paused; `cancel --dry-run` only counts."""
    with house.queue() as queue:
        queue.pause()
        late = json.loads(
            run(house, "enqueue", "--audio-url", "https://a.example/1.wav", "--start-within", "0.5s", "--json").stdout
        )
        queue.enqueue_many(jobs(8, "gone"))
        eventually(lambda: queue.get(late["id"]).state is State.FAILED)
        failure = queue.get(late["id"]).failure
        assert failure is not None
        assert failure.code == "expired"

        dry = json.loads(run(house, "cancel", "--batch", "gone", "--dry-run", "--json").stdout)
        assert dry == {"found": 8, "cancelled": 0, "marked": 0, "paid": 0}
        assert queue.batch("gone").states[State.QUEUED] == 8
        wet = json.loads(run(house, "cancel", "--batch", "gone", "--yes", "--json").stdout)
        assert (wet["cancelled"], queue.batch("gone").states[State.CANCELLED]) == (8, 8)

        queue.resume()
        some_time_passes(queue)
    assert house.ledger()["charges"] == []


def test_the_limit_of_jobs_in_flight_is_set_while_everything_runs(house: House) -> None:
    """Lowered, no more jobs hold a slot than it says; raised, more do at once. No worker restarts."""
    pids = [house.supervisor.pid(name) for name in house.workers]
    with house.queue() as queue:
        run(house, "limits", "--in-flight", "3")
        queue.enqueue_many(jobs(32, "narrow"))
        eventually(lambda: queue.batch("narrow").states[State.SUCCEEDED] >= 4)
        assert most_in_flight(house, "narrow") == 3

        house.dial(voice_s=2)  # long enough for many to be seen together
        run(house, "limits", "--in-flight", "20")
        # Up to 10 at first; how soon it becomes 20 depends on how many orders upstream has taken meanwhile.
        eventually(lambda: queue.status().in_flight > 6)
        eventually(lambda: settled(queue, "narrow"), within_s=40)

    assert most_in_flight(house, "narrow") <= 20
    assert [house.supervisor.pid(name) for name in house.workers] == pids
