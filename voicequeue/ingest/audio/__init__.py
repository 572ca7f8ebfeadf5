"""Recognize a recording by its bytes: format, duration, completeness. Pure; fed with the bytes as they arrive.

The name and the Content-Type of a file are no evidence: sign-in pages send HTML for `.mp3`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from voicequeue.ingest.audio.mp3 import Mp3
from voicequeue.ingest.audio.sniff import SNIFFED, UNKNOWN, describe
from voicequeue.ingest.audio.wav import Wav, begins_wav

MP3, WAV = "MP3", "WAV"

#: The formats that upstream accepts. Source: its page on creating a voice.
ACCEPTED = frozenset({MP3, WAV})


@dataclass(frozen=True, slots=True)
class Audio:
    """The properties of a file. `format` is `MP3`, `WAV`, or a description of what it looks like.

    `seconds`: the duration of the sound that is present. `size`: in bytes. `missing`: a description of the missing part
    of a truncated file, empty for a complete one.
    """

    format: str
    seconds: float
    size: int
    sha256: str
    missing: str = ""

    @property
    def is_accepted(self) -> bool:
        """True if upstream accepts the format."""
        return self.format in ACCEPTED


class _Parser(Protocol):
    """The parser of one format."""

    def feed(self, piece: bytes) -> None: ...

    def seconds(self) -> float: ...

    def expected_seconds(self, file_size: float) -> float | None: ...

    def missing(self) -> str: ...


class AudioReader:
    """Read one file, fed in pieces of any size. Buffers a few kilobytes at most.

    `format` is None until enough bytes were fed to recognize it.
    """

    def __init__(self) -> None:
        self.format: str | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._start = b""
        self._parser: _Parser | None = None

    def feed(self, piece: bytes) -> None:
        """Process the next bytes."""
        self._hash.update(piece)
        self._size += len(piece)
        if self.format is not None:
            if self._parser is not None:
                self._parser.feed(piece)
                self._recheck()
            return
        self._start += piece
        if len(self._start) >= SNIFFED:
            self._start_parser()

    def seconds(self) -> float:
        """Return the duration of the sound that was fed."""
        return self._parser.seconds() if self._parser else 0.0

    def expected_seconds(self, file_size: float) -> float | None:
        """Return the duration that the beginning of a file of this size announces; None while it announces none.

        Exact for WAV, an estimate for MP3. The size is infinite if it is not known.
        """
        return self._parser.expected_seconds(file_size) if self._parser else None

    def finish(self) -> Audio:
        """Return the properties of the file, after its last byte."""
        if self.format is None:
            self._start_parser()
        if isinstance(self._parser, Mp3) and not self._parser.is_mp3():
            self.format, self._parser = UNKNOWN, None
        parser = self._parser
        return Audio(
            format=self.format or UNKNOWN,
            seconds=parser.seconds() if parser else 0.0,
            size=self._size,
            sha256=self._hash.hexdigest(),
            missing=parser.missing() if parser else "",
        )

    def _start_parser(self) -> None:
        start, self._start = self._start, b""
        self.format, self._parser = _recognize(start)
        if self._parser is not None:
            self._parser.feed(start)
            self._recheck()

    def _recheck(self) -> None:
        if not isinstance(self._parser, Mp3):
            return
        if self._parser.is_wav:
            rest = self._parser.unread
            self.format, self._parser = WAV, Wav(self._size - len(rest))
            self._parser.feed(rest)
        elif self._parser.other_format:
            self.format, self._parser = self._parser.other_format, None


def _recognize(start: bytes) -> tuple[str, _Parser | None]:
    if begins_wav(start):
        return WAV, Wav()
    if description := describe(start):
        return description, None
    return MP3, Mp3()  # which reports it if there are no frames
