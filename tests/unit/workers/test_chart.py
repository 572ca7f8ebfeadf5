"""The chart of throughput over time."""

from __future__ import annotations

from voicequeue import TimeBucket
from workers.gateway.page.chart import HEIGHT, TICKS, WIDTH, draw, round_up_count, round_up_duration
from workers.gateway.page.filters import format_duration, format_duration_short, safe_path


def bucket(succeeded: int = 0, failed: int = 0, half: float | None = None) -> TimeBucket:
    """Return one time bucket."""
    return TimeBucket(0, 1, succeeded, failed, half, half, half)


def test_bars_show_finished_jobs_side_by_side() -> None:
    """Failures are on top of successes; the number at the top is at least that of the largest bar."""
    chart = draw([bucket(4), bucket(1, 1), bucket()])

    four, two, none = chart.bars
    assert chart.max_jobs == 4
    assert four.height == HEIGHT
    assert four.height > two.height == two.failed_height > none.height == none.failed_height == 0
    assert (four.height, two.y_failed + two.failed_height) == (4 * two.height, two.y)
    assert 0 < four.x < two.x < none.x < WIDTH


def test_a_line_has_gaps_in_buckets_without_finished_jobs() -> None:
    """A single point is a dash."""
    chart = draw([bucket(1, half=10), bucket(1, half=18), bucket(), bucket(1, half=5)])

    [median] = [line for line in chart.lines if line.name == "median"]
    assert [piece.count(",") for piece in median.segments] == [2, 2]
    assert chart.max_seconds == 20


def test_a_chart_without_jobs_is_empty() -> None:
    """Without a division by zero."""
    chart = draw([bucket()] * 60)

    assert (chart.succeeded, chart.failed, chart.max_jobs, chart.max_seconds, len(chart.ticks)) == (0, 0, 2, 10, TICKS)
    assert not any(line.segments for line in chart.lines)


def test_the_axes_end_at_round_values() -> None:
    """Their halves are round, too."""
    assert [round_up_count(count) for count in (0, 1, 3, 7, 11, 41, 999, 1_001)] == [2, 2, 4, 10, 20, 60, 1_000, 2_000]
    assert [round_up_duration(seconds) for seconds in (0, 11, 61, 3_601, 100_000)] == [10, 20, 120, 7_200, 172_800]


def test_durations_are_shown_in_suitable_units() -> None:
    """Two units for small values, one for large ones."""
    shown = [format_duration(seconds) for seconds in (None, 0, 59, 60, 61, 3_600, 5_400, 36_000, 90_000, 950_000)]

    assert shown == ["", "0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 30 min", "10 h", "1 d 1 h", "10 d"]
    assert [format_duration_short(seconds) for seconds in (None, 61, 5_400)] == ["", "1 min", "1 h"]


def test_only_paths_of_the_page_are_accepted_as_targets() -> None:
    """Other sites are rejected in every spelling."""
    assert safe_path("/job/x?a=b") == "/job/x?a=b"
    assert {safe_path(target) for target in ("", "//e.example", "/\\e.example", "https://e.example", "x", "/a\n")} == {
        "/"
    }
