"""Untrusted text in the output: neither callers nor upstream can control the terminal."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, apply_transition, job_in_state
from tests.support.jobs import voice_with_song
from voicequeue import Clip, Failure, FailureCode, Job, RejectedMessage, Stage, State
from voicequeue.domain import serialization
from voicequeue.storage.job_store import JobStore

#: What a caller, or upstream, might write to take over a terminal, or to look like something else.
HOSTILE = (
    "\x1b]0;owned\x07\x1b[31mred\x9b31m\x85\x7f\u202e\u2066\u200e\u200f\u061c\u2028\u2029\ufeff\U000e0041\r\n"
    "[bold]bold[/bold] [/] [link=x]:fire: \\"
)

#: The same as a person at a terminal sees it: each sign that it would obey by its number.
SHOWN = (
    r"\x1b]0;owned\x07\x1b[31mred\x9b31m\x85\x7f\u202e\u2066\u200e\u200f\u061c\u2028\u2029\ufeff\U000e0041\r\n"
    "[bold]bold[/bold] [/] [link=x]:fire: \\"
)


@pytest.fixture
def hostile(store: JobStore) -> Job:
    """Return a job in which every text tries to control the terminal."""
    job = job_in_state(
        store, State.PENDING, voice_with_song(name=HOSTILE, key=HOSTILE, metadata={HOSTILE: HOSTILE}, batch="b")
    )
    clip = Clip(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    failure = Failure(FailureCode.UPSTREAM_FAILED, Stage.VOICE, HOSTILE)
    store.flow_control.add_hold("cooldown", HOSTILE, NOW)
    store.rejected_messages.add(RejectedMessage(NOW, HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}))
    return apply_transition(
        store,
        job,
        State.FAILED,
        reason=HOSTILE,
        fields={
            "persona_id": HOSTILE,
            "voice_name": HOSTILE,
            "clips": serialization.clips_text((clip,)),
            "failure": serialization.failure_text(failure),
        },
    )


COMMANDS = [
    ["job", "ID"], ["jobs"], ["status"], ["watch", "--batch", "b"], ["export"], ["cancel", "ID"], ["cancel", HOSTILE],
    ["rejects"], ["callbacks"], ["jobs", "--search", HOSTILE],
]  # fmt: skip


@pytest.mark.parametrize("arguments", [*COMMANDS, *([*arguments, "--json"] for arguments in COMMANDS)], ids=" ".join)
def test_untrusted_text_cannot_control_the_terminal(command: Command, hostile: Job, arguments: list[str]) -> None:
    """No escape, control character, change of direction or invisible character, in text and in JSON."""
    ended = command(*(hostile.id if part == "ID" else part for part in arguments))

    shown = (ended.out + ended.err).replace("\r\n", "\n") if arguments[0] == "export" else ended.out + ended.err
    assert [letter for letter in shown if not letter.isprintable() and letter != "\n"] == []


@pytest.mark.parametrize("arguments", [["job", "ID"], ["jobs"], ["status"], ["rejects"]], ids=" ".join)
def test_untrusted_text_is_shown_as_it_was_written(command: Command, hostile: Job, arguments: list[str]) -> None:
    """Markup and emoji names are literal; control characters are shown by their number."""
    out = command(*(hostile.id if part == "ID" else part for part in arguments)).out

    assert SHOWN[:40] in out
    assert "[link=x]:fire:" in out.replace("\n", "")


def test_json_preserves_untrusted_text(command: Command, hostile: Job) -> None:
    """Escaped in the output, and equal after decoding."""
    output = command("job", hostile.id, "--json").json()

    assert output["name"] == HOSTILE
    assert output["metadata"] == {HOSTILE: HOSTILE}
    assert command("export", "--json").json()["failure"]["message"] == HOSTILE
