"""Flower and the gateway as processes, attacked by pages of other sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, expect

from config.flowerguard import HEADERS
from config.settings import Settings
from tests.security.surface import site
from workers.local import stack as stacks
from workers.local.ports import free_port
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor


@pytest.fixture(scope="module")
def stolen() -> Iterator[list[tuple[str, str]]]:
    """Yield the requests (path and cookie) to servers that take each port between its choice and its use."""
    requested: list[tuple[str, str]] = []
    with ExitStack() as resources, pytest.MonkeyPatch.context() as patch:
        urls = [resources.enter_context(site("healthy", log=requested)) for _ in range(4)]
        ports = [urlsplit(url).port for url in urls]
        # The ports of Valkey, Flower, the gateway and the simulator's controls: each process gets its second choice.
        order = iter([ports[0], None, ports[1], ports[2], None, None, None, ports[3]])
        patch.setattr(stacks, "free_port", lambda port=None: next(order, None) or free_port(port))
        yield requested


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory, stolen: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the URLs of a Flower with the most open settings, without login and read_only, and of a gateway."""
    open_to_all = {
        "FLOWER_UNAUTHENTICATED_API": "true",
        "FLOWER_READ_ONLY": "false",
        "FLOWER_ALLOWED_HOSTS": "ops.example,flower.example",
    }
    with Supervisor() as supervisor:
        home = tmp_path_factory.mktemp("flower")
        stack = Stack(supervisor, Settings(_env_file=None), home=home, env=open_to_all)
        stack.use_redis(stack.start_valkey())
        flower, gateway = stack.start_flower(), stack.start_gateway(webhooks=False)
        flower = stack.wait_for_flower(flower)
        simulator = stack.start_simulator({})
        assert requests.get(f"{simulator[1]}/healthz", timeout=10).json() == {"status": "ok"}
        yield flower, gateway


def test_a_process_that_takes_a_port_first_gets_no_request(
    addresses: tuple[str, str], stolen: list[tuple[str, str]]
) -> None:
    """Neither for a page, nor with the local token: each program uses another port, and its address says so."""
    assert "Flower" in requests.get(f"{addresses[0]}/workers", timeout=10).text
    assert requests.get(f"{addresses[1]}/healthz", timeout=10).text != "healthy"
    assert stolen == []


@pytest.fixture(scope="module")
def flower(addresses: tuple[str, str]) -> str:
    """Return Flower's URL."""
    return addresses[0]


def fetch(flower: str, method: str, path: str, headers: Mapping[str, str]) -> requests.Response:
    """Send a request; check that the response forbids every use by other sites."""
    answer = requests.request(method, flower + path, headers=headers, timeout=10, allow_redirects=False)
    assert {name: answer.headers.get(name) for name in HEADERS} == dict(HEADERS), (path, answer.status_code)
    assert not [name for name in answer.headers if name.startswith(("Access-Control-", "Server"))]
    return answer


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/workers", {}, 200),
        ("GET", "/api/tasks", {}, 200),
        ("GET", "/missing", {}, 404),
        ("GET", "/task/missing", {}, 404),
        ("GET", "/static/js/flower.js", {}, 200),
        ("GET", "/static/missing.js", {}, 404),
        ("BREW", "/workers", {}, 405),
        ("GET", "/healthcheck", {"Host": "ops.example"}, 200),
        ("GET", "/workers", {"Host": "OPS.example:8443"}, 200),
        ("GET", "/workers", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", "/workers", {"Host": "evil.example"}, 403),
        ("GET", "/api/tasks", {"Host": "127.0.0.1.evil.example"}, 403),
        ("GET", "/static/js/flower.js", {"Host": "evil.example"}, 403),
        ("GET", "/metrics", {"Host": ""}, 403),
        ("GET", "/api/tasks", {"Origin": "https://evil.example"}, 403),
        ("OPTIONS", "/api/tasks", {"Origin": "https://evil.example"}, 403),
        ("POST", "/api/task/revoke/x", {"Origin": "https://evil.example"}, 403),
        ("POST", "/api/task/revoke/x", {"Origin": "null"}, 403),
        ("POST", "/api/task/revoke/x", {"Origin": "http://evil.example", "Host": "evil.example"}, 403),
        ("POST", "/api/worker/shutdown/x", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", "/api/worker/pool/restart/x", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/api/task/rate-limit/x", {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", "/api/task/revoke/x", {}, 200),  # a program of this machine
    ],
)
def test_flower_answers_only_its_own_pages_and_programs(
    flower: str, method: str, path: str, headers: Mapping[str, str], status: int
) -> None:
    """Under names of this machine and configured names; every response forbids framing."""
    assert fetch(flower, method, path, headers).status_code == status


def test_flower_executes_the_actions_of_its_own_pages(flower: str) -> None:
    """Only where it is configured to allow actions."""
    own = {"Origin": flower, "Sec-Fetch-Site": "same-origin"}

    assert fetch(flower, "POST", "/api/task/revoke/x", own).status_code == 200


def test_a_page_of_another_port_can_neither_frame_nor_change_flower(flower: str, browser: Browser) -> None:
    """In a real browser; Flower's own page works there."""
    press = f'<form method="post" action="{flower}/api/task/revoke/x"><button>prizes</button></form>'
    read = f"fetch('{flower}/api/tasks').then(() => 'read', () => 'refused')"
    with (
        site(f'<!doctype html><title>prizes</title>{press}<iframe src="{flower}/workers"></iframe>') as evil,
        browser.new_context() as context,
    ):
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(f"{flower}/tasks")
        expect(page.locator("#tasks-table")).to_be_visible()
        assert errors == []

        page.goto(evil, wait_until="load")
        assert [frame.url for frame in page.frames[1:]] == ["chrome-error://chromewebdata/"]
        assert page.evaluate(read) == "refused"
        with page.expect_response("**/api/task/revoke/x") as answer:
            page.get_by_role("button").click()
        assert answer.value.status == 403


def test_the_gateways_process_sends_no_server_header_and_accepts_no_websocket(addresses: tuple[str, str]) -> None:
    """An upgrade is answered like any other request, with the headers."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    for headers in ({}, upgrade):
        answer = requests.get(f"{addresses[1]}/healthz", headers=headers, timeout=10)
        assert answer.status_code == 200
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Server" not in answer.headers
