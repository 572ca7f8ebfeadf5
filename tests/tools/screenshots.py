"""`make screenshots`: take the pictures in docs/images of a running stack with the simulator."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from playwright.sync_api import Browser, Page, expect

from config.settings import Settings
from tests.support import terminal
from tests.support.browser import started
from voicequeue import Job, Song, State, VoiceJob, VoiceQueue
from voicequeue.storage.job_store import JobStore
from workers.local.stack import ROOT, Stack
from workers.local.supervisor import Supervisor

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1500, "height": 720}

#: As fast as `make up` with the simulator; some orders fail, and the balance suffices.
PACE = {
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.8",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "1.2",
    "VOICEQUEUE_MAX_IN_FLIGHT": "24",
    "VOICEQUEUE_INITIAL_IN_FLIGHT": "24",
    "VOICEQUEUE_TASK_CHUNK_SIZE": "8",
    "FLOWER_STATE_SAVE_INTERVAL": "0",
}
DIALS = {"voice_s": 2.5, "music_s": 4, "jitter": 0.3, "credits": 5_000, "seed": 7, "fail_match": "/007.wav"}

VERSE = "[Verse]\nlanterns on the water\n[Chorus]\ncarry me home"


@dataclass(frozen=True)
class Scene:
    """A stack at work."""

    redis_url: str
    flower: str
    page: str
    #: The page's address with the local token, which logs a browser in.
    entrance: str


@contextmanager
def at_work() -> Iterator[Scene]:
    """Start a stack with two batches: one settled except for failures, one in progress."""
    with tempfile.TemporaryDirectory() as folder, Supervisor(print_line=print) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env=PACE)
        redis_url = stack.start_valkey()
        stack.start_simulator(DIALS)
        page = stack.start_gateway(webhooks=False)
        flower = stack.start_flower()
        stack.start_workers(2)
        stack.wait_for_flower(flower)
        with VoiceQueue(redis_url, namespace="*") as queue:
            queue.enqueue_many(_jobs(30, "autumn-choir"))
            _wait_until(lambda: queue.batch("autumn-choir").is_settled)
            queue.enqueue_many(_jobs(60, "winter-release"))
            _wait_until(lambda: queue.batch("winter-release").states[State.SUCCEEDED] >= 10)
        yield Scene(redis_url, flower, page, f"{page}/?token={stack.gateway_token()}")


def _jobs(count: int, batch: str) -> list[VoiceJob]:
    return [
        VoiceJob(
            audio_url=f"https://recordings.example/{batch}/{number:03}.wav",
            song=Song(title=f"Lanterns {number}", tags="folk, warm", prompt=VERSE),
            key=f"{batch}-{number}",
            batch=batch,
        )
        for number in range(1, count + 1)
    ]


def _wait_until(condition: Callable[[], bool], within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the stack did not reach the state in time")
        time.sleep(0.05)


def flower(browser: Browser, scene: Scene) -> None:
    """Take pictures of Flower's workers, its tasks and one task, while another batch is in progress."""
    with VoiceQueue(scene.redis_url, namespace="*") as queue:
        queue.enqueue_many(_jobs(40, "spring-tour"))
        _wait_until(lambda: queue.batch("spring-tour").states[State.PENDING] >= 10)
    _wait_until(lambda: len(requests.get(f"{scene.flower}/workers", params={"json": 1}, timeout=5).json()["data"]) >= 2)
    page = _page(browser)
    page.goto(f"{scene.flower}/workers")
    expect(page.get_by_text("Online").first).to_be_visible()
    _take(page, "flower-workers")
    page.goto(f"{scene.flower}/tasks")
    rows = page.locator("#tasks-table tbody tr")
    expect(rows.filter(has_text="RETRY")).not_to_have_count(0)
    _take(page, "flower-tasks")
    task_rows = rows.filter(has_text="jobs")
    expect(task_rows).not_to_have_count(0)
    task_rows.last.locator("a[href*='/task/']").click()
    expect(page.locator("#task-page")).to_be_visible()
    _take(page, "flower-task")
    page.close()


