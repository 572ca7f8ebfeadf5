"""Rows whose URLs cannot be right, found before anything is requested or enqueued."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from voicequeue.cli.ingest.intake import PREFLIGHT_CHUNK, Item, ItemWarning, item_weight
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.portions import split_into_portions
from voicequeue.errors import InvalidAudioError
from voicequeue.ingest.links import LinkChecker
from voicequeue.ingest.preflight import ALLOWED_HOSTS_SETTING
from voicequeue.net.address_policy import AddressPolicy


def check_links(items: Iterator[Item], jobs: VoiceQueue) -> Iterator[Item]:
    """Yield the items after their URLs were checked: some are rejected, others have a warning.

    No row is rejected whose job exists: it may be finished, and its link have expired since.
    """
    for is_rejected, group in groupby(_marked(items, _checker()), _is_rejected):
        if is_rejected:
            for chunk in split_into_portions(group, item_weight, jobs=PREFLIGHT_CHUNK):
                yield from _without_known(chunk, jobs)
        else:
            yield from group


def _checker() -> LinkChecker:
    allowed = os.environ.get(ALLOWED_HOSTS_SETTING) or ""
    return LinkChecker(AddressPolicy.parse(allowed, setting=ALLOWED_HOSTS_SETTING), time.time)


def _marked(items: Iterator[Item], checker: LinkChecker) -> Iterator[Item]:
    """Yield the items with their findings. One that is certain is an error beside the job."""
    check = checker.check
    for item in items:
        url = item.audio_url
        finding = None if url is None else check(url)
        if finding is None:
            yield item
        elif finding.is_certain:
            yield replace(item, error=InvalidAudioError(finding.kind, finding.sentence))
        else:
            yield replace(item, warnings=(*item.warnings, ItemWarning(finding.kind, finding.sentence)))


def _is_rejected(item: Item) -> bool:
    return item.job is not None and item.error is not None


def _without_known(items: list[Item], jobs: VoiceQueue) -> Iterator[Item]:
    """Yield the items without their errors if their jobs exist, otherwise without their jobs."""
    previews = jobs.preview([item.job for item in items if item.job])
    for item, preview in zip(items, previews, strict=True):
        yield replace(item, job=None) if preview.is_new else replace(item, error=None)
