"""Attacks with numbers: thousands of digits, digits of other scripts, and words that Python accepts as numbers."""

from __future__ import annotations

import base64
import json
import logging
import socket
import sys
import time
import warnings
from urllib.parse import urlsplit

import pytest

from tasks.musicapi import responses
from tasks.musicapi.response_body import to_number
from tests.integration.conftest import NOT_READY, Build, voice
from tests.store.conftest import Command
from tests.support.scripted import Request, ScriptedServer, answer
from tests.web.conftest import Build as BuildGateway
from tests.web.conftest import Gateway, problem
from voicequeue import Song, State, UnknownModelWarning, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.domain import song
from voicequeue.net.retry_after import parse_retry_after
from voicequeue.texts import parse_float, parse_int
from workers.gateway.server.connections import ServerLimits

pytestmark = pytest.mark.shared_gateway

URL = "https://recordings.example/a.wav"

#: More digits than Python converts.
LONG = "9" * 5_000
ODD = [LONG, "١٢", "１２", "²", "1_0", "+", "", "nan", "inf", "-inf", "Infinity", "0x1f", "1e9999", "1e99999", "1 2"]


@pytest.mark.parametrize("text", [*ODD, "-1", "1.5", "101", "1e1", " 1"])
def test_a_whole_number_consists_of_a_few_plain_digits(text: str) -> None:
    """Other text that `int()` accepts, or fails on, is rejected."""
    assert parse_int(text, at_most=100) is None
    assert [parse_int(digits, at_most=100) for digits in ("0", "007", "100")] == [0, 7, 100]


@pytest.mark.parametrize("text", ODD)
def test_a_number_is_finite_and_written_in_plain_digits(text: str) -> None:
    """Other text that `float()` accepts is rejected."""
    assert (parse_float(text), to_number(text), parse_retry_after(text, 0.0)) == (None, None, None)
    assert [parse_float(digits) for digits in ("1", "-1.5", ".5", "2.", "+1e3", " 7 ")] == [1, -1.5, 0.5, 2, 1000, 7]


# ── over HTTP ──────────────────────────────────────────────────────────────────────────────────────

BODIES = [
    ("POST", "/v1/jobs", f'{{"audio_url": "{URL}", "max_credits": {LONG}}}'),
    ("POST", "/v1/jobs", f'{{"audio_url": "{URL}", "unknown": [{{"x": {LONG}}}]}}'),
    ("POST", "/v1/cancel", f'{{"filter": {{"since": {LONG}}}}}'),
    ("POST", "/v1/retry", f'{{"token": {LONG}}}'),
    ("PATCH", "/v1/batches/spring", f'{{"max_credits": {LONG}}}'),
]


def test_a_body_with_an_overlong_number_is_unreadable(gateway: Gateway) -> None:
    """400, as for any other invalid JSON."""
    for method, path, body in BODIES:
        sent = gateway(method, path, data=body, headers={"Content-Type": "application/json"})
        problem(sent, 400, "unreadable")
        assert sent.json()["detail"] == "The body is not valid JSON: a number has too many digits."


def test_a_number_out_of_range_is_rejected_by_its_field(gateway: Gateway) -> None:
    """It is stored nowhere; a script would fail on it."""
    for number in ("9" * 4_000, "1e308", "1e999", "1" + "0" * 400):
        for field in ("max_credits", "start_within_s"):
            body = f'{{"audio_url": "{URL}", "{field}": {number}}}'
            sent = gateway("POST", "/v1/jobs", data=body, headers={"Content-Type": "application/json"})
            assert problem(sent, 422, "invalid").keys() == {field}


def test_an_odd_number_in_a_query_or_a_header_is_rejected_by_its_name(gateway: Gateway) -> None:
    """Also as a cursor's score or an event's id."""
    for text in filter(None, ODD):
        place = json.dumps(["state:queued", "a", text]).encode()
        cursor = base64.urlsafe_b64encode(place[:300]).decode().rstrip("=")
        event = {"Last-Event-ID": f"{text}-0".encode()}

        if "_" not in text:
            assert problem(gateway("GET", "/v1/jobs", params={"limit": text}), 422, "invalid").keys() == {"limit"}
        assert problem(gateway("GET", "/v1/jobs", params={"cursor": cursor}), 422, "invalid").keys() == {"cursor"}
        assert problem(gateway("GET", "/v1/events", headers=event), 422, "invalid").keys() == {"Last-Event-ID"}


def test_an_invalid_content_length_is_a_client_error(gateway: Gateway) -> None:
    """It is rejected, and the next request is answered."""
    for length in (LONG, "\xb2", "1_0", "+1", "-1"):
        assert _status_of_a_body_as_long_as(gateway, length).startswith("4"), length
    assert gateway("GET", "/v1/status").status_code == 200


