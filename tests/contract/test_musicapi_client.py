"""The client against the simulator: every call, every shape, every refusal and every fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulator.dials import CLIPS_SHAPES, FAILURE_SHAPES, TASK_ID_PLACES, VOICE_SHAPES
from simulator.faults import GET_FAULTS, POST_FAULTS, TASK_FAULTS
from simulator.process import Simulator
from tasks.musicapi import (
    AmbiguousFailure,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    Moderated,
    MusicApi,
    MusicReady,
    NotReady,
    PaymentRequired,
    RateLimited,
    TaskFailed,
    Unauthorized,
    Unavailable,
    UpstreamError,
    VoiceReady,
)
from tests.conftest import eventually
from tests.contract.conftest import Connect, trouble
from voicequeue import Song
from voicequeue.domain.stage import PRICES, Stage

AUDIO_URL = "https://recordings.example/anna-maria.mp3"
SONG = Song(prompt="[Verse]\nla la", title="La", tags="folk")

#: The patience (seconds) of a client that meets a fault which answers too late.
HASTY_S = 0.4


@pytest.fixture
def client(simulator: Simulator, connect: Connect) -> MusicApi:
    """A client of the simulator."""
    return connect(simulator.api_url)


def order(client: MusicApi, stage: Stage = Stage.VOICE) -> str:
    """Order a voice or a song."""
    return client.create_voice(AUDIO_URL) if stage is Stage.VOICE else client.create_music("p1", SONG)


def sent(simulator: Simulator) -> int:
    """How many POSTs upstream got."""
    calls = simulator.ledger(charges=False)["calls"]
    return int(calls["create_voice"] + calls["create_music"])


# ── what is ordered comes ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", TASK_ID_PLACES)
@pytest.mark.parametrize("code", ["number", "string", "absent"])
@pytest.mark.parametrize("stage", list(Stage))
def test_an_order_gives_its_task_id_in_every_shape(
    simulator: Simulator, client: MusicApi, stage: Stage, code: str, place: str
) -> None:
    """It is the ledger's, and it was charged once."""
    simulator.turn(code_shape=code, task_id_place=place)

    task_id = order(client, stage)

    ledger = simulator.ledger()
    assert [charge["task_id"] for charge in ledger["charges"]] == [task_id]
    assert ledger["credits_spent"] == PRICES[stage]


@pytest.mark.parametrize("shape", ["not_ready_200", "not_ready_202", "clips_pending"])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_task_in_progress_is_not_ready_in_every_shape(
    simulator: Simulator, client: MusicApi, stage: Stage, shape: str
) -> None:
    """Whether upstream says so with 200, with 202 or with clips."""
    simulator.turn(pending_shape=shape, voice_s=60, music_s=60)

    assert isinstance(client.get_task(order(client, stage)), NotReady)


def test_a_finished_voice_is_its_persona(simulator: Simulator, client: MusicApi) -> None:
    """Every poll gives the same one."""
    simulator.turn(voice_s=0)
    task_id = order(client)

    found = client.get_task(task_id)

    assert isinstance(found, VoiceReady)
    assert found.name == "Anna Maria"
    assert client.get_task(task_id) == found


@pytest.mark.parametrize("shape", CLIPS_SHAPES)
def test_a_finished_song_is_its_two_clips(simulator: Simulator, client: MusicApi, shape: str) -> None:
    """With links, titles and lengths, as a list or in an object."""
    simulator.turn(music_s=0, clips_shape=shape)

    found = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(found, MusicReady)
    assert [(clip.state, clip.title) for clip in found.clips] == [("succeeded", "La")] * 2
    assert all(clip.audio_url and clip.image_url and clip.duration for clip in found.clips)


def test_one_clip_of_two_is_a_finished_song(simulator: Simulator, client: MusicApi) -> None:
    """The other one is told as failed."""
    simulator.turn(music_s=0, clip_failure=1)

    found = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(found, MusicReady)
    assert [clip.state for clip in found.clips] == ["succeeded", "failed"]


def test_a_song_is_not_finished_before_its_links_are_there(simulator: Simulator, client: MusicApi) -> None:
    """Though each of its clips says that it has succeeded."""
    simulator.turn(music_s=0, link_late=1, link_delay_s=0.5)
    task_id = order(client, Stage.MUSIC)

    found = client.get_task(task_id)
    assert isinstance(found, NotReady)
    assert [(clip.state, clip.audio_url) for clip in found.clips] == [("succeeded", None)] * 2

    eventually(lambda: isinstance(client.get_task(task_id), MusicReady))


def test_a_clip_that_never_settles_keeps_its_song_from_being_finished(simulator: Simulator, client: MusicApi) -> None:
    """The one that is there is named with its link."""
    simulator.turn(music_s=0, clip_stall=1)

    found = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(found, NotReady)
    assert sorted((clip.state, clip.is_finished) for clip in found.clips) == [("running", False), ("succeeded", True)]


