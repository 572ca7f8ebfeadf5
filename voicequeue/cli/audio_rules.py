"""The preflight rules of the command line."""

from __future__ import annotations

import os

from voicequeue.cli.terminal import CannotBegin
from voicequeue.ingest.audio_settings import rules_from
from voicequeue.ingest.preflight import Rules


def audio_rules() -> Rules:
    """Return the rules that the environment sets. Raises CannotBegin, which names the setting."""
    try:
        return rules_from(os.environ)
    except ValueError as error:
        raise CannotBegin(str(error)) from None
