"""The manifests of deploy/kubernetes, built once."""

from __future__ import annotations

import pytest

from tests.support.kustomized import KUBERNETES, Manifest, build


@pytest.fixture(scope="session")
def base() -> list[Manifest]:
    """Return the manifests of the base: Redis is elsewhere."""
    return build(KUBERNETES / "base")


@pytest.fixture(scope="session")
def example() -> list[Manifest]:
    """Return the manifests of the example, which has every component."""
    return build(KUBERNETES / "overlays" / "example")
