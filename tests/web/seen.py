"""Pages as a person has them: what they show, their forms, and a login."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import requests

from tests.web.conftest import KEYS, Gateway


class Seen(HTMLParser):
    """The elements, the text and the forms of a page."""

    _button: dict[str, str | None] | None = None

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.forms: list[dict[str, Any]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag == "form":
            self.forms.append(
                {"action": given.get("action", ""), "fields": {}, "buttons": {}, "method": given.get("method", "get")}
            )
        elif tag == "input" and self.forms and "name" in given:
            self.forms[-1]["fields"][given["name"]] = given.get("value") or ""
        elif tag == "button" and self.forms:
            self._button = given

    def handle_data(self, data: str) -> None:
        """Keep it."""
        if self._button is not None and data.strip():
            self.forms[-1]["buttons"][" ".join(data.split())] = self._button
            self._button = None
        self.text = " ".join([self.text, *data.split()])

    def links(self) -> list[str]:
        """Where it leads."""
        return [str(attrs["href"]) for tag, attrs in self.elements if tag == "a" and "href" in attrs]


def seen(gateway: Gateway, path: str, *, status: int = 200, **more: Any) -> Seen:
    """The page."""
    return _page(gateway("GET", path, key=None, **more), status)


def _page(answer: requests.Response, status: int) -> Seen:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    return Seen(answer.text)


def logged_in(gateway: Gateway, key: str, onward: str = "/") -> requests.Response:
    """What a login with that key leads to."""
    return requests.post(f"{gateway.url}/login", data={"key": key, "onward": onward}, allow_redirects=False, timeout=10)


class Person:
    """A person with a browser; logged in with the key of that name (None: by the link with the local token)."""

    def __init__(self, gateway: Gateway, key: str | None = None) -> None:
        self.session, self.url = requests.Session(), gateway.url
        if key is None:
            self.session.get(gateway.link(), timeout=10)
        else:
            self.session.cookies.update(logged_in(gateway, KEYS[key][0]).cookies)

    def page(self, path: str, *, status: int = 200) -> Seen:
        """A page."""
        return _page(self.session.get(self.url + path, timeout=10), status)

    def post(self, path: str, fields: dict[str, str]) -> requests.Response:
        """Send a form as it stands nowhere."""
        return self.session.post(self.url + path, data=fields, timeout=10)

    def submit(self, page: Seen, button: str, *, status: int = 200, **fields: Any) -> Seen:
        """Fill in the form that has this button, and press it; the page that it leads to."""
        form = next(form for form in page.forms if button in form["buttons"])
        pressed = form["buttons"][button]
        given = {
            **form["fields"],
            **({pressed["name"]: pressed.get("value") or ""} if "name" in pressed else {}),
            **fields,
        }
        return _page(self.post(form["action"], given), status)
