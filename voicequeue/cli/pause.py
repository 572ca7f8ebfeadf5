"""`pause` and `resume`: stop and resume the submission of orders."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.terminal import AsJson, BatchOption, Reason, escape_untrusted, open_queue, option, out, print_json
from voicequeue.domain.stage import Stage
from voicequeue.errors import check_field
from voicequeue.texts import require_encodable

StageOption = Annotated[Stage | None, option("STAGE", help=f"Only this stage: {' or '.join(Stage)}.")]


def pause(
    stage: StageOption = None,
    batch: BatchOption = None,
    reason: Annotated[str, option("TEXT", help="Show this reason in the status.")] = "",
    as_json: AsJson = False,
) -> None:
    """Stop submitting orders: all, of one stage, or of one batch.

    Submitted orders are still polled, and their results are stored.
    """
    _check_scope(stage, batch)
    check_field("reason", require_encodable, reason)
    with open_queue() as jobs:
        changed = jobs.pause(stage=stage, batch=batch, reason=reason)
    _report(f"{_scope(stage, batch)} {'is paused' if changed else 'was paused already'}", changed, as_json=as_json)


def resume(stage: StageOption = None, batch: BatchOption = None, reason: Reason = "", as_json: AsJson = False) -> None:
    """Resume what is paused, and retry now what is on hold."""
    _check_scope(stage, batch)
    with open_queue(reason=reason) as jobs:
        changed = jobs.resume(stage=stage, batch=batch)
    _report(f"{_scope(stage, batch)} {'is resumed' if changed else 'was not paused'}", changed, as_json=as_json)


def _check_scope(stage: Stage | None, batch: str | None) -> None:
    if stage is not None and batch is not None:
        raise typer.BadParameter("give --stage or --batch, not both")


def _scope(stage: Stage | None, batch: str | None) -> str:
    if batch is not None:
        return f"batch {batch}"
    return "everything" if stage is None else f"the {stage} stage"


def _report(text: str, changed: bool, *, as_json: bool) -> None:
    if as_json:
        print_json({"changed": changed})
    else:
        out.print(escape_untrusted(text))
