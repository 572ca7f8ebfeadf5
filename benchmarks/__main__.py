"""Measure voicequeue on this machine and print tables (`make bench`)."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    capacity,
    enqueueing,
    finished,
    gateway,
    growth,
    in_flight,
    ingesting,
    keys,
    pacing,
    paging,
    pipeline,
    polling,
    preflight,
    processes,
    scraping,
    steady,
    stop_loss,
)
from benchmarks.peers import contestants, flight, race, realistic, report
from config.settings import Settings
from workers.local.stack import ROOT, Stack
from workers.local.supervisor import Supervisor

PARTS = ("enqueueing", "gateway", "scraping", "paging", "pipeline", "ingesting")

#: Comparisons with other queues.
RACES = ("peers", "flight", "realistic")

#: Parts that take minutes and run only if they are named; these print their own tables.
LONG: Mapping[str, Callable[[argparse.Namespace], Iterator[Table]]] = {
    "capacity": lambda _: capacity.tables(),
    "polling": lambda _: polling.tables(),
    "pacing": lambda _: pacing.tables(),
    "growth": lambda options: growth.tables(options.up_to),
    "finished": lambda options: finished.tables(options.up_to),
    "flight_ours": lambda options: in_flight.tables(options.up_to),
    "processes": lambda _: processes.tables(),
    "steady": lambda _: steady.tables(),
    "keys": lambda _: keys.tables(),
    "stop_loss": lambda _: stop_loss.tables(),
}
NAMED_ONLY = ("preflight", *RACES)


def main() -> int:
    """Run the selected parts, each with a fresh Valkey. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, *LONG, *NAMED_ONLY, []], help=f"default: {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--rows", type=int, default=ingesting.ROWS, help="rows to ingest in `ingesting` and `preflight`"
    )
    parser.add_argument(
        "--up-to",
        type=int,
        default=growth.UP_TO,
        help="maximum number of jobs in `growth`, `finished` and `flight_ours`",
    )
    parser.add_argument("--rounds", type=int, default=race.ROUNDS, help="rounds of `peers`")
    parser.add_argument("--jobs", type=int, default=race.JOBS, help="jobs per contestant of `peers`")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[contestant.name for contestant in contestants.CONTESTANTS],
        help="run only this contestant of `peers`, `flight` and `realistic`; repeatable",
    )
    parser.add_argument("--in-flight", type=int, default=flight.JOBS, help="jobs in flight in `flight`")
    parser.add_argument(
        "--rate", type=int, action="append", default=[], help="jobs a second in `realistic`; repeatable"
    )
    options = parser.parse_args()
    console = Console(highlight=False)
    table = Table("figure", "value", title=f"voicequeue on {platform.machine()}, Python {platform.python_version()}")
    for part in options.parts or PARTS:
        console.print(f"measuring {part} …")
        if part in RACES:
            _RUN[part](console, options)
            continue
        if part in LONG:
            for result_table in LONG[part](options):
                console.print(result_table)
            continue
        with tempfile.TemporaryDirectory() as folder, Supervisor(print_line=console.print) as supervisor:
            figures = _measure(part, supervisor, Path(folder), options.rows)
        for name, value in figures.items():
            table.add_row(name, f"{value:,.0f}" if value >= 100 else f"{value:.2f}")
        table.add_section()
    if table.row_count:
        console.print(table)
    return 0


def _race(console: Console, options: argparse.Namespace) -> None:
    """Run the comparison with other queues; save the figures if all of them ran."""
    standings, floor = race.run(options.rounds, options.jobs, options.only, console.print)
    console.print(report.markdown(standings, floor), markup=False, soft_wrap=True)
    if not options.only:
        for path in report.save(standings, floor, rounds=options.rounds, jobs=options.jobs):
            console.print(f"written: {path.relative_to(ROOT)}")


def _fly(console: Console, options: argparse.Namespace) -> None:
    """Measure jobs in flight on all queues; save the figures if all of them ran."""
    flights = flight.run(options.in_flight, options.only, console.print)
    console.print(report.flights_markdown(flights), markup=False, soft_wrap=True)
    if not options.only and options.in_flight == flight.JOBS:
        for path in report.save_flights(flights, options.in_flight):
            console.print(f"written: {path.relative_to(ROOT)}")


def _arrive(console: Console, options: argparse.Namespace) -> None:
    """Measure jobs that arrive with realistic durations on all queues; save the figures if all of them ran."""
    results = list(realistic.run(options.rate or realistic.RATES, options.only, console.print))
    console.print(report.realistic_markdown(results), markup=False, soft_wrap=True)
    if not options.only and not options.rate:
        for path in report.save_realistic(results):
            console.print(f"written: {path.relative_to(ROOT)}")


_RUN: Mapping[str, Callable[[Console, argparse.Namespace], None]] = {
    "peers": _race,
    "flight": _fly,
    "realistic": _arrive,
}


def _measure(part: str, supervisor: Supervisor, folder: Path, rows: int) -> dict[str, float]:
    stack = Stack(supervisor, Settings(), home=folder, env=pipeline.PACE)
    url = stack.start_valkey()
    if part == "enqueueing":
        return enqueueing.measure(url)
    if part == "ingesting":
        return ingesting.measure(url, folder, rows)
    if part == "gateway":
        return gateway.measure(stack, supervisor)
    if part == "scraping":
        return scraping.measure(url, stack)
    if part == "paging":
        return paging.measure(url, stack)
    if part == "preflight":
        return preflight.measure(url, folder, rows)
    return pipeline.measure(url, stack, supervisor)


if __name__ == "__main__":
    sys.exit(main())
