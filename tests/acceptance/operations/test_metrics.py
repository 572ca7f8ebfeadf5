"""/metrics compared with the records and the simulator's ledger, after a run with many failures."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, expect
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests.acceptance.conftest import LYRICS, SECRET, Build, System
from tests.conftest import eventually
from voicequeue import Job, Song, State, VoiceJob, VoiceQueue

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start two workers and the gateway. Failed orders are polled for a short time only."""
    times = {"VOICEQUEUE_VOICE_DEADLINE_S": "4", "VOICEQUEUE_LATE_RESULT_TTL_S": "1"}
    return build_shared(workers=2, web=True, VOICEQUEUE_MAX_IN_FLIGHT="12", **times)


def scraped(system: System) -> tuple[str, Samples]:
    """Return the metrics as text, and each sample by name and labels."""
    answer = requests.get(f"{system.web}/metrics", headers=system.key, timeout=10)
    assert answer.status_code == 200, answer.text
    samples: Samples = defaultdict(dict)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return answer.text, samples


def labelled(**labels: str) -> tuple[tuple[str, str], ...]:
    """Return the labels of a sample."""
    return tuple(sorted(labels.items()))


def spec(name: str, **more: Any) -> VoiceJob:
    """Return a job for a voice with a song; its name selects what the simulator does with it."""
    song = Song(title=f"Song {name}", prompt=LYRICS)
    return VoiceJob(audio_url=f"https://recordings.example/{name}.wav", key=name, batch="all", song=song, **more)


def run_with_failures(system: System, queue: VoiceQueue) -> list[Job]:
    """Run jobs with failures, a retry, a cancellation, lost answers, shared voices and 429s, and some that never
    start."""
    system.dial(fail_match="broken", stall_match="stalled", get_faults={"rate_limited": 0.1}, webhook="never")
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
    system.dial(fail_match=None, post_faults={"reset_after": 1})
    queue.enqueue_many([spec(f"unsure-{n}") for n in range(2)])
    eventually(lambda: queue.batch("all").states[State.UNSURE] == 2, within_s=20)
    system.dial(post_faults={}, get_faults={})
    queue.retry(next(job.id for job in queue.jobs(state=State.FAILED) if "broken" in str(job.spec.key)))
    eventually(lambda: queue.batch("all").is_settled, within_s=40)
    queue.pause()
    queue.enqueue_many([spec(f"later-{n}", priority="bulk") for n in range(4)])
    queue.cancel(next(job.id for job in queue.jobs(state=State.QUEUED)))
    with Redis.from_url(system.redis_url) as redis:
        eventually(lambda: redis.zcard(f"{{{system.prefix}}}:late_results") == 0)
    return list(queue.jobs(batch="all"))


@pytest.fixture(scope="module")
def jobs(system: System) -> list[Job]:
    """Return all jobs of the system after the run."""
    with system.queue() as queue:
        return run_with_failures(system, queue)


def test_the_metrics_agree_with_the_records_and_the_ledger(system: System, jobs: list[Job]) -> None:
    """Every number that can be derived from them, after failures, retries, cancellations and lost answers."""
    with system.queue() as queue:
        findings = queue.audit()
    ledger = system.ledger()
    calls = dict(zip(("create_voice", "persona_music", "poll", "get_credits"), ledger["calls"].values(), strict=True))
    eventually(lambda: sum(scraped(system)[1]["voicequeue_upstream_requests_total"].values()) >= sum(calls.values()))
    text, samples = scraped(system)

    assert findings == []
    reported = {
        (dict(labels)["state"], dict(labels)["stage"]): n for labels, n in samples["voicequeue_jobs"].items() if n
    }
    assert reported == Counter((job.state.value, job.stage.value) for job in jobs)
    assert {State.SUCCEEDED, State.FAILED, State.UNSURE, State.CANCELLED, State.QUEUED} == {job.state for job in jobs}
    failed = Counter(job.failure.code.value for job in jobs if job.failure)
    assert samples["voicequeue_failed_jobs"] == {labelled(code=code): n for code, n in failed.items()}
    assert samples["voicequeue_backlog_jobs"][labelled(priority="bulk")] == 3
    assert samples["voicequeue_oldest_queued_age_seconds"][labelled(priority="bulk")] > 0
    assert samples["voicequeue_oldest_queued_age_seconds"][labelled(priority="high")] == 0
    assert samples["voicequeue_oldest_unsure_age_seconds"][()] > 0
    assert samples["voicequeue_gate_closed"][labelled(reason="paused")] == 1
    assert samples["voicequeue_gate_closed"][labelled(reason="unauthorized")] == 0

    spent = samples["voicequeue_credits_spent_total"]
    assert sum(spent.values()) == sum(job.credits for job in jobs)
    lost_credits = sum(4 for job in jobs if job.state is State.UNSURE)
    assert sum(spent.values()) + lost_credits == ledger["credits_spent"]
    charges = samples["voicequeue_charges_total"]
    assert spent == {
        labelled(stage="voice"): 4 * charges[labelled(stage="voice")],
        labelled(stage="music"): 15 * charges[labelled(stage="music")],
    }

    requests_ = samples["voicequeue_upstream_requests_total"]
    by_operation: Counter[str] = Counter()
    for labels, n in requests_.items():
        by_operation[dict(labels)["operation"]] += int(n)
    assert by_operation == calls
    limited = sum(n for labels, n in requests_.items() if dict(labels)["outcome"] == "rate_limited")
    assert limited == ledger["statuses"]["429"]
    assert requests_[labelled(operation="create_voice", outcome="no_response")] == 2
    timed = samples["voicequeue_upstream_request_duration_seconds_count"]
    assert {dict(labels)["operation"]: n for labels, n in timed.items()} == by_operation
    durations = samples["voicequeue_stage_duration_seconds_count"]
    assert durations[labelled(stage="music")] == sum(1 for job in jobs if job.clips)
    assert len([labels for labels, age in samples["voicequeue_heartbeat_age_seconds"].items() if age < 15]) == 2 + 1

    for hidden in (SECRET, "recordings.example", "must stay secret", "Song fine"):
        assert hidden not in text


# ── the job page, on the same jobs ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("jobs")
def test_every_page_renders_without_errors(system: System, browser: Browser, width: int, scheme: str) -> None:
    """In a real browser, on a desktop and a phone: every kind of page fits its width and logs no error."""
    errors: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(system.page_url())
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
    assert errors == []


def test_the_job_page_updates_live(system: System, browser: Browser) -> None:
    """Without a reload: a new job appears, and later its final state."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(system.page_url("/?q="))
    page.evaluate("window.isNotReloaded = true")
    with system.queue() as queue:
        queue.resume()
        job = queue.enqueue(spec("watched", priority="high"))
        row = page.locator("tbody tr").filter(has_text=job.id)
        expect(row).to_be_visible(timeout=15_000)
        expect(row.get_by_text("succeeded")).to_be_visible(timeout=30_000)

    assert page.evaluate("window.isNotReloaded")
    context.close()
