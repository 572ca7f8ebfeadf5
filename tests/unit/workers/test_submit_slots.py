"""One process of a worker is kept free for polls while answers to orders are slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # newer than its stubs
from celery.worker import state

from config.celeryconfig import configuration
from config.settings import Settings
from tasks.celery_tasks import poll_name, submit_name
from voicequeue.domain.stage import Stage
from voicequeue.storage.celery_queues import SUBMIT
from workers.messaging.submit_slots import SLOW_AFTER_S, SubmitSlots, submit_processes


@dataclass(eq=False)
class Request:
    """A task that the worker has received."""

    name: str


@dataclass
class Worker:
    """A worker with `processes` processes: the tasks that it handed to them, and its limit of held messages."""

    processes: int
    started: list[Request] = field(default_factory=list)
    message_limit: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.slots = SubmitSlots(
            self.started.append,
            limit=lambda: submit_processes(self.processes),
            change_limit=self._change_limit,
            clock=lambda: self.now,
        )

    def _change_limit(self, by: int) -> None:
        self.message_limit += by

    def receive(self, name: str) -> Request:
        """Receive a task, as Celery does."""
        request = Request(name)
        state.reserved_requests.add(request)
        self.slots.add(request)
        return request

    def submit(self, count: int) -> list[Request]:
        """Receive submit tasks."""
        return [self.receive(submit_name(Stage.VOICE)) for _ in range(count)]

    def end(self, request: Request) -> None:
        """End a task, and let one turn of the worker's loop pass."""
        state.reserved_requests.discard(request)
        self.slots.hand_on()


@pytest.fixture(autouse=True)
def _no_tasks() -> Iterator[None]:
    """Start and end without tasks in Celery's sets."""
    yield
    state.reserved_requests.clear()
    state.active_requests.clear()


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_orders_never_occupy_all_processes(processes: int) -> None:
    """A poll is handed to the processes at once, however many submit tasks were received before."""
    worker = Worker(processes)
    submits = worker.submit(3 * processes)

    poll = worker.receive(poll_name(Stage.VOICE))

    assert worker.started == [*submits[: processes - 1], poll]


def test_a_worker_sends_as_many_orders_by_default_as_there_are_processors() -> None:
    """The process that is kept for polls is an additional one."""
    processes = configuration(Settings(_env_file=None))["worker_concurrency"]

    assert submit_processes(processes) == cpu_budget().count


def test_a_single_process_does_everything() -> None:
    """With one process there is none to spare: orders are still sent."""
    worker = Worker(1)
    first, second = worker.submit(2)
    assert worker.started == [first]

    worker.end(first)

    assert worker.started == [first, second]


def test_each_submit_task_that_ends_starts_the_next_in_order() -> None:
    """No waiting task is lost or overtaken, also if a task was accepted by its process before."""
    worker = Worker(3)
    submits = worker.submit(5)
    state.active_requests.add(submits[0])

    for request in submits:
        state.active_requests.discard(request)
        worker.end(request)

    assert worker.started == submits
    assert worker.slots.paused_queues() == frozenset()


def test_a_worker_with_slow_orders_leaves_the_others_to_other_workers() -> None:
    """It stops receiving submit tasks as soon as those that run are slow and as many wait, and only then."""
    worker = Worker(3)
    submits = worker.submit(4)
    assert worker.slots.paused_queues() == frozenset()

    worker.now += 2 * SLOW_AFTER_S
    assert worker.slots.paused_queues() == {SUBMIT}

    worker.end(submits[0])
    assert worker.slots.paused_queues() == frozenset()


def test_submit_tasks_that_wait_for_slow_ones_do_not_keep_polls_from_being_received() -> None:
    """They do not count as messages that the worker holds, until they are handed to a process."""
    worker = Worker(2)
    submits = worker.submit(3)
    worker.now += 2 * SLOW_AFTER_S

    worker.slots.hand_on()
    assert worker.message_limit == 2

    worker.end(submits[0])
    worker.end(submits[1])
    assert worker.message_limit == 0


def test_a_lost_connection_forgets_what_waits_and_frees_no_process_that_still_works() -> None:
    """Redis delivers waiting messages again; a task that still runs keeps its process."""
    worker = Worker(2)
    running, _ = worker.submit(2)

    worker.slots.forget_waiting()
    state.reserved_requests.clear()
    state.active_requests.add(running)
    [delivered_again] = worker.submit(1)
    assert worker.started == [running]

    state.active_requests.discard(running)
    worker.end(running)
    assert worker.started == [running, delivered_again]