@pytest.mark.parametrize("shape", FAILURE_SHAPES)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_failed_task_is_failed_in_every_shape(
    simulator: Simulator, client: MusicApi, stage: Stage, shape: str
) -> None:
    """As clips, as an object or as the whole answer, in whatever words, with upstream's reason where it gives one."""
    simulator.turn(voice_s=0, music_s=0, voice_failure=1, music_failure=1, failure_shape=shape)

    found = client.get_task(order(client, stage))

    assert isinstance(found, TaskFailed)
    assert ("could not be" in found.message) == (shape != "clips")


def test_both_kinds_of_credits_are_counted(simulator: Simulator, client: MusicApi) -> None:
    """The balance is their sum, less what was spent."""
    simulator.turn(credits=100, extra_credits=30)
    order(client)

    assert client.credits() == 96


# ── refusals ───────────────────────────────────────────────────────────────────────────────────

REFUSALS: list[tuple[dict[str, object], type[UpstreamError], str]] = [
    ({"api_key": "another key"}, Unauthorized, "Invalid API key"),
    ({"credits": 3}, PaymentRequired, "remaining credits"),
    ({"subscription": False}, PaymentRequired, "active subscription"),
    ({"moderate_match": "anna"}, Moderated, "inappropriate content"),
    ({"concurrency": 0}, RateLimited, "Too many tasks"),
    ({"post_faults": {"rate_limited": 1}}, RateLimited, "slow down"),
]


@pytest.mark.parametrize("place", ["error", "message"])
@pytest.mark.parametrize(("dials", "expected", "text"), REFUSALS)
def test_a_refusal_costs_nothing_and_is_not_sent_again(
    simulator: Simulator,
    client: MusicApi,
    dials: dict[str, object],
    expected: type[UpstreamError],
    text: str,
    place: str,
) -> None:
    """Each has its error, with upstream's words, wherever they stand."""
    simulator.turn(**dials, error_place=place)

    error = trouble(lambda: order(client))

    assert type(error) is expected
    assert error.may_be_charged is False
    assert text in error.message
    assert sent(simulator) == 1
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("credits_400", PaymentRequired),
        ("rate_403", RateLimited),
        ("queue_403", RateLimited),
        ("rate_400", RateLimited),
        ("review_403", Moderated),
        ("rate_in_body", RateLimited),
        ("forbidden_in_body", Forbidden),
        ("bad_request_in_body", InvalidRequest),
        ("false_in_body", InvalidRequest),
        ("firewall_403", Unavailable),
        ("firewall_413", Unavailable),
    ],
)
def test_a_refusal_in_other_words_or_in_the_body_costs_nothing(
    simulator: Simulator, client: MusicApi, name: str, expected: type[UpstreamError]
) -> None:
    """What it says counts, wherever it says it."""
    simulator.turn(refuse_match="anna", refuse_with=name)

    error = trouble(lambda: order(client))

    assert (type(error), error.may_be_charged) == (expected, False)


@pytest.mark.parametrize("shape", VOICE_SHAPES)
def test_a_finished_voice_is_read_in_every_shape(simulator: Simulator, client: MusicApi, shape: str) -> None:
    """And one in progress, or failed, is not taken for finished though its persona is shown."""
    simulator.turn(voice_s=0, voice_shape=shape)
    assert isinstance(client.get_task(order(client)), VoiceReady)

    simulator.turn(voice_s=60, early_persona=True)
    assert isinstance(client.get_task(order(client)), NotReady)
    simulator.turn(voice_s=0, voice_failure=1)
    assert isinstance(client.get_task(order(client)), TaskFailed)


@pytest.mark.parametrize("word", ["failed", "cancelled", "moderated"])
def test_a_twin_that_ended_in_other_words_keeps_no_song_back(simulator: Simulator, client: MusicApi, word: str) -> None:
    """The song is there with the clip that succeeded."""
    simulator.turn(music_s=0, clip_failure=1, clip_word=word)

    found = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(found, MusicReady)
    assert sorted(clip.state for clip in found.clips) == sorted(["succeeded", word])


def test_moderated_lyrics_about_credits_are_not_taken_for_an_empty_account(
    simulator: Simulator, client: MusicApi
) -> None:
    """One job's text must not hold back everybody."""
    simulator.turn(moderate_match="la la")
    assert type(trouble(lambda: order(client, Stage.MUSIC))) is Moderated

    simulator.turn(moderate_match="my credit card")
    song = Song(prompt="swipe my credit card")
    assert type(trouble(lambda: client.create_music("p1", song))) is Moderated


def test_a_request_that_breaks_the_contract_is_refused(simulator: Simulator, client: MusicApi) -> None:
    """400 names the field, and the job will never succeed."""
    assert type(trouble(lambda: client.create_voice("no url"))) is InvalidRequest
    error = trouble(lambda: client.create_music("", SONG))

    assert type(error) is InvalidRequest
    assert "persona_id" in error.message
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_says_how_long_to_wait(simulator: Simulator, client: MusicApi, form: str) -> None:
    """In either form of Retry-After; a date is of whole seconds."""
    simulator.turn(concurrency=0, retry_after=30, retry_after_form=form)

    error = trouble(lambda: order(client))

    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(30, abs=2)


