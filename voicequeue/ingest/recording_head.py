"""Check the beginning of a recording: is it reachable, MP3 or WAV, long enough?

Reads as little as decides that, at most `HEAD_BYTES`. A recording is only refused for what was seen of it: where the
beginning does not decide, it passes.
"""

from __future__ import annotations

import math
import re
from typing import ClassVar

from voicequeue.errors import InvalidAudioError
from voicequeue.ingest.audio import ACCEPTED, WAV, Audio, AudioReader
from voicequeue.ingest.preflight import (
    HEADERS,
    LONGER_THAN_S,
    RecordingChecker,
    RecordingRules,
    TemporaryFailure,
    UndecodableError,
    decoded,
)
from voicequeue.net.http_types import Response, ResponseTooLarge, TruncatedResponse

#: The most bytes that are read: 10 s of MP3 at its highest bitrate, with a cover picture.
HEAD_BYTES = 524_288

#: An estimated duration passes from this one on; below it, the frames are counted.
_SURELY_LONG_S = 2 * LONGER_THAN_S

#: Statuses that say something about the recording itself. Others may be due to the Range.
_ABOUT_RECORDING = frozenset({401, 402, 403, 404, 407, 410, 451})

_EMPTY = re.compile(r"bytes \*/0+")
_CONTENT_RANGE = re.compile(r"bytes 0-[0-9]{1,15}/([0-9]{1,15})")


class _RangeRefused(Exception):
    """The server does not answer a request with a Range; it may answer one without."""


class _BeginningChecker(RecordingChecker):
    """Check the beginning of one recording at a time, without asking for a range."""

    _accepted = frozenset({200, 206})

    def _read(self, response: Response) -> Audio:
        reader, size, file_size = AudioReader(), 0, _file_size(response)
        is_readable = response.status == 200 or math.isfinite(file_size)
        try:
            for piece in decoded(response, HEAD_BYTES) if is_readable else ():
                reader.feed(piece)
                size += len(piece)
                if self._closed.is_set() or self._is_decided(reader, file_size):
                    return _passed(reader, size)
        except (ResponseTooLarge, UndecodableError):
            return _passed(reader, size)
        except TruncatedResponse:
            raise TemporaryFailure(InvalidAudioError("unreachable", "the connection ended early")) from None
        is_whole = response.status == 200 or size >= file_size
        return self._checked(reader.finish()) if is_whole else _passed(reader, size)

    def _is_decided(self, reader: AudioReader, file_size: float) -> bool:
        """Return whether the recording passes. Raises InvalidAudioError if it does not."""
        if reader.format is not None and reader.format not in ACCEPTED:
            raise InvalidAudioError("wrong_format", f"not MP3 or WAV: it is {reader.format}")
        expected_s = reader.expected_seconds(file_size)
        if reader.format == WAV and expected_s is not None:
            self._check_duration(expected_s)
            return True
        return reader.seconds() > LONGER_THAN_S or (expected_s or 0.0) > _SURELY_LONG_S


class HeadChecker(_BeginningChecker):
    """Check the beginning of one recording at a time, by the rules of a preflight. Safe to share between threads.

    Where a server refuses the range, it is asked once more without.
    """

    _headers: ClassVar = {**HEADERS, "Range": f"bytes=0-{HEAD_BYTES - 1}"}

    def __init__(self, rules: RecordingRules) -> None:
        super().__init__(rules)
        self._without_range = _BeginningChecker(rules)

    def close(self) -> None:
        """Abort the downloads in progress."""
        super().close()
        self._without_range.close()

    def attempt(self, url: str) -> Audio:
        """Return the recording behind the URL. Raises InvalidAudioError, TemporaryFailure."""
        try:
            return super().attempt(url)
        except _RangeRefused:
            return self._without_range.attempt(url)

    def _check_status(self, response: Response) -> None:
        if response.status == 416 and _EMPTY.fullmatch(response.headers.get("Content-Range", "").strip()):
            raise InvalidAudioError("wrong_format", "it is an empty file")
        try:
            super()._check_status(response)
        except InvalidAudioError:
            if response.status in _ABOUT_RECORDING:
                raise
            raise _RangeRefused from None
        except TemporaryFailure:
            if response.status == 501:
                raise _RangeRefused from None
            raise


def _passed(reader: AudioReader, size: int) -> Audio:
    """Return the recording as one that is fit: the rest of it is not read."""
    return Audio(reader.format or WAV, math.inf, size, sha256="")


def _file_size(response: Response) -> float:
    """Return the size of the whole file as the server states it; infinite if it does not."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return math.inf
    if response.status == 206:
        total = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        return float(total[1]) if total else math.inf
    length = response.integer_header("Content-Length")
    return math.inf if length is None else length
