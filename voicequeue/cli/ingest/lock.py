"""The lock of a file that is ingested. The operating system releases it when the process ends or is killed."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voicequeue.cli.terminal import CommandSetupError, format_time
from voicequeue.errors import VoiceQueueError


class FileInUseError(VoiceQueueError):
    """Another process ingests the file."""

    code = "file_in_use"


if sys.platform == "win32":
    import msvcrt

    #: The byte that is locked, after the text: locked bytes cannot be read by others.
    _LOCKED_BYTE = 1_000_000

    def _try_lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock file `path`, and delete it at the end.

    Raises FileInUseError with the `name` of what is ingested, CommandSetupError.
    """
    descriptor = _acquire(path, name)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not delete an open file; the next run takes it
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, name: str) -> int:
    """Return the descriptor of the locked file, with this process as its content."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise CommandSetupError(
                f"{path.parent}: no file can be written here ({error.strerror}), but progress and rejected rows are "
                "kept beside the file; copy it to a folder of your own"
            ) from None
        try:
            _try_lock(descriptor)
            if _is_at(descriptor, path):
                with suppress(OSError):  # a full disk; the lock holds without a name
                    _write_owner(descriptor, name)
                return descriptor
        except BlockingIOError:
            owner = _owner(descriptor, name)
            os.close(descriptor)
            raise FileInUseError(f"another ingest of {owner}: wait for it, or stop it") from None
        except OSError as error:
            os.close(descriptor)
            raise CommandSetupError(
                f"{path} cannot be locked: {error.strerror}; copy the file to a local disk"
            ) from None
        os.close(descriptor)  # deleted by its last owner in the meantime


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_owner(descriptor: int, name: str) -> None:
    owner = {"file": name, "pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(owner).encode())


def _owner(descriptor: int, name: str) -> str:
    """Return what the process ingests that holds the lock, and its number; `name` if it has not written that yet."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        owner = json.loads(os.read(descriptor, 10_000))
        return f"{owner['file']} runs (pid {owner['pid']} on {owner['host']}, since {format_time(owner['since'])})"
    except (OSError, ValueError, TypeError, KeyError):
        return f"{name} runs"
