"""The check of the queue's format."""

from __future__ import annotations

from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.domain.store_format import CURRENT, StoreFormat, misfit


def check(stored: StoreFormat, release: StoreFormat = CURRENT) -> CheckResult:
    """Compare the format of the queue with that of this release."""
    if problem := misfit(stored, release):
        return CheckResult("format", Level.ERROR, problem, "docs/guides/upgrading.md")
    if stored.version < release.version:
        what = f"the queue has format {stored}, and this release writes format {release} after an upgrade"
        return CheckResult("format", Level.NOTE, what, "when all processes have this release: voicequeue upgrade")
    return passed("format", f"the queue has format {stored}")
