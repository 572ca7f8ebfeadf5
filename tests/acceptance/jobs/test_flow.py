"""Flow control on real processes: the queue stops without failing a job, shares fairly, and resumes on its own."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from voicequeue import Event, Filter, State, VoiceJob, VoiceQueue
from voicequeue.domain.spec import Priority
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace

#: A fast upstream, and the default of every dial that `System.reset` leaves alone.
DEFAULT_DIALS = {
    "voice_s": 0.2,
    "music_s": 0.2,
    "api_key": None,
    "concurrency": None,
    "retry_after": None,
    "retry_after_form": "seconds",
    "latency_s": 0,
}


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start two workers that check the balance often."""
    return build_shared(
        VOICEQUEUE_MAX_IN_FLIGHT="200", VOICEQUEUE_INITIAL_IN_FLIGHT="10", VOICEQUEUE_BALANCE_INTERVAL_S="0.3"
    )


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """Return the system for one test: no holds, and no knowledge about upstream's limits."""
    shared_system.reset().dial(**DEFAULT_DIALS)
    with shared_system.queue() as queue:
        queue.set_limits(in_flight=None, submit_rate=None, min_balance=None)
        forget(shared_system, "flow", "gate")
        eventually(lambda: queue.status().gate.is_open and queue.status().account.balance == 1_000_000)
        yield shared_system
        for batch in queue.batches():
            if not batch.is_settled:
                queue.resume(batch=batch.name)
                queue.execute_plan("cancel", queue.plan_bulk("cancel", Filter(batch=batch.name)).token)
        eventually(lambda: queue.status().in_flight == 0)


def forget(system: System, *keys: str) -> None:
    """Delete what the workers have learned."""
    client = connect(system.redis_url)
    client.delete(*(Keyspace(client, DEFAULT_PREFIX).key(key) for key in keys))
    client.close()


def posts(system: System) -> int:
    """Return how many orders were sent, successful or not."""
    calls = system.ledger()["calls"]
    return int(calls["create_voice"] + calls["create_music"])


def charged(system: System, batch: str, kind: str = "voice") -> list[float]:
    """Return the times at which orders of this batch were charged."""
    return [
        charge["at"] for charge in system.ledger()["charges"] if charge["kind"] == kind and batch in charge["subject"]
    ]


def transitions(system: System, batch: str) -> list[tuple[str, str, str]]:
    """Return all transitions of the batch's jobs in the order they were written: id, state, stage."""
    return [(event.job_id, event.state, event.stage or "") for event in events(system) if event.batch == batch]


def most_in_flight(system: System, batch: str) -> int:
    """Return the largest number of jobs of this batch that held a slot at once."""
    in_flight: set[str] = set()
    most = 0
    for job_id, state, _ in transitions(system, batch):
        (in_flight.add if state in IN_FLIGHT else in_flight.discard)(job_id)
        most = max(most, len(in_flight))
    return most


def wait_for_two_balance_checks(queue: VoiceQueue) -> None:
    """Wait until the workers have checked the balance twice."""
    before = queue.balance_history()[-1].received_at
    eventually(lambda: sum(balance.requested_at > before for balance in queue.balance_history()) >= 2)


def log_counter(system: System) -> Callable[[str], int]:
    """Return a function that counts words in the workers' logs from now on."""
    before = system.logs()
    return lambda words: system.logs().count(words) - before.count(words)


def count_in(queue: VoiceQueue, state: State) -> int:
    """Return how many jobs are in this state."""
    return queue.status().states[state]


def test_credits_for_40_of_100_jobs_make_40_and_the_rest_waits_until_there_are_more(system: System) -> None:
    """No job starts that cannot be finished, nothing fails, and the log says so once."""
    logged = log_counter(system)
    with system.queue() as queue:
        system.dial(credits=760)
        eventually(lambda: queue.status().account.balance == 760)
        queue.enqueue_many(jobs(100, "poor"))
        eventually(lambda: queue.batch("poor").states[State.SUCCEEDED] == 40 and queue.status().in_flight == 0)
        wait_for_two_balance_checks(queue)

        states = queue.batch("poor").states
        assert (states[State.SUCCEEDED], states[State.QUEUED], states[State.FAILED]) == (40, 60, 0)
        assert "out_of_credits" in system.run("status").stdout
        assert system.ledger()["credits_spent"] == 760
        assert logged('"level": "error"') == 0
        assert logged("not enough credits") == 1

        requests.post(f"{system.control}/credits", json={"add": 60 * 19}, timeout=5).raise_for_status()
        eventually(lambda: settled(queue, "poor"), within_s=40)
        assert queue.status().gate.is_open

    assert verified_states(system, 100, "poor")[State.SUCCEEDED] == 100
    assert logged("not enough credits") == 1


