"""Schemas of requests, from what pydantic says of its models, for generators of clients.

A field with a default may be left out: generators take `default` as a promise that the field is there, so it is said in
the description. In a query nothing is null.
"""

from __future__ import annotations

from typing import Any

#: Bounds that pydantic names by its own words where a field takes several types.
_KEYWORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}

Node = dict[str, Any]


def complete_request(schema: Node) -> None:
    """Correct the schema of a request body in place."""
    rename_bounds(schema)
    for field in schema.get("properties", {}).values():
        default = field.pop("default", None)
        if default not in (None, "", []):
            text = str(default).lower() if isinstance(default, bool) else default
            field["description"] = f"{field.get('description', '').rstrip('.')}. Default: `{text}`.".removeprefix(". ")


def complete_parameter(parameter: Node) -> None:
    """Correct a parameter in place: it is left out or has a value, and is never null."""
    schema = parameter["schema"]
    schema.pop("title", None)
    schema.pop("description", None)  # the parameter has it
    if schema.get("default", "") is None:
        del schema["default"]
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        del schema["anyOf"]
        schema |= options[0]


def remove_titles(schema: Node) -> None:
    """Remove the titles of fields, which repeat their names."""
    for field in schema.get("properties", {}).values():
        field.pop("title", None)


def rename_bounds(node: Any) -> None:
    """Replace pydantic's words for bounds by those of JSON Schema, at any depth."""
    if isinstance(node, list):
        for item in node:
            rename_bounds(item)
    elif isinstance(node, dict):
        if node.get("type") in ("integer", "number"):
            for word in _KEYWORDS.keys() & node.keys():
                node[_KEYWORDS[word]] = node.pop(word)
        for value in list(node.values()):
            rename_bounds(value)
