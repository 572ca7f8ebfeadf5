"""The API keeps the contract: charges, results of polls, and refusals with their texts."""

from typing import Any
from uuid import UUID

import pytest
import requests

from simulator.contract.clips import Clip
from simulator.contract.ledger import Task
from simulator.contract.orders import Song
from simulator.process import Simulator

VOICE = "/api/v1/sonic/create-voice"
MUSIC = "/api/v1/sonic/create"
TASK = "/api/v1/sonic/task/"
CREDITS = "/api/v1/get-credits"

RECORDING = {"audio_url": "https://files.example.com/takes/anna-maria_01.mp3?sig=1"}
SONG = {
    "task_type": "persona_music",
    "persona_id": "a-persona-from-elsewhere",
    "custom_mode": True,
    "mv": "sonic-v5",
    "prompt": "[Verse]\nMorning light",
    "title": "Dawn",
    "tags": "folk",
}
CLIP_FIELDS = {
    "clip_id",
    "title",
    "tags",
    "lyrics",
    "image_url",
    "audio_url",
    "video_url",
    "created_at",
    "mv",
    "duration",
    "state",
}


def ordered(api: requests.Session, path: str, body: dict[str, Any]) -> str:
    """Send a POST that must succeed, and return its task_id."""
    answer = api.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


def test_a_voice_costs_4_credits_and_becomes_a_persona(simulator: Simulator, api: requests.Session) -> None:
    """A recording is charged once, and every poll of its task returns the same persona with a readable name."""
    simulator.set_dials(voice_s=0)
    task_id = ordered(api, VOICE, RECORDING)

    first, second = (api.get(TASK + task_id).json() for _ in range(2))

    assert first == second
    assert (first["code"], first["message"]) == (200, "success")
    assert UUID(first["data"]["persona_id"])
    assert first["data"]["name"] == "Anna Maria 01"
    assert simulator.ledger()["credits_spent"] == 4


def test_a_song_costs_15_credits_and_has_two_clips(simulator: Simulator, api: requests.Session) -> None:
    """Both clips have all fields of the contract, also with a persona from elsewhere."""
    simulator.set_dials(music_s=0)
    clips = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"]

    assert [set(clip) for clip in clips] == [CLIP_FIELDS, CLIP_FIELDS]
    assert [clip["state"] for clip in clips] == ["succeeded", "succeeded"]
    assert all(120 <= clip["duration"] <= 200 for clip in clips)
    assert (clips[0]["title"], clips[0]["lyrics"], clips[0]["mv"]) == ("Dawn", SONG["prompt"], "sonic-v5")
    assert clips[0]["clip_id"] != clips[1]["clip_id"]
    assert simulator.ledger()["credits_spent"] == 15


def test_the_links_of_a_clip_lead_to_files(simulator: Simulator, api: requests.Session) -> None:
    """Audio, image and video of a finished clip can be fetched without a token."""
    simulator.set_dials(music_s=0)
    clip = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"][0]

    audio, image, video = (requests.get(clip[f"{name}_url"], timeout=5) for name in ("audio", "image", "video"))

    assert (audio.headers["Content-Type"], audio.content[:3]) == ("audio/mpeg", b"ID3")
    assert (image.headers["Content-Type"], image.content[1:4]) == ("image/png", b"PNG")
    assert (video.headers["Content-Type"], video.content[4:8]) == ("video/mp4", b"ftyp")


@pytest.mark.parametrize(("shape", "code"), [("number", {"code": 200}), ("string", {"code": "200"}), ("absent", {})])
def test_the_code_of_an_answer_takes_the_shape_of_its_dial(
    simulator: Simulator, api: requests.Session, shape: str, code: dict[str, Any]
) -> None:
    """`code` may be a number, a string or absent."""
    simulator.set_dials(code_shape=shape)
    body = api.post(VOICE, json=RECORDING).json()
    assert body == {**code, "message": "success", "task_id": simulator.ledger()["charges"][0]["task_id"]}


