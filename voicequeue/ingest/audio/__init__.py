"""What a recording is, by its bytes: format, duration, whether it is whole. Pure, and fed as they come.

The name and the Content-Type of a file say nothing: HTML behind `.mp3` is what sign-in pages send.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from voicequeue.ingest.audio.looks import SNIFFED, UNKNOWN, looks
from voicequeue.ingest.audio.mp3 import Mp3
from voicequeue.ingest.audio.wav import Wav

MP3, WAV = "MP3", "WAV"

#: What upstream takes. Source: its page on creating a voice.
TAKEN = frozenset({MP3, WAV})


@dataclass(frozen=True, slots=True)
class Audio:
    """What a file is: `format` is `MP3`, `WAV`, or else what it looks like, in words.

    `seconds` of sound that are really there; `size` in bytes; `missing` says what is not there of a file that
    was cut, and is empty for a whole one.
    """

    format: str
    seconds: float
    size: int
    sha256: str
    missing: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether upstream takes this format."""
        return self.format in TAKEN


class _Walk(Protocol):
    """Goes through the bytes of one format."""

    def feed(self, piece: bytes) -> None: ...

    def seconds(self) -> float: ...

    def missing(self) -> str: ...


class AudioReader:
    """Reads one file, whose bytes are fed in pieces of any size. It keeps no more than some kilobytes of them.

    `format` is known after the first bytes; it is None until then.
    """

    def __init__(self) -> None:
        self.format: str | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._start = b""
        self._walk: _Walk | None = None

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        self._hash.update(piece)
        self._size += len(piece)
        if self.format is not None:
            if self._walk is not None:
                self._walk.feed(piece)
                self._look_again()
            return
        self._start += piece
        if len(self._start) >= SNIFFED:
            self._begin()

    def end(self) -> Audio:
        """What it was, after the last byte."""
        if self.format is None:
            self._begin()
        if isinstance(self._walk, Mp3) and not self._walk.is_mp3():
            self.format, self._walk = UNKNOWN, None
        walk = self._walk
        return Audio(
            format=self.format or UNKNOWN,
            seconds=walk.seconds() if walk else 0.0,
            size=self._size,
            sha256=self._hash.hexdigest(),
            missing=walk.missing() if walk else "",
        )

    def _begin(self) -> None:
        start, self._start = self._start, b""
        self.format, self._walk = _sniffed(start)
        if self._walk is not None:
            self._walk.feed(start)
            self._look_again()

    def _look_again(self) -> None:
        if isinstance(self._walk, Mp3) and self._walk.is_other:
            self.format, self._walk = self._walk.is_other, None


def _sniffed(start: bytes) -> tuple[str, _Walk | None]:
    if start[:4] in (b"RIFF", b"RF64", b"BW64") and start[8:12] == b"WAVE":
        return WAV, Wav()
    if other := looks(start):
        return other, None
    return MP3, Mp3()  # which says so itself, if it finds none
