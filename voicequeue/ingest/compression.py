"""Read files that may be compressed with gzip, recognized by their first bytes and not by their names."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, BinaryIO, cast

from voicequeue.errors import VoiceQueueError

_MAGIC = b"\x1f\x8b"
_BUFFER = 65_536


class DamagedFileError(VoiceQueueError, ValueError):
    """A compressed file that is damaged or truncated."""


class _Decompressed(io.RawIOBase):
    def __init__(self, compressed: BinaryIO) -> None:
        super().__init__()
        self._plain = gzip.GzipFile(fileobj=compressed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._plain.read1(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedFileError(f"the file is compressed with gzip, and damaged or truncated: {error}") from None
        buffer[: len(piece)] = piece
        return len(piece)


def decompressed(file: BinaryIO) -> BinaryIO:
    """Return a stream of the file's content, decompressed if necessary. Reading it may raise Damaged.

    The caller closes the file.
    """
    stream = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(Any, file))
    if not stream.peek(len(_MAGIC)).startswith(_MAGIC):
        return cast(BinaryIO, stream)
    return cast(BinaryIO, io.BufferedReader(_Decompressed(cast(BinaryIO, stream)), _BUFFER))
