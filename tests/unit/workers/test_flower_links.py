"""Links between jobs and Flower's tasks: never to the page's own host, and a script in each page of Flower."""

from __future__ import annotations

import json
import re
from pathlib import Path

import flower  # type: ignore[import-untyped]
import pytest

from config.flowerlinks import BASE, LinkingLoader
from workers.gateway.page.flower_links import tasks_url
from workers.gateway.page.links import UrlPolicy

TEMPLATES = Path(flower.__file__).parent / "templates"


@pytest.mark.parametrize(
    ("flower_url", "page", "url"),
    [
        ("http://127.0.0.1:5555", "127.0.0.1:8000", "http://localhost:5555/tasks?job=j-1"),
        ("http://127.0.0.1:5555", "localhost:8000", "http://127.0.0.1:5555/tasks?job=j-1"),
        ("http://localhost:5555/flower/", "localhost", "http://127.0.0.1:5555/flower/tasks?job=j-1"),
        ("http://127.0.0.1:5555", "[::1]:8000", "http://localhost:5555/tasks?job=j-1"),
        ("http://127.0.0.1:5555", "voices.example", "http://127.0.0.1:5555/tasks?job=j-1"),
        ("https://flower.example", "voices.example", "https://flower.example/tasks?job=j-1"),
    ],
)
def test_a_job_links_to_its_tasks_on_another_host(flower_url: str, page: str, url: str) -> None:
    """So the page's cookie is not sent to Flower."""
    assert tasks_url(flower_url, page, "j-1") == url
    assert UrlPolicy(page).linkable(url) == url


def test_flower_on_the_host_of_the_page_is_not_linked() -> None:
    """Its address is shown as text."""
    url = tasks_url("https://voices.example/flower", "voices.example", "j")

    assert UrlPolicy("voices.example").linkable(url) is None


@pytest.mark.parametrize("address", ["https://voices.example/", "", "https://a.example/</script>{{ 1 }}"])
def test_every_page_of_flower_has_the_script(address: str) -> None:
    """Its base template has the place for it, and the address cannot end the script or be evaluated."""
    page = LinkingLoader(str(TEMPLATES), address).load(BASE)
    source = (TEMPLATES / BASE).read_text(encoding="utf-8")

    assert source.count("</body>") == 1
    [literal] = re.findall(r'const JOB_PAGE = (".*?");', page.code)
    embedded = json.loads(literal.encode().decode("unicode_escape"))
    assert embedded == address.rstrip("/")
    assert "</script>{{" not in page.code
