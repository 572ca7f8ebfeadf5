"""The blocks of docs/guides/testing.md are tests that pass, in the order of the page."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.docs.blocks import ROOT, blocks_of
from voicequeue import VoiceJob, VoiceQueue
from voicequeue.testing import FakeQueue


def order_voice(queue: VoiceQueue, *, customer: int, key: str | None = None) -> str:
    """Enqueue a voice, as the app of the guide does."""
    job = VoiceJob(audio_url="https://example.com/ana.wav", key=key, metadata={"customer": str(customer)})
    return queue.enqueue(job).id


class Client:
    """The test client of an app that accepts every callback."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> SimpleNamespace:
        """Receive a callback."""
        assert body
        assert headers["webhook-signature"].startswith("v1,")
        self.urls.append(url)
        return SimpleNamespace(status_code=204)


def test_the_blocks_of_the_guide_are_tests_that_pass(
    voicequeue_queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its tests is called once, with the fixtures that it names."""
    shop, client, names = ModuleType("shop"), Client(), dict[str, Any]()
    monkeypatch.setitem(sys.modules, "shop", shop)
    monkeypatch.setattr(shop, "order_voice", order_voice, raising=False)
    for block in blocks_of(ROOT / "docs/guides/testing.md"):
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    fixtures = {"voicequeue_queue": voicequeue_queue, "client": client, "monkeypatch": monkeypatch}

    for test in tests:
        test(**{name: fixtures[name] for name in test.__code__.co_varnames[: test.__code__.co_argcount]})

    assert len(tests) == 3
    assert client.urls == ["http://localhost/callbacks"]
