"""Files as they are, or packed with gzip: told apart by their first bytes, not by their names."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, BinaryIO, cast

from voicequeue.errors import VoiceQueueError

_MAGIC = b"\x1f\x8b"
_BUFFER = 65_536


class Damaged(VoiceQueueError, ValueError):
    """A packed file that cannot be unpacked to its end."""


class _Unpacked(io.RawIOBase):
    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._plain = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._plain.read1(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise Damaged(f"the file is packed with gzip, and damaged or cut: {error}") from None
        buffer[: len(piece)] = piece
        return len(piece)


def unpacked(file: BinaryIO) -> BinaryIO:
    """What the file holds, read as a stream; the file is closed by its owner. Reading it may raise Damaged."""
    stream = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(Any, file))
    if not stream.peek(len(_MAGIC)).startswith(_MAGIC):
        return cast(BinaryIO, stream)
    return cast(BinaryIO, io.BufferedReader(_Unpacked(cast(BinaryIO, stream)), _BUFFER))
