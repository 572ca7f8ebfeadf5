"""External links, images and audio of a page: never from its own host."""

from __future__ import annotations

import pytest

from workers.gateway.page.links import UrlPolicy

SONG = "https://cdn.example/1.mp3?a=b#c"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:9/a"),
        ("127.0.0.1:8000", "HTTP://127.0.0.1./a"),
        ("127.0.0.1:8000", "https://127.0.0.1"),
        ("127.0.0.1:8000", "http://[::ffff:127.0.0.1]:9/a"),
        ("127.0.0.1:8000", "http://127.1:9/a"),
        ("127.0.0.1:8000", "http://2130706433:9/a"),
        ("127.0.0.1:8000", "http://0x7f000001:9/a"),
        ("127.0.0.1:8000", "http://0177.0.0.1:9/a"),
        ("127.0.0.1:8000", "http://cdn.example@127.0.0.1:9/a"),
        ("127.0.0.1:8000", "http://127.0.0.1\\@cdn.example/a"),
        ("127.0.0.1:8000", "http:///127.0.0.1:9/a"),
        ("127.0.0.1:8000", "http://%3127.0.0.1:9/a"),
        ("127.0.0.1:8000", "http://127。0。0。1:9/a"),
        ("127.0.0.1:8000", "http://127\t.0.0.1:9/a"),
        ("[::1]:8000", "http://[0:0:0:0:0:0:0:1]:9/a"),
        ("Voices.example", "http://voices.EXAMPLE:9/a"),
        ("voices.example", "http://voices.example./a"),
        ("", SONG),
        ("a@b", SONG),
        ("voices.example", "javascript:alert(1)"),
        ("voices.example", "data:text/html,x"),
        ("voices.example", "//cdn.example/a"),
        ("voices.example", "http://cdn.example/a;script-src *\n"),
        ("voices.example", ""),
    ],
)
def test_a_page_neither_links_to_its_own_host_nor_loads_from_it(host: str, url: str) -> None:
    """On any port and in any spelling; nor to a URL that is invalid or that a browser may parse differently."""
    links = UrlPolicy(host)

    assert links.linkable(url) is None
    assert links.loadable(url) is None
    assert links.policy([url], [url]) == links.policy([], [])


def test_the_policy_names_exactly_the_hosts_of_shown_media() -> None:
    """So redirects to other hosts are blocked; a page without songs loads none."""
    links = UrlPolicy("127.0.0.1:8000")
    covers = ["http://localhost:9/a.png", "http://localhost:9/b.png", "https://cdn.example/c.png", None]

    assert links.linkable(SONG) == links.loadable(SONG) == SONG
    assert "img-src 'self' http://localhost:9 https://cdn.example;" in links.policy(covers, [SONG])
    assert "media-src https://cdn.example;" in links.policy(covers, [SONG])
    assert "media-src 'none'; img-src 'self';" in links.policy([], [])
    assert links.linkable("http://[2001:db8::1]/a") is not None
    assert links.loadable("http://[2001:db8::1]/a") is None
