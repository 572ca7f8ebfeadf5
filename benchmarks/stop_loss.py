"""10,000 rows of which 95 % fail upstream: what they cost with `ingest --stop-after 20%`, by the simulator's ledger.

Real workers with the default settings: a failure needs two reports, 15 to 25 s apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from rich.table import Table

from benchmarks.load import write_csv
from config.settings import Settings
from voicequeue import Batch, BatchStop, VoiceQueue
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.domain.stop_loss import STOP_MIN
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

ROWS, WORKERS = 10_000, 2

#: The share of orders of each stage that fail.
FAILURES: Mapping[str, Mapping[str, float]] = {
    "voices fail": {"voice_failure": 0.95, "music_failure": 0},
    "songs fail": {"voice_failure": 0, "music_failure": 0.95},
}

#: A run fails if the batch has not stopped, or has orders in flight, after this long (seconds).
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a run: the stop, jobs in flight at most and just after it, orders and credits of the ledger."""

    stop: BatchStop
    seconds: float
    in_flight_max: int
    in_flight_after: int
    orders: int
    orders_after_stop: int
    credits: int

    @property
    def allowed(self) -> int:
        """The credits that the sample and the jobs in flight may cost."""
        return (STOP_MIN + self.in_flight_max) * sum(PRICES.values())


def tables() -> Iterator[Table]:
    """Yield the table of results. Raises RuntimeError if a run costs more than it may."""
    runs = {name: measured(dials) for name, dials in FAILURES.items()}
    table = Table(f"{ROWS:,} rows, 95 % fail, limit 20 %", *runs)
    for label, figure in (
        ("settled in the sample", lambda run: run.stop.settled),
        ("failed in the sample", lambda run: run.stop.failed),
        ("in flight, at most", lambda run: run.in_flight_max),
        ("in flight after the stop", lambda run: run.in_flight_after),
        ("orders charged", lambda run: run.orders),
        ("orders charged after the stop", lambda run: run.orders_after_stop),
        ("credits spent", lambda run: run.credits),
        ("(sample + in flight) × price", lambda run: run.allowed),
        ("all rows would cost", lambda _: ROWS * sum(PRICES.values())),
        ("seconds until the stop", lambda run: round(run.seconds)),
    ):
        table.add_row(label, *(f"{figure(run):,}" for run in runs.values()))
    yield table
    for name, run in runs.items():
        if run.credits > run.allowed:
            raise RuntimeError(f"{name}: {run.credits:,} credits were spent, {run.allowed:,} are allowed")


def measured(dials: Mapping[str, float]) -> Measured:
    """Ingest the rows into a fresh stack, and wait until the batch has stopped and its orders have finished."""
    with tempfile.TemporaryDirectory() as folder, Supervisor(print_line=print) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env={"VOICEQUEUE_LOG_LEVEL": "WARNING"})
        url = stack.start_valkey()
        _, control = stack.start_simulator({"credits": 10_000_000, "jitter": 0.3, "seed": 1, **dials})
        stack.start_workers(WORKERS)
        started = time.monotonic()
        _ingest(url, Path(folder) / "rows.csv")
        with VoiceQueue(url, namespace="*") as queue:
            in_flight = _in_flight_until_stop(queue)
            seconds = time.monotonic() - started
            stop = queue.batch("bad").stop
            in_flight_after = _in_flight(queue.batch("bad"))
            _wait_until_idle(queue)
        ledger: dict[str, Any] = requests.get(f"{control}/ledger", timeout=30).json()
    if stop is None:
        raise RuntimeError("the batch was resumed")
    return Measured(
        stop,
        seconds,
        in_flight_max=max(in_flight, in_flight_after),
        in_flight_after=in_flight_after,
        orders=ledger["charged"],
        orders_after_stop=sum(charge["at"] > stop.at for charge in ledger["charges"]),
        credits=ledger["credits_spent"],
    )


def _ingest(url: str, file: Path) -> None:
    write_csv(file, ROWS)
    command = [sys.executable, "-m", "voicequeue.cli", "ingest", str(file), "--batch", "bad", "--stop-after", "20%"]
    subprocess.run(command, env={**os.environ, "REDIS_URL": url}, stdout=subprocess.DEVNULL, check=True)


def _in_flight(batch: Batch) -> int:
    return sum(batch.states[state] for state in IN_FLIGHT)


def _in_flight_until_stop(queue: VoiceQueue) -> int:
    """Wait for the stop; return how many jobs were in flight at most."""
    most, deadline = 0, time.monotonic() + TIMEOUT_S
    while (batch := queue.batch("bad")).stop is None:
        most = max(most, _in_flight(batch))
        if time.monotonic() > deadline:
            raise RuntimeError(f"the batch has not stopped: {batch}")
        time.sleep(0.05)
    return most


def _wait_until_idle(queue: VoiceQueue) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while _in_flight(queue.batch("bad")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"orders are in flight: {queue.batch('bad')}")
        time.sleep(0.2)
