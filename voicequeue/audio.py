"""What a recording is, by its bytes: format, duration, whether it is whole. Pure, and fed as they come.

The name and the Content-Type of a file say nothing: HTML behind `.mp3` is what sign-in pages send.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

MP3, WAV = "MP3", "WAV"

#: What upstream takes. Source: its page on creating a voice.
TAKEN = frozenset({MP3, WAV})

UNKNOWN = "no audio that is known"

#: So many bytes tell the format, and so many whether a tag begins.
_SNIFFED, _TAG_HEAD = 512, 32

#: The longest frame of an MP3 (bytes).
_FRAME_MAX = 1_441

#: How long garbage before the first frame of an MP3 may be, and in all (bytes).
_LEAD_MAX, _GARBAGE_MAX = 65_536, 1_048_576

#: A header may promise this share more frames than there are, and one: encoders count differently.
_SLACK = 0.005

#: Sizes from here on (and 0) say "until the end": a WAV that was written while nobody knew its length.
_OPEN_SIZE = 0x7FFFF000

#: What else people send, by how it begins.
_OTHERS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), words)
    for pattern, words in (
        (rb"fLaC", "a FLAC file"),
        (rb"OggS", "an Ogg file"),
        (rb"....ftyp", "an M4A or MP4 file"),
        (rb"\x1aE\xdf\xa3", "a WebM or Matroska file"),
        (rb"FORM....AIF", "an AIFF file"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMA file"),
        (rb"#!AMR", "an AMR file"),
        (rb"caff", "a CAF file"),
        (rb"\.snd", "an AU file"),
        (rb"ADIF|\xff[\xf0\xf1\xf8\xf9]", "an AAC file"),
        (rb"\xff[\xf4\xf5\xfc\xfd]", "an MP2 file"),
        (rb"RIFX....WAVE", "a big-endian WAV"),
        (rb"RIFF....AVI ", "an AVI file"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "a gzip archive"),
        (rb"%PDF", "a PDF"),
        (rb"\xff\xd8\xff|\x89PNG|GIF8", "a picture"),
        (rb"(\xef\xbb\xbf)?\s*(<!--.*?)?<(!doctype html|html|head|body|script|title|meta)\b", "an HTML page"),
        (rb"(\xef\xbb\xbf)?\s*<(\?xml|[a-z])", "XML or HTML"),
        (rb"(\xef\xbb\xbf)?\s*[\[{]\s*[\"{}\]\[]", "JSON"),
        (rb"[\t\r\n\x20-\x7e]+\Z", "plain text"),
    )
)


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
        if len(self._start) >= _SNIFFED:
            self._begin()

    def end(self) -> Audio:
        """What it was, after the last byte."""
        if self.format is None:
            self._begin()
        if isinstance(self._walk, _Mp3) and not self._walk.is_mp3():
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
        if isinstance(self._walk, _Mp3) and self._walk.is_other:
            self.format, self._walk = self._walk.is_other, None


def _sniffed(start: bytes) -> tuple[str, _Walk | None]:
    if start[:4] in (b"RIFF", b"RF64", b"BW64") and start[8:12] == b"WAVE":
        return WAV, _Wav()
    if other := _other(start):
        return other, None
    return MP3, _Mp3()  # which says so itself, if it finds none


def _other(start: bytes) -> str:
    if not start:
        return "an empty file"
    return next((words for pattern, words in _OTHERS if pattern.match(start)), "")


# ── WAV ───────────────────────────────────────────────────────────────────────────────────────────


class _Wav:
    """RIFF, RF64 and BW64: chunks of `fmt `, `data` and others that are passed over.

    Source: the Multimedia Programming Interface (RIFF), EBU Tech 3306 (RF64).
    """

    def __init__(self) -> None:
        self._kept = b""
        self._pass_over = 12
        self._bytes_a_second = 0
        self._long_size: int | None = None
        self._declared: int | None = None  # of the sound; -1: until the end
        self._sound = 0
        self._left = 0  # of the data chunk

    def feed(self, piece: bytes) -> None:
        rest = self._kept + piece
        while rest := self._after_what_is_passed_over(rest):
            if len(rest) < 8:
                break
            name, size = rest[:4], int.from_bytes(rest[4:8], "little")
            if name == b"data" and self._declared is None:
                self._begin_sound(size)
                rest = rest[8:]
            elif name in (b"fmt ", b"ds64"):
                if len(rest) < 8 + min(size, 28):
                    break
                self._read(name, rest[8 : 8 + min(size, 28)])
                self._pass_over = 8 + size + size % 2
            else:
                self._pass_over = 8 + size + size % 2
        self._kept = rest

    def _after_what_is_passed_over(self, rest: bytes) -> bytes:
        if self._declared == -1:
            self._sound += len(rest)
            return b""
        if self._left:
            came = min(self._left, len(rest))
            self._sound += came
            self._left -= came
            rest = rest[came:]
        passed = min(self._pass_over, len(rest))
        self._pass_over -= passed
        return rest[passed:]

    def _begin_sound(self, size: int) -> None:
        if size == 0xFFFFFFFF and self._long_size:
            size = self._long_size
        elif size == 0 or size >= _OPEN_SIZE:
            self._declared = -1
            return
        self._declared = self._left = size
        self._pass_over = size % 2

    def _read(self, name: bytes, chunk: bytes) -> None:
        if name == b"ds64":
            self._long_size = int.from_bytes(chunk[8:16], "little")
        else:
            rate, a_second = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[8:12], "little")
            self._bytes_a_second = a_second or rate * int.from_bytes(chunk[12:14], "little")

    def seconds(self) -> float:
        return self._sound / self._bytes_a_second if self._bytes_a_second else 0.0

    def missing(self) -> str:
        if self._declared is None or not self._bytes_a_second:
            return "it ends before the sound begins"
        if self._left:
            return f"its header announces {self._declared:,} bytes of sound, {self._sound:,} are there"
        return ""


# ── MP3 ───────────────────────────────────────────────────────────────────────────────────────────

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


class _Mp3:
    """Goes from frame to frame, over tags and, within limits, garbage."""

    def __init__(self) -> None:
        self.is_other = ""  # what it looks like instead, once that is clear
        self._kind: _Kind | None = None
        self._promised = _Promised()
        self._rest = b""
        self._skip = 0  # bytes of a frame or tag that are still to come
        self._in_frame = False
        self._frames = self._bytes = self._garbage = 0

    def feed(self, piece: bytes) -> None:
        if self._garbage > _GARBAGE_MAX:
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
        return length

    def _synced(self, data: bytes, begun: int) -> tuple[int, bool]:
        """Where the next frame begins, and True; or from where on more is needed to tell."""
        self._in_frame = False
        if self._kind is None and not self._garbage:
            self.is_other = _other(data[begun : begun + _SNIFFED])
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
        return self._whole_frames * self._kind.frame_s if self._kind else 0.0

    def missing(self) -> str:
        promised, frames = self._promised, self._whole_frames
        if frames < promised.frames * (1 - _SLACK) - 1:
            return f"its header announces {promised.frames:,} frames of sound, {frames:,} are there"
        if not promised.frames and self._bytes < promised.bytes * (1 - _SLACK) - _FRAME_MAX:
            return f"its header announces {promised.bytes:,} bytes of sound, {self._bytes:,} are there"
        return ""

    def is_mp3(self) -> bool:
        return self._kind is not None
