"""The tests of the Django example: no Redis, no workers, no network; callbacks are signed as workers sign them.

pip install 'voicequeue[dev]' pytest django standardwebhooks
pytest docs/examples/test_django_app.py
"""

import django_app
import pytest
from django.test import Client

from voicequeue.testing import FakeQueue, SentCallback, unsure

ORDER = {"audio_url": "https://example.com/ana.wav", "song": {"prompt": "[Verse]\nla la"}, "key": "order-7"}


@pytest.fixture
def client(voicequeue_queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client(SERVER_NAME="localhost")
    shop = FakeQueue(voicequeue_queue.redis, app="shop")
    monkeypatch.setattr(django_app, "queue", shop)  # it was created when the module was imported
    monkeypatch.setenv("CALLBACK_SECRET", shop.callback_secret("http://localhost/callbacks"))

    def receive(callback: SentCallback) -> int:
        return client.post(
            callback.url, callback.body, content_type="application/json", headers=dict(callback.headers)
        ).status_code

    voicequeue_queue.deliver_to(receive)
    return client


def test_the_callback_stores_the_songs(client: Client, voicequeue_queue: FakeQueue) -> None:
    job_id = client.post("/voices", ORDER, content_type="application/json").json()["id"]
    assert client.get(f"/voices/{job_id}").json() == {"songs": None}

    voicequeue_queue.settle()

    assert len(client.get(f"/voices/{job_id}").json()["songs"]) == 2
    assert voicequeue_queue.callback_counts().delivered == 1


def test_a_callback_with_another_signature_is_refused(client: Client, voicequeue_queue: FakeQueue) -> None:
    client.post("/voices", ORDER, content_type="application/json")
    voicequeue_queue.settle()
    [callback] = voicequeue_queue.sent_callbacks

    forged = {**callback.headers, "webhook-signature": "v1,AAAA"}

    answer = client.post(callback.url, callback.body, content_type="application/json", headers=forged)
    assert answer.status_code == 401


def test_an_order_without_an_answer_has_no_songs_yet(client: Client, voicequeue_queue: FakeQueue) -> None:
    voicequeue_queue.script(unsure())

    job_id = client.post("/voices", ORDER, content_type="application/json").json()["id"]
    voicequeue_queue.settle()

    assert [callback.type for callback in voicequeue_queue.sent_callbacks] == ["job.unsure"]
    assert client.get(f"/voices/{job_id}").json() == {"songs": None}
