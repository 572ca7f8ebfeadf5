"""A file is downloaded completely, or the error gives the reason."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from simulator.process import Simulator
from tasks.archive.downloader import CONNECTIONS_MAX, Download, Downloader, DownloadFailed, DownloadLimits
from tests.support.scripted import HANG_UP, Request, ScriptedServer
from voicequeue.net.address_policy import AddressPolicy

BODY = bytes(range(256)) * 40
ETAG = '"one"'

#: The servers of these tests run on this machine.
HERE = AddressPolicy.parse("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS")


def fetched(url: str, allowed: AddressPolicy = HERE, **bounds: float) -> tuple[bytes, Download]:
    """Download the file."""
    into = io.BytesIO()
    typed = {name: int(value) if name == "max_bytes" else value for name, value in bounds.items()}
    download = Downloader(allowed=allowed, bounds=DownloadLimits(**typed)).download(url, into)  # type: ignore[arg-type]
    return into.getvalue(), download


def refused(url: str, allowed: AddressPolicy = HERE, **bounds: float) -> DownloadFailed:
    """Return the error of a download that fails."""
    with pytest.raises(DownloadFailed) as caught:
        fetched(url, allowed, **bounds)
    return caught.value


def head(status: str, *headers: str) -> bytes:
    """Return the status line and headers of a response."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def whole(*more: str, body: bytes = BODY) -> bytes:
    """Return a response with the whole file and its length."""
    return head("200 OK", f"Content-Length: {len(body)}", *more) + body


