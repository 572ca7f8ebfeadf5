"""The OpenAPI schema is complete, and its page works offline."""

from __future__ import annotations

import pytest

from tests.web.conftest import Gateway

pytestmark = pytest.mark.shared_gateway


def test_every_route_has_a_summary_and_its_bodies_an_example(gateway: Gateway) -> None:
    """The page /docs shows what to send and what is returned."""
    openapi = gateway.get("/openapi.json", key=None)

    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            if path.startswith("/v1"):
                assert operation["description"], (method, path)
                assert operation["security"], (method, path)
            for body in operation.get("requestBody", {}).get("content", {}).values():
                assert body.get("examples") or body.get("example"), (method, path)


def test_the_docs_load_nothing_from_other_hosts(gateway: Gateway) -> None:
    """API keys are entered on this page."""
    page = gateway("GET", "/docs", key=None).text

    assert "://" not in page.replace("http://www.w3.org", "")
    assert gateway("GET", "/docs/static/swagger-ui-bundle.js", key=None).status_code == 200
