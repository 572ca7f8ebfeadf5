"""The validation of orders: the contract's rules for their fields, and moderation."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from simulator.contract.orders import Body, Order

#: The models with short text limits; all other `sonic-…` models have long ones.
OLD_MODELS = frozenset({"sonic-v3-5", "sonic-v4"})
MODELS = ("sonic-v3-5", "sonic-v4", "sonic-v4-5", "sonic-v4-5-plus", "sonic-v5")

#: The texts of moderation, by field.
_OBJECTIONS = {
    "prompt": "The lyrics contain copyrighted content: {}.",
    "gpt_description_prompt": "The song description contains inappropriate content: {}.",
    "title": "The title contains inappropriate content: {}.",
    "tags": "The tags contain inappropriate content: {}.",
    "audio_url": "The audio contains inappropriate content: {}.",
}


def contract_violation(order: Order) -> str | None:
    """Return the error text of the first violation of the contract, None without one."""
    rules = (_audio_url,) if order.kind == "voice" else _MUSIC_RULES
    return next((text for rule in rules for text in rule(order.body)), None)


def moderation_refusal(order: Order, match: str | None) -> str | None:
    """Return moderation's text if the order contains the match, None otherwise."""
    name = order.mentions(match)
    return name and _OBJECTIONS[name].format(match)


def _audio_url(body: Body) -> Iterator[str]:
    url = body.get("audio_url")
    if not url:
        yield "The 'audio_url' field is required."
    elif not isinstance(url, str) or not _is_web_url(url):
        yield "The 'audio_url' field is invalid. It must be a publicly reachable http or https URL."


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _task_type(body: Body) -> Iterator[str]:
    if body.get("task_type") != "persona_music":
        yield "The 'task_type' field is invalid. It must be one of: persona_music."


def _model(body: Body) -> Iterator[str]:
    model = body.get("mv")
    if not isinstance(model, str) or not model.startswith("sonic-"):
        yield f"The 'mv' field is invalid. It must be one of: {', '.join(MODELS)}."


def _persona(body: Body) -> Iterator[str]:
    persona = body.get("persona_id")
    if not isinstance(persona, str) or not persona:
        yield "The 'persona_id' field is required for persona_music."


def _custom_mode(body: Body) -> Iterator[str]:
    if not isinstance(body.get("custom_mode"), bool):
        yield "The 'custom_mode' field is required and must be a boolean."


def _words(body: Body) -> Iterator[str]:
    if not body["custom_mode"]:
        if not body.get("gpt_description_prompt"):
            yield "The 'gpt_description_prompt' field is required when custom_mode is false."
    elif not (body.get("prompt") or body.get("make_instrumental") or body.get("auto_lyrics")):
        yield "The 'prompt' field is required when custom_mode is true."


def _lengths(body: Body) -> Iterator[str]:
    old = body["mv"] in OLD_MODELS
    limits = {
        "prompt": 3000 if old else 5000,
        "gpt_description_prompt": 400,
        "title": 80,
        "tags": 200 if old else 1000,
    }
    for name, limit in limits.items():
        value = body.get(name) or ""
        if not isinstance(value, str):
            yield f"The '{name}' field is invalid. It must be a string."
        elif len(value) > limit:
            yield f"The {name} character length should be less than {limit}."


def _weights(body: Body) -> Iterator[str]:
    for name in ("style_weight", "weirdness_constraint", "audio_weight"):
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            yield f"The '{name}' field is invalid. It must be a number between 0 and 1."


def _vocal_gender(body: Body) -> Iterator[str]:
    if body.get("vocal_gender") not in (None, "f", "m"):
        yield "The 'vocal_gender' field is invalid. It must be one of: f, m."


# In the order in which they are reported; later rules rely on earlier ones.
_MUSIC_RULES: tuple[Callable[[Body], Iterator[str]], ...] = (
    _task_type,
    _model,
    _persona,
    _custom_mode,
    _words,
    _lengths,
    _weights,
    _vocal_gender,
)
