"""Random sequences of losses, recoveries, pauses, lower limits, cancellations and retries never exceed a limit."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.flow.limits_walk import FLOOR, Life
from tests.store.life import assert_consistent
from voicequeue.domain.gate import Limits
from voicequeue.storage import scripts
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.scripts import assembly

#: Two walks, and five in `make endurance`.
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.endurance) for seed in range(2, 5))]
STEPS = 300

#: Mistakes in the scripts: what is replaced, by what, and an owner whose limit is then exceeded.
MISTAKES = {
    "unsure orders are not counted": ("state == 'charging' or state == 'unsure'", "state == 'charging'", "account"),
    "lost orders are not counted": (
        "add_to_owners(job, 'reserved', credits)",
        "add_to_owners(job, 'reserved', 0)",
        "batch/shop/spring",
    ),
    "lost orders of the account are not counted": ("n(9) + n(10) - n(11)", "n(9)", "account"),
    "the day is not limited": ("{ 'day', 'budget_day', \"today's budget of %s is reached\" },", "", "namespace/"),
    "the month is not limited": (
        "{ 'month', 'budget_month', \"this month's budget of %s is reached\" },",
        "",
        "key/app",
    ),
    "batches are not limited": (
        "{ 'credits', 'batch_credits', 'the credit limit of %s is reached' },",
        "",
        "batch/shop/spring",
    ),
    "nothing is checked before an order": (
        "local hold = limit_holds(job, 0, 0, now)[1]",
        "local hold = nil",
        "account",
    ),
    "API keys are not limited": (
        "local name = api_key_of(source)\n  return name",
        "local name = nil\n  return name",
        "key/app",
    ),
    "jobs in flight are not counted": ("add_to_counter(counters, 'in_flight', slots * number)", "", "namespace/shop"),
    "orders count for the day before": ("'[' .. day_of(now) .. ','", "'[' .. day_of(now) - 1 .. ','", "account"),
    "orders count for the day of their report": (
        """submissions:match('"' .. attempt .. '":(%b[])')""",
        "'[' .. day_of(now) .. ',0]'",
        "account",
    ),
}


def walk(redis: Redis, prefix: str, seed: int, *, limited: tuple[str, ...] = ()) -> Life:
    """Take a walk, and return it if all limits held."""
    limits = Limits(in_flight=30, initial_in_flight=30, min_balance=FLOOR)
    life = Life(JobStore(redis, prefix, limits=limits), seed, limited)
    for _ in range(STEPS):
        life.step()
    life.counters_agree(redis, prefix)
    return life


@pytest.mark.parametrize("seed", SEEDS)
def test_spending_never_exceeds_its_limits(redis: Redis, prefix: str, seed: int) -> None:
    """What upstream may have charged by owner, day and month never exceeds its limit, and the counters agree."""
    life = walk(redis, prefix, seed)
    assert life.charges > 5
    assert_consistent(redis, prefix)


@pytest.mark.endurance
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_walk_notices_a_mistake(redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    """A limit that one part of the scripts forgets is exceeded within a few walks."""
    right, wrong, owner = MISTAKES[mistake]
    assert sum(right in assembly.text_of(f"lib/{part}") for part in assembly.PARTS) == 1
    text_of = assembly.text_of.__wrapped__
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "text_of", lambda name: text_of(name).replace(right, wrong))
        scripts.load.cache_clear()
        walks = (walk(redis, f"{prefix}-{seed}", seed, limited=(owner,)) for seed in range(12))
        with pytest.raises(AssertionError):
            list(walks)
    scripts.load.cache_clear()
