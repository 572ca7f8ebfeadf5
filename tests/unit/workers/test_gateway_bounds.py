"""The gateway's bounds: places, minimum rates, descriptors, the spool."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import tracemalloc
from collections.abc import Iterable
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.types import Message

from voicequeue import ApiKey, VoiceQueue
from workers.gateway.api import events, row_uploads
from workers.gateway.api.row_intake import RowIntake
from workers.gateway.api.upload_budget import UploadBudget
from workers.gateway.problems import ProblemError
from workers.gateway.response_spool import SPOOL_MAX_BYTES, ResponseClosed, ResponseSpool
from workers.gateway.security.admission import Admission
from workers.gateway.server.concurrency import ConcurrencyLimit
from workers.gateway.server.connections import ServerLimits, client_of
from workers.gateway.server.large_responses import MAX_BUILDS, MAX_BUILDS_PER_KEY, LargeResponses


def places_for(places: ConcurrencyLimit, caller: str) -> int:
    """Take as many places as a caller gets; return their number."""
    count = 0
    while True:
        try:
            places.acquire(caller)
        except ProblemError:
            return count
        count += 1


def test_each_caller_gets_a_share_of_the_remaining_places() -> None:
    """So places are left for later callers; freed places can be taken again."""
    uploads = ConcurrencyLimit(row_uploads.MAX_UPLOADS, share=row_uploads.UPLOAD_SHARE, what="uploads")
    streams = ConcurrencyLimit(events.MAX_STREAMS, share=events.STREAM_SHARE, what="streams")

    assert places_for(streams, "a") == 50
    assert [places_for(uploads, caller) for caller in "abcd"] == [4, 2, 1, 1]
    with pytest.raises(ProblemError) as raised:
        uploads.acquire("e")
    assert raised.value.status_code == 503
    uploads.release("d")
    with pytest.raises(ProblemError) as raised:
        uploads.acquire("a")
    assert raised.value.status_code == 429
    uploads.acquire("e")


def test_a_sender_has_no_timeout_while_it_sends_enough() -> None:
    """At the minimum rate without limit; below it until the window is used up, however much was sent before."""
    steady, dripping = UploadBudget(min_rate=1_000, window_s=30), UploadBudget(min_rate=1_000, window_s=30)
    for _ in range(1_000):
        steady.spend(20)
        steady.earn(20_000)
    dripping.earn(10**9)
    for _ in range(31):
        dripping.spend(1)
        dripping.earn(1)

    assert steady.remaining_s == 30
    assert dripping.remaining_s < 0


@pytest.mark.parametrize("descriptors", [128, 256, 1_024, 4_096, 65_536, 1_048_576])
def test_file_descriptors_suffice_for_all_accepted_connections(descriptors: int) -> None:
    """Waiting connections, responses with a file each, the accept backlog; a quarter is reserved for the process."""
    bounds = ServerLimits.for_descriptors(descriptors)

    assert 3 * bounds.requests + bounds.backlog + min(descriptors // 4, 192) <= descriptors
    assert bounds.requests >= 8
    assert 2 <= bounds.share_of(row_uploads.MAX_UPLOADS) <= bounds.share_of(events.MAX_STREAMS) <= bounds.requests / 4
    assert descriptors < 4_096 or bounds.share_of(events.MAX_STREAMS) == events.MAX_STREAMS


def test_ipv6_addresses_of_one_network_count_as_one() -> None:
    """Every IPv6 customer has a whole network."""
    assert client_of("2001:db8:1:2::1") == client_of("2001:db8:1:2:ffff::9") != client_of("2001:db8:1:3::1")
    assert [client_of(host) for host in ("192.0.2.7", "", "unix")] == ["192.0.2.7", "", "unix"]


def test_the_spool_is_a_ring_buffer_without_loss() -> None:
    """For any sizes of pieces and a slow reader: it never exceeds its capacity."""
    chance = random.Random(7)
    written = [chance.randbytes(chance.randrange(1, 3_000)) for _ in range(400)]

    async def through() -> bytes:
        outbox, sizes, read = ResponseSpool(max_bytes=5_000), [], bytearray()

        def fill() -> None:
            for data in written:
                outbox.write(data)
                sizes.append(outbox._spool.seek(0, 2))
            outbox.mark_complete()

        thread = threading.Thread(target=fill)
        thread.start()
        async for piece in outbox.chunks():
            read += piece
            await asyncio.sleep(0)
        thread.join()
        assert max(sizes) <= 5_000
        outbox.close()
        return bytes(read)

    assert asyncio.run(through()) == b"".join(written)


def test_a_blocked_writer_ends_when_the_client_disconnects() -> None:
    """Otherwise its thread would be lost."""

    async def disconnect() -> None:
        outbox, ended = ResponseSpool(max_bytes=10), asyncio.Event()
        loop = asyncio.get_running_loop()

        def fill() -> None:
            with pytest.raises(ResponseClosed):
                outbox.write(b"x" * 11)
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=fill).start()
        while outbox._unsent < 10:
            await asyncio.sleep(0.001)
        outbox.stop()
        await asyncio.wait_for(ended.wait(), 5)
        outbox.close()

    asyncio.run(disconnect())


def test_the_spool_has_room_for_the_outcomes_of_100_000_rows() -> None:
    """A client may send all rows before it reads a line."""
    accepted = '{"line": 100000, "outcome": "new", "id": "k5v2yj3q7m6xw4ra"}\n'
    wrong = '{"line": 100000, "outcome": "rejected", "code": "invalid", "errors": [%s]}\n'
    error = '{"field": "song.prompt", "message": "%s"}' % ("m" * 200)

    assert 100_000 * len(accepted) < SPOOL_MAX_BYTES
    assert 100_000 * len(wrong % error) < SPOOL_MAX_BYTES


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────


class EmptyQueue:
    """A queue that must receive no row."""

    def enqueue_many(self, jobs: list[Any], **_: Any) -> None:
        """Accept an empty list only."""
        assert not jobs


async def upload(rows: Iterable[bytes]) -> list[Any]:
    """Return the outcomes of an upload of these rows."""
    remaining = iter(rows)

    async def receive() -> Message:
        body = next(remaining, None)
        return {"type": "http.request", "body": body or b"", "more_body": body is not None}

    outbox = ResponseSpool()
    key = ApiKey("shop", frozenset(), "")
    admission = Admission(key, lambda: key)
    queue = cast(VoiceQueue, EmptyQueue())
    await asyncio.to_thread(RowIntake(queue, "b", receive, outbox, admission=admission, report_all=True).run)
    response = b"".join([piece async for piece in outbox.chunks()])
    outbox.close()
    return [json.loads(line) for line in response.splitlines()]


MANY_FIELDS = json.dumps({f"k{number}": 1 for number in range(9_000)}).encode() + b"\n"
MANY_CELLS = b"," * 120_000 + b"x\n"


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([MANY_FIELDS] * 15, marks=pytest.mark.endurance, id="many fields"),
        pytest.param([b"audio_url\n", *[MANY_CELLS] * 15], id="many cells"),
    ],
)
def test_only_the_errors_of_rejected_rows_are_kept_in_memory(rows: list[bytes]) -> None:
    """An upload needs the memory of one row, however many are rejected."""
    tracemalloc.start()
    try:
        outcomes = asyncio.run(upload(rows))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert outcomes[-1]["summary"]["rejected"] >= 15
    assert peak < 12 << 20


# ── large answers ─────────────────────────────────────────────────────────────────────────────────


def test_few_large_responses_are_built_at_once_and_one_key_leaves_places_to_others() -> None:
    """For any number of requests; each is answered in turn."""
    making: list[str] = []
    most: list[tuple[int, int]] = []
    all_of_one_key = threading.Event()
    release = threading.Event()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def response_for(large: LargeResponses, caller: str) -> bytes:
        def make() -> str:
            making.append(caller)
            most.append((len(making), making.count("greedy")))
            if most[-1][1] == MAX_BUILDS_PER_KEY:
                all_of_one_key.set()
            assert caller == "other" or release.wait(10)
            making.remove(caller)
            return caller

        request = Request({"type": "http", "state": {"caller": caller}}, receive)
        return bytes((await large.respond(request, make)).body)

    async def main() -> list[bytes]:
        large = LargeResponses()
        greedy = [asyncio.create_task(response_for(large, "greedy")) for _ in range(20)]
        for _ in range(3 * MAX_BUILDS):
            assert await asyncio.wait_for(response_for(large, "other"), 10) == b'"other"'
        assert await asyncio.to_thread(all_of_one_key.wait, 10)
        release.set()
        return await asyncio.gather(*greedy)

    assert asyncio.run(main()) == [b'"greedy"'] * 20
    assert max(for_one_key for _, for_one_key in most) == MAX_BUILDS_PER_KEY
    assert max(in_total for in_total, _ in most) <= MAX_BUILDS
