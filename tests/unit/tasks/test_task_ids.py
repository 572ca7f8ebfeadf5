"""Task ids and credits in response bodies."""

from __future__ import annotations

import pytest
from hypothesis import given

from tasks.musicapi.responses import accepted_task_id, account_credits, find_task_id
from tests.unit.tasks.response_bodies import ANY_JSON, LINK


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "success", "task_id": "t1"},
        {"code": "200", "message": "success", "task_id": "t1"},
        {"message": "success", "task_id": "t1"},
        {"task_id": " t1\n"},
        {"code": 200, "data": {"task_id": "t1"}},
        {"code": 200, "task_id": "", "data": {"task_id": "t1"}},
        {"task_id": "t1", "data": None},
        {"task_id": "t1", "data": {"task_id": "another"}},
        {"task_id": "t1", "error": "not really"},
        {"taskId": "t1"},
        {"TaskID": "t1"},
        {"task_ids": ["t1", "t2"]},
        {"task_id": ["t1"]},
        {"data": {"taskId": "t1"}},
        {"data": {"id": "t1"}},
        {"data": "t1"},
        {"data": ["t1"]},
        {"data": [{"task_id": "t1"}]},
        {"data": {"task": {"id": "t1", "state": "queued"}}},
        {"result": {"data": {"task_id": "t1"}}},
        {"id": "t1", "status": "queued"},
        {"task_ids": [{"task_id": "t1"}]},
        {"task_ids": [{"id": "t1"}, {"id": "t2"}]},
        {"task_id": {"id": "t1"}},
        {"jobId": "t1"},
        {"data": {"job_id": "t1", "id": "request-1"}},
        {"tasks": [{"id": "t1"}]},
        ["t1"],
        {"code": 200, "data": {"task": "t1"}},
        {"code": 200, "data": {"result": "t1"}},
        {"data": {"task": {"id": "t1"}, "clips": [{"id": "c1"}]}},
        {"code": 429, "message": "Too many requests", "task_id": "t1"},
        {"code": 403, "message": "The remaining credits are not enough.", "data": {"id": "t1"}},
        {"success": False, "error": {"message": "no"}, "data": {"taskId": "t1"}},
        {"code": 500, "message": "Internal error", "task_id": "t1"},
    ],
)
def test_a_task_id_is_found_in_every_place(body: object) -> None:
    """Its name, its place and the rest of the body do not matter: an order with a task id was charged."""
    assert accepted_task_id(body) == "t1"


@pytest.mark.parametrize(
    "body", [{"task_id": 4711}, {"data": 4711}, {"data": {"id": 4711}}, {"taskIds": [4711]}, {"task_id": 4711.0}]
)
def test_a_task_id_may_be_a_number(body: object) -> None:
    """It is used as text."""
    assert accepted_task_id(body) == "4711"


def test_a_webhook_names_a_task_only_where_it_is_called_so() -> None:
    """The id of a clip or of the event is not that of a task."""
    songs = {"id": "event-1", "data": [{"id": "c1", "audio_url": LINK}]}

    assert find_task_id(songs) is None
    assert find_task_id({**songs, "taskId": "t1"}) == "t1"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "t1",
        7,
        {},
        {"ok": True},
        {"code": 200, "message": "success"},
        {"task_id": None},
        {"task_id": "  "},
        {"task_id": []},
        {"task_id": True},
        {"task_id": 0},
        {"task_id": -1},
        {"task_id": 10**400},
        {"task_id": "null"},
        {"data": []},
        {"data": {}},
        {"data": "accepted"},
        {"data": "your order 7 was taken"},
        {"code": 403, "message": "The remaining credits are not enough."},
        {"code": 429, "message": "Too many requests", "id": "request-1"},
        {"code": 400, "message": "no", "data": "E1001"},
        {"error": {"id": "e1", "message": "no"}},
        {"data": {"clips": [{"id": "c1"}]}},
        {"code": 200, "data": {"clips": [{"id": "c1", "state": "pending"}, {"id": "c2"}]}},
        {"data": {"song": {"id": "c1"}}},
        {"data": {"persona": {"id": "p1"}}},
        {"task_id": 4711.5},
        {"task_id": 1e300},
        {"task_id": float("inf")},
        ["accepted"],
        {"code": 400, "data": {"result": "E1001"}},
    ],
)
def test_an_answer_without_a_task_id_cannot_be_read(body: object) -> None:
    """The result is None: the order is neither accepted nor refused."""
    assert accepted_task_id(body) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"credits": 50, "extra_credits": 0}, 50),
        ({"credits": 50, "extra_credits": 7}, 57),
        ({"credits": 0, "extra_credits": 7}, 7),
        ({"credits": 50}, 50),
        ({"credits": 50, "extra_credits": None}, 50),
        ({"credits": 50.5, "extra_credits": 1}, 51),
        ({"extra_credits": 7}, None),
        ({"credits": "50"}, None),
        ({"credits": True}, None),
        ({"credits": None}, None),
        ({"credits": float("nan")}, None),
        ({"credits": float("inf")}, None),
        ({"credits": 10**400}, None),
        ({}, None),
        ([50], None),
        (None, None),
    ],
)
def test_both_kinds_of_credits_count(body: object, expected: int | None) -> None:
    """The result is their sum, or None without a number."""
    assert account_credits(body) == expected


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_task_id(body: object) -> None:
    """No body raises, and every id is non-empty and can be stored."""
    accepted_id = accepted_task_id(body)
    assert accepted_id is None or accepted_id.encode().strip()


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_balance(body: object) -> None:
    """No body raises."""
    assert isinstance(account_credits(body), int | None)


@given(ANY_JSON)
def test_no_song_gives_its_id_to_a_task(song: object) -> None:
    """An object in a list of songs gives no task id, even without fields of a song."""
    if isinstance(song, dict):
        song = {name: value for name, value in song.items() if name in ("title", "tags", "state", "status")}
        assert accepted_task_id({"code": 200, "data": {"clips": [{"id": "c1", **song}]}}) is None
