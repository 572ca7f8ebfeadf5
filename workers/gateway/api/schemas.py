"""The shapes that only HTTP has: request bodies, plans, results. Lists are in list_schemas.py, all others in
voicequeue/domain."""

from __future__ import annotations

from datetime import UTC, date, datetime
from math import inf
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from voicequeue import FailureCode, Filter, Stage, State
from voicequeue.client.bulk_operations import BulkAction
from voicequeue.domain import operator_schemas, schemas
from voicequeue.domain.charge_review import ReviewDecision
from voicequeue.domain.schemas import Schema, Timestamp
from voicequeue.domain.spec import BATCH_PATTERN, HttpUrl
from voicequeue.domain.stop_loss import BatchLimitChanges

EXAMPLE_JOB: dict[str, Any] = {
    "id": "k5v2yj3q7m6xw4ra",
    "key": "customer-17-take-3",
    "batch": "spring",
    "source": "http:shop",
    "source_row": None,
    "message_ids": [],
    "name": "Ana",
    "priority": "normal",
    "state": "queued",
    "cancelling": False,
    "stage": "voice",
    "audio_url": "https://example.com/ana.wav",
    "persona_id": None,
    "voice_name": None,
    "clips": [],
    "incomplete": False,
    "archive": None,
    "failure": None,
    "credits": 0,
    "created_at": "2026-03-01T09:30:00.000Z",
    "settled_at": None,
    "metadata": {"customer": "17"},
}
EXAMPLE_REQUEST: dict[str, Any] = {
    "audio_url": "https://example.com/ana.wav",
    "song": {"title": "Harbour Lights", "prompt": "[Verse]\nThe harbour lights are counting ships"},
    "name": "Ana",
    "batch": "spring",
    "metadata": {"customer": "17"},
}

#: Examples of schemas by name. They contain nulls, which FastAPI would remove.
EXAMPLES = {
    "Job": EXAMPLE_JOB,
    "EnqueuedJob": {**EXAMPLE_JOB, "further_job_ids": [], "estimated_credits": 19, "position": 3},
    "JobFilter": {"batch": "spring", "code": "deadline"},
}

#: Description of `search`.
SEARCH_DESCRIPTION = (
    "Only jobs with this id, key, voice id, MusicAPI task id, Celery message id or metadata value, or with a name, "
    "song title or voice name of which a word begins with it. Case is ignored. In quotation marks, it is found as a "
    "whole value only."
)

#: Description of `sort`.
SORT_DESCRIPTION = "By a time: `created` for jobs of a batch, `changed` for others; with `-` the latest first."

#: The reason of a change.
ChangeReason = Annotated[str, Query(max_length=200, description="Reason, kept in the audit log.")]

BatchName = Annotated[str, StringConstraints(pattern=BATCH_PATTERN)]


def _parse_time(value: Any) -> datetime:
    """Parse ISO 8601 only: a bare number could mean seconds or milliseconds."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("must be ISO 8601, for example 2026-03-01T09:30:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _parse_day(value: Any) -> date:
    """Parse a date only: a bare number could mean seconds, and a time its local day."""
    try:
        day = date.fromisoformat(value)
    except (TypeError, ValueError):
        day = None
    if day is None or str(day) != value:
        raise ValueError("must be a day, for example 2026-03-01")
    return day


Since = Annotated[datetime, BeforeValidator(_parse_time)]
Day = Annotated[date, BeforeValidator(_parse_day)]


# ── request bodies ────────────────────────────────────────────────────────────────────────────────


class JobFilter(BaseModel):
    """Selects the jobs that match all given conditions. An empty filter selects every job."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = Field(None, description="Only jobs in this state.")
    stage: Stage | None = Field(None, description="Only jobs in this stage.")
    batch: BatchName | None = Field(None, description="Only jobs of this batch.")
    code: FailureCode | None = Field(None, description="Only jobs that failed with this code.")
    since: Since | None = Field(
        None, description="Only jobs whose last transition was at this time or later; ISO 8601."
    )
    metadata: dict[str, str] = Field(default_factory=dict, description="Only jobs with these metadata values.")
    search: str | None = Field(None, max_length=500, description=SEARCH_DESCRIPTION)

    def to_filter(self) -> Filter:
        """Return the filter that the queue takes."""
        since = None if self.since is None else self.since.timestamp()
        return Filter(self.state, self.stage, self.batch, self.code, since, self.metadata, self.search)


