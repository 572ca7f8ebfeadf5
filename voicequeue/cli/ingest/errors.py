"""Errors that stop an ingestion before its end."""

from __future__ import annotations

from voicequeue.errors import VoiceQueueError


class IngestStoppedError(VoiceQueueError):
    """No further row is enqueued; the text says why and what to do."""

    code = "stopped"

    def __init__(self, message: str, *, can_resume: bool = True) -> None:
        super().__init__(message)
        self.can_resume = can_resume


class FileChangedError(IngestStoppedError):
    """The file was changed while it was read."""

    code = "file_changed"

    def __init__(self, message: str) -> None:
        super().__init__(message, can_resume=False)


class TooManyRejectedError(IngestStoppedError):
    """More rows were rejected than `--max-rejected` allows."""

    code = "max_rejected"


class NotAffordableError(IngestStoppedError):
    """The account cannot pay for the rows, and the caller has not confirmed them."""

    code = "not_affordable"


class DeclinedError(IngestStoppedError):
    """The caller has declined rows that the account cannot pay for."""

    code = "declined"
