"""The job page as HTML: what it shows, who may see it, and that text from callers is never markup."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import requests
from redis import Redis

from tests.store.life import (
    CLIPS,
    NOW,
    apply_transition,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    job_in_state,
    job_with_song,
)
from tests.support.jobs import voice_with_song
from tests.web.conftest import KEYS, Build, Gateway
from tests.web.seen import PageUser, ParsedPage, get_page, log_in
from voicequeue import Clip, FailureCode, RejectedMessage, Song, Stage, State, VoiceJob
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


# ── what it shows ─────────────────────────────────────────────────────────────────────────────────


def test_the_pages_say_what_holds_a_job(local: Gateway, store: JobStore) -> None:
    """The page of the job names the limit, and every page the number of jobs that it holds."""
    store.set_batch_limits("spring", max_credits=3)
    [job_id] = enqueue_jobs(store, voice_with_song(batch="spring"))

    sentence = "the credit limit of batch spring is reached, until it is raised"
    assert f"Held {sentence}" in get_page(local, f"/job/{job_id}").text
    assert f"1 queued job waits: {sentence}" in get_page(local, "/").text


def test_the_list_shows_jobs_and_the_summary(local: Gateway, store: JobStore) -> None:
    """The list links to each job."""
    job = fail_job(
        store,
        job_in_state(store, State.PENDING, voice_with_song(batch="spring", name="Ana")),
        FailureCode.UPSTREAM_FAILED,
    )
    [queued] = enqueue_jobs(store, voice_with_song(key="another"))

    page = get_page(local, "/")

    assert {f"/job/{job.id}", f"/job/{queued}", "/batches"} <= set(page.links())
    for part in ("Queued 1", "Failed 1", "Gate Open", "Ana", "upstream_failed", "spring"):
        assert part in page.text


def test_filters_are_part_of_the_url(local: Gateway, store: JobStore) -> None:
    """Jobs are filtered by state and by batch; an unknown state is ignored."""
    b = job_in_state(store, State.PENDING, voice_with_song(key="b", batch="summer"))
    [a] = enqueue_jobs(store, voice_with_song(key="a", batch="spring"))

    assert [link for link in get_page(local, "/?state=queued").links() if "/job/" in link] == [f"/job/{a}"]
    assert [link for link in get_page(local, "/?batch=summer").links() if "/job/" in link] == [f"/job/{b.id}"]
    assert [link for link in get_page(local, "/?batch=summer&state=queued").links() if "/job/" in link] == []
    assert len([link for link in get_page(local, "/?state=nonsense").links() if "/job/" in link]) == 2
    assert "spring" in get_page(local, "/?batch=spring").text


def test_a_job_that_changes_state_meanwhile_is_listed_once(
    local: Gateway, store: JobStore, redis: Redis, prefix: str
) -> None:
    """It is read in two states; the test puts it into two indexes."""
    job = job_in_state(store, State.PENDING, voice_with_song())
    redis.zadd(f"{{{prefix}}}:state:unsure", {job.id: 1})

    assert [link for link in get_page(local, "/").links() if "/job/" in link] == [f"/job/{job.id}"]


def test_a_long_list_has_pages(local: Gateway, store: JobStore) -> None:
    """The link to the next page keeps the filter; every job is listed once."""
    ids = enqueue_jobs(store, *(voice_with_song(key=str(n), batch="many") for n in range(120)))
    listed, path = [], "/?batch=many"
    while path:
        page = get_page(local, path)
        listed += [link.removeprefix("/job/") for link in page.links() if "/job/" in link]
        path = next((f"/{link}" for link in page.links() if "cursor=" in link), "")

    assert sorted(listed) == sorted(ids)


@pytest.mark.parametrize("of", ["job", "batch"])
def test_a_search_leads_to_the_job_or_the_batch_of_that_name(local: Gateway, store: JobStore, of: str) -> None:
    """If there is none, the page says so."""
    [job_id] = enqueue_jobs(store, voice_with_song(batch="spring"))
    text = job_id if of == "job" else "spring"

    answer = local("GET", "/", key=None, params={"q": f" {text} "}, allow_redirects=False)

    assert (answer.status_code, answer.headers["Location"]) == (
        303, f"/job/{job_id}" if of == "job" else "/?batch=spring"
    )  # fmt: skip
    assert "No jobs match nothing" in get_page(local, "/?q=nothing").text
    assert "No jobs match" in get_page(local, "/?q=%00%ff../").text


def test_a_search_for_a_message_that_was_rejected_shows_the_reason(local: Gateway, store: JobStore) -> None:
    """There is no job to show."""
    store.rejected_messages.add(RejectedMessage(NOW, "order-17", "voicequeue.enqueue", "audio_url: <b>empty</b>", {}))

    page = get_page(local, "/?q=order-17")

    assert (
        next(attrs for tag, attrs in page.elements if tag == "input" and attrs["type"] == "search")["value"]
        == "order-17"
    )
    assert "the message order-17 was rejected" in page.text
    assert "audio_url: <b>empty</b>" in page.text


def test_a_job_shows_its_timeline_its_charges_and_its_songs(local: Gateway, store: JobStore) -> None:
    """Finished songs have players."""
    job = job_with_song(store, batch="spring", metadata={"shop": "Lisbon"})

    page = get_page(local, f"/job/{job.id}")

    assert [attrs["src"] for tag, attrs in page.elements if tag == "audio"] == [clip.audio_url for clip in job.clips]
    for part in ("succeeded", "19 spent", "p-1", "First, take", "1:01", "Lisbon", "charging", "pending", "la la"):
        assert part in page.text


def test_a_job_shows_all_of_a_song_and_which_one_is_missing(local: Gateway, store: JobStore) -> None:
    """MusicAPI can be polled for a missing song, free of charge; a failed song is not missing."""
    whole = replace(CLIPS[0], tags="calm, pop", lyrics="la la la", mv="sonic-v5", video_url="https://cdn.example/1.mp4")
    job = job_with_song(store, (whole, Clip("c-2", "running")))

    page = get_page(local, f"/job/{job.id}")

    for part in (
        "calm, pop",
        "la la la",
        "sonic-v5",
        "video",
        "running, no link yet",
        "Some songs have no link yet",
    ):
        assert part in page.text
    assert "https://cdn.example/1.mp4" in page.links()
    assert f"/job/{job.id}/retry" in page.links()
    assert "which is free" in get_page(local, f"/job/{job.id}/retry").text
    done = job_with_song(store, (whole, Clip("c-2", "cancelled")), key="done")
    assert f"/job/{done.id}/retry" not in get_page(local, f"/job/{done.id}").links()


def test_a_review_shows_the_response_of_musicapi(local: Gateway, store: JobStore) -> None:
    """It is shown as text, never as markup."""
    answer = f"<html>{EVIL}"
    unsure = apply_transition(
        store,
        job_in_state(store, State.CHARGING, voice_with_song()),
        State.UNSURE,
        fields={"upstream_response": answer},
    )

    for path in (f"/job/{unsure.id}", f"/job/{unsure.id}/review"):
        assert " ".join(answer.split()) in get_page(local, path).text


def test_a_charge_that_was_confirmed_later_shows_its_task(local: Gateway, store: JobStore) -> None:
    """The response was lost, the stage was resubmitted, and MusicAPI named the first task afterwards."""
    job = apply_transition(store, job_in_state(store, State.UNSURE), State.ADMITTED)
    claim_admitted(store, job.id)
    store.count_order(ChargedOrder(job.id, Stage.VOICE, 1, "task-that-was-lost"), NOW, reason="named")

    page = get_page(local, f"/job/{job.id}")

    for part in ("charged, confirmed later", "task-that-was-lost", "4 spent"):
        assert part in page.text


def test_batches_show_their_progress(local: Gateway, store: JobStore) -> None:
    """They are listed newest first, link to their jobs, and say how many are in each state."""
    job_in_state(store, State.FAILED, voice_with_song(key="c", batch="spring"))
    enqueue_jobs(store, *(voice_with_song(key=key, batch="spring") for key in "ab"), now=NOW + 1)
    enqueue_jobs(store, voice_with_song(key="d", batch="summer"), now=NOW + 9)

    page = get_page(local, "/batches")

    batches = [link for link in page.links() if link.startswith("/?batch=")]
    assert batches == ["/?batch=summer", "/?batch=spring"]
    assert "1 failed 2 queued 3" in page.text
    assert "1 failed, 2 queued, of 3 jobs" in [attrs.get("aria-label") for tag, attrs in page.elements if tag == "svg"]
    [oldest_first] = [link for link in page.links() if "sort=created" in link]
    oldest = get_page(local, f"/batches{oldest_first}")
    assert [link for link in oldest.links() if link.startswith("/?batch=")] == batches[::-1]


def test_unknown_jobs_batches_and_cursors_get_an_error_page(local: Gateway) -> None:
    """The error is a page, not JSON."""
    assert "no job" in get_page(local, "/job/nothing", status=404).text
    assert "batch" in get_page(local, "/?batch=nothing").text
    assert get_page(local, "/?cursor=nonsense").text
    assert get_page(local, "/batches?cursor=nonsense", status=422).text


def test_text_from_callers_and_musicapi_is_never_markup(local: Gateway, store: JobStore) -> None:
    """This covers every text field, and links that would run scripts."""
    spec = VoiceJob(
        audio_url="https://a.example/x.wav?" + "a=<b>'\"", key=f"k{EVIL}", name=EVIL[:60], batch="b",
        song=Song(title=EVIL[:80], prompt=EVIL, tags=EVIL), metadata={"<i>": EVIL},
    )  # fmt: skip
    job = fail_job(store, job_in_state(store, State.PENDING, spec), FailureCode.UPSTREAM_FAILED)
    failure = '{"code": "upstream_failed", "stage": "voice", "message": "<script>alert(2)</script>"}'
    clips = (
        '[{"clip_id": "c", "state": "succeeded", "title": "<svg onload=alert(3)>", "audio_url": "javascript:alert(4)",'
        ' "image_url": "data:text/html,x", "duration": 3}]'
    )
    space = store._space
    space.redis.hset(space.key(f"job:{job.id}"), mapping={"failure": failure, "clips": clips})

    unsure = job_in_state(store, State.UNSURE, voice_with_song(key=f"u{EVIL}", metadata={"a": EVIL}))
    space.redis.lset(
        space.key(f"timeline:{unsure.id}"),
        -1,
        json.dumps({"at": 1, "state": "unsure", "stage": "voice", "reason": EVIL}),
    )
    store.flow_control.pause(NOW, reason=EVIL)
    own = [f"/job/{job.id}{end}" for end in ("", "/retry")] + [f"/job/{unsure.id}{end}" for end in ("", "/review")]

    for path in (
        "/",
        "/batches",
        "/controls",
        *own,
        "/?batch=b",
        f"/?q={EVIL}",
        f"/?batch={EVIL}",
        f"/login?next={EVIL}",
    ):
        answer = local("GET", path, key=None)
        page = ParsedPage(answer.text)
        assert not {"i", "b>"} & {tag for tag, _ in page.elements}
        assert {attrs.get("class") for tag, attrs in page.elements if tag == "svg"} <= {"states"}
        assert {attrs.get("src") for tag, attrs in page.elements if tag == "script"} <= {
            "/static/live.js",
            "/static/keys.js",
            "/static/times.js",
        }
        for tag, attrs in page.elements:
            assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
            values = [str(attrs.get(name) or "") for name in ("href", "src", "action")]
            assert not [value for value in values if value.startswith(("javascript", "data"))]


# ── access ───────────────────────────────────────────────────────────────────────────────────────


def test_the_login_redirects_to_the_requested_page(gateway: Gateway, store: JobStore) -> None:
    """The key is sent in a form; the session cookie cannot be read by scripts and does not contain the key."""
    [job_id] = enqueue_jobs(store, voice_with_song())
    redirect = gateway("GET", f"/job/{job_id}", key=None, allow_redirects=False)
    assert (redirect.status_code, redirect.headers["Location"]) == (303, f"/login?next=%2Fjob%2F{job_id}")

    answer = log_in(gateway, KEYS["read"][0], f"/job/{job_id}")

    assert (answer.status_code, answer.headers["Location"]) == (303, f"/job/{job_id}")
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Max-Age="))
    assert KEYS["read"][0] not in cookie
    assert job_id in get_page(gateway, f"/job/{job_id}", cookies=answer.cookies).text


@pytest.mark.parametrize(
    "next_path", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "x\n"]
)
def test_the_login_never_redirects_to_another_site(gateway: Gateway, next_path: str) -> None:
    """It redirects to the start page instead."""
    assert log_in(gateway, KEYS["read"][0], next_path).headers["Location"] == "/"


def test_a_wrong_key_is_refused_and_not_shown_again(gateway: Gateway) -> None:
    """No cookie is set."""
    answer = log_in(gateway, "vq_wrong")

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert "This key is not valid." in answer.text
    assert "vq_wrong" not in answer.text


def test_the_size_of_a_login_is_limited(gateway: Gateway) -> None:
    """Its sender is not authenticated yet."""
    assert log_in(gateway, "x" * 100_000).status_code == 413


def test_a_key_without_read_sees_nothing(gateway: Gateway) -> None:
    """It can log in; the error page names the missing scope."""
    answer = gateway("GET", "/", key=None, cookies=log_in(gateway, KEYS["enqueue"][0]).cookies)

    assert answer.status_code == 403
    assert "scope read" in answer.text


@pytest.mark.parametrize("cookie", ["", "x" * 43, '"x.y.z', "read.99999999999.00"])
def test_a_forged_cookie_is_no_login(gateway: Gateway, prefix: str, cookie: str) -> None:
    """The user is redirected to the login."""
    answer = gateway("GET", "/", key=None, cookies={prefix: cookie}, allow_redirects=False)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2F")


def test_the_logout_removes_the_cookie(gateway: Gateway, prefix: str) -> None:
    """Another site cannot log a user out."""
    person = PageUser(gateway, "read")

    assert person.post("/logout", {"token": ""}).status_code == 403
    person.submit(person.page("/"), "Log out read")

    assert person.session.cookies.get(prefix) is None


def test_a_key_without_read_can_log_out(gateway: Gateway) -> None:
    """Its error page has the button."""
    person = PageUser(gateway, "enqueue")

    person.submit(person.page("/", status=403), "Log out enqueue")

    assert person.session.cookies.keys() == []


def test_logins_to_two_queues_on_one_host_are_independent(build_gateway: Build, prefix: str) -> None:
    """Browsers share cookies between all ports of a host."""
    names = set()
    for queue in (prefix, f"{prefix}-2"):
        names |= set(log_in(build_gateway(prefix=queue), KEYS["read"][0]).cookies.keys())

    assert names == {prefix, f"{prefix}-2"}


def test_the_stream_of_changes_needs_a_login(gateway: Gateway) -> None:
    """It starts immediately."""
    assert gateway("GET", "/live", key=None, allow_redirects=False).status_code == 303

    cookies = log_in(gateway, KEYS["read"][0]).cookies
    with requests.get(f"{gateway.url}/live", cookies=cookies, stream=True, timeout=10) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert next(stream.iter_lines()) == b": connected"


def test_without_keys_only_this_machine_sees_pages(local: Gateway) -> None:
    """A session does not help other machines."""
    local.stage.client = ("203.0.113.9", 5)

    assert local("GET", "/", key=None).status_code == 403


@pytest.mark.parametrize("path", ["/", "/?batch=spring&state=failed", "/job/x", "/controls", "/live", "/login"])
def test_a_link_with_the_local_token_logs_in_and_leads_to_the_page_without_it(keyless: Gateway, path: str) -> None:
    """A cookie replaces the token at once, so that no page has it in its URL or sends it to another site."""
    answer = requests.get(keyless.link(path), allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/" if path == "/login" else path)
    assert answer.headers["Referrer-Policy"] in ("same-origin", "no-referrer")
    assert answer.headers["Cache-Control"] == "no-store"
    assert str(keyless.token) not in str(answer.headers)
    assert get_page(keyless, "/", cookies=answer.cookies).links()


@pytest.mark.parametrize("token", ["", "wrong", "x" * 43])
def test_a_link_with_a_wrong_token_leads_to_the_login(keyless: Gateway, token: str) -> None:
    """The login page says why, and its URL does not contain the token."""
    path = f"/controls?token={token}&a=b"
    answer = requests.get(keyless.url + path, allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2Fcontrols%3Fa%3Db&by=link")
    assert "Set-Cookie" not in answer.headers
    text = get_page(keyless, answer.headers["Location"]).text
    assert all(words in text for words in ("local_token", "Local token", "The token in this link is invalid"))
    assert "API key" not in text
    assert "this link" not in get_page(keyless, "/login").text


def test_the_login_accepts_the_local_token(keyless: Gateway) -> None:
    """This helps where others can see the address bar."""
    answer = log_in(keyless, str(keyless.token))

    assert answer.status_code == 303
    assert "Log out local" in next(iter(get_page(keyless, "/", cookies=answer.cookies).forms[1]["buttons"]))
