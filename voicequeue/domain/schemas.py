"""The JSON shapes that the command line, HTTP and callbacks share.

Each `as_dict` method returns one of these, checked field by field by mypy; the gateway publishes them in its OpenAPI
schema with these descriptions. Scripts may rely on every name. All times are ISO 8601 in UTC, to the millisecond.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import ArchiveState, FailureCode, State

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


@with_config(ConfigDict(extra="forbid"))
class Schema(TypedDict):
    """Base of all shapes: every key is present and no other is allowed.

    workers/gateway/openapi.py publishes the docstrings.
    """


class ArchivedFile(Schema):
    """A file in the archive."""

    url: str
    """Where the file is."""
    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the content, in hexadecimal."""


class Clip(Schema):
    """One generated song. MusicAPI's links expire; archived files do not."""

    clip_id: str
    """MusicAPI's id of the song."""
    state: str
    """State of the song in MusicAPI's words."""
    title: str | None
    """Title."""
    audio_url: str | None
    """MusicAPI's link to the audio; null while the song is missing, and if it failed."""
    image_url: str | None
    """MusicAPI's link to the cover."""
    duration: float | None
    """Length in seconds."""
    archived_audio: ArchivedFile | None
    """The audio in the archive; null if it is not archived."""
    archived_image: ArchivedFile | None
    """The cover in the archive; null if it is not archived."""
    video_url: str | None
    """MusicAPI's link to the video."""
    tags: str | None
    """Style tags."""
    lyrics: str | None
    """Lyrics."""
    mv: str | None
    """Model version."""
    created_at: str | None
    """When MusicAPI created the song, in MusicAPI's format."""
    gpt_description_prompt: str | None
    """The description that the lyrics were generated from."""


class Failure(Schema):
    """The failure of a job."""

    code: FailureCode
    """Machine-readable reason."""
    stage: Stage
    """Stage that failed."""
    message: str
    """Details, in MusicAPI's words where it gave any."""


class Job(Schema):
    """A job: one voice and, optionally, the song to sing with it."""

    id: str
    """Unique id."""
    namespace: str
    """Namespace that owns the job; empty for the default one."""
    key: str | None
    """Idempotency key."""
    batch: str | None
    """Name of the batch that the job belongs to."""
    source: str | None
    """How the job was submitted and by which API key or app, for example `http:shop`."""
    source_row: int | None
    """Row of the job in the file that it came from, from 1."""
    message_ids: list[str]
    """Ids of the Celery messages that enqueued the job: the first and the latest; empty if it came another way."""
    name: str | None
    """Name of the voice to create."""
    priority: Priority
    """Priority in the backlog."""
    state: State
    """Current state."""
    cancelling: bool
    """True if cancellation was requested while the job was `charging` or `unsure`: it is cancelled once the outcome of
    the request in flight is known."""
    stage: Stage
    """Current stage: `voice` creates the voice, `music` the song."""
    audio_url: str | None
    """URL of the recording; null if the job starts from a `persona_id`."""
    persona_id: str | None
    """MusicAPI's id of the voice; null until it exists."""
    voice_name: str | None
    """Name of the voice at MusicAPI."""
    clips: list[Clip]
    """The generated songs."""
    incomplete: bool
    """True while MusicAPI has announced songs without links."""
    archive: ArchiveState | None
    """Progress of archiving; null if nothing is to be archived."""
    failure: Failure | None
    """Why the job failed; null unless `state` is `failed`."""
    credits: int
    """Credits spent so far."""
    created_at: Timestamp
    """When the job was enqueued."""
    settled_at: Timestamp | None
    """When the job reached a final state; null until then."""
    metadata: dict[str, str]
    """Your own key-value pairs."""


class TimelineEntry(Schema):
    """One state transition of a job."""

    at: Timestamp
    """When it happened."""
    state: State
    """State that the job entered."""
    stage: Stage
    """Stage that the job was in."""
    reason: str
    """Why, in words; may be empty."""
    attempt: int
    """Number of the order that it concerns, from 1; 0 before the first. A charge discovered later has the number of
    an older order."""
    task_id: str | None
    """MusicAPI's id of the task."""


