"""The picture of how it went over time."""

from __future__ import annotations

from voicequeue import Stretch
from workers.gateway.page.chart import LEFT, WIDTH, drawn
from workers.gateway.page.filters import own_path, roughly, spoken


def stretch(succeeded: int = 0, failed: int = 0, half: float | None = None) -> Stretch:
    """A second of time."""
    return Stretch(0, 1, succeeded, failed, half, half, half)


def test_bars_are_as_high_as_what_was_finished_and_stand_side_by_side() -> None:
    """Failures on successes; the highest fills the picture."""
    picture = drawn([stretch(4), stretch(1, 1), stretch()])

    four, two, none = picture.bars
    assert picture.most_jobs == 4
    assert four.height > two.height == two.failed_height > none.height == none.failed_height == 0
    assert (four.height, two.y_failed + two.failed_height) == (4 * two.height, two.y)
    assert LEFT < four.x < two.x < none.x < WIDTH


def test_a_line_has_gaps_where_nothing_was_finished() -> None:
    """A single point is a dash."""
    picture = drawn([stretch(1, half=10), stretch(1, half=20), stretch(), stretch(1, half=5)])

    [line] = [line for line in picture.lines if line.name == "p50"]
    assert [piece.count(",") for piece in line.pieces] == [2, 2]
    assert picture.longest == 20


def test_nothing_is_a_picture_too() -> None:
    """Without anything to divide by."""
    picture = drawn([stretch()] * 60)

    assert (picture.succeeded, picture.failed, picture.most_jobs, picture.longest) == (0, 0, 1, 1.0)
    assert not any(line.pieces for line in picture.lines)


def test_times_are_told_in_units_that_people_use() -> None:
    """Two while they are small, one where that is enough."""
    told = [spoken(each) for each in (None, 0, 59, 60, 61, 3_600, 5_400, 36_000, 90_000, 950_000)]

    assert told == ["", "0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 30 min", "10 h", "1 d 1 h", "10 d"]
    assert [roughly(each) for each in (None, 61, 5_400)] == ["", "1 min", "1 h"]


def test_a_path_of_the_page_is_one_and_another_site_is_not() -> None:
    """However it is written."""
    assert own_path("/job/x?a=b") == "/job/x?a=b"
    assert {own_path(each) for each in ("", "//e.example", "/\\e.example", "https://e.example", "x", "/a\n")} == {"/"}
