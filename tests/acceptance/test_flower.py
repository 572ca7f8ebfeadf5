"""What Flower and the broker show of a job: its id, and nothing else."""

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

from tests.acceptance.conftest import LYRICS, SECRET, Build, House, jobs, settled
from tests.acceptance.messages import UNACKED_KEY, plain_client
from tests.acceptance.proxy import behind_a_proxy
from tests.conftest import eventually
from voicequeue import State, VoiceQueue
from workers.local.ports import free_port
from workers.local.stack import procfile

LOGIN = ("operator", "pass-word")
PASSWORD = "redis-pass-word"

#: What nobody reads in Flower, in a log or in the broker.
HIDDEN = (SECRET, PASSWORD, LOGIN[1], "recordings.example", LYRICS.splitlines()[1], "Song 1")


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """One worker; Redis asks for a password."""
    return build_for_all(
        workers=1, password=PASSWORD, FLOWER_BASIC_AUTH=":".join(LOGIN), FLOWER_STATE_SAVE_INTERVAL="200"
    )


@pytest.fixture
def house(standing: House) -> House:
    """The house, for one test."""
    return standing.renew()


@pytest.fixture(scope="module")
def flower(standing: House) -> str:
    """Flower beside the house, which knows its worker; its address."""
    flower = standing.stack.start_flower()
    standing.stack.wait_for_flower(flower)
    eventually(lambda: requests.get(f"{flower}/api/workers", auth=LOGIN, timeout=5).json())
    return flower


@pytest.fixture(scope="module")
def done(standing: House, flower: str) -> list[str]:
    """The ids of jobs that are done, in chunks, and known to Flower."""
    with standing.queue() as queue:
        queue.enqueue_many(jobs(12, "looked-at"))
        eventually(lambda: settled(queue, "looked-at"), within_s=40)
        ids = [job.id for job in queue.jobs(batch="looked-at")]
    eventually(lambda: shown_ids(flower) >= set(ids))
    return ids


def flower_tasks(flower: str) -> dict[str, dict[str, Any]]:
    """The tasks that Flower knows."""
    answer = requests.get(f"{flower}/api/tasks", params={"limit": 1000}, auth=LOGIN, timeout=5)
    answer.raise_for_status()
    found: dict[str, dict[str, Any]] = answer.json()
    return found


def worker_of(flower: str) -> str:
    """The one worker that Flower knows, and has asked who it is."""
    url = f"{flower}/api/workers"
    eventually(lambda: requests.get(url, params={"refresh": 1}, auth=LOGIN, timeout=5).json())
    [worker] = requests.get(url, auth=LOGIN, timeout=5).json()
    return str(worker)


