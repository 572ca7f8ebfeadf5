"""Reproducible random values: each depends on the seed and its purpose, not on the order in which calls arrive."""

import math
import secrets
from collections.abc import Sequence
from hashlib import blake2b
from statistics import NormalDist
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")

_NORMAL = NormalDist()


def derived_uuid(*what: object) -> str:
    """Return the UUID of these words; the same words always give the same UUID."""
    return str(UUID(bytes=blake2b(_joined(what), digest_size=16).digest(), version=4))


class Chance:
    """A source of random values. Two sources with the same seed give the same values; without a seed they differ."""

    def __init__(self, seed: int | None) -> None:
        origin = secrets.token_hex() if seed is None else seed
        self._origin = blake2b(_joined((origin, "")), digest_size=16)

    def fraction(self, *what: object) -> float:
        """Return a number, uniform in the open interval 0..1."""
        # 52 bits and a half step: neither end can occur, and the float is exact.
        bits = int.from_bytes(self._digest(what)[:8]) >> 12
        return (bits + 0.5) / 2**52

    def uuid(self, *what: object) -> str:
        """Return a version 4 UUID."""
        return str(UUID(bytes=self._digest(what), version=4))

    def pick(self, options: Sequence[T], *what: object) -> T:
        """Return one of the options with equal probability."""
        return options[int(self.fraction(*what) * len(options))]

    def spread(self, median: float, sigma: float, *what: object) -> float:
        """Return a log-normal value with this median; sigma 0 gives the median itself."""
        if not sigma:
            return median
        return median * math.exp(sigma * _NORMAL.inv_cdf(self.fraction(*what)))

    def _digest(self, what: tuple[object, ...]) -> bytes:
        state = self._origin.copy()
        state.update(_joined(what))
        return state.digest()


def _joined(what: tuple[object, ...]) -> bytes:
    # A path may contain bytes that are not text.
    return "\x1f".join(map(str, what)).encode(errors="surrogatepass")
