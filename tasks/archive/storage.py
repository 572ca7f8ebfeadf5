"""The storage of archived files: a folder, or any storage that fsspec supports (object stores, SFTP, …).

A file appears under its name only when it is complete: object stores show complete uploads only; elsewhere the file is
written under a temporary name and then renamed.
"""

from __future__ import annotations

import mimetypes
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: A name that is safe in a path: it contains no separator, and the file is not hidden.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_NAME_MAX = 100

#: Storages that show an upload only when it is complete, and have no folders.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos", "memory"})

#: The folder of the file that is stored to check the storage.
CHECK_FOLDER = "_write_check"

#: Bytes of an upload kept in memory, for storages where this is configurable; smaller files are sent in one request.
_PIECE = 8 * 2**20


class ArchiveStorageError(Exception):
    """The storage cannot be used, perhaps temporarily; the text is the reason and contains no credentials."""


def safe_name(name: str) -> str:
    """Return `name` if it is safe in a path, otherwise a name derived from its hash."""
    if _NAME.fullmatch(name) and len(name) <= _NAME_MAX:
        return name
    return f"x-{sha256(name.encode(errors='replace')).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class ArchiveStorage:
    """A storage: an fsspec filesystem, the path `root` in it, and `url`, the URL of `root`."""

    filesystem: Any
    root: str
    url: str

    @classmethod
    def from_url(cls, url: str) -> ArchiveStorage:
        """Return the storage at an fsspec URL or a folder's path. Raises ArchiveStorageError."""
        if not url:
            raise ArchiveStorageError("VOICEQUEUE_ARCHIVE_URL is not set")
        try:
            import fsspec  # noqa: PLC0415  workers without an archive do not need it

            files, root = fsspec.core.url_to_fs(url)
            parts = urlsplit(url)
        except ImportError as error:
            raise ArchiveStorageError(
                f"VOICEQUEUE_ARCHIVE_URL needs a package that is not installed: {error.name or error}"
            ) from None
        except Exception as error:  # each kind of storage has its own errors, and they may quote the URL
            raise ArchiveStorageError(f"VOICEQUEUE_ARCHIVE_URL cannot be used: {type(error).__name__}") from None
        if _is_local(files):
            return cls(files, root, Path(root).absolute().as_uri())
        return cls(
            files, root.rstrip("/"), f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        )

    def put(self, file: Path, *path: str) -> str:
        """Store a complete file under these folders and name; return its URL.

        Raises ArchiveStorageError, and ValueError if a folder or the name is not `safe_name`.
        """
        if not all(map(_NAME.fullmatch, path)):
            raise ValueError(
                "folders and files of the archive must have plain names: letters, digits, '.', '_' and '-'"
            )
        to = "/".join([self.root.rstrip("/"), *path])
        with _storage_errors():
            if _OBJECT_STORES & set(_protocols(self.filesystem)):
                self.filesystem.put_file(str(file), to, **_upload_options(_protocols(self.filesystem), to))
            else:
                self._put_and_rename(file, to)
            stored, expected = self.filesystem.info(to)["size"], file.stat().st_size
        if stored != expected:
            raise ArchiveStorageError(f"the archive stored {stored:,} bytes of {expected:,}")
        return "/".join([self.url, *path])

    def check(self, file: Path, *, min_free_bytes: int) -> None:
        """Store a file as songs are stored. It is removed again, except from an object store, where it is overwritten:
        that needs no further rights.

        Raises ArchiveStorageError, also if the disk of a folder has less space than `min_free_bytes`.
        """
        is_object_store = bool(_OBJECT_STORES & set(_protocols(self.filesystem)))
        name = "file" if is_object_store else secrets.token_hex(8)
        with _storage_errors():
            free_bytes = _free_bytes(Path(self.root)) if _is_local(self.filesystem) else None
        if free_bytes is not None and free_bytes < min_free_bytes:
            left_mb, needed_mb = free_bytes / 1e6, min_free_bytes / 1e6
            raise ArchiveStorageError(
                f"the archive's disk has {left_mb:,.0f} MB left, and a file may take {needed_mb:,.0f} MB"
            )
        self.put(file, CHECK_FOLDER, name)
        if not is_object_store:
            with _storage_errors():
                self.filesystem.rm_file("/".join([self.root.rstrip("/"), CHECK_FOLDER, name]))

    def remove_folder(self, *path: str) -> None:
        """Delete a folder with all its files, and the folders above that are empty then; nothing if there is none.

        Raises ArchiveStorageError, and ValueError if a folder is not `safe_name`.
        """
        if not path or not all(map(_NAME.fullmatch, path)):
            raise ValueError("folders of the archive must have plain names")
        folder = "/".join([self.root.rstrip("/"), *path])
        with _storage_errors():
            if self.filesystem.exists(folder):
                self.filesystem.rm(folder, recursive=True)
            if not _OBJECT_STORES & set(_protocols(self.filesystem)):
                for depth in range(len(path) - 1, 0, -1):
                    self._remove_empty("/".join([self.root.rstrip("/"), *path[:depth]]))

    def _remove_empty(self, folder: str) -> None:
        """Remove a folder if it is empty: its name may be that of a batch of one person."""
        if self.filesystem.exists(folder) and not self.filesystem.ls(folder):
            with suppress(OSError):  # another worker has just put a file there
                self.filesystem.rmdir(folder)

    def _put_and_rename(self, file: Path, to: str) -> None:
        folder, _, name = to.rpartition("/")
        self.filesystem.makedirs(folder, exist_ok=True)
        self._remove_partial(folder, name)
        partial = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
        self.filesystem.put_file(str(file), partial)
        if _is_local(self.filesystem):
            _sync(partial)
            os.replace(partial, to)  # noqa: PTH105  paths are fsspec's throughout this module
            # The folders may be new too.
            for above in (folder, *Path(folder).parents):
                with suppress(OSError):  # some kinds of mounts do not support it
                    _sync(str(above))
                if str(above) == self.root:
                    break
            return
        if self.filesystem.exists(to):
            self.filesystem.rm_file(to)
        self.filesystem.mv(partial, to)

    def _remove_partial(self, folder: str, name: str) -> None:
        """Remove partial files that a killed process left here."""
        for file in self.filesystem.ls(folder, detail=True):
            file_name = file["name"].rpartition("/")[2]
            if file_name.startswith(f".{name}.") and file_name.endswith(".part") and file["type"] == "file":
                self.filesystem.rm_file(file["name"])


def _free_bytes(folder: Path) -> int:
    """Return the free space of the disk of a folder that may not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _upload_options(protocols: tuple[str, ...], name: str) -> dict[str, Any]:
    """Return the options for low memory use and a Content-Type that browsers play; each package names them itself."""
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


def _sync(path: str) -> None:
    """Flush to disk; otherwise a power failure could keep the file's name and lose its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Raise ArchiveStorageError for any error: each kind of storage has its own, and their texts may quote
    credentials."""
    try:
        yield
    except Exception as error:
        detail = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
        raise ArchiveStorageError(f"the archive cannot be written: {type(error).__name__}{detail}") from None