def test_the_task_id_of_an_answer_may_sit_under_data(simulator: Simulator, api: requests.Session) -> None:
    """`task_id_place` selects the field."""
    simulator.set_dials(task_id_place="data")
    body = api.post(VOICE, json=RECORDING).json()
    assert body["data"] == {"task_id": simulator.ledger()["charges"][0]["task_id"]}
    assert "task_id" not in body


def test_mixed_shapes_show_all_their_forms(simulator: Simulator, api: requests.Session) -> None:
    """With `mixed` each response has one of the shapes, and all of them occur."""
    simulator.set_dials(seed=1, voice_s=1000, code_shape="mixed", task_id_place="mixed", pending_shape="mixed")
    bodies = [api.post(VOICE, json={"audio_url": f"https://example.com/{number}.mp3"}).json() for number in range(30)]
    task_id = simulator.ledger()["charges"][0]["task_id"]
    polls = [api.get(TASK + task_id) for _ in range(30)]

    assert {body.get("code") for body in bodies} == {200, "200", None}
    assert {"task_id" in body for body in bodies} == {True, False}
    assert {(poll.status_code, poll.json().get("type")) for poll in polls} == {
        (200, "not_ready"),
        (202, "not_ready"),
        (200, None),
    }


@pytest.mark.parametrize(("shape", "status"), [("not_ready_200", 200), ("not_ready_202", 202)])
def test_a_poll_of_a_task_in_progress_says_not_ready(
    simulator: Simulator, api: requests.Session, shape: str, status: int
) -> None:
    """Either status comes with `type` not_ready and a text."""
    simulator.set_dials(voice_s=1000, pending_shape=shape)
    answer = api.get(TASK + ordered(api, VOICE, RECORDING))
    assert (answer.status_code, answer.json()["type"]) == (status, "not_ready")
    assert answer.json()["error"]


def test_a_poll_of_a_task_in_progress_may_show_pending_clips(simulator: Simulator, api: requests.Session) -> None:
    """Pending clips have all fields of the contract and no links yet."""
    simulator.set_dials(music_s=1000, pending_shape="clips_pending")
    clips = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"]
    assert [(clip["state"], clip["audio_url"]) for clip in clips] == [("pending", ""), ("pending", "")]


def test_clips_go_through_all_states_of_the_contract() -> None:
    """A clip is pending, running, streaming, succeeded; the first may succeed before the second."""
    task = Task("id", "music", "persona", "f", at=0, ready_at=100, base="http://x", song=Song("", "", "", ""))
    states = [tuple(Clip(task, number).state(moment) for number in (0, 1)) for moment in (0, 50, 80, 95, 100)]
    assert states == [
        ("pending", "pending"),
        ("running", "running"),
        ("streaming", "streaming"),
        ("succeeded", "streaming"),
        ("succeeded", "succeeded"),
    ]


def test_a_finished_song_may_be_an_object_with_clips(simulator: Simulator, api: requests.Session) -> None:
    """`data` may be {"state": ..., "clips": [...]}."""
    simulator.set_dials(music_s=0, clips_shape="object")
    song = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"]
    assert (song["state"], len(song["clips"])) == ("succeeded", 2)


def test_one_clip_of_a_song_may_fail(simulator: Simulator, api: requests.Session) -> None:
    """The other one succeeds, and only it has a link."""
    simulator.set_dials(music_s=0, clip_failure=1)
    clips = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"]
    assert [(clip["state"], bool(clip["audio_url"])) for clip in clips] == [("succeeded", True), ("failed", False)]


