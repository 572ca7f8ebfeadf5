"""Texts with half a character, and the places where the API accepts texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.web.conftest import Gateway, app_of

HALF = "cut \ud83d"
MENDED = "cut \ufffd"
HALF_ERROR = "contains half a character (U+D83D)"
URL = "https://recordings.example/a.wav"

#: The bytes of half a character in a query or a path.
IN_A_URL = "%ED%A0%BD"


class Described:
    """The places where texts enter, as the API's description lists them."""

    def __init__(self, gateway: Gateway) -> None:
        self._api: dict[str, Any] = app_of(gateway).openapi()

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield each method with its path and description."""
        for path, methods in self._api["paths"].items():
            yield from ((method.upper(), path, operation) for method, operation in methods.items())

    def texts(self, schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
        """Yield the paths in a value of this schema that accept a text, also in lists and free-form names."""
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
        """Return the parameters in this location that accept a text."""
        located = (parameter for parameter in operation.get("parameters", ()) if parameter["in"] == where)
        return [parameter["name"] for parameter in located if list(self.texts(parameter["schema"]))]
