"""A client of the simulator."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from simulator.process import Simulator


class Client(requests.Session):
    """An HTTP client of the API with its base URL, a token and a timeout."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.trust_env = False
        self.headers["Authorization"] = "Bearer any-key"
        self._base_url = base_url

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; the URL may be a path."""
        kwargs.setdefault("timeout", 10)
        return super().request(method, urljoin(self._base_url, str(url)), *args, **kwargs)


@pytest.fixture
def api(simulator: Simulator) -> Iterator[requests.Session]:
    """Yield a client of the simulator's API."""
    with Client(simulator.api_url) as client:
        yield client


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits for a condition, up to 10 seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < give_up_at, "the condition was not met in 10 s"
            time.sleep(0.005)

    return wait