class BulkRequest(BaseModel):
    """Either a `filter`, which creates a plan, or the `token` of a plan, which executes it."""

    model_config = ConfigDict(extra="forbid")

    filter: JobFilter | None = Field(None, description="Creates a plan for the jobs that match.")
    token: str | None = Field(None, description="Executes the plan with this token.")


class BulkRetryRequest(BulkRequest):
    """Either a `filter` and optionally `resubmit`, which create a plan, or the `token` of a plan, which executes it."""

    resubmit: bool = Field(
        False, description="Plan to submit, and pay for, every stage again, even if its result may still arrive."
    )


class BudgetLimits(BaseModel):
    """The credits that an owner may spend; null is no limit."""

    model_config = ConfigDict(extra="forbid")

    day: int | None = Field(None, ge=0, lt=2**53, description="Credits that it may spend in a day (UTC).")
    month: int | None = Field(None, ge=0, lt=2**53, description="Credits that it may spend in a month (UTC).")
    hard: bool = Field(False, description="Refuse new jobs over the budget; otherwise they wait.")
    callback_url: HttpUrl | None = Field(
        None,
        description="URL to call when 80 and 100 percent of a limit are used or reserved; null for no callback. "
        "Omitted, it stays as it is.",
    )


class EraseRequest(BaseModel):
    """Either `metadata`, which creates a plan, or the `token` of a plan, which executes it."""

    model_config = ConfigDict(extra="forbid")

    metadata: dict[str, str] | None = Field(
        None, description="Creates a plan for the jobs that have all these metadata values; at least one."
    )
    token: str | None = Field(None, description="Executes the plan with this token.")


class RetryRequest(BaseModel):
    """Changes that a retry makes to its job. The body may be omitted."""

    model_config = ConfigDict(extra="forbid")

    audio_url: str | None = Field(
        None,
        description="URL of the recording that replaces the one of the job, and of all jobs that share its voice by "
        "name. Only for a job whose voice was never ordered or paid.",
    )


class LimitsUpdate(BaseModel):
    """Changes of the limits of the whole queue. Omitted limits keep their value; null returns one to the settings of
    the workers."""

    model_config = ConfigDict(extra="forbid")

    in_flight: Annotated[int, Field(strict=True, ge=1, le=10**6)] | None = Field(
        None, description="Maximum number of jobs in flight."
    )
    submit_rate: Annotated[float, Field(strict=True, ge=0, le=10**6)] | None = Field(
        None, description="Maximum number of orders submitted per minute: 0.01 or more, or 0 for no limit."
    )
    min_balance: Annotated[int, Field(strict=True, ge=0, le=10**12)] | None = Field(
        None, description="Minimum balance to keep, in credits."
    )


class ReviewRequest(BaseModel):
    """A decision about the unsure order of a job."""

    model_config = ConfigDict(extra="forbid")

    decision: ReviewDecision = Field(
        description="`confirm` that the order was charged, `resubmit` it, which may pay a second time, or `abandon` it."
    )
    attempt: Annotated[int, Field(strict=True, ge=1, lt=2**31)] = Field(
        description="Number of the order that was reviewed, so that the decision applies to no later one."
    )
    task_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="MusicAPI's id of the task; required to confirm, and not allowed otherwise."
    )

    @model_validator(mode="after")
    def _has_task_id_to_confirm(self) -> ReviewRequest:
        confirms = self.decision is ReviewDecision.CONFIRM
        if confirms and self.task_id is None:
            raise ValueError("task_id: is required: MusicAPI's id of the task")
        if not confirms and self.task_id is not None:
            raise ValueError("task_id: is allowed to confirm a charge only")
        return self


class RedeliveryRequest(BaseModel):
    """Selects callbacks by their ids or by a batch. An empty object selects every undelivered callback."""

    model_config = ConfigDict(extra="forbid")

    callback_ids: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=500)] | None = (
        Field(None, description="Ids of the callbacks, pending or undelivered.")
    )
    batch: BatchName | None = Field(None, description="All undelivered callbacks of this batch, and of its jobs.")


