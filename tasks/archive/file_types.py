"""What a file is, by how it begins: neither a link's ending nor what a server says of it is believed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from voicequeue.domain.job import Part

#: So many bytes tell.
ENOUGH = 16

#: By part: the ending of a name, and how such a file begins.
_BEGINNINGS: Mapping[Part, Mapping[str, re.Pattern[bytes]]] = {
    Part.AUDIO: {
        "mp3": re.compile(rb"ID3[\x02-\x04]|\xff[\xe2-\xe7\xf2-\xff]"),
        "wav": re.compile(rb"RIFF....WAVE|RF64....WAVE", re.DOTALL),
        "flac": re.compile(rb"fLaC"),
        "ogg": re.compile(rb"OggS"),
        "m4a": re.compile(rb"....ftyp(?!avi[fs]|mif1|hei)", re.DOTALL),
        "aac": re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"),
    },
    Part.IMAGE: {
        "jpg": re.compile(rb"\xff\xd8\xff"),
        "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
        "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
        "gif": re.compile(rb"GIF8[79]a"),
        "avif": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    },
}


def ending(part: Part, beginning: bytes) -> str | None:
    """The ending of the name of a file that begins so; None if it is not what it should be."""
    # An MP3 without a tag and an AAC begin alike but for the layer, which AAC leaves 0.
    found = _BEGINNINGS[part]
    if part is Part.AUDIO and found["aac"].match(beginning):
        return "aac"
    return next((name for name, begins in found.items() if begins.match(beginning)), None)
