"""Clients of the simulator and of scripted servers, as the workers use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from simulator.process import Simulator
from tasks.musicapi import MusicApi, UpstreamError
from voicequeue import Song, Stage

#: The key of the account; no text may contain it.
KEY = "key-of-the-account"

AUDIO_URL = "https://recordings.example/anna-maria.mp3"
SONG = Song(prompt="[Verse]\nla la", title="La", tags="folk")

Connect = Callable[..., MusicApi]


#: Environment variables that select a proxy.
PROXY_VARIABLES = [
    name for scheme in ("http", "https", "all", "no") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Create clients of a base URL that ignore the proxy environment; they are closed when the test ends."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as clients:

        def _connect(base_url: str, **options: float) -> MusicApi:
            client = MusicApi(base_url, KEY, **{"connect_s": 5.0, "answer_s": 10.0, **options})  # type: ignore[arg-type]
            clients.callback(client.close)
            return client

        yield _connect


def upstream_error(call: Callable[[], object]) -> UpstreamError:
    """Return the error that a call raises; it reveals neither the key nor an address."""
    with pytest.raises(UpstreamError) as caught:
        call()
    text = repr(caught.value) + str(caught.value)
    assert KEY not in text
    assert "://" not in text
    assert "127.0.0.1" not in text
    return caught.value


@pytest.fixture
def client(simulator: Simulator, connect: Connect) -> MusicApi:
    """Return a client of the simulator."""
    return connect(simulator.api_url)


def order(client: MusicApi, stage: Stage = Stage.VOICE) -> str:
    """Order a voice or a song."""
    return client.create_voice(AUDIO_URL) if stage is Stage.VOICE else client.create_music("p1", SONG)


def sent(simulator: Simulator) -> int:
    """Return the number of POSTs that upstream received."""
    calls = simulator.ledger(charges=False)["calls"]
    return int(calls["create_voice"] + calls["create_music"])
