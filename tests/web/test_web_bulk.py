"""Many jobs in one request: rows stream in, outcomes stream out."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.conftest import eventually
from tests.support.jobs import URL, voice
from tests.web.conftest import KEYS, Build, Gateway, problem
from voicequeue import State, VoiceQueue
from voicequeue.ingest.row_reader import ROW_MAX
from workers.gateway import outbox
from workers.gateway.api import row_uploads

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
AUTHORIZED = {"Authorization": f"Bearer {KEYS['all'][0]}"}


def row(number: int, **fields: Any) -> bytes:
    """One line of JSON."""
    return json.dumps({"audio_url": f"https://recordings.example/{number}.wav", **fields}).encode() + b"\n"


def sent(gateway: Gateway, body: Any, headers: dict[str, str] = NDJSON, query: str = "") -> tuple[list[Any], Any]:
    """The outcomes, and the summary that comes after them."""
    answer = gateway("POST", f"/v1/batches/b/jobs{query}", data=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *outcomes, last = (json.loads(line) for line in answer.text.splitlines())
    return outcomes, last["summary"]


def test_every_row_is_told_what_became_of_it(gateway: Gateway, queue: VoiceQueue) -> None:
    """In their order: new, known, wrong by its fields, at odds with a key; then the sums."""
    queue.enqueue(voice(batch="b", key="taken"))
    body = b"".join(
        [row(1), row(1), row(2, name=""), b"{\n", b"\n", row(3, key="taken"), row(4, song={"prompt": "la"})]
    )

    outcomes, summary = sent(gateway, body)

    ids = [job.id for job in queue.jobs(batch="b")][1:]
    assert [(each["line"], each["outcome"]) for each in outcomes] == [
        (1, "new"),
        (2, "known"),
        (3, "rejected"),
        (4, "rejected"),
        (6, "rejected"),
        (7, "new"),
    ]
    assert [outcomes[place]["id"] for place in (0, 1, 5)] == [ids[0], ids[0], ids[1]]
    assert [error["field"] for place in (2, 3, 4) for error in outcomes[place]["errors"]] == ["name", "", "key"]
    assert summary == {"complete": True, "new": 2, "known": 1, "rejected": 3, "credits": 23}


def test_csv_is_taken_as_the_command_line_takes_it(gateway: Gateway, queue: VoiceQueue) -> None:
    """Any delimiter, flat songs, metadata; and the same file again adds nothing."""
    body = "audio_url;name;prompt;metadata.customer\nhttps://recordings.example/a.wav;Åse;la la;17\n".encode()

    first, again = sent(gateway, body, CSV)[1], sent(gateway, body, CSV)[1]

    [job] = queue.jobs(batch="b")
    assert (job.spec.name, job.spec.metadata) == ("Åse", {"customer": "17"})
    assert job.spec.song is not None
    assert (first["new"], first["credits"], again["new"], again["known"]) == (1, 19, 0, 1)


def test_only_what_was_rejected_may_be_told(gateway: Gateway) -> None:
    """The summary comes all the same."""
    outcomes, summary = sent(gateway, row(1) + b"{}\n", query="?outcomes=rejected")

    assert [each["line"] for each in outcomes] == [2]
    assert summary["new"] == 1


def test_no_rows_are_no_error(gateway: Gateway) -> None:
    """An empty body of JSON Lines cannot be told from a CSV without a header, which is one."""
    problem(gateway("POST", "/v1/batches/b/jobs", data=b"", headers=NDJSON), 422, "unreadable")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("b", b"[1]", NDJSON, 422, "unreadable"),
        ("b", b"name\nAna\n", CSV, 422, "unreadable"),
        ("b", b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ("b", b"{}", {**NDJSON, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("a%20b", b"{}", NDJSON, 422, "invalid"),
    ],
)
def test_what_cannot_be_read_at_all_is_a_problem(
    gateway: Gateway, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Nothing of it was enqueued."""
    problem(gateway("POST", f"/v1/batches/{path}/jobs", data=body, headers=headers), status, code)


def test_a_row_that_never_ends_fills_no_memory(gateway: Gateway) -> None:
    """It is rejected, and the rows after it are taken, in both formats."""
    long = b'{"audio_url": "' + b"x" * (2 * ROW_MAX) + b'"}\n'
    lines, _ = sent(gateway, row(1) + long + row(2))
    quoted = b'audio_url,name\n"' + b"x" * (2 * ROW_MAX) + f'"\n{URL},Ana\n'.encode()
    cells, _ = sent(gateway, quoted, CSV)

    assert [(each["line"], each["outcome"]) for each in lines] == [(1, "new"), (2, "rejected"), (3, "new")]
    assert [(each["line"], each["outcome"]) for each in cells] == [(2, "rejected"), (3, "new")]


# ── while it streams ──────────────────────────────────────────────────────────────────────────────


