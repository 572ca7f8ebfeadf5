"""Filters that may hold a token: Bloom filters, by which a search passes over jobs that it cannot find. Pure.

A filter answers "certainly not" or "perhaps". It is a text of ASCII, with seven bits in each byte, so that every
program can read and copy it. scripts/lib/paging.lua reads the bits in Redis.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from hashlib import blake2b

#: Bits of a filter for each token, and those that each token sets: of 20,000 others, one is taken for one of them.
BITS_PER_TOKEN, HASHES = 24, 8

#: A filter that may hold any token.
ANYTHING = "\x7f"

#: Bits of each byte, of which the highest is 0.
_BITS_OF_BYTE = 7

_DIGEST_SIZE = 4 * HASHES
_FORMAT = struct.Struct(f"<{HASHES}I")


def hashes(token: str) -> tuple[int, ...]:
    """Return the numbers that give the places of the token's bits: each modulo the number of bits of a filter."""
    return _FORMAT.unpack(_digest(token))


def build(tokens: Collection[str], bytes_max: int) -> str:
    """Return the filter of these tokens. If they need more bytes than the maximum, it is right less often."""
    length = min(max(1, bytes_max), 1 + len(tokens) * BITS_PER_TOKEN // _BITS_OF_BYTE)
    size = length * _BITS_OF_BYTE
    flags = bytearray(size)
    digests = b"".join(map(_digest, tokens))
    for number in struct.unpack(f"<{len(digests) // 4}I", digests):
        flags[number % size] = 1
    # Each flag is a byte of 0 or 1: shifted by less than eight bits, none reaches the next byte.
    places = (
        int.from_bytes(flags[place::_BITS_OF_BYTE]) << (_BITS_OF_BYTE - 1 - place) for place in range(_BITS_OF_BYTE)
    )
    return sum(places).to_bytes(length).decode("ascii")


def holds(text: str, tokens: Iterable[str]) -> bool:
    """Return whether a filter may hold all of these tokens."""
    size = len(text) * _BITS_OF_BYTE
    places = (divmod(number % size, _BITS_OF_BYTE) for token in tokens for number in hashes(token))
    return all(ord(text[byte]) >> (_BITS_OF_BYTE - 1 - bit) & 1 for byte, bit in places)


def _digest(token: str) -> bytes:
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).digest()
