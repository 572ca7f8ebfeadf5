"""The bars that show how many jobs are in each state."""

from __future__ import annotations

import pytest

from voicequeue import State
from workers.gateway.page.state_bars import WIDTH, WIDTH_MIN, describe_states, segments, share


def test_few_successes_among_many_cancelled_jobs_do_not_look_like_success() -> None:
    """Each state is visible in proportion; what was cancelled is not green."""
    done, rest = segments({State.SUCCEEDED: 61, State.CANCELLED: 26_939, State.FAILED: 0})

    assert (done.state, done.x, done.width, done.share) == (State.SUCCEEDED, 0, WIDTH_MIN, "0.2 %")
    assert (rest.state, rest.x, rest.width, rest.share) == (State.CANCELLED, WIDTH_MIN, WIDTH - WIDTH_MIN, "99.8 %")


@pytest.mark.parametrize("counts", [dict.fromkeys(State, 1), {state: 10**n for n, state in enumerate(State)}])
def test_a_bar_is_filled_without_gaps(counts: dict[State, int]) -> None:
    """It has as many segments as states with jobs."""
    bar = segments(counts)

    assert [part.x for part in bar[1:]] == [part.x + part.width for part in bar[:-1]]
    assert bar[-1].x + bar[-1].width == WIDTH
    assert min(part.width for part in bar) >= WIDTH_MIN
    assert {part.state: part.count for part in bar} == counts


def test_a_bar_without_jobs_is_empty() -> None:
    """A batch may have been purged."""
    assert segments(dict.fromkeys(State, 0)) == []
    assert describe_states({}) == "no jobs"


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    """Nor is it above 100 %."""
    shown = [share(count, 30_000) for count in (0, 1, 150, 15_000, 27_050, 29_990, 29_999, 30_000)]

    assert shown == ["0 %", "under 0.1 %", "0.5 %", "50 %", "90.2 %", "over 99.9 %", "over 99.9 %", "100 %"]
    assert share(0, 0) == "0 %"


def test_a_bar_is_described_in_words() -> None:
    """Its colours alone would not say it."""
    described = describe_states({State.SUCCEEDED: 61, State.CANCELLED: 26_939})
    assert described == "61 succeeded, 26,939 cancelled, of 27,000 jobs"
    assert describe_states({State.QUEUED: 1}) == "1 queued, of 1 job"