def half(*more: str) -> Iterator[bytes]:
    """Return a response that ends after half of the file."""
    return iter((head("200 OK", f"Content-Length: {len(BODY)}", *more) + BODY[: len(BODY) // 2], HANG_UP))


def rest(start: int, *more: str) -> bytes:
    """Return the response to a request for the rest of the file."""
    content_range = f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    return head("206 Partial Content", f"Content-Length: {len(BODY) - start}", content_range, *more) + BODY[start:]


def in_turn(*answers: Callable[[Request], Iterator[bytes]]) -> Callable[[Request], Iterator[bytes]]:
    """Return a script that gives each answer once, and then repeats the last one."""
    remaining = list(answers)

    def script(request: Request) -> Iterator[bytes]:
        answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return answer(request)

    return script


# ── complete ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_download_is_complete_with_its_size_and_hash() -> None:
    """The server is asked not to compress it."""
    with ScriptedServer(lambda _: iter((whole(),))) as server:
        content, download = fetched(f"{server.url}/song.mp3")

    assert content == BODY
    assert (download.size, download.sha256) == (len(BODY), sha256(BODY).hexdigest())
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_chunked_download_is_complete_after_the_last_chunk() -> None:
    """It needs no Content-Length."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:1000], BODY[1000:])) + b"0\r\n\r\n"
    with ScriptedServer(lambda _: iter((head("200 OK", "Transfer-Encoding: chunked") + chunks,))) as server:
        content, _ = fetched(server.url)

    assert content == BODY


def test_a_truncated_download_is_resumed() -> None:
    """If the server confirms that the file has not changed; no byte is sent twice."""
    first, second = (lambda _: half(f"ETag: {ETAG}")), (lambda _: iter((rest(len(BODY) // 2, f"ETag: {ETAG}"),)))
    with ScriptedServer(in_turn(first, second)) as server:
        content, download = fetched(server.url)

    headers = server.requests[1].headers
    assert (headers["range"], headers["if-range"]) == (f"bytes={len(BODY) // 2}-", ETAG)
    assert (content, download.sha256) == (BODY, sha256(BODY).hexdigest())


def test_last_modified_is_used_if_the_etag_is_weak() -> None:
    """A weak ETag does not guarantee that every byte is the same."""
    validators = ('ETag: W/"one"', "Last-Modified: Wed, 21 Oct 2026 07:28:00 GMT")
    with ScriptedServer(
        in_turn(lambda _: half(*validators), lambda _: iter((rest(len(BODY) // 2, *validators),)))
    ) as server:
        content, _ = fetched(server.url)

    assert server.requests[1].headers["if-range"] == "Wed, 21 Oct 2026 07:28:00 GMT"
    assert content == BODY


@pytest.mark.parametrize("validators", [(), (f"ETag: {ETAG}",)])
def test_a_truncated_download_is_restarted_if_it_cannot_be_resumed(validators: tuple[str, ...]) -> None:
    """The server sends no validator, or the file has changed."""
    other = BODY[::-1]
    with ScriptedServer(
        in_turn(lambda _: half(*validators), lambda _: iter((whole('ETag: "two"', body=other),)))
    ) as server:
        content, download = fetched(server.url)

    assert ("range" in server.requests[1].headers) is bool(validators)
    assert (content, download.sha256) == (other, sha256(other).hexdigest())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: rest(7, f"ETag: {ETAG}"), id="from another offset"),
        pytest.param(lambda: rest(len(BODY) // 2, 'ETag: "two"'), id="of another file"),
        pytest.param(lambda: rest(len(BODY) // 2).replace(b"/10240", b"/10241"), id="of a longer file"),
        pytest.param(lambda: head("206 Partial Content", "Content-Length: 3") + b"abc", id="without a range"),
    ],
)
def test_a_response_that_is_not_the_rest_of_the_file_is_not_used(wrong: Callable[[], bytes]) -> None:
    """The download is restarted."""
    with ScriptedServer(in_turn(lambda _: half(f"ETag: {ETAG}"), lambda _: iter((wrong(), HANG_UP)))) as server:
        error = refused(server.url)

    assert "the file has changed during the download" in str(error)
    assert not error.is_permanent


def test_a_server_that_always_truncates_fails_the_attempt() -> None:
    """The download is resumed a limited number of times."""

    def hundred_bytes(request: Request) -> Iterator[bytes]:
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        response = rest(start, f"ETag: {ETAG}") if start else whole(f"ETag: {ETAG}")
        return iter((response[: response.index(b"\r\n\r\n") + 104], HANG_UP))

    with ScriptedServer(hundred_bytes) as server:
        error = refused(server.url)

    assert "after 600 bytes" in str(error)
    assert len(server.requests) == CONNECTIONS_MAX


# ── errors ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "says", "for_good"),
    [
        (head("404 Not Found", "Content-Length: 0"), "HTTP 404", False),
        (head("503 Busy", "Content-Length: 0", "Retry-After: 70"), "HTTP 503", False),
        (head("200 OK", "Content-Length: 900000"), "900,000 bytes long; at most 100,000 are allowed", True),
        (head("200 OK", "Connection: close") + BODY, "does not send the length", False),
        (whole("Content-Encoding: gzip"), "compresses the file", False),
        (head("302 Found", "Content-Length: 0"), "without a Location", False),
        (head("302 Found", "Content-Length: 0", "Location: file:///etc/passwd"), "neither http", True),
        (head("302 Found", "Content-Length: 0", "Location: http://[x"), "is not a URL", True),
        (b"what is this\r\n\r\n", "no answer", False),
    ],
)
def test_an_error_gives_the_reason_and_not_the_url(answer: bytes, says: str, for_good: bool) -> None:
    """The URL may contain a token."""
    with ScriptedServer(lambda _: iter((answer, HANG_UP))) as server:
        error = refused(f"{server.url}/song.mp3?token=secret", max_bytes=100_000)

    assert says in str(error)
    assert "secret" not in str(error)
    assert error.is_permanent is for_good
    assert error.retry_after_s == (70 if "503" in says else 0)


def test_a_file_larger_than_allowed_is_not_read_to_its_end() -> None:
    """Even if the server sends no Content-Length."""
    chunk = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    with ScriptedServer(lambda _: iter((head("200 OK", "Transfer-Encoding: chunked"), *[chunk] * 50))) as server:
        error = refused(server.url, max_bytes=20_000)

    assert "larger than 20,000 bytes" in str(error)
    assert error.is_permanent


def test_five_redirects_are_followed_and_a_sixth_is_not() -> None:
    """Relative locations are resolved against the previous URL."""

    def script(request: Request) -> Iterator[bytes]:
        count = int(request.path.rpartition("/")[2])
        return iter((whole() if not count else head("302 Found", "Content-Length: 0", f"Location: {count - 1}"),))

    with ScriptedServer(script) as server:
        assert fetched(f"{server.url}/a/5")[0] == BODY
        assert str(refused(f"{server.url}/a/6")) == "more than 5 redirects"


def test_redirects_into_an_internal_network_are_refused() -> None:
    """Each address is checked like the first; nothing is sent to a refused one."""
    with ScriptedServer(lambda _: iter((whole(),))) as inner:
        location = inner.url.replace("127.0.0.1", "127.0.0.2")
        redirect = head("302 Found", "Content-Length: 0", f"Location: {location}")
        with ScriptedServer(lambda _: iter((redirect,))) as server:
            error = refused(server.url)

    assert "resolves to a loopback address, which VOICEQUEUE_AUDIO_ALLOWED_HOSTS does not allow" in str(error)
    assert error.is_permanent
    assert inner.requests == []


def test_nothing_is_downloaded_from_an_internal_network_unless_it_is_allowed() -> None:
    """This machine is one."""
    with ScriptedServer(lambda _: iter((whole(),))) as server:
        error = refused(server.url, AddressPolicy.parse("", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS"))

    assert "loopback" in str(error)
    assert server.accepted == 0


def test_a_server_that_stops_sending_fails_the_attempt() -> None:
    """After the timeout between two pieces."""

    def script(_: Request) -> Iterator[bytes]:
        yield head("200 OK", f"Content-Length: {len(BODY)}") + BODY[:500]
        time.sleep(0.5)

    with ScriptedServer(script) as server:
        error = refused(server.url, idle_s=0.1)

    assert "no answer within 0.1 s, after 500 bytes" in str(error)


def test_a_server_below_the_minimum_speed_fails_the_attempt() -> None:
    """Although it sends all the time; the time limit of the whole file holds too."""

    def script(_: Request) -> Iterator[bytes]:
        yield head("200 OK", f"Content-Length: {len(BODY)}")
        for offset in range(50):
            time.sleep(0.02)
            yield BODY[offset : offset + 1]

    with ScriptedServer(script) as server:
        assert "too slow" in str(refused(server.url, min_speed_grace_s=0.1, min_speed=1_000))
        assert "0.2 s" in str(refused(server.url, total_s=0.2))


def test_the_faults_of_the_simulator_are_temporary(simulator: Simulator) -> None:
    """Truncated files are resumed; files shorter than their Content-Length are never complete."""
    simulator.set_dials(media_bytes=40_000, media_faults={"cut": 1})
    error = refused(f"{simulator.api_url}/media/c.mp3")
    simulator.set_dials(media_faults={"overlong": 1})
    overlong = refused(f"{simulator.api_url}/media/c.mp3")
    simulator.set_dials(media_faults={})

    assert "after 39," in str(error)  # each connection sends half of the rest
    assert "after 39," in str(overlong)
    assert len(fetched(f"{simulator.api_url}/media/c.mp3")[0]) > 39_000
