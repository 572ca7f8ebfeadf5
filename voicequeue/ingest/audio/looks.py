"""What a file looks like that is neither MP3 nor WAV, by how it begins."""

from __future__ import annotations

import re

#: So many bytes tell.
SNIFFED = 512

UNKNOWN = "no audio that is known"

#: What else people send, by how it begins.
_LOOKS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
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


def looks(start: bytes) -> str:
    """In words; '' for what may be an MP3, or anything."""
    if not start:
        return "an empty file"
    return next((words for pattern, words in _LOOKS if pattern.match(start)), "")
