"""What a batch and the account may spend holds at each charge, whatever was lost, revived, paused or lowered since."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from redis import Redis

from tests.store.flow.test_credits import left
from tests.store.life import NOW, accepted, charge, charging, everything_agrees, make, named, one, put
from tests.support.jobs import sung, voice
from voicequeue import Job, Stage, State
from voicequeue.client.orders import Named, name_order
from voicequeue.domain import transitions
from voicequeue.domain.claims import Charged, ChargedOrder
from voicequeue.domain.job import Move
from voicequeue.storage.job_store import Store


def songs(store: Store, count: int, batch: str = "b") -> list[str]:
    """Jobs of one batch, of a voice and a song each (19 credits); their ids."""
    return put(store, *(sung(key=f"{batch}-{number}", batch=batch) for number in range(count)))


def lost(store: Store, job_id: str) -> None:
    """Order the stage where the job is admitted; the answer is lost."""
    charging(store, job_id)
    make(store, one(store, job_id), State.UNSURE, reason="no answer")


def revived(store: Store, job_id: str) -> None:
    """A webhook names the task of the lost order."""
    assert store.apply([named(one(store, job_id), "t")], NOW) == [True]


def voice_ready(store: Store, job_id: str) -> None:
    """The voice is there, and the job is admitted to its song."""
    make(store, one(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": f"p-{job_id}"})


def pending_voices(store: Store, count: int, batch: str = "b") -> list[str]:
    """Jobs whose voices upstream works on."""
    job_ids = songs(store, count, batch)
    store.admit(NOW)
    for job_id in job_ids:
        charging(store, job_id)
        accepted(store, job_id)
    return job_ids


def charged(store: Store) -> list[str]:
    """Admit, and ask for the POSTs of all that are admitted, as workers do: the ids of those that may be sent."""
    store.admit(NOW)
    job_ids = sorted(store.ids(state=State.ADMITTED))
    found = [charge(store, job_id, one(store, job_id).stage, "w", NOW, lease=90) for job_id in job_ids]
    return [claim.job_id for claim in found if isinstance(claim, Charged)]


def worked_off(store: Store, rounds: int = 20) -> None:
    """Workers go on as long as limits let them; upstream takes everything, and every result comes."""
    for _ in range(rounds):
        for job_id in charged(store):
            accepted(store, job_id)
        for job_id in list(store.ids(state=State.PENDING)):
            job = one(store, job_id)
            if job.stage is Stage.VOICE:
                voice_ready(store, job_id)
            else:
                make(store, job, State.SUCCEEDED)


def test_lost_orders_are_counted_at_full_cost_whatever_webhooks_revive(store: Store, redis: Redis, prefix: str) -> None:
    """A batch that may spend 20 credits and has lost an order begins no other job, and spends 19 when it is found."""
    store.limit_batch("b", max_credits=20)
    [first, *_] = songs(store, 9)
    store.admit(NOW)
    lost(store, first)

    worked_off(store)
    assert store.counts("b")[State.QUEUED] == 8
    revived(store, first)
    worked_off(store)

    assert store.credits("b") == 19
    assert store.counts("b")[State.QUEUED] == 8
    everything_agrees(redis, prefix)


def given_up(job: Job) -> Move:
    """Nobody waits for its lost order any more."""
    return transitions.abandon(job, NOW)


def sent_again(job: Job) -> Move:
    """The policy, or a person, orders it a second time."""
    return transitions.order_again(job, NOW)


@pytest.mark.parametrize("settled", [given_up, sent_again])
def test_a_batch_never_passes_its_credits_by_lost_orders_that_are_given_up_or_sent_again(
    store: Store, redis: Redis, prefix: str, settled: Callable[[Job], Move]
) -> None:
    """Each order is lost and charged, again and again: all of them together cost no more than the batch may spend."""
    store.limit_batch("b", max_credits=20)
    put(store, *(voice(key=f"{number}", batch="b") for number in range(6)))
    sent: list[ChargedOrder] = []
    for _ in range(10):
        for job_id in charged(store):
            job = one(store, job_id)
            sent.append(ChargedOrder(job_id, job.stage, job.attempt, f"t-{len(sent)}"))
            make(store, job, State.UNSURE, reason="no answer")
        store.apply([settled(one(store, job_id)) for job_id in store.ids(state=State.UNSURE)], NOW)

    assert len(sent) == 5
    batch = store.batch("b")
    assert batch is not None
    assert (batch.credits, batch.committed) == (0, 20)
    everything_agrees(redis, prefix)
    for order in sent:
        assert name_order(store, order, NOW, reason="named") in (Named.TAKEN_UP, Named.COUNTED)
    assert charged(store) == []
    assert store.credits("b") == 20
    everything_agrees(redis, prefix)


def test_of_an_order_that_was_given_up_its_own_price_alone_stays_promised(store: Store) -> None:
    """Not that of the song that does not follow: with 23 credits another job begins, with 22 none."""
    store.limit_batch("b", max_credits=22)
    [first, *_] = songs(store, 3)
    store.admit(NOW)
    lost(store, first)
    store.apply([transitions.abandon(one(store, first), NOW)], NOW)
    assert charged(store) == []

    store.limit_batch("b", max_credits=23)

    assert len(charged(store)) == 1


def test_an_order_is_sent_again_as_soon_as_the_batch_can_pay_both(store: Store) -> None:
    """Until then the job waits at the head of its line, and says why; nothing else begins in its place."""
    store.limit_batch("b", max_credits=20)
    [first, *_] = songs(store, 3)
    store.admit(NOW)
    lost(store, first)

    store.apply([transitions.order_again(one(store, first), NOW)], NOW)
    assert charged(store) == []
    assert store.timeline(first)[-1].reason == "the credit limit of the batch is reached"
    store.limit_batch("b", max_credits=23)

    assert charged(store) == [first]
    assert charged(store) == []


def test_lost_orders_are_promised_credits_of_the_account(store: Store) -> None:
    """They may be charged after the balance was asked for, and their songs come later."""
    [first, *_] = songs(store, 3)
    left(store, 19 + 18)
    store.admit(NOW)
    lost(store, first)

    assert charged(store) == []
    assert store.controls.account().committed == 19


def test_a_batch_that_is_paused_orders_no_song_for_the_voices_that_come(
    store: Store, redis: Redis, prefix: str
) -> None:
    """They stay first in their line, say why, and go on when it is resumed."""
    job_ids = pending_voices(store, 8)
    store.limit_batch("b", paused=True)
    for job_id in job_ids:
        voice_ready(store, job_id)

    assert charged(store) == []

    assert store.counts("b")[State.QUEUED] == 8
    assert store.timeline(job_ids[0])[-1].reason == "the batch is paused"
    assert store.in_flight() == 0
    assert store.controls.account().committed == 0
    everything_agrees(redis, prefix)
    put(store, sung(key="later", batch="b"))
    store.limit_batch("b", paused=False)
    store.admit(NOW, at_most=8)
    assert sorted(store.ids(state=State.ADMITTED)) == sorted(job_ids)


def test_a_job_that_was_admitted_before_the_pause_is_not_charged(store: Store) -> None:
    """Nor one that goes back to its slot while it is paused."""
    [first, second] = songs(store, 2)
    store.admit(NOW)
    lost(store, first)
    store.limit_batch("b", paused=True)

    assert charged(store) == []
    store.apply([transitions.order_again(one(store, first), NOW)], NOW)
    assert charged(store) == []

    assert [one(store, job_id).state for job_id in (first, second)] == [State.QUEUED] * 2


def test_credits_of_a_batch_that_are_lowered_hold_for_the_songs_to_come(store: Store) -> None:
    """Of 8 voices that are ordered, 32 credits, two get their songs with 62."""
    job_ids = pending_voices(store, 8)
    store.limit_batch("b", max_credits=62)
    for job_id in job_ids:
        voice_ready(store, job_id)

    worked_off(store)

    assert store.credits("b") == 62
    assert store.counts("b")[State.SUCCEEDED] == 2
    assert "the credit limit of the batch is reached" in {step.reason for step in store.timeline(job_ids[0])}
    store.limit_batch("b", max_credits=inf)
    worked_off(store)
    assert store.counts("b")[State.SUCCEEDED] == 8


def test_slots_of_a_batch_that_are_lowered_hold_for_the_songs_to_come(store: Store) -> None:
    """No more songs are ordered at once than the batch may have in flight; all are in the end."""
    job_ids = pending_voices(store, 5)
    store.limit_batch("b", max_in_flight=2)
    for job_id in job_ids:
        voice_ready(store, job_id)

    assert len(charged(store)) == 2

    assert store.counts("b")[State.QUEUED] == 3
    for job_id in list(store.ids(state=State.CHARGING)):
        accepted(store, job_id)
    worked_off(store)
    assert store.counts("b")[State.SUCCEEDED] == 5


def test_credits_that_left_the_account_hold_back_the_songs_that_they_were_for(store: Store) -> None:
    """Another user of the account took them: no order leaves that would touch the floor; the rest goes on."""
    store.controls.set_limits(credit_floor=10)
    job_ids = pending_voices(store, 3)
    left(store, 10 + 3 * 15 - 1)
    for job_id in job_ids:
        voice_ready(store, job_id)

    worked_off(store)

    assert store.counts("b")[State.SUCCEEDED] == 2
    assert store.controls.account().left == 10 + 14
    left(store, 10 + 15)
    worked_off(store)
    assert store.counts("b")[State.SUCCEEDED] == 3
    assert store.controls.account().left == 10


@pytest.mark.parametrize(
    "limit", [{"paused": True}, {"max_credits": 20}, {"max_in_flight": 1}], ids=["paused", "credits", "slots"]
)
def test_what_a_limit_sent_back_is_not_admitted_while_it_holds(store: Store, limit: dict[str, float]) -> None:
    """A job that came and went between the backlog and its slot would keep everybody busy."""
    job_ids = pending_voices(store, 4)
    store.limit_batch("b", **limit)
    for job_id in job_ids:
        voice_ready(store, job_id)
    charged(store)
    versions = [one(store, job_id).version for job_id in job_ids]

    for _ in range(3):
        assert store.admit(NOW).by_stage == {}

    assert [one(store, job_id).version for job_id in job_ids] == versions


def test_others_go_on_while_a_batch_is_held_back(store: Store) -> None:
    """In one asking for the POSTs of both."""
    held, free = pending_voices(store, 2, "held"), pending_voices(store, 2, "free")
    store.limit_batch("held", paused=True)
    for job_id in (*held, *free):
        voice_ready(store, job_id)

    found = store.charge([*held, *free], Stage.MUSIC, "w", NOW, lease=90)

    assert [isinstance(claim, Charged) for claim in found] == [False, False, True, True]
