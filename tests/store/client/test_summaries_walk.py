"""Random lives of jobs: a search with summaries returns exactly what it returns without them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from tests.store.jobs.job_walk import JobWalk, some
from tests.store.life import refuse_order
from tests.support.jobs import SONG, URL
from voicequeue import Filter, Priority, Sort, Stage, State, VoiceJob
from voicequeue.client.search import Page, search
from voicequeue.client.sorted_search import sorted_page
from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.states import SETTLED
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.summaries import Size

NAMES = ("Anna Öhl", "anna-maria", unicodedata.normalize("NFD", "Änne"), "Berta 12", "BERTA 13, Straße", "Çelik")
TEXTS = ("anna", "ANNA Ö", "maria", "än", "berta 12", "straß", '"Çelik"', "x-1", "m-3", "task-2", "p-", "nobody")

#: Seconds for which a call has waited for Redis.
lateness = st.sampled_from([0.0, 0.0, 2.5, 20.0])

named = st.builds(
    VoiceJob,
    audio_url=st.sampled_from([URL, f"{URL}?2", f"{URL}?3"]),
    name=st.sampled_from(NAMES),
    song=st.sampled_from([None, SONG, SONG.model_copy(update={"title": "Lied für Anna"})]),
    metadata=st.sampled_from([{}, {"a": "x-1"}, {"a": "X-2", "b": ""}]),
    batch=st.sampled_from([None, None, "spring"]),
    priority=st.sampled_from([Priority.NORMAL, Priority.BULK]),
    voice=st.sampled_from([None, None, "ana"]),
)


def pages(read: Callable[[str | None], Page[Any]]) -> Iterator[tuple[list[str], str | None]]:
    """Yield the ids and the cursors of all pages."""
    cursor = None
    while True:
        page = read(cursor)
        cursor = page.cursor
        yield [job.id for job in page.items], cursor
        if cursor is None:
            return


def walk_on(redis: Redis) -> type[RuleBasedStateMachine]:
    """Return a state machine that changes jobs, builds summaries and searches in any order."""

    class Walk(JobWalk):
        def __init__(self) -> None:
            super().__init__(redis)
            self.summaries = self.store.indexes.summaries
            self.steps: list[Iterator[int]] = []
            self.turn = 0

        @rule(
            jobs=st.lists(named, min_size=1, max_size=12),
            namespace=st.sampled_from(["", "", "shop"]),
            source=st.sampled_from(["library", "http:app"]),
            late_s=lateness,
        )
        def enqueue(self, jobs: list[VoiceJob], namespace: str, source: str, late_s: float) -> None:
            self.now += 1
            store = self.store.in_namespace(namespace)
            pairs = [(store.job_ids.of(spec), spec) for spec in jobs]
            outcomes = store.enqueue(pairs, self.now - late_s, source=source)
            self.specs |= {job_id: spec for (job_id, spec), out in zip(pairs, outcomes, strict=True) if out.is_new}

        @rule(at_most=st.sampled_from([1, 3, 100]), late_s=lateness)
        def admit(self, at_most: int, late_s: float) -> None:
            self.store.admit(self.now - late_s, at_most=at_most)

        @rule(number=some)
        def refuse(self, number: int) -> None:
            charging = sorted(self.store.list_ids(state=State.CHARGING))
            if charging:
                refuse_order(self.store, charging[number % len(charging)], now=self.now, max_attempts=2)

        @precondition(lambda self: self.specs)
        @rule(number=some, message=st.integers(1, 4))
        def send_again(self, number: int, message: int) -> None:
            """Enqueue an existing job again, by a message."""
            job = self.job(number)
            store = self.store.in_namespace(job.namespace)
            store.enqueue([(job.id, self.specs[job.id])], self.now, message_id=f"m-{message}")

        @precondition(lambda self: self.specs)
        @rule(number=some, task=st.integers(1, 3))
        def count_order(self, number: int, task: int) -> None:
            """Upstream reports an order that a job does not use."""
            job = self.job(number)
            if job.attempt:
                order = ChargedOrder(job.id, Stage.VOICE, job.attempt, f"task-{task}")
                self.store.count_order(order, self.now, reason="reported")

        @precondition(lambda self: self.specs)
        @rule(number=some)
        def erase(self, number: int) -> None:
            job = self.job(number)
            if job.state in SETTLED:
                self.store.erasure.erase([job.id], self.now)
                del self.specs[job.id]
                self.withdrawn.pop(job.id, None)
                self.claims = [claim for claim in self.claims if claim.job_id != job.id]

        @precondition(lambda self: self.steps)
        @rule(number=some, steps=st.sampled_from([1, 99]))
        def continue_building(self, number: int, steps: int) -> None:
            """Let a builder that was interrupted continue, after jobs have changed."""
            list(islice(self.steps[number % len(self.steps)], steps))

        @rule(seconds=st.sampled_from([3.0, 50.0]))
        def set_clock_back(self, seconds: float) -> None:
            """Maintenance deletes what ends behind the clock."""
            self.now -= seconds
            list(self.summaries.build(lambda: self.now, settled_s=0.5))

        @invariant()
        def every_search_finds_the_same(self) -> None:
            """Build summaries after most steps, not always to the end, and search by a text of the list."""
            self.turn += 1
            if self.turn % 4:
                self.now += 1
                size = Size(full=2 + self.turn % 5, smallest=1 + self.turn % 2)
                self.steps.append(self.summaries.build(lambda: self.now, size, settled_s=0.5))
                list(islice(self.steps[-1], 5 if self.turn % 7 == 0 else None))
            text = [*TEXTS, None][self.turn % (len(TEXTS) + 1)]
            state = list(State)[self.turn // 3 % len(State)]
            conditions: list[dict[str, Any]] = [{}, {"metadata": {"a": "x-1"}}, {"state": state}, {"batch": "spring"}]
            job_filter, limit = Filter(text=text, **conditions[self.turn % 4]), 1 + self.turn % 3
            store = self.store.in_namespace(["*", "", "shop"][self.turn % 3])
            order = Sort.of(job_filter)[self.turn % 2]
            self.is_the_same_without_summaries(lambda cursor: search(store, job_filter, limit=limit, cursor=cursor))
            self.is_the_same_without_summaries(
                lambda cursor: sorted_page(store, job_filter, order, limit=limit, cursor=cursor)
            )

        def is_the_same_without_summaries(self, find: Callable[[str | None], Page[Any]]) -> None:
            with_summaries = list(pages(find))
            with patch.object(Filter, "_conditions", lambda _: []):
                assert with_summaries == list(pages(find))

        def teardown(self) -> None:
            try:
                assert audit(self.redis, self.prefix) == []
            finally:
                super().teardown()

    return Walk


@pytest.mark.hypothesis
def test_a_search_with_summaries_returns_what_it_returns_without(redis: Redis) -> None:
    """In any order of changes, with builders that are interrupted."""
    few = settings(max_examples=settings().max_examples // 4, stateful_step_count=50, phases=[Phase.generate])

    run_state_machine_as_test(walk_on(redis), settings=few)
