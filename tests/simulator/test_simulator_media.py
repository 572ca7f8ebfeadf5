"""The files of a clip's links: real files, whole or in part, and their faults."""

import pytest
import requests

from simulator.process import Simulator

SONG = {
    "task_type": "persona_music",
    "persona_id": "p",
    "custom_mode": True,
    "mv": "sonic-v5",
    "prompt": "la",
    "title": "La",
}


@pytest.fixture
def links(simulator: Simulator, api: requests.Session) -> list[dict[str, str]]:
    """Return the two clips of a song that is ready."""
    simulator.set_dials(music_s=0)
    task_id = api.post("/api/v1/sonic/create", json=SONG).json()["task_id"]
    clips: list[dict[str, str]] = api.get(f"/api/v1/sonic/task/{task_id}").json()["data"]
    return clips


def test_a_song_is_an_mp3_and_its_cover_a_png_each_of_its_own(
    simulator: Simulator, api: requests.Session, links: list[dict[str, str]]
) -> None:
    """They have about the size of the dial, and are the same each time."""
    simulator.set_dials(media_bytes=50_000)
    songs = [api.get(clip["audio_url"]) for clip in links]
    covers = [api.get(clip["image_url"]).content for clip in links]

    assert all(song.content.startswith(b"ID3") and song.headers["Content-Type"] == "audio/mpeg" for song in songs)
    assert all(49_000 < len(song.content) <= 50_000 for song in songs)
    assert all(cover.startswith(b"\x89PNG") and cover.endswith(b"IEND\xaeB`\x82") for cover in covers)
    assert len({*covers, *(song.content for song in songs)}) == 4
    assert api.get(links[0]["audio_url"]).content == songs[0].content


def test_a_part_is_given_if_the_file_is_still_the_same(
    simulator: Simulator, api: requests.Session, links: list[dict[str, str]]
) -> None:
    """Otherwise, or with ranges off, the whole file is sent."""
    url = links[0]["audio_url"]
    whole = api.get(url)
    part = api.get(url, headers={"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]})
    other = api.get(url, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
    simulator.set_dials(media_ranges=False)
    refused = api.get(url, headers={"Range": "bytes=1000-"})

    size = len(whole.content)
    assert (part.status_code, part.content) == (206, whole.content[1000:])
    assert part.headers["Content-Range"] == f"bytes 1000-{size - 1}/{size}"
    assert (other.status_code, other.content) == (200, whole.content)
    assert (refused.status_code, refused.content) == (200, whole.content)
    assert simulator.ledger()["media"] == {"asked": 4, "whole": 3, "parts": 1}


@pytest.mark.parametrize("fault", ["cut", "overlong", "reset"])
def test_a_file_that_is_cut_is_seen_to_be(
    simulator: Simulator, api: requests.Session, links: list[dict[str, str]], fault: str
) -> None:
    """The connection ends before the announced length."""
    simulator.set_dials(media_faults={fault: 1})

    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        api.get(links[0]["audio_url"])
    assert simulator.ledger()["faults"] == {f"media.{fault}": 1}


@pytest.mark.parametrize(("fault", "status"), [("lost", 404), ("error", 502), ("page", 200)])
def test_a_file_may_be_something_else(
    simulator: Simulator, api: requests.Session, links: list[dict[str, str]], fault: str, status: int
) -> None:
    """It may be missing, an error, or a page."""
    simulator.set_dials(media_faults={fault: 1})

    response = api.get(links[0]["audio_url"])

    assert response.status_code == status
    assert not response.content.startswith(b"ID3")


def test_links_may_lead_elsewhere(simulator: Simulator, api: requests.Session, links: list[dict[str, str]]) -> None:
    """`media_redirect` selects the target."""
    simulator.set_dials(media_redirect="http://10.0.0.1/secret")

    response = api.get(links[0]["audio_url"], allow_redirects=False)

    assert (response.status_code, response.headers["Location"]) == (302, "http://10.0.0.1/secret")
