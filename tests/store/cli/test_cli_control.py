"""The commands `pause`, `resume`, `limits` and `credits`, and their effect on `status`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import URL, numbered_voices, voice, voice_with_song
from voicequeue import BatchNotFoundError, FailureCode, Stage, State, VoiceQueue
from voicequeue.diagnostics.check_result import Level
from voicequeue.diagnostics.checkup import inspect, results
from voicequeue.domain.balance import UncountedSpending
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore

# ── retry with a corrected recording ──────────────────────────────────────────────────────────────


def test_a_recording_is_corrected_by_the_retry_of_its_job(command: Command, store: JobStore) -> None:
    """A dry run says what it would cost. A wrong URL, or none that belongs to a job, ends with an error."""
    job = fail_job(store, job_in_state(store, State.CHARGING, voice(key="k")), FailureCode.REFUSED)
    url = "https://recordings.example/corrected.wav"

    assert "must be an http:// or https:// URL" in command("retry", job.id, "--audio-url", "ana.wav").err
    assert "one job at a time" in command("retry", "--batch", "b", "--audio-url", url).err
    assert command("retry", job.id, "--audio-url", url, "--dry-run", "--json").json()["max_credits"] == 4
    assert get_job(store, job.id) == job

    command("retry", job.id, "--audio-url", url)
    assert (get_job(store, job.id).spec.audio_url, get_job(store, job.id).state) == (url, State.QUEUED)
    assert store.timeline(job.id)[-2].reason == "audio_url corrected by cli"


# ── pause, resume ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "what"),
    [((), "everything"), (("--stage", "music"), "the music stage"), (("--batch", "b"), "batch b")],
)
def test_it_pauses_and_resumes(command: Command, store: JobStore, options: tuple[str, ...], what: str) -> None:
    """The output says whether that was a change; as JSON too."""
    enqueue_jobs(store, voice(batch="b"))

    assert command("pause", *options).out == f"{what} is paused\n"
    assert command("pause", *options).out == f"{what} was paused already\n"
    assert command("pause", *options, "--json").json() == {"changed": False}
    assert command("resume", *options).out == f"{what} is resumed\n"
    assert command("resume", *options).out == f"{what} was not paused\n"
    assert command("resume", *options, "--json").json() == {"changed": False}
    assert command("pause", *options, "--json").json() == {"changed": True}


def test_a_pause_holds_jobs_back_and_shows_its_reason(command: Command, store: JobStore) -> None:
    """Markup in the reason is literal."""
    enqueue_jobs(store, *numbered_voices(3))
    command("pause", "--reason", "Ana [red]tests[/]")

    assert store.admit(time.time()).by_stage == {}
    assert "closed: paused (Ana [red]tests[/])" in command("status").out

    command("resume")
    assert len(store.admit(time.time()).by_stage[Stage.VOICE]) == 3


def test_a_paused_stage_or_batch_holds_back_nothing_else(command: Command, store: JobStore) -> None:
    """Other jobs are admitted."""
    enqueue_jobs(store, *numbered_voices(2, batch="b"), voice())
    command("pause", "--batch", "b")
    command("pause", "--stage", "music")

    assert len(store.admit(time.time()).by_stage[Stage.VOICE]) == 1
    assert "paused.music" in command("status").out


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_an_unknown_batch_is_neither_paused_nor_resumed(
    command: Command, queue: VoiceQueue, redis: Redis, prefix: str, what: str
) -> None:
    """It is an error, and nothing is written."""
    ended = command(what, "--batch", "nosuchbatch")

    assert (ended.code, ended.out) == (2, "")
    assert "no batch 'nosuchbatch'" in ended.err
    with pytest.raises(BatchNotFoundError):
        getattr(queue, what)(batch="nosuchbatch")
    assert dump_keys(redis, prefix) == {}


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_stage_of_a_batch_cannot_be_paused(command: Command, what: str) -> None:
    """--stage and --batch exclude each other."""
    ended = command(what, "--stage", "voice", "--batch", "b")

    assert ended.code == 2
    assert "not both" in ended.err


def test_resume_retries_what_is_on_hold(command: Command, store: JobStore) -> None:
    """The status says that one job at a time is tried."""
    store.flow_control.add_hold("unauthorized", "401: wrong key", time.time())
    assert "closed: unauthorized (401: wrong key)" in command("status").out

    assert command("resume", "--json").json() == {"changed": True}

    assert "on trial: unauthorized, one job at a time is tried (401: wrong key)" in command("status").out


# ── limits ────────────────────────────────────────────────────────────────────────────────────────


def test_limits_are_shown_and_set_for_all_workers(command: Command, store: JobStore) -> None:
    """Limits that are not given stay unchanged."""
    assert command("limits", "--in-flight", 40, "--min-balance", 1_000_000, "--json").json() == {
        "in_flight": 40,
        "submit_rate": None,
        "min_balance": 1_000_000,
        "in_flight_now": 10,
    }
    output = command("limits", "--submit-rate", 90).out
    for part in ("10 now, at most 40", "90 orders per minute", "1,000,000"):
        assert part in output
    limits = store.flow_control.limits()
    assert (limits.in_flight, limits.submit_rate, limits.min_balance) == (40, 90.0, 1_000_000)
    assert command("status").code == 0


def test_limits_return_to_the_settings(command: Command, store: JobStore) -> None:
    """Except those given with --reset."""
    command("limits", "--in-flight", 40, "--submit-rate", 90, "--min-balance", 5)

    command("limits", "--reset", "--min-balance", 6)

    limits = store.flow_control.limits()
    assert (limits.in_flight, limits.submit_rate, limits.min_balance) == (100_000, None, 6)


@pytest.mark.parametrize(
    "options", [("--in-flight", 0), ("--submit-rate", -1), ("--submit-rate", 1e-320), ("--min-balance", -1)]
)
def test_an_invalid_limit_is_rejected(command: Command, options: tuple[str, float]) -> None:
    """The message names it."""
    ended = command("limits", *options)

    assert ended.code == 2
    assert options[0] in ended.err


def test_the_limits_of_a_batch_are_set_and_shown(command: Command, store: JobStore) -> None:
    """Also before it has jobs; those that are not given stay unchanged."""
    ended = command("limits", "--batch", "b", "--stop-after", "12.5%")
    assert ended.out == "The limits of batch b are saved; it has no jobs yet.\n"
    assert command("limits", "--batch", "b").err == "no batch 'b'\n"
    enqueue_jobs(store, voice(batch="b"))

    output = command("limits", "--batch", "b", "--stop-min", 50, "--max-credits", 9, "--max-in-flight", 3).out

    assert output == (
        "batch b: needs 4 credits for queued jobs, may spend 9 credits, may have 3 in flight at once, "
        "stops when 12.5 % of at least 50 settled jobs failed\n"
    )
    assert command("limits", "--batch", "b", "--json").json() == {
        "paused": False,
        "max_credits": 9,
        "max_in_flight": 3,
        "stop_after": 0.125,
        "stop_min": 50,
    }
    assert command("limits", "--batch", "b", "--reset").out == "batch b: needs 4 credits for queued jobs\n"


def test_a_file_is_ingested_with_stop_loss(command: Command, store: JobStore, tmp_path: Path) -> None:
    """The limit is set before the first row is a job."""
    file = tmp_path / "voices.csv"
    file.write_text(f"audio_url\n{URL}\n", encoding="utf-8")

    assert command("ingest", file, "--batch", "b", "--stop-after", "20%").code == 0

    batch = store.batch("b")
    assert batch is not None
    assert (batch.stop_after, batch.stop_min, batch.total) == (0.2, 20, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--batch", "b", "--stop-after", "20"), "'20' is above 1: write 20% for 20 %"),
        (("--batch", "b", "--stop-after", "0%"), "0 must be above 0 and at most 1 (0.2 is 20 %)"),
        (("--batch", "b", "--stop-after", "120%"), "1.2 must be above 0"),
        (("--batch", "b", "--stop-after", "many"), "'many' is not a percentage such as 20%, nor a fraction such as"),
        (("--batch", "b", "--stop-min", "0"), "--stop-min: must be at least 1"),
        (("--stop-after", "20%"), "--stop-after needs --batch NAME"),
        (("--batch", "b", "--in-flight", "3"), "--in-flight limits the whole queue; leave out --batch"),
        (("--batch", "b:c", "--stop-after", "20%"), "batch"),
    ],
)
def test_an_invalid_limit_of_a_batch_is_rejected(
    command: Command, store: JobStore, options: tuple[str, ...], problem: str
) -> None:
    """The message names the value and what is allowed, and nothing is set."""
    ended = command("limits", *options)

    assert ended.code == 2
    assert problem in " ".join(ended.err.replace("│", " ").split())
    assert store._redis.keys(store._space.key("batch:*")) == []


# ── credits ───────────────────────────────────────────────────────────────────────────────────────


def test_the_account_is_shown(command: Command, store: JobStore) -> None:
    """Balance, reserved and spent credits; and that the balance is not known yet."""
    assert "unknown" in command("credits").out
    now = float(int(time.time()))
    job_in_state(store, State.PENDING, voice_with_song(), now)
    store.flow_control.record_balance(1_500, spent_before=4, requested_at=now, now=now)
    store.flow_control.set_limits(min_balance=30)

    assert command("credits", "--json").json() == {
        "balance": 1_500,
        "balance_at": to_iso8601(now),
        "reserved": 15,
        "queued": 0,
        "min_balance": 30,
        "today": 4,
        "spent": 4,
        "unexplained": 0,
    }
    output = command("credits").out
    for part in ("1,500", "15 for jobs in flight", "4 today", "4 in total"):
        assert part in output


# ── status ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def busy(store: JobStore) -> JobStore:
    """Return jobs in most states, of two batches; a worker; an account; a closed gate."""
    now = time.time()
    store.flow_control.set_limits(in_flight=50)
    job_in_state(store, State.SUCCEEDED, voice(batch="b", key="done"), now)
    fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(key="failed"), now), FailureCode.UPSTREAM_FAILED, now
    )
    job_in_state(store, State.PENDING, voice_with_song(batch="b", key="pending"), now)
    store.flow_control.record_balance(1_500, spent_before=12, requested_at=now, now=now)
    enqueue_jobs(store, *numbered_voices(4, batch="b"), now=now - 7_300)
    enqueue_jobs(store, voice(priority="high", key="high"), now=now - 61)
    store.flow_control.add_hold("cooldown", "429", now, now + 600)
    store.flow_control.publish_settings()
    store.heartbeats["worker"].record("w1", now)
    return store


def test_the_status_as_json(command: Command, busy: JobStore) -> None:
    """Every part of it."""
    output = command("status", "--json").json()

    [hold] = output["gate"]["holds"]
    assert (output["gate"]["open"], hold["reason"], hold["trial"]) == (False, "cooldown", False)
    assert hold["until"] is not None
    assert (output["in_flight"], output["in_flight_limit"]) == (1, 50)
    assert [(line["priority"], line["count"]) for line in output["backlog"]] == [("high", 1), ("normal", 4)]
    assert output["backlog"][1]["oldest_at"] < output["backlog"][0]["oldest_at"]
    assert output["jobs_per_minute"] == pytest.approx(0.2)
    assert output["seconds_left"] is None  # while the gate is closed
    assert (output["credits"], output["credits_today"], output["balance"], output["credits_reserved"]) == (
        12,
        12,
        1_500,
        15,
    )
    assert (output["failed_by_code"], output["workers"]) == ({"upstream_failed": 1}, 1)


def test_the_status_as_text(command: Command, busy: JobStore) -> None:
    """The same parts."""
    output = command("status").out

    for part in (
        "closed: cooldown until ",
        "(429)",
        "backlog    high 1, oldest waiting 61 s",
        "backlog    normal 4, oldest waiting 2 h",
        "in flight  1 of 50; 0.2 jobs/min",
        "credits    1,500 left (15 reserved for jobs in flight or unsure, 20 for queued jobs); ",
        "; 12 spent today; 12 spent in total",
        "failed     upstream_failed 1",
        "workers    1 alive",
    ):
        assert part in output


def test_the_status_of_a_batch_covers_that_batch_only(command: Command, busy: JobStore) -> None:
    """States, backlog, credits, and failures by code."""
    output = command("status", "--batch", "b", "--json").json()

    assert (output["batch"], output["credits"], output["failed_by_code"]) == ("b", 8, {})
    assert [(line["priority"], line["count"]) for line in output["backlog"]] == [("normal", 4)]
    assert {state: n for state, n in output["states"].items() if n} == {"queued": 4, "pending": 1, "succeeded": 1}
    assert "upstream_failed" not in command("status", "--batch", "b").out


def test_an_open_gate_is_shown(command: Command) -> None:
    """As text."""
    assert "gate       open" in command("status").out


def test_the_gate_says_that_credits_are_too_few(command: Command, store: JobStore) -> None:
    """With the price of the next job."""
    enqueue_jobs(store, voice_with_song())
    store.flow_control.record_balance(18, spent_before=0, requested_at=NOW, now=NOW)
    store.admit(NOW)

    output = command("status").out

    assert "closed: out_of_credits (18 credits left; the next job costs 19)" in output


def test_a_batch_has_its_limits_and_whether_it_is_paused(queue: VoiceQueue) -> None:
    """Read with `VoiceQueue.batch`."""
    queue.enqueue(voice(batch="b"))
    assert queue.set_batch_limits("b", max_credits=100, max_in_flight=3)
    assert queue.pause(batch="b")

    batch = queue.batch("b")

    assert (batch.is_paused, batch.max_credits, batch.max_in_flight) == (True, 100, 3)
    assert not queue.pause(batch="b")
    assert queue.resume(batch="b")
    assert not queue.batch("b").is_paused


def test_time_to_finish_counts_unsettled_jobs(queue: VoiceQueue, store: JobStore) -> None:
    """It is not known without a pace."""
    enqueue_jobs(store, *numbered_voices(3))
    assert queue.status().seconds_left is None
    [job_id, *_] = store.list_ids(state=State.QUEUED)
    store.admit(time.time(), at_most=1)
    claim_admitted(store, job_id)
    accept_order(store, job_id)
    apply_transition(store, get_job(store, job_id), State.SUCCEEDED, time.time())

    assert queue.status().seconds_left == pytest.approx(2 * 300)

    queue.set_budget("account", day=0)
    assert queue.status().seconds_left is None  # at midnight at the earliest


def test_uncounted_credits_are_shown_everywhere(command: Command, store: JobStore, redis: Redis) -> None:
    """With the price that explains them; without one, another user of the account is a note only."""
    text = "the account fell by 420 while 399 were counted: another user of the account, or a changed price"
    store.flow_control.record_uncounted(UncountedSpending(NOW, 420, 399, 0, Stage.VOICE, 5))

    assert f"{text} (5 instead of 4 a voice?)" in command("status").out
    assert f"{text} (5 instead of 4 a voice?)" in command("credits").out
    assert command("status", "--json").json()["credits_unexplained"] == 21
    assert command("credits", "--json").json()["unexplained"] == 21
    [remark] = [finding for finding in results(inspect(redis, store)) if finding.check == "account"]
    assert (remark.level, remark.message) == (Level.WARNING, f"{text} (5 instead of 4 a voice?)")

    store.flow_control.record_uncounted(UncountedSpending(NOW, 420, 399))
    [remark] = [finding for finding in results(inspect(redis, store)) if finding.check == "account"]
    assert (remark.level, remark.message) == (Level.NOTE, text)
