"""The needs of a number of jobs a day, as in docs/explanation/scaling.md: `python -m benchmarks.sizing 50000 --peak 5`.

A job is a voice and a song, with what it costs as `make bench PARTS="capacity polling"` measures it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Load:
    """The assumptions. Durations are means, in seconds."""

    peak: float = 3.0  #: the rate of the busiest hour, of the average
    voice_s: float = 60.0
    song_s: float = 120.0
    late_s: float = 10.0  #: from when a result is ready until a poll detects it
    post_s: float = 5.0
    poll_s: float = 0.5
    retention_days: float = 30.0


#: What a job costs if jobs arrive one by one: counts, processor time in milliseconds, and credits.
POLLS, REDIS_COMMANDS, REDIS_MS, WORKER_MS, ARCHIVE_MS, CREDITS = 4.2, 155, 3.8, 7.7, 41, 19

#: Bytes of a job in memory, written to the append-only file in its whole life, left there by a rewrite, and archived.
IN_FLIGHT_BYTES, FINISHED_BYTES, WRITTEN_BYTES, REWRITTEN_BYTES, ARCHIVED_BYTES = 1_700, 3_000, 13_500, 1_650, 6_000_000

#: Files of this many times the rewritten size: it doubles until the next rewrite, which writes the new one beside it.
FILES = 4

#: Requests that a child process makes at once, and orders of a job.
AT_ONCE, ORDERS = 32, 2


def needs(jobs_a_day: float, load: Load) -> Mapping[str, str]:
    """Return what this number of jobs needs, by name."""
    average = jobs_a_day / DAY_S
    peak = average * load.peak
    seconds = load.voice_s + load.song_s + ORDERS * load.late_s  # in flight
    at_once = peak * (ORDERS * load.post_s + POLLS * load.poll_s)
    kept = jobs_a_day * load.retention_days
    data = kept * FINISHED_BYTES + peak * seconds * IN_FLIGHT_BYTES
    return {
        "jobs per second, on average and at the peak": f"{_short(average)}, {_short(peak)}",
        "jobs in flight, on average and at the peak": f"{_short(average * seconds)}, {_short(peak * seconds)}",
        "orders per second, at the peak": _short(peak * ORDERS),
        "polls per second, at the peak": _short(peak * POLLS),
        "requests to MusicAPI at once, at the peak": _short(at_once),
        "child processes for them": str(math.ceil(at_once / AT_ONCE)),
        "processors for workers, at the peak": _short(peak * WORKER_MS / 1000),
        "processors for Redis, at the peak": _short(peak * REDIS_MS / 1000),
        "commands of Redis per second, at the peak": _short(peak * REDIS_COMMANDS),
        "jobs kept": _short(kept),
        "memory of Redis": _bytes(data),
        "written to the append-only file a day": _bytes(jobs_a_day * WRITTEN_BYTES),
        "disk for the append-only file": _bytes(FILES * kept * REWRITTEN_BYTES),
        "callbacks per second, at the peak": _short(peak),
        "archived a day": _bytes(jobs_a_day * ARCHIVED_BYTES),
        "archived per second, at the peak": _bytes(peak * ARCHIVED_BYTES),
        "processors for the archive, at the peak": _short(peak * ARCHIVE_MS / 1000),
        "credits a day": _short(jobs_a_day * CREDITS),
    }


def _short(value: float) -> str:
    """Return a number with two significant digits."""
    digits = 1 - math.floor(math.log10(value)) if value else 0
    return f"{round(value, digits):,.{max(0, digits)}f}"


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if value >= size:
            return f"{_short(value / size)} {unit}"
    return f"{_short(value / 1e6)} MB"


def main() -> None:
    """Print what a number of jobs a day needs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__.partition("`")[0])
    parser.add_argument("jobs", type=float, help="jobs a day")
    for field in fields(Load):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    options = vars(parser.parse_args())
    for name, value in needs(options.pop("jobs"), Load(**options)).items():
        print(f"{name:<48}{value:>16}")


if __name__ == "__main__":
    main()