def _status_of_a_body_as_long_as(gateway: Gateway, length: str) -> str:
    at = urlsplit(gateway.url)
    lines = [
        "POST /v1/jobs HTTP/1.1",
        f"Host: {at.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    head = "\r\n".join([*lines, "", ""])
    with socket.create_connection((at.hostname, at.port or 0), timeout=10) as connection:
        connection.sendall(head.encode("latin-1"))
        return connection.recv(65_536).decode().split(" ")[1]


def test_the_limits_on_the_page_accept_only_plain_digits(local: Gateway, queue: VoiceQueue) -> None:
    """Other input is rejected, and nothing changes."""
    before = queue.limits()
    page = local("GET", "/controls", key=None).text
    token = page.partition('name="token" value="')[2].partition('"')[0]

    for text in (odd for odd in ODD if odd):
        sent = local("POST", "/do/limits", key=None, data={"token": token, "in_flight": text})
        assert sent.status_code == 422, text
    assert queue.limits() == before


# ── rows ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_with_an_overlong_number_is_rejected_alone(gateway: Gateway, queue: VoiceQueue) -> None:
    """The rows around it are accepted."""
    numbers = {"a": "9", "b": LONG, "c": "9"}
    rows = [f'{{"audio_url": "{URL}", "name": "{name}", "max_credits": {n}}}' for name, n in numbers.items()]

    sent = gateway("POST", "/v1/batches/b/jobs", data="\n".join(rows), headers={"Content-Type": "application/x-ndjson"})

    outcomes = [json.loads(line) for line in sent.text.splitlines()]
    assert outcomes[1]["errors"][0]["message"] == "not readable as JSON: a number has too many digits"
    assert [line.get("outcome") for line in outcomes] == ["new", "rejected", "new", None]
    assert [job.spec.name for job in queue.jobs(batch="b")] == ["a", "c"]


def test_rows_with_odd_numbers_in_cells_are_rejected_alone(command: Command, queue: VoiceQueue) -> None:
    """All cells are texts; only plain digits are numbers."""
    rows = [f"{URL},{place},{text},,la" for place, text in enumerate(ODD) if text and text != "+"]
    rows += [f"{URL},weight {text},,{text},la" for text in ("0_1", "٠", "nan")]
    file = "\n".join(["audio_url,name,max_credits,style_weight,prompt", *rows, f"{URL},good, 50 ,0.5,la\n"])

    ended = command("ingest", "-", "--batch", "b", "--json", stdin=file.encode())

    assert (ended.json()["new"], ended.json()["rejected"]) == (1, len(rows))
    assert [(job.spec.name, job.spec.max_credits) for job in queue.jobs(batch="b")] == [("good", 50)]


# ── upstream ───────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_with_an_overlong_number_is_unreadable_and_ends_nothing(build_bench: Build) -> None:
    """In answer to an order it is kept for review; in answer to a poll the poll is repeated."""
    endless = f'{{"code": 200, "task_id": "t1", "credits": {LONG}}}'

    def script(request: Request) -> list[bytes]:
        if request.method == "POST":
            return [answer(endless if "anna" in request.json()["audio_url"] else {"task_id": "t2"})]
        return [answer(endless)]

    with ScriptedServer(script) as upstream:
        bench = build_bench(upstream.url)
        anna, bea = bench.admitted(voice("anna"), voice("bea"))
        bench.submit(bench.job(anna).stage, [anna, bea])
        bench.poll_when_due([bea])

    assert (bench.job(anna).state, bench.job(bea).state) == (State.UNSURE, State.PENDING)
    assert (bench.job(anna).unreadable_response or "").startswith('{"code": 200, "task_id": "t1"')


def test_an_impossible_balance_is_ignored() -> None:
    """Larger than a script can count."""
    assert [responses.account_credits({"credits": credits}) for credits in (10**300, -(10**300), 1e300)] == [None] * 3
    assert responses.account_credits({"credits": 10**6, "extra_credits": 5}) == 10**6 + 5


def test_a_webhook_with_an_overlong_number_still_triggers_a_poll(
    build_bench: Build, build_gateway: BuildGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was signed; its content is not trusted anyway."""
    monkeypatch.setattr("workers.gateway.app._poll_now", lambda *_: None)
    secret = "a secret of forty characters for a queue."
    gateway = build_gateway(ServerLimits(), secret=secret)
    with ScriptedServer(
        lambda request: [answer({"task_id": "t1"} if request.method == "POST" else NOT_READY)]
    ) as upstream:
        [job_id] = build_bench(upstream.url).submitted(voice())
    body, at = f'{{"task_id": {LONG}}}'.encode(), str(int(time.time()))
    own = signatures.webhook_secret(secret, job_id)
    token = signatures.webhook_token(secret, job_id, "voice", 1)
    for stamp, status in ((at, 200), (LONG, 401), ("١٢", 401)):
        sent = gateway(
            "POST",
            f"/hooks/musicapi/{job_id}/voice?attempt=1&token={token}",
            key=None,
            data=body,
            headers={
                "X-Webhook-Timestamp": stamp.encode(),
                "X-Webhook-Signature": signatures.sign_as_upstream(own, stamp, body),
            },
        )
        assert sent.status_code == status, sent.text


# ── made-up models ─────────────────────────────────────────────────────────────────────────────────


def test_ten_thousand_made_up_models_fill_neither_memory_nor_logs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process warns of the first few; Python would remember each text."""
    monkeypatch.setattr(song, "_warned", set())

    def registered_warnings() -> int:
        return sum(len(getattr(module, "__warningregistry__", None) or ()) for module in list(sys.modules.values()))

    before = registered_warnings()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("default", UnknownModelWarning)
        logging.captureWarnings(capture=True)
        try:
            for number in range(10_000):
                Song(mv=f"sonic-v{number}x", prompt="la")
        finally:
            logging.captureWarnings(capture=False)

    lines = [record for record in caplog.records if record.name == "py.warnings"]
    assert 1 <= len(lines) <= song.WARNED_MAX
    assert registered_warnings() - before <= song.WARNED_MAX + 1