@pytest.mark.parametrize(("path", "body", "clips"), [(VOICE, RECORDING, 1), (MUSIC, SONG, 2)])
def test_a_failure_is_told_in_each_of_its_shapes(
    simulator: Simulator, api: requests.Session, path: str, body: dict[str, Any], clips: int
) -> None:
    """Voices and songs fail as failed clips, as a failed object, or as an answer that is an error with HTTP 200."""
    simulator.set_dials(voice_s=0, music_s=0, voice_failure=1, music_failure=1)
    task_id = ordered(api, path, body)
    bodies = {}
    for shape in ("clips", "object", "answer"):
        simulator.set_dials(failure_shape=shape)
        bodies[shape] = api.get(TASK + task_id).json()

    assert [clip["state"] for clip in bodies["clips"]["data"]] == ["failed"] * clips
    assert bodies["object"]["data"]["state"] == "failed"
    assert bodies["object"]["data"]["error"]
    assert bodies["answer"]["status"] == "error"
    assert bodies["answer"]["message"]


def test_the_task_that_matches_fails_and_no_other(simulator: Simulator, api: requests.Session) -> None:
    """`fail_match` selects a task by its audio_url, title or text."""
    simulator.set_dials(voice_s=0, music_s=0, fail_match="Morning", failure_shape="answer")
    voice, song = ordered(api, VOICE, RECORDING), ordered(api, MUSIC, SONG)
    assert "status" not in api.get(TASK + voice).json()
    assert api.get(TASK + song).json()["status"] == "error"


def test_the_task_that_stalls_is_never_ready_by_itself(simulator: Simulator, api: requests.Session) -> None:
    """`stall_match` selects a task that stays in progress until the control port settles it."""
    simulator.set_dials(voice_s=0, stall_match="anna")
    task_id = ordered(api, VOICE, RECORDING)
    assert api.get(TASK + task_id).json()["type"] == "not_ready"
    simulator.complete_task(task_id)
    assert "persona_id" in api.get(TASK + task_id).json()["data"]


def test_credits_and_extra_credits_add_up_to_what_is_left(simulator: Simulator, api: requests.Session) -> None:
    """`extra_credits` is a part of the balance, never more."""
    simulator.set_dials(credits=50, extra_credits=20)
    assert api.get(CREDITS).json() == {"credits": 30, "extra_credits": 20}
    simulator.set_dials(credits=5)
    assert api.get(CREDITS).json() == {"credits": 0, "extra_credits": 5}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (VOICE, {}, "The 'audio_url' field is required."),
        (VOICE, {"audio_url": "file.mp3"}, "The 'audio_url' field is invalid."),
        (VOICE, {"audio_url": "https://[x/file.mp3"}, "The 'audio_url' field is invalid."),
        (MUSIC, SONG | {"task_type": "song"}, "The 'task_type' field is invalid."),
        (MUSIC, SONG | {"mv": None}, "The 'mv' field is invalid."),
        (MUSIC, SONG | {"mv": "tonic-v5"}, "The 'mv' field is invalid."),
        (MUSIC, SONG | {"persona_id": ""}, "The 'persona_id' field is required"),
        (MUSIC, SONG | {"custom_mode": "yes"}, "The 'custom_mode' field is required"),
        (MUSIC, SONG | {"prompt": ""}, "The 'prompt' field is required"),
        (MUSIC, SONG | {"prompt": "a" * 5001}, "The prompt character length should be less than 5000."),
        (
            MUSIC,
            SONG | {"prompt": "a" * 3001, "mv": "sonic-v4"},
            "The prompt character length should be less than 3000.",
        ),
        (MUSIC, SONG | {"prompt": ["a"]}, "The 'prompt' field is invalid."),
        (MUSIC, SONG | {"title": "a" * 81}, "The title character length should be less than 80."),
        (MUSIC, SONG | {"tags": "a" * 1001}, "The tags character length should be less than 1000."),
        (MUSIC, SONG | {"tags": "a" * 201, "mv": "sonic-v3-5"}, "The tags character length should be less than 200."),
        (MUSIC, SONG | {"custom_mode": False}, "The 'gpt_description_prompt' field is required"),
        (
            MUSIC,
            SONG | {"custom_mode": False, "gpt_description_prompt": "a" * 401},
            "The gpt_description_prompt character length should be less than 400.",
        ),
        (MUSIC, SONG | {"style_weight": 1.5}, "The 'style_weight' field is invalid."),
        (MUSIC, SONG | {"vocal_gender": "x"}, "The 'vocal_gender' field is invalid."),
        (MUSIC, [], "The request body must be a JSON object."),
    ],
)
def test_a_request_that_breaks_the_contract_is_refused_and_costs_nothing(
    simulator: Simulator, api: requests.Session, path: str, body: object, text: str
) -> None:
    """HTTP 400 with the contract's text."""
    answer = api.post(path, json=body)
    assert (answer.status_code, answer.json()["error"][: len(text)]) == (400, text)
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a" * 5000, "title": "a" * 80, "tags": "a" * 1000},
        {"prompt": "", "make_instrumental": True},
        {"prompt": None, "auto_lyrics": True},
        {"custom_mode": False, "prompt": None, "gpt_description_prompt": "a" * 400},
        {"mv": "sonic-v5-5", "vocal_gender": "f", "audio_weight": 1, "weirdness_constraint": 0},
    ],
)
def test_a_request_within_the_limits_is_charged(
    simulator: Simulator, api: requests.Session, change: dict[str, Any]
) -> None:
    """Lengths up to the limit itself, models yet unknown, and songs without lyrics where the contract allows them."""
    ordered(api, MUSIC, SONG | change)
    assert simulator.ledger()["credits_spent"] == 15


