"""Songs are fetched from servers that others name: whatever they answer, a try ends, and says why."""

from __future__ import annotations

import io
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.archive.downloader import Bounds, Fetcher, NotFetched
from tasks.archive.storage import Shelf
from tasks.archive.task import SPOOLED, ArchiveServices, keep, sweep
from tests.integration.conftest import Clock
from tests.store.life import NOW, one, song_of
from tests.support.scripted import HANG_UP, Request, Scripted, one_answer
from voicequeue import Clip
from voicequeue.domain.timeouts import ArchivePatience
from voicequeue.net.address_policy import Allowed
from voicequeue.storage.job_store import Store, connect

BODY = b"ID3\x04" + bytes(96)
HERE = Allowed.of("127.0.0.1", setting="S")
BOUNDS = Bounds(max_bytes=1_000, file_s=5.0, silent_s=0.5)
MANY = "9" * 5_000


def head(status: str, *headers: str) -> bytes:
    """How an answer begins, as latin-1."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def fetched(url: str) -> bytes:
    """What is behind the link. Raises NotFetched."""
    into = io.BytesIO()
    Fetcher(allowed=HERE, bounds=BOUNDS).fetch(url, into)
    return into.getvalue()


def refused(*pieces: bytes) -> str:
    """Why there is nothing where a server answers so."""
    with Scripted(one_answer(*pieces, HANG_UP)) as server, pytest.raises(NotFetched) as caught:
        fetched(server.url)
    return str(caught.value)


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines",
    [
        [MANY], ["1" * 16], ["-1"], ["+100"], ["1_00"], ["0x64"], ["1e2"], ["100.0"], [""], ["nan"], ["100;q=1"],
        ["\xb2"], ["100", "101"], ["100", ""], ["100, 99"], [f"100, {MANY}"],
    ],
)  # fmt: skip
def test_a_length_that_is_no_number_is_a_failed_try_with_a_reason(lines: list[str]) -> None:
    """However many digits it has, whatever stands there, and where it is said twice and differs."""
    answered = head("200 OK", *(f"Content-Length: {line}" for line in lines)) + BODY

    assert refused(answered) == "its Content-Length is not a number that can be used"


@pytest.mark.parametrize("lines", [["Content-Length: 100"] * 2, ["content-length: 100"], ["Content-Length: 100, 100"]])
def test_a_length_is_read_as_http_has_it(lines: list[str]) -> None:
    """In any case, and the same one twice."""
    with Scripted(one_answer(head("200 OK", *lines) + BODY, HANG_UP)) as server:
        assert fetched(server.url) == BODY


@pytest.mark.parametrize(
    "told",
    [
        f"bytes 50-99/{MANY}", f"bytes {MANY}-99/100", f"bytes 50-{MANY}/100", "bytes 50-99/*", "bytes -50/100",
        "bytes 5_0-99/100", "bytes 50-99/\xb2", "bytes 50-99", "", "items 50-99/100",
    ],
)  # fmt: skip
def test_a_range_that_cannot_be_read_is_not_taken_for_the_rest(told: str) -> None:
    """The try ends, and the next one begins anew."""

    def script(request: Request) -> list[bytes]:
        if "range" in request.headers:
            return [head("206 Partial Content", "Content-Length: 50", f"Content-Range: {told}") + BODY[50:], HANG_UP]
        return [head("200 OK", "Content-Length: 100", 'ETag: "e"') + BODY[:50], HANG_UP]

    with Scripted(script) as server, pytest.raises(NotFetched, match="the file has changed meanwhile"):
        fetched(server.url)


@pytest.mark.parametrize("how", [["Content-Length: 50"], ["Transfer-Encoding: chunked"]])
def test_a_part_that_nobody_asked_for_is_no_whole_song(how: list[str]) -> None:
    """Even where it comes whole by its own count."""
    body = BODY[:50] if "Length" in how[0] else b"32\r\n" + BODY[:50] + b"\r\n0\r\n\r\n"

    assert refused(head("206 Partial Content", "Content-Range: bytes 0-49/100", *how) + body) == "HTTP 206"


@pytest.mark.parametrize("encoding", ["identity", " Identity ", "IDENTITY\t", ""])
def test_a_song_that_is_said_to_be_as_it_is_is_taken(encoding: str) -> None:
    """However that is spelled; what is packed is not."""
    whole = head("200 OK", f"Content-Encoding: {encoding}", "Content-Length: 100") + BODY
    with Scripted(one_answer(whole)) as server:
        fetched(server.url)

    packed = head("200 OK", f"Content-Encoding: {encoding} gzip", "Content-Length: 100") + BODY
    assert "packed" in refused(packed)


@pytest.mark.parametrize("told", [MANY, "-5", "+5", "5.0", "soon", "\xb2", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_wish_to_be_asked_later_that_is_no_number_is_none(told: str) -> None:
    """`Retry-After`."""
    with Scripted(one_answer(head("503 Busy", f"Retry-After: {told}", "Content-Length: 0"))) as server:
        with pytest.raises(NotFetched) as caught:
            fetched(server.url)
        assert (str(caught.value), caught.value.after) == ("HTTP 503", 0)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 " + MANY.encode() + b" OK\r\n\r\n"],
        [b"HTTP/1.1 -200 OK\r\n\r\n"],
        [b"HTTP/" + MANY.encode() + b" 200 OK\r\n\r\n"],
        [head("200 OK", *(f"X-{number}: x" for number in range(200)))],
        [head("200 OK", f"X: {'x' * 70_000}")],
        [head("200 OK", "Transfer-Encoding: chunked") + MANY.encode() + b"\r\n" + BODY],
        [head("200 OK", "Transfer-Encoding: chunked") + b"-64\r\n" + BODY],
        [head("200 OK", "Transfer-Encoding: chunked") + b"\xb2\r\n" + BODY],
        [head("200 OK", "Transfer-Encoding: chunked") + b"64;" + b"x" * 70_000 + b"\r\n" + BODY],
        [head("100 Continue")] * 50,
    ],
)
def test_an_answer_that_is_no_http_is_a_failed_try(pieces: list[bytes]) -> None:
    """Status, version, headers and chunks out of all bounds."""
    assert refused(*pieces).startswith("no answer")


@pytest.mark.parametrize("etag", ['"a\r\n X-Injected: yes"', '"' + "e" * 5_000 + '"', '"\x01"', '"a"b"'])
def test_what_a_server_says_of_its_file_goes_back_to_it_as_a_plain_text_or_not_at_all(etag: str) -> None:
    """An ETag is sent again when a download goes on, perhaps to where another redirect leads."""
    with Scripted(one_answer(head("200 OK", "Content-Length: 100", f"ETag: {etag}") + BODY[:50], HANG_UP)) as server:
        with pytest.raises(NotFetched):
            fetched(server.url)
        assert all("x-injected" not in each.headers and "if-range" not in each.headers for each in server.requests)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Content-Length", "Content-Range", "Transfer-Encoding", "ETag", "Location", "Retry-After",
                 "Content-Encoding", "Connection", "Last-Modified"]
            ),
            st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20)
            | st.sampled_from(["chunked", "100", "bytes 0-99/100", "gzip", "identity", "/", "http://["]),
        ),
        max_size=6,
    ),
    st.sampled_from(["200 OK", "206 Partial", "301 Moved", "416 No", "999 Odd", "\xb2\xb2\xb2 OK", ""]),
    st.binary(max_size=120),
)  # fmt: skip
def test_whatever_a_server_answers_the_song_comes_or_there_is_a_reason(
    answering: Scripted, headers: list[tuple[str, str]], status: str, body: bytes
) -> None:
    """No answer ends the process that fetches it."""
    answering._script = one_answer(head(status, *(f"{name}: {value}" for name, value in headers)) + body, HANG_UP)
    try:
        came = fetched(answering.url)
    except NotFetched:
        return
    assert len(came) <= BOUNDS.max_bytes


@pytest.fixture
def answering() -> object:
    """A server whose answers change."""
    with ExitStack() as standing:
        yield standing.enter_context(Scripted(one_answer(HANG_UP)))


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_hostile_server_costs_its_song_a_try_and_no_other_song_anything(
    valkey_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A length of 5,000 digits, and a defect of ours: the try is counted, and the other songs are archived."""
    good = head("200 OK", f"Content-Length: {len(BODY)}") + BODY
    fetch = Fetcher.fetch

    def defective(self: Fetcher, url: str, into: io.BytesIO) -> object:
        if url.endswith("defect"):
            raise ZeroDivisionError
        return fetch(self, url, into)

    monkeypatch.setattr(Fetcher, "fetch", defective)

    def script(request: Request) -> list[bytes]:
        return [head("200 OK", f"Content-Length: {MANY}") + BODY if request.path == "/digits" else good, HANG_UP]

    with Scripted(script) as server, connect(valkey_url) as client:
        store = Store(client, prefix, archives=True)
        patience = ArchivePatience(first_s=30, most_s=3_600, for_s=86_400, lease_s=60)
        services = ArchiveServices(
            store.archive,
            store.pulses["archive"],
            Fetcher(allowed=HERE, bounds=BOUNDS),
            Shelf.at(str(tmp_path)),
            patience,
            Clock(NOW + 60),
        )
        jobs = [
            song_of(store, tuple(Clip(f"{path}-{n}", "succeeded", "T", f"{server.url}/{path}") for path in ("a", name)))
            for n, name in enumerate(("digits", "defect", "b"))
        ]
        with caplog.at_level(logging.ERROR, "voicequeue"):
            keep(services, [job.id for job in jobs])
        kept = [[clip.archived_audio is not None for clip in one(store, job.id).clips] for job in jobs]
        pending = {each.job_id: (each.tries, each.reason) for each in store.archive.pending()}

    assert kept == [[True, False], [True, False], [True, True]]
    assert one_reason(pending[jobs[0].id]) == "its Content-Length is not a number that can be used"
    assert one_reason(pending[jobs[1].id]) == "a defect of voicequeue: ZeroDivisionError"
    assert jobs[2].id not in pending


