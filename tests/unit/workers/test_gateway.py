"""The gateway as built from the settings."""

from __future__ import annotations

import pytest
from fastapi import APIRouter

from config.settings import load
from voicequeue.domain.gate import Limits
from voicequeue.storage.job_store import JobStore
from workers.gateway import app
from workers.gateway.api import webhooks


def test_the_gateway_has_the_same_limits_as_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook that is faster than the answer confirms an order: the in-flight limit must not follow other settings
    then."""
    monkeypatch.setenv("VOICEQUEUE_MAX_IN_FLIGHT", "321")
    monkeypatch.setenv("VOICEQUEUE_INITIAL_IN_FLIGHT", "32")
    stores: list[JobStore] = []

    def router(store: JobStore, *_: object) -> APIRouter:
        stores.append(store)
        return APIRouter()

    monkeypatch.setattr(webhooks, "router", router)
    app.create_app(load())

    assert [store.flow_control.settings for store in stores] == [Limits(321, 32)]
