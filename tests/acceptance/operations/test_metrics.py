"""The numbers at /metrics, beside the records and the simulator's ledger, after a run in which much went wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, expect
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests.acceptance.conftest import LYRICS, SECRET, Build, House
from tests.conftest import eventually
from voicequeue import Job, Song, State, VoiceJob, VoiceQueue

Numbers = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """Two workers and the gateway. What failed is soon no longer asked about."""
    times = {"VOICEQUEUE_VOICE_DEADLINE_S": "4", "VOICEQUEUE_LATE_S": "1"}
    return build_for_all(workers=2, web=True, VOICEQUEUE_MAX_IN_FLIGHT="12", **times)


def scraped(house: House) -> tuple[str, Numbers]:
    """What Prometheus would see: the text, and each sample by name and labels."""
    answer = requests.get(f"{house.web}/metrics", headers=house.key, timeout=10)
    assert answer.status_code == 200, answer.text
    found: Numbers = defaultdict(dict)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return answer.text, found


def labelled(**labels: str) -> tuple[tuple[str, str], ...]:
    """The labels of a sample."""
    return tuple(sorted(labels.items()))


def spec(name: str, **more: Any) -> VoiceJob:
    """A voice with a song; the simulator knows by its name what is to become of it."""
    song = Song(title=f"Song {name}", prompt=LYRICS)
    return VoiceJob(audio_url=f"https://recordings.example/{name}.wav", key=name, batch="all", song=song, **more)


def much_goes_wrong(house: House, queue: VoiceQueue) -> list[Job]:
    """Failures, a retry, a cancel, unsure jobs, shared voices, 429s, and some that are never begun."""
    house.dial(fail_match="broken", stall_match="stalled", get_faults={"rate_limited": 0.1}, webhook="never")
    queue.enqueue_many(
        [spec(f"fine-{n}") for n in range(8)]
        + [spec(f"broken-{n}") for n in range(3)]
        + [spec("stalled")]
        + [
            VoiceJob(
                audio_url="https://recordings.example/one.wav",
                voice="one",
                batch="all",
                key=f"s{n}",
                song=Song(prompt=LYRICS),
            )
            for n in range(3)
        ]
    )
    eventually(lambda: queue.batch("all").is_settled, within_s=60)
    house.dial(fail_match=None, post_faults={"reset_after": 1})
    queue.enqueue_many([spec(f"unsure-{n}") for n in range(2)])
    eventually(lambda: queue.batch("all").states[State.UNSURE] == 2, within_s=20)
    house.dial(post_faults={}, get_faults={})
    queue.retry(next(job.id for job in queue.jobs(state=State.FAILED) if "broken" in str(job.spec.key)))
    eventually(lambda: queue.batch("all").is_settled, within_s=40)
    queue.pause()
    queue.enqueue_many([spec(f"later-{n}", priority="bulk") for n in range(4)])
    queue.cancel(next(job.id for job in queue.jobs(state=State.QUEUED)))
    with Redis.from_url(house.redis_url) as redis:
        eventually(lambda: redis.zcard(f"{{{house.prefix}}}:late") == 0)
    return list(queue.jobs(batch="all"))


@pytest.fixture(scope="module")
def jobs(house: House) -> list[Job]:
    """What became of all jobs of the house."""
    with house.queue() as queue:
        return much_goes_wrong(house, queue)


def test_the_numbers_agree_with_the_records_and_the_ledger(house: House, jobs: list[Job]) -> None:
    """Every one that can be known from there, after failures, retries, cancels and lost answers."""
    with house.queue() as queue:
        findings = queue.audit()
    ledger = house.ledger()
    calls = dict(zip(("create_voice", "persona_music", "task", "get_credits"), ledger["calls"].values(), strict=True))
    eventually(lambda: sum(scraped(house)[1]["voicequeue_upstream_requests_total"].values()) >= sum(calls.values()))
    text, found = scraped(house)

    assert findings == []
    told = {(dict(of)["state"], dict(of)["stage"]): n for of, n in found["voicequeue_jobs"].items() if n}
    assert told == Counter((job.state.value, job.stage.value) for job in jobs)
    assert {State.SUCCEEDED, State.FAILED, State.UNSURE, State.CANCELLED, State.QUEUED} == {job.state for job in jobs}
    failed = Counter(job.failure.code.value for job in jobs if job.failure)
    assert found["voicequeue_failed_jobs"] == {labelled(code=code): n for code, n in failed.items()}
    assert found["voicequeue_backlog_jobs"][labelled(priority="bulk")] == 3
    assert found["voicequeue_oldest_queued_seconds"][labelled(priority="bulk")] > 0
    assert found["voicequeue_oldest_queued_seconds"][labelled(priority="high")] == 0
    assert found["voicequeue_oldest_unsure_seconds"][()] > 0
    assert found["voicequeue_gate_closed"][labelled(reason="paused")] == 1
    assert found["voicequeue_gate_closed"][labelled(reason="unauthorized")] == 0

    spent = found["voicequeue_credits_spent_total"]
    assert sum(spent.values()) == sum(job.credits for job in jobs)
    lost = sum(4 for job in jobs if job.state is State.UNSURE)
    assert sum(spent.values()) + lost == ledger["credits_spent"]
    charges = found["voicequeue_charges_total"]
    assert spent == {
        labelled(stage="voice"): 4 * charges[labelled(stage="voice")],
        labelled(stage="music"): 15 * charges[labelled(stage="music")],
    }

    requests_ = found["voicequeue_upstream_requests_total"]
    by_operation: Counter[str] = Counter()
    for of, n in requests_.items():
        by_operation[dict(of)["operation"]] += int(n)
    assert by_operation == calls
    limited = sum(n for of, n in requests_.items() if dict(of)["outcome"] == "slow_down")
    assert limited == ledger["statuses"]["429"]
    assert requests_[labelled(operation="create_voice", outcome="no_answer")] == 2
    timed = found["voicequeue_upstream_request_duration_seconds_count"]
    assert {dict(of)["operation"]: n for of, n in timed.items()} == by_operation
    seen = found["voicequeue_stage_duration_seconds_count"]
    assert seen[labelled(stage="music")] == sum(1 for job in jobs if job.clips)
    assert len([of for of, age in found["voicequeue_pulse_age_seconds"].items() if age < 15]) == 2 + 1

    for hidden in (SECRET, "recordings.example", "nobody may see", "Song fine"):
        assert hidden not in text


# ── the job page, on the same jobs ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("jobs")
def test_the_job_page_is_shown_without_a_complaint(house: House, browser: Browser, width: int, scheme: str) -> None:
    """By a real browser, at a desk and on a phone: every kind of page, each within its width."""
    troubles: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))

    page.goto(house.link())
    page.get_by_role("link", name="succeeded").click()
    expect(page.locator("tbody tr")).not_to_have_count(0)
    page.locator("tbody a[href^='/job/']").first.click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    expect(page.locator("audio")).to_have_count(2)
    page.get_by_role("searchbox").fill("all")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", name="Batch all")).to_be_visible()
    page.get_by_role("link", name="Batches").click()
    expect(page.get_by_role("heading", name="Batches")).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert troubles == []


def test_the_job_page_follows_what_moves(house: House, browser: Browser) -> None:
    """Without being loaded again: a job comes, goes its way, and its end is there."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(house.link("/?q="))
    page.evaluate("window.isTheSame = true")
    with house.queue() as queue:
        queue.resume()
        job = queue.enqueue(spec("watched", priority="high"))
        row = page.locator("tbody tr").filter(has_text=job.id)
        expect(row).to_be_visible(timeout=15_000)
        expect(row.get_by_text("succeeded")).to_be_visible(timeout=30_000)

    assert page.evaluate("window.isTheSame")
    context.close()
