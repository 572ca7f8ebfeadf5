"""Describe files that are neither MP3 nor WAV, by their first bytes."""

from __future__ import annotations

import re

#: The bytes that are needed.
SNIFFED = 512

UNKNOWN = "an unknown format"

#: The first bytes of other formats that users send.
_FORMATS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
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


def describe(start: bytes) -> str:
    """Return a description of the format; '' if it is not recognized and may be MP3."""
    if not start:
        return "an empty file"
    return next((description for pattern, description in _FORMATS if pattern.match(start)), "")
