"""What requests and answers look like, as /docs tells it. The answers themselves are the queue's `as_dict`."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from voicequeue import Code, Filter, InArchive, Priority, Stage, State
from voicequeue.client.bulk_operations import Action
from voicequeue.domain.spec import BATCH_PATTERN, HttpUrl

EXAMPLE_JOB: dict[str, Any] = {
    "id": "k5v2yj3q7m6xw4ra",
    "key": "customer-17-take-3",
    "batch": "spring",
    "origin": "http:shop",
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
EXAMPLE_PLACED = {**EXAMPLE_JOB, "further": [], "estimated_credits": 19, "position": 3}
EXAMPLE_ORDER: dict[str, Any] = {
    "audio_url": "https://example.com/ana.wav",
    "song": {"title": "Harbour Lights", "prompt": "[Verse]\nThe harbour lights are counting ships"},
    "name": "Ana",
    "batch": "spring",
    "metadata": {"customer": "17"},
}

#: What `called` looks for.
CALLED = (
    "exactly this is its key, its name, its song's title, the id or name of its voice, one of upstream's task ids, or "
    "the value of one of its metadata"
)

BatchName = Annotated[str, StringConstraints(pattern=BATCH_PATTERN)]


def _moment(given: Any) -> datetime:
    """From ISO 8601 alone: a bare number might be meant in seconds or in milliseconds."""
    try:
        at = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise ValueError("must be ISO 8601, such as 2026-03-01T09:30:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


Since = Annotated[datetime, BeforeValidator(_moment)]


class Wanted(BaseModel):
    """Which jobs: those that all of these are true of. Empty: every job."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"batch": "spring", "code": "deadline"}]})

    state: State | None = None
    stage: Stage | None = None
    batch: BatchName | None = None
    code: Code | None = Field(None, description="why it failed")
    since: Since | None = Field(None, description="its last move was then or later; ISO 8601")
    metadata: dict[str, str] = Field(default_factory=dict)
    called: str | None = Field(None, max_length=500, description=CALLED)

    def filter(self) -> Filter:
        """As the queue takes it."""
        since = None if self.since is None else self.since.timestamp()
        return Filter(self.state, self.stage, self.batch, self.code, since, self.metadata, self.called)


class Order(BaseModel):
    """First a `filter`, which is answered with a plan and its token; then that token."""

    model_config = ConfigDict(extra="forbid")

    filter: Wanted | None = None
    token: str | None = None


class RetryOrder(Order):
    """The same; `resubmit` orders anew, and pays, also where upstream could be asked again."""

    resubmit: bool = False


class BatchSettings(BaseModel):
    """What holds for a batch as a whole, beginning now; what is not there stays as it is."""

    model_config = ConfigDict(extra="forbid")

    callback_url: HttpUrl | None = Field(None, description="told each time the batch has come to rest; null: nobody")
    max_credits: Annotated[int, Field(strict=True, ge=0, le=10**12)] | None = Field(
        None, description="the most that it may spend; null: any"
    )
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=10**6)] | None = Field(
        None, description="its jobs with upstream at once, at most; null: any"
    )

    def limit(self, name: str) -> float | None:
        """A limit as the queue takes it: None leaves it, and null is none."""
        if name not in self.model_fields_set:
            return None
        value: float | None = getattr(self, name)
        return inf if value is None else value


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ArchivedFile(_Answer):
    """A file in the archive: its size in bytes, and its hash."""

    url: str
    size: int
    sha256: str


class Clip(_Answer):
    """One song: upstream's links, which do not live for ever, and those of the archive. Without `audio_url` it failed,
    or is missing still."""

    clip_id: str
    state: str
    title: str | None
    audio_url: str | None
    image_url: str | None
    duration: float | None
    archived_audio: ArchivedFile | None
    archived_image: ArchivedFile | None
    video_url: str | None
    tags: str | None
    lyrics: str | None
    mv: str | None
    created_at: str | None = Field(description="as upstream writes it")
    gpt_description_prompt: str | None


class Failure(_Answer):
    """Why a job failed."""

    code: Code
    stage: Stage
    message: str


