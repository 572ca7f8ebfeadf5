"""WAV: how long it is, and whether it is whole."""

from __future__ import annotations

import math

#: Sizes from here on (and 0) say "until the end": a WAV that was written while nobody knew its length.
_OPEN_SIZE = 0x7FFFF000

#: The chunks that are read, and how much of them.
_READ, _READ_MAX = frozenset({b"fmt ", b"ds64"}), 28

#: So many chunks are passed over; no program writes more.
_CHUNKS_MAX = 1_000


class Wav:
    """RIFF, RF64 and BW64: chunks of `fmt `, `data` and others that are passed over.

    Source: the Multimedia Programming Interface (RIFF), EBU Tech 3306 (RF64).
    """

    def __init__(self) -> None:
        self._kept = b""
        self._chunks = 0
        self._pass_over = 12
        self._bytes_a_second = 0
        self._long_size = 0
        self._announced: float | None = None  # bytes of sound; infinite: until the end
        self._left = 0.0  # of them
        self._sound = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        rest = self._beyond(self._kept + piece)
        while len(rest) >= 8 and self._chunks < _CHUNKS_MAX:
            name, size = rest[:4], int.from_bytes(rest[4:8], "little")
            if name in _READ and len(rest) < 8 + min(size, _READ_MAX):
                break
            self._chunks += 1
            if name == b"data" and self._announced is None:
                self._announced = self._left = self._size_of_sound(size)
                self._pass_over = 8
            else:
                self._read(name, rest[8 : 8 + min(size, _READ_MAX)])
                self._pass_over = 8 + size + size % 2
            rest = self._beyond(rest)
        self._kept = rest if self._chunks < _CHUNKS_MAX else b""

    def _beyond(self, rest: bytes) -> bytes:
        """What follows on what is passed over, and on the sound."""
        passed = min(self._pass_over, len(rest))
        self._pass_over -= passed
        if self._left and not self._pass_over:
            came = int(min(self._left, len(rest) - passed))
            self._sound += came
            self._left -= came
            passed += came
            if not self._left:
                self._pass_over = self._sound % 2
                return self._beyond(rest[passed:])
        return rest[passed:]

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
        """Of sound that is there."""
        return self._sound / self._bytes_a_second if self._bytes_a_second else 0.0

    def missing(self) -> str:
        """What is not there, in words; '' if nothing is."""
        if self._announced is None or not self._bytes_a_second:
            return "it ends before the sound begins"
        if 0 < self._left < math.inf:
            return f"its header announces {self._announced:,.0f} bytes of sound, {self._sound:,} are there"
        return ""
