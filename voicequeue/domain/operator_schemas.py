"""JSON shapes for operators: rejected messages, voices, callbacks, the archive, and the results of `doctor`."""

from __future__ import annotations

from typing import Any

from voicequeue.domain.schemas import Schema, Timestamp


class RejectedMessage(Schema):
    """A Celery message that could not be enqueued."""

    rejected_at: Timestamp
    """When it was rejected."""
    message_id: str
    """Celery's id of the message."""
    task: str
    """Name of the Celery task."""
    reason: str
    """What is wrong."""
    namespace: str
    """Namespace that owns the message; empty for the default one."""
    job: Any
    """The job as sent, or the beginning of its text if it is not JSON or too long."""


class Limits(Schema):
    """The limits of the whole queue that apply now."""

    in_flight: int
    """Maximum number of jobs in flight."""
    submit_rate: float | None
    """Maximum number of orders submitted per minute; null for no limit."""
    min_balance: int
    """Minimum balance to keep, in credits."""


class Persona(Schema):
    """A voice that MusicAPI keeps and that other jobs can use."""

    persona_id: str
    """MusicAPI's id of the voice."""
    namespace: str
    """Namespace that owns the voice; empty for the default one."""
    voice_name: str | None
    """Name of the voice."""
    audio_url: str
    """URL of the recording."""
    job_id: str
    """Id of the job that created the voice."""
    created_at: Timestamp
    """When the voice was created."""


class Callback(Schema):
    """A callback that was not delivered yet."""

    id: str
    """Unique id; also the `webhook-id` header."""
    type: str
    """Event type, for example `job.succeeded`."""
    created_at: Timestamp
    """When the event happened."""
    namespace: str
    """Namespace that owns the job or the batch; empty for the default one."""
    job_id: str | None
    """Id of the job; null for a callback about a batch."""
    batch: str | None
    """Name of the batch."""
    attempts: int
    """Number of failed attempts."""
    last_error: str | None
    """Why the last attempt failed."""
    due_at: Timestamp | None
    """When the next attempt is made; null while an earlier callback of the job is pending, and after giving up."""
    undelivered_at: Timestamp | None
    """When delivery was given up."""


class ArchiveJob(Schema):
    """A job whose songs are not archived."""

    job_id: str
    """Id of the job."""
    namespace: str
    """Namespace that owns the job; empty for the default one."""
    batch: str | None
    """Batch of the job."""
    since: Timestamp
    """When its songs were ready."""
    attempts: int
    """Number of failed attempts."""
    last_error: str | None
    """Why the last attempt failed."""
    due_at: Timestamp | None
    """When the next attempt is made; null after giving up."""
    failed_at: Timestamp | None
    """When archiving was given up."""


class AuditEntry(Schema):
    """A change that a person or a program made."""

    id: str
    """Unique id of the entry; later entries have larger ones."""
    at: Timestamp
    """When the change was made."""
    actor: str
    """Who made it: `key:NAME`, `page:NAME`, `cli:USER@HOST` or `library:APP`."""
    address: str | None
    """Address of the HTTP client."""
    action: str
    """What was done, for example `pause`, `cancel`, `retry`, `resubmit` or `set_batch_limits`."""
    namespace: str
    """Namespace in which it was made; empty for the default one."""
    job_id: str | None
    """Id of the job; null if it concerned several jobs, or none."""
    batch: str | None
    """Name of the batch."""
    details: dict[str, Any]
    """Its other arguments, or the filter of a bulk change. URLs are shortened to their host."""
    jobs: int | None
    """Number of jobs (callbacks, messages, findings) that it concerned."""
    credits: int | None
    """The most credits that it could cost; null if it ordered nothing."""
    reason: str | None
    """The reason that the actor gave."""


class Budget(Schema):
    """The credits that an owner may spend in the current day or month (UTC)."""

    owner: str
    """`account` (all jobs), `namespace/NAME` (`namespace/` is the default one), or `key/NAME`, an API key."""
    period: str
    """`day` or `month`."""
    limit: int
    """Maximum number of credits."""
    spent: int
    """Credits that were charged."""
    reserved: int
    """Credits that jobs in flight will spend, and that unsure and lost orders may have spent."""
    remaining: int
    """Credits that other orders may spend."""
    resets_at: Timestamp
    """When the next period begins."""
    hard: bool
    """True if new jobs over the budget are refused; otherwise they wait."""


