"""Job states: legal transitions, charges in a timeline, and the record."""

from __future__ import annotations

import itertools

import pytest

from tests.support.jobs import voice, voice_with_song
from voicequeue import ArchivedFile, ArchiveState, Charge, Clip, Failure, FailureCode, Job, Stage, State, TimelineEntry
from voicequeue.domain.job import Transition, charges, to_iso8601
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import CANCELLING_TRANSITIONS, IN_FLIGHT, MAY_HAVE_LATE_RESULT, SETTLED, TRANSITIONS

PAIRS = list(itertools.product(State, State))
LEGAL = [(state, to) for state, to in PAIRS if to in TRANSITIONS[state]]
ILLEGAL = [(state, to) for state, to in PAIRS if to not in TRANSITIONS[state]]


def move(state: State, to: State, due: float | None) -> Transition:
    """Return that transition of a job."""
    return Transition("job", 1, state, Stage.VOICE, to, due=due)


# ── moves ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_legal_transition_can_be_created(state: State, to: State) -> None:
    """It has a due time if it leads into flight, and none otherwise."""
    assert move(state, to, 1.0 if to in IN_FLIGHT else None).to_state is to


@pytest.mark.parametrize(("state", "to"), ILLEGAL)
def test_an_illegal_transition_cannot_be_created(state: State, to: State) -> None:
    """The error names both states."""
    with pytest.raises(ValueError, match=f"no transition leads from {state} to {to}"):
        move(state, to, 1.0 if to in IN_FLIGHT else None)


@pytest.mark.parametrize(("state", "to"), [(state, to) for state, to in LEGAL if to not in MAY_HAVE_LATE_RESULT])
def test_a_job_has_a_due_time_only_in_flight(state: State, to: State) -> None:
    """Without a due time, maintenance would never dispatch the job again."""
    with pytest.raises(ValueError, match=f"a job that is {to}"):
        move(state, to, None if to in IN_FLIGHT else 1.0)


@pytest.mark.parametrize(("state", "to"), [(state, to) for state, to in LEGAL if to in MAY_HAVE_LATE_RESULT])
def test_a_job_that_is_over_has_a_due_time_where_its_result_may_still_come(state: State, to: State) -> None:
    """A settled job has one if upstream was paid, and none otherwise."""
    assert move(state, to, 1.0).due == 1.0
    assert move(state, to, None).due is None


def test_every_state_has_its_transitions() -> None:
    """The table of transitions contains every state."""
    assert set(TRANSITIONS) == set(State)


def test_a_final_state_is_left_by_nothing_but_a_retry() -> None:
    """Succeeded and cancelled are final; a failed job is queued, polled, or has its result already.

    A transition from a state to itself only records a late result.
    """
    assert {state: TRANSITIONS[state] for state in SETTLED} == {
        State.SUCCEEDED: {State.SUCCEEDED},
        State.CANCELLED: {State.CANCELLED},
        State.FAILED: {State.QUEUED, State.PENDING, State.SUCCEEDED, State.FAILED},
    }


def test_every_other_state_leads_to_an_end() -> None:
    """Success and failure can be reached from every state."""
    for state in set(State) - SETTLED:
        reached = _reachable_from(state)
        assert {State.SUCCEEDED, State.FAILED} <= reached


def _reachable_from(state: State) -> set[State]:
    reached, edge = {state}, {state}
    while edge := {to for source in edge for to in TRANSITIONS[source]} - reached:
        reached |= edge
    return reached


def test_credits_can_be_charged_from_one_state_only() -> None:
    """Only an admitted job can be charged."""
    assert {state for state in State if State.CHARGING in TRANSITIONS[state]} == {State.ADMITTED}


def test_a_job_that_may_have_been_charged_is_never_queued_again() -> None:
    """An unsure job is submitted again only on request of an operator or by policy.

    Until its outcome is known, it can only be marked as cancelling.
    """
    assert TRANSITIONS[State.UNSURE] == {State.PENDING, State.ADMITTED, State.FAILED}
    assert State.CANCELLED not in TRANSITIONS[State.CHARGING]
    assert {state: {State.CANCELLED} for state in (State.CHARGING, State.UNSURE)} == CANCELLING_TRANSITIONS


def test_a_final_job_holds_no_slot() -> None:
    """No state is both final and in flight."""
    assert not SETTLED & IN_FLIGHT


def test_every_stage_has_a_price() -> None:
    """MusicAPI charges 4 credits for a voice and 15 for a song."""
    assert PRICES == {Stage.VOICE: 4, Stage.MUSIC: 15}


# ── charges ───────────────────────────────────────────────────────────────────────────────────────


def steps(*entries: tuple[State, Stage, int, str | None]) -> list[TimelineEntry]:
    """Return a timeline with one entry per second."""
    return [
        TimelineEntry(float(at), state, stage, attempt=attempt, task_id=task)
        for at, (state, stage, attempt, task) in enumerate(entries)
    ]