def test_outcomes_come_while_rows_are_still_to_be_sent(gateway: Gateway) -> None:
    """A row that has come is not kept waiting for the next one."""
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as raw:
        head = "POST /v1/batches/b/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        key = AUTHORIZED["Authorization"]
        raw.sendall(f"{head}Authorization: {key}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        told = b""
        for number in (1, 2):
            line = row(number)
            raw.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while b'"line": %d' % number not in told:
                piece = raw.recv(65_536)
                assert piece
                told += piece
        raw.sendall(b"0\r\n\r\n")
        while b"summary" not in told:
            told += raw.recv(65_536)


def test_a_client_that_reads_nothing_before_it_has_sent_all_is_served(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As most clients are: what it does not take yet waits on the disk, not in memory."""
    monkeypatch.setattr(outbox, "IN_MEMORY", 4_096)
    bad = json.dumps({"audio_url": "x" * 60}).encode() + b"\n"

    def rows() -> Iterator[bytes]:
        for _ in range(400):
            yield bad * 100

    outcomes, summary = sent(gateway, rows())

    assert (len(outcomes), summary["rejected"]) == (40_000, 40_000)


def test_rows_that_were_cut_off_are_not_taken_for_whole_ones(gateway: Gateway, queue: VoiceQueue) -> None:
    """A sender that dies in the middle of a row: what came before is there, that one is not."""
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as raw:
        head = (
            "POST /v1/batches/b/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nContent-Length: 9999\r\n"
        )
        raw.sendall(f"{head}Authorization: {AUTHORIZED['Authorization']}\r\n\r\n".encode())
        raw.sendall(f"audio_url,name\n{URL},Ana\n{URL},An".encode())
        told = b""
        while b'"outcome": "new"' not in told:
            told += raw.recv(65_536)

    eventually(lambda: queue.status().states[State.QUEUED] == 1)
    assert sent(gateway, row(1))[1]["new"] == 1
    assert [job.spec.name for job in queue.jobs(batch="b")] == ["Ana", None]


def test_too_many_senders_at_once_are_told_to_come_again(
    build_gateway: Build, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a thread; when one is done there is room again."""
    monkeypatch.setattr(row_uploads, "AT_ONCE", 1)
    gateway = build_gateway()
    go_on = threading.Event()
    summaries: list[Any] = []

    def slowly() -> Iterator[bytes]:
        yield row(1)
        go_on.wait(10)
        yield row(2)

    def send() -> None:
        answer = requests.post(f"{gateway.url}/v1/batches/b/jobs", data=slowly(), headers={**NDJSON, **AUTHORIZED})
        summaries.append(json.loads(answer.text.splitlines()[-1])["summary"])

    sender = threading.Thread(target=send)
    sender.start()
    eventually(lambda: queue.status().states[State.QUEUED] == 1)
    problem(gateway("POST", "/v1/batches/c/jobs", data=row(3), headers=NDJSON), 503, "unavailable")
    go_on.set()
    sender.join(10)

    assert summaries[0]["new"] == 2
    eventually(lambda: gateway("POST", "/v1/batches/c/jobs", data=row(3), headers=NDJSON).status_code == 200)


def test_redis_going_away_in_the_middle_is_told_at_the_end(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken stands in the sums; that not all was taken does too."""
    real = VoiceQueue.enqueue_at_once
    calls: list[int] = []

    def once(self: VoiceQueue, jobs: Any) -> Any:
        calls.append(len(jobs))
        if len(calls) > 1:
            VoiceQueue("redis://127.0.0.1:1/0").status()
        return real(self, jobs)

    monkeypatch.setattr(VoiceQueue, "enqueue_at_once", once)

    outcomes, summary = sent(gateway, b"".join(map(row, range(700))))

    assert len(outcomes) == 500
    assert (summary["complete"], summary["new"]) == (False, 500)
    assert (summary["problem"]["status"], summary["problem"]["code"]) == (503, "store_unreachable")


def test_a_batch_is_set_up_before_its_rows_come(gateway: Gateway, queue: VoiceQueue) -> None:
    """Who is told of it, and its limits; what is not named stays as it is."""
    url = "https://shop.example/told"
    for settings in ({"callback_url": url, "max_credits": 100}, {"max_in_flight": 2}, {}):
        assert gateway("PATCH", "/v1/batches/spring", json=settings).status_code == 204
    queue.enqueue({"audio_url": "https://a.example/a.wav", "batch": "spring"})

    batch = queue.batch("spring")
    assert (batch.max_credits, batch.max_in_flight) == (100, 2)
    queue.cancel(next(queue.jobs(batch="spring")).id)
    assert [each.type for each in queue.callbacks()] == ["batch.settled"]

    assert gateway("PATCH", "/v1/batches/spring", json={"callback_url": None}).status_code == 204
    queue.cancel(queue.enqueue({"audio_url": "https://a.example/b.wav", "batch": "spring"}).id)
    assert len(list(queue.callbacks())) == 1


def test_what_a_batch_cannot_be_set_to_is_told(gateway: Gateway) -> None:
    """By its field."""
    answer = gateway("PATCH", "/v1/batches/spring", json={"callback_url": "ftp://x", "max_in_flight": 0, "pace": 1})

    assert answer.status_code == 422
    assert {error["field"] for error in answer.json()["errors"]} == {"callback_url", "max_in_flight", "pace"}
