"""One file behind a link: whole, or the reason why not."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from simulator.process import Simulator
from tasks.archive.downloader import CONNECTIONS_MAX, Bounds, Download, Fetcher, NotFetched
from tests.support.scripted import HANG_UP, Request, Scripted
from voicequeue.net.address_policy import Allowed

BODY = bytes(range(256)) * 40
ETAG = '"one"'

#: Nobody in these tests is on the public network.
HERE = Allowed.of("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOW")


def fetched(url: str, allowed: Allowed = HERE, **bounds: float) -> tuple[bytes, Download]:
    """What is behind the link."""
    into = io.BytesIO()
    given = {name: int(value) if name == "max_bytes" else value for name, value in bounds.items()}
    download = Fetcher(allowed=allowed, bounds=Bounds(**given)).fetch(url, into)  # type: ignore[arg-type]
    return into.getvalue(), download


def refused(url: str, allowed: Allowed = HERE, **bounds: float) -> NotFetched:
    """Why there is nothing."""
    with pytest.raises(NotFetched) as caught:
        fetched(url, allowed, **bounds)
    return caught.value


def head(status: str, *headers: str) -> bytes:
    """How an answer begins."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def whole(*more: str, body: bytes = BODY) -> bytes:
    """The file, with its length."""
    return head("200 OK", f"Content-Length: {len(body)}", *more) + body


