"""Read the XML of a workbook element by element, in bounded memory."""

from __future__ import annotations

import re
import tempfile
from array import array
from collections.abc import Iterator
from functools import lru_cache
from math import inf
from typing import IO, Any, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.lines import ROW_MAX

#: The most bytes of XML of one row: tags and styles of cells take more than their texts.
_XML_MAX = 8 * ROW_MAX
_CHUNK = 65_536
_CACHED = 256

_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


class DamagedSheet(VoiceQueueError, ValueError):
    """A sheet of which no further row can be read."""


def elements(source: IO[bytes], tag: str, *, container: str, end: float = inf) -> Iterator[Element]:
    """Yield the elements `tag` of a part, up to the end of the `container`. Raises DamagedSheet.

    Elements that begin more than a chunk after the byte `end` are not needed.
    """
    position = 0
    parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
    ancestors: list[Element] = []
    size = 0
    while chunk := source.read(_CHUNK):
        if size == 0 and b"<!DOCTYPE" in chunk:
            raise DamagedSheet("the sheet has declarations of its own; save it again in Excel")
        size += len(chunk)
        try:
            parser.feed(chunk)
            for event, element in cast(Iterator[tuple[str, Element]], parser.read_events()):
                if event == "start":
                    ancestors.append(element)
                    continue
                ancestors.pop()
                name = element.tag.rpartition("}")[2]
                if name == tag:
                    size = 1
                    yield element
                    ancestors[-1].clear()
                    if position > end:
                        return
                elif name == container:
                    return
        except (ParseError, IndexError) as error:
            raise DamagedSheet(f"the sheet is damaged, and nothing after this was read: {error}") from None
        position += len(chunk)
        if size > _XML_MAX:
            raise DamagedSheet(f"the row has more than {ROW_MAX:,} characters, and nothing after it was read")


def plain_text(element: Element) -> str:
    """Return the text of a cell without its formats and phonetic hints."""
    parts = []
    for child in element:
        name = child.tag.rpartition("}")[2]
        if name == "t":
            parts.append(child.text or "")
        elif name == "r":
            parts += [part.text or "" for part in child if part.tag.endswith("}t")]
    return unescape("".join(parts))


def unescape(text: str) -> str:
    """Return a text without Excel's escapes of characters that XML cannot contain, such as `_x000D_`."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "_x" in text else text


class SharedStrings:
    """The texts of a workbook, to which cells refer by number. They are in a temporary file, not in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._ends = array("Q", [0])
        self.get = lru_cache(_CACHED)(self._get)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def read(self, source: IO[bytes]) -> None:
        """Read the part of the workbook that contains the texts."""
        for element in elements(source, "si", container="sst"):
            text = plain_text(element).encode("utf-8", "surrogatepass")
            self._file.write(text)
            self._ends.append(self._ends[-1] + len(text))
        self._file.flush()

    def _get(self, index: int) -> str:
        if not 0 <= index < len(self._ends) - 1:
            raise DamagedSheet("a cell refers to a text that the workbook does not contain; save it again in Excel")
        start, end = self._ends[index], self._ends[index + 1]
        self._file.seek(start)
        return self._file.read(end - start).decode("utf-8", "surrogatepass")
