"""The pages of API keys in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.web.browsing import Window, violations
from tests.web.conftest import KEYS, Gateway
from voicequeue import KeyLimits, VoiceQueue
from voicequeue.auth.api_keys import Scope

PATHS = ("/keys", "/keys/new", "/key/shop", "/key/shop/rotate", "/key/shop/revoke", "/key/gone")


@pytest.fixture
def with_keys(gateway: Gateway, queue: VoiceQueue) -> Gateway:
    """Return a gateway with a key that is being rotated, and one that is revoked."""
    limits = KeyLimits(5, None, "a-pattern-of-many-batches-*", 4_102_444_800)
    queue.create_api_key("shop", list(set(Scope) - {Scope.ADMIN}), namespace="shop", limits=limits)
    queue.rotate_api_key("shop")
    queue.create_api_key("gone", [Scope.READ], namespace="")
    queue.revoke_api_key("gone")
    return gateway


def logged_in(gateway: Gateway, window: Window, **options: object) -> Page:
    """Return a window with the list of keys."""
    page = window(f"{gateway.url}/keys", **options)
    page.get_by_label("API key").fill(KEYS["all"][0])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="API keys")).to_be_visible()
    return page


@pytest.mark.endurance
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_keys_are_accessible_and_fit_a_phone(with_keys: Gateway, window: Window, scheme: str) -> None:
    """axe finds no serious violation, and wide content scrolls by itself."""
    page = logged_in(with_keys, window, viewport={"width": 360, "height": 740}, color_scheme=scheme)

    for path in PATHS:
        page.goto(with_keys.url + path)
        assert violations(page) == {}, path
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


@pytest.mark.endurance
@pytest.mark.parametrize("java_script", [True, False])
def test_a_key_lives_from_creation_to_revocation(with_keys: Gateway, window: Window, java_script: bool) -> None:
    """With and without JavaScript, which sends a form once. Going back does not show its secret again."""
    page = logged_in(with_keys, window, java_script_enabled=java_script)

    page.get_by_role("link", name="New key…").click()
    page.get_by_label("Name", exact=True).fill("choir")
    page.get_by_label("Namespace", exact=True).fill("choir")
    page.get_by_label("Requests per second").fill("2.5")
    page.get_by_role("button", name="Create key").click(click_count=2 if java_script else 1)
    expect(page.get_by_role("heading", name="API key choir is created")).to_be_visible()
    secret = page.locator("code.secret").inner_text()
    assert secret.startswith("vq_")
    assert secret not in page.url
    page.get_by_role("link", name="All keys").click()
    page.get_by_role("link", name="choir").click()
    page.get_by_label("Highest priority").select_option("bulk")
    page.get_by_role("button", name="Save changes").click()
    expect(page.get_by_role("status")).to_contain_text("is changed")
    page.get_by_role("link", name="Rotate…").click()
    page.get_by_role("button", name="Rotate key").click()
    assert page.locator("code.secret").inner_text() != secret
    page.go_back()
    expect(page.locator("code.secret")).to_have_count(0)
    page.goto(f"{with_keys.url}/key/choir/revoke")
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_role("status")).to_contain_text("choir is revoked")