class Event(Schema):
    """A state transition, as the event stream reports it."""

    at: Timestamp
    """When it happened."""
    job_id: str | None
    """Id of the job; null where one event reports many enqueued jobs."""
    namespace: str
    """Namespace that owns the job; empty for the default one."""
    batch: str | None
    """Batch of the job."""
    state: State
    """State that the job entered."""
    stage: Stage | None
    """Stage that the job was in; null where `job_id` is null."""
    reason: str
    """Why, in words; the number of jobs where `job_id` is null."""


class ChargeReview(Job):
    """An unsure job and the evidence whether it was charged."""

    attempt: int
    """Number of the order, from 1; a decision names it."""
    reason: str
    """What happened."""
    upstream_response: str | None
    """Beginning of MusicAPI's response, if it could not be read."""
    since: Timestamp
    """When the job became unsure."""
    credits_at_stake: int
    """Credits that the order costs."""
    credits_before: int | None
    """Account balance before the order; null if unknown."""
    credits_after: int | None
    """Account balance after the order; null if unknown."""
    credits_unexplained: int | None
    """Credits that left the account in between and that no record explains; null if unknown."""


class BatchStop(Schema):
    """The stop of a batch of which too many jobs failed."""

    at: Timestamp
    """When it stopped."""
    reason: str
    """Why, in words."""
    settled: int
    """Number of settled jobs that were counted."""
    failed: int
    """Number of them that failed."""
    failed_by_code: dict[str, int]
    """Number of failed ones by `failure.code`."""
    in_flight: int
    """Number of accepted orders that were in flight."""


class BatchProgress(Schema):
    """The progress of a batch."""

    name: str
    """Name of the batch."""
    namespace: str
    """Namespace that owns the batch; empty for the default one."""
    states: dict[State, int]
    """Number of jobs by state."""
    total: int
    """Number of jobs."""
    settled: bool
    """True if every job is in a final state or `unsure`."""
    credits: int
    """Credits spent."""
    credits_reserved: int
    """Credits reserved for jobs in flight, unsure jobs, and lost orders that may have been charged."""
    credits_queued: int
    """Credits that queued and waiting jobs will take in addition, each shared voice once."""
    failed_by_code: dict[str, int]
    """Number of failed jobs by `failure.code`."""
    stopped: BatchStop | None
    """Why no more orders are submitted; null unless the batch has stopped itself by `stop_after`."""


class BatchLimits(Schema):
    """The pause and the limits of a batch."""

    paused: bool
    """True if no orders of the batch are submitted: an operator paused it, or it has `stopped` itself."""
    max_credits: int | None
    """The most credits that the batch may spend; null for no limit."""
    max_in_flight: int | None
    """The most jobs of the batch in flight at once; null for no limit."""
    stop_after: float | None
    """The fraction of failed jobs at which the batch stops itself, for example 0.2; null for no limit."""
    stop_min: int
    """Settled jobs without which `stop_after` does not apply."""


class Batch(BatchProgress, BatchLimits):
    """A named set of jobs: its progress and its limits."""

    created_at: Timestamp | None
    """When its first job was enqueued."""


class Hold(Schema):
    """A reason why nothing is charged."""

    reason: str
    """`paused`, `paused.voice`, `paused.music`, `out_of_credits`, `unauthorized`, `cooldown`, `upstream_down` or
    `unreplicated`."""
    detail: str
    """Details, in MusicAPI's or the operator's words."""
    since: Timestamp
    """When the hold began."""
    until: Timestamp | None
    """When it ends; null until an operator, or new credits on the account, end it."""
    trial: bool
    """True while one job at a time is let through as a trial."""


class Gate(Schema):
    """The gate that all charges pass."""

    open: bool
    """True if there is no hold."""
    holds: list[Hold]
    """Why nothing is charged."""


