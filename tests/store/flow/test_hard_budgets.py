"""A hard budget refuses new jobs that it cannot pay after what is spent, reserved and queued; other budgets do not."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.flow.test_limits import lost, process_all, songs
from tests.store.life import NOW, assert_consistent
from tests.support.jobs import URL, results_of, voice, voice_with_song
from voicequeue import BudgetExceededError, State, VoiceQueue
from voicequeue.client.queue import in_namespace
from voicequeue.domain.budgets import period_ends
from voicequeue.domain.claims import BudgetRefusal, EnqueueOutcome
from voicequeue.domain.spec import VoiceJob
from voicequeue.storage.job_store import JobStore

NEW = EnqueueOutcome.NEW


def outcomes(store: JobStore, *specs: VoiceJob, source: str = "library") -> list[EnqueueOutcome | BudgetRefusal]:
    """Enqueue jobs in one call and return their outcomes."""
    pairs = [(spec.job_id(namespace=store.scope.target), spec) for spec in specs]
    return store.enqueue(pairs, NOW, source=source)


def accepted(store: JobStore, count: int, source: str = "library") -> int:
    """Return how many of new jobs of 19 credits are enqueued in one call."""
    specs = [voice_with_song(key=f"{source}-{number}", batch="b") for number in range(count)]
    return sum(outcome.is_new for outcome in outcomes(store, *specs, source=source))


def test_a_budget_that_is_not_hard_refuses_nothing(store: JobStore) -> None:
    """By default jobs wait."""
    store.flow_control.set_budget("account", day=18)
    assert accepted(store, 3) == 3
    store.flow_control.set_budget("account", hard=True)
    assert accepted(store, 3, "other") == 0


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_hard_budget_counts_what_is_queued(store: JobStore, redis: Redis, prefix: str, period: str) -> None:
    """Of five jobs of 19 credits, three fit into 60; nothing of the others is written."""
    store.flow_control.set_budget("account", hard=True, **{period: 60})
    assert accepted(store, 5) == 3
    [refusal] = outcomes(store, voice_with_song(key="another"))
    assert refusal == BudgetRefusal("account", period, 19, 60, 3, resets_at=period_ends(NOW)[period])
    assert len(list(store.list_ids())) == 3
    assert_consistent(redis, prefix)


def test_what_is_spent_reserved_and_unsure_counts_too(store: JobStore) -> None:
    """A job counts in each state until its cost is known to be nothing."""
    store.flow_control.set_budget("account", day=57, hard=True)
    first, *_ = songs(store, 3)
    assert accepted(store, 1) == 0
    store.admit(NOW, at_most=1)
    lost(store, first)
    assert accepted(store, 1) == 0
    process_all(store)
    assert store.counts_by_state()[State.UNSURE] == 1
    assert accepted(store, 1) == 0


def test_a_cancelled_job_gives_its_credits_back(queue: VoiceQueue) -> None:
    """What will not be spent does not count."""
    queue.set_budget("account", day=19, hard=True)
    job = queue.enqueue(voice_with_song(key="one"))
    with pytest.raises(BudgetExceededError):
        queue.enqueue(voice_with_song(key="two"))
    queue.cancel(job.id)
    assert queue.enqueue(voice_with_song(key="two")).state is State.QUEUED


def test_a_repeated_key_is_never_refused(queue: VoiceQueue) -> None:
    """The job exists: the caller gets it, also when the budget has ended since."""
    queue.set_budget("account", day=19, hard=True)
    spec = voice_with_song(key="order-7")
    job = queue.enqueue(spec)
    queue.set_budget("account", day=0)
    assert queue.enqueue(spec).id == job.id


def test_a_shared_voice_is_counted_once(store: JobStore) -> None:
    """An item of one voice and three songs costs 4 + 3 * 15, in one call and in several."""
    store.flow_control.set_budget("account", day=49, hard=True)
    shared = [voice_with_song(key=f"key-{number}", reuse=True) for number in range(4)]
    assert [outcome.is_new for outcome in outcomes(store, *shared)] == [True, True, True, False]
    store.flow_control.set_budget("account", day=64)
    assert [outcome.is_new for outcome in outcomes(store, shared[3])] == [True]
    assert [outcome.is_new for outcome in outcomes(store, voice(key="small"))] == [False]


def test_a_refused_job_does_not_take_the_name_of_a_voice(store: JobStore, redis: Redis, prefix: str) -> None:
    """The name stays free for another recording; one that jobs of the same call use stays theirs."""
    store.flow_control.set_budget("account", day=18, hard=True)
    ana = voice_with_song(key="a", voice="ana", batch="b")
    other = voice(key="b", voice="ana", batch="b", audio_url=f"{URL}?2")
    assert [outcome.is_new for outcome in outcomes(store, ana)] == [False]
    assert [outcome.is_new for outcome in outcomes(store, other)] == [True]
    store.flow_control.set_budget("account", day=24)
    first, second = (voice_with_song(key=key, voice="eva", batch="b") for key in ("c", "d"))
    assert [outcome.is_new for outcome in outcomes(store, first, second)] == [True, False]
    assert outcomes(store, voice(key="e", voice="eva", batch="b", audio_url=f"{URL}?2")) == [EnqueueOutcome.OTHER_VOICE]
    assert_consistent(redis, prefix)


def test_a_namespace_and_an_api_key_refuse_only_their_own_jobs(store: JobStore) -> None:
    """The hard budget of one owner never refuses another's job."""
    shop, news = store.in_namespace("shop"), store.in_namespace("news")
    store.flow_control.set_budget("namespace/shop", day=38, hard=True)
    store.flow_control.set_budget("key/app", day=19, hard=True)
    assert accepted(shop, 3, "library") == 2
    assert accepted(news, 3, "http:app") == 1
    assert accepted(news, 3, "http:other") == 3
    assert accepted(store, 3, "library") == 3


