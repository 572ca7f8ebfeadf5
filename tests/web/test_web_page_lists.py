"""The pages of callbacks, rejected messages, voices and processes: what they list, and what can be done there."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.store.jobs.test_personas import OTHER, job_with_voice
from tests.store.life import NOW, job_in_state
from tests.store.outbox.callback_steps import HOOK, claim_due
from tests.support.jobs import voice_with_song
from tests.web.conftest import Build, Gateway
from tests.web.seen import PageUser, ParsedPage
from voicequeue import Job, State, VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import CONSUMED
from voicequeue.storage.rejected_messages import RejectedMessage

pytestmark = pytest.mark.shared_gateway

EVIL = "\"'><script>alert(1)</script>"


@pytest.fixture
def person(local: Gateway) -> PageUser:
    """Return a user of this machine, who may do everything."""
    return PageUser(local)


def job_links(page: ParsedPage) -> list[str]:
    """Return the jobs that a page links to."""
    return [link.removeprefix("/job/") for link in page.links() if link.startswith("/job/")]


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────────


def undelivered(store: JobStore, key: str, batch: str | None = None, error: str = "410 Gone") -> Job:
    """Return a job whose callback was given up."""
    job = job_in_state(store, State.SUCCEEDED, voice_with_song(key=key, batch=batch, callback_url=HOOK))
    for claim in claim_due(store.callbacks):
        store.callbacks.mark_undelivered(claim.id, NOW, error, is_attempted=True)
    return job


def test_undelivered_callbacks_are_listed_with_their_error(person: PageUser, store: JobStore) -> None:
    """By batch, and by a text in the error."""
    spring, other = undelivered(store, "a", "spring"), undelivered(store, "b", error=f"500 {EVIL}")

    page = person.page("/callbacks")
    assert set(job_links(page)) == {spring.id, other.id}
    assert "410 Gone" in page.text
    assert EVIL in page.text
    assert job_links(person.page("/callbacks?batch=spring")) == [spring.id]
    assert job_links(person.page("/callbacks?q=500")) == [other.id]
    assert "No undelivered callbacks match" in person.page("/callbacks?q=nothing").text
    assert job_links(person.page("/callbacks?status=pending")) == []


def test_a_long_list_of_callbacks_has_pages(person: PageUser, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is listed once, although all were given up at the same time."""
    monkeypatch.setattr("workers.gateway.page.callbacks.PAGE_SIZE", 2)
    jobs = {undelivered(store, key).id for key in "abcde"}
    listed, path = [], "/callbacks"
    while path:
        page = person.page(path)
        listed += job_links(page)
        path = next((f"/callbacks{link}" for link in page.links() if "cursor=" in link), "")

    assert sorted(listed) == sorted(jobs)


def test_selected_callbacks_are_delivered_after_a_confirmation(person: PageUser, store: JobStore) -> None:
    """Exactly these."""
    jobs = [undelivered(store, key) for key in "abc"]
    ids = [job.callback_id or "" for job in jobs]

    boxes: dict[str, Any] = {f"select-{callback_id}": "on" for callback_id in ids[:2]}
    plan = person.submit(person.page("/callbacks"), "Deliver selected…", **boxes)
    assert store.callbacks.counts(NOW).undelivered == 3
    answer = person.submit(plan, "Deliver 2 callbacks")

    assert "2 callbacks are being delivered." in answer.text
    assert [it.id for it in store.callbacks.undelivered()] == ids[2:]


def test_without_a_selection_nothing_is_delivered(person: PageUser, store: JobStore) -> None:
    """The page says so."""
    undelivered(store, "a")

    assert "No callback was selected." in person.submit(person.page("/callbacks"), "Deliver selected…").text


