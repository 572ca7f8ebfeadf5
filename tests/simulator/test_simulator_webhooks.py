"""Webhooks are sent as the dials select, signed by the contract, with the result of a poll."""

import hmac
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple

import pytest
import requests

from simulator.contract.ledger import Task
from simulator.contract.orders import Song
from simulator.process import Simulator
from simulator.server.webhooks import plan_webhooks

VOICE = "/api/v1/sonic/create-voice"
MUSIC = "/api/v1/sonic/create"
TASK = "/api/v1/sonic/task/"
SECRET = "s3cret"
SONG = {"task_type": "persona_music", "persona_id": "p", "custom_mode": True, "mv": "sonic-v5", "prompt": "la"}


class Delivery(NamedTuple):
    """A received webhook."""

    headers: dict[str, str]
    raw: bytes

    @property
    def event(self) -> str:
        """The name of the event."""
        return self.headers["X-Webhook-Event"]

    @property
    def body(self) -> Any:
        """The JSON body."""
        return json.loads(self.raw)


class Inbox(NamedTuple):
    """A receiver of webhooks."""

    url: str
    deliveries: "Queue[Delivery]"

    def next(self) -> Delivery:
        """Wait for the next webhook."""
        return self.deliveries.get(timeout=10)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Run a server that stores the webhooks it receives."""
    deliveries: Queue[Delivery] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            deliveries.put(Delivery(dict(self.headers), raw))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Inbox(f"http://127.0.0.1:{server.server_port}/hook", deliveries)
        server.shutdown()
        thread.join()


def record(api: requests.Session, inbox: Inbox, name: str = "anna") -> str:
    """Order a voice with webhooks, and return its task_id."""
    hook = {"webhook_url": inbox.url, "webhook_secret": SECRET}
    return str(api.post(VOICE, json={"audio_url": f"https://example.com/{name}.mp3", **hook}).json()["task_id"])


def test_a_webhook_has_the_result_of_a_poll_and_is_signed(
    simulator: Simulator, api: requests.Session, inbox: Inbox
) -> None:
    """The body is a poll's with the task_id beside it; the signature covers the timestamp and the raw body."""
    simulator.set_dials(voice_s=0)
    task_id = record(api, inbox)

    webhook = inbox.next()

    assert webhook.event == "voice.completed"
    assert webhook.body == {**api.get(TASK + task_id).json(), "task_id": task_id, "platform": "musicapi"}
    assert webhook.headers["X-Webhook-Id"] == webhook.headers["Idempotency-Key"]
    signed = webhook.headers["X-Webhook-Timestamp"].encode() + b"." + webhook.raw
    assert webhook.headers["X-Webhook-Signature"] == "sha256=" + hmac.new(SECRET.encode(), signed, sha256).hexdigest()


def test_a_webhook_without_a_secret_is_not_signed(simulator: Simulator, api: requests.Session, inbox: Inbox) -> None:
    """It has all other headers."""
    simulator.set_dials(voice_s=0)
    api.post(VOICE, json={"audio_url": "https://example.com/a.mp3", "webhook_url": inbox.url})
    assert "X-Webhook-Signature" not in inbox.next().headers


def test_a_song_has_a_streaming_and_a_final_webhook(simulator: Simulator, api: requests.Session, inbox: Inbox) -> None:
    """Two events of different ids; the first has streaming clips, the second the result."""
    simulator.set_dials(music_s=0.2)
    api.post(MUSIC, json={**SONG, "webhook_url": inbox.url})
    first, second = inbox.next(), inbox.next()
    assert [first.event, second.event] == ["song.streaming", "song.completed"]
    assert [webhook.body["data"][1]["state"] for webhook in (first, second)] == ["streaming", "succeeded"]
    assert first.headers["X-Webhook-Id"] != second.headers["X-Webhook-Id"]


def test_a_failure_is_reported_too(simulator: Simulator, api: requests.Session, inbox: Inbox) -> None:
    """`song.failed` with the body of a failed poll, and no streaming before it."""
    simulator.set_dials(music_s=0.05, music_failure=1)
    api.post(MUSIC, json={**SONG, "webhook_url": inbox.url})
    webhook = inbox.next()
    assert (webhook.event, webhook.body["data"]["state"]) == ("song.failed", "failed")


def test_a_webhook_may_come_twice_with_one_id(simulator: Simulator, api: requests.Session, inbox: Inbox) -> None:
    """With `twice` the final one is repeated."""
    simulator.set_dials(voice_s=0, webhook="twice", webhook_delay_s=0.01)
    record(api, inbox)
    first, second = inbox.next(), inbox.next()
    assert first.headers["X-Webhook-Id"] == second.headers["X-Webhook-Id"]
    assert first.body == second.body


def test_the_mode_decides_which_webhooks_come_when() -> None:
    """A song of 100 s streams at 70; the delay is 5."""
    task = Task("id", "music", "persona", "f", at=0, ready_at=100, base="http://x", song=Song("", "", "", ""))
    plans = {
        mode: [(event.name.partition(".")[2], event.due) for event in plan_webhooks(task, mode, 5)]
        for mode in ("once", "twice", "late", "out_of_order", "never")
    }
    assert plans == {
        "once": [("streaming", 70), ("completed", 100)],
        "twice": [("streaming", 70), ("completed", 100), ("completed", 105)],
        "late": [("streaming", 70), ("completed", 105)],
        "out_of_order": [("completed", 100), ("streaming", 105)],
        "never": [],
    }


def test_a_webhook_that_never_comes_is_not_sent(simulator: Simulator, api: requests.Session, inbox: Inbox) -> None:
    """The webhook of a later task arrives; the former one was not sent."""
    simulator.set_dials(voice_s=0, webhook="never")
    record(api, inbox, "silent")
    simulator.set_dials(webhook="once")
    task_id = record(api, inbox, "sent")
    assert inbox.next().body["task_id"] == task_id
    assert simulator.ledger()["webhooks"]["sent"] == 1


def test_a_task_settled_by_hand_sends_its_webhook_at_once(
    simulator: Simulator, api: requests.Session, inbox: Inbox
) -> None:
    """This covers a stalled task, with the state set by the control port."""
    simulator.set_dials(stall_match="anna")
    task_id = record(api, inbox)
    simulator.fail_task(task_id)
    webhook = inbox.next()
    assert (webhook.event, webhook.body["task_id"]) == ("voice.failed", task_id)


def test_deliveries_are_counted_and_their_failures_ignored(
    simulator: Simulator, api: requests.Session, inbox: Inbox, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """A missing receiver increases a count, nothing else."""
    simulator.set_dials(voice_s=0)
    record(api, inbox)
    for hook in ("http://127.0.0.1:1/missing", "no url"):
        api.post(VOICE, json={"audio_url": "https://example.com/a.mp3", "webhook_url": hook})
    eventually(lambda: simulator.ledger()["webhooks"] == {"sent": 3, "delivered": 1, "failed": 2})


def test_a_reset_drops_the_webhooks_to_come(simulator: Simulator, api: requests.Session, inbox: Inbox) -> None:
    """The next webhook is that of a task created after it."""
    simulator.set_dials(voice_s=0, webhook="late", webhook_delay_s=0.5)
    record(api, inbox, "before")
    simulator.reset()
    after = record(api, inbox, "after")
    assert inbox.next().body["task_id"] == after
    assert inbox.deliveries.empty()
