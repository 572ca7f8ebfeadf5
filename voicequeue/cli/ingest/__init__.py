"""`ingest`: add the rows of a file to the queue."""

from voicequeue.cli.ingest.command import ingest

__all__ = ["ingest"]