class Job(_Answer):
    """A job as it stands. `credits` are those spent so far."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_JOB]})

    id: str
    key: str | None
    batch: str | None
    origin: str | None = Field(description="the door that it came through, and whose key brought it")
    name: str | None
    priority: Priority
    state: State
    cancelling: bool = Field(description="charging or unsure, and cancelled as soon as its order's fate is known")
    stage: Stage
    audio_url: str | None
    persona_id: str | None
    voice_name: str | None
    clips: list[Clip]
    incomplete: bool = Field(description="upstream has named songs whose links it has not given")
    archive: InArchive | None
    failure: Failure | None
    credits: int
    created_at: datetime
    settled_at: datetime | None
    metadata: dict[str, str]


class Placed(Job):
    """A job that was enqueued: what it will cost in all, and its place in the backlog (1 goes next).

    With several `songs` it is the one that makes the voice, and `further` are the ids of those that sing with it.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_PLACED]})

    further: list[str]
    estimated_credits: int
    position: int | None


class Known(_Answer):
    """That a key stands for a job: all that a caller sees of another one's job without the scope `read`."""

    id: str
    key: str | None
    state: State
    created_at: datetime
    further: list[str]


class Step(_Answer):
    """One move of a job."""

    at: datetime
    state: State
    stage: Stage
    reason: str
    attempt: int
    task_id: str | None


class Told(Job):
    """A job with every move it made."""

    timeline: list[Step]


class Jobs(_Answer):
    """A page of jobs; `next` is the cursor of the page after it, null at the end."""

    jobs: list[Job]
    next: str | None


class Batch(_Answer):
    """A named set of jobs: how many stand where, what they spent, and what somebody set for it."""

    batch: str
    states: dict[State, int]
    total: int
    settled: bool
    credits: int
    credits_committed: int = Field(description="promised to its jobs in flight, to unsure ones, and to lost orders")
    paused: bool
    max_credits: int | None
    max_in_flight: int | None


class Batches(_Answer):
    """A page of batches; `next` is the cursor of the page after it, null at the end."""

    batches: list[Batch]
    next: str | None


class Plan(_Answer):
    """A frozen list of jobs, and what its token may do to them until `expires_at`. Nothing was changed yet."""

    token: str
    action: Action
    resubmit: bool
    found: int = Field(description="how many jobs")
    credits: int = Field(description="what a retry costs at most")
    again: int = Field(description="credits of these for what was charged before")
    paid: int = Field(description="jobs of a cancel that upstream works on; they stay paid")
    under_way: int = Field(description="jobs of a cancel that are charging or unsure; they will be marked")
    expires_at: datetime
    complete: bool = Field(description="false: there are more such jobs than one plan takes")


class Done(_Answer):
    """What became of a plan. Left alone: of a retry jobs that had moved on since, of a cancel those that were over."""

    action: Action
    found: int
    changed: int
    marked: int = Field(description="charging or unsure jobs: no further stage is ordered, then they are cancelled")
    moved_on: int


class Hold(_Answer):
    """One reason why nothing is charged."""

    reason: str
    detail: str
    since: datetime
    until: datetime | None
    trial: bool


class Gate(_Answer):
    """What holds charges back."""

    open: bool
    holds: list[Hold]


class Waiting(_Answer):
    """The queued jobs of one priority."""

    priority: Priority
    count: int
    oldest: datetime


class Callbacks(_Answer):
    """Callbacks that are still to be delivered, and those that were given up."""

    pending: int
    undelivered: int


class Archive(_Answer):
    """Jobs whose songs are still to be archived, and those whose songs were given up."""

    pending: int
    failed: int


class RefusedJob(_Answer):
    """A job whose order MusicAPI refuses while it takes others."""

    job_id: str
    stage: Stage
    message: str
    times: int
    until: datetime


class Status(_Answer):
    """The queue, or one batch of it, at a glance."""

    batch: str | None
    states: dict[State, int]
    gate: Gate
    in_flight: int
    limit: int
    backlog: list[Waiting]
    per_minute: float
    seconds_left: float | None
    credits: int
    credits_left: int | None
    credits_left_at: datetime | None
    credits_committed: int = Field(description="promised to jobs in flight, and to unsure ones")
    credits_today: int
    credits_unexplained: int = Field(description="credits that left the account, and that no order explains")
    failed: dict[str, int]
    rejects: int
    refused: list[RefusedJob]
    callbacks: Callbacks
    archive: Archive
    workers: int


class RejectedMessage(_Answer):
    """A Celery message that became no job, and why. `job` is what was given, or the beginning of its text."""

    at: datetime
    message_id: str
    task: str
    reason: str
    job: Any


class Rejects(_Answer):
    """Rejected messages, the newest first."""

    rejects: list[RejectedMessage]


class Changed(_Answer):
    """False: it was so already."""

    changed: bool


class FieldError(_Answer):
    """One field that is wrong, as a dotted path; empty where it is the whole."""

    field: str
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it. `code` is for scripts, `errors` name each field that is wrong."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | None = None
    job_id: str | None = None