def test_all_callbacks_of_a_filter_are_delivered(person: PageUser, store: JobStore) -> None:
    """Not those that are given up after the question."""
    undelivered(store, "a", "spring")
    other, late = undelivered(store, "b"), time.time() + 3_600

    plan = person.submit(person.page("/callbacks?batch=spring"), "Deliver all…")
    assert "Deliver 1 callback now?" in plan.text
    job = job_in_state(store, State.SUCCEEDED, voice_with_song(key="c", batch="spring", callback_url=HOOK))
    [claim] = claim_due(store.callbacks)
    store.callbacks.mark_undelivered(claim.id, late, "410", is_attempted=True)
    person.submit(plan, "Deliver 1 callback")

    assert {it.id for it in store.callbacks.undelivered()} == {other.callback_id, job.callback_id}


# ── rejected messages ─────────────────────────────────────────────────────────────────────────────


def reject(store: JobStore, reason: str, job: object = None, namespace: str = "", at: float = NOW) -> None:
    """Store a rejected message."""
    store.rejected_messages.add(RejectedMessage(at, "m-1", "voicequeue.enqueue", reason, job, namespace))


def test_rejected_messages_are_listed_with_an_excerpt(person: PageUser, store: JobStore) -> None:
    """As much of the job as the command shows; the download has all of it."""
    reject(store, EVIL, {"key": "a", "text": "x" * 500})
    reject(store, "audio_url is required", {"key": "b"}, at=NOW + 1)

    page = person.page("/rejected-messages")
    assert page.text.index("audio_url is required") < page.text.index(EVIL)
    assert "x" * 250 not in page.text
    assert EVIL not in person.page("/rejected-messages?q=REQUIRED").text
    lines = person.session.get(f"{person.url}/rejected-messages.jsonl?q=%22a%22", timeout=10).text.splitlines()
    assert [json.loads(line)["job"] for line in lines] == [{"key": "a", "text": "x" * 500}]


def test_rejected_messages_are_deleted_after_a_confirmation(person: PageUser, store: JobStore) -> None:
    """All of them."""
    reject(store, "one")
    reject(store, "two")

    answer = person.submit(person.page("/rejected-messages/delete"), "Delete rejected messages")

    assert "2 rejected messages are deleted." in answer.text
    assert store.rejected_messages.count() == 0


