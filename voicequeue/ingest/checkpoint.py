"""How far the ingestion of a file has come, in a file beside it, so that it can go on there.

Written after what it tells of is in Redis. If it is lost nothing is: rows that are known are not paid again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.row_reader import UnreadableFile

_HEAD = 65_536


class CannotResume(VoiceQueueError):
    """It cannot go on where it stood; the text says why."""


@dataclass(slots=True)
class Counts:
    """What became of the jobs of a file's rows; `reasons` counts the rejected ones by kind."""

    new: int = 0
    known: int = 0
    rejected: int = 0
    credits: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def reject(self, kind: str) -> None:
        """Count one that was not taken."""
        self.rejected += 1
        self.reasons[kind] = self.reasons.get(kind, 0) + 1


@dataclass(slots=True)
class Progress:
    """`lines` of `source` (a file: its size, time of change, and the digest of its beginning) are done.

    `last_job` is the one that was put into the queue last, `rejected_bytes` the length of the file of rejected rows.
    """

    batch: str
    source: dict[str, int | str]
    lines: int = 0
    last_job: str = ""
    rejected_bytes: int = 0
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def of(cls, path: Path, batch: str) -> Progress:
        """Nothing is done yet."""
        told = path.stat()
        with path.open("rb") as file:
            head = sha256(file.read(_HEAD)).hexdigest()
        return cls(batch, {"size": told.st_size, "changed": told.st_mtime_ns, "head": head})

    @staticmethod
    def path(source: Path) -> Path:
        """Where it is kept."""
        return source.with_name(f"{source.name}.progress.json")

    def write(self, source: Path) -> None:
        """Whole or not at all, whenever the process is killed. Raises UnreadableFile."""
        path = self.path(source)
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_text(json.dumps(asdict(self)), encoding="utf-8")
            new.replace(path)
        except OSError as error:
            raise UnreadableFile(f"{path}: {error.strerror}") from None

    def taken_up(self, source: Path) -> Progress:
        """What is kept there, or this one if there is nothing. Raises CannotResume."""
        path = self.path(source)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            before = Progress(**{**kept, "counts": Counts(**kept["counts"])})
        except FileNotFoundError:
            return self
        except (OSError, ValueError, TypeError, KeyError):
            raise CannotResume(_advice(f"{path} cannot be read")) from None
        if before.source != self.source:
            raise CannotResume(_advice(f"{source} has changed since"))
        if before.batch != self.batch:
            raise CannotResume(f"{path} is about the batch {before.batch}, not {self.batch}")
        return before


def _advice(why: str) -> str:
    return f"{why}; ingest it without --resume: rows whose jobs are kept are passed over (--dry-run tells how many)"
