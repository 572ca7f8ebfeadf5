"""Charts of samples of the queue: jobs by state, jobs in flight with their limit, credits, and the balance. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from voicequeue.domain.states import State
from voicequeue.storage.monitoring.samples import Resolution, Sample
from workers.gateway.page.chart import TICKS, ChartLine, line, round_up_count

#: Returns a value of a sample; None if it is unknown.
Value = Callable[[Sample], int | None]


@dataclass(frozen=True, slots=True)
class SampleChart:
    """A chart of lines, with the value at its top. `labels` are the names of its lines, by the CSS class of each."""

    title: str
    labels: Mapping[str, str]
    lines: tuple[ChartLine, ...]
    maximum: int


@dataclass(frozen=True, slots=True)
class SampleCharts:
    """The charts of one period: with the times below them, and their samples, the oldest first."""

    charts: tuple[SampleChart, ...]
    ticks: tuple[float, ...]
    samples: tuple[Sample, ...]
    credits_spent: int


def _in_state(state: State) -> Value:
    return lambda sample: sample.states[state]


#: The lines of each chart: their CSS classes, labels and values.
_CHARTS: Mapping[str, Sequence[tuple[str, str, Value]]] = {
    "Queue depth": [
        ("queued", "queued", _in_state(State.QUEUED)),
        ("waiting", "waiting", _in_state(State.WAITING)),
        ("unsure", "unsure", _in_state(State.UNSURE)),
    ],
    "In flight": [
        ("limit", "limit", lambda sample: sample.in_flight_limit),
        ("in-flight", "in flight", lambda sample: sample.in_flight),
    ],
    "Balance": [("balance", "credits left", lambda sample: sample.balance)],
}


def draw_samples(samples: Sequence[Sample], resolution: Resolution, now: float) -> SampleCharts:
    """Return the charts of a period that ends now."""
    first = int(now // resolution.interval_s) - resolution.count + 2
    by_interval = {int(sample.at // resolution.interval_s): sample for sample in samples}
    # None: an interval in which no worker ran.
    slots = [by_interval.get(first + index) for index in range(resolution.count - 1)]
    charts = [_chart(title, lines, slots) for title, lines in _CHARTS.items()]
    spent = _spent(slots)
    charts.insert(2, _chart_of("Credits spent", {"spent": "credits in each interval"}, [spent]))
    step = max(1, len(slots) // TICKS)
    ticks = tuple(float((first + index) * resolution.interval_s) for index in range(0, len(slots), step))
    return SampleCharts(tuple(charts), ticks, tuple(samples), sum(credits or 0 for credits in spent))


def _chart(title: str, lines: Sequence[tuple[str, str, Value]], slots: Sequence[Sample | None]) -> SampleChart:
    values = [[None if sample is None else value(sample) for sample in slots] for *_, value in lines]
    return _chart_of(title, {name: label for name, label, _ in lines}, values)


def _chart_of(title: str, labels: Mapping[str, str], values: Sequence[Sequence[int | None]]) -> SampleChart:
    maximum = round_up_count(max((value for row in values for value in row if value is not None), default=0))
    return SampleChart(
        title, labels, tuple(line(name, row, maximum) for name, row in zip(labels, values, strict=True)), maximum
    )


def _spent(slots: Sequence[Sample | None]) -> list[int | None]:
    """Return the credits that were spent in each interval: from its sample to the next one."""
    pairs = pairwise([*slots, None])
    return [None if one is None or next_one is None else max(0, next_one.spent - one.spent) for one, next_one in pairs]
