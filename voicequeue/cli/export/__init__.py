"""`export`: write jobs and their results to a file."""

from voicequeue.cli.export.command import export

__all__ = ["export"]
