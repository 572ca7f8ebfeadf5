"""Requests of the client, byte for byte, and the connections it uses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.musicapi import MusicApi
from tests.contract.conftest import KEY, Connect
from tests.support.scripted import Request, ScriptedServer, always, answer
from voicequeue import Song

AUDIO_URL = "https://recordings.example/anna.mp3"
ACCEPTED = answer({"code": 200, "message": "success", "task_id": "t1"})


def test_every_call_carries_the_key_and_asks_for_json(connect: Connect) -> None:
    """The key is a bearer token, also in free requests."""
    with ScriptedServer(always(answer({"task_id": "t1", "credits": 5, "type": "not_ready"}))) as upstream:
        client = connect(upstream.url + "/")
        client.create_voice(AUDIO_URL)
        client.get_task("t1")
        client.get_credits()

    assert [(request.method, request.path) for request in upstream.requests] == [
        ("POST", "/api/v1/sonic/create-voice"),
        ("GET", "/api/v1/sonic/task/t1"),
        ("GET", "/api/v1/get-credits"),
    ]
    assert [request.headers["authorization"] for request in upstream.requests] == [f"Bearer {KEY}"] * 3
    assert [request.headers["accept"] for request in upstream.requests] == ["application/json"] * 3
    assert upstream.requests[0].headers["content-type"] == "application/json"


def test_a_voice_is_ordered_with_its_recording_alone(connect: Connect) -> None:
    """The body contains nothing else."""
    with ScriptedServer(always(ACCEPTED)) as upstream:
        connect(upstream.url).create_voice(AUDIO_URL)

    assert upstream.requests[0].json() == {"audio_url": AUDIO_URL}


FULL_SONG = Song(
    mv="sonic-v4-5",
    title="Größe",
    prompt="[Verse]\nla la 🎵",
    tags="folk, warm",
    negative_tags="metal",
    make_instrumental=False,
    auto_lyrics=False,
    vocal_gender="f",
    style_weight=0.5,
    weirdness_constraint=0,
    audio_weight=1,
)


@pytest.mark.parametrize(
    ("song", "body"),
    [
        (Song(prompt="la la"), {"mv": "sonic-v5", "custom_mode": True, "prompt": "la la"}),
        (
            Song(description="a song of the sea"),
            {"mv": "sonic-v5", "custom_mode": False, "gpt_description_prompt": "a song of the sea"},
        ),
        (Song(make_instrumental=True), {"mv": "sonic-v5", "custom_mode": True, "make_instrumental": True}),
        (
            FULL_SONG,
            {
                "mv": "sonic-v4-5",
                "custom_mode": True,
                "title": "Größe",
                "prompt": "[Verse]\nla la 🎵",
                "tags": "folk, warm",
                "negative_tags": "metal",
                "make_instrumental": False,
                "auto_lyrics": False,
                "vocal_gender": "f",
                "style_weight": 0.5,
                "weirdness_constraint": 0.0,
                "audio_weight": 1.0,
            },
        ),
    ],
    ids=["custom mode", "description mode", "instrumental", "everything"],
)
def test_a_song_is_ordered_with_what_was_given_and_nothing_else(
    connect: Connect, song: Song, body: dict[str, object]
) -> None:
    """The body of `persona_music` is exact, for lyrics and for a description."""
    with ScriptedServer(always(ACCEPTED)) as upstream:
        connect(upstream.url).create_music("p1", song)

    assert upstream.requests[0].path == "/api/v1/sonic/create"
    assert upstream.requests[0].json() == {"task_type": "persona_music", "persona_id": "p1", **body}


def test_connections_are_used_again(connect: Connect) -> None:
    """Ten consecutive requests, free and paid, use one connection."""
    with ScriptedServer(always(answer({"task_id": "t1", "credits": 5}))) as upstream:
        client = connect(upstream.url)
        for _ in range(5):
            client.create_voice(AUDIO_URL)
            client.get_credits()

    assert (len(upstream.requests), upstream.accepted) == (10, 1)


def test_eight_threads_share_a_client(connect: Connect) -> None:
    """Each thread gets the response to its own request, over at most eight connections."""
    all_ready = threading.Barrier(8)

    def echo(request: Request) -> Iterator[bytes]:
        yield answer({"task_id": request.json()["audio_url"]})

    with ScriptedServer(echo) as upstream, ThreadPoolExecutor(8, initializer=all_ready.wait) as threads:
        client = connect(upstream.url, connections=8)
        urls = [f"https://recordings.example/{number}.mp3" for number in range(80)]
        assert list(threads.map(client.create_voice, urls)) == urls

    assert sorted(request.json()["audio_url"] for request in upstream.requests) == sorted(urls)
    assert upstream.accepted <= 8


@pytest.mark.parametrize("key", ["key-of-the-account\n", "key\r\nX-Other: header", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_found_at_the_start(key: str) -> None:
    """The error is raised at the start, where no charge becomes unsure, and does not quote the key."""
    with pytest.raises(ValueError, match="the key contains") as caught:
        MusicApi("http://127.0.0.1:9", key)
    assert "account" not in str(caught.value)
    assert "X-Other" not in str(caught.value)


def test_a_certificate_bundle_that_is_not_there_is_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised at the start and not at the first charge."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    with pytest.raises(OSError, match="TLS CA certificate bundle"):
        MusicApi("https://127.0.0.1:9", KEY)
