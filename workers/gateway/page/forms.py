"""Forms that were refused: their page is shown again with what was entered, and each error beside its field. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from voicequeue import InvalidJobError, Problem

T = TypeVar("T")

#: The text above a form with errors beside its fields.
CORRECT = "Nothing was changed. Correct the marked fields."


@dataclass(frozen=True)
class FormState:
    """A form of a page: what was entered, and what is wrong, by field ('' for the whole form).

    A form that was not sent has neither, and shows the values that its page gives.
    """

    name: str
    entered: Mapping[str, str] | None = None
    errors: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str, value: object = "") -> object:
        """Return what was entered in a field; `value` if the form was not sent."""
        return value if self.entered is None else self.entered.get(name, "")

    def has(self, name: str, *, is_set: bool = False) -> bool:
        """Return whether a checkbox is checked; `is_set` if the form was not sent."""
        return is_set if self.entered is None else name in self.entered

    def error(self, name: str) -> str:
        """Return what is wrong with a field; '' if nothing is."""
        return self.errors.get(name, "")

    @cached_property
    def first_error(self) -> str:
        """The first field with an error, which gets the focus; '' if there is none."""
        return next(filter(None, self.errors), "")

    @property
    def summary(self) -> str:
        """The text above the form: what concerns no single field."""
        return self.errors.get("") or (CORRECT if self.errors else "")

    def error_id(self, name: str) -> str:
        """Return the id of the element with the error of a field."""
        return f"{self.name}-{name}-error"


def refused(name: str, entered: Mapping[str, str], error: InvalidJobError, fields: Mapping[str, str]) -> FormState:
    """Return a form that was refused. `fields` are its fields by the names of the API; other errors are of the whole
    form."""
    errors: dict[str, str] = {}
    for problem in error.problems:
        own = fields.get(problem.field)
        text = problem.message if own is not None or not problem.field else f"{problem.field}: {problem.message}"
        errors[own or ""] = "; ".join(filter(None, [errors.get(own or ""), text]))
    return FormState(name, entered, errors)


def read_fields(readers: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Return the value of each field. Raises InvalidJobError with the problems of all fields."""
    values: dict[str, T] = {}
    problems: list[Problem] = []
    for name, read in readers.items():
        try:
            values[name] = read()
        except InvalidJobError as error:
            problems += error.problems
    if problems:
        raise InvalidJobError(problems)
    return values


#: Prefix of the names of checkboxes that select rows of a list.
_SELECT = "select-"


def selection(form: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that select the same rows again; empty if the form selects by a filter."""
    return {name: value for name, value in form.items() if name == "selected" or name.startswith(_SELECT)}


def selected(form: Mapping[str, str]) -> list[str]:
    """Return the ids of the rows that were selected."""
    return [name.removeprefix(_SELECT) for name in form if name.startswith(_SELECT)]
