"""Hostile servers behind song links: for any response the download attempt ends with a reason."""

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

from tasks.archive.downloader import Downloader, DownloadFailed, DownloadLimits
from tasks.archive.storage import ArchiveStorage
from tasks.archive.task import TEMPORARY_PREFIX, ArchiveServices, archive_jobs, remove_stale_files
from tests.integration.conftest import Clock
from tests.store.life import NOW, get_job, job_with_song
from tests.support.scripted import HANG_UP, Request, ScriptedServer, always
from voicequeue import Clip
from voicequeue.domain.timeouts import ArchiveTimeouts
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

BODY = b"ID3\x04" + bytes(96)
HERE = AddressPolicy.parse("127.0.0.1", setting="S")
BOUNDS = DownloadLimits(max_bytes=1_000, total_s=5.0, idle_s=0.5)
MANY = "9" * 5_000


def head(status: str, *headers: str) -> bytes:
    """Return the head of a response, in latin-1."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def fetch(url: str) -> bytes:
    """Return the content behind the link. Raises DownloadFailed."""
    into = io.BytesIO()
    Downloader(allowed=HERE, bounds=BOUNDS).download(url, into)
    return into.getvalue()


def refusal(*pieces: bytes) -> str:
    """Return the reason for which this response is not accepted."""
    with ScriptedServer(always(*pieces, HANG_UP)) as server, pytest.raises(DownloadFailed) as raised:
        fetch(server.url)
    return str(raised.value)


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines",
    [
        [MANY], ["1" * 16], ["-1"], ["+100"], ["1_00"], ["0x64"], ["1e2"], ["100.0"], [""], ["nan"], ["100;q=1"],
        ["\xb2"], ["100", "101"], ["100", ""], ["100, 99"], [f"100, {MANY}"],
    ],
)  # fmt: skip
def test_an_invalid_content_length_fails_the_attempt_with_a_reason(lines: list[str]) -> None:
    """With any number of digits, any text, or two different values."""
    response = head("200 OK", *(f"Content-Length: {line}" for line in lines)) + BODY

    assert refusal(response) == "its Content-Length is not a valid number"


@pytest.mark.parametrize("lines", [["Content-Length: 100"] * 2, ["content-length: 100"], ["Content-Length: 100, 100"]])
def test_a_content_length_is_read_as_http_defines_it(lines: list[str]) -> None:
    """In any case, and with the same value twice."""
    with ScriptedServer(always(head("200 OK", *lines) + BODY, HANG_UP)) as server:
        assert fetch(server.url) == BODY


@pytest.mark.parametrize(
    "content_range",
    [
        f"bytes 50-99/{MANY}", f"bytes {MANY}-99/100", f"bytes 50-{MANY}/100", "bytes 50-99/*", "bytes -50/100",
        "bytes 5_0-99/100", "bytes 50-99/\xb2", "bytes 50-99", "", "items 50-99/100",
    ],
)  # fmt: skip
def test_an_unreadable_range_is_not_used_as_the_remainder(content_range: str) -> None:
    """The attempt ends, and the next one starts from the beginning."""

    def script(request: Request) -> list[bytes]:
        if "range" in request.headers:
            return [
                head("206 Partial Content", "Content-Length: 50", f"Content-Range: {content_range}") + BODY[50:],
                HANG_UP,
            ]
        return [head("200 OK", "Content-Length: 100", 'ETag: "e"') + BODY[:50], HANG_UP]

    with (
        ScriptedServer(script) as server,
        pytest.raises(DownloadFailed, match="the file has changed during the download"),
    ):
        fetch(server.url)


@pytest.mark.parametrize("framing", [["Content-Length: 50"], ["Transfer-Encoding: chunked"]])
def test_an_unrequested_partial_response_is_no_whole_song(framing: list[str]) -> None:
    """Even if it is complete by its own length."""
    body = BODY[:50] if "Length" in framing[0] else b"32\r\n" + BODY[:50] + b"\r\n0\r\n\r\n"

    assert refusal(head("206 Partial Content", "Content-Range: bytes 0-49/100", *framing) + body) == "HTTP 206"


@pytest.mark.parametrize("encoding", ["identity", " Identity ", "IDENTITY\t", ""])
def test_a_song_with_identity_encoding_is_accepted(encoding: str) -> None:
    """In any spelling; compressed content is not."""
    whole = head("200 OK", f"Content-Encoding: {encoding}", "Content-Length: 100") + BODY
    with ScriptedServer(always(whole)) as server:
        fetch(server.url)

    packed = head("200 OK", f"Content-Encoding: {encoding} gzip", "Content-Length: 100") + BODY
    assert "compresses" in refusal(packed)


@pytest.mark.parametrize("retry_after", [MANY, "-5", "5,0", "soon", "\xb2", "Fri, 21 Oct 2016 07:28:00 GMT"])
def test_an_invalid_retry_after_is_ignored(retry_after: str) -> None:
    """The attempt fails without a delay."""
    with ScriptedServer(always(head("503 Busy", f"Retry-After: {retry_after}", "Content-Length: 0"))) as server:
        with pytest.raises(DownloadFailed) as raised:
            fetch(server.url)
        assert (str(raised.value), raised.value.retry_after_s) == ("HTTP 503", 0)


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
def test_an_invalid_http_response_fails_the_attempt(pieces: list[bytes]) -> None:
    """Status, version, headers and chunks out of all bounds."""
    assert refusal(*pieces).startswith("no answer")


@pytest.mark.parametrize("etag", ['"a\r\n X-Injected: yes"', '"' + "e" * 5_000 + '"', '"\x01"', '"a"b"'])
def test_an_etag_is_sent_back_only_if_it_is_valid(etag: str) -> None:
    """An ETag is sent when a download is resumed, perhaps to the target of another redirect."""
    with ScriptedServer(always(head("200 OK", "Content-Length: 100", f"ETag: {etag}") + BODY[:50], HANG_UP)) as server:
        with pytest.raises(DownloadFailed):
            fetch(server.url)
        assert all(
            "x-injected" not in request.headers and "if-range" not in request.headers for request in server.requests
        )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
def test_any_response_gives_the_song_or_a_reason(
    server: ScriptedServer, headers: list[tuple[str, str]], status: str, body: bytes
) -> None:
    """No response ends the process that downloads it."""
    server._script = always(head(status, *(f"{name}: {value}" for name, value in headers)) + body, HANG_UP)
    try:
        content = fetch(server.url)
    except DownloadFailed:
        return
    assert len(content) <= BOUNDS.max_bytes


@pytest.fixture
def server() -> object:
    """Yield a server with changing responses."""
    with ExitStack() as resources:
        yield resources.enter_context(ScriptedServer(always(HANG_UP)))


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_hostile_server_fails_the_attempt_of_its_song_alone(
    valkey_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a length of 5,000 digits, and after an internal error, the attempt is counted and the other songs are
    archived."""
    good = head("200 OK", f"Content-Length: {len(BODY)}") + BODY
    download = Downloader.download

    def defective(self: Downloader, url: str, into: io.BytesIO) -> object:
        if url.endswith("defect"):
            raise ZeroDivisionError
        return download(self, url, into)

    monkeypatch.setattr(Downloader, "download", defective)

    def script(request: Request) -> list[bytes]:
        return [head("200 OK", f"Content-Length: {MANY}") + BODY if request.path == "/digits" else good, HANG_UP]

    with ScriptedServer(script) as server, connect(valkey_url) as client:
        store = JobStore(client, prefix, archives=True)
        timeouts = ArchiveTimeouts(backoff_initial_s=30, backoff_max_s=3_600, give_up_after_s=86_400, lease_s=60)
        services = ArchiveServices(
            store.archive,
            store.heartbeats["archive"],
            Downloader(allowed=HERE, bounds=BOUNDS),
            ArchiveStorage.from_url(str(tmp_path)),
            timeouts,
            Clock(NOW + 60),
        )
        jobs = [
            job_with_song(
                store, tuple(Clip(f"{path}-{n}", "succeeded", "T", f"{server.url}/{path}") for path in ("a", name))
            )
            for n, name in enumerate(("digits", "defect", "b"))
        ]
        with caplog.at_level(logging.ERROR, "voicequeue"):
            archive_jobs(services, [job.id for job in jobs])
        archived = [[clip.archived_audio is not None for clip in get_job(store, job.id).clips] for job in jobs]
        pending = {entry.job_id: (entry.attempts, entry.last_error) for entry in store.archive.pending()}

    assert archived == [[True, False], [True, False], [True, True]]
    assert reason_of_first_attempt(pending[jobs[0].id]) == "its Content-Length is not a valid number"
    assert reason_of_first_attempt(pending[jobs[1].id]) == "a defect of voicequeue: ZeroDivisionError"
    assert jobs[2].id not in pending


