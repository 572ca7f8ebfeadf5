"""Read files that may be compressed with gzip, recognized by their first bytes and not by their names."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from voicequeue.errors import VoiceQueueError

_MAGIC = b"\x1f\x8b"
_BUFFER = 65_536


class DamagedFileError(VoiceQueueError, ValueError):
    """A compressed file that is damaged or truncated."""


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFileError(f"the file is compressed with gzip, and damaged or truncated: {error}") from None


class _Decompressed(io.RawIOBase):
    def __init__(self, compressed: BinaryIO) -> None:
        super().__init__()
        self._compressed = compressed
        self._plain = gzip.GzipFile(fileobj=compressed)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._compressed.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset of the content: it is decompressed again from the start, if that is before this place."""
        with _damage():
            if whence != io.SEEK_END:
                return self._plain.seek(offset, whence)
            while self._plain.read(_BUFFER):
                pass
            return self._plain.seek(self._plain.tell() + offset)

    def tell(self) -> int:
        return self._plain.tell()

    def readinto(self, buffer: Any) -> int:
        with _damage():
            piece = self._plain.read1(len(buffer))
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
