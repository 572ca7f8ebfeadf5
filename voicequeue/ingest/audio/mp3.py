"""MP3: how long it is, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from voicequeue.ingest.audio.looks import SNIFFED, UNKNOWN, looks

#: So many bytes tell whether a tag begins.
_TAG_HEAD = 32

#: The longest frame (bytes).
_FRAME_MAX = 1_441

#: So many tags are passed over; no program writes more.
_TAGS_MAX = 1_000

#: How long garbage before the first frame may be, and in all (bytes).
_LEAD_MAX, _GARBAGE_MAX = 65_536, 1_048_576

#: A header may promise this share more frames than there are, and one: encoders count differently.
_SLACK = 0.005

#: kbit/s by the index in the header. Source: ISO/IEC 11172-3 and 13818-3, layer III.
_BITRATES_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44_100, 48_000, 32_000)

#: MPEG version bits: how many times slower than version 1 it samples.
_SLOWER = {3: 1, 2: 2, 0: 4}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What stays the same from frame to frame. `lengths` of frames in bytes, by the header's two middle bytes."""

    version: int
    rate: int
    lengths: Mapping[int, int]

    @property
    def frame_s(self) -> float:
        return (1152 if self.version == 3 else 576) / self.rate


@cache
def _kinds() -> Mapping[int, _Kind]:
    """By the two middle bytes of a header; those that are no layer III are not in it."""
    found: dict[int, _Kind] = {}
    for version, slower in _SLOWER.items():
        for place, fastest in enumerate(_RATES):
            rate = fastest // slower
            lengths = {
                (0xE0 | version << 3 | 1 << 1 | checked) << 8 | bitrate << 4 | place << 2 | low: _length(
                    version, bitrate, rate, low >> 1
                )
                for checked in (0, 1)
                for bitrate in range(1, 15)
                for low in range(4)
            }
            found |= dict.fromkeys(lengths, _Kind(version, rate, lengths))
    return found


def _length(version: int, bitrate: int, rate: int, padding: int) -> int:
    kbits, factor = (_BITRATES_1, 144_000) if version == 3 else (_BITRATES_2, 72_000)
    return factor * kbits[bitrate - 1] // rate + padding


def _tag_length(data: bytes, at: int) -> int:
    """How long a tag (ID3v2, APE) that begins there is; 0 where none does. Needs 32 bytes."""
    if data[at : at + 3] == b"ID3" and max(data[at + 6 : at + 10], default=0) < 0x80:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte
        return 10 + size + 10 * bool(data[at + 5] & 0x10)
    if data[at : at + 8] == b"APETAGEX":
        return 32 + int.from_bytes(data[at + 12 : at + 16], "little")
    return 0


@dataclass(frozen=True, slots=True)
class _Promised:
    """What a first frame without sound says of those that follow it; 0: nothing. `bytes` count it as well."""

    frames: int = 0
    bytes: int = 0


def _promised(frame: bytes) -> _Promised | None:
    """Source: the Xing/Info header as LAME writes it, and VBRI as Fraunhofer's encoder does."""
    if frame[36:40] == b"VBRI":
        return _Promised(int.from_bytes(frame[50:54], "big"), int.from_bytes(frame[46:50], "big"))
    at = next((at for at in (13, 21, 36, 23, 38) if frame[at : at + 4] in (b"Xing", b"Info")), 0)
    if not at:
        return None
    flags = frame[at + 7]
    frames = int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else 0
    at += 12 if flags & 1 else 8
    return _Promised(frames, int.from_bytes(frame[at : at + 4], "big") if flags & 2 else 0)


