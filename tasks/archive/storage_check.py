"""Regular checks that songs can be stored, also while there are none to archive.

The result is part of the heartbeat of the process: only this process reaches its disk, and the doctor and the metrics
may be on another host.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.archive.storage import ArchiveStorage, ArchiveStorageError
from tasks.archive.task import TEMPORARY_PREFIX
from voicequeue.storage.heartbeats import STORAGE_ERROR, STORAGE_FAILING_SINCE

log = logging.getLogger("voicequeue.dispatcher")

#: Seconds between two checks.
INTERVAL_S = 60.0

#: Seconds after which a check that has not ended counts as failed.
TIMEOUT_S = 30.0


class StorageCheck:
    """The checks of one process. `min_free_bytes`: the free space of a disk below which they fail."""

    def __init__(self, storage: ArchiveStorage, clock: Callable[[], float], *, min_free_bytes: int) -> None:
        self._storage = storage
        self._clock = clock
        self._min_free_bytes = min_free_bytes
        self._started_at: float | None = None
        #: The error, empty while songs can be stored, and when the last one began.
        self.facts: dict[str, Any] = {STORAGE_ERROR: "", STORAGE_FAILING_SINCE: 0.0}

    def start(self, stopping: threading.Event, interval_s: float = INTERVAL_S) -> None:
        """Check now and then every `interval_s` seconds, in a thread of its own: a storage may never answer."""

        def run() -> None:
            self.check()
            while not stopping.wait(interval_s):
                self.check()

        threading.Thread(target=run, name="storage check", daemon=True).start()

    def check(self) -> None:
        """Store a file as songs are stored, and note whether that succeeded."""
        self._started_at = self._clock()
        error = self._error()
        self._started_at = None
        self._note(error)

    def watch(self) -> None:
        """Note a check that does not end."""
        started_at = self._started_at
        if started_at is not None and self._clock() > started_at + TIMEOUT_S:
            self._note(f"the archive has not answered for {TIMEOUT_S:.0f} s")

    def _error(self) -> str:
        """Return why no song can be stored; empty if it can."""
        try:
            with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX) as file:
                file.write(b"voicequeue checks that it can write here\n")
                file.flush()
                self._storage.check(Path(file.name), min_free_bytes=self._min_free_bytes)
        except ArchiveStorageError as error:
            return str(error)
        except OSError as error:
            return f"cannot write a temporary file: {os.strerror(error.errno or 0)}"
        except Exception as error:  # a defect; otherwise the checks would end without a word
            log.exception("a defect")
            return f"a defect of voicequeue: {type(error).__name__}"
        return ""

    def _note(self, error: str) -> None:
        """Replace the facts, and log a change."""
        before = self.facts[STORAGE_ERROR]
        if error and not before:
            self.facts[STORAGE_FAILING_SINCE] = self._clock()
        if error and error != before:
            log.error("songs cannot be stored: %s", error)
        if before and not error:
            log.info("songs can be stored again")
        self.facts[STORAGE_ERROR] = error
