"""Flower and the broker show the ids of jobs, and nothing else about them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Error, Page, expect
from redis import Redis
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from tests.acceptance.conftest import LYRICS, SECRET, Build, System, jobs, settled
from tests.acceptance.proxy import behind_a_proxy
from tests.conftest import eventually
from tests.support.messages import UNACKED_KEY, plain_client
from voicequeue import State, VoiceQueue
from workers.local.ports import free_port
from workers.local.stack import procfile

LOGIN = ("operator", "pass-word")
PASSWORD = "redis-pass-word"

#: Texts that must not appear in Flower, in logs or in the broker.
HIDDEN = (SECRET, PASSWORD, LOGIN[1], "recordings.example", LYRICS.splitlines()[1], "Song 1")


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start one worker; Redis requires a password."""
    return build_shared(
        workers=1, password=PASSWORD, FLOWER_BASIC_AUTH=":".join(LOGIN), FLOWER_STATE_SAVE_INTERVAL="200"
    )


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system for one test."""
    return shared_system.reset()


@pytest.fixture(scope="module")
def flower(shared_system: System) -> str:
    """Start Flower for the system and wait until it sees the worker; return its address."""
    flower = shared_system.stack.start_flower()
    shared_system.stack.wait_for_flower(flower)
    eventually(lambda: requests.get(f"{flower}/api/workers", auth=LOGIN, timeout=5).json())
    return flower


@pytest.fixture(scope="module")
def finished_ids(shared_system: System, flower: str) -> list[str]:
    """Return the ids of finished jobs, in chunks, that Flower shows."""
    with shared_system.queue() as queue:
        queue.enqueue_many(jobs(12, "finished"))
        eventually(lambda: settled(queue, "finished"), within_s=40)
        ids = [job.id for job in queue.jobs(batch="finished")]
    eventually(lambda: shown_ids(flower) >= set(ids))
    return ids


def flower_tasks(flower: str) -> dict[str, dict[str, Any]]:
    """Return the tasks that Flower shows."""
    answer = requests.get(f"{flower}/api/tasks", params={"limit": 1000}, auth=LOGIN, timeout=5)
    answer.raise_for_status()
    tasks: dict[str, dict[str, Any]] = answer.json()
    return tasks


def worker_of(flower: str) -> str:
    """Return the one worker that Flower shows, after it asked for its details."""
    url = f"{flower}/api/workers"
    eventually(lambda: requests.get(url, params={"refresh": 1}, auth=LOGIN, timeout=5).json())
    [worker] = requests.get(url, auth=LOGIN, timeout=5).json()
    return str(worker)


def everything_shown(system: System, flower: str) -> str:
    """Return all that Flower shows, on every page and in its API, and the workers' logs."""
    paths = ["/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers", "/api/queues/length"]
    paths += [f"/worker/{worker_of(flower)}"]
    for task in flower_tasks(flower):
        paths += [f"/task/{task}", f"/api/task/info/{task}"]
    answers = [requests.get(f"{flower}{path}", auth=LOGIN, timeout=5) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    return "\n".join([*(answer.text for answer in answers), system.logs()])


def test_flower_shows_tasks_by_name_with_job_ids_and_no_secret_url_or_lyric(
    system: System, flower: str, finished_ids: list[str]
) -> None:
    """An operator sees which job a task is for; the customer's texts, URLs and keys appear nowhere."""
    assert shown_ids(flower) >= set(finished_ids)
    names = {task["name"] for task in flower_tasks(flower).values()}
    shown = everything_shown(system, flower)

    # A process that repeats the polls of voices makes those of songs too.
    assert names - {"voicequeue.enqueue", "music.poll"} == {"voice.submit", "voice.poll", "music.submit"}
    for forbidden in HIDDEN:
        assert forbidden not in shown
    assert requests.get(f"{flower}/tasks", timeout=5).status_code == 401


def shown_ids(flower: str) -> set[str]:
    """Return the job ids in the arguments that Flower shows."""
    texts = " ".join(task["args"] for task in flower_tasks(flower).values())
    return {part for part in texts.replace("'", " ").split() if len(part) == 16}


def test_any_celery_client_can_enqueue_and_its_message_shows_nothing(system: System, flower: str) -> None:
    """A plain client sends the task by name; the job runs once, although it was sent twice."""
    job = {"audio_url": "https://recordings.example/a.wav", "song": {"prompt": LYRICS}, "batch": "door"}
    with plain_client(system.redis_url) as client, system.queue() as queue:
        for _ in range(2):
            client.send_task("voicequeue.enqueue", kwargs={"job": job}, queue="intake", task_id="one-message")
        client.send_task("voicequeue.enqueue", kwargs={"job": {**job, "mv": "x"}}, queue="intake")
        eventually(lambda: "door" in names_of_batches(queue) and settled(queue, "door"), within_s=40)
        assert queue.batch("door").total == 1
    eventually(lambda: "voicequeue.enqueue" in {task["name"] for task in flower_tasks(flower).values()})
    eventually(lambda: "mv: is not known here" in system.logs())

    shown = everything_shown(system, flower)

    assert "recordings.example" not in shown
    assert LYRICS.splitlines()[1] not in shown


def test_a_message_with_a_countdown_shows_nothing_either(system: System) -> None:
    """Flower asks the worker for its reserved messages, and shows all of the answer."""
    job = {"audio_url": "https://recordings.example/later.wav", "batch": "later"}
    with plain_client(system.redis_url) as client, system.queue() as queue:
        client.send_task("voicequeue.enqueue", kwargs={"job": job}, queue="intake", task_id="later", countdown=3)
        scheduled: dict[str, Any] = {}

        def is_scheduled() -> bool:
            scheduled.update(client.control.inspect(timeout=0.3).scheduled() or {})
            return "later" in str(scheduled)

        eventually(is_scheduled)
        eventually(lambda: "later" in names_of_batches(queue) and settled(queue, "later"))

    assert "recordings.example" not in str(scheduled)


def names_of_batches(queue: VoiceQueue) -> list[str]:
    """Return the names of all batches."""
    return [batch.name for batch in queue.batches()]


def test_messages_in_the_broker_contain_only_ids(system: System) -> None:
    """A reader of the broker's queues finds no URL, lyrics or key."""
    system.dial(voice_s=60)
    with system.queue() as queue, Redis.from_url(system.redis_url, decode_responses=True) as redis:
        queue.enqueue_many(jobs(5, "held"))
        ids = {job.id for job in queue.jobs(batch="held")}
        eventually(lambda: queue.batch("held").states[State.PENDING] == 5)
        eventually(lambda: any(job_id in held_messages(redis) for job_id in ids))
        messages = held_messages(redis)
        for job_id in ids:
            queue.cancel(job_id)

    assert "voice.poll" in messages
    for forbidden in (SECRET, "recordings.example", "must stay secret"):
        assert forbidden not in messages


def held_messages(redis: Redis) -> str:
    """Return the unacknowledged messages in the broker; their bodies are not in base64 any longer."""
    return "\n".join(map(str, redis.hvals(UNACKED_KEY)))


def test_logs_report_errors_without_the_content_of_jobs(system: System) -> None:
    """Upstream's errors are logged without the content of the job."""
    system.dial(post_faults={"rate_limited": 0.6})
    with system.queue() as queue:
        queue.enqueue_many(jobs(5, "logged"))
        eventually(lambda: settled(queue, "logged"), within_s=40)

    assert "upstream rate limit" in system.logs()
    assert "recordings.example" not in system.logs()
    assert SECRET not in system.logs()


def test_a_worker_started_without_options_finishes_jobs(build: Build) -> None:
    """Celery's own command, `celery -A workers.app worker`, works too, and consumes every queue but `callbacks`."""
    system = build(workers=0)
    system.stack.start("plain", "exec celery -A workers.app worker")
    with system.queue() as queue:
        queue.enqueue_many(jobs(3))
        eventually(lambda: settled(queue), within_s=60)
        assert queue.batch("voices").states[State.SUCCEEDED] == 3


# ── in a browser ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a logged-in page; its console must stay free of errors."""
    context = browser.new_context(http_credentials={"username": LOGIN[0], "password": LOGIN[1]})
    tab = context.new_page()
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    context.close()
    assert errors == []


def test_flower_requires_the_login(browser: Browser, flower: str) -> None:
    """Without the login, or with another password, nothing is shown."""
    with browser.new_context() as anonymous, pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        anonymous.new_page().goto(f"{flower}/tasks")
    with browser.new_context(http_credentials={"username": LOGIN[0], "password": "another"}) as stranger:
        answer = stranger.new_page().goto(f"{flower}/tasks")
        assert answer is not None
        assert (answer.status, answer.header_value("www-authenticate")) == (401, 'Basic realm="flower"')


def test_flower_shows_the_workers(page: Page, flower: str) -> None:
    """By name, as online."""
    page.goto(f"{flower}/workers")

    expect(page.get_by_role("link", name="worker-")).to_have_count(1)
    expect(page.get_by_text("Online")).not_to_have_count(0)


def test_flower_lists_tasks_with_stage_and_job_ids_and_finds_those_of_a_job(
    page: Page, flower: str, finished_ids: list[str]
) -> None:
    """The search finds a job at any position in its chunk; the task's page names all jobs."""
    page.goto(f"{flower}/tasks")
    rows = page.locator("#tasks-table tbody tr")

    for job_id in (finished_ids[0], finished_ids[-1]):
        page.get_by_role("searchbox").fill(job_id)
        matching = {uuid for uuid, task in flower_tasks(flower).items() if job_id in task["args"]}
        expect(rows).to_have_count(min(len(matching), 15))
        expect(rows.filter(has_text="voice.submit").filter(has_text="voice, job")).not_to_have_count(0)
        expect(page.locator(".dataTables_info")).to_contain_text(f"of {len(matching)} tasks")
        rows.first.locator("a[href*='/task/']").click()
        expect(page.locator("#task-page")).to_contain_text(job_id)
        page.go_back()


def saved_at(system: System) -> float:
    """Return when Flower last saved its state, or 0 while it saves: files named `state.tmp…` are not complete yet."""
    with suppress(FileNotFoundError):
        files = [file for file in (system.home / "flower" / system.prefix).glob("state*") if ".tmp" not in file.name]
        return min((file.stat().st_mtime for file in files), default=0.0)
    return 0.0


def test_flower_keeps_its_history_when_killed(page: Page, system: System, flower: str, finished_ids: list[str]) -> None:
    """The supervisor restarts it, and its history is there."""
    before = {uuid for uuid, task in flower_tasks(flower).items() if finished_ids[0] in task["args"]}
    started_at = time.time()
    eventually(lambda: saved_at(system) > started_at)

    pid = system.supervisor.pid("flower")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: system.supervisor.pid("flower") not in (None, pid))
    system.stack.wait_for_flower(flower)

    assert before <= set(flower_tasks(flower))
    page.goto(f"{flower}/tasks")
    page.get_by_role("searchbox").fill(finished_ids[0])
    expect(page.locator("#tasks-table tbody tr").filter(has_text="voice.submit")).not_to_have_count(0)


