"""`retry` by filter, and `review`: numbers, costs and confirmations."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, apply_transition, fail_job, get_job, job_in_state
from tests.support.jobs import voice_with_song
from voicequeue import FailureCode, State
from voicequeue.client import bulk_operations
from voicequeue.domain import transitions
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def broken(store: JobStore) -> dict[FailureCode, str]:
    """Return a batch with a job past its deadline and one that upstream failed; their ids."""
    ids = {}
    for code in (FailureCode.DEADLINE, FailureCode.UPSTREAM_FAILED):
        pending = job_in_state(store, State.PENDING, voice_with_song(batch="b", key=code.value))
        ids[code] = fail_job(store, pending, code).id
    return ids


def test_a_dry_run_says_how_many_and_what_it_costs(
    command: Command, store: JobStore, broken: dict[FailureCode, str]
) -> None:
    """A late order is polled for free and its song is paid for; the other pays for both. Nothing changes."""
    output = command("retry", "--batch", "b", "--dry-run", "--json").json()

    assert output == {"count": 2, "retried": 0, "max_credits": 34}
    assert {get_job(store, job_id).state for job_id in broken.values()} == {State.FAILED}


def test_without_a_yes_nothing_is_retried(command: Command, store: JobStore, broken: dict[FailureCode, str]) -> None:
    """The question has the number of jobs and credits; no answer is no."""
    ended = command("retry", "--batch", "b", stdin=b"n\n")

    assert ended.code == 1
    assert "retry 2 jobs, for up to 34 credits, 4 of them for stages that were paid for before?" in ended.err
    assert {get_job(store, job_id).state for job_id in broken.values()} == {State.FAILED}


def test_a_filter_selects_by_code(command: Command, store: JobStore, broken: dict[FailureCode, str]) -> None:
    """The late job is polled again, the other stays failed."""
    output = command("retry", "--batch", "b", "--code", "deadline", "--yes", "--json").json()

    assert output == {"count": 1, "retried": 1, "max_credits": 15}
    assert get_job(store, broken[FailureCode.DEADLINE]).state is State.PENDING
    assert get_job(store, broken[FailureCode.UPSTREAM_FAILED]).state is State.FAILED


def test_resubmitting_a_late_order_asks_first(
    command: Command, store: JobStore, broken: dict[FailureCode, str]
) -> None:
    """`--resubmit` pays where polling is free: nothing happens without a yes."""
    late = broken[FailureCode.DEADLINE]

    ended = command("retry", late, "--resubmit", stdin=b"n\n")
    assert ended.code == 1
    assert "for up to 19 credits, 4 of them for stages that were paid for before?" in ended.err
    assert get_job(store, late).state is State.FAILED

    assert command("retry", late, "--resubmit", "--yes", "--json").json()["state"] == "queued"


def test_one_job_is_retried_without_a_question_if_nothing_is_paid_twice(
    command: Command, broken: dict[FailureCode, str]
) -> None:
    """Polling is free. What upstream failed was paid for, and may be paid for again."""
    assert command("retry", broken[FailureCode.DEADLINE], "--json").json()["state"] == "pending"
    assert command("retry", broken[FailureCode.UPSTREAM_FAILED]).code == 2
    assert command("retry", broken[FailureCode.UPSTREAM_FAILED], "-y", "--json").json()["state"] == "pending"


def test_resubmitting_a_failed_order_with_yes_queues_it(command: Command, broken: dict[FailureCode, str]) -> None:
    """`--resubmit` puts it into the backlog at once."""
    failed_job = broken[FailureCode.UPSTREAM_FAILED]

    assert command("retry", failed_job, "--resubmit", "-y", "--json").json()["state"] == "queued"


@pytest.mark.parametrize("action", ["retry", "cancel"])
def test_jobs_beyond_one_plan_are_reported(
    command: Command, store: JobStore, broken: dict[FailureCode, str], monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Exit code 1, so that scripts run the command again until it exits with 0."""
    monkeypatch.setattr(bulk_operations, "MAX_JOBS", 1)
    for key in "cd":
        job_in_state(store, State.QUEUED, voice_with_song(batch="b", key=key))

    runs = [command(action, "--batch", "b", "--yes", "--json") for _ in range(2)]

    assert [run.code for run in runs] == [1, 0]
    assert [run.json()["count"] for run in runs] == [1, 1]
    assert "more jobs match than one command changes (1)" in runs[0].err


