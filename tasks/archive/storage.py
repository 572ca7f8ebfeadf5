"""Where archived files are put: a folder, or whatever else fsspec knows (object stores, SFTP, …).

A file has its name only once it is whole: object stores take a whole one or none, elsewhere it is written
beside its place and then moved there.
"""

from __future__ import annotations

import mimetypes
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

#: What may stand in a path as it is: it is nothing but a name, and hidden nowhere.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_NAME_MAX = 100

#: They show an upload when it is complete, and know no folders.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos", "memory"})

#: Bytes that an upload holds in memory, where that can be said; smaller files go at once.
_PIECE = 8 * 2**20


class Unusable(Exception):
    """Nothing can be put there (now); the text says why, and names no credentials."""


def safe(name: str) -> str:
    """`name` if it can be nothing but a name, else one made from it: no name leads out of its folder."""
    if _NAME.fullmatch(name) and len(name) <= _NAME_MAX:
        return name
    return f"x-{sha256(name.encode(errors='replace')).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class Shelf:
    """A place for files: what fsspec calls `files`, `root` there, and the `link` that it is known by."""

    files: Any
    root: str
    link: str

    @classmethod
    def at(cls, url: str) -> Shelf:
        """The place of an fsspec URL, or a folder's path. Raises Unusable."""
        if not url:
            raise Unusable("VOICEQUEUE_ARCHIVE is not set")
        try:
            files, root = fsspec.core.url_to_fs(url)
            parts = urlsplit(url)
        except ImportError as error:
            raise Unusable(f"VOICEQUEUE_ARCHIVE needs a package that is not installed: {error.name or error}") from None
        except Exception as error:  # every kind of storage has errors of its own, which may quote the URL
            raise Unusable(f"VOICEQUEUE_ARCHIVE cannot be used: {type(error).__name__}") from None
        if _is_local(files):
            return cls(files, root, Path(root).absolute().as_uri())
        return cls(
            files, root.rstrip("/"), f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        )

    def put(self, file: Path, *place: str) -> str:
        """Put a whole file there, under folders and a name; gives the link to it.

        Raises Unusable, and ValueError if one of them is not `safe`.
        """
        if not all(map(_NAME.fullmatch, place)):
            raise ValueError("folders and files of the archive have plain names")
        to = "/".join([self.root.rstrip("/"), *place])
        with _in_our_words():
            if _OBJECT_STORES & set(_protocols(self.files)):
                self.files.put_file(str(file), to, **_how(_protocols(self.files), to))
            else:
                self._put_beside(file, to)
            found, expected = self.files.info(to)["size"], file.stat().st_size
        if found != expected:
            raise Unusable(f"the archive holds {found:,} bytes of {expected:,}")
        return "/".join([self.link, *place])

    def _put_beside(self, file: Path, to: str) -> None:
        folder, _, name = to.rpartition("/")
        self.files.makedirs(folder, exist_ok=True)
        self._clear(folder, name)
        beside = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
        self.files.put_file(str(file), beside)
        if _is_local(self.files):
            _to_the_disk(beside)
            os.replace(beside, to)  # noqa: PTH105  as everywhere here, paths are fsspec's
            # The folders may be new as well.
            for above in (folder, *Path(folder).parents):
                with suppress(OSError):  # some kinds of mounts know no such thing
                    _to_the_disk(str(above))
                if str(above) == self.root:
                    break
            return
        if self.files.exists(to):
            self.files.rm_file(to)
        self.files.mv(beside, to)

    def _clear(self, folder: str, name: str) -> None:
        """What somebody left here who was killed."""
        for found in self.files.ls(folder, detail=True):
            left = found["name"].rpartition("/")[2]
            if left.startswith(f".{name}.") and left.endswith(".part") and found["type"] == "file":
                self.files.rm_file(found["name"])


def _how(protocols: tuple[str, ...], name: str) -> dict[str, Any]:
    """With the type that a browser plays, and little memory; each package has words of its own for it."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if "s3" in protocols:
        return {"ContentType": kind, "chunksize": _PIECE, "max_concurrency": 1}
    if "gs" in protocols:
        return {"content_type": kind, "chunksize": _PIECE}
    return {}


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _is_local(files: Any) -> bool:
    return "file" in _protocols(files)


def _to_the_disk(path: str) -> None:
    """Else a machine that loses its power may keep the name and lose what is in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Every kind of storage has errors of its own, and what they say may quote credentials."""
    try:
        yield
    except Exception as error:
        words = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
        raise Unusable(f"the archive cannot be written: {type(error).__name__}{words}") from None
