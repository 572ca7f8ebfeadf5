"""The erasure of a person: what it concerns, and the certificate of what was erased. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voicequeue.domain.job import to_iso8601
from voicequeue.texts import pluralize

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """The jobs and data that an erasure concerns, and the token that executes it.

    Attributes:
        token: Pass it to `erase`.
        jobs_by_state: Number of jobs by state.
        songs: Number of their songs.
        archived_files: Number of their archived files; each song also has a description.
        personas: Number of voices that upstream created for them.
        callbacks: Callbacks that are pending or undelivered.
        rejected_messages: Rejected messages with the metadata, or the key or recording of one of the jobs.
        sharing_jobs: Jobs of others that have the recording of one of the jobs; they lose its voice for later orders.
        uncertain: Jobs that are `charging` or `unsure`; they are erased once the outcome of their order is known.
        credits_in_flight: Credits of orders that were or may have been charged and have not delivered.
        expires_at: When the token expires (Unix seconds).
        is_complete: False if more jobs match than one plan takes.
    """

    token: str
    jobs_by_state: Mapping[str, int]
    songs: int
    archived_files: int
    personas: int
    callbacks: int
    rejected_messages: int
    sharing_jobs: int
    uncertain: int
    credits_in_flight: int
    expires_at: float
    is_complete: bool

    @property
    def count(self) -> int:
        """Number of jobs."""
        return sum(self.jobs_by_state.values())

    def as_dict(self) -> operator_schemas.ErasurePlan:
        """Return the JSON representation."""
        return {
            "token": self.token,
            "count": self.count,
            "jobs_by_state": dict(self.jobs_by_state),
            "songs": self.songs,
            "archived_files": self.archived_files,
            "personas": self.personas,
            "callbacks": self.callbacks,
            "rejected_messages": self.rejected_messages,
            "sharing_jobs": self.sharing_jobs,
            "uncertain": self.uncertain,
            "credits_in_flight": self.credits_in_flight,
            "expires_at": to_iso8601(self.expires_at),
            "complete": self.is_complete,
        }

    def sentences(self) -> tuple[str, ...]:
        """Return what the erasure concerns, for people."""
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(self.jobs_by_state.items()))
        lines = [
            f"{pluralize(self.count, 'job')} ({states or 'none'}), {pluralize(self.songs, 'song')}, "
            f"{pluralize(self.archived_files, 'archived file')}",
            f"{pluralize(self.personas, 'voice')}, {pluralize(self.callbacks, 'stored callback')}, "
            f"{pluralize(self.rejected_messages, 'rejected message')}",
        ]
        if self.sharing_jobs:
            lines.append(
                f"{pluralize(self.sharing_jobs, 'job')} of others with the same recording: not erased, but without its "
                "voice for later orders"
            )
        if self.credits_in_flight:
            lines.append(
                f"{pluralize(self.credits_in_flight, 'credit')} of orders in flight, whose results are not kept"
            )
        if self.uncertain:
            lines.append(
                f"{pluralize(self.uncertain, 'job')} charging or unsure: erased once the outcome of the order is known"
            )
        if not self.is_complete:
            lines.append("More jobs match than one plan takes; repeat the erasure for the others")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class ErasureCertificate:
    """A record of what was erased, and what remains elsewhere. It contains no text of the person.

    Attributes:
        at: When it was erased (Unix seconds).
        actor: The person or program that erased it.
        namespace: Namespace of the jobs; `*`: in all.
        jobs: Keyed hashes of the ids of erased jobs.
        pending: Number of jobs that are erased once the outcome of their order is known.
        callbacks: Number of deleted callbacks that were still stored.
        rejected_messages: Number of deleted messages.
        events: Number of deleted events.
        audit_entries: Number of entries of the audit log that no longer name a job.
        audit_entries_left: Number of those that a worker replaces, because the gateway may only append to the log.
        archived_files: Number of archived files that an archive worker deletes.
        callback_hosts: Hosts that may have received callbacks.
        upstream_ids: Personas and tasks at upstream, for a request to erase them there. Not part of the certificate.
    """

    at: float
    actor: str
    namespace: str
    jobs: tuple[str, ...] = ()
    pending: int = 0
    callbacks: int = 0
    rejected_messages: int = 0
    events: int = 0
    audit_entries: int = 0
    audit_entries_left: int = 0
    archived_files: int = 0
    callback_hosts: tuple[str, ...] = ()
    upstream_ids: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_stored(cls, fields: Mapping[str, Any]) -> ErasureCertificate:
        """Return the certificate with these fields, read from JSON."""
        values: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in fields.items()}
        return cls(**values)

    def as_dict(self) -> operator_schemas.ErasureCertificate:
        """Return the JSON representation, without the ids at upstream."""
        return {
            "at": to_iso8601(self.at),
            "actor": self.actor,
            "namespace": self.namespace,
            "count": len(self.jobs),
            "jobs": list(self.jobs),
            "pending": self.pending,
            "callbacks": self.callbacks,
            "rejected_messages": self.rejected_messages,
            "events": self.events,
            "audit_entries": self.audit_entries,
            "audit_entries_left": self.audit_entries_left,
            "archived_files": self.archived_files,
            "callback_hosts": list(self.callback_hosts),
            "remains": list(self.remains()),
        }

    def as_text(self) -> str:
        """Return the certificate as text, without the ids at upstream."""
        scope = {"": "in the default namespace", "*": "in all namespaces"}.get(
            self.namespace, f"in the namespace {self.namespace}"
        )
        lines = [
            f"Certificate of erasure, {to_iso8601(self.at)}",
            f"Erased by {self.actor} {scope}:",
            f"  {pluralize(len(self.jobs), 'job')}, with timeline and {pluralize(self.events, 'event')}",
            f"  {pluralize(self.callbacks, 'stored callback')}",
            f"  {pluralize(self.rejected_messages, 'rejected message')}",
            f"  names in the audit log: {self.audit_entries:,}",
            "What remains elsewhere:",
            *(f"  {line}" for line in self.remains()),
            "Keyed hashes of the jobs:",
            *(f"  {tombstone}" for tombstone in self.jobs),
        ]
        return "\n".join(lines) + "\n"

    def remains(self) -> tuple[str, ...]:
        """Return what remains elsewhere, as sentences."""
        lines = [
            f"Backups of Redis and of the archive made before {to_iso8601(self.at)}, until they are deleted.",
            "Redis's own files: what was written before, until BGREWRITEAOF (BGSAVE without such a file) has run.",
            "Logs: ids of jobs and names of batches, until they are deleted.",
            "Files outside of the queue: tables of jobs, with their rejected rows and exports.",
            "Messages that no worker has received yet: refused when they arrive, if their key or recording was erased.",
            "Archived songs of jobs whose records were purged before.",
        ]
        if self.upstream_ids:
            ids = pluralize(len(self.upstream_ids), "id")
            lines.insert(0, f"MusicAPI: {ids} of voices and tasks, to be erased there on request.")
        if self.callback_hosts:
            lines.append(f"Receivers of callbacks: {', '.join(self.callback_hosts)}.")
        if self.audit_entries_left:
            lines.append(f"Names in the audit log: {self.audit_entries_left:,}, until a worker has removed them.")
        if self.archived_files:
            files = pluralize(self.archived_files, "file")
            lines.append(f"Archive: {files}, until an archive worker has deleted them.")
        if self.pending:
            lines.append(
                f"{pluralize(self.pending, 'job')} whose order may be charged: erased once its outcome is known. What "
                "MusicAPI creates for it is not listed."
            )
        return tuple(lines)
