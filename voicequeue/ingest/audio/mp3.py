"""Parse MP3: duration and completeness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from voicequeue.ingest.audio.sniff import SNIFFED, UNKNOWN, describe
from voicequeue.ingest.audio.wav import begins_wav

#: The bytes that are needed to recognize a tag.
_TAG_HEAD = 32

#: The longest frame (bytes).
_FRAME_MAX = 1_441

#: The most tags that are skipped; no program writes more.
_TAGS_MAX = 1_000

#: The most garbage before the first frame, and in all (bytes).
_LEAD_MAX, _GARBAGE_MAX = 65_536, 1_048_576

#: The share of announced frames that may be missing, besides one: encoders count differently.
_SLACK = 0.005

#: Bitrates in kbit/s, by their index in the header. Source: ISO/IEC 11172-3 and 13818-3, layer III.
_BITRATES_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44_100, 48_000, 32_000)

#: The divisor of version 1's sample rates, by the MPEG version bits.
_SLOWER = {3: 1, 2: 2, 0: 4}


@dataclass(frozen=True, slots=True)
class _Kind:
    """The properties that all frames of a file share. `lengths`: in bytes, by the two middle bytes of the header."""

    version: int
    rate: int
    lengths: Mapping[int, int]

    @property
    def frame_s(self) -> float:
        return (1152 if self.version == 3 else 576) / self.rate


@cache
def _kinds() -> Mapping[int, _Kind]:
    """Return the kinds by the two middle bytes of a header, for layer III alone."""
    kinds: dict[int, _Kind] = {}
    for version, slower in _SLOWER.items():
        for index, fastest in enumerate(_RATES):
            rate = fastest // slower
            lengths = {
                (0xE0 | version << 3 | 1 << 1 | checked) << 8 | bitrate << 4 | index << 2 | low: _length(
                    version, bitrate, rate, low >> 1
                )
                for checked in (0, 1)
                for bitrate in range(1, 15)
                for low in range(4)
            }
            kinds |= dict.fromkeys(lengths, _Kind(version, rate, lengths))
    return kinds


def _length(version: int, bitrate: int, rate: int, padding: int) -> int:
    kbits, factor = (_BITRATES_1, 144_000) if version == 3 else (_BITRATES_2, 72_000)
    return factor * kbits[bitrate - 1] // rate + padding


def _tag_length(data: bytes, at: int) -> int:
    """Return the length of the tag (ID3v2, APE) at this position, 0 if there is none. Needs 32 bytes."""
    if data[at : at + 3] == b"ID3" and max(data[at + 6 : at + 10], default=0) < 0x80:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte
        return 10 + size + 10 * bool(data[at + 5] & 0x10)
    if data[at : at + 8] == b"APETAGEX":
        return 32 + int.from_bytes(data[at + 12 : at + 16], "little")
    return 0


@dataclass(frozen=True, slots=True)
class _Announced:
    """The totals in a first frame without sound; 0 if unknown. `bytes` include that frame."""

    frames: int = 0
    bytes: int = 0


def _announced(frame: bytes) -> _Announced | None:
    """Return the totals in a frame. Source: the Xing/Info header of LAME, and Fraunhofer's VBRI."""
    if frame[36:40] == b"VBRI":
        return _Announced(int.from_bytes(frame[50:54], "big"), int.from_bytes(frame[46:50], "big"))
    at = next((at for at in (13, 21, 36, 23, 38) if frame[at : at + 4] in (b"Xing", b"Info")), 0)
    if not at:
        return None
    flags = frame[at + 7]
    frames = int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else 0
    at += 12 if flags & 1 else 8
    return _Announced(frames, int.from_bytes(frame[at : at + 4], "big") if flags & 2 else 0)


