"""`upgrade`: raise the format of the queue to that of this release."""

from __future__ import annotations

from voicequeue.cli.terminal import AsJson, Reason, open_queue, out, print_json
from voicequeue.domain.store_format import CURRENT


def upgrade(reason: Reason = "", as_json: AsJson = False) -> None:
    """Raise the format of the queue to that of this release, after all processes have been upgraded.

    Older releases may refuse to use the queue afterwards. Refused while a process that does not know the format is
    running.
    """
    with open_queue(reason=reason) as jobs:
        changed = jobs.upgrade()
    if as_json:
        print_json({"changed": changed})
    else:
        out.print(f"the queue {'now has' if changed else 'has'} format {CURRENT}")
