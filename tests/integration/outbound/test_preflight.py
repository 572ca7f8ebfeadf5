"""Recordings on a real server, good and bad: each is looked at as upstream would, politely and in bounded time."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

import pytest

from tests.support.recordings import mp3, redirect, sent, serving, wav, xing
from tests.support.scripted import HANG_UP, Request, Script, Scripted
from voicequeue import UnfitAudio
from voicequeue.ingest.audio import Audio
from voicequeue.ingest.preflight import Preflight, Recordings, Rules
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Times

HERE = Allowed.of("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOW")
HASTY = Times(connect_s=1.0, whole_s=3.0, answer_s=0.4, least_speed=8_000, slow_s=0.3)
RULES = Rules(allowed=HERE, times=HASTY, max_bytes=2_000_000, max_s=60.0, again_s=0.01)

GOOD = wav(12)


def looked_at(file: bytes | Iterable[bytes] | Script, rules: Rules = RULES) -> Audio:
    """What a server's answer is."""
    with serving({"/a.mp3": file}) as server:
        return Recordings(rules).look(f"{server.url}/a.mp3")


def dripping(start: bytes, drip: bytes = b"\0", every_s: float = 0.05) -> Script:
    """A script that sends the start, and then a byte now and then."""

    def script(_: Request) -> Iterator[bytes]:
        yield start
        for piece in repeat(drip, 200):
            time.sleep(every_s)
            yield piece

    return script


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"

# ── what is good ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", [GOOD, mp3(12), xing(459, 459 * 417) + mp3(12)], ids=["WAV", "MP3", "MP3 with Info"])
def test_a_good_recording_is_read_to_its_end(file: bytes) -> None:
    """Its length, size and hash are known then."""
    found = looked_at(sent(file, "Content-Type: text/html"))

    assert (found.size, found.sha256) == (len(file), hashlib.sha256(file).hexdigest())
    assert found.seconds == pytest.approx(12, abs=0.05)


def test_redirects_are_followed() -> None:
    """Relative and absolute ones, as often as five times."""
    paths = {f"/{n}": redirect(f"/{n + 1}") for n in range(5)} | {"/5": sent(GOOD)}

    with serving(paths) as server:
        assert Recordings(RULES).look(f"{server.url}/0").size == len(GOOD)


def test_what_was_packed_for_the_way_is_unpacked() -> None:
    """The hash is that of the recording, whatever the server does."""
    found = looked_at(sent(gzip.compress(GOOD), "Content-Encoding: gzip"))

    assert found.sha256 == hashlib.sha256(GOOD).hexdigest()


def test_pieces_of_unknown_number_are_a_recording_too() -> None:
    """Chunked, without a Content-Length."""
    halves = (GOOD[:20_000], GOOD[20_000:], b"")
    chunks = (b"%x\r\n%s\r\n" % (len(piece), piece) for piece in halves)

    assert looked_at([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks]).size == len(GOOD)


# ── what is bad ───────────────────────────────────────────────────────────────────────────────────

