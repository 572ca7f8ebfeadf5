"""The progress of an ingestion, in a file beside its source, so that it can be resumed.

It is written after the rows are in Redis. Losing it is harmless: jobs that exist are not enqueued or paid again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.row import UnreadableFileError

_HEAD = 65_536


class CannotResumeError(VoiceQueueError):
    """The ingestion cannot be resumed; the text gives the reason."""


@dataclass(slots=True)
class IngestCounts:
    """Counts of a file's jobs by result; `reasons` counts the rejected ones by kind, and `warnings` doubtful ones."""

    new: int = 0
    existing: int = 0
    rejected: int = 0
    credits: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)

    def reject(self, kind: str) -> None:
        """Count a rejected job."""
        self.rejected += 1
        self.reasons[kind] = self.reasons.get(kind, 0) + 1

    def warn(self, kind: str) -> None:
        """Count a warning."""
        self.warnings[kind] = self.warnings.get(kind, 0) + 1


@dataclass(slots=True)
class IngestProgress:
    """The progress of an ingestion: `lines` of `source`, which are `rows` in a spreadsheet program, are done.

    `source` identifies a file by its size, time of change, and the digest of its beginning. `last_job`: the id of the
    job that was enqueued last. `rejected_bytes`: the length of the file of rejected rows.
    """

    batch: str
    source: dict[str, int | str]
    lines: int = 0
    rows: int = 0
    last_job: str = ""
    rejected_bytes: int = 0
    counts: IngestCounts = field(default_factory=IngestCounts)

    @classmethod
    def start(cls, path: Path, batch: str) -> IngestProgress:
        """Return the progress of an ingestion that has not started."""
        status = path.stat()
        with path.open("rb") as file:
            head = sha256(file.read(_HEAD)).hexdigest()
        return cls(batch, {"size": status.st_size, "changed": status.st_mtime_ns, "head": head})

    @staticmethod
    def path(source: Path) -> Path:
        """Return the path of the progress file."""
        return source.with_name(f"{source.name}.progress.json")

    def save(self, source: Path) -> None:
        """Replace the progress file atomically. Raises UnreadableFileError."""
        path = self.path(source)
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_text(json.dumps(asdict(self)), encoding="utf-8")
            new.replace(path)
        except OSError as error:
            raise UnreadableFileError(f"{path}: {error.strerror}") from None

    def resumed(self, source: Path) -> IngestProgress:
        """Return the saved progress, or this one if there is none. Raises CannotResumeError."""
        path = self.path(source)
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            progress = IngestProgress(**{**saved, "counts": IngestCounts(**saved["counts"])})
        except FileNotFoundError:
            return self
        except (OSError, ValueError, TypeError, KeyError):
            raise CannotResumeError(_advice(f"{path} cannot be read")) from None
        if progress.source != self.source:
            raise CannotResumeError(_advice(f"{source} has changed since"))
        if progress.batch != self.batch:
            raise CannotResumeError(f"{path} belongs to the batch {progress.batch}, not {self.batch}")
        return progress


def _advice(reason: str) -> str:
    return f"{reason}; ingest it without --resume: rows whose jobs exist are skipped (--dry-run shows how many)"