def test_many_rejected_messages_have_pages(person: PageUser, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest first."""
    monkeypatch.setattr("workers.gateway.page.rejected_messages.PAGE_SIZE", 1)
    reject(store, "the first one")
    reject(store, "the second one", at=NOW + 1)

    first = person.page("/rejected-messages")
    [following] = [link for link in first.links() if "skip=" in link]
    assert "the second one" in first.text
    assert "the first one" in person.page(f"/rejected-messages{following}").text


# ── voices ────────────────────────────────────────────────────────────────────────────────────────


def test_voices_are_listed_and_found(person: PageUser, store: JobStore) -> None:
    """By name, voice, job or recording; each leads to its job and to the jobs that use it."""
    first, second = job_with_voice(store, "a"), job_with_voice(store, "b", audio_url=OTHER)

    page = person.page("/voices")
    assert job_links(page) == [second, first]
    assert f"/?q=persona-of-{first}" in page.links()
    assert job_links(person.page("/voices?q=BO.WAV")) == [second]
    assert job_links(person.page(f"/voices?q={first}")) == [first]
    assert "No voice matches nothing" in person.page("/voices?q=nothing").text


def test_many_voices_have_pages_across_namespaces(
    store: JobStore, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is on one page, also when all were created at the same time."""
    jobs = {job_with_voice(store.in_namespace(name), f"{name}{n}", audio_url=f"https://r.example/{name}{n}.wav")
            for name in ("", "shop") for n in range(3)}  # fmt: skip
    listed, cursor = [], None
    while True:
        page = queue.list_personas(limit=2, cursor=cursor)
        listed += [persona.job_id for persona in page.items]
        if (cursor := page.cursor) is None:
            break

    assert sorted(listed) == sorted(jobs)


# ── processes ─────────────────────────────────────────────────────────────────────────────────────


def test_processes_are_listed_with_their_queues_and_load(person: PageUser, store: JobStore) -> None:
    """A killed one is stale, and consumes nothing any longer."""
    now = store.clock()
    facts = {"host": "h1", "pid": 7, "version": "9.9.9", "concurrency": 4, "active_tasks": 2, "in_progress": 31}
    store.heartbeats["worker"].record("worker-7@h1", now, {**facts, "load": 1.25, "cpus": 8, CONSUMED: {"poll": now}})
    store.heartbeats["callbacks"].record("callbacks-8@h2", now - HEARTBEAT_TIMEOUT_S - 60, {"pid": 8})

    page = person.page("/workers").text

    for part in ("worker h1, process 7", "2 / 4", "31", "1.2 / 8", "9.9.9", "callbacks h2, process 8"):
        assert part in page
    assert page.index("running") < page.index("stale")
    assert "poll 0 1" in page
    assert "callbacks 0 0" in page


def test_a_cancelled_consumer_and_a_wrong_clock_are_marked(person: PageUser, store: JobStore) -> None:
    """As the doctor reports them."""
    now = store.clock()
    facts = {CONSUMED: {"submit": now}, "cancelled": ["submit"], "storage_error": "the disk is full"}
    store.heartbeats["worker"].record("worker-7@h1", now, facts)

    page = person.page("/workers").text

    assert "submit stalled" in page
    assert "the disk is full" in page


def test_processes_are_shown_to_keys_of_all_namespaces_only(build_gateway: Build) -> None:
    """Host names and releases are no business of one app."""
    secret, key = api_keys.generate_key("shop", list(Scope), namespace="shop")
    shop = PageUser(build_gateway(api_keys=key.as_setting()), None)
    shop.session.post(f"{shop.url}/login", data={"key": secret}, timeout=10)

    shop.page("/workers", status=403)
    assert "/workers" not in shop.page("/").links()


# ── namespaces and scopes ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", ["/callbacks", "/rejected-messages", "/voices", "/jobs.csv", "/rejected-messages.jsonl"]
)
def test_a_list_shows_its_namespace_only(build_gateway: Build, store: JobStore, path: str) -> None:
    """The user of one namespace sees nothing of another; an operator chooses it."""
    for name in ("shop", "news"):
        scoped = store.in_namespace(name)
        job_with_voice(scoped, f"key-of-{name}", audio_url=f"https://r.example/{name}.wav")
        undelivered(scoped, f"undelivered-of-{name}", error=f"error of {name}")
        reject(store, f"reason of {name}", f"key-of-{name}", name)
    secret, key = api_keys.generate_key("shop", [Scope.READ], namespace="shop")
    gateway = build_gateway(api_keys=key.as_setting())
    user = PageUser(gateway, None)
    user.session.post(f"{gateway.url}/login", data={"key": secret}, timeout=10)

    answer = user.session.get(gateway.url + path, timeout=10)

    assert answer.status_code == 200
    assert "news" not in answer.text
    assert "shop" in answer.text
    assert user.session.get(f"{gateway.url}{path}?namespace=news", timeout=10).status_code == 403


@pytest.mark.parametrize("path", ["/callbacks/plan", "/callbacks/redeliver", "/rejected-messages/delete"])
def test_a_reader_changes_nothing(gateway: Gateway, store: JobStore, path: str) -> None:
    """The buttons are missing, and their forms refused."""
    undelivered(store, "a")
    reject(store, "one")
    reader = PageUser(gateway, "read")

    token = reader.page("/").forms[1]["fields"]["token"]
    assert reader.post(path, {"token": token, "all": "1", "until": "9e9"}).status_code == 403
    for page in ("/callbacks", "/rejected-messages"):
        text = reader.page(page).text
        assert "Deliver" not in text
        assert "Delete" not in text
