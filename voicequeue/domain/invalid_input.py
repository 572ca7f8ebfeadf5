"""Invalid fields of a job, in our words: what pydantic reports, without its terms and without texts of the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from voicequeue.errors import JOB_FIELDS, PROBLEMS_MAX, SONG_FIELDS, InvalidJobError, Problem, unencodable_fields

#: Larger numbers are not quoted.
_QUOTED_BELOW = 10**15

#: Characters of an unknown name that are compared with the known ones.
_NAME_MAX = 40

#: What values of other types are called, in the words of JSON.
_CONSTANTS = {None: "null", True: "true", False: "false"}
_NAMES: tuple[tuple[type, str], ...] = ((str, "text"), (Mapping, "an object"), (list, "a list"), (tuple, "a list"))

#: A message of a check of the whole job may begin with the field that it concerns.
_FIELD_PREFIX = re.compile(r"([a-z][a-z0-9_]*): ")

#: What a value of a type must be, by pydantic's name of the error.
_KINDS = {
    **dict.fromkeys(("string_type", "string_sub_type"), "text"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("dict_type", "mapping_type"), "an object of names and values"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "finite_number": "a finite number",
}

#: What a number must be compared with its limit, by pydantic's name of the error.
_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}

_PATTERNS = {"^[0-9a-f]{64}$": "64 hexadecimal digits in lower case"}

#: Pydantic's words at the beginning of a message that has no case of its own.
_PYDANTIC_WORDS = re.compile(r"^(?:Input|Value|String|List|Dictionary)(?: \w+)? should ")


class ValidatedInput(BaseModel):
    """A model of the caller's input: its constructor raises InvalidJobError, which names each invalid field."""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise invalid_job(error, fields) from None

    # Pydantic then validates a nested model without calling this, as it does for a class without an `__init__`.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Return the model of an object. Raises InvalidJobError."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise invalid_job(error, obj) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Return the model of a JSON text. Raises InvalidJobError."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            raise invalid_job(error) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, which are validated. Raises InvalidJobError."""
        if not update:
            return super().model_copy(deep=deep)
        fields = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**fields, **update}).model_copy(deep=deep)

    def copy_unchecked(self, **update: Any) -> Self:
        """Return a copy with other values that need no validation, such as those of another valid job."""
        return super().model_copy(update=update)


def invalid_job(error: ValidationError, value: Any = None) -> InvalidJobError:
    """Return the error with pydantic's problems in our words; only the first if there are very many.

    `value` is the input, in which texts with half a character are located.
    """
    halves = unencodable_fields(value)
    details = error.errors(include_url=False)
    others = [detail for detail in details if not (halves and detail["type"] == "string_unicode")]
    names = _names_of(error.title)
    problems = [
        *halves,
        *(_problem(detail["loc"], describe_problem(detail, names)) for detail in others[:PROBLEMS_MAX]),
    ]
    if (more := len(others) - PROBLEMS_MAX) > 0:
        problems.append(Problem("", f"{more:,} more fields are wrong"))
    return InvalidJobError(problems)


def _names_of(model: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the fields of an input, and of the songs in it."""
    if model == "Song":
        return SONG_FIELDS, frozenset()
    return (JOB_FIELDS, SONG_FIELDS) if model == "VoiceJob" else _NO_NAMES


_NO_NAMES = (frozenset[str](), frozenset[str]())


def _problem(location: tuple[int | str, ...], message: str) -> Problem:
    field = ".".join(map(str, location))
    if not field and (match := _FIELD_PREFIX.match(message)):
        field, message = match[1], message.removeprefix(match[0])
    return Problem(field, message)


def describe_problem(detail: Mapping[str, Any], names: tuple[frozenset[str], frozenset[str]] = _NO_NAMES) -> str:
    """Return what is wrong, given an item of pydantic's `errors()`.

    `names` are those of the fields, and of the fields inside them, with which an unknown one is compared.
    """
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {_described(value)}"
    if kind in _LIMITS:
        word, limit = _LIMITS[kind]
        return f"must be {word} {context[limit]:,g}, not {_described(value)}"
    match kind:
        case "extra_forbidden":
            *parents, name = detail["loc"]
            return f"is not known here{_suggestion(str(name), names[1 if parents else 0])}"
        case "string_too_long":
            return f"has {len(value):,} characters; at most {context['max_length']:,} are allowed"
        case "string_too_short":
            return "must not be empty"
        case "too_long":
            return f"has {len(value):,} entries; at most {context['max_length']:,} are allowed"
        case "enum" | "literal_error":
            return f"must be {context['expected']}"
        case "string_pattern_mismatch":
            return f"must be {_PATTERNS.get(context['pattern'], 'of the form ' + context['pattern'])}"
        case "model_type" | "model_attributes_type":
            return f"must be a {context.get('class_name', 'model')} or an object of its fields, not {_described(value)}"
        case "invalid_key":
            return "the name of a field must be text"
        case "missing":
            return "is required"
        case "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
    return _PYDANTIC_WORDS.sub("must ", str(detail["msg"]))


def _described(value: Any) -> str:
    """Return a number as it is, and the kind of any other value: a text may be a secret."""
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int | float):
        return "a number so large" if abs(value) >= _QUOTED_BELOW else repr(value)
    kind = next((name for kind, name in _NAMES if isinstance(value, kind)), None)
    return kind or f"a value of the type {type(value).__name__}"


def _suggestion(name: str, names: frozenset[str]) -> str:
    """Return the field whose name an unknown name resembles, as the end of a sentence."""
    close = get_close_matches(name[:_NAME_MAX], sorted(names), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""
