"""Charts of samples: a slot for each interval, gaps where no worker ran, and what was spent between two samples."""

from __future__ import annotations

from voicequeue import State
from voicequeue.storage.monitoring.samples import SAMPLED_STATES, Resolution, Sample
from workers.gateway.page.chart import HEIGHT, WIDTH
from workers.gateway.page.sample_charts import SampleChart, SampleCharts, draw_samples

FIVE = Resolution("five", 60, 6)


def sample(minute: int, *, queued: int = 0, spent: int = 0, in_flight: int = 0, balance: int | None = None) -> Sample:
    """Return a sample of this minute."""
    states = dict.fromkeys(SAMPLED_STATES, 0) | {State.QUEUED: queued}
    return Sample(60.0 * minute + 1, states, in_flight, 10, spent, balance)


def drawn(*samples: Sample) -> SampleCharts:
    """Return the charts of the five minutes that end in minute 10."""
    return draw_samples(samples, FIVE, 60.0 * 10 + 30)


def named(charts: SampleCharts, title: str) -> SampleChart:
    """Return the chart with this title."""
    [chart] = [chart for chart in charts.charts if chart.title == title]
    return chart


def test_the_last_interval_is_at_the_right() -> None:
    """Its height is that of the value below the top of the axis."""
    chart = named(drawn(*(sample(minute, queued=minute) for minute in range(6, 11))), "Queue depth")

    [points] = chart.lines[0].segments
    assert chart.maximum == 10
    assert points.split()[-1] == f"{WIDTH * 0.9:.1f},{0:.1f}"
    assert points.split()[0] == f"{WIDTH * 0.1:.1f},{HEIGHT * 0.4:.1f}"


def test_a_time_without_a_worker_is_a_gap() -> None:
    """The line ends and begins again; unknown balances are gaps too."""
    charts = drawn(sample(6), sample(7), sample(9), sample(10, balance=5))

    assert len(named(charts, "In flight").lines[1].segments) == 2
    assert len(named(charts, "Balance").lines[0].segments) == 1


def test_credits_are_those_between_two_samples() -> None:
    """A counter that was set back counts as nothing spent; before a gap it is unknown."""
    charts = drawn(sample(6, spent=100), sample(7, spent=119), sample(8, spent=50), sample(10, spent=90))

    assert charts.credits_spent == 19
    assert named(charts, "Credits spent").maximum == 20


def test_without_samples_all_charts_are_empty() -> None:
    """The times below them remain."""
    charts = drawn()

    assert all(line.segments == () for chart in charts.charts for line in chart.lines)
    assert charts.ticks[0] == 360.0
