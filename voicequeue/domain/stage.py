"""The stages that upstream is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Stage(StrEnum):
    """What upstream is paid for: first the voice, then the song."""

    VOICE = "voice"
    MUSIC = "music"


#: Credits that one POST of a stage costs.
PRICES: Mapping[Stage, int] = {Stage.VOICE: 4, Stage.MUSIC: 15}
