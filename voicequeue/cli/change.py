"""`retry`, `cancel`: change what becomes of a job."""

from __future__ import annotations

import typer

from voicequeue.cli.show import print_job
from voicequeue.cli.terminal import AsJson, JobId, queue


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(retry)
    app.command()(cancel)


def retry(job_id: JobId, as_json: AsJson = False) -> None:
    """Let a failed job go on where it stopped; what has a result is not bought again."""
    with queue() as jobs:
        print_job(jobs.retry(job_id), as_json=as_json)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job. Credits that were spent stay spent."""
    with queue() as jobs:
        print_job(jobs.cancel(job_id), as_json=as_json)