def test_credits_spent_by_another_user_close_the_gate_once_and_fail_nothing(system: System) -> None:
    """Upstream refuses a charge that the balance seemed to cover: the gate closes, with one line in the log."""
    logged = log_counter(system)
    with system.queue() as queue:
        system.dial(credits=0)
        queue.enqueue_many(jobs(20, "robbed"))
        eventually(lambda: queue.status().gate.hold_for("out_of_credits") and queue.status().in_flight == 0)
        wait_for_two_balance_checks(queue)
        assert queue.batch("robbed").states[State.QUEUED] == 20
        rejected, foreseen = logged('"level": "error"'), logged("not enough credits")
        # The first orders are rejected, or the balance shows the shortage before any is sent.
        assert 1 <= rejected + foreseen <= 2, system.logs()
        assert max(rejected, foreseen) == 1

        system.dial(credits=1_000)
        eventually(lambda: settled(queue, "robbed"), within_s=40)

    assert verified_states(system, 20, "robbed")[State.SUCCEEDED] == 20


def test_a_wrong_key_fails_nothing_and_logs_once_what_to_do(system: System) -> None:
    """After the key is corrected, `voicequeue resume` continues."""
    logged = log_counter(system)
    with system.queue() as queue:
        system.dial(voice_s=3)
        queue.enqueue_many(jobs(20, "locked"))
        eventually(lambda: queue.batch("locked").states[State.PENDING] >= 5)
        system.dial(api_key="another")
        eventually(lambda: queue.status().gate.hold_for("unauthorized") and logged('"level": "error"'))
        eventually(lambda: not (count_in(queue, State.ADMITTED) or count_in(queue, State.CHARGING)))
        polls, charged_before = system.ledger()["calls"]["task"], system.ledger()["charged"]
        eventually(lambda: system.ledger()["calls"]["task"] > polls + 20)

        assert "unauthorized" in system.run("status").stdout
        assert queue.batch("locked").states[State.FAILED] == 0
        assert system.ledger()["charged"] == charged_before
        assert (logged('"level": "error"'), logged("voicequeue resume")) == (1, 1)
        assert logged("poll failed") <= 1  # the first request that found out

        system.dial(api_key=None)
        assert system.run("resume").returncode == 0
        eventually(lambda: settled(queue, "locked"), within_s=40)

    assert verified_states(system, 20, "locked")[State.SUCCEEDED] == 20


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_every_worker_waits_as_long_as_upstream_demands(system: System, form: str) -> None:
    """No order is sent before the time in Retry-After, in either of its forms; then submission resumes."""
    with system.queue() as queue:
        system.dial(concurrency=0, retry_after=1.5, retry_after_form=form)
        queue.enqueue_many(jobs(16, form))
        eventually(lambda: queue.status().gate.hold_for("cooldown") and queue.status().in_flight == 0)
        hold = queue.status().gate.hold_for("cooldown")
        assert hold is not None
        assert hold.until is not None
        assert 1.4 < hold.until - hold.since < 4
        before = posts(system)
        while time.time() < hold.until - 0.1:
            assert posts(system) == before
        assert before <= 10, "more orders than the first, simultaneous ones"

        system.dial(concurrency=None)
        eventually(lambda: settled(queue, form), within_s=40)

    assert verified_states(system, 16, form)[State.SUCCEEDED] == 16


def test_an_unreachable_upstream_is_retried_automatically(system: System) -> None:
    """Refused connections cost nothing: every job waits, unharmed."""
    logged = log_counter(system)
    with system.queue() as queue:
        requests.post(f"{system.control}/refuse", json={"for_s": 1.5}, timeout=5).raise_for_status()
        queue.enqueue_many(jobs(20, "away"))
        eventually(lambda: queue.status().gate.hold_for("upstream_down"))
        eventually(lambda: settled(queue, "away"), within_s=40)
        assert queue.status().gate.is_open

    assert verified_states(system, 20, "away")[State.SUCCEEDED] == 20
    assert logged("upstream does not answer") == 1


