"""Recognize the encoding of a text file before its first row, and decode it as a stream."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from voicequeue.ingest.row import UnreadableFileError

#: Decoding errors become half characters, which invalidate their own row only (`voicequeue/texts.py`).
_AS_HALF = "voicequeue-half"

_PIECE = 1_048_576
_SAMPLE = 32_768

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: Encodings that are named to the user, in order of preference, with the name that people know. What is certainly
#: Western is recognized before (`_is_western`).
_NAMES = {
    "cp1250": "Windows-1250 (Central European)",
    "cp1252": "Windows-1252 (Western European)",
    "mac_roman": "Mac Roman",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)",
    "cp1254": "Windows-1254 (Turkish)",
    "cp932": "Shift JIS (Japanese)",
    "gb18030": "GB 18030 (Chinese)",
    "big5": "Big5 (Chinese)",
    "cp949": "Korean (cp949)",
    "cp850": "DOS (cp850)",
}

#: Encodings of Western letters, which other alphabets resemble: others with the same score are preferred.
_LATIN = {"cp1254": 1, "cp1252": 2}

_WESTERN = re.compile(r"[\x00-\x7f\xa0-\xff€‚„…‰Š‹ŒŽ‘’“”–—™š›œžŸ]*")
_NOT_IN_WORDS = re.compile(r"[\xa2-\xa6\xa8-\xaa\xac-\xaf\xb1-\xb6\xb8-\xba\xbc-\xbe\xd7\xf7\xd0\xdd\xde\xf0\xfd\xfe]")
_RUN_OF_LETTERS = re.compile(r"[\xc0-\xff]{4}")


def _half(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udc80" * (error.end - error.start), error.end
    raise error


codecs.register_error(_AS_HALF, _half)


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of a file. `codec`: Python's name. `has_bom`: whether it begins with a byte order mark."""

    codec: str
    has_bom: bool

    @property
    def is_utf8(self) -> bool:
        """True if the file is UTF-8, with or without a mark."""
        return self.codec == "utf-8-sig"

    @property
    def is_ascii_based(self) -> bool:
        """True if controls are single bytes, as in UTF-8."""
        return not self.codec.startswith(("utf-16", "utf-32"))

    def reader(self, stream: io.BufferedReader) -> io.TextIOWrapper:
        """Return the text of a stream, with its line ends. Invalid bytes invalidate their own row only."""
        errors = "surrogateescape" if self.is_utf8 else _AS_HALF
        return io.TextIOWrapper(stream, encoding=self.codec, errors=errors, newline="")


def recognize(start: bytes, encoding: str | None) -> Encoding:
    """Return the encoding of a file that begins with `start`; `encoding` is the caller's choice.

    Raises UnreadableFileError.
    """
    codec = None if encoding is None else _lookup(encoding)
    for bom, marked_codec in _BOMS:
        if start.startswith(bom):
            return _marked(marked_codec, codec)
    if codec is not None:
        return Encoding("utf-8-sig" if codec == "utf-8" else codec, has_bom=False)
    if utf16 := _utf16_without_bom(start):
        raise UnreadableFileError(
            f"the file is UTF-16 without a byte order mark; save it as CSV UTF-8, or pass --encoding {utf16}"
        )
    return Encoding("utf-8-sig", has_bom=False)


def _lookup(encoding: str) -> str:
    try:
        codec = codecs.lookup(encoding)
    except (LookupError, ValueError):
        codec = None
    if codec is None or not getattr(codec, "_is_text_encoding", True) or codec.name in _NOT_OF_FILES:
        raise UnreadableFileError(
            f"--encoding {encoding[:40]!r} is unknown; examples are utf-8, utf-16, cp1252 (Windows, Western European), "
            "cp1250 (Central European), mac_roman, shift_jis, gb18030"
        )
    return codec.name


_NOT_OF_FILES = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "utf-7", "hz"})


