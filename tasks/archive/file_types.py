"""The type of a file, by its first bytes; the link's extension and the Content-Type are not trusted. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from voicequeue.domain.states import ClipPart

#: Bytes from the start of a file that identify its type.
HEADER_SIZE = 16

#: By part: file extensions, and the pattern of the first bytes of such a file.
_SIGNATURES: Mapping[ClipPart, Mapping[str, re.Pattern[bytes]]] = {
    ClipPart.AUDIO: {
        "mp3": re.compile(rb"ID3[\x02-\x04]|\xff[\xe2-\xe7\xf2-\xff]"),
        "wav": re.compile(rb"RIFF....WAVE|RF64....WAVE", re.DOTALL),
        "flac": re.compile(rb"fLaC"),
        "ogg": re.compile(rb"OggS"),
        "m4a": re.compile(rb"....ftyp(?!avi[fs]|mif1|hei)", re.DOTALL),
        "aac": re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"),
    },
    ClipPart.IMAGE: {
        "jpg": re.compile(rb"\xff\xd8\xff"),
        "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
        "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
        "gif": re.compile(rb"GIF8[79]a"),
        "avif": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    },
}


def file_extension(part: ClipPart, header: bytes) -> str | None:
    """Return the extension for a file of this part with these first bytes; None if it is not of that part."""
    # An MP3 without a tag and an AAC differ only in the layer bits, which are 0 in AAC.
    signatures = _SIGNATURES[part]
    if part is ClipPart.AUDIO and signatures["aac"].match(header):
        return "aac"
    return next((extension for extension, signature in signatures.items() if signature.match(header)), None)