@pytest.mark.parametrize(
    "path",
    ["worker/shutdown/{worker}", "worker/queue/cancel-consumer/{worker}?queue=poll", "task/send-task/voice.poll"],
)
def test_flower_is_read_only(system: System, flower: str, path: str) -> None:
    """A user of Flower can neither stop a worker nor send tasks."""
    url = f"{flower}/api/{path.format(worker=worker_of(flower))}"

    answer = requests.post(url, json={}, auth=LOGIN, timeout=5)

    assert answer.status_code == 403


def test_flower_works_behind_a_proxy_with_a_prefix(page: Page, system: System, finished_ids: list[str]) -> None:
    """Its pages, their resources and their links."""
    port = free_port()
    setting = f"FLOWER_URL_PREFIX=ops/flower FLOWER_PORT={port} FLOWER_DB={system.home}/behind/state"
    system.stack.start("behind", f"{setting} {procfile()['flower']}")
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=40, backoff_factor=0.2, backoff_max=1)))
        session.get(f"http://127.0.0.1:{port}/ops/flower", timeout=20)
    with behind_a_proxy("/ops/flower/", port) as address:
        page.goto(f"{address}/ops/flower/")
        page.get_by_role("link", name="Tasks").click()
        expect(page).to_have_url(f"{address}/ops/flower/tasks")
        expect(page.locator("#tasks-table")).to_be_visible()
        page.get_by_role("link", name="Workers").click()
        page.get_by_role("link", name="worker-").click()
        expect(page.get_by_text("Pool")).not_to_have_count(0)
        page.goto("about:blank")  # otherwise it would send requests after the proxy is gone