class JobHold(Schema):
    """A reason why a queued or waiting job is not submitted now."""

    reason: str
    """`batch_paused`, `batch_stopped`, `batch_in_flight`, `batch_credits`, `budget_in_flight`, `budget_day`,
    `budget_month`, `refused`, `recording`, `voice`, or the reason of a hold of the gate."""
    owner: str
    """Whose limit it is: `account`, `namespace/NAME`, `key/NAME`, `batch/NAME`, `job/ID`, or `gate`."""
    until: Timestamp | None
    """When it ends at the latest; null if that is unknown, or if someone has to end it."""
    detail: str
    """The reason as a sentence."""


class BacklogHold(JobHold):
    """A reason why queued jobs are not admitted, although the gate is open."""

    jobs: int
    """Number of queued jobs that it holds; of a hold of an API key or of one job, only those at the head of a lane."""


class Backlog(Schema):
    """The queued jobs of one priority."""

    priority: Priority
    """Priority of the jobs."""
    count: int
    """Number of jobs."""
    oldest_at: Timestamp
    """When the oldest of them was enqueued."""


class RefusedJob(Schema):
    """A job whose order MusicAPI refuses while it accepts others."""

    job_id: str
    """Id of the job."""
    stage: Stage
    """Stage that is refused."""
    message: str
    """MusicAPI's words."""
    refusals: int
    """Number of refusals in a row."""
    next_attempt_at: Timestamp
    """When the order is submitted again, at the earliest."""


class CallbackCounts(Schema):
    """Number of callbacks that were not delivered."""

    pending: int
    """Callbacks still to be delivered."""
    undelivered: int
    """Callbacks given up after all attempts."""


class ArchiveCounts(Schema):
    """Number of jobs whose songs are not archived."""

    pending: int
    """Jobs whose songs are still to be archived."""
    failed: int
    """Jobs given up after all attempts."""


class Status(Schema):
    """An overview of the queue, or of one batch. `rejected_messages`, `callbacks` and `archive` are 0 for a batch."""

    namespace: str
    """Namespace that the numbers are of; `*` for all."""
    batch: str | None
    """Name of the batch; null for all jobs of the namespace."""
    states: dict[State, int]
    """Number of jobs by state."""
    gate: Gate
    """What holds charges back."""
    in_flight: int
    """Jobs in flight."""
    in_flight_limit: int
    """Jobs that may be in flight now; adjusted automatically."""
    backlog: list[Backlog]
    """Queued jobs by priority."""
    backlog_holds: list[BacklogHold]
    """Why queued jobs are not admitted although the gate is open; the reason of the most jobs first."""
    jobs_per_minute: float
    """Jobs succeeded per minute, over the last five minutes."""
    seconds_left: float | None
    """Estimated seconds until all jobs have settled; null if no job succeeded recently, while the gate is closed, or if
    a limit or a pause holds the first jobs of a lane for longer."""
    credits: int
    """Credits spent by these jobs."""
    balance: int | None
    """Credits on the account: the balance at `balance_at` minus what was spent since; null until it is known, and
    in one namespace: the account is shared."""
    balance_at: Timestamp | None
    """When MusicAPI last reported the balance."""
    credits_reserved: int
    """Credits reserved for jobs in flight and unsure jobs."""
    credits_queued: int
    """Credits that queued and waiting jobs of the whole queue will take in addition, each shared voice once."""
    credits_today: int
    """Credits spent since midnight UTC."""
    credits_unexplained: int
    """Credits that left the account and that no order explains: another user of the account, or a changed price."""
    failed_by_code: dict[str, int]
    """Number of failed jobs by `failure.code`."""
    rejected_messages: int
    """Number of rejected messages kept."""
    refused_jobs: list[RefusedJob]
    """Jobs that MusicAPI refuses while it accepts others."""
    stopped_batches: list[str]
    """Batches with unsettled jobs that have stopped themselves by `stop_after`, the latest stop first."""
    callbacks: CallbackCounts
    """Callbacks that were not delivered."""
    archive: ArchiveCounts
    """Jobs whose songs are not archived."""
    workers: int
    """Workers whose last heartbeat is at most 15 s old."""
