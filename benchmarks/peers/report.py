"""The figures as tables, as JSON and as a plot of bars."""

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
from benchmarks.peers.race import Figures, Standing
from workers.local.stack import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PLOT = ROOT / "docs" / "images" / "peers.svg"

#: The row of what nobody can go below.
FLOOR = "the floor"


@dataclass(frozen=True, slots=True)
class Column:
    """A figure, what stands above it, how many decimals it has, and whether more of it is better."""

    name: str
    title: str
    decimals: int = 0
    more_is_better: bool = False
    unit: float = 1.0

    def shown(self, figures: Mapping[str, float]) -> str:
        """The figure as the table has it; empty where there is none."""
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

#: What the plot shows; calls and lateness differ little, and are in the table.
PLOTTED = tuple(column for column in COLUMNS if "call" not in column.name and "late" not in column.name)


def save(standings: Sequence[Standing], floor: Figures, *, rounds: int, jobs: int) -> list[Path]:
    """Write the table, the figures and the plot; gives the files."""
    RESULTS.mkdir(exist_ok=True)
    files = {
        RESULTS / "peers.md": markdown(standings, floor),
        RESULTS / "peers.json": json.dumps(figures(standings, floor, rounds=rounds, jobs=jobs), indent=2) + "\n",
        PLOT: plot(standings),
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def markdown(standings: Sequence[Standing], floor: Figures) -> str:
    """The table, how each contestant ran, and who did not."""
    lines = [f"| | {' | '.join(column.title for column in COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(standings, floor)]
    lines += ["", *(f"- {_named(each.contestant)}: {each.contestant.how}." for each in standings)]
    troubles = _troubles(standings)
    return "\n".join([*lines, *([""] if troubles else []), *(f"- {line}" for line in troubles)]) + "\n"


def figures(standings: Sequence[Standing], floor: Figures, *, rounds: int, jobs: int) -> dict[str, Any]:
    """All that is known, for programs."""
    return {
        **_machine(),
        "rounds": rounds,
        "jobs": jobs,
        "floor": floor,
        "contestants": {
            each.contestant.name: {
                "version": version(each.contestant),
                "how": each.contestant.how,
                "medians": each.medians(),
                "rounds": each.rounds,
                "troubles": each.troubles,
            }
            for each in standings
        },
    }


def save_flights(flights: Sequence[Flight], jobs: int) -> list[Path]:
    """Write the table and the figures of jobs in flight; gives the files."""
    RESULTS.mkdir(exist_ok=True)
    found = {each.contestant.name: _flight_figures(each) for each in flights}
    files = {
        RESULTS / "flight.md": flights_markdown(flights),
        RESULTS / "flight.json": json.dumps({**_machine(), "jobs": jobs, "contestants": found}, indent=2) + "\n",
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def flights_markdown(flights: Sequence[Flight]) -> str:
    """The table of jobs in flight, and who did not get all of them there."""
    titles = ("in flight", "after, s", "workers before, MB", "workers, MB", "Valkey, MB", "together, MB")
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    lines += [f"| {' | '.join(_flight_row(each))} |" for each in flights]
    troubles = [f"- {_named(each.contestant)}: {each.trouble}." for each in flights if each.trouble]
    return "\n".join([*lines, *([""] if troubles else []), *troubles]) + "\n"


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
        "trouble": flight.trouble,
    }


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}


def plot(standings: Sequence[Standing]) -> str:
    """An SVG: a panel for each figure, a bar for each contestant."""
    medians = {each.contestant.name: each.medians() for each in standings if each.rounds}
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


#: The plot's measures, in its own units.
_WIDTH, _TOP, _BAR, _LABEL, _VALUE = 430, 26, 19, 96, 52
_COLOURS = {True: "#c2410c", False: "#94a3b8"}


def _panel(column: Column, medians: Mapping[str, Figures], *, x: int, y: int) -> str:
    most = max((found[column.name] for found in medians.values()), default=1.0) or 1.0
    better = "more is better" if column.more_is_better else "less is better"
    lines = [
        f'<text x="{x}" y="{y + 14}" font-weight="bold" fill="#0f172a">{escape(column.title)}'
        f'<tspan font-weight="normal" fill="#64748b">  ({better})</tspan></text>'
    ]
    for number, (name, found) in enumerate(medians.items()):
        top = y + _TOP + number * _BAR
        long = found[column.name] / most * (_WIDTH - _LABEL - _VALUE - 24)
        lines += [
            f'<text x="{x + _LABEL - 6}" y="{top + 12}" text-anchor="end" fill="#0f172a">{escape(name)}</text>',
            f'<rect x="{x + _LABEL}" y="{top + 1}" width="{long:.1f}" height="14" fill="{_COLOURS[name == OURS]}"/>',
            f'<text x="{x + _LABEL + long + 5:.1f}" y="{top + 12}" fill="#334155">{column.shown(found)}</text>',
        ]
    return "\n".join(lines) + "\n"


def _rows(standings: Sequence[Standing], floor: Figures) -> Iterator[list[str]]:
    for each in standings:
        found = each.medians()
        yield [_named(each.contestant), *(column.shown(found) for column in COLUMNS)]
    yield [FLOOR, *(column.shown(floor) for column in COLUMNS)]


def _named(contestant: Contestant) -> str:
    return f"**{contestant.title}**" if contestant.is_ours else contestant.title


def _troubles(standings: Sequence[Standing]) -> list[str]:
    return [f"{_named(each.contestant)}: {trouble}." for each in standings for trouble in each.troubles]
