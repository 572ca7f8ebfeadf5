"""`make demo`: run a dozen sample voices through the whole pipeline and show the progress."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from rich.prompt import Confirm

from config.settings import Settings, settings
from voicequeue import ArchiveState, Batch, Clip, Job, State, VoiceJob, VoiceQueue
from voicequeue.cli.status import print_status
from voicequeue.cli.terminal import coloured, escape_untrusted, out
from voicequeue.cli.watch import follow
from voicequeue.domain.namespaces import ALL
from voicequeue.ingest.row_reader import RowReader
from voicequeue.storage.connection.redis_url import masked
from workers.local.environment_file import forget_earlier_stack
from workers.local.home import STOP_MARGIN_S, HomeInUseError, lock_home
from workers.local.stack import HOME, ROOT, Addresses, Stack
from workers.local.supervisor import Supervisor
from workers.private_files import UnsafeFileError

WORKERS = 2
SAMPLE = ROOT / "samples" / "voices.csv"

#: How long the jobs may take, in seconds: on the simulator, and with a real account.
SIMULATED_TIMEOUT_S = 55.0
REAL_TIMEOUT_S = 1800.0

#: How long to wait for songs that are being archived, in seconds.
ARCHIVE_TIMEOUT_S = 20.0

NEXT_STEPS = """
The demo and its simulator have ended, so the links above no longer play. What next:
  [bold]make up[/]   keeps everything running: a page with players for the songs, the command line, an HTTP API.
            It prints what to type in another terminal.
  Your spreadsheet: .venv/bin/voicequeue ingest FILE.xlsx --batch mine --dry-run, while make up runs.
            Columns name and audio_url, for a song also title and prompt; samples/voices.csv is an example.
  Your MusicAPI account: docs/tutorial/own-account.md sets limits first. A voice costs 4 credits, a song 15.
  docs/tutorial/first-song.md explains each step."""


def main() -> int:
    """Run the demo. Return 0 if every job succeeded."""
    forget_earlier_stack(os.environ)
    configured = settings()
    batch = f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    jobs = sample(batch)
    if not _is_confirmed(configured, jobs):
        out.print("nothing was spent")
        return 1
    home = HOME / "demo"
    try:
        with (
            lock_home(home, wait_s=configured.stop_timeout_s + STOP_MARGIN_S, print_line=out.print) as lock,
            Supervisor(print_line=out.print, inherited_fds=[lock.descriptor]) as supervisor,
        ):
            with out.console.status("starting Valkey, the simulator, two workers and Flower"):
                stack = Stack(supervisor, configured, home=home, print_line=partial(out.print, soft_wrap=True))
                addresses = stack.start_all(workers=WORKERS, callbacks=False)
            last = _run(addresses, configured, batch, jobs)
        if addresses.simulator:
            out.print(NEXT_STEPS, soft_wrap=True)
    except (TimeoutError, HomeInUseError, UnsafeFileError) as error:
        out.print(f"[red]{error}[/]", soft_wrap=True)
        return 1
    return 0 if last.states[State.SUCCEEDED] == last.total == len(jobs) else 1


def sample(batch: str) -> list[VoiceJob]:
    """Return the bundled voices as jobs of this batch."""
    with SAMPLE.open("rb") as file:
        return [row.to_job(batch) for row in RowReader(file)]


def _is_confirmed(configured: Settings, jobs: list[VoiceJob]) -> bool:
    """Ask a user at a terminal before credits of a real account are spent; return the answer."""
    has_key = bool(configured.musicapi_key.get_secret_value())
    is_local = urlsplit(configured.musicapi_base_url).hostname in ("localhost", "127.0.0.1", "::1")
    if not has_key or is_local or not sys.stdin.isatty():
        return True
    cost = sum(job.credits for job in jobs)
    return Confirm.ask(f"MUSICAPI_KEY is set: this spends up to {cost} of its credits. Continue?", default=False)


def _run(at: Addresses, configured: Settings, batch: str, jobs: list[VoiceJob]) -> Batch:
    upstream = f"the simulator at {at.simulator}" if at.simulator else masked(configured.musicapi_base_url)
    out.print(f"{WORKERS} workers on {upstream}\nFlower {at.flower}   Redis {masked(at.redis)}\n", soft_wrap=True)
    started = time.monotonic()
    with VoiceQueue(at.redis, prefix=configured.prefix, namespace=ALL) as queue:
        summary = queue.enqueue_many(jobs)
        out.print(f"[bold]{summary.new} voices[/] from {SAMPLE.relative_to(ROOT)} into the batch {batch}\n")
        timeout_s = float(
            os.environ.get("VOICEQUEUE_DEMO_TIMEOUT_S", SIMULATED_TIMEOUT_S if at.simulator else REAL_TIMEOUT_S)
        )
        [last] = follow(queue, batch, interval_s=0.2, timeout_s=timeout_s)
        if configured.archive_url.get_secret_value():
            _wait_for_archive(queue, batch)
        _show(list(queue.jobs(batch=batch)))
        if not last.is_settled:
            print_status(queue.status(batch), batch)
    seconds = time.monotonic() - started
    out.print(f"\n[bold]{last.states[State.SUCCEEDED]} of {last.total} succeeded[/] in {seconds:.0f} s", end=", ")
    out.print(f"{last.credits} credits spent")
    return last


def _wait_for_archive(queue: VoiceQueue, batch: str) -> None:
    """Wait until the songs are archived, and print how many files there are."""
    deadline = time.monotonic() + ARCHIVE_TIMEOUT_S
    while any(job.archive is ArchiveState.PENDING for job in queue.jobs(batch=batch)) and time.monotonic() < deadline:
        time.sleep(0.2)
    clips = [clip for job in queue.jobs(batch=batch) for clip in job.clips]
    files = [file for clip in clips for file in (clip.archived_audio, clip.archived_image) if file]
    out.print(f"{len(files)} files in the archive, {sum(file.size for file in files):,} bytes\n")


def _show(jobs: list[Job]) -> None:
    """Print personas and songs, without wrapping lines, so that links can be clicked."""
    width = max(len(job.spec.name or job.voice_name or job.id) for job in jobs)
    for job in jobs:
        name = f"{escape_untrusted(job.spec.name or job.voice_name or job.id):<{width}}"
        voice = f"persona {escape_untrusted(job.persona_id)}" if job.persona_id else coloured(job.state)
        failure = f"  {escape_untrusted(job.failure.message)}" if job.failure else ""
        out.print(f"[bold]{name}[/]  {voice}{failure}", soft_wrap=True)
        for clip in job.clips:
            out.print(
                f"{'':<{width}}  {_length(clip)}  {escape_untrusted(clip.title)}  {escape_untrusted(clip.audio_url)}",
                soft_wrap=True,
            )


def _length(clip: Clip) -> str:
    minutes, seconds = divmod(round(clip.duration or 0), 60)
    return f"{minutes}:{seconds:02}"


if __name__ == "__main__":
    sys.exit(main())