class BatchUpdate(BaseModel):
    """Changes of the settings of a batch. Omitted fields keep their value."""

    model_config = ConfigDict(extra="forbid")

    callback_url: HttpUrl | None = Field(
        None,
        description="URL to call each time the batch has settled, and when it stops itself; null for no callback.",
    )
    max_credits: Annotated[int, Field(strict=True, ge=0, le=10**12)] | None = Field(
        None, description="The most credits that the batch may spend; null for no limit."
    )
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=10**6)] | None = Field(
        None, description="The most jobs of the batch in flight at once; null for no limit."
    )
    stop_after: Annotated[float, Field(strict=True, gt=0, le=1)] | None = Field(
        None,
        description="The fraction of failed jobs at which the batch stops itself, for example 0.2; null for no limit.",
    )
    stop_min: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = Field(
        None, description="Settled jobs without which `stop_after` does not apply; null for the default, 20."
    )

    def limits(self) -> BatchLimitChanges:
        """Return the limits as the queue takes them: None to keep one, infinity for none."""
        return {
            "max_credits": self._limit("max_credits"),
            "max_in_flight": self._limit("max_in_flight"),
            "stop_after": self._limit("stop_after"),
            "stop_min": self._limit("stop_min"),
        }

    def _limit(self, name: str) -> float | None:
        if name not in self.model_fields_set:
            return None
        value: float | None = getattr(self, name)
        return inf if value is None else value


# ── responses ─────────────────────────────────────────────────────────────────────────────────────


class EnqueuedJob(schemas.Job):
    """A job that was enqueued. If the request has several `songs`, it is the job that creates the voice."""

    further_job_ids: list[str]
    """Ids of the jobs for the other songs."""
    estimated_credits: int
    """The most credits that the request costs, all its jobs together."""
    position: int | None
    """Position in the backlog, from 1; null if the job is not queued."""


class ExistingJob(Schema):
    """The part of an existing job that a key without the scope `read` may see if it did not submit the job."""

    id: str
    """Unique id."""
    key: str | None
    """Idempotency key."""
    state: State
    """Current state."""
    created_at: Timestamp
    """When the job was enqueued."""
    further_job_ids: list[str]
    """Ids of the jobs for the other songs."""


class JobDetails(schemas.Job):
    """A job with its timeline."""

    holds: list[schemas.JobHold]
    """Why it is not submitted now; empty if only its turn is missing, and in other states than `queued` and `waiting`.
    Computed with each request."""
    timeline: list[schemas.TimelineEntry]
    """State transitions, oldest first."""


class CallbackSecret(Schema):
    """A new callback secret of an API key."""

    name: str
    """Name of the key."""
    secret: str
    """The secret, as receivers configure it: `whsec_` and base64."""


class BulkPlan(Schema):
    """A frozen list of jobs and the cost of changing them. Nothing has changed yet."""

    token: str
    """Executes the plan."""
    action: BulkAction
    """What the plan does."""
    resubmit: bool
    """True if every stage is submitted and paid for again."""
    count: int
    """Number of jobs."""
    max_credits: int
    """The most credits that a retry costs."""
    repeat_credits: int
    """Of these, credits for stages that were charged before."""
    submitted: int
    """Number of jobs to cancel that MusicAPI is working on; they stay paid."""
    uncertain: int
    """Number of jobs to cancel that are `charging` or `unsure`; they are cancelled later."""
    expires_at: Timestamp
    """When the token expires."""
    complete: bool
    """False if more jobs match than one plan takes."""


class BulkResult(Schema):
    """The result of executing a plan."""

    action: BulkAction
    """What the plan does."""
    count: int
    """Number of jobs in the plan."""
    changed: int
    """Number of jobs retried or cancelled."""
    cancelling: int
    """Number of `charging` or `unsure` jobs that will be cancelled once the outcome of their request is known."""
    skipped: int
    """Number of jobs left unchanged: for a retry those that changed after planning, for a cancellation those in a
    final state."""


class ErasureResult(Schema):
    """The result of an erasure. The same token returns it again for a day."""

    certificate: operator_schemas.ErasureCertificate
    """What was erased. It contains no text of the person."""
    text: str
    """The certificate as text."""
    upstream_ids: list[str]
    """Voices and tasks at MusicAPI, for a request to erase them there. Not part of the certificate."""


class RedeliveryResult(Schema):
    """The number of callbacks that are delivered again."""

    redelivered: int
    """Number of callbacks that are due now."""
    missing: int
    """Number of the requested ids that no callback has: it was delivered meanwhile, or never existed."""


class PauseResult(Schema):
    """The result of pausing or resuming."""

    changed: bool
    """False if it was already paused, or not paused."""


class Health(Schema):
    """A process that answers."""

    status: Literal["ok"]
    """Always `ok`."""


class Readiness(Health):
    """A queue whose jobs are processed."""

    workers: int
    """Number of workers whose last heartbeat is recent."""
