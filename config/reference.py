"""`python -m config.reference`: the tables in docs/configuration.md, made of the settings themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_settings import BaseSettings

from config.flower import FlowerSettings
from config.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

#: The tables stand between them; what is around is written by hand.
BEGIN = "<!-- made by `make docs` of config/settings.py; changes here are lost -->"
END = "<!-- made until here -->"


class Row(NamedTuple):
    """One setting, in Markdown: its name in the environment, its default, what is allowed, what it means."""

    name: str
    default: str
    allowed: str
    meaning: str


#: Each section by the setting that it begins with; it ends where the next one begins.
SECTIONS: Mapping[str, str] = {
    "REDIS_URL": "Redis and MusicAPI",
    "WEB_ADDRESS": "Gateway",
    "VOICEQUEUE_MAX_IN_FLIGHT": "Pace",
    "VOICEQUEUE_REUSE": "Jobs",
    "VOICEQUEUE_POLL_MIN_S": "Polling",
    "VOICEQUEUE_CALLBACK_SECRET": "Callbacks",
    "VOICEQUEUE_ARCHIVE": "Archive",
    "VOICEQUEUE_LOG_FORMAT": "Logs",
    "FLOWER_ADDRESS": "Flower",
    "VOICEQUEUE_AUDIO_MAX_MB": "Preflight",
    "VOICEQUEUE_WAIT_FOR_REDIS_S": "Command line and one machine",
}

#: What is read without these classes: by the command line and the stack on one machine.
ELSEWHERE = (
    Row("VOICEQUEUE_AUDIO_MAX_MB", "200", "number > 0", "the largest recording that passes"),
    Row("VOICEQUEUE_AUDIO_MAX_S", "", "number > 0", "the longest one; MusicAPI names no maximum"),
    Row("VOICEQUEUE_AUDIO_CONNECT_S", "5", "number > 0", "how long it may take to connect"),
    Row("VOICEQUEUE_AUDIO_ANSWER_S", "15", "number > 0", "how long until a recording begins to come"),
    Row("VOICEQUEUE_AUDIO_WHOLE_S", "300", "number > 0", "how long it may take in all"),
    Row("VOICEQUEUE_AUDIO_LEAST_KB_S", "8", "number > 0", "what comes more slowly than so many kB a second"),
    Row("VOICEQUEUE_AUDIO_SLOW_S", "5", "number > 0", "for so many seconds is given up"),
    Row("VOICEQUEUE_AUDIO_AGAIN_S", "1", "number > 0", "how soon trouble that may pass is tried once more"),
    Row("VOICEQUEUE_AUDIO_AT_ONCE", "16", "whole number ≥ 1", "recordings that are fetched at once"),
    Row("VOICEQUEUE_AUDIO_PER_HOST", "4", "whole number ≥ 1", "recordings of one host that are fetched at once"),
    Row(
        "VOICEQUEUE_WAIT_FOR_REDIS_S",
        "0",
        "number ≥ 0",
        "how long each call of the command line keeps trying while Redis is away, restarting or reading its file; "
        "`inf` for ever",
    ),
    Row(
        "VOICEQUEUE_URL",
        "`http://127.0.0.1:8000`",
        "`http://` or `https://` URL",
        "where the [examples](examples/README.md) find the gateway; `. .voicequeue/env` sets it",
    ),
    Row(
        "VOICEQUEUE_KEY",
        "",
        "text",
        "the API key that they send: one of yours, or the local token, to which `. .voicequeue/env` sets it",
    ),
    Row(
        "VOICEQUEUE_HOME",
        "`.voicequeue` in the checkout",
        "folder",
        "where `make up` and `make demo` keep the embedded Valkey's file, the local token and the logs",
    ),
    Row(
        "VOICEQUEUE_DEMO_S",
        "55, with a real account 1800",
        "number > 0",
        "how long `make demo` waits for its jobs",
    ),
)


def rows() -> Iterator[Row]:
    """Every setting, in the order of the page."""
    yield from _of(Settings)
    yield from _of(FlowerSettings)
    yield from ELSEWHERE


def page() -> str:
    """The whole page as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{''.join(_tables())}\n{END}{rest.partition(END)[2]}"


def _tables() -> Iterator[str]:
    for row in rows():
        if title := SECTIONS.get(row.name):
            yield f"\n## {title}\n\n| name | default | allowed | meaning |\n|---|---|---|---|\n"
        yield f"| `{row.name}` | {row.default} | {row.allowed} | {row.meaning} |\n"


def _of(kind: type[BaseSettings]) -> Iterator[Row]:
    """Those of one class. What is allowed is told by the same schema that judges what is given."""
    for name, field in kind.model_json_schema()["properties"].items():
        told = name if name.isupper() else f"{kind.model_config['env_prefix']}{name}".upper()
        yield Row(told, _default(field.get("default")), _allowed(field), field["description"])


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{value:.10g}"
    return f"`{value}`" if value else ""


def _allowed(field: Mapping[str, Any]) -> str:
    """In words: `number > 0`, `whole number from 1 to 500`, `text`, …"""
    if "anyOf" in field:  # or nothing
        return _allowed(field["anyOf"][0])
    match field:
        case {"enum": values}:
            *most, last = [f"`{value}`" for value in values]
            return f"{', '.join(most)} or {last}"
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": "integer", "minimum": least, "maximum": most}:
            return f"whole number from {least} to {most}"
        case {"type": "integer", "minimum": least}:
            return f"whole number ≥ {least}"
        case {"type": "number", "exclusiveMinimum": least, "maximum": most}:
            return f"number > {least}, ≤ {most}"
        case {"type": "number", "exclusiveMinimum": least}:
            return f"number > {least}"
        case {"type": "number", "minimum": least}:
            return f"number ≥ {least}"
        case {"pattern": pattern} if pattern.startswith("^https?://"):
            return "`http://` or `https://` URL"
        case {"pattern": pattern}:
            return f"text matching `{pattern}`"
        case {"format": "path"}:
            return "path"
        case {"type": "string"}:
            return "text"
    raise ValueError(f"nobody has said yet how to tell what is allowed: {field}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
