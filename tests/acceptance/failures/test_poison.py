"""Twelve jobs beside one that upstream always rejects or never answers: the twelve take their usual time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest

from config.settings import Settings
from tests.acceptance.conftest import FAST, SECRET
from tests.conftest import eventually
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import Filter, State, VoiceJob, VoiceQueue
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: The default settings at about 70 times the speed, and an upstream as fast; a real voice takes half a minute.
PACE = {
    "VOICEQUEUE_COOLDOWN_S": "0.07",
    "VOICEQUEUE_BALANCE_INTERVAL_S": "0.85",
    "VOICEQUEUE_MAX_IN_FLIGHT": "7",
    "VOICEQUEUE_INITIAL_IN_FLIGHT": "7",
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.2",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "0.25",
}
VOICE_S = 0.4

PAGE = "<html>no</html>"

#: Upstream's response to the order of one job: status line, body, headers.
ORDER_RESPONSES: dict[str, tuple[str, object, list[str]]] = {
    "no-such-persona": ("404 Not Found", {"error": "persona not found"}, []),
    "firewall": ("403 Forbidden", PAGE, []),
    "the-model": ("403 Forbidden", {"error": "Your subscription does not include the model sonic-v9."}, []),
    "the-key": ("401 Unauthorized", {"error": "Not your persona."}, []),
    "busy": ("429 Too Many Requests", {"error": "This persona is busy"}, ["Retry-After: 1000000000"]),
}
#: Upstream's response to polls of one job's task.
POLL_RESPONSES: dict[str, tuple[str, object, list[str]]] = {
    "task-forbidden": ("401 Unauthorized", {"error": "You may not see this."}, []),
    "task-unreadable": ("502 Bad Gateway", PAGE, []),
}
USUAL = "usual"


@dataclass
class Upstream:
    """An upstream with slow voices; jobs named in the tables above get those responses."""

    numbers: Iterator[int] = field(default_factory=count)
    tasks: dict[str, tuple[str, float]] = field(default_factory=dict)

    def __call__(self, request: Request) -> list[bytes]:
        """Answer one request."""
        if request.path.endswith("get-credits"):
            return [answer({"credits": 1_000_000, "extra_credits": 0})]
        if request.method == "POST":
            return [self._order(request.json()["audio_url"].rpartition("/")[2])]
        return [self._poll(request.path.rpartition("/")[2])]

    def _order(self, name: str) -> bytes:
        if name in ORDER_RESPONSES:
            status, body, headers = ORDER_RESPONSES[name]
            return answer(body, status=status, headers=headers)
        task_id = f"task-{next(self.numbers)}"
        self.tasks[task_id] = (name, time.monotonic())
        return answer({"code": 200, "message": "success", "task_id": task_id})

    def _poll(self, task_id: str) -> bytes:
        name, submitted_at = self.tasks[task_id]
        if name in POLL_RESPONSES:
            status, body, headers = POLL_RESPONSES[name]
            return answer(body, status=status, headers=headers)
        if time.monotonic() < submitted_at + VOICE_S:
            return answer({"type": "not_ready", "error": "wait"})
        return answer({"code": 200, "data": {"persona_id": f"persona-of-{task_id}", "name": "ana"}})


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start two workers and their Redis."""
    with ScriptedServer(Upstream()) as upstream, Supervisor() as supervisor:
        env = {**FAST, **PACE, "MUSICAPI_KEY": SECRET, "MUSICAPI_BASE_URL": upstream.url}
        stack = Stack(supervisor, Settings(_env_file=None), home=tmp_path_factory.mktemp("home"), env=env)
        url = stack.start_valkey()
        stack.start_workers(2)
        yield url


@pytest.fixture
def queue(redis_url: str) -> Iterator[VoiceQueue]:
    """Yield a producer; afterwards cancel all jobs, and delete what the workers learned about upstream."""
    with VoiceQueue(redis_url, namespace="*") as queue:
        yield queue
        queue.execute_plan("cancel", queue.plan_bulk("cancel", Filter()).token)
        eventually(lambda: queue.status().in_flight == 0)
    client = connect(redis_url)
    client.delete(*(Keyspace(client, DEFAULT_PREFIX).key(key) for key in ("flow", "gate")))
    client.close()


def voices(batch: str, *first: str) -> list[VoiceJob]:
    """Return jobs for twelve voices, after one for each of these names."""
    names = [*first, *(f"voice-{number}" for number in range(12))]
    return [
        VoiceJob(audio_url=f"https://recordings.example/{name}", batch=batch, key=f"{batch}-{name}") for name in names
    ]


def seconds_of(queue: VoiceQueue, batch: str, *first: str) -> float:
    """Return how many seconds the twelve jobs of such a batch take."""
    started_at = time.monotonic()
    queue.enqueue_many(voices(batch, *first))
    eventually(lambda: queue.batch(batch).states[State.SUCCEEDED] == 12, within_s=30)
    return time.monotonic() - started_at


@pytest.fixture(scope="module")
def usual_s(redis_url: str) -> float:
    """Return how many seconds an undisturbed batch takes, the second time, when all connections are open."""
    with VoiceQueue(redis_url, namespace="*") as queue:
        return [seconds_of(queue, f"{USUAL}-{turn}") for turn in range(2)][-1]


@pytest.mark.parametrize("kind", [*ORDER_RESPONSES, *POLL_RESPONSES])
def test_a_poison_job_slows_the_rest_of_its_batch_by_less_than_a_factor_of_two(
    queue: VoiceQueue, usual_s: float, kind: str
) -> None:
    """The rejected job comes first. In the end it has failed, or is still polled."""
    duration_s = seconds_of(queue, kind, kind)

    # One dispatch interval of the workers, at this speed a large part of the time.
    assert duration_s <= 2 * usual_s + 0.3
    [poison] = [job for job in queue.jobs(batch=kind) if job.spec.key == f"{kind}-{kind}"]
    assert (poison.state is State.PENDING) is (kind in POLL_RESPONSES)
    assert poison.state is not State.SUCCEEDED
    assert queue.batch(kind).states[State.FAILED] == (poison.state is State.FAILED)