def half(*more: str) -> Iterator[bytes]:
    """The first half of it, and then nothing."""
    return iter((head("200 OK", f"Content-Length: {len(BODY)}", *more) + BODY[: len(BODY) // 2], HANG_UP))


def rest(start: int, *more: str) -> bytes:
    """What was asked for."""
    told = f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    return head("206 Partial Content", f"Content-Length: {len(BODY) - start}", told, *more) + BODY[start:]


def in_turn(*answers: Callable[[Request], Iterator[bytes]]) -> Callable[[Request], Iterator[bytes]]:
    """A script that gives one answer after the other, the last one for ever."""
    left = list(answers)

    def script(request: Request) -> Iterator[bytes]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        return answer(request)

    return script


# ── whole ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_comes_whole_with_its_length_and_hash() -> None:
    """As it is served, and unpacked."""
    with Scripted(lambda _: iter((whole(),))) as server:
        found, download = fetched(f"{server.url}/song.mp3")

    assert found == BODY
    assert (download.size, download.sha256) == (len(BODY), sha256(BODY).hexdigest())
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_file_that_comes_in_chunks_is_whole_with_the_last_of_them() -> None:
    """No length is said, and none is needed."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:1000], BODY[1000:])) + b"0\r\n\r\n"
    with Scripted(lambda _: iter((head("200 OK", "Transfer-Encoding: chunked") + chunks,))) as server:
        found, _ = fetched(server.url)

    assert found == BODY


def test_a_cut_download_goes_on_where_it_was_cut() -> None:
    """If the server says that it is still the same file; nothing comes twice."""
    first, second = (lambda _: half(f"ETag: {ETAG}")), (lambda _: iter((rest(len(BODY) // 2, f"ETag: {ETAG}"),)))
    with Scripted(in_turn(first, second)) as server:
        found, download = fetched(server.url)

    asked = server.requests[1].headers
    assert (asked["range"], asked["if-range"]) == (f"bytes={len(BODY) // 2}-", ETAG)
    assert (found, download.sha256) == (BODY, sha256(BODY).hexdigest())


def test_the_time_of_the_last_change_serves_where_an_etag_is_weak() -> None:
    """A weak one does not say that each byte is the same."""
    told = ('ETag: W/"one"', "Last-Modified: Wed, 21 Oct 2026 07:28:00 GMT")
    with Scripted(in_turn(lambda _: half(*told), lambda _: iter((rest(len(BODY) // 2, *told),)))) as server:
        found, _ = fetched(server.url)

    assert server.requests[1].headers["if-range"] == "Wed, 21 Oct 2026 07:28:00 GMT"
    assert found == BODY


@pytest.mark.parametrize("told", [(), (f"ETag: {ETAG}",)])
def test_a_cut_download_begins_again_where_it_cannot_go_on(told: tuple[str, ...]) -> None:
    """Nothing says that it is the same, or it is not: the whole comes."""
    other = BODY[::-1]
    with Scripted(in_turn(lambda _: half(*told), lambda _: iter((whole('ETag: "two"', body=other),)))) as server:
        found, download = fetched(server.url)

    assert ("range" in server.requests[1].headers) is bool(told)
    assert (found, download.sha256) == (other, sha256(other).hexdigest())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: rest(7, f"ETag: {ETAG}"), id="from elsewhere on"),
        pytest.param(lambda: rest(len(BODY) // 2, 'ETag: "two"'), id="of another file"),
        pytest.param(lambda: rest(len(BODY) // 2).replace(b"/10240", b"/10241"), id="of a longer file"),
        pytest.param(lambda: head("206 Partial Content", "Content-Length: 3") + b"abc", id="of nowhere"),
    ],
)
def test_a_rest_that_does_not_fit_is_not_taken(wrong: Callable[[], bytes]) -> None:
    """That try ends; the next one begins anew."""
    with Scripted(in_turn(lambda _: half(f"ETag: {ETAG}"), lambda _: iter((wrong(), HANG_UP)))) as server:
        error = refused(server.url)

    assert "the file has changed meanwhile" in str(error)
    assert not error.for_good


def test_a_server_that_always_cuts_is_given_up_for_now() -> None:
    """While there is progress it is asked again, some times."""

    def a_little(request: Request) -> Iterator[bytes]:
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        told = rest(start, f"ETag: {ETAG}") if start else whole(f"ETag: {ETAG}")
        return iter((told[: told.index(b"\r\n\r\n") + 104], HANG_UP))

    with Scripted(a_little) as server:
        error = refused(server.url)

    assert "after 600 bytes" in str(error)
    assert len(server.requests) == CONNECTIONS_MAX


# ── not whole, not that, not there ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "says", "for_good"),
    [
        (head("404 Not Found", "Content-Length: 0"), "HTTP 404", False),
        (head("503 Busy", "Content-Length: 0", "Retry-After: 70"), "HTTP 503", False),
        (head("200 OK", "Content-Length: 900000"), "has 900,000 bytes, of which 100,000 are allowed", True),
        (head("200 OK", "Connection: close") + BODY, "nothing says how long it is", False),
        (whole("Content-Encoding: gzip"), "comes packed", False),
        (head("302 Found", "Content-Length: 0"), "leads nowhere", False),
        (head("302 Found", "Content-Length: 0", "Location: file:///etc/passwd"), "neither http", True),
        (head("302 Found", "Content-Length: 0", "Location: http://[x"), "cannot be read", True),
        (b"what is this\r\n\r\n", "no answer", False),
    ],
)
def test_what_is_not_the_file_is_told_in_our_words(answer: bytes, says: str, for_good: bool) -> None:
    """Without the URL, in which there may be a token."""
    with Scripted(lambda _: iter((answer, HANG_UP))) as server:
        error = refused(f"{server.url}/song.mp3?token=secret", max_bytes=100_000)

    assert says in str(error)
    assert "secret" not in str(error)
    assert error.for_good is for_good
    assert error.after == (70 if "503" in says else 0)


def test_more_than_is_allowed_is_not_read_to_its_end() -> None:
    """Also where no length warns of it."""
    chunk = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    with Scripted(lambda _: iter((head("200 OK", "Transfer-Encoding: chunked"), *[chunk] * 50))) as server:
        error = refused(server.url, max_bytes=20_000)

    assert "more than 20,000 bytes came" in str(error)
    assert error.for_good


def test_five_redirects_are_followed_and_a_sixth_is_not() -> None:
    """Each from where the one before led to."""

    def script(request: Request) -> Iterator[bytes]:
        left = int(request.path.rpartition("/")[2])
        return iter((whole() if not left else head("302 Found", "Content-Length: 0", f"Location: {left - 1}"),))

    with Scripted(script) as server:
        assert fetched(f"{server.url}/a/5")[0] == BODY
        assert str(refused(f"{server.url}/a/6")) == "more than 5 redirects"


def test_no_redirect_leads_into_an_inner_network() -> None:
    """It is checked like the first address, which was allowed here; nothing is sent there."""
    with Scripted(lambda _: iter((whole(),))) as inner:
        elsewhere = inner.url.replace("127.0.0.1", "127.0.0.2")
        moved = head("302 Found", "Content-Length: 0", f"Location: {elsewhere}")
        with Scripted(lambda _: iter((moved,))) as server:
            error = refused(server.url)

    assert "leads to a loopback address, which VOICEQUEUE_AUDIO_ALLOW does not name" in str(error)
    assert error.for_good
    assert inner.requests == []


def test_nothing_is_fetched_from_an_inner_network_unless_it_is_allowed() -> None:
    """Nor from the machine itself."""
    with Scripted(lambda _: iter((whole(),))) as server:
        error = refused(server.url, Allowed.of("", setting="VOICEQUEUE_AUDIO_ALLOW"))

    assert "loopback" in str(error)
    assert server.accepted == 0


def test_a_server_that_falls_silent_is_waited_for_no_longer_than_it_may() -> None:
    """In the middle of a file."""

    def script(_: Request) -> Iterator[bytes]:
        yield head("200 OK", f"Content-Length: {len(BODY)}") + BODY[:500]
        time.sleep(0.5)

    with Scripted(script) as server:
        error = refused(server.url, silent_s=0.1)

    assert "no answer within 0.1 s, after 500 bytes" in str(error)


def test_a_server_that_drips_is_too_slow() -> None:
    """Although something comes all the time."""

    def script(_: Request) -> Iterator[bytes]:
        yield head("200 OK", f"Content-Length: {len(BODY)}")
        for place in range(50):
            time.sleep(0.02)
            yield BODY[place : place + 1]

    with Scripted(script) as server:
        assert "too slow" in str(refused(server.url, grace_s=0.1, slowest=1_000))
        assert "0.2 s" in str(refused(server.url, file_s=0.2))


def test_the_simulators_faults_do_not_keep_a_song_for_good(simulator: Simulator) -> None:
    """Cut files are gone on with; those said to be longer than they are never come whole."""
    simulator.turn(media_bytes=40_000, media_faults={"cut": 1})
    error = refused(f"{simulator.api_url}/media/c.mp3")
    simulator.turn(media_faults={"overlong": 1})
    overlong = refused(f"{simulator.api_url}/media/c.mp3")
    simulator.turn(media_faults={})

    assert "after 39," in str(error)  # each time half of what was left came
    assert "after 39," in str(overlong)
    assert len(fetched(f"{simulator.api_url}/media/c.mp3")[0]) > 39_000
