"""Namespaces: each owns its jobs, batches, keys, voices and callbacks, and neither sees nor changes those of another.

A name in a namespace is `NAMESPACE/NAME` in Redis; in the default namespace, '', it is the name alone. The `batch` of a
job without a batch is `NAMESPACE/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The scope of operators: all namespaces.
ALL = "*"

#: The namespace of callers that name none.
DEFAULT = ""

NAMESPACE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"

_NAMESPACE = re.compile(NAMESPACE_PATTERN)


def namespace_name(text: str) -> str:
    """Return `text` if it is the name of a namespace; '' is the default one. Raises ValueError."""
    if text and not _NAMESPACE.fullmatch(text):
        raise ValueError(
            f"{text[:60]!r} must be 1 to 40 characters (A-Z, a-z, digits, '.', '_', '-') that begin with a "
            "letter or digit"
        )
    return text


def qualify(namespace: str, name: str) -> str:
    """Return a name in a namespace, as it is in Redis."""
    return f"{namespace}/{name}" if namespace else name


def split(qualified: str) -> tuple[str, str]:
    """Return the namespace and the name in it."""
    namespace, separator, name = qualified.partition("/")
    return (namespace, name) if separator else (DEFAULT, qualified)


def namespace_of(qualified: str | None) -> str:
    """Return the namespace of a name in Redis; None is that of a job without a batch."""
    return split(qualified or "")[0]


def named_in(scope: str, name: str) -> tuple[str, str]:
    """Return the namespace and the name of what a caller in the scope calls `name`; '' names nothing but the scope."""
    return split(name) if name and (scope == ALL or name.startswith(f"{scope}/")) else (scope, name)


def index_of(name: str, namespace: str) -> str:
    """Return the name of the index that a namespace has of its own, as scripts/lib/keys.lua does."""
    return f"{name}/{namespace}" if namespace else name


@dataclass(frozen=True, slots=True)
class Scope:
    """The namespaces that a caller may see and change: one, or all of them.

    Attributes:
        namespace: Name of the namespace; `*` for all.
    """

    namespace: str = ALL

    def __post_init__(self) -> None:
        if self.namespace != ALL:
            namespace_name(self.namespace)

    @property
    def is_all(self) -> bool:
        """True for the scope of operators."""
        return self.namespace == ALL

    @property
    def target(self) -> str:
        """The namespace of new jobs."""
        return DEFAULT if self.is_all else self.namespace

    def contains(self, qualified: str | None) -> bool:
        """Return whether a name in Redis (None: of a job without a batch) is in this scope."""
        return self.is_all or namespace_of(qualified) == self.namespace

    def qualify(self, name: str) -> str:
        """Return the name in Redis of what the caller calls `name`; it may be qualified already.

        A caller in one namespace cannot name what belongs to another: no name in Redis has two slashes.
        """
        if self.is_all or (self.namespace and name.startswith(f"{self.namespace}/")):
            return name
        return f"{self.namespace}/{name}" if self.namespace or "/" in name else name
