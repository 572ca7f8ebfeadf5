"""Lists of limited length: `--limit`, `--all`, and a note about what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Generic, TypeVar

import typer

from voicequeue.cli.terminal import flag, option, print_note
from voicequeue.texts import pluralize

T = TypeVar("T")

#: The length of a list without `--limit`.
LIMIT_DEFAULT = 50

Limit = Annotated[int | None, option("N", min=1, help=f"List at most N. Default: {LIMIT_DEFAULT}.")]
All = Annotated[bool, flag("--all", help="List all, however many.")]


def limit_of(limit: int | None, *, is_all: bool) -> int | None:
    """Return how many items are listed; None for all. Raises BadParameter."""
    if limit is not None and is_all:
        raise typer.BadParameter("--limit and --all cannot be combined")
    return None if is_all else limit or LIMIT_DEFAULT


class Listing(Generic[T]):
    """The first items of an iterable. Afterwards `note_rest` prints whether there are more."""

    def __init__(self, items: Iterable[T], limit: int | None) -> None:
        self._items = items
        self._limit = limit
        self.count = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            if self.count == self._limit:
                self.is_cut = True
                return
            self.count += 1
            yield item

    def note_rest(self, noun: str, total: Callable[[], int | None] = lambda: None, *, plural: str = "") -> None:
        """Print that items were left out, if so; of how many, if `total` knows. Reads nothing otherwise."""
        if not self.is_cut:
            return
        count = total()
        of_all = f"the first {pluralize(self.count, noun, plural)}, and there are more"
        if count is not None and count > self.count:
            of_all = f"{self.count:,} of {pluralize(count, noun, plural)}"
        print_note(f"{of_all} (--limit N, --all)")