@pytest.mark.parametrize(
    ("match", "path", "body", "text"),
    [
        ("Morning", MUSIC, SONG, "The lyrics contain copyrighted content: Morning."),
        ("Dawn", MUSIC, SONG, "The title contains inappropriate content: Dawn."),
        (
            "thief",
            MUSIC,
            SONG | {"custom_mode": False, "gpt_description_prompt": "a thief"},
            "The song description contains inappropriate content: thief.",
        ),
        ("maria", VOICE, RECORDING, "The audio contains inappropriate content: maria."),
    ],
)
def test_moderation_refuses_the_request_that_matches(
    simulator: Simulator, api: requests.Session, match: str, path: str, body: dict[str, Any], text: str
) -> None:
    """HTTP 403, and nothing is charged."""
    simulator.set_dials(moderate_match=match)
    answer = api.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]) == (403, text)
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "Authorization header is missing."),
        ("Basic abc", "Invalid authorization format."),
        ("Bearer ", "Invalid authorization format."),
        ("Bearer wrong", "Invalid API key."),
    ],
)
def test_every_call_needs_the_right_token(
    simulator: Simulator, api: requests.Session, header: str | None, text: str
) -> None:
    """HTTP 401 for each route of the contract; with the dial set, only its token is accepted."""
    simulator.set_dials(api_key="right")
    answers = [
        api.request(method, path, json=RECORDING, headers={"Authorization": header})
        for method, path in (("POST", VOICE), ("POST", MUSIC), ("GET", TASK + "x"), ("GET", TASK), ("GET", CREDITS))
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["error"][: len(text)] for answer in answers} == {text}
    assert api.get(CREDITS, headers={"Authorization": "Bearer right"}).status_code == 200


def test_unknown_and_missing_task_ids_are_refused(api: requests.Session) -> None:
    """HTTP 400 with the contract's texts."""
    unknown, missing = api.get(TASK + "nobody"), api.get(TASK)
    assert (unknown.status_code, unknown.json()["error"]) == (400, "task not found.")
    assert (missing.status_code, missing.json()["error"]) == (400, "missing task id.")


def test_the_text_of_a_refusal_may_stand_in_message(simulator: Simulator, api: requests.Session) -> None:
    """`error_place` selects the field."""
    simulator.set_dials(error_place="message")
    assert api.post(VOICE, json={}).json()["message"] == "The 'audio_url' field is required."
