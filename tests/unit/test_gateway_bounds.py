"""What the gateway's bounds come to: places, pace, descriptors, the spool."""

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

from voicequeue import VoiceQueue
from workers.gateway.api import events, row_uploads
from workers.gateway.api.row_intake import Intake
from workers.gateway.api.upload_budget import Pace
from workers.gateway.outbox import SPOOL_MAX, Closed, Outbox
from workers.gateway.problems import Refusal
from workers.gateway.server.concurrency import Places
from workers.gateway.server.connections import Bounds, address
from workers.gateway.server.large_responses import AT_ONCE, OF_ONE, Large


def held(places: Places, caller: str) -> int:
    """How many places a caller gets who takes all it can get."""
    count = 0
    while True:
        try:
            places.take(caller)
        except Refusal:
            return count
        count += 1


def test_one_caller_gets_a_part_and_each_further_one_a_part_of_the_rest() -> None:
    """So that places are left for those who come next; what is given back may be taken again."""
    uploads = Places(row_uploads.AT_ONCE, share=row_uploads.SHARE, what="uploads")
    streams = Places(events.FOLLOWERS_MAX, share=events.SHARE, what="streams")

    assert held(streams, "a") == 50
    assert [held(uploads, caller) for caller in "abcd"] == [4, 2, 1, 1]
    with pytest.raises(Refusal) as refused:
        uploads.take("e")
    assert refused.value.status_code == 503
    uploads.free("d")
    with pytest.raises(Refusal) as refused:
        uploads.take("a")
    assert refused.value.status_code == 429
    uploads.take("e")


def test_a_sender_is_waited_for_as_long_as_it_sends_enough() -> None:
    """At the least rate for ever; below it until the window is used up, however much came before."""
    steady, dripping = Pace(least_rate=1_000, window_s=30), Pace(least_rate=1_000, window_s=30)
    for _ in range(1_000):
        steady.spend(20)
        steady.earn(20_000)
    dripping.earn(10**9)
    for _ in range(31):
        dripping.spend(1)
        dripping.earn(1)

    assert steady.left_s == 30
    assert dripping.left_s < 0


@pytest.mark.parametrize("descriptors", [128, 256, 1_024, 4_096, 65_536, 1_048_576])
def test_descriptors_are_enough_for_all_that_is_let_in(descriptors: int) -> None:
    """Connections that wait, answers with a file each, what the kernel hands over at once; a quarter stays for us."""
    bounds = Bounds.of(descriptors)

    assert 3 * bounds.places + bounds.backlog + min(descriptors // 4, 192) <= descriptors
    assert bounds.places >= 8
    assert 2 <= bounds.part(row_uploads.AT_ONCE) <= bounds.part(events.FOLLOWERS_MAX) <= bounds.places / 4
    assert descriptors < 4_096 or bounds.part(events.FOLLOWERS_MAX) == events.FOLLOWERS_MAX


def test_addresses_of_one_customer_count_as_one() -> None:
    """Of IPv6 everybody has a network of them."""
    assert address("2001:db8:1:2::1") == address("2001:db8:1:2:ffff::9") != address("2001:db8:1:3::1")
    assert [address(host) for host in ("192.0.2.7", "", "unix")] == ["192.0.2.7", "", "unix"]


def test_the_spool_is_a_ring_that_loses_nothing() -> None:
    """Whatever comes in whatever pieces, however slowly it is taken: no more than its room is ever kept."""
    sure = random.Random(7)
    written = [sure.randbytes(sure.randrange(1, 3_000)) for _ in range(400)]

    async def through() -> bytes:
        outbox, kept, read = Outbox(room=5_000), [], bytearray()

        def fill() -> None:
            for data in written:
                outbox.put(data)
                kept.append(outbox._spool.seek(0, 2))
            outbox.end()

        thread = threading.Thread(target=fill)
        thread.start()
        async for piece in outbox.pieces():
            read += piece
            await asyncio.sleep(0)
        thread.join()
        assert max(kept) <= 5_000
        outbox.close()
        return bytes(read)

    assert asyncio.run(through()) == b"".join(written)


def test_a_thread_that_waits_for_room_gives_up_when_the_client_is_gone() -> None:
    """And takes no thread with it for ever."""

    async def gone() -> None:
        outbox, ended = Outbox(room=10), asyncio.Event()
        loop = asyncio.get_running_loop()

        def fill() -> None:
            with pytest.raises(Closed):
                outbox.put(b"x" * 11)
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=fill).start()
        while outbox._unsent < 10:
            await asyncio.sleep(0.001)
        outbox.stop()
        await asyncio.wait_for(ended.wait(), 5)
        outbox.close()

    asyncio.run(gone())


