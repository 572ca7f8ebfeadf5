"""What a page links to, shows and plays: never what lies on its own host."""

from __future__ import annotations

import pytest

from workers.gateway.page.links import Links

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
    """At whatever port and however it is spelled; nor to what is no link, or a browser may read otherwise than we."""
    links = Links(host)

    assert links.away(url) is None
    assert links.shown(url) is None
    assert links.policy([url], [url]) == links.policy([], [])


def test_the_policy_names_the_hosts_of_what_is_shown_and_no_other() -> None:
    """So no redirect leads further; a page without songs loads none."""
    links = Links("127.0.0.1:8000")
    covers = ["http://localhost:9/a.png", "http://localhost:9/b.png", "https://cdn.example/c.png", None]

    assert links.away(SONG) == links.shown(SONG) == SONG
    assert "img-src 'self' http://localhost:9 https://cdn.example;" in links.policy(covers, [SONG])
    assert "media-src https://cdn.example;" in links.policy(covers, [SONG])
    assert "media-src 'none'; img-src 'self';" in links.policy([], [])
    assert links.away("http://[2001:db8::1]/a") is not None
    assert links.shown("http://[2001:db8::1]/a") is None
