"""`enqueue`, `ingest`, `export`: jobs in and results out."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, TextIO, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from voicequeue.cli.show import print_job
from voicequeue.cli.terminal import AsJson, complain, err, json_text, out, print_json, printable, queue, writable
from voicequeue.errors import InvalidJob, Problem, VoiceQueueError
from voicequeue.job import Job, State
from voicequeue.queue import CHUNK, Receipt, Rejection
from voicequeue.rows import REJECTED_COLUMNS, Row, Rows, UnreadableFile
from voicequeue.song import Song
from voicequeue.spec import Priority, VoiceJob, batch_name, http_url, parse

SONG_OPTIONS = tuple(Song.model_fields)

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


def span(text: str) -> float:
    """Seconds, from `90s`, `30m`, `24h` or `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip())
    if not found or not float(found[1]):
        raise typer.BadParameter("must be a number with s, m, h or d, such as 24h")
    return float(found[1]) * _UNITS[found[2]]


StartBy = Annotated[
    float | None,
    typer.Option(parser=span, metavar="24h", help="Fails with the code `expired` if nothing was ordered by then."),
]


class Format(StrEnum):
    """How results are written."""

    CSV = "csv"
    JSONL = "jsonl"


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(enqueue)
    app.command()(ingest)
    app.command()(export)


def enqueue(
    audio_url: Annotated[str | None, typer.Option(help="A public MP3 or WAV of one clear speaker.")] = None,
    persona_id: Annotated[str | None, typer.Option(help="A voice made before, instead of --audio-url.")] = None,
    song: Annotated[str | None, typer.Option(help="The song as JSON: " + ", ".join(SONG_OPTIONS))] = None,
    name: Annotated[str | None, typer.Option(help="A name for the voice.")] = None,
    batch: Annotated[str | None, typer.Option(help="The batch it belongs to.")] = None,
    priority: Annotated[Priority, typer.Option(help="Who goes first.")] = Priority.NORMAL,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same job.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Yours, as NAME=VALUE; may be repeated.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Told when it has settled, or is unsure.")] = None,
    max_credits: Annotated[int | None, typer.Option(help="The most it may cost.")] = None,
    start_by: StartBy = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has settled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put one job into the queue."""
    given = {
        "audio_url": audio_url,
        "persona_id": persona_id,
        "song": _json_object("song", song),
        "name": name,
        "batch": batch,
        "priority": priority,
        "key": key,
        "metadata": _pairs(metadata or []),
        "callback_url": callback_url,
        "max_credits": max_credits,
        "start_within_s": start_by,
    }
    with queue() as jobs:
        job = jobs.enqueue(parse(given))
        if wait:
            job = jobs.wait(job.id)
        print_job(job, as_json=as_json)
    raise typer.Exit(int(wait and job.state is not State.SUCCEEDED))


def _json_object(field: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidJob([Problem(field, f"is not readable as JSON: {error}")]) from None


def _pairs(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if bad := [name for name, equals, _ in split if not (name and equals)]:
        raise InvalidJob([Problem("metadata", f"must be NAME=VALUE, not {bad[0]!r}")])
    return {name: value for name, _, value in split}


def ingest(
    file: Annotated[str, typer.Argument(help="CSV or JSON Lines; - is standard input.", show_default=False)],
    batch: Annotated[str, typer.Option(help="The batch that the rows belong to.", show_default=False)],
    max_credits: Annotated[int | None, typer.Option(min=0, help="The most the whole batch may spend.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Its jobs with upstream at once, at most.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Told when the whole batch has settled.")] = None,
    start_by: StartBy = None,
    as_json: AsJson = False,
) -> None:
    """Put every row of a file into the queue. Running it again adds nothing.

    Rows that cannot be taken go to FILE.rejected.csv with line and reason; the others go on.
    """
    _checked("batch", batch_name, batch)
    if callback_url is not None:
        _checked("callback_url", http_url, callback_url)
    source = Path("stdin") if file == "-" else Path(file)
    with ExitStack() as stack:
        raw = cast(BinaryIO, sys.stdin.buffer) if file == "-" else stack.enter_context(_opened(source))
        rows = Rows(raw)
        rejects = stack.enter_context(Rejects(source.with_name(f"{source.name}.rejected.csv"), rows.columns))
        size = None if file == "-" else source.stat().st_size
        _set_batch(batch, callback_url, max_credits=max_credits, max_in_flight=max_in_flight)
        intake = Intake(rows, batch, rejects, start_by)
        receipt = intake.run(stack.enter_context(_progress(size)), raw, size)
    _report(receipt, rejects, as_json=as_json)
    raise typer.Exit(int(receipt.rejected > 0))


def _checked(field: str, check: Callable[[str], str], given: str) -> None:
    try:
        check(given)
    except ValueError as error:
        raise InvalidJob([Problem(field, str(error))]) from None


def _set_batch(batch: str, callback_url: str | None, *, max_credits: int | None, max_in_flight: int | None) -> None:
    """Before its first job comes."""
    if callback_url is None and max_credits is None and max_in_flight is None:
        return
    with queue() as jobs:
        jobs.limit_batch(batch, max_credits=max_credits, max_in_flight=max_in_flight)
        if callback_url is not None:
            jobs.call_back_batch(batch, callback_url)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror}") from None


class Rejects:
    """The file of rejected rows; it is not made before the first one."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.count = 0
        self._columns = columns
        self._file: TextIO | None = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row, error: VoiceQueueError) -> None:
        """Write one row, with its line and the reason."""
        self.count += 1
        if self._file is None:
            self._file = writable(self.path)
            csv.writer(self._file).writerow([*REJECTED_COLUMNS, *self._columns])
        cells = [row.cells.get(column, "") for column in self._columns]
        csv.writer(self._file).writerow([row.line, error, *cells, *row.more])


class Intake:
    """Rows on their way into the queue."""

    def __init__(self, rows: Rows, batch: str, rejects: Rejects, start_within_s: float | None) -> None:
        self._rows = rows
        self._batch = batch
        self._start_within_s = start_within_s
        self._rejects = rejects
        # The queue takes whole chunks and then says which it rejected: those rows are still here.
        self._recent: deque[Row] = deque(maxlen=CHUNK)
        self._taken = 0

    def run(self, progress: Progress, raw: BinaryIO, size: int | None) -> Receipt:
        """Enqueue them all; the receipt counts the rows that were no jobs as well."""
        bar = progress.add_task("ingesting", total=size)

        def advancing() -> Iterator[VoiceJob]:
            for job in self._jobs():
                if self._taken % CHUNK == 0:
                    progress.update(bar, completed=raw.tell() if size else self._taken)
                yield job
            progress.update(bar, completed=size or self._taken)

        with queue() as jobs:
            receipt = jobs.enqueue_many(advancing(), on_reject=self._conflict)
        receipt.rejected = self._rejects.count
        return receipt

    def _jobs(self) -> Iterator[VoiceJob]:
        for row in self._rows:
            try:
                job = row.job(self._batch, start_within_s=self._start_within_s)
            except InvalidJob as error:
                self._rejects.add(row, error)
                continue
            self._recent.append(row)
            self._taken += 1
            yield job

    def _conflict(self, rejection: Rejection) -> None:
        self._rejects.add(self._recent[rejection.index - self._taken], rejection.error)


def _progress(size: int | None) -> Progress:
    counting = MofNCompleteColumn() if size is None else TimeRemainingColumn()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), counting)
    return Progress(*columns, console=err, disable=not err.is_terminal, transient=True)


def _report(receipt: Receipt, rejects: Rejects, *, as_json: bool) -> None:
    if as_json:
        file = str(rejects.path) if rejects.count else None
        print_json(
            {
                "new": receipt.new,
                "known": receipt.known,
                "rejected": receipt.rejected,
                "credits": receipt.credits,
                "rejected_file": file,
            }
        )
        return
    out.print(
        f"[green]{receipt.new:,} new[/], {receipt.known:,} known already, {receipt.rejected:,} rejected; "
        f"the new ones will cost {receipt.credits:,} credits"
    )
    if rejects.count:
        complain(f"rejected rows with their reasons: {rejects.path}")


CSV_COLUMNS = (
    "id", "key", "batch", "name", "priority", "state", "stage", "audio_url", "persona_id", "voice_name",
    "song_1_url", "song_1_title", "song_1_duration", "song_1_archived", "song_1_cover_archived",
    "song_2_url", "song_2_title", "song_2_duration", "song_2_archived", "song_2_cover_archived",
    "failure_code", "failure_stage", "failure_message", "credits", "created_at", "settled_at", "metadata", "song",
)  # fmt: skip


def export(
    batch: Annotated[str | None, typer.Option(help="Only this batch.")] = None,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    format: Annotated[Format, typer.Option(help="CSV for people, JSON Lines for programs.")] = Format.CSV,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, instead of standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write jobs with what was asked for and what came of it."""
    with queue() as jobs, ExitStack() as stack:
        found = jobs.jobs(state=state, batch=batch)
        first = next(found, None)  # a Redis that is away must not leave an empty file behind
        file = sys.stdout if output is None else stack.enter_context(writable(output))
        write = _json_line if as_json or format is Format.JSONL else _csv_line
        if write is _csv_line:
            csv.writer(file).writerow(CSV_COLUMNS)
        if first is not None:
            write(file, first)
        for job in found:
            write(file, job)


def exported(job: Job) -> dict[str, Any]:
    """A job's results as everywhere, and the song that was asked for."""
    song = job.spec.song
    return {**job.as_dict(), "song": song.model_dump(exclude_none=True) if song else None}


def _json_line(file: TextIO, job: Job) -> None:
    file.write(json_text(exported(job)) + "\n")


def _csv_line(file: TextIO, job: Job) -> None:
    record = exported(job)
    for number, clip in enumerate(job.clips[:2], start=1):
        record |= {
            f"song_{number}_url": clip.audio_url,
            f"song_{number}_title": clip.title,
            f"song_{number}_duration": clip.duration,
            f"song_{number}_archived": clip.archived_audio.url if clip.archived_audio else "",
            f"song_{number}_cover_archived": clip.archived_image.url if clip.archived_image else "",
        }
    if job.failure:
        record |= {f"failure_{name}": value for name, value in record["failure"].items()}
    for name in ("metadata", "song"):
        record[name] = json.dumps(record[name], ensure_ascii=False) if record[name] else ""
    csv.writer(file).writerow([_cell(record.get(column, "")) for column in CSV_COLUMNS])


def _cell(value: Any) -> Any:
    return printable(value, keep="\n\t") if isinstance(value, str) else value