class BudgetUsed(Budget):
    """The data of a callback about a budget whose use has come to a level."""

    namespace: str
    """Namespace of the owner; `*` for the account and an API key."""
    percent: int
    """80, or 100: what remains pays no voice with a song."""


class Spending(Schema):
    """Credits that were charged; a column is null if the report is not grouped by it."""

    namespace: str | None
    """Name of the namespace; empty for the default one."""
    key: str | None
    """Name of the API key; empty for all that no key is known for."""
    batch: str | None
    """Name of the batch; empty for jobs without a batch, and batches whose jobs were all purged."""
    day: str | None
    """Day (UTC), such as `2026-03-01`; empty for what was not counted by day."""
    month: str | None
    """Month (UTC), such as `2026-03`; empty for what was not counted by month."""
    credits: int
    """Number of credits."""


class ErasurePlan(Schema):
    """The jobs and data that an erasure concerns. Nothing has changed yet."""

    token: str
    """Executes the plan."""
    count: int
    """Number of jobs."""
    jobs_by_state: dict[str, int]
    """Number of jobs by state."""
    songs: int
    """Number of their songs."""
    archived_files: int
    """Number of their archived files; each song also has a description."""
    personas: int
    """Number of voices that MusicAPI created for them."""
    callbacks: int
    """Number of stored callbacks."""
    rejected_messages: int
    """Number of rejected messages that name the person."""
    sharing_jobs: int
    """Jobs of others with the same recording. They stay; those that have no voice yet pay for a new one."""
    uncertain: int
    """Jobs that are `charging` or `unsure`; they are erased once the outcome of their order is known."""
    credits_in_flight: int
    """Credits of orders that were or may have been charged and have not delivered."""
    expires_at: Timestamp
    """When the token expires."""
    complete: bool
    """False if more jobs match than one plan takes."""


class ErasureCertificate(Schema):
    """A record of what was erased, and what remains elsewhere."""

    at: Timestamp
    """When it was erased."""
    actor: str
    """Who erased it: `key:NAME`, `page:NAME`, `cli:USER@HOST` or `library:APP`."""
    namespace: str
    """Namespace of the jobs; empty for the default one, `*` for all."""
    count: int
    """Number of erased jobs."""
    jobs: list[str]
    """Keyed hashes of the ids of erased jobs."""
    pending: int
    """Jobs that are erased once the outcome of their order is known."""
    callbacks: int
    """Number of deleted callbacks."""
    rejected_messages: int
    """Number of deleted messages."""
    events: int
    """Number of deleted events."""
    audit_entries: int
    """Entries of the audit log that no longer name a job."""
    audit_entries_left: int
    """Entries that a worker replaces soon, because the gateway may only append to the log."""
    archived_files: int
    """Archived files that an archive worker deletes."""
    callback_hosts: list[str]
    """Hosts that may have received callbacks."""
    remains: list[str]
    """What remains elsewhere, as sentences."""


class Check(Schema):
    """The result of one check of `voicequeue doctor`."""

    check: str
    """Name of the check."""
    level: str
    """`ok`, `note`, `warning`, `error` or `unreachable`."""
    message: str
    """What the check found."""
    action: str
    """What to do about it; empty if nothing."""


class ApiKey(Schema):
    """An API key, without its secret."""

    name: str
    """Name of its holder; never given to another key."""
    namespace: str
    """Namespace that it acts in; empty for the default one, `*` for an operator's key."""
    scopes: list[str]
    """What it may do."""
    requests_per_s: float | None
    """Requests a second, over all gateways; null is no limit."""
    max_priority: str | None
    """Highest priority of its jobs."""
    batch_pattern: str | None
    """Pattern that the batches of its jobs match."""
    expires_at: Timestamp | None
    """When it expires."""
    max_in_flight: int | None
    """Number of its jobs that may be in flight."""
    budget_day: int | None
    """Credits that its jobs may spend in a day (UTC)."""
    budget_month: int | None
    """Credits that its jobs may spend in a month (UTC)."""
    created_at: Timestamp | None
    """When it was created."""
    rotating_until: Timestamp | None
    """Until when the secret before the last rotation is accepted."""
    revoked_at: Timestamp | None
    """When it was revoked."""
    last_used_at: Timestamp | None
    """When it was last used, about a minute exact."""
