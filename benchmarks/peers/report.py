"""The figures as tables, JSON and a bar chart."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import OURS, Contestant, version
from benchmarks.peers.flight import Flight
from benchmarks.peers.race import ContestantResult, Figures
from benchmarks.peers.realistic import Realistic
from workers.local.stack import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PLOT = ROOT / "docs" / "images" / "peers.svg"

#: The row of the floor for every queue.
FLOOR = "the floor"


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of the table: its title, decimals, and whether higher is better."""

    name: str
    title: str
    decimals: int = 0
    more_is_better: bool = False
    unit: float = 1.0

    def shown(self, figures: Mapping[str, float]) -> str:
        """Return the formatted figure; empty if there is none."""
        value = figures.get(self.name)
        return "" if value is None else f"{value * self.unit:,.{self.decimals}f}"


COLUMNS = (
    Column("enqueued_one_s", "enqueued a second, one by one", more_is_better=True),
    Column("enqueued_many_s", "enqueued a second, many at once", more_is_better=True),
    Column("drained_s", "drain: jobs a second", more_is_better=True),
    Column("drain_cpu_ms", "drain: CPU a job, ms", 1),
    Column("memory_mb", "drain: memory, MB"),
    Column("drain_calls", "drain: calls a job", 2),
    Column("trickle_cpu_ms", "trickle: CPU a job, ms", 1),
    Column("trickle_calls", "trickle: calls a job", 2),
    Column("late_p50_s", "trickle: late p50, s", 2),
    Column("late_p95_s", "trickle: late p95, s", 2),
)

#: The figures of the plot; requests and lateness differ little and are only in the table.
PLOTTED = tuple(column for column in COLUMNS if "call" not in column.name and "late" not in column.name)