PAGE = b"<!doctype html><html><body>Please sign in</body></html>"
BAD: dict[str, tuple[bytes | Iterable[bytes] | Script, str, str]] = {
    "not there": (sent(b"", status="404 Not Found"), "http_error", "HTTP 404: nothing is there"),
    "not public": (sent(PAGE, status="403 Forbidden"), "http_error", "HTTP 403: it is not public"),
    "no content": (sent(b"", status="206 Partial Content"), "http_error", "HTTP 206"),
    "HTML": (sent(PAGE, "Content-Type: audio/mpeg"), "wrong_format", "not MP3 or WAV: it is an HTML page"),
    "Ogg": (sent(b"OggS" + bytes(5_000)), "wrong_format", "not MP3 or WAV: it is an Ogg file"),
    "short": (sent(wav(5)), "too_short", "5.0 s long; more than 10 s are needed"),
    "exactly 10 s": (sent(wav(10)), "too_short", "10.0 s long; more than 10 s are needed"),
    "long": (sent(wav(61)), "too_long", "61.0 s long; at most 60 s are taken"),
    "truncated MP3": (sent((xing(459, 459 * 417) + mp3(12))[:90_000]), "truncated", "truncated MP3: its header"),
    "truncated WAV": (sent(GOOD[:-9_000]), "truncated", "truncated WAV: its header"),
    "cut": (
        [sent(GOOD, length=60_000), HANG_UP],
        "truncated",
        "truncated: the connection ended after 48,044 of 60,000 bytes",
    ),
    "private": (redirect("http://10.0.0.1/a.mp3"), "forbidden_address", "redirected: its host leads to a private"),
    "metadata": (
        redirect("http://169.254.169.254/"),
        "forbidden_address",
        "redirected: its host leads to a link-local",
    ),
    "no URL": (redirect("file:///etc/passwd"), "forbidden_address", "redirected: the URL is neither http:// nor"),
    "a loop": (redirect("/a.mp3"), "redirects", "more than 5 redirects"),
    "told to be huge": (HEADERS.replace(b"1000000", b"9000000"), "too_large", "larger than 2,000,000 bytes"),
    "huge": (chain([b"HTTP/1.1 200 OK\r\n\r\n", GOOD], repeat(bytes(65_536))), "too_large", "2,000,000"),
    "a bomb": (
        sent(gzip.compress(GOOD[:44] + bytes(9_000_000)), "Content-Encoding: gzip"),
        "too_large",
        "larger than 2,000,000 bytes",
    ),
    "brotli": (sent(GOOD, "Content-Encoding: br"), "wrong_format", "the Content-Encoding 'br'"),
    "no gzip": (sent(GOOD, "Content-Encoding: gzip"), "wrong_format", "cannot be unpacked"),
    "half a gzip": (sent(gzip.compress(GOOD)[:-9], "Content-Encoding: gzip"), "truncated", "the connection ended"),
    "nothing": (sent(b""), "wrong_format", "it is an empty file"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "unreachable", "no answer: BadStatusLine"),
    "drips": (dripping(HEADERS + GOOD[:2_000]), "too_slow", "too slow: less than 8 kB a second came for 0.3 s"),
    "stalls": (dripping(HEADERS + GOOD, every_s=0.6), "too_slow", "too slow"),
    "headers that drip": (dripping(b"HTTP/1.1 200 OK\r\n", b"a"), "unreachable", "no answer within 0.4 s"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name: str) -> None:
    """In plain words, and by a word to count by; in seconds, whatever the server does."""
    file, kind, reason = BAD[name]
    begun = time.monotonic()

    with pytest.raises(UnfitAudio) as caught:
        looked_at(file)

    assert (caught.value.kind, reason in caught.value.reason) == (kind, True), caught.value
    assert time.monotonic() - begun < 2


def test_a_private_address_is_not_connected_to() -> None:
    """Unless the setting that the reason names allows it."""
    with serving({"/a.mp3": sent(GOOD)}) as server:
        with pytest.raises(UnfitAudio, match="leads to a loopback address, which VOICEQUEUE_AUDIO_ALLOW does not name"):
            Recordings(Rules(times=HASTY)).look(f"{server.url}/a.mp3")
        assert server.accepted == 0


@pytest.mark.parametrize(
    "first",
    [sent(b"", status="503 Service Unavailable"), sent(GOOD, length=60_000), b"\r\n"],
    ids=["503", "cut", "no HTTP"],
)
def test_trouble_that_passes_does_not_count(first: bytes) -> None:
    """It is tried once more."""

    answers = chain([first], repeat(sent(GOOD)))

    assert looked_at(lambda _: [next(answers), HANG_UP]).size == len(GOOD)


def test_who_says_when_to_come_again_is_taken_at_their_word() -> None:
    """A host that wants to be asked less often is."""
    answers = chain([sent(b"", "Retry-After: 1", status="429 Too Many Requests")], repeat(sent(GOOD)))
    begun = time.monotonic()

    assert looked_at(lambda _: [next(answers)]).size == len(GOOD)
    assert time.monotonic() - begun >= 1


def test_trouble_that_stays_counts() -> None:
    """After two tries."""
    with serving({"/a.mp3": sent(b"", status="503 Service Unavailable")}) as server:
        with pytest.raises(UnfitAudio, match="HTTP 503"):
            Recordings(RULES).look(f"{server.url}/a.mp3")
        assert len(server.requests) == 2


def test_what_is_no_trouble_but_wrong_is_not_tried_again() -> None:
    """404 is 404."""
    with serving({}) as server:
        with pytest.raises(UnfitAudio, match="HTTP 404"):
            Recordings(RULES).look(f"{server.url}/a.mp3")
        assert len(server.requests) == 1


# ── many ──────────────────────────────────────────────────────────────────────────────────────────


class Crowd:
    """A script that counts how many requests are answered at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, _: Request) -> Iterator[bytes]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self._lock:
            self.now -= 1
        yield sent(GOOD)


def each(server: Scripted, paths: Iterable[str], rules: Rules = RULES) -> list[Audio | UnfitAudio | None]:
    """What is found there, in the order of the paths."""
    with Preflight(rules) as preflight:
        return [found for _, found in preflight.each(paths, lambda path: f"{server.url}{path}" if path else None)]


def test_they_come_in_the_order_they_were_given() -> None:
    """However long each takes; what has no recording passes."""

    def slow(_: Request) -> Iterator[bytes]:
        time.sleep(0.2)
        yield sent(GOOD)

    with serving({"/slow": slow, "/a": sent(wav(11)), "/b": sent(wav(5))}) as server:
        found = each(server, ["/slow", "/a", "", "/b"])

    assert [each.seconds if isinstance(each, Audio) else each and each.kind for each in found] == [
        pytest.approx(12), pytest.approx(11), None, "too_short",
    ]  # fmt: skip


def test_one_host_is_asked_for_few_at_a_time() -> None:
    """As many as the rules say, and no more."""
    crowd = Crowd()
    paths = [f"/{n}" for n in range(20)]

    with serving(dict.fromkeys(paths, crowd)) as server:
        found = each(server, paths)

    assert all(isinstance(each, Audio) for each in found)
    assert 2 <= crowd.most <= RULES.per_host


def test_a_slow_host_keeps_no_other_from_its_turn() -> None:
    """Its recordings wait in a line of their own."""
    arrived: list[float] = []

    def quick(_: Request) -> Iterator[bytes]:
        arrived.append(time.monotonic())
        yield sent(GOOD)

    slow = dict.fromkeys((f"/{n}" for n in range(8)), dripping(HEADERS))
    with serving(slow) as one, serving({"/a": quick}) as other, Preflight(RULES) as preflight:
        urls = [*(f"{one.url}{path}" for path in slow), f"{other.url.replace('127.0.0.1', 'localhost')}/a"]
        found = [audio for _, audio in preflight.each(urls, lambda url: url)]
        ended = time.monotonic()

    assert [isinstance(audio, Audio) for audio in found] == [False] * 8 + [True]
    assert ended - arrived[0] > 2 * HASTY.slow_s * 0.8


def test_the_same_recording_is_fetched_once() -> None:
    """Also when it is asked for again before it has come."""
    with serving({"/a": Crowd()}) as server:
        found = each(server, ["/a"] * 5)
        assert len(server.requests) == 1

    assert len({audio.sha256 for audio in found if isinstance(audio, Audio)}) == 1


def test_only_so_many_are_read_ahead() -> None:
    """A million rows are not kept in memory."""
    read = 0

    def paths() -> Iterator[str]:
        nonlocal read
        for _ in range(5_000):
            read += 1
            yield ""

    with Preflight(RULES) as preflight:
        next(preflight.each(paths(), lambda path: path or None))

    assert read == 1_000


def test_it_can_be_ended_while_recordings_come() -> None:
    """They are given up, and nobody waits for them."""
    with serving({"/a": dripping(HEADERS + GOOD, bytes(2_000))}) as server, Preflight(RULES) as preflight:
        found = preflight.each(["", "/a"], lambda path: f"{server.url}{path}" if path else None)
        begun = time.monotonic()
        threading.Timer(0.1, preflight.close).start()
        list(found)
        assert time.monotonic() - begun < 1