def everything_shown(house: House, flower: str) -> str:
    """All that Flower shows, on every page and in its API, and the workers log."""
    paths = ["/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers", "/api/queues/length"]
    paths += [f"/worker/{worker_of(flower)}"]
    for task in flower_tasks(flower):
        paths += [f"/task/{task}", f"/api/task/info/{task}"]
    answers = [requests.get(f"{flower}{path}", auth=LOGIN, timeout=5) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    return "\n".join([*(answer.text for answer in answers), house.logs()])


def test_flower_shows_tasks_by_name_with_job_ids_and_no_secret_url_or_lyric(
    house: House, flower: str, done: list[str]
) -> None:
    """An operator sees which job a task is about; what a customer wrote or pays with is nowhere."""
    assert shown_ids(flower) >= set(done)
    names = {task["name"] for task in flower_tasks(flower).values()}
    shown = everything_shown(house, flower)

    assert names - {"voicequeue.enqueue"} == {"voice.submit", "voice.poll", "music.submit", "music.poll"}
    for forbidden in HIDDEN:
        assert forbidden not in shown
    assert requests.get(f"{flower}/tasks", timeout=5).status_code == 401


def shown_ids(flower: str) -> set[str]:
    """Job ids in the arguments that Flower shows."""
    texts = " ".join(task["args"] for task in flower_tasks(flower).values())
    return {part for part in texts.replace("'", " ").split() if len(part) == 16}


def test_any_celery_client_can_enqueue_and_its_message_shows_nothing(house: House, flower: str) -> None:
    """A plain client sends the task by name; the job finishes, once, though it was sent twice."""
    job = {"audio_url": "https://recordings.example/a.wav", "song": {"prompt": LYRICS}, "batch": "door"}
    with plain_client(house.redis_url) as client, house.queue() as queue:
        for _ in range(2):
            client.send_task("voicequeue.enqueue", kwargs={"job": job}, queue="intake", task_id="one-message")
        client.send_task("voicequeue.enqueue", kwargs={"job": {**job, "mv": "x"}}, queue="intake")
        eventually(lambda: "door" in names_of_batches(queue) and settled(queue, "door"), within_s=40)
        assert queue.batch("door").total == 1
    eventually(lambda: "voicequeue.enqueue" in {task["name"] for task in flower_tasks(flower).values()})
    eventually(lambda: "mv: is not known here" in house.logs())

    shown = everything_shown(house, flower)

    assert "recordings.example" not in shown
    assert LYRICS.splitlines()[1] not in shown


def test_a_message_that_waits_for_its_time_shows_nothing_either(house: House) -> None:
    """Flower asks the worker what it holds, and shows all of the answer."""
    job = {"audio_url": "https://recordings.example/later.wav", "batch": "later"}
    with plain_client(house.redis_url) as client, house.queue() as queue:
        client.send_task("voicequeue.enqueue", kwargs={"job": job}, queue="intake", task_id="later", countdown=3)
        held: dict[str, Any] = {}

        def is_held() -> bool:
            held.update(client.control.inspect(timeout=0.3).scheduled() or {})
            return "later" in str(held)

        eventually(is_held)
        eventually(lambda: "later" in names_of_batches(queue) and settled(queue, "later"))

    assert "recordings.example" not in str(held)


def names_of_batches(queue: VoiceQueue) -> list[str]:
    """All batches."""
    return [batch.name for batch in queue.batches()]


def test_messages_in_the_broker_carry_ids_alone(house: House) -> None:
    """Whoever can read the broker's queues reads no URL, lyric or key there."""
    house.dial(voice_s=60)
    with house.queue() as queue, Redis.from_url(house.redis_url, decode_responses=True) as redis:
        queue.enqueue_many(jobs(5, "held"))
        ids = {job.id for job in queue.jobs(batch="held")}
        eventually(lambda: queue.batch("held").states[State.PENDING] == 5)
        eventually(lambda: any(job_id in held_messages(redis) for job_id in ids))
        held = held_messages(redis)
        for job_id in ids:
            queue.cancel(job_id)

    assert "voice.poll" in held
    for forbidden in (SECRET, "recordings.example", "nobody may see"):
        assert forbidden not in held


def held_messages(redis: Redis) -> str:
    """Messages in the broker that workers hold and have not acknowledged; their bodies are no longer in base64."""
    return "\n".join(map(str, redis.hvals(UNACKED_KEY)))


def test_logs_say_what_happens_without_saying_what_was_asked(house: House) -> None:
    """Errors of upstream are logged, never with what the job is about."""
    house.dial(post_faults={"rate_limited": 0.6})
    with house.queue() as queue:
        queue.enqueue_many(jobs(5, "logged"))
        eventually(lambda: settled(queue, "logged"), within_s=40)

    assert "upstream says: slow down" in house.logs()
    assert "recordings.example" not in house.logs()
    assert SECRET not in house.logs()


def test_a_worker_started_without_any_option_brings_jobs_to_their_end(build: Build) -> None:
    """`celery -A workers.app worker` works as it is and consumes every queue but `callbacks`."""
    house = build(workers=0)
    house.stack.start("plain", "exec celery -A workers.app worker")
    with house.queue() as queue:
        queue.enqueue_many(jobs(3))
        eventually(lambda: settled(queue), within_s=60)


# ── in a browser ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of somebody who knows the login; nothing in it goes wrong."""
    context = browser.new_context(http_credentials={"username": LOGIN[0], "password": LOGIN[1]})
    tab = context.new_page()
    troubles: list[str] = []
    tab.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    yield tab
    context.close()
    assert troubles == []


def test_flower_asks_for_the_login(browser: Browser, flower: str) -> None:
    """Without it, or with another password, nothing is shown."""
    with browser.new_context() as nobody, pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        nobody.new_page().goto(f"{flower}/tasks")
    with browser.new_context(http_credentials={"username": LOGIN[0], "password": "another"}) as stranger:
        answer = stranger.new_page().goto(f"{flower}/tasks")
        assert answer is not None
        assert (answer.status, answer.header_value("www-authenticate")) == (401, 'Basic realm="flower"')


def test_flower_shows_the_workers(page: Page, flower: str) -> None:
    """By name, and that they are there."""
    page.goto(f"{flower}/workers")

    expect(page.get_by_role("link", name="worker-")).to_have_count(1)
    expect(page.get_by_text("Online")).not_to_have_count(0)


def test_flower_lists_tasks_with_stage_and_job_ids_and_finds_those_of_a_job(
    page: Page, flower: str, done: list[str]
) -> None:
    """Whatever place a job has in its chunk; the task's own page names all of them."""
    page.goto(f"{flower}/tasks")
    rows = page.locator("#tasks-table tbody tr")

    for job_id in (done[0], done[-1]):
        page.get_by_role("searchbox").fill(job_id)
        known = {uuid for uuid, task in flower_tasks(flower).items() if job_id in task["args"]}
        expect(rows).to_have_count(min(len(known), 15))
        expect(rows.filter(has_text="voice.submit").filter(has_text="voice, job")).not_to_have_count(0)
        expect(page.locator(".dataTables_info")).to_contain_text(f"of {len(known)} tasks")
        rows.first.locator("a[href*='/task/']").click()
        expect(page.locator("#task-page")).to_contain_text(job_id)
        page.go_back()


def saved_at(house: House) -> float:
    """When Flower saved what it knows, all files of it; 0 where it is just at it. Before they have their names they are
    `state.tmp…`, and nothing is saved yet."""
    with suppress(FileNotFoundError):
        files = [file for file in (house.home / "flower" / house.prefix).glob("state*") if ".tmp" not in file.name]
        return min((file.stat().st_mtime for file in files), default=0.0)
    return 0.0


def test_flower_keeps_its_history_though_it_is_killed(page: Page, house: House, flower: str, done: list[str]) -> None:
    """The supervisor starts it again, and what it knew is there."""
    before = {uuid for uuid, task in flower_tasks(flower).items() if done[0] in task["args"]}
    begun = time.time()
    eventually(lambda: saved_at(house) > begun)

    pid = house.supervisor.pid("flower")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: house.supervisor.pid("flower") not in (None, pid))
    house.stack.wait_for_flower(flower)

    assert before <= set(flower_tasks(flower))
    page.goto(f"{flower}/tasks")
    page.get_by_role("searchbox").fill(done[0])
    expect(page.locator("#tasks-table tbody tr").filter(has_text="voice.submit")).not_to_have_count(0)


@pytest.mark.parametrize(
    "path",
    ["worker/shutdown/{worker}", "worker/queue/cancel-consumer/{worker}?queue=poll", "task/send-task/voice.poll"],
)
def test_flower_only_shows(house: House, flower: str, path: str) -> None:
    """Whoever may look may not stop a worker or send tasks."""
    url = f"{flower}/api/{path.format(worker=worker_of(flower))}"

    answer = requests.post(url, json={}, auth=LOGIN, timeout=5)

    assert answer.status_code == 403


def test_flower_works_behind_a_proxy_with_a_prefix(page: Page, house: House, done: list[str]) -> None:
    """Its pages, what they load and where they lead."""
    port = free_port()
    setting = f"FLOWER_URL_PREFIX=ops/flower FLOWER_PORT={port} FLOWER_DB={house.home}/behind/state"
    house.stack.start("behind", f"{setting} {procfile()['flower']}")
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
        page.goto("about:blank")  # it would ask again when the proxy is gone
