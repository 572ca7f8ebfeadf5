"""Pages as a browser without JavaScript has them: elements, text, forms, sessions."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import requests

from tests.web.conftest import KEYS, Gateway, new_session


class ParsedPage(HTMLParser):
    """The elements, text and forms of a page."""

    _button: dict[str, str | None] | None = None

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.forms: list[dict[str, Any]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "form":
            self.forms.append(
                {
                    "action": attributes.get("action", ""),
                    "fields": {},
                    "buttons": {},
                    "method": attributes.get("method", "get"),
                }
            )
        elif tag == "input" and self.forms and "name" in attributes:
            if attributes.get("type") != "checkbox":
                self.forms[-1]["fields"][attributes["name"]] = attributes.get("value") or ""
            elif "checked" in attributes:
                self.forms[-1]["fields"][attributes["name"]] = attributes.get("value") or "on"
        elif tag == "button" and self.forms:
            self._button = attributes

    def handle_data(self, data: str) -> None:
        """Record text."""
        if self._button is not None and data.strip():
            self.forms[-1]["buttons"][" ".join(data.split())] = self._button
            self._button = None
        self.text = " ".join([self.text, *data.split()])

    def links(self) -> list[str]:
        """Return the targets of its links."""
        return [str(attrs["href"]) for tag, attrs in self.elements if tag == "a" and "href" in attrs]


def get_page(gateway: Gateway, path: str, *, status: int = 200, **more: Any) -> ParsedPage:
    """Request a page without an API key and parse it."""
    return _page(gateway("GET", path, key=None, **more), status)


def _page(answer: requests.Response, status: int) -> ParsedPage:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    return ParsedPage(answer.text)


def log_in(gateway: Gateway, key: str, next_path: str = "/") -> requests.Response:
    """Log in with that key and return the response."""
    with new_session() as session:
        return session.post(
            f"{gateway.url}/login", data={"key": key, "next": next_path}, allow_redirects=False, timeout=10
        )


class PageUser:
    """A user with a session; logged in with the key of that name, or with the local token (None)."""

    def __init__(self, gateway: Gateway, key: str | None = None) -> None:
        self.session, self.url = new_session(), gateway.url
        if key is None:
            self.session.get(gateway.link(), timeout=10)
        else:
            self.session.cookies.update(log_in(gateway, KEYS[key][0]).cookies)

    def page(self, path: str, *, status: int = 200) -> ParsedPage:
        """Request a page."""
        return _page(self.session.get(self.url + path, timeout=10), status)

    def post(self, path: str, fields: dict[str, str]) -> requests.Response:
        """Send a form that is on no page."""
        return self.session.post(self.url + path, data=fields, timeout=10)

    def submit(self, page: ParsedPage, button: str, *, status: int = 200, **fields: Any) -> ParsedPage:
        """Fill in the form with this button, press it, and return the resulting page."""
        form = next(form for form in page.forms if button in form["buttons"])
        pressed = form["buttons"][button]
        filled = {
            **form["fields"],
            **({pressed["name"]: pressed.get("value") or ""} if "name" in pressed else {}),
            **fields,
        }
        return _page(self.post(form["action"], filled), status)
