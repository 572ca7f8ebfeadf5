"""A client of the simulator."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from simulator.process import Simulator


class Client(requests.Session):
    """A plain HTTP client of the API: knows its address, carries a token and never waits for long."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.trust_env = False
        self.headers["Authorization"] = "Bearer any-key"
        self._base_url = base_url

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests does it; the URL may be a path."""
        kwargs.setdefault("timeout", 10)
        return super().request(method, urljoin(self._base_url, str(url)), *args, **kwargs)


@pytest.fixture
def api(simulator: Simulator) -> Iterator[requests.Session]:
    """A client of the simulator's API."""
    with Client(simulator.api_url) as client:
        yield client


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until a condition holds; fails the test when that takes more than 10 seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < give_up_at, "it never came true"
            time.sleep(0.005)

    return wait