def test_an_upstream_that_answers_everything_with_5xx_makes_few_jobs_unsure(system: System) -> None:
    """Each such POST may have been charged: after a few in a row the gate closes, and one trial at a time is sent."""
    with system.queue() as queue:
        system.dial(post_faults={"error_before": 1}, get_faults={"error": 1})
        queue.enqueue_many(jobs(60, "broken"))
        eventually(lambda: queue.status().gate.hold_for("upstream_down"))
        some_trials = queue.batch("broken").states[State.UNSURE] + 1
        eventually(lambda: queue.batch("broken").states[State.UNSURE] > some_trials)

        system.dial(post_faults={}, get_faults={})
        eventually(lambda: settled(queue, "broken"), within_s=40)
        states = queue.batch("broken").states
        assert queue.status().gate.is_open

    assert states[State.FAILED] == 0
    assert states[State.UNSURE] < 25
    assert states[State.SUCCEEDED] == 60 - states[State.UNSURE]


def test_a_small_batch_takes_turns_with_an_earlier_large_one(system: System) -> None:
    """The small batch is done while most of the large one waits; every second job that starts is of the large one."""
    with system.queue() as queue:
        queue.set_limits(in_flight=10)
        queue.enqueue_many(jobs(1_000, "large"))
        eventually(lambda: queue.batch("large").states[State.SUCCEEDED] > 5)
        queue.enqueue_many(jobs(12, "small"))
        eventually(lambda: settled(queue, "small"), within_s=40)
        assert queue.batch("large").states[State.QUEUED] > 500

    small, large = charged(system, "small"), charged(system, "large")
    between = sum(min(small) < at < max(small) for at in large)
    assert 6 < between < 24


def test_a_high_priority_job_passes_the_whole_backlog(system: System) -> None:
    """After it is enqueued, nothing is admitted before it, however large the backlog is."""
    with system.queue() as queue:
        queue.set_limits(in_flight=10)
        queue.enqueue_many(job.model_copy(update={"priority": Priority.BULK}) for job in jobs(2_000, "bulk"))
        eventually(lambda: queue.batch("bulk").states[State.SUCCEEDED] > 5)
        enqueued_at = time.time()
        lone = queue.enqueue(VoiceJob(audio_url="https://recordings.example/lone.wav", batch="lone", priority="high"))
        eventually(lambda: charged(system, "lone"))
        job = queue.wait(lone.id, timeout=20)

    assert job.state is State.SUCCEEDED
    order = [(event.batch, str(event.state), str(event.stage or "")) for event in events(system)]
    after = order[order.index(("lone", "queued", "")) + 1 :]
    assert next(batch for batch, state, stage in after if (state, stage) == ("admitted", "voice")) == "lone"
    [at] = charged(system, "lone")
    assert at - enqueued_at < 5


def events(system: System) -> list[Event]:
    """Return all recent events, in order."""
    recent: list[Event] = []
    with system.queue() as queue:
        while page := queue.events(recent[-1].id if recent else "0-0"):
            recent += page
    return recent


def test_pause_stops_all_charges_and_resume_continues(system: System) -> None:
    """Jobs in flight are still polled; nothing is charged, not even the songs of voices that are ready."""
    with system.queue() as queue:
        queue.enqueue_many(jobs(20, "paused"))
        eventually(lambda: charged(system, "paused"))
        system.run("pause", "--reason", "lunch")
        eventually(lambda: queue.status().in_flight == 0)
        before = posts(system)
        wait_for_two_balance_checks(queue)

        assert posts(system) == before
        assert "paused (lunch)" in system.run("status").stdout
        queue.resume()
        eventually(lambda: settled(queue, "paused"), within_s=40)

    assert verified_states(system, 20, "paused")[State.SUCCEEDED] == 20


def test_a_paused_stage_waits_without_busy_transitions(system: System) -> None:
    """Voices are made; their songs wait in the backlog and hold no slot."""
    with system.queue() as queue:
        queue.pause(stage="music")
        queue.enqueue_many(jobs(20, "silent"))
        eventually(lambda: len(charged(system, "silent")) == 20 and queue.status().in_flight == 0)
        before = transitions(system, "silent")
        wait_for_two_balance_checks(queue)

        assert transitions(system, "silent") == before
        assert all(len(queue.timeline(job.id)) <= 6 for job in queue.jobs(batch="silent"))
        assert {(job.state, job.stage) for job in queue.jobs(batch="silent")} == {("queued", "music")}
        queue.resume(stage="music")
        eventually(lambda: settled(queue, "silent"), within_s=40)

    assert verified_states(system, 20, "silent")[State.SUCCEEDED] == 20


