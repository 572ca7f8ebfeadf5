"""The files that an ingestion writes beside its source."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from voicequeue.ingest.row import FileKind

#: Name endings of a file of rejected rows. Its own rejected rows replace it.
REJECTED = ".rejected"
_REJECTED_FILES = (f"{REJECTED}.csv", f"{REJECTED}.xlsx")


@dataclass(frozen=True, slots=True)
class IngestPaths:
    """The paths of the files beside `source`, of a dry run or a real run.

    A dry run has its own files: it must not replace rejected rows of a real run, which may have been corrected since.
    """

    source: Path
    is_dry_run: bool = False

    @property
    def can_resume(self) -> bool:
        """True if an interrupted run can be resumed: it is a real run, and its source can be read again."""
        return not self.is_dry_run and self.source.is_file()

    @property
    def lock(self) -> Path:
        """The lock file, the same for a file and for that of its rejected rows."""
        return self._beside(f"{self._stem}.lock")

    @property
    def partial(self) -> Path:
        """The file of rejected rows of a run that has not finished."""
        return self._beside(f"{self.source.name}{self._run}{REJECTED}.part.csv")

    @property
    def partial_workbook(self) -> Path:
        """The same for spreadsheet programs, if the source is a workbook."""
        return self.partial.with_suffix(".xlsx")

    def rejected(self, kind: FileKind) -> Path:
        """Return the path of the file of rejected rows of a source of this kind."""
        if self.source.name.endswith(_REJECTED_FILES) and not self.is_dry_run:
            return self.source
        return self._beside(f"{self._stem}{REJECTED}.{'xlsx' if kind is FileKind.EXCEL else 'csv'}")

    def kept(self, rejected: Path) -> Path:
        """Return a free path for a file of rejected rows that was changed since it was written."""
        for number in count(1):
            path = rejected.with_suffix(f".{number}{rejected.suffix}")
            if not path.exists():
                return path
        raise AssertionError  # numbers do not end

    @property
    def _stem(self) -> str:
        name = self.source.name
        for ending in _REJECTED_FILES:
            name = name.removesuffix(ending)
        return f"{name}{self._run}"

    @property
    def _run(self) -> str:
        return ".dry-run" if self.is_dry_run else ""

    def _beside(self, name: str) -> Path:
        return self.source.with_name(name)
