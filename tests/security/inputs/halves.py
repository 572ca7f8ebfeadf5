"""Texts with half a character, and where the API takes texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.web.conftest import Gateway, app_of

HALF = "cut \ud83d"
MENDED = "cut \ufffd"
SAID = "contains half a character (U+D83D)"
URL = "https://recordings.example/a.wav"

#: The bytes of half a character, as a query or a path would write them.
IN_A_URL = "%ED%A0%BD"


class Described:
    """What the API says of itself: where texts enter."""

    def __init__(self, gateway: Gateway) -> None:
        self._api: dict[str, Any] = app_of(gateway).openapi()

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each method with its path and description; following has no end."""
        for path, methods in self._api["paths"].items():
            yield from ((method.upper(), path, found) for method, found in methods.items())

    def texts(self, schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
        """The places in a value of that schema where it takes a text, those in lists and free names included."""
        if "$ref" in schema:
            schema = self._api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            yield from self.texts(choice, path)
        if schema.get("type") == "string":
            yield path
        for name, inner in schema.get("properties", {}).items():
            yield from self.texts(inner, (*path, name))
        if isinstance(schema.get("additionalProperties"), dict):
            yield from self.texts(schema["additionalProperties"], (*path, "free"))
            yield (*path, HALF)
        if "items" in schema:
            yield from self.texts(schema["items"], (*path, 0))

    def parameters(self, operation: dict[str, Any], where: str) -> list[str]:
        """The parameters there that take a text."""
        found = (each for each in operation.get("parameters", ()) if each["in"] == where)
        return [each["name"] for each in found if list(self.texts(each["schema"]))]