def test_a_charge_is_a_step_into_charging_and_the_step_that_answered_it() -> None:
    """A charge has its stage, attempt, outcome and task id."""
    timeline = steps(
        (State.QUEUED, Stage.VOICE, 0, None),
        (State.ADMITTED, Stage.VOICE, 0, None),
        (State.CHARGING, Stage.VOICE, 1, None),
        (State.QUEUED, Stage.VOICE, 1, None),
        (State.ADMITTED, Stage.VOICE, 1, None),
        (State.CHARGING, Stage.VOICE, 2, None),
        (State.PENDING, Stage.VOICE, 2, "task-v"),
        (State.ADMITTED, Stage.MUSIC, 2, None),
        (State.CHARGING, Stage.MUSIC, 3, None),
        (State.UNSURE, Stage.MUSIC, 3, None),
    )

    assert charges(timeline) == [
        Charge(2.0, Stage.VOICE, 1, State.QUEUED),
        Charge(5.0, Stage.VOICE, 2, State.PENDING, "task-v"),
        Charge(8.0, Stage.MUSIC, 3, State.UNSURE),
    ]


def test_a_task_that_is_named_later_belongs_to_its_own_charge() -> None:
    """This holds while the next order is in progress too."""
    timeline = steps(
        (State.CHARGING, Stage.VOICE, 1, None),
        (State.UNSURE, Stage.VOICE, 1, None),
        (State.ADMITTED, Stage.VOICE, 1, None),
        (State.CHARGING, Stage.VOICE, 2, None),
        (State.CHARGING, Stage.VOICE, 1, "task-1"),
        (State.PENDING, Stage.VOICE, 2, "task-2"),
    )

    assert charges(timeline) == [
        Charge(0.0, Stage.VOICE, 1, State.UNSURE, "task-1"),
        Charge(3.0, Stage.VOICE, 2, State.PENDING, "task-2"),
    ]


def test_a_charge_without_an_answer_is_still_charging() -> None:
    """Its request is in flight, or its worker is dead."""
    timeline = steps((State.ADMITTED, Stage.VOICE, 0, None), (State.CHARGING, Stage.VOICE, 1, None))

    assert charges(timeline) == [Charge(1.0, Stage.VOICE, 1, State.CHARGING)]


def test_a_timeline_without_charges_has_none() -> None:
    """A job that was queued and cancelled cost nothing."""
    timeline = steps((State.QUEUED, Stage.VOICE, 0, None), (State.CANCELLED, Stage.VOICE, 0, None))

    assert charges(timeline) == []
    assert charges([]) == []


# ── the record ────────────────────────────────────────────────────────────────────────────────────


def job(state: State) -> Job:
    """Return a record in that state."""
    return Job("abc", 3, state, Stage.MUSIC, voice_with_song(), created_at=1_760_000_000.0, updated_at=1_760_000_001.0)


@pytest.mark.parametrize("state", State)
def test_a_job_is_final_in_the_final_states_only(state: State) -> None:
    """Succeeded, failed and cancelled are final; an unsure job waits for an operator."""
    assert job(state).is_final is (state in {State.SUCCEEDED, State.FAILED, State.CANCELLED})


def test_the_shape_of_a_job_is_one_that_scripts_may_rely_on() -> None:
    """Every field is compared, with times, clips and a failure."""
    done = Job(
        "abc",
        9,
        State.FAILED,
        Stage.MUSIC,
        voice(key="k", batch="b", name="Ana", metadata={"row": "7"}),
        created_at=1_760_000_000.0,
        updated_at=1_760_000_005.0,
        settled_at=1_760_000_005.4567,
        credits=19,
        source="http:shop",
        source_row=7,
        persona_id="p-1",
        voice_name="ana",
        clips=(
            Clip(
                "c-1",
                "succeeded",
                "A song",
                "https://cdn.example/1.mp3",
                None,
                61.5,
                ArchivedFile("s3://songs/b/abc/c-1.mp3", 976_000, "5" * 64),
                tags="calm",
                mv="sonic-v5",
            ),
        ),
        archive=ArchiveState.FAILED,
        failure=Failure(FailureCode.UPSTREAM_FAILED, Stage.MUSIC, "no"),
    )

    assert done.as_dict() == {
        "id": "abc",
        "namespace": "",
        "key": "k",
        "batch": "b",
        "source": "http:shop",
        "source_row": 7,
        "message_ids": [],
        "name": "Ana",
        "priority": "normal",
        "state": "failed",
        "cancelling": False,
        "stage": "music",
        "audio_url": "https://recordings.example/ana.wav",
        "persona_id": "p-1",
        "voice_name": "ana",
        "clips": [
            {
                "clip_id": "c-1",
                "state": "succeeded",
                "title": "A song",
                "audio_url": "https://cdn.example/1.mp3",
                "image_url": None,
                "duration": 61.5,
                "archived_audio": {"url": "s3://songs/b/abc/c-1.mp3", "size": 976_000, "sha256": "5" * 64},
                "archived_image": None,
                "video_url": None,
                "tags": "calm",
                "lyrics": None,
                "mv": "sonic-v5",
                "created_at": None,
                "gpt_description_prompt": None,
            }
        ],
        "incomplete": False,
        "archive": "failed",
        "failure": {"code": "upstream_failed", "stage": "music", "message": "no"},
        "credits": 19,
        "created_at": "2025-10-09T08:53:20.000Z",
        "settled_at": "2025-10-09T08:53:25.456Z",
        "metadata": {"row": "7"},
    }


def test_a_time_is_written_in_utc_to_the_millisecond() -> None:
    """The time zone of the host does not matter; no time is None."""
    assert to_iso8601(0.0015) == "1970-01-01T00:00:00.001Z"
    assert to_iso8601(None) is None