def reason_of_first_attempt(attempts_and_reason: tuple[int, str]) -> str:
    """Check that there was one attempt; return its reason without the file name."""
    tries, reason = attempts_and_reason
    assert tries == 1
    return reason.partition(": ")[2]


# ── the folder of temporary files ─────────────────────────────────────────────────────────────────


def terminates(work: Callable[[], object]) -> bool:
    """Return whether the work ends within a few seconds."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def test_foreign_temporary_files_block_nothing_and_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe, a socket, links, a folder: they are named in the log, and our own files are removed."""
    folder, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("kept")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(folder)  # the name of a socket is short
    strange = [f"{TEMPORARY_PREFIX}{name}" for name in ("folder", "link", "loop", "lost", "pipe", "socket")]
    Path(strange[0]).mkdir()
    Path(strange[1]).symlink_to(elsewhere)
    Path(strange[2]).symlink_to(strange[2])
    Path(strange[3]).symlink_to("missing")
    os.mkfifo(strange[4])
    (folder / f"{TEMPORARY_PREFIX}dead").touch()
    for path in (elsewhere, folder / f"{TEMPORARY_PREFIX}dead"):
        os.utime(path, (1_000, 1_000))

    with socket.socket(socket.AF_UNIX) as listening, caplog.at_level(logging.WARNING, "voicequeue"):
        listening.bind(strange[5])
        assert terminates(lambda: remove_stale_files(2_000))

    assert sorted(path.name for path in folder.iterdir()) == strange
    assert elsewhere.read_text() == "kept"
    [line] = [record.getMessage() for record in caplog.records]
    assert "not regular files" in line
    assert all(name in line for name in strange[:5])


def test_foreign_files_in_the_archive_block_no_song(tmp_path: Path) -> None:
    """Pipes, links and folders in the places of songs and of partial files."""
    folder, song = tmp_path / "songs" / "_" / "job", tmp_path / "song"
    folder.mkdir(parents=True)
    song.write_bytes(BODY)
    os.mkfifo(folder / "c.mp3")
    os.mkfifo(folder / ".c.mp3.0.part")
    (folder / ".c.mp3.1.part").mkdir()
    (folder / ".c.mp3.2.part").write_bytes(b"half")
    storage = ArchiveStorage.from_url(str(tmp_path / "songs"))

    assert terminates(lambda: storage.put(song, "_", "job", "c.mp3"))

    assert (folder / "c.mp3").read_bytes() == BODY
    assert not (folder / ".c.mp3.2.part").exists()
