"""Windows of a real browser, and what axe finds in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.node import MISSING, MODULES

#: Opens a browser window. Errors and dialogs in it fail the test.
Window = Callable[..., Page]


def violations(page: Page) -> dict[str, list[str]]:
    """Return by rule of axe the elements that violate it: contrast, names, landmarks, order, keyboard."""
    script = MODULES / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.fail(MISSING)
    page.evaluate(script.read_text(encoding="utf-8"))
    return {
        violation["id"]: [node["html"] for node in violation["nodes"]]
        for violation in page.evaluate("axe.run().then((result) => result.violations)")
    }
