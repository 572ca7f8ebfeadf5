"""The erasure of a person: what it concerns, and the certificate of what was erased. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voicequeue.domain.job import to_iso8601


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
        rejected_messages: Rejected messages that contain the metadata.
        sharing_jobs: Jobs of others that share a voice with them; they lose it for later orders.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON representation."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("expires_at", "is_complete")}
        return {**fields, "count": self.count, "expires_at": to_iso8601(self.expires_at), "complete": self.is_complete}


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
    archived_files: int = 0
    callback_hosts: tuple[str, ...] = ()
    upstream_ids: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_stored(cls, fields: Mapping[str, Any]) -> ErasureCertificate:
        """Return the certificate with these fields, read from JSON."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON representation, without the ids at upstream."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "upstream_ids"}
        remains = list(self.remains())
        return {**fields, "at": to_iso8601(self.at), "count": len(self.jobs), "remains": remains}

    def remains(self) -> tuple[str, ...]:
        """Return what remains elsewhere, as sentences."""
        lines = [
            f"MusicAPI: {len(self.upstream_ids)} voices and tasks, to be erased there on request.",
            f"Backups of Redis and of the archive made before {to_iso8601(self.at)}, until they are deleted.",
            "Logs of workers and of the gateway: ids of jobs and names of batches, until they are deleted.",
        ]
        if self.callback_hosts:
            lines.append(f"Receivers of callbacks: {', '.join(self.callback_hosts)}.")
        if self.archived_files:
            lines.append(f"Archive: {self.archived_files} files, until an archive worker has deleted them.")
        if self.pending:
            lines.append(f"{self.pending} jobs whose order may be charged; erased once its outcome is known.")
        return tuple(lines)