def test_a_429_without_retry_after_leaves_the_wait_to_us(simulator: Simulator, client: MusicApi) -> None:
    """No header, no number."""
    simulator.turn(concurrency=0)

    error = trouble(lambda: order(client))

    assert isinstance(error, RateLimited)
    assert error.retry_after is None


def test_an_unknown_task_is_refused(client: MusicApi) -> None:
    """Also one whose id would lead somewhere else if it were put into a path as it is."""
    for task_id in ("nobody", "../get-credits", "a/b?c=d#e"):
        error = trouble(lambda task_id=task_id: client.get_task(task_id))  # type: ignore[misc]
        assert type(error) is InvalidRequest
        assert error.message == "task not found."


def test_a_wrong_key_is_told_on_every_call(simulator: Simulator, client: MusicApi) -> None:
    """Also by the free ones."""
    simulator.turn(api_key="another key")

    assert type(trouble(lambda: client.get_task("t1"))) is Unauthorized
    assert type(trouble(client.credits)) is Unauthorized


def test_a_refused_connection_costs_nothing_and_passes(simulator: Simulator, client: MusicApi) -> None:
    """Also where a connection was open before; the client needs nothing to work again."""
    order(client)
    simulator.refuse(for_s=0.2)

    error = trouble(lambda: order(client))

    assert type(error) is ConnectionFailed
    assert error.may_be_charged is False
    assert sent(simulator) == 1
    eventually(lambda: _balance(client) == 10_000 - 4)


def _balance(client: MusicApi) -> int | None:
    try:
        return client.credits()
    except UpstreamError:
        return None


# ── faults ─────────────────────────────────────────────────────────────────────────────────────


def patience(fault: str) -> dict[str, float]:
    """How a client meets a fault: hastily where no answer comes, or too slowly."""
    return {"connect_s": HASTY_S, "answer_s": HASTY_S} if fault.startswith(("hang", "drip")) else {}


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("fault", POST_FAULTS)
def test_a_post_that_meets_a_fault_is_sent_once_and_judged_by_what_is_known(
    simulator: Simulator, connect: Connect, fault: str, stage: Stage
) -> None:
    """Only a rate limit is known to have cost nothing; all else may have, and the ledger says what it did."""
    simulator.turn(post_faults={fault: 1}, drip_s=0.05)

    error = trouble(lambda: order(connect(simulator.api_url, **patience(fault)), stage))

    is_limited = fault.startswith("rate_")
    assert (type(error), error.may_be_charged) == ((RateLimited, False) if is_limited else (AmbiguousFailure, True))
    charged = PRICES[stage] if fault.endswith("_after") else 0
    eventually(lambda: simulator.ledger()["credits_spent"] == charged)
    assert sent(simulator) == 1


def test_an_answer_that_drips_is_read_whole_by_a_patient_client(simulator: Simulator, client: MusicApi) -> None:
    """What was paid for is not given up early."""
    simulator.turn(post_faults={"drip_after": 1}, drip_s=0.001)

    task_id = order(client)

    assert [charge["task_id"] for charge in simulator.ledger()["charges"]] == [task_id]


def expected_of_get(fault: str) -> type[UpstreamError]:
    """The error of a GET that meets a fault."""
    said: dict[str, type[UpstreamError]] = {
        "rate_limited": RateLimited,
        "lost_task": InvalidRequest,
        "key_401": Unauthorized,
        "style_403": Forbidden,
        "subscription_403": PaymentRequired,
    }
    return said.get(fault, AmbiguousFailure)


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in ("busy", "false_failure")])
def test_a_poll_that_meets_a_fault_has_its_error_and_can_be_made_again(
    simulator: Simulator, connect: Connect, fault: str
) -> None:
    """The task is as it was, and so is the client."""
    client = connect(simulator.api_url, **patience(fault))
    simulator.turn(voice_s=0, drip_s=0.05)
    task_id = order(client)
    simulator.turn(get_faults={fault: 1})

    error = trouble(lambda: client.get_task(task_id))

    assert type(error) is expected_of_get(fault)
    simulator.turn(get_faults={})
    assert isinstance(client.get_task(task_id), VoiceReady)


@pytest.mark.parametrize("fault", [fault for fault in GET_FAULTS if fault not in TASK_FAULTS])
def test_a_balance_that_meets_a_fault_has_its_error(simulator: Simulator, connect: Connect, fault: str) -> None:
    """No balance is made up."""
    client = connect(simulator.api_url, **patience(fault))
    simulator.turn(get_faults={fault: 1}, drip_s=0.05)

    assert type(trouble(client.credits)) is expected_of_get(fault)


@pytest.mark.parametrize("read", [lambda client: client.get_task("t1"), MusicApi.credits], ids=["task", "credits"])
def test_a_fault_of_a_get_never_leads_to_a_charge(
    simulator: Simulator, client: MusicApi, read: Callable[[MusicApi], Any]
) -> None:
    """Asking is free, however it ends."""
    simulator.turn(get_faults={"error": 1})

    trouble(lambda: read(client))

    assert sent(simulator) == 0
