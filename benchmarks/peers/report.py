"""The race's figures as a table, as JSON and as a plot of bars."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import OURS, version
from benchmarks.peers.race import Figures, Standing
from workers.stack import ROOT

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
    lines += ["", *(f"- {_named(each)}: {each.contestant.how}." for each in standings)]
    troubles = _troubles(standings)
    return "\n".join([*lines, *([""] if troubles else []), *(f"- {line}" for line in troubles)]) + "\n"


def figures(standings: Sequence[Standing], floor: Figures, *, rounds: int, jobs: int) -> dict[str, Any]:
    """All that is known, for programs."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
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
_WIDTH, _TOP, _BAR, _LABEL, _VALUE = 420, 26, 19, 84, 52
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
        yield [_named(each), *(column.shown(found) for column in COLUMNS)]
    yield [FLOOR, *(column.shown(floor) for column in COLUMNS)]


def _named(standing: Standing) -> str:
    name = standing.contestant.name
    return f"**{name}**" if name == OURS else f"{name} {version(standing.contestant)}"


def _troubles(standings: Sequence[Standing]) -> list[str]:
    return [f"{_named(each)}: {trouble}." for each in standings for trouble in each.troubles]