def test_a_job_that_changes_during_the_question_is_not_retried(
    command: Command, store: JobStore, broken: dict[FailureCode, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price in the question may no longer hold: exit code 1."""
    job_id = broken[FailureCode.UPSTREAM_FAILED]

    def retry_elsewhere(*_: object, **__: object) -> bool:
        job = get_job(store, job_id)
        store.apply_transitions([transitions.retry(job, NOW)], NOW)
        return True

    monkeypatch.setattr("typer.confirm", retry_elsewhere)
    ended = command("retry", job_id)

    assert (ended.code, "has changed since you were asked" in ended.err) == (1, True)


def test_review_lists_what_is_at_stake(command: Command, store: JobStore) -> None:
    """Job, stage, since when, and why."""
    unsure = job_in_state(store, State.UNSURE, voice_with_song(batch="b"))

    shown = command("review").out

    for expected in (unsure.id, "voice", "4 credits", "no answer"):
        assert expected in shown
    [listed] = command("review", "--json").json()
    assert (listed["id"], listed["reason"]) == (unsure.id, "no answer")


def test_review_shows_an_unreadable_response(command: Command, store: JobStore) -> None:
    """An operator may find the task in it. The job shows it too."""
    answer = '{"order": "[bold]seven[/]"}'
    charging = job_in_state(store, State.CHARGING, voice_with_song())
    unsure = apply_transition(
        store, charging, State.UNSURE, reason="HTTP 200: success", fields={"upstream_response": answer}
    )

    assert f"{unsure.id} got this response: {answer}" in command("review").out
    assert answer in command("job", unsure.id).out
    [listed] = command("review", "--json").json()
    assert listed["upstream_response"] == answer
    assert command("job", unsure.id, "--json").json()["upstream_response"] == answer


def test_review_shows_the_balance(command: Command, store: JobStore) -> None:
    """Before and after the charge, with the difference that no record explains."""
    store.flow_control.record_balance(1_000, spent_before=0, requested_at=NOW - 60, now=NOW - 59)
    unsure = job_in_state(store, State.UNSURE, voice_with_song())
    [review] = command("review", "--json").json()
    assert (review["credits_before"], review["credits_unexplained"], review["credits_at_stake"]) == (None, None, 4)

    store.flow_control.record_balance(996, spent_before=0, requested_at=NOW + 60, now=NOW + 61)

    shown = command("review").out
    assert unsure.id in shown
    assert "1,000 → 996, 4 unexplained" in shown
    [review] = command("review", "--json").json()
    assert (review["credits_before"], review["credits_after"], review["credits_unexplained"]) == (1_000, 996, 4)


def test_resubmitting_asks_first(command: Command, store: JobStore) -> None:
    """It may be charged twice: without a yes the job stays unsure."""
    unsure = job_in_state(store, State.UNSURE, voice_with_song())

    ended = command("review", unsure.id, "--resubmit", stdin=b"n\n")

    assert ended.code == 1
    assert "If it was charged, it costs 4 credits more" in ended.err
    assert get_job(store, unsure.id).state is State.UNSURE


@pytest.mark.parametrize(
    "arguments",
    [
        ("review", "x"),
        ("review", "--abandon"),
        ("review", "x", "--abandon", "--resubmit"),
        ("retry",),
        ("retry", "x", "--batch", "b"),
    ],
)
def test_ambiguous_options_are_rejected(command: Command, arguments: tuple[str, ...]) -> None:
    """A decision about money is never guessed."""
    assert command(*arguments).code == 2