class Mp3:
    """A parser that follows the frames, and skips tags, the zeros behind them, and a limited amount of garbage."""

    def __init__(self) -> None:
        self.other_format = ""  # a description, once the file is known not to be MP3
        self.is_wav = False  # whether `unread` begins a WAV file, behind a tag
        self._kind: _Kind | None = None
        self._announced = _Announced()
        self._rest = b""
        self._skip = 0  # bytes of the current frame or tag that were not fed yet
        self._in_frame = False
        self._frames = self._bytes = self._garbage = self._tags = self._tag_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Process the next bytes."""
        if self._garbage > _GARBAGE_MAX or self._tags > _TAGS_MAX:
            return
        if self._skip >= len(piece):
            self._skip -= len(piece)
            return
        data = self._rest + piece[self._skip :]
        at = self._parse(data)
        self._skip, self._rest = max(0, at - len(data)), data[at:]

    @property
    def unread(self) -> bytes:
        """The bytes that were fed and not processed yet."""
        return self._rest

    def _parse(self, data: bytes) -> int:
        """Return the position to continue at: beyond `data`, or where more bytes are needed."""
        at, end = 0, len(data)
        while at + _TAG_HEAD <= end and not self.other_format:
            start = at
            if self._kind is None and self._tags:
                at = self._skip_padding(data, at)
                if self.is_wav:
                    break
            if self._kind is not None:
                at = self._skip_frames(data, at, self._kind)
            at += 0 if at + _TAG_HEAD > end else self._skip_tag(data, at)
            if at == start:
                at, is_sure = self._resync(data, at)
                if not is_sure:
                    break
        return at

    def _skip_padding(self, data: bytes, at: int) -> int:
        """Return the position behind the zeros that follow a tag, at a WAV file if one begins there."""
        if not self._garbage:
            padding = len(data) - at - len(data[at:].lstrip(b"\0"))
            at += padding
            self._tag_bytes += padding
            self.is_wav = begins_wav(data, at)
        return at

    def _skip_frames(self, data: bytes, at: int, kind: _Kind) -> int:
        start, frames, lengths, last = at, 0, kind.lengths, len(data) - 3
        while at <= last and data[at] == 0xFF:
            length = lengths.get(data[at + 1] << 8 | data[at + 2])
            if length is None:
                break
            frames += 1
            at += length
        self._frames += frames
        self._bytes += at - start
        self._in_frame = self._in_frame or frames > 0
        return at

    def _skip_tag(self, data: bytes, at: int) -> int:
        length = _tag_length(data, at)
        if length:
            self._in_frame = False
            self._tags += 1
            self._tag_bytes += length
        return length

    def _resync(self, data: bytes, start: int) -> tuple[int, bool]:
        """Return the position of the next frame and True, or False and where more bytes are needed."""
        self._in_frame = False
        if self._kind is None and not self._garbage:
            if self._tags and len(data) - start < SNIFFED:
                return start, False
            self.other_format = describe(data[start : start + SNIFFED])
        at, kind = self._next_frame(data, start)
        self._garbage += at - start
        if kind is None:
            if self._kind is None and self._garbage > _LEAD_MAX:
                self.other_format = UNKNOWN
            return at, False
        return (self._first_frame(kind, data, at) if self._kind is None else at), True

    def _next_frame(self, data: bytes, at: int) -> tuple[int, _Kind | None]:
        """Find two consecutive headers that agree; a single one occurs in any data."""
        last = len(data) - 3
        while (position := data.find(b"\xff", at, last + 1)) >= 0:
            if kind := self._kind_at(data, position):
                follows = position + kind.lengths[data[position + 1] << 8 | data[position + 2]]
                if follows > last:
                    return position, None
                if self._kind_at(data, follows) is kind:
                    return position, kind
            at = position + 1
        return max(at, last + 1), None

    def _kind_at(self, data: bytes, at: int) -> _Kind | None:
        kind = _kinds().get(data[at + 1] << 8 | data[at + 2]) if data[at] == 0xFF else None
        return kind if self._kind in (None, kind) else None

    def _first_frame(self, kind: _Kind, data: bytes, at: int) -> int:
        """Process the first frame, which holds no sound if it announces the others."""
        self._kind = kind
        length = kind.lengths[data[at + 1] << 8 | data[at + 2]]
        announced = _announced(data[at : at + length])
        if announced is None:
            return at
        self._announced, self._bytes = announced, length
        return at + length

    @property
    def _whole_frames(self) -> int:
        """The number of frames without a truncated last one: many encoders leave such an end."""
        return self._frames - (self._in_frame and self._skip > 0)

    def seconds(self) -> float:
        """Return the duration of the sound that is present."""
        return self._whole_frames * self._kind.frame_s if self._kind else 0.0

    def expected_seconds(self, file_size: float) -> float | None:
        """Return the duration of a file of this size: as its first frame announces it, or by the mean length of the
        frames so far, the shorter of both; None if neither is known. The frames that follow may differ."""
        if self._kind is None or not self._frames:
            return None
        announced = self._announced.frames or math.inf
        sound = file_size - self._tag_bytes - self._garbage
        frames = min(announced, sound / self._bytes * self._frames)
        return None if math.isinf(frames) else frames * self._kind.frame_s

    def missing(self) -> str:
        """Return a description of the missing part, '' if the file is complete."""
        announced, frames = self._announced, self._whole_frames
        if frames < announced.frames * (1 - _SLACK) - 1:
            return f"its header announces {announced.frames:,} frames of sound, {frames:,} are present"
        if not announced.frames and self._bytes < announced.bytes * (1 - _SLACK) - _FRAME_MAX:
            return f"its header announces {announced.bytes:,} bytes of sound, {self._bytes:,} are present"
        return ""

    def is_mp3(self) -> bool:
        """Return whether there was a frame."""
        return self._kind is not None
