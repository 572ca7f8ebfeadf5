"""Parse WAV: duration and completeness."""

from __future__ import annotations

import math

#: Sizes from here on (and 0) mean "until the end of the file": the length was unknown when the header was written.
_OPEN_SIZE = 0x7FFFF000

#: The chunks that are read, and the most bytes of each.
_READ, _READ_MAX = frozenset({b"fmt ", b"ds64"}), 28

#: The most chunks that are skipped; no program writes more.
_CHUNKS_MAX = 1_000


def begins_wav(data: bytes, at: int = 0) -> bool:
    """Return whether a WAV file begins at this position."""
    return data[at : at + 4] in (b"RIFF", b"RF64", b"BW64") and data[at + 8 : at + 12] == b"WAVE"


class Wav:
    """A parser for RIFF, RF64 and BW64: reads `fmt `, `ds64` and `data`, and skips other chunks.

    Source: the Multimedia Programming Interface (RIFF), EBU Tech 3306 (RF64).
    """

    def __init__(self, start: int = 0) -> None:
        """Parse a file whose header is at the position `start`."""
        self._buffer = b""
        self._chunks = 0
        self._skip = 12
        self._bytes_a_second = 0
        self._long_size = 0
        self._announced: float | None = None  # bytes of sound; infinite: until the end
        self._remaining = 0.0  # bytes of sound that were not fed yet
        self._sound = 0
        self._fed = self._sound_at = start  # bytes, and the position of the sound

    def feed(self, piece: bytes) -> None:
        """Process the next bytes."""
        self._fed += len(piece)
        rest = self._after_skipped(self._buffer + piece)
        while len(rest) >= 8 and self._chunks < _CHUNKS_MAX:
            name, size = rest[:4], int.from_bytes(rest[4:8], "little")
            if name in _READ and len(rest) < 8 + min(size, _READ_MAX):
                break
            self._chunks += 1
            if name == b"data" and self._announced is None:
                self._announced = self._remaining = self._size_of_sound(size)
                self._sound_at = self._fed - len(rest) + 8
                self._skip = 8
            else:
                self._read(name, rest[8 : 8 + min(size, _READ_MAX)])
                self._skip = 8 + size + size % 2
            rest = self._after_skipped(rest)
        self._buffer = rest if self._chunks < _CHUNKS_MAX else b""

    def _after_skipped(self, rest: bytes) -> bytes:
        """Return the bytes after those to skip and after the sound."""
        skipped = min(self._skip, len(rest))
        self._skip -= skipped
        if self._remaining and not self._skip:
            sound = int(min(self._remaining, len(rest) - skipped))
            self._sound += sound
            self._remaining -= sound
            skipped += sound
            if not self._remaining:
                self._skip = self._sound % 2
                return self._after_skipped(rest[skipped:])
        return rest[skipped:]

    def _size_of_sound(self, size: int) -> float:
        if size == 0xFFFFFFFF and self._long_size:
            return self._long_size
        return math.inf if size == 0 or size >= _OPEN_SIZE else size

    def _read(self, name: bytes, chunk: bytes) -> None:
        if name == b"ds64":
            self._long_size = int.from_bytes(chunk[8:16], "little")
        elif name == b"fmt ":
            rate, a_second = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[8:12], "little")
            self._bytes_a_second = a_second or rate * int.from_bytes(chunk[12:14], "little")

    def seconds(self) -> float:
        """Return the duration of the sound that is present."""
        return self._sound / self._bytes_a_second if self._bytes_a_second else 0.0

    def expected_seconds(self, file_size: float) -> float | None:
        """Return the duration of a file of this size by its header; None while that is not known."""
        if self._announced is None or not self._bytes_a_second:
            return None
        sound = min(self._announced, max(0.0, file_size - self._sound_at))
        return None if math.isinf(sound) else sound / self._bytes_a_second

    def missing(self) -> str:
        """Return a description of the missing part, '' if the file is complete."""
        if self._announced is None or not self._bytes_a_second:
            return "it ends before the sound begins"
        if 0 < self._remaining < math.inf:
            return f"its header announces {self._announced:,.0f} bytes of sound, {self._sound:,} are present"
        return ""
