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
from voicequeue.ingest.preflight import HEADERS, LONGER_THAN_S, RecordingChecker, TemporaryFailure, decoded
from voicequeue.net.http_types import Response, ResponseTooLarge, TruncatedResponse

#: The most bytes that are read: 10 s of MP3 at its highest bitrate, with a cover picture.
HEAD_BYTES = 524_288

#: An estimated duration passes from this one on; below it, the frames are counted.
_SURELY_LONG_S = 2 * LONGER_THAN_S

_CONTENT_RANGE = re.compile(r"bytes 0-[0-9]{1,15}/([0-9]{1,15})")


class HeadChecker(RecordingChecker):
    """Check the beginning of one recording at a time, by the rules of a preflight. Safe to share between threads."""

    _headers: ClassVar = {**HEADERS, "Range": f"bytes=0-{HEAD_BYTES - 1}"}
    # 206: the range; 416: there is no first byte.
    _accepted = frozenset({200, 206, 416})

    def _read(self, response: Response) -> Audio:
        if response.status == 416:
            raise InvalidAudioError("wrong_format", "it is an empty file")
        reader, size, file_size = AudioReader(), 0, _file_size(response)
        is_readable = response.status == 200 or math.isfinite(file_size)
        try:
            for piece in decoded(response, HEAD_BYTES) if is_readable else ():
                reader.feed(piece)
                size += len(piece)
                if self._closed.is_set() or self._is_decided(reader, file_size):
                    return _passed(reader, size)
        except ResponseTooLarge:
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
