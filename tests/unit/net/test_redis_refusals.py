"""What Redis refuses for now, and what it refuses for good."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    ExecAbortError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from voicequeue.storage.connection import UNREACHABLE
from voicequeue.storage.redis_refusals import CURES, RedisRefusalError, redis_refusal

OOM = "command not allowed when used memory > 'maxmemory'"
READ_ONLY = "You can't write against a read only replica"
FEW = "NOREPLICAS Not enough good replicas to write"
IN_A_PIPELINE = "Command # 2 (HSET secret) of pipeline caused error: "
IN_A_SCRIPT = " script: 7f2a8f5c0c4f2f6f0e4f8f5c0c4f2f6f0e4f8f5c, on @user_script:464."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfMemoryError(f"{OOM}."), f"OOM {OOM}"),
        (OutOfMemoryError(f"{OOM}.{IN_A_SCRIPT}"), f"OOM {OOM}"),
        (OutOfMemoryError(f"{IN_A_PIPELINE}{OOM}."), f"OOM {OOM}"),
        (ReadOnlyError(f"{READ_ONLY}."), f"READONLY {READ_ONLY}"),
        (ResponseError(f"{FEW}."), FEW),
        (ResponseError(f"{IN_A_PIPELINE}{FEW}."), FEW),
        (ResponseError(f"{FEW}. script: on @user_script:220."), FEW),
        (ResponseError("UNBLOCKED force unblock, state changed"), "UNBLOCKED force unblock, state changed"),
        (ResponseError("MISCONF Errors writing to the AOF file: full"), "MISCONF Errors writing to the AOF file: full"),
        (ResponseError("BUSY Redis is busy running a script."), "BUSY Redis is busy running a script"),
        (ResponseError(f"Error running script (call to f_7): @user_script: 220: -OOM {OOM}."), f"OOM {OOM}"),
        (ExecAbortError(f"Transaction discarded because of: {FEW}."), FEW),
    ],
)
def test_a_refusal_is_known_however_redis_words_it(error: ResponseError, words: str) -> None:
    """As an answer, from a script of Redis 6 or 7, in a pipeline, from EXEC. The text quotes no command."""
    refused = redis_refusal(error)

    assert isinstance(refused, UNREACHABLE)
    assert str(refused) == words
    assert refused.cure


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        ResponseError("unknown command 'OOM', with args beginning with: 'READONLY' "),
        ResponseError("BUSYGROUP Consumer Group name already exists"),
        ResponseError("DB index is out of range"),
        ResponseError("user_script:3: Script attempted to access a non local key"),
        NoScriptError("No matching script. Please use EVAL."),
        NoPermissionError("User default has no permissions to run the 'set' command"),
        ExecAbortError("Transaction discarded because of previous errors."),
    ],
)
def test_what_waiting_does_not_mend_is_no_refusal(error: ResponseError) -> None:
    """It is told at once."""
    assert redis_refusal(error) is None


@pytest.mark.parametrize("code", CURES)
def test_each_refusal_has_a_cure(code: str) -> None:
    """For the message that an operator reads."""
    assert RedisRefusalError(f"{code} whatever it says").cure == CURES[code]