def test_the_spool_has_room_for_what_100_000_rows_come_to() -> None:
    """A client may send them all before it reads a line."""
    taken = '{"line": 100000, "outcome": "new", "id": "k5v2yj3q7m6xw4ra"}\n'
    wrong = '{"line": 100000, "outcome": "rejected", "errors": [{"field": "song.prompt", "message": "%s"}]}\n'

    assert 100_000 * len(taken) < SPOOL_MAX
    assert 100_000 * len(wrong % ("m" * 200)) < SPOOL_MAX


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────


class Unasked:
    """A queue into which no row comes."""

    def enqueue_at_once(self, jobs: list[Any]) -> list[Any]:
        """As the queue has it."""
        assert not jobs
        return []


async def taken(rows: Iterable[bytes]) -> list[Any]:
    """What an upload of these rows is answered."""
    coming = iter(rows)

    async def receive() -> Message:
        body = next(coming, None)
        return {"type": "http.request", "body": body or b"", "more_body": body is not None}

    outbox = Outbox()
    await asyncio.to_thread(Intake(cast(VoiceQueue, Unasked()), "b", receive, outbox, all_told=True).run)
    answered = b"".join([piece async for piece in outbox.pieces()])
    outbox.close()
    return [json.loads(line) for line in answered.splitlines()]


MANY_FIELDS = json.dumps({f"k{number}": 1 for number in range(9_000)}).encode() + b"\n"
MANY_CELLS = b"," * 120_000 + b"x\n"


@pytest.mark.parametrize(
    "rows",
    [[MANY_FIELDS] * 30, [b"audio_url\n", *[MANY_CELLS] * 30]],
    ids=["many fields", "many cells"],
)
def test_of_a_rejected_row_nothing_is_held_but_what_is_wrong_with_it(rows: list[bytes]) -> None:
    """An upload holds what one row takes while it is read, however many are rejected together."""
    tracemalloc.start()
    try:
        answered = asyncio.run(taken(rows))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert answered[-1]["summary"]["rejected"] >= 30
    assert most < 12 << 20


# ── large answers ─────────────────────────────────────────────────────────────────────────────────


def test_few_large_answers_are_made_at_once_and_one_key_leaves_places_to_others() -> None:
    """However many it asks for; each of them is answered in its turn."""
    making: list[str] = []
    most: list[tuple[int, int]] = []
    go_on = threading.Event()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def asked(large: Large, caller: str) -> bytes:
        def make() -> str:
            making.append(caller)
            most.append((len(making), making.count("greedy")))
            assert caller == "other" or go_on.wait(10)
            making.remove(caller)
            return caller

        request = Request({"type": "http", "state": {"who": caller}}, receive)
        return bytes((await large.answer(request, make)).body)

    async def main() -> list[bytes]:
        large = Large()
        greedy = [asyncio.create_task(asked(large, "greedy")) for _ in range(20)]
        for _ in range(3 * AT_ONCE):
            assert await asyncio.wait_for(asked(large, "other"), 10) == b'"other"'
        go_on.set()
        return await asyncio.gather(*greedy)

    assert asyncio.run(main()) == [b'"greedy"'] * 20
    assert max(of_one for _, of_one in most) == OF_ONE
    assert max(of_all for of_all, _ in most) <= AT_ONCE
