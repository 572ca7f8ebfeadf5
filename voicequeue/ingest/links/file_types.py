"""Endings of paths that name another type of file than MP3 or WAV. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from voicequeue.ingest.links.finding import Finding, Link

_ENDING = re.compile(r"[^/.][^/]*\.([a-z0-9]{1,5})/?", re.IGNORECASE)

#: Other recordings and videos: the content decides, and it may be MP3 under a wrong name.
_OTHER_MEDIA_ENDINGS = (
    "m4a m4b m4p mp4 m4v mov aac flac ogg oga opus wma aif aiff aifc alac amr ape caf webm avi mkv mpg mpeg wmv flv "
    "3gp mka ac3 dts au"
)
#: Never a recording.
_NO_MEDIA_ENDINGS = (
    "zip rar 7z gz tgz tar pdf doc docx odt rtf txt md csv tsv xls xlsx ods ppt pptx json xml html htm xhtml mhtml jpg "
    "jpeg png gif webp heic svg bmp tif tiff ico mid midi m3u m3u8 pls cue exe dmg apk iso torrent als flp logicx aup "
    "css js"
)
_OTHER_MEDIA, _NO_MEDIA = (frozenset(endings.split()) for endings in (_OTHER_MEDIA_ENDINGS, _NO_MEDIA_ENDINGS))


def file_type_findings(link: Link) -> Iterator[Finding]:
    """Yield what the ending of the path says; a path without one, or with that of a program, may serve anything."""
    match = _ENDING.fullmatch(link.path.rpartition("/")[2] or link.path.rstrip("/").rpartition("/")[2])
    ending = match[1].lower() if match else ""
    if ending in _OTHER_MEDIA:
        yield Finding(
            "other_format",
            f"ends with .{ending}, but only MP3 and WAV are accepted: convert the file, unless only its name is wrong",
            is_certain=False,
        )
    elif ending in _NO_MEDIA:
        # A program with parameters may serve a recording under any name.
        yield Finding("no_recording", f"ends with .{ending}, which is no MP3 or WAV", is_certain=not link.query)
    elif link.path == "/" and not link.query:
        yield Finding("no_recording", "is the home page of a site, not a file: use the link of the recording", False)
