"""Sound files as encoders write them, and a server for good and broken ones."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from tests.support.scripted import Request, Script, ScriptedServer, answer

#: One frame of MPEG-1 layer III, 128 kbit/s at 44.1 kHz, mono: 417 bytes, 26 ms.
FRAME = b"\xff\xfb\x90\xc4" + bytes(413)
FRAME_S = 1152 / 44_100


def mp3(seconds: float, *, frame: bytes = FRAME, frame_s: float = FRAME_S) -> bytes:
    """Return MP3 frames without a header."""
    return frame * round(seconds / frame_s)


def xing(frames: int, size: int, *, tag: bytes = b"Info", flags: int = 3) -> bytes:
    """Return the leading frame that states how many frames and bytes follow."""
    counts = b"".join(struct.pack(">I", count) for bit, count in ((1, frames), (2, size)) if flags & bit)
    head = FRAME[:4] + bytes(17) + tag + struct.pack(">I", flags) + counts
    return head + bytes(len(FRAME) - len(head))


def vbri(frames: int, size: int) -> bytes:
    """Return the same information in the format of another encoder."""
    head = FRAME[:4] + bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 100, size, frames)
    return head + bytes(len(FRAME) - len(head))


def id3(size: int = 300) -> bytes:
    """Return an ID3 tag."""
    return b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\xff" * size


def wav(
    seconds: float,
    *,
    rate: int = 4_000,
    kind: int = 1,
    declared: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return a WAV file: 8 bits, mono. `declared` is the size of the sound in the header."""
    sound = bytes([128]) * round(seconds * rate)
    fmt = struct.pack("<HHIIHH", kind, 1, rate, rate, 1, 8)
    if kind == 0xFFFE:  # WAVE_FORMAT_EXTENSIBLE: the real format follows in the sub-format
        fmt += struct.pack("<HHI", 22, 8, 4) + b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    size = len(sound) if declared is None else declared
    body = b"WAVE" + before + chunk(b"fmt ", fmt) + b"data" + struct.pack("<I", size) + sound + after
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a RIFF chunk; odd lengths are padded."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def rf64(seconds: float, rate: int = 4_000) -> bytes:
    """Return an RF64 file, the long form of WAV: its sizes are in a chunk of their own."""
    sound = bytes(round(seconds * rate))
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8))
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, len(sound), len(sound), 0))
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + fmt + b"data\xff\xff\xff\xff" + sound


def response(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a response with this body; `length` replaces the Content-Length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def redirect(to: str, status: str = "302 Found") -> bytes:
    """Return a redirect."""
    return response(b"", f"Location: {to}", status=status)


def serving(files: Mapping[str, bytes | Iterable[bytes] | Script]) -> ScriptedServer:
    """Return a server of responses by path: bytes, pieces of bytes, or a script. Other paths give 404."""

    def script(request: Request) -> Iterable[bytes]:
        response = files.get(request.path, answer("no such file", status="404 Not Found"))
        if callable(response):
            return response(request)
        return (response,) if isinstance(response, bytes) else response

    return ScriptedServer(script)
