"""The price of a job in words."""

from __future__ import annotations

from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.texts import pluralize


def describe_cost(spec: VoiceJob, credits: int) -> str:
    """Return the price of a new job with the stages that it pays for. A job that shares a voice pays for none."""
    is_shared = credits < spec.credits
    stages = [stage for stage, is_paid in _stages(spec, is_shared=is_shared) if is_paid]
    parts = ", ".join(f"{stage} {PRICES[stage]}" for stage in stages)
    shared = "the voice is shared" if is_shared else ""
    details = "; ".join(filter(None, (parts, shared)))
    return f"{pluralize(credits, 'credit')}{f' ({details})' if details else ''}"


def _stages(spec: VoiceJob, *, is_shared: bool) -> tuple[tuple[Stage, bool], ...]:
    return ((Stage.VOICE, spec.audio_url is not None and not is_shared), (Stage.MUSIC, spec.song is not None))