def _marked(codec: str, expected: str | None) -> Encoding:
    if codec == "utf-32":
        raise UnreadableFileError("the file is UTF-32; save it as CSV UTF-8")
    family = codec.removesuffix("-sig")
    if expected is not None and not expected.replace("_", "-").startswith(family):
        raise UnreadableFileError(
            f"the file begins with the mark of {family.upper()}, so it is not {expected}; leave out --encoding"
        )
    return Encoding(codec, has_bom=True)


def _utf16_without_bom(start: bytes) -> str | None:
    """Return the codec of a text in which every second byte is zero, as in UTF-16 of Western languages."""
    sample = start[:4_096]
    zeros = sample[1::2].count(0), sample[::2].count(0)
    if len(sample) < 4 or max(zeros) * 4 < len(sample) or min(zeros) * 8 > max(zeros):
        return None
    return "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"


def check_whole(file: BinaryIO, encoding: Encoding) -> None:
    """Decode a file to its end, and return to where it was. Raises UnreadableFileError for the first invalid byte.

    A character that is cut off by the end of the file is left to its row.
    """
    start = file.tell()
    codec = encoding.codec.removesuffix("-sig")  # which would not count the mark
    decoder = codecs.getincrementaldecoder(codec)("strict")
    offset = start
    for piece in iter(partial(file.read, _PIECE), b""):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise UnreadableFileError(_complaint(file, start, offset - pending + error.start, encoding)) from None
        offset += len(piece)
    file.seek(start)


def _complaint(file: BinaryIO, start: int, offset: int, encoding: Encoding) -> str:
    line = _line_at(file, start, offset, encoding)
    if not encoding.is_utf8:
        name = "UTF-16" if encoding.codec.startswith("utf-16") else encoding.codec
        return f"line {line} is not {name}; pass the --encoding that the file was saved with, or save it as CSV UTF-8"
    file.seek(max(start, offset - _SAMPLE))
    sample = file.read(2 * _SAMPLE)
    if _is_mostly_utf8(sample):
        return (
            f"line {line} is not UTF-8, but other lines are: the file mixes two encodings; correct that line, and save "
            "the file as CSV UTF-8"
        )
    if codec := _codec_of(sample):
        return (
            f"line {line} is not UTF-8; it looks like {_NAMES[codec]}: save the file as CSV UTF-8, or pass "
            f"--encoding {codec}"
        )
    return f"line {line} is not UTF-8; save the file as CSV UTF-8, or pass --encoding with the encoding of the file"


def _line_at(file: BinaryIO, start: int, offset: int, encoding: Encoding) -> int:
    """Return the number of the line with the byte at `offset`, as an editor counts."""
    file.seek(start)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding.codec)("replace"), translate=True)
    return 1 + sum(decoder.decode(piece).count("\n") for piece in _pieces(file, offset - start))


def _pieces(file: BinaryIO, size: int) -> Iterator[Any]:
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece


def _is_mostly_utf8(sample: bytes) -> bool:
    text = sample.decode("utf-8", "replace")
    invalid = text.count("\ufffd")
    return sum(not letter.isascii() for letter in text) - invalid > invalid


def _codec_of(sample: bytes) -> str | None:
    """Return the probable encoding of a text; None if there is none."""
    lines = b"\n".join(line for line in sample.splitlines() if not line.isascii())
    if _is_western(lines):
        return "cp1252"
    from charset_normalizer import from_bytes  # noqa: PLC0415 - takes 50 ms, for invalid files only

    preference = list(_NAMES)
    candidates = []
    for match in from_bytes(lines, cp_isolation=preference):
        codec = min({*match.could_be_from_charset} & {*preference}, key=preference.index)
        candidates.append((match.chaos, _LATIN.get(codec, 0), -match.coherence, preference.index(codec), codec))
    return min(candidates)[-1] if candidates else None


def _is_western(lines: bytes) -> bool:
    """Return whether the text is Western European in Windows-1252, which detectors miss in short texts.

    Its accented letters are among others; four in a row are another script.
    """
    try:
        text = lines.decode("cp1252")
    except UnicodeDecodeError:
        return False
    is_word = _WESTERN.fullmatch(text) and not _NOT_IN_WORDS.search(text)
    return bool(is_word) and not _RUN_OF_LETTERS.search(text)