def test_a_paused_batch_waits_while_others_continue(system: System) -> None:
    """Its jobs keep their places and hold no slot; they continue after the batch is resumed."""
    with system.queue() as queue:
        queue.pause()
        queue.enqueue_many([*jobs(5, "waits"), *jobs(5, "goes")])
        queue.pause(batch="waits")
        queue.resume()
        eventually(lambda: settled(queue, "goes"), within_s=40)
        assert queue.batch("waits").states[State.QUEUED] == 5
        queue.resume(batch="waits")
        eventually(lambda: settled(queue, "waits"), within_s=40)

    assert verified_states(system, 5, "waits", spent_elsewhere=5 * 19)[State.SUCCEEDED] == 5


def test_a_batch_keeps_to_its_own_limits(system: System, tmp_path: Path) -> None:
    """It stays within its credits and its jobs in flight; another ingest with higher limits lifts them."""
    file = tmp_path / "capped.csv"
    with file.open("w", newline="") as rows:
        csv.writer(rows).writerows(
            [("audio_url", "prompt"), *((f"https://recordings.example/capped/{n}.wav", "la la") for n in range(12))]
        )
    with system.queue() as queue:
        system.run("ingest", str(file), "--batch", "capped", "--max-credits", "90", "--max-in-flight", "2")
        eventually(lambda: queue.batch("capped").states[State.SUCCEEDED] == 4, within_s=40)
        wait_for_two_balance_checks(queue)
        assert (queue.batch("capped").states[State.QUEUED], system.ledger()["credits_spent"]) == (8, 76)
        assert most_in_flight(system, "capped") == 2

        system.run("ingest", str(file), "--batch", "capped", "--max-credits", "228", "--max-in-flight", "50")
        eventually(lambda: settled(queue, "capped"), within_s=40)

    assert verified_states(system, 12, "capped")[State.SUCCEEDED] == 12


def test_a_job_past_its_start_time_expires_and_cancelled_jobs_cost_nothing(system: System) -> None:
    """Both while everything is paused; `cancel --dry-run` only counts."""
    with system.queue() as queue:
        queue.pause()
        late = json.loads(
            system.run("enqueue", "--audio-url", "https://a.example/1.wav", "--start-within", "0.5s", "--json").stdout
        )
        queue.enqueue_many(jobs(8, "gone"))
        eventually(lambda: queue.get(late["id"]).state is State.FAILED)
        failure = queue.get(late["id"]).failure
        assert failure is not None
        assert failure.code == "expired"

        preview = json.loads(system.run("cancel", "--batch", "gone", "--dry-run", "--json").stdout)
        assert preview == {"count": 8, "cancelled": 0, "cancelling": 0, "submitted": 0}
        assert queue.batch("gone").states[State.QUEUED] == 8
        result = json.loads(system.run("cancel", "--batch", "gone", "--yes", "--json").stdout)
        assert (result["cancelled"], queue.batch("gone").states[State.CANCELLED]) == (8, 8)

        queue.resume()
        wait_for_two_balance_checks(queue)
    assert system.ledger()["charges"] == []


def test_the_in_flight_limit_changes_without_a_restart(system: System) -> None:
    """After it is lowered, no more jobs hold a slot; after it is raised, more do at once. No worker restarts."""
    pids = [system.supervisor.pid(name) for name in system.workers]
    with system.queue() as queue:
        system.run("limits", "--in-flight", "3")
        queue.enqueue_many(jobs(32, "narrow"))
        eventually(lambda: queue.batch("narrow").states[State.SUCCEEDED] >= 4)
        assert most_in_flight(system, "narrow") == 3

        system.dial(voice_s=2)  # long enough for many to be in flight together
        system.run("limits", "--in-flight", "20")
        # At first at most 10; the time until 20 depends on how many orders upstream has accepted.
        eventually(lambda: queue.status().in_flight > 6)
        eventually(lambda: settled(queue, "narrow"), within_s=40)

    assert most_in_flight(system, "narrow") <= 20
    assert [system.supervisor.pid(name) for name in system.workers] == pids
