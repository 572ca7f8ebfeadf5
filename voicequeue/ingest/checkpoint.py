"""The progress of an ingestion, in a file beside its source, so that it can be resumed.

It is written after the rows are in Redis. Losing it is harmless: jobs that exist are not enqueued or paid again.
"""

from __future__ import annotations

import json
import os
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from voicequeue.errors import VoiceQueueError

_HEAD = 65_536


class CannotResumeError(VoiceQueueError):
    """The ingestion cannot be resumed; the text gives the reason."""

    code = "cannot_resume"


@dataclass(slots=True)
class IngestCounts:
    """Counts of a file's jobs by result; `reasons` counts the rejected ones by kind, and `warnings` doubtful ones.

    `rows` are those that are done.
    """

    rows: int = 0
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

    def since(self, earlier: IngestCounts) -> IngestCounts:
        """Return what was counted after `earlier`."""
        names = [field.name for field in fields(self)]
        return IngestCounts(**{name: _difference(getattr(self, name), getattr(earlier, name)) for name in names})

    def copy(self) -> IngestCounts:
        """Return the counts as they are now."""
        return deepcopy(self)


def _difference(value: Any, earlier: Any) -> Any:
    if isinstance(value, int):
        return value - earlier
    return {kind: count - earlier.get(kind, 0) for kind, count in value.items() if count > earlier.get(kind, 0)}


def identify(file: BinaryIO, status: os.stat_result) -> dict[str, int | str]:
    """Return what identifies an open file: its size, time of change, and the digest of its beginning."""
    head = sha256(file.read(_HEAD)).hexdigest()
    file.seek(0)
    return {"size": status.st_size, "changed": status.st_mtime_ns, "head": head}


@dataclass(slots=True)
class IngestProgress:
    """The progress of an ingestion: `lines` of `source`, which are `rows` in a spreadsheet program, are done.

    `source` identifies a file (`identify`). `options`: those by which its rows are read, by name. `last_job`: the id of
    the job that was enqueued last. `rejected_bytes`: the length of the unfinished file of rejected rows. `is_complete`:
    whether all rows are done, so that only this file is left to be finished.
    """

    batch: str
    source: dict[str, int | str]
    options: dict[str, str | bool | None] = field(default_factory=dict)
    lines: int = 0
    rows: int = 0
    last_job: str = ""
    rejected_bytes: int = 0
    is_complete: bool = False
    counts: IngestCounts = field(default_factory=IngestCounts)

    @classmethod
    def start(cls, path: Path, batch: str) -> IngestProgress:
        """Return the progress of an ingestion that has not started."""
        with path.open("rb") as file:
            return cls(batch, identify(file, os.fstat(file.fileno())))

    @staticmethod
    def path(source: Path) -> Path:
        """Return the path of the progress file."""
        return source.with_name(f"{source.name}.progress.json")

    @classmethod
    def delete(cls, source: Path) -> None:
        """Delete the progress file. Raises OSError."""
        path = cls.path(source)
        path.unlink(missing_ok=True)
        _unfinished(path).unlink(missing_ok=True)

    def save(self, source: Path) -> None:
        """Replace the progress file atomically. Raises OSError."""
        path = self.path(source)
        new = _unfinished(path)
        new.write_text(json.dumps(asdict(self)), encoding="utf-8")
        new.replace(path)

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
        if changed := _changed_options(progress.options, self.options):
            raise CannotResumeError(
                f"{path} is of a run {changed}. Resume with the same options, or ingest the file without --resume: "
                "rows whose jobs exist are skipped"
            )
        return progress


def _changed_options(saved: dict[str, str | bool | None], now: dict[str, str | bool | None]) -> str:
    """Return the options of an earlier run that are others now; '' if there are none."""
    changed = [name for name, value in now.items() if saved.get(name, value) != value]
    return " and ".join(f"{_option(name, saved[name])}, now {_option(name, now[name])}" for name in changed)


def _option(name: str, value: str | bool | None) -> str:
    if not value:
        return f"without --{name}"
    return f"with --{name}" + ("" if value is True else f" {value}")


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _advice(reason: str) -> str:
    return f"{reason}; ingest it without --resume: rows whose jobs exist are skipped (--dry-run shows how many)"
