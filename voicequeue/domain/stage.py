"""Stages of a job and their prices."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Stage(StrEnum):
    """A stage that upstream is paid for: first the voice, then the song."""

    VOICE = "voice"
    MUSIC = "music"


#: Credits that upstream charges for one POST of a stage.
PRICES: Mapping[Stage, int] = {Stage.VOICE: 4, Stage.MUSIC: 15}
