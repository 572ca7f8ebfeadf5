"""The gateway in this process, behind a real uvicorn on a real socket; each test has its own app."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from config.settings import Settings
from tests.conftest import eventually
from tests.support import fast_apps
from tests.support.rights import url_with_rights
from tests.web.browsing import Window
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope as KeyScope
from workers import local_token
from workers.gateway.app import create_app
from workers.gateway.server.connections import ServerLimits
from workers.gateway.server.http_server import Server, ServerConfig
from workers.local.ports import free_port

fast_apps.install()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore a module that generates its requests while it is collected, in each process, if none of them is sent."""
    is_unused = config.getoption("markexpr") == "not endurance" and collection_path.name == "test_web_generated.py"
    return is_unused or None


#: Keys of all tests: one with every scope, and one for each scope.
KEYS = {
    "all": api_keys.generate_key("all", KeyScope),
    **{scope.value: api_keys.generate_key(scope, [scope]) for scope in KeyScope},
}
SETTING = ",".join(configured.as_setting() for _, configured in KEYS.values())


def new_session() -> requests.Session:
    """Return a session that does not look for proxies and passwords before each request, which costs more than it."""
    session = requests.Session()
    session.trust_env = False
    return session


class AppSlot:
    """The app that the server currently serves, and the address its requests seem to come from."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.client: tuple[str, int] | None = ("127.0.0.1", 5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app({**scope, "client": self.client}, receive, send)


class Gateway:
    """A gateway and a client for it; `token` is its local token, if any."""

    def __init__(self, url: str, stage: AppSlot, token: str | None = None) -> None:
        self.url, self.stage, self.token = url, stage, token
        self._session = new_session()

    def link(self, path: str = "/") -> str:
        """Return the URL of a page, with the local token if there is one."""
        return self.url + path + (f"{'&' if '?' in path else '?'}token={self.token}" if self.token else "")

    def logged_in(self) -> Gateway:
        """Open its link, which sets the session cookie, and return it."""
        assert self._session.get(self.link(), timeout=20).status_code == 200
        return self

    def __call__(self, method: str, path: str, *, key: str | None = "all", **options: Any) -> requests.Response:
        """Send a request with the key of that name, the local token (`local`), or no key (None)."""
        secret = self.token if key == "local" else KEYS[key][0] if key else None
        headers = {**({"Authorization": f"Bearer {secret}"} if secret else {}), **options.pop("headers", {})}
        return self._session.request(method, self.url + path, headers=headers, timeout=20, **options)

    def get(self, path: str, **more: Any) -> Any:
        """Return the JSON of a GET request."""
        answer = self("GET", path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        """POST JSON."""
        return self("POST", path, json=body, **more)


@contextmanager
def serving(app: ASGIApp, bounds: ServerLimits) -> Iterator[tuple[str, Server]]:
    """Serve an app on a real socket, with these bounds."""
    port = free_port()
    running = Server(ServerConfig(app, bounds, port=port, lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    eventually(lambda: running.started)
    yield f"http://127.0.0.1:{port}", running
    running.should_exit = running.force_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, AppSlot]]:
    """Return the server of this test process."""
    stage = AppSlot()
    with serving(stage, ServerLimits()) as (url, _):
        yield url, stage


#: Builds a gateway with these settings.
Build = Callable[..., Gateway]


#: The apps of tests that are marked `shared_gateway`, by their settings.
_shared_apps: dict[str, FastAPI] = {}


def _shared_app(options: Mapping[str, Any]) -> FastAPI:
    """Return the app with these settings, built once in this process."""
    plain = {key: value.get_secret_value() if isinstance(value, SecretStr) else value for key, value in options.items()}
    name = repr(sorted(plain.items()))  # secrets have one representation
    if name not in _shared_apps:
        _shared_apps[name] = create_app(Settings(_env_file=None, **options))
    return _shared_apps[name]


@pytest.fixture
def build_gateway(
    server: tuple[str, AppSlot], valkey_url: str, prefix: str, request: pytest.FixtureRequest
) -> Iterator[Build]:
    """Return a function that builds a gateway for this test's queue, with the rights of `web` in Redis."""
    url, stage = server
    is_shared = request.node.get_closest_marker("shared_gateway") is not None

    def build_for_test(bounds: ServerLimits | None = None, **settings: Any) -> Gateway:
        redis_url = url_with_rights(valkey_url, "gateway", settings.get("prefix", prefix))
        options: dict[str, Any] = {"REDIS_URL": redis_url, "prefix": prefix, "api_keys": SETTING, **settings}
        if is_shared and bounds is None:
            stage.app = _shared_app(options)
        else:
            stage.app = create_app(Settings(_env_file=None, **options), bounds)
        stage.client = ("127.0.0.1", 5)
        file = options.get("local_token_file")
        return Gateway(url, stage, local_token.read(file) if file else None)

    yield build_for_test
    stage.app = None


@pytest.fixture
def gateway(build_gateway: Build) -> Gateway:
    """Return a gateway with API keys."""
    return build_gateway()


@pytest.fixture(scope="session")
def shared_token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a file with a local token for the tests on the shared gateway."""
    file = tmp_path_factory.mktemp("gateway") / "local_token"
    local_token.ensure(file)
    return file


@pytest.fixture
def token_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Create a file with a local token, as `make up` does."""
    if request.node.get_closest_marker("shared_gateway"):
        return request.getfixturevalue("shared_token_file")  # type: ignore[no-any-return]
    local_token.ensure(tmp_path / "local_token")
    return tmp_path / "local_token"


@pytest.fixture
def keyless(build_gateway: Build, token_file: Path) -> Gateway:
    """Return a gateway without configured keys, with a local token."""
    return build_gateway(api_keys="", local_token_file=token_file)


@pytest.fixture
def local(keyless: Gateway) -> Gateway:
    """Return a gateway without configured keys, logged in with its local token."""
    return keyless.logged_in()


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """Return a function that opens windows, each with its own cookies."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def opened(url: str, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def app_of(gateway: Gateway) -> FastAPI:
    """Return the app that the gateway serves."""
    assert isinstance(gateway.stage.app, FastAPI)
    return gateway.stage.app


def problem(answer: requests.Response, status: int, code: str) -> dict[str, str]:
    """Return the field errors of a response that must be this problem."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    details = answer.json()
    assert (answer.status_code, details["status"], details["code"]) == (status, status, code), answer.text
    assert details["title"]
    assert details["detail"]
    return {error["field"]: error["message"] for error in details.get("errors", [])}