def one_reason(found: tuple[int, str]) -> str:
    """Why the first try failed, without the file that it was of."""
    tries, reason = found
    assert tries == 1
    return reason.partition(": ")[2]


# ── what lies in the folder of temporary files ────────────────────────────────────────────────────


def ends(work: Callable[[], object]) -> bool:
    """Whether it does, within a few seconds."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def test_what_others_put_among_temporary_files_holds_nothing_up_and_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe, a socket, links, a folder: they are named in the log, and what is ours is removed."""
    folder, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("kept")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(folder)  # the name of a socket is short
    strange = [f"{SPOOLED}{name}" for name in ("folder", "link", "loop", "lost", "pipe", "socket")]
    Path(strange[0]).mkdir()
    Path(strange[1]).symlink_to(elsewhere)
    Path(strange[2]).symlink_to(strange[2])
    Path(strange[3]).symlink_to("nowhere")
    os.mkfifo(strange[4])
    (folder / f"{SPOOLED}dead").touch()
    for path in (elsewhere, folder / f"{SPOOLED}dead"):
        os.utime(path, (1_000, 1_000))

    with socket.socket(socket.AF_UNIX) as listening, caplog.at_level(logging.WARNING, "voicequeue"):
        listening.bind(strange[5])
        assert ends(lambda: sweep(2_000))

    assert sorted(path.name for path in folder.iterdir()) == strange
    assert elsewhere.read_text() == "kept"
    [line] = [record.getMessage() for record in caplog.records]
    assert "no plain files" in line
    assert all(name in line for name in strange[:5])


def test_what_others_put_into_the_archive_keeps_no_song_out(tmp_path: Path) -> None:
    """Pipes, links and folders where the song is put, and where half files of the dead are cleared away."""
    folder, song = tmp_path / "songs" / "_" / "job", tmp_path / "song"
    folder.mkdir(parents=True)
    song.write_bytes(BODY)
    os.mkfifo(folder / "c.mp3")
    os.mkfifo(folder / ".c.mp3.0.part")
    (folder / ".c.mp3.1.part").mkdir()
    (folder / ".c.mp3.2.part").write_bytes(b"half")
    shelf = Shelf.at(str(tmp_path / "songs"))

    assert ends(lambda: shelf.put(song, "_", "job", "c.mp3"))

    assert (folder / "c.mp3").read_bytes() == BODY
    assert not (folder / ".c.mp3.2.part").exists()