def test_a_namespace_does_not_learn_the_figures_of_the_account(queue: VoiceQueue) -> None:
    """It learns that the account's budget is reached and when it resets; of its own budget also what is left."""
    shop = in_namespace(queue, "shop")
    queue.set_budget("account", day=1_234, hard=True)
    queue.set_budget("namespace/shop", day=5, hard=True)
    with pytest.raises(BudgetExceededError, match=r"namespace shop for this day .*\(5 of 5 credits remaining\)") as own:
        shop.enqueue(voice_with_song())
    queue.set_budget("account", day=7)
    with pytest.raises(BudgetExceededError) as foreign:
        shop.enqueue(voice_with_song())
    assert (own.value.limit, own.value.remaining) == (5, 5)
    assert (foreign.value.owner, foreign.value.limit, foreign.value.remaining) == ("account", None, None)
    assert "remaining)" not in str(foreign.value)


def test_a_batch_reports_each_refused_item(queue: VoiceQueue) -> None:
    """The others are enqueued."""
    queue.set_budget("account", day=38, hard=True)
    summary = queue.enqueue_many(voice_with_song(key=f"key-{number}") for number in range(5))
    assert (summary.new, summary.rejected, summary.credits) == (2, 3, 38)
    assert {type(rejection.error) for rejection in summary.rejections} == {BudgetExceededError}


def test_a_preview_refuses_what_enqueueing_would_refuse(queue: VoiceQueue) -> None:
    """`ingest --dry-run` says beforehand how many rows the budget pays; it takes nothing from it."""
    queue.set_budget("account", day=91, hard=True)
    queue.enqueue(voice_with_song(key="key-0"))
    separate = [voice_with_song(key=f"key-{number}") for number in range(3)]
    jobs = [*separate, *(voice_with_song(key=f"shared-{number}", reuse=True) for number in range(3))]
    for _ in range(2):
        previews = [type(preview.error) for preview in queue.preview(jobs)]
    assert previews == [type(item.error) for item in results_of(queue, jobs)]
    assert previews == [type(None)] * 5 + [BudgetExceededError]