def job_page(browser: Browser, scene: Scene) -> None:
    """Take pictures of the lists of jobs, batches and workers, a batch, a job, its forms and controls; and of the list
    of jobs in dark mode and on a phone."""
    with VoiceQueue(scene.redis_url, namespace="*") as queue:
        finished, failed = (next(queue.jobs(state=state)) for state in (State.SUCCEEDED, State.FAILED))
    page = _page(browser)
    page.goto(scene.entrance)
    _take(page, "page-jobs")
    page.goto(f"{scene.page}/?batch=winter-release")
    _take(page, "page-batch")
    page.goto(f"{scene.page}/job/{finished.id}")
    _take(page, "page-job")
    page.goto(f"{scene.page}/job/{failed.id}/retry")
    _take(page, "page-retry")
    for name in ("controls", "batches", "workers"):
        page.goto(f"{scene.page}/{name}")
        _take(page, f"page-{name}")
    page.close()
    page = browser.new_page(viewport=SIZE, color_scheme="dark")  # type: ignore[arg-type]
    page.goto(scene.entrance)
    _take(page, "page-dark")
    page.close()
    page = browser.new_page(viewport={"width": 390, "height": 780})
    page.goto(scene.entrance)
    _take(page, "page-phone")
    page.close()


def watch(browser: Browser, scene: Scene) -> None:
    """Take a picture of `voicequeue watch` on a terminal, in the middle of a batch."""
    with VoiceQueue(scene.redis_url, namespace="*") as queue:
        queue.enqueue_many(_jobs(60, "summer-nights"))
        _wait_until(lambda: queue.batch("summer-nights").states[State.SUCCEEDED] >= 1)
        started_at = time.monotonic()

        def is_half_way() -> bool:
            return queue.batch("summer-nights").states[State.SUCCEEDED] >= 25 and time.monotonic() > started_at + 2

        command = [str(Path(sys.executable).with_name("voicequeue")), "watch", "--batch", "summer-nights"]
        output = terminal.output_of(command, {"REDIS_URL": scene.redis_url}, until=is_half_way)
    path = IMAGES / "watch.png"
    terminal.save_picture(browser, output, "voicequeue watch --batch summer-nights", path)
    print(path.relative_to(ROOT))


def _page(browser: Browser) -> Page:
    return browser.new_page(viewport=SIZE)  # type: ignore[arg-type]


def _take(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    print(path.relative_to(ROOT))


def over_time(browser: Browser, scene: Scene) -> None:
    """Take a picture of the chart of the last hour, with jobs spread over it."""
    with VoiceQueue(scene.redis_url, namespace="*") as queue:
        _wait_until(lambda: all(batch.is_settled for batch in queue.batches()))
        store = queue._store
        _spread_over(store, [job for state in (State.SUCCEEDED, State.FAILED) for job in queue.jobs(state=state)])
    page = browser.new_page(viewport={**SIZE, "height": 1060})  # type: ignore[arg-type]
    page.goto(scene.entrance)
    page.goto(f"{scene.page}/trends")
    _take(page, "page-trends")
    page.close()


def _spread_over(store: JobStore, jobs: list[Job], span_s: float = 3_300.0) -> None:
    """Spread the times of finished jobs over `span_s` seconds: a stack that ran for a minute shows little."""
    now, redis, key = time.time(), store._redis, store._space.key
    for place, job in enumerate(sorted(jobs, key=lambda job: job.settled_at or 0)):
        settled = now - span_s * (1 - place / len(jobs))
        waited = 60 + 240 * place / len(jobs) + 40 * (place * 7 % 11) / 11
        fields = {
            "created": settled - waited - 180,
            "settled": settled,
            "submitted_at": settled - 100 - 60 * (place * 5 % 7) / 7,
        }
        redis.hset(key(f"job:{job.id}"), mapping={name: f"{at:.6f}" for name, at in fields.items()})
        redis.zadd(key(f"state:{job.state}"), {job.id: settled})


def main() -> None:
    """Take all pictures."""
    with started() as browser, at_work() as scene:
        job_page(browser, scene)
        watch(browser, scene)
        flower(browser, scene)
        over_time(browser, scene)


if __name__ == "__main__":
    main()
