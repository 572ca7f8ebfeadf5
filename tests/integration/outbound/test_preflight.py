"""Recordings on a real server are checked as upstream reads them, within limits of time and load."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

import pytest

from tests.support.recordings import mp3, redirect, response, serving, wav, xing
from tests.support.scripted import HANG_UP, Request, Script, ScriptedServer
from voicequeue import InvalidAudioError
from voicequeue.ingest.audio import Audio
from voicequeue.ingest.preflight import Preflight, RecordingChecker, RecordingRules
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts

HERE = AddressPolicy.parse("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS")
HASTY = HttpTimeouts(connect_s=1.0, total_s=3.0, response_s=0.4, min_speed=8_000, min_speed_window_s=0.3)
RULES = RecordingRules(policy=HERE, timeouts=HASTY, max_bytes=2_000_000, max_s=60.0, retry_delay_s=0.01)

GOOD = wav(12)


def check(file: bytes | Iterable[bytes] | Script, rules: RecordingRules = RULES) -> Audio:
    """Check a recording that a server sends."""
    with serving({"/a.mp3": file}) as server:
        return RecordingChecker(rules).check(f"{server.url}/a.mp3")


def dripping(start: bytes, drip: bytes = b"\0", every_s: float = 0.05) -> Script:
    """Return a script that sends `start`, and then `drip` at intervals."""

    def script(_: Request) -> Iterator[bytes]:
        yield start
        for piece in repeat(drip, 200):
            time.sleep(every_s)
            yield piece

    return script


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"

# ── accepted ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", [GOOD, mp3(12), xing(459, 459 * 417) + mp3(12)], ids=["WAV", "MP3", "MP3 with Info"])
def test_a_good_recording_is_read_to_its_end(file: bytes) -> None:
    """The result has its duration, size and hash."""
    audio = check(response(file, "Content-Type: text/html"))

    assert (audio.size, audio.sha256) == (len(file), hashlib.sha256(file).hexdigest())
    assert audio.seconds == pytest.approx(12, abs=0.05)


def test_redirects_are_followed() -> None:
    """Up to five redirects are followed."""
    paths = {f"/{n}": redirect(f"/{n + 1}") for n in range(5)} | {"/5": response(GOOD)}

    with serving(paths) as server:
        assert RecordingChecker(RULES).check(f"{server.url}/0").size == len(GOOD)


def test_a_content_encoding_is_decompressed() -> None:
    """The hash is that of the decompressed recording."""
    audio = check(response(gzip.compress(GOOD), "Content-Encoding: gzip"))

    assert audio.sha256 == hashlib.sha256(GOOD).hexdigest()


def test_a_chunked_recording_is_accepted() -> None:
    """It has no Content-Length."""
    halves = (GOOD[:20_000], GOOD[20_000:], b"")
    chunks = (b"%x\r\n%s\r\n" % (len(piece), piece) for piece in halves)

    assert check([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks]).size == len(GOOD)


# ── rejected ──────────────────────────────────────────────────────────────────────────────────────

PAGE = b"<!doctype html><html><body>Please sign in</body></html>"
BAD: dict[str, tuple[bytes | Iterable[bytes] | Script, str, str]] = {
    "not there": (response(b"", status="404 Not Found"), "http_error", "HTTP 404: not found"),
    "not public": (response(PAGE, status="403 Forbidden"), "http_error", "HTTP 403: not public"),
    "no content": (response(b"", status="206 Partial Content"), "http_error", "HTTP 206"),
    "HTML": (response(PAGE, "Content-Type: audio/mpeg"), "wrong_format", "not MP3 or WAV: it is an HTML page"),
    "Ogg": (response(b"OggS" + bytes(5_000)), "wrong_format", "not MP3 or WAV: it is an Ogg file"),
    "short": (response(wav(5)), "too_short", "5.0 s long; more than 10 s are required"),
    "exactly 10 s": (response(wav(10)), "too_short", "10.0 s long; more than 10 s are required"),
    "long": (response(wav(61)), "too_long", "61.0 s long; at most 60 s are accepted"),
    "truncated MP3": (response((xing(459, 459 * 417) + mp3(12))[:90_000]), "truncated", "truncated MP3: its header"),
    "truncated WAV": (response(GOOD[:-9_000]), "truncated", "truncated WAV: its header"),
    "cut": (
        [response(GOOD, length=60_000), HANG_UP],
        "truncated",
        "truncated: the connection ended after 48,044 of 60,000 bytes",
    ),
    "private": (redirect("http://10.0.0.1/a.mp3"), "forbidden_address", "redirected: its host resolves to a private"),
    "metadata": (
        redirect("http://169.254.169.254/"),
        "forbidden_address",
        "redirected: its host resolves to a link-local",
    ),
    "no URL": (redirect("file:///etc/passwd"), "forbidden_address", "redirected: the URL is neither http:// nor"),
    "a loop": (redirect("/a.mp3"), "redirects", "more than 5 redirects"),
    "announced as huge": (HEADERS.replace(b"1000000", b"9000000"), "too_large", "larger than 2,000,000 bytes"),
    "huge": (chain([b"HTTP/1.1 200 OK\r\n\r\n", GOOD], repeat(bytes(65_536))), "too_large", "2,000,000"),
    "a bomb": (
        response(gzip.compress(GOOD[:44] + bytes(9_000_000)), "Content-Encoding: gzip"),
        "too_large",
        "larger than 2,000,000 bytes",
    ),
    "brotli": (response(GOOD, "Content-Encoding: br"), "wrong_format", "the Content-Encoding 'br'"),
    "no gzip": (response(GOOD, "Content-Encoding: gzip"), "wrong_format", "cannot be decompressed"),
    "half a gzip": (response(gzip.compress(GOOD)[:-9], "Content-Encoding: gzip"), "truncated", "the connection ended"),
    "nothing": (response(b""), "wrong_format", "it is an empty file"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "unreachable", "no answer: BadStatusLine"),
    "drips": (dripping(HEADERS + GOOD[:2_000]), "too_slow", "too slow: slower than 8 kB a second for 0.3 s"),
    "stalls": (dripping(HEADERS + GOOD, every_s=0.6), "too_slow", "too slow"),
    "headers that drip": (dripping(b"HTTP/1.1 200 OK\r\n", b"a"), "unreachable", "no answer within 0.4 s"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_problem_has_a_kind_and_a_reason(name: str) -> None:
    """The check ends within 2 s."""
    file, kind, reason = BAD[name]
    started = time.monotonic()

    with pytest.raises(InvalidAudioError) as caught:
        check(file)

    assert (caught.value.kind, reason in caught.value.reason) == (kind, True), caught.value
    assert time.monotonic() - started < 2


def test_no_connection_is_opened_to_a_private_address() -> None:
    """The reason names the setting that would allow it."""
    with serving({"/a.mp3": response(GOOD)}) as server:
        with pytest.raises(
            InvalidAudioError, match="a loopback address, which VOICEQUEUE_AUDIO_ALLOWED_HOSTS does not allow"
        ):
            RecordingChecker(RecordingRules(timeouts=HASTY)).check(f"{server.url}/a.mp3")
        assert server.accepted == 0


@pytest.mark.parametrize(
    "first",
    [response(b"", status="503 Service Unavailable"), response(GOOD, length=60_000), b"\r\n"],
    ids=["503", "cut", "no HTTP"],
)
def test_a_temporary_failure_is_retried(first: bytes) -> None:
    """The second attempt succeeds."""

    answers = chain([first], repeat(response(GOOD)))

    assert check(lambda _: [next(answers), HANG_UP]).size == len(GOOD)


def test_retry_after_is_respected() -> None:
    """The retry waits as long as the host requests."""
    answers = chain([response(b"", "Retry-After: 1", status="429 Too Many Requests")], repeat(response(GOOD)))
    started = time.monotonic()

    assert check(lambda _: [next(answers)]).size == len(GOOD)
    assert time.monotonic() - started >= 1


def test_a_lasting_failure_is_reported() -> None:
    """There are two attempts."""
    with serving({"/a.mp3": response(b"", status="503 Service Unavailable")}) as server:
        with pytest.raises(InvalidAudioError, match="HTTP 503"):
            RecordingChecker(RULES).check(f"{server.url}/a.mp3")
        assert len(server.requests) == 2


def test_a_permanent_failure_is_not_retried() -> None:
    """There is one request."""
    with serving({}) as server:
        with pytest.raises(InvalidAudioError, match="HTTP 404"):
            RecordingChecker(RULES).check(f"{server.url}/a.mp3")
        assert len(server.requests) == 1


# ── many ──────────────────────────────────────────────────────────────────────────────────────────


class ConcurrencyCounter:
    """A script that counts concurrent requests."""

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
        yield response(GOOD)


def check_all(
    server: ScriptedServer, paths: Iterable[str], rules: RecordingRules = RULES
) -> list[Audio | InvalidAudioError | None]:
    """Check recordings, and return the results in the order of the paths."""
    with Preflight(rules) as preflight:
        return [
            result for _, result in preflight.check_all(paths, lambda path: f"{server.url}{path}" if path else None)
        ]


def test_results_keep_the_order_of_the_items() -> None:
    """Slow recordings do not change it; an item without a recording has no result."""

    def slow(_: Request) -> Iterator[bytes]:
        time.sleep(0.2)
        yield response(GOOD)

    with serving({"/slow": slow, "/a": response(wav(11)), "/b": response(wav(5))}) as server:
        results = check_all(server, ["/slow", "/a", "", "/b"])

    assert [result.seconds if isinstance(result, Audio) else result and result.kind for result in results] == [
        pytest.approx(12), pytest.approx(11), None, "too_short",
    ]  # fmt: skip


def test_objects_on_s3_are_left_to_the_workers(caplog: pytest.LogCaptureFixture) -> None:
    """Producers cannot sign a link to them; one line says that they were not checked."""
    urls = ["s3://voices/a.wav", "s3://voices/b.wav"]
    with caplog.at_level("WARNING", "voicequeue"), Preflight(RULES) as preflight:
        assert [result for _, result in preflight.check_all(urls, lambda url: url)] == [None, None]
    assert caplog.text.count("are not checked here, because only workers can sign them") == 1


def test_concurrent_requests_to_one_host_are_limited() -> None:
    """There are at most `per_host` of them."""
    counter = ConcurrencyCounter()
    paths = [f"/{n}" for n in range(20)]

    with serving(dict.fromkeys(paths, counter)) as server:
        results = check_all(server, paths)

    assert all(isinstance(result, Audio) for result in results)
    assert 2 <= counter.most <= RULES.max_per_host


def test_a_slow_host_does_not_delay_others() -> None:
    """Its recordings wait separately."""
    arrived: list[float] = []

    def quick(_: Request) -> Iterator[bytes]:
        arrived.append(time.monotonic())
        yield response(GOOD)

    slow = dict.fromkeys((f"/{n}" for n in range(8)), dripping(HEADERS))
    with serving(slow) as one, serving({"/a": quick}) as other, Preflight(RULES) as preflight:
        urls = [*(f"{one.url}{path}" for path in slow), f"{other.url.replace('127.0.0.1', 'localhost')}/a"]
        results = [audio for _, audio in preflight.check_all(urls, lambda url: url)]
        ended = time.monotonic()

    assert [isinstance(audio, Audio) for audio in results] == [False] * 8 + [True]
    assert ended - arrived[0] > 2 * HASTY.min_speed_window_s * 0.8


def test_the_same_recording_is_downloaded_once() -> None:
    """This holds also while the first download is in progress."""
    with serving({"/a": ConcurrencyCounter()}) as server:
        results = check_all(server, ["/a"] * 5)
        assert len(server.requests) == 1

    assert len({audio.sha256 for audio in results if isinstance(audio, Audio)}) == 1


def test_reading_ahead_is_limited() -> None:
    """So a million rows are not kept in memory."""
    read = 0

    def paths() -> Iterator[str]:
        nonlocal read
        for _ in range(5_000):
            read += 1
            yield ""

    with Preflight(RULES) as preflight:
        next(preflight.check_all(paths(), lambda path: path or None))

    assert read == 1_000


def test_close_aborts_downloads() -> None:
    """It does not wait for them."""
    with serving({"/a": dripping(HEADERS + GOOD, bytes(2_000))}) as server, Preflight(RULES) as preflight:
        results = preflight.check_all(["", "/a"], lambda path: f"{server.url}{path}" if path else None)
        started = time.monotonic()
        threading.Timer(0.1, preflight.close).start()
        list(results)
        assert time.monotonic() - started < 1