def save(results: Sequence[ContestantResult], floor: Figures, *, rounds: int, jobs: int) -> list[Path]:
    """Write the table, the figures and the plot; return the files."""
    RESULTS.mkdir(exist_ok=True)
    files = {
        RESULTS / "peers.md": markdown(results, floor),
        RESULTS / "peers.json": json.dumps(figures(results, floor, rounds=rounds, jobs=jobs), indent=2) + "\n",
        PLOT: plot(results),
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def markdown(results: Sequence[ContestantResult], floor: Figures) -> str:
    """Return the table, the mode of each contestant, and errors."""
    lines = [f"| | {' | '.join(column.title for column in COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(results, floor)]
    lines += ["", *(f"- {_named(result.contestant)}: {result.contestant.how}." for result in results)]
    errors = _errors(results)
    return "\n".join([*lines, *([""] if errors else []), *(f"- {line}" for line in errors)]) + "\n"


def figures(results: Sequence[ContestantResult], floor: Figures, *, rounds: int, jobs: int) -> dict[str, Any]:
    """Return all figures as JSON values."""
    return {
        **_machine(),
        "rounds": rounds,
        "jobs": jobs,
        "floor": floor,
        "contestants": {
            result.contestant.name: {
                "version": version(result.contestant),
                "how": result.contestant.how,
                "medians": result.medians(),
                "rounds": result.rounds,
                "errors": result.errors,
            }
            for result in results
        },
    }


def save_flights(flights: Sequence[Flight], jobs: int) -> list[Path]:
    """Write the table and the figures of jobs in flight; return the files."""
    RESULTS.mkdir(exist_ok=True)
    figures_by_name = {flight.contestant.name: _flight_figures(flight) for flight in flights}
    files = {
        RESULTS / "flight.md": flights_markdown(flights),
        RESULTS / "flight.json": json.dumps({**_machine(), "jobs": jobs, "contestants": figures_by_name}, indent=2)
        + "\n",
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def flights_markdown(flights: Sequence[Flight]) -> str:
    """Return the table of jobs in flight, and errors."""
    titles = ("in flight", "after, s", "workers before, MB", "workers, MB", "Valkey, MB", "together, MB")
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    lines += [f"| {' | '.join(_flight_row(flight))} |" for flight in flights]
    errors = [f"- {_named(flight.contestant)}: {flight.error}." for flight in flights if flight.error]
    return "\n".join([*lines, *([""] if errors else []), *errors]) + "\n"


def save_realistic(results: Sequence[Realistic]) -> list[Path]:
    """Write the tables and the figures of jobs that arrive with realistic durations; return the files."""
    RESULTS.mkdir(exist_ok=True)
    figures_by_name = {result.contestant.name: _realistic_figures(result) for result in results}
    files = {
        RESULTS / "realistic.md": realistic_markdown(results),
        RESULTS / "realistic.json": json.dumps({**_machine(), "contestants": figures_by_name}, indent=2) + "\n",
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def realistic_markdown(results: Sequence[Realistic]) -> str:
    """Return a table for each rate, and errors."""
    rates = sorted({rate for result in results for rate in result.arrivals})
    errors = [f"- {_named(result.contestant)}: {result.error}." for result in results if result.error]
    return "\n\n".join([*(_at_rate(rate, results) for rate in rates), *(["\n".join(errors)] if errors else [])]) + "\n"


def _at_rate(rate: int, results: Sequence[Realistic]) -> str:
    titles = ("CPU a job, ms", "of Redis, ms", "calls a job", "memory, MB", "late p50, s", "late p95, s")
    lines = [f"| {rate} jobs a second | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for result in results:
        row = [""] * len(titles)
        if arrivals := result.arrivals.get(rate):
            row = [f"{arrivals.cpu_ms:.1f}", f"{arrivals.redis_cpu_ms:.2f}", f"{arrivals.calls:.2f}"]
            row += [f"{arrivals.memory / 1e6:,.0f}", f"{arrivals.late_p50:.1f}", f"{arrivals.late_p95:.1f}"]
        lines.append(f"| {_named(result.contestant)} | {' | '.join(row)} |")
    return "\n".join(lines)


def _realistic_figures(result: Realistic) -> dict[str, Any]:
    by_rate = {
        rate: {
            "cpu_ms": arrivals.cpu_ms,
            "redis_cpu_ms": arrivals.redis_cpu_ms,
            "calls": arrivals.calls,
            "memory": arrivals.memory,
            "late_p50_s": arrivals.late_p50,
            "late_p95_s": arrivals.late_p95,
        }
        for rate, arrivals in result.arrivals.items()
    }
    return {"version": version(result.contestant), "jobs_a_second": by_rate, "error": result.error}


def _flight_row(flight: Flight) -> list[str]:
    name = _named(flight.contestant)
    if not flight.jobs:
        return [name, *[""] * 6]
    sizes = (flight.idle, flight.memory, flight.redis, flight.together)
    return [name, f"{flight.jobs:,}", f"{flight.seconds:.0f}", *(f"{size / 1e6:,.0f}" for size in sizes)]


def _flight_figures(flight: Flight) -> dict[str, Any]:
    return {
        "version": version(flight.contestant),
        "in_flight": flight.jobs,
        "seconds": flight.seconds,
        "workers_before": flight.idle,
        "workers": flight.memory,
        "valkey": flight.redis,
        "error": flight.error,
    }


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}


def plot(results: Sequence[ContestantResult]) -> str:
    """Return an SVG with a panel per figure and a bar per contestant."""
    medians = {result.contestant.name: result.medians() for result in results if result.rounds}
    height = _TOP + len(medians) * _BAR + 24
    panels = [
        _panel(column, medians, x=(number % 2) * _WIDTH + 12, y=(number // 2) * height + 8)
        for number, column in enumerate(PLOTTED)
    ]
    size = f"{2 * _WIDTH + 12} {-(-len(PLOTTED) // 2) * height + 8}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(panels)}</svg>\n'
    )


#: Dimensions of the plot, in SVG units.
_WIDTH, _TOP, _BAR, _LABEL, _VALUE = 430, 26, 19, 96, 52
_COLOURS = {True: "#c2410c", False: "#94a3b8"}


def _panel(column: Column, medians: Mapping[str, Figures], *, x: int, y: int) -> str:
    maximum = max((figures_of[column.name] for figures_of in medians.values()), default=1.0) or 1.0
    better = "higher is better" if column.more_is_better else "lower is better"
    lines = [
        f'<text x="{x}" y="{y + 14}" font-weight="bold" fill="#0f172a">{escape(column.title)}'
        f'<tspan font-weight="normal" fill="#64748b">  ({better})</tspan></text>'
    ]
    for number, (name, figures_of) in enumerate(medians.items()):
        top = y + _TOP + number * _BAR
        width = figures_of[column.name] / maximum * (_WIDTH - _LABEL - _VALUE - 24)
        lines += [
            f'<text x="{x + _LABEL - 6}" y="{top + 12}" text-anchor="end" fill="#0f172a">{escape(name)}</text>',
            f'<rect x="{x + _LABEL}" y="{top + 1}" width="{width:.1f}" height="14" fill="{_COLOURS[name == OURS]}"/>',
            f'<text x="{x + _LABEL + width + 5:.1f}" y="{top + 12}" fill="#334155">{column.shown(figures_of)}</text>',
        ]
    return "\n".join(lines) + "\n"


def _rows(results: Sequence[ContestantResult], floor: Figures) -> Iterator[list[str]]:
    for result in results:
        medians = result.medians()
        yield [_named(result.contestant), *(column.shown(medians) for column in COLUMNS)]
    yield [FLOOR, *(column.shown(floor) for column in COLUMNS)]


def _named(contestant: Contestant) -> str:
    return f"**{contestant.title}**" if contestant.is_ours else contestant.title


def _errors(results: Sequence[ContestantResult]) -> list[str]:
    return [f"{_named(result.contestant)}: {error}." for result in results for error in result.errors]
