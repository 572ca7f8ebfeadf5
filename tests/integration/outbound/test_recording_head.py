"""The check of the beginning of a recording: little is read, and nothing is refused that was not seen."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.recordings import id3, mp3, redirect, response, serving, wav, xing
from tests.support.scripted import HANG_UP, Request, Script
from voicequeue.errors import InvalidAudioError
from voicequeue.ingest.preflight import RecordingRules, TemporaryFailure
from voicequeue.ingest.recording_head import HEAD_BYTES, HeadChecker
from voicequeue.net.address_policy import AddressPolicy

HERE = AddressPolicy.parse("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS")
CHECKER = HeadChecker(RecordingRules(policy=HERE))


def ranged(body: bytes, *headers: str) -> Script:
    """Return a script that answers with the requested range, as object stores do."""

    def script(request: Request) -> Iterable[bytes]:
        first, last = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        part = body[first : last + 1]
        content_range = f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(body)}"
        yield response(part, content_range, *headers, status="206 Partial Content")

    return script


def check(answer: bytes | Iterable[bytes] | Script) -> str:
    """Return the error for a recording with this answer; '' if it passes."""
    with serving({"/a": answer, "/moved": redirect("/a")}) as server:
        try:
            CHECKER.attempt(f"{server.url}/moved")
        except InvalidAudioError as error:
            return f"{error.kind}: {error.reason}"
        except TemporaryFailure as error:
            return f"later: {error.unfit.reason}"
    return ""


LONG = mp3(600)

PASSING = {
    "mp3": LONG,
    "mp3 of eleven seconds": mp3(11),
    "mp3 that announces its frames": xing(round(600 / 0.026), len(LONG)) + LONG,
    "mp3 whose first frame counts the first of several parts only": xing(100, 40_000) + mp3(60),
    "mp3 behind a picture that fills the head": id3(HEAD_BYTES + 10) + mp3(5),
    "mp3 behind a picture": id3(100_000) + mp3(11),
    "mp3 behind a tag and padding": id3() + bytes(100_000) + mp3(11),
    "mp3 behind a tag and padding that fills the head": id3() + bytes(HEAD_BYTES) + mp3(5),
    "wav behind a tag": id3() + wav(600),
    "wav": wav(600),
    "wav of unknown length": wav(600, declared=0xFFFFFFFF),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("answers", [ranged, response])
def test_a_recording_that_is_long_enough_passes(name: str, answers: object) -> None:
    """Servers may answer a range with the whole file."""
    assert check(answers(PASSING[name])) == ""  # type: ignore[operator]


REFUSED = {
    "too_short: 5.0 s long; more than 10 s are required": (wav(5), id3() + wav(5), mp3(5), id3(100_000) + mp3(5)),
    "too_short: 9.0 s long; more than 10 s are required": (
        wav(9, declared=0xFFFFFFFF, rate=44_100),
        xing(100_000, 40_000_000) + mp3(9) + b"TAG" + bytes(125),
    ),
    "wrong_format: not MP3 or WAV: it is an HTML page": (b"<!doctype html><title>Sign in</title>" + b" " * 2_000_000,),
    "wrong_format: not MP3 or WAV: it is a FLAC file": (b"fLaC" + bytes(2_000_000),),
    "wrong_format: not MP3 or WAV: it is an unknown format": (bytes(2_000_000),),
}


@pytest.mark.parametrize(("reason", "body"), [(reason, body) for reason, bodies in REFUSED.items() for body in bodies])
@pytest.mark.parametrize("answers", [ranged, response])
def test_what_is_no_fit_recording_is_refused(reason: str, body: bytes, answers: object) -> None:
    """The duration is that of the sound, not what a first frame announces."""
    error = check(answers(body))  # type: ignore[operator]
    assert error == reason or "its header announces" in error


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("403 Forbidden", "http_error: HTTP 403: not public"),
        ("404 Not Found", "http_error: HTTP 404: not found"),
        ("410 Gone", "http_error: HTTP 410: gone"),
        ("416 Range Not Satisfiable", "http_error: HTTP 416"),
        ("400 Bad Request", "http_error: HTTP 400"),
        ("501 Not Implemented", "later: HTTP 501"),
        ("429 Too Many Requests", "later: HTTP 429"),
        ("503 Service Unavailable", "later: HTTP 503"),
    ],
)
def test_an_error_of_the_server_is_final_or_temporary(status: str, error: str) -> None:
    """A link that has expired stays so; a server that is busy does not."""
    assert check(response(b"", status=status)) == error


@pytest.mark.parametrize(
    "refusal",
    [
        response(b"", "Content-Range: bytes */240044", status="416 Range Not Satisfiable"),
        response(b"", status="416 Range Not Satisfiable"),
        response(b"", status="400 Bad Request"),
        response(b"", status="405 Method Not Allowed"),
        response(b"", status="406 Not Acceptable"),
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        response(b"", status="501 Not Implemented"),
    ],
)
@pytest.mark.parametrize("seconds", [20, 5])
def test_a_server_that_refuses_the_range_is_asked_without(refusal: bytes, seconds: int) -> None:
    """Once; then the recording decides."""

    def script(request: Request) -> Iterable[bytes]:
        yield refusal if "range" in request.headers else response(wav(seconds))

    assert check(script) == ("" if seconds > 10 else "too_short: 5.0 s long; more than 10 s are required")


def test_only_a_server_that_names_no_byte_has_an_empty_file() -> None:
    """Nothing is concluded from a refusal alone."""
    refusal = response(b"", "Content-Range: bytes */0", status="416 Range Not Satisfiable")
    assert check(refusal) == "wrong_format: it is an empty file"
    assert check(response(b"")) == "wrong_format: not MP3 or WAV: it is an empty file"


@pytest.mark.parametrize("interim", ["103 Early Hints", "102 Processing", "100 Continue"])
def test_interim_responses_are_skipped(interim: str) -> None:
    """However many of them precede the recording."""
    hints = f"HTTP/1.1 {interim}\r\nLink: </style.css>; rel=preload\r\n\r\n".encode() * 3
    assert check(hints + response(wav(20))) == ""
    assert check(hints + response(wav(5))) == "too_short: 5.0 s long; more than 10 s are required"
    assert check(hints + response(b"", status="404 Not Found")) == "http_error: HTTP 404: not found"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip", "gzip, br"])
def test_content_that_cannot_be_decoded_passes(encoding: str) -> None:
    """It was not seen; upstream may read it."""
    assert check(response(b"\x8b\x01compressed" * 900, f"Content-Encoding: {encoding}")) == ""


def test_a_connection_that_ends_early_is_tried_again() -> None:
    """Nothing is concluded from a part of the answer."""
    assert check([response(mp3(5), length=len(mp3(6))), HANG_UP]).startswith("later: ")


def test_an_answer_whose_place_in_the_file_is_unknown_passes() -> None:
    """What the beginning does not show is left to upstream."""
    assert check(response(bytes(1000), status="206 Partial Content")) == ""
    assert check(response(bytes(1000), "Content-Range: bytes 5-1004/2000", status="206 Partial Content")) == ""


def test_little_of_a_long_recording_is_read() -> None:
    """The header of a WAV decides; a server that sends without end is left."""
    endless = (bytes(65_536) for _ in range(10**9))
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + wav(100, declared=0xFFFFFFFF)
    assert check(piece for pieces in ([head], endless) for piece in pieces) == ""
