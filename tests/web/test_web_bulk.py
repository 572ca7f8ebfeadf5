"""Row uploads: rows stream in, results stream out; and settings of batches."""

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
from workers.gateway import response_spool
from workers.gateway.api import row_uploads
from workers.gateway.server.connections import ServerLimits

pytestmark = pytest.mark.shared_gateway

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
AUTHORIZED = {"Authorization": f"Bearer {KEYS['all'][0]}"}


def row(number: int, **fields: Any) -> bytes:
    """Return a row as a line of JSON."""
    return json.dumps({"audio_url": f"https://recordings.example/{number}.wav", **fields}).encode() + b"\n"


def sent(gateway: Gateway, body: Any, headers: dict[str, str] = NDJSON, query: str = "") -> tuple[list[Any], Any]:
    """Upload rows; return their results and the summary."""
    answer = gateway("POST", f"/v1/batches/b/jobs{query}", data=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *outcomes, last = (json.loads(line) for line in answer.text.splitlines())
    return outcomes, last["summary"]


def test_every_row_has_a_result(gateway: Gateway, queue: VoiceQueue) -> None:
    """Results are in the order of rows: new, known, invalid fields, key conflict; then the summary."""
    queue.enqueue(voice(batch="b", key="taken"))
    body = b"".join(
        [row(1), row(1), row(2, name=""), b"{\n", b"\n", row(3, key="taken"), row(4, song={"prompt": "la"})]
    )

    outcomes, summary = sent(gateway, body)

    ids = [job.id for job in queue.jobs(batch="b")][1:]
    assert [(outcome["line"], outcome["outcome"]) for outcome in outcomes] == [
        (1, "new"),
        (2, "existing"),
        (3, "rejected"),
        (4, "rejected"),
        (6, "rejected"),
        (7, "new"),
    ]
    assert [outcomes[place]["id"] for place in (0, 1, 5)] == [ids[0], ids[0], ids[1]]
    assert [error["field"] for place in (2, 3, 4) for error in outcomes[place]["errors"]] == ["name", "", "key"]
    assert summary == {"complete": True, "new": 2, "existing": 1, "rejected": 3, "credits": 23}


def test_csv_is_read_as_by_the_command_line(gateway: Gateway, queue: VoiceQueue) -> None:
    """Any delimiter, flat songs and metadata are accepted; the same file again adds nothing."""
    body = "audio_url;name;prompt;metadata.customer\nhttps://recordings.example/a.wav;Åse;la la;17\n".encode()

    first, again = sent(gateway, body, CSV)[1], sent(gateway, body, CSV)[1]

    [job] = queue.jobs(batch="b")
    assert (job.spec.name, job.spec.metadata) == ("Åse", {"customer": "17"})
    assert job.spec.song is not None
    assert (first["new"], first["credits"], again["new"], again["existing"]) == (1, 19, 0, 1)


def test_a_json_array_is_read_as_by_the_command_line(gateway: Gateway, queue: VoiceQueue) -> None:
    """Indented or not; each element has the line of its start."""
    outcomes, summary = sent(gateway, json.dumps([{"audio_url": URL}, {}], indent=1).encode())

    assert [(outcome["line"], outcome["outcome"]) for outcome in outcomes] == [(2, "new"), (5, "rejected")]
    assert (summary["complete"], len(list(queue.jobs(batch="b")))) == (True, 1)


def test_results_can_be_limited_to_rejected_rows(gateway: Gateway) -> None:
    """The summary counts all rows."""
    outcomes, summary = sent(gateway, row(1) + b"{}\n", query="?outcomes=rejected")

    assert [outcome["line"] for outcome in outcomes] == [2]
    assert summary["new"] == 1


def test_an_empty_body_is_unreadable(gateway: Gateway) -> None:
    """It cannot be distinguished from a CSV without a header."""
    problem(gateway("POST", "/v1/batches/b/jobs", data=b"", headers=NDJSON), 422, "unreadable")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("b", b"PK\x03\x04 a workbook", CSV, 422, "unreadable"),
        ("b", b"%PDF-1.7", NDJSON, 422, "unreadable"),
        ("b", b"name\nAna\n", CSV, 422, "unreadable"),
        ("b", b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ("b", b"{}", {**NDJSON, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ("a%20b", b"{}", NDJSON, 422, "invalid"),
    ],
)
def test_an_unreadable_body_is_a_problem(
    gateway: Gateway, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Nothing is enqueued."""
    problem(gateway("POST", f"/v1/batches/{path}/jobs", data=body, headers=headers), status, code)


def test_a_very_long_row_uses_little_memory(gateway: Gateway) -> None:
    """It is rejected, and the rows after it are enqueued, in both formats."""
    long = b'{"audio_url": "' + b"x" * (2 * ROW_MAX) + b'"}\n'
    lines, _ = sent(gateway, row(1) + long + row(2))
    quoted = b'audio_url,name\n"' + b"x" * (2 * ROW_MAX) + f'"\n{URL},Ana\n'.encode()
    cells, _ = sent(gateway, quoted, CSV)

    assert [(outcome["line"], outcome["outcome"]) for outcome in lines] == [(1, "new"), (2, "rejected"), (3, "new")]
    assert [(outcome["line"], outcome["outcome"]) for outcome in cells] == [(2, "rejected"), (3, "new")]


# ── while it streams ──────────────────────────────────────────────────────────────────────────────


def test_results_are_sent_while_rows_are_still_received(gateway: Gateway) -> None:
    """A received row does not wait for the next one."""
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as raw:
        head = "POST /v1/batches/b/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        key = AUTHORIZED["Authorization"]
        raw.sendall(f"{head}Authorization: {key}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        received = b""
        for number in (1, 2):
            line = row(number)
            raw.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while b'"line": %d' % number not in received:
                piece = raw.recv(65_536)
                assert piece
                received += piece
        raw.sendall(b"0\r\n\r\n")
        while b"summary" not in received:
            received += raw.recv(65_536)


@pytest.mark.endurance
def test_a_client_may_send_everything_before_it_reads(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most clients do so. Unread results are kept on disk, not in memory."""
    monkeypatch.setattr(response_spool, "MEMORY_MAX_BYTES", 4_096)
    bad = json.dumps({"audio_url": "x" * 60}).encode() + b"\n"

    def rows() -> Iterator[bytes]:
        for _ in range(400):
            yield bad * 100

    outcomes, summary = sent(gateway, rows())

    assert (len(outcomes), summary["rejected"]) == (40_000, 40_000)


def test_a_truncated_row_is_not_enqueued(gateway: Gateway, queue: VoiceQueue) -> None:
    """If the client disconnects within a row, only the rows before it are enqueued."""
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as raw:
        head = (
            "POST /v1/batches/b/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nContent-Length: 9999\r\n"
        )
        raw.sendall(f"{head}Authorization: {AUTHORIZED['Authorization']}\r\n\r\n".encode())
        raw.sendall(f"audio_url,name\n{URL},Ana\n{URL},An".encode())
        received = b""
        while b'"outcome": "new"' not in received:
            received += raw.recv(65_536)

    eventually(lambda: queue.status().states[State.QUEUED] == 1)
    assert sent(gateway, row(1))[1]["new"] == 1
    assert [job.spec.name for job in queue.jobs(batch="b")] == ["Ana", None]


def test_uploads_beyond_the_limit_are_refused(
    build_gateway: Build, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each upload has a thread. When one has ended, another is accepted."""
    monkeypatch.setattr(row_uploads, "MAX_UPLOADS", 1)
    gateway = build_gateway(ServerLimits())
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


def test_an_outage_during_an_upload_is_reported_in_the_summary(
    gateway: Gateway, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary counts the enqueued rows and says that it is not complete."""
    real = VoiceQueue.enqueue_many
    calls: list[int] = []

    def once(self: VoiceQueue, jobs: Any, **options: Any) -> Any:
        calls.append(len(jobs))
        if len(calls) > 1:
            VoiceQueue("redis://127.0.0.1:1/0", namespace="*").status()
        return real(self, jobs, **options)

    monkeypatch.setattr(VoiceQueue, "enqueue_many", once)

    outcomes, summary = sent(gateway, b"".join(map(row, range(700))))

    assert len(outcomes) == 500
    assert (summary["complete"], summary["new"]) == (False, 500)
    assert (summary["problem"]["status"], summary["problem"]["code"]) == (503, "store_unavailable")


def test_a_batch_is_configured_before_it_has_jobs(gateway: Gateway, queue: VoiceQueue) -> None:
    """Callback and limits are set; omitted fields keep their value."""
    url = "https://shop.example/callbacks"
    for settings in ({"callback_url": url, "max_credits": 100}, {"max_in_flight": 2, "stop_after": 0.2}, {}):
        assert gateway("PATCH", "/v1/batches/spring", json=settings).status_code == 200
    queue.enqueue({"audio_url": "https://a.example/a.wav", "batch": "spring"})

    batch = queue.batch("spring")
    assert (batch.max_credits, batch.max_in_flight) == (100, 2)
    assert (batch.stop_after, batch.stop_min, batch.stop) == (0.2, 20, None)
    queue.cancel(next(queue.jobs(batch="spring")).id)
    assert [callback.type for callback in queue.callbacks()] == ["batch.settled"]

    assert gateway("PATCH", "/v1/batches/spring", json={"callback_url": None}).status_code == 200
    queue.cancel(queue.enqueue({"audio_url": "https://a.example/b.wav", "batch": "spring"}).id)
    assert len(list(queue.callbacks())) == 1


def test_invalid_settings_of_a_batch_are_named(gateway: Gateway) -> None:
    """The errors name the fields."""
    settings = {"callback_url": "ftp://x", "max_in_flight": 0, "pace": 1, "stop_after": 20, "stop_min": 0}
    answer = gateway("PATCH", "/v1/batches/spring", json=settings)

    assert answer.status_code == 422
    assert {error["field"] for error in answer.json()["errors"]} == settings.keys()