class Mp3:
    """Goes from frame to frame, over tags and, within limits, garbage."""

    def __init__(self) -> None:
        self.is_other = ""  # what it looks like instead, once that is clear
        self._kind: _Kind | None = None
        self._promised = _Promised()
        self._rest = b""
        self._skip = 0  # bytes of a frame or tag that are still to come
        self._in_frame = False
        self._frames = self._bytes = self._garbage = self._tags = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        if self._garbage > _GARBAGE_MAX or self._tags > _TAGS_MAX:
            return
        if self._skip >= len(piece):
            self._skip -= len(piece)
            return
        data = self._rest + piece[self._skip :]
        at = self._walked(data)
        self._skip, self._rest = max(0, at - len(data)), data[at:]

    def _walked(self, data: bytes) -> int:
        """Where it goes on: beyond what is here, or where more is needed to tell."""
        at, end = 0, len(data)
        while at + _TAG_HEAD <= end and not self.is_other:
            begun = at
            if self._kind is not None:
                at = self._over_frames(data, at, self._kind)
            at += 0 if at + _TAG_HEAD > end else self._tag(data, at)
            if at == begun:
                at, is_sure = self._synced(data, at)
                if not is_sure:
                    break
        return at

    def _over_frames(self, data: bytes, at: int, kind: _Kind) -> int:
        begun, frames, lengths, last = at, 0, kind.lengths, len(data) - 3
        while at <= last and data[at] == 0xFF:
            length = lengths.get(data[at + 1] << 8 | data[at + 2])
            if length is None:
                break
            frames += 1
            at += length
        self._frames += frames
        self._bytes += at - begun
        self._in_frame = self._in_frame or frames > 0
        return at

    def _tag(self, data: bytes, at: int) -> int:
        length = _tag_length(data, at)
        if length:
            self._in_frame = False
            self._tags += 1
        return length

    def _synced(self, data: bytes, begun: int) -> tuple[int, bool]:
        """Where the next frame begins, and True; or from where on more is needed to tell."""
        self._in_frame = False
        if self._kind is None and not self._garbage:
            self.is_other = looks(data[begun : begun + SNIFFED])
        at, kind = self._next_frame(data, begun)
        self._garbage += at - begun
        if kind is None:
            if self._kind is None and self._garbage > _LEAD_MAX:
                self.is_other = UNKNOWN
            return at, False
        return (self._begin(kind, data, at) if self._kind is None else at), True

    def _next_frame(self, data: bytes, at: int) -> tuple[int, _Kind | None]:
        """Two headers in a row that agree; one alone is found in any data."""
        last = len(data) - 3
        while (found := data.find(b"\xff", at, last + 1)) >= 0:
            if kind := self._kind_at(data, found):
                follows = found + kind.lengths[data[found + 1] << 8 | data[found + 2]]
                if follows > last:
                    return found, None
                if self._kind_at(data, follows) is kind:
                    return found, kind
            at = found + 1
        return max(at, last + 1), None

    def _kind_at(self, data: bytes, at: int) -> _Kind | None:
        kind = _kinds().get(data[at + 1] << 8 | data[at + 2]) if data[at] == 0xFF else None
        return kind if self._kind in (None, kind) else None

    def _begin(self, kind: _Kind, data: bytes, at: int) -> int:
        """The first frame; one that only tells of the others holds no sound."""
        self._kind = kind
        length = kind.lengths[data[at + 1] << 8 | data[at + 2]]
        promised = _promised(data[at : at + length])
        if promised is None:
            return at
        self._promised, self._bytes = promised, length
        return at + length

    @property
    def _whole_frames(self) -> int:
        """Without the last one, if it was cut: most players and encoders leave such an end."""
        return self._frames - (self._in_frame and self._skip > 0)

    def seconds(self) -> float:
        """Of sound that is there."""
        return self._whole_frames * self._kind.frame_s if self._kind else 0.0

    def missing(self) -> str:
        """What is not there, in words; '' if nothing is."""
        promised, frames = self._promised, self._whole_frames
        if frames < promised.frames * (1 - _SLACK) - 1:
            return f"its header announces {promised.frames:,} frames of sound, {frames:,} are there"
        if not promised.frames and self._bytes < promised.bytes * (1 - _SLACK) - _FRAME_MAX:
            return f"its header announces {promised.bytes:,} bytes of sound, {self._bytes:,} are there"
        return ""

    def is_mp3(self) -> bool:
        """Whether there was a frame."""
        return self._kind is not None
