"""The shapes of the lines that an upload of rows returns."""

from __future__ import annotations

from typing import Literal, NotRequired

from voicequeue.domain.schemas import Schema
from workers.gateway.problems import FieldError, ProblemDetails


class RowOutcome(Schema):
    """The outcome of one row."""

    line: int
    """Line of the row, from 1."""
    outcome: Literal["new", "existing", "rejected"]
    """Whether a job was enqueued, the job of this key exists already, or the row became none."""
    id: NotRequired[str]
    """Id of the job, unless the row was rejected."""
    further_job_ids: NotRequired[list[str]]
    """Ids of the jobs for the other songs."""
    code: NotRequired[str]
    """Why the row was rejected, for programs."""
    errors: NotRequired[list[FieldError]]
    """The invalid fields of a rejected row."""


class UploadSummary(Schema):
    """The result of an upload of rows."""

    complete: bool
    """False if some rows were not enqueued: send all of them again."""
    new: int
    """Number of rows that were enqueued."""
    existing: int
    """Number of rows whose job existed."""
    rejected: int
    """Number of rejected rows."""
    credits: int
    """The most credits that the new jobs cost."""
    problem: NotRequired[ProblemDetails]
    """Why the upload is not complete."""


class UploadEnd(Schema):
    """The last line of the response to an upload of rows."""

    summary: UploadSummary
    """The result."""
