"""The documentation as a site: built once, and read in a browser from the disk, without a server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.unit.project.test_docs import ROOT, built

pytestmark = pytest.mark.endurance

SERVERS = r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+//"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site. A broken link ends its build."""
    folder = tmp_path_factory.mktemp("site")
    done = built(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page that reaches no server."""
    context = browser.new_context(offline=True)
    yield context.new_page()
    context.close()


def test_the_pages_load_nothing_from_other_servers(site: Path) -> None:
    """No script, style or font."""
    pages = {page.relative_to(site).as_posix(): page.read_text("utf-8") for page in site.rglob("*.html")}

    assert {"index.html", "guides/runbook.html", "reference/configuration.html", "changelog.html"} <= set(pages)
    assert "examples/index.html" in pages
    assert [name for name, text in pages.items() if re.search(SERVERS, text)] == []
    assert "mermaid" not in "".join(pages.values())


@pytest.mark.parametrize(("start", "up"), [("index.html", ""), ("guides/cancel.html", "../")])
def test_the_search_finds_a_guide_by_its_task(site: Path, page: Page, start: str, up: str) -> None:
    """From every folder of the site, opened from the disk."""
    page.goto((site / start).as_uri())
    page.get_by_role("textbox", name="Search").fill("unsure job")

    result = page.locator(".md-search-result__link").filter(has_text="Resolve an unsure job").first
    # It reads its index first, which takes seconds while other tests run.
    expect(result).to_have_attribute("href", re.compile(r"guides/unsure-jobs\.html"), timeout=90_000)
