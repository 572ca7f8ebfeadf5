"""The packages of the extra `dev`: a checkout without them skips these tests, but not in CI."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder, and the others with its fixture, where the packages are missing."""
    if "CI" in os.environ or (find_spec("fakeredis") and find_spec("lupa")):
        return
    for item in items:
        if item.path.parent.name == "fake" or "voicequeue_queue" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="the extra dev is not installed: make setup"))
