"""A page of another port of this machine achieves nothing in an operator's browser."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, expect

from tests.conftest import eventually
from tests.security.surface import site
from tests.store.life import job_with_song
from tests.support.jobs import voice
from tests.web.conftest import KEYS, Gateway
from voicequeue import Clip, State, VoiceQueue
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.endurance

#: Sends every request that browsers send without a preflight; sets `window.isDone` at the end.
PRESSES = """<!doctype html><title>prizes</title>
<iframe name="target"></iframe>
<script>
  const row = '{"audio_url": "https://evil.example/a.wav"}\\n';
  const types = ["", "text/plain", "application/x-www-form-urlencoded", "application/x-ndjson"];
  async function tries() {
    for (const path of PATHS) {
      for (const type of types) {
        const body = new Blob([row], { type });
        for (const mode of ["no-cors", "cors"]) {
          await fetch(HERE + path, { method: "POST", mode, credentials: "include", body }).catch(() => null);
        }
        navigator.sendBeacon(HERE + path, body);
      }
      await fetch(HERE + path, { method: "POST", mode: "no-cors", credentials: "include" }).catch(() => null);
      for (const enctype of ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]) {
        const form = document.createElement("form");
        Object.assign(form, { method: "post", action: HERE + path, enctype, target: "target" });
        form.innerHTML = '<input name="token" value="x">';
        document.body.append(form);
        const loaded = new Promise((resolve) => document.querySelector("iframe").onload = resolve);
        form.submit();
        await loaded;
      }
    }
    window.isDone = true;
  }
  tries();
</script>"""

#: Loads a path in every way; `window.seen` lists the ones that loaded.
READS = """<!doctype html><title>prizes</title>
<script>
  window.seen = [];
  const waits = [];
  for (const path of PATHS) {
    for (const tag of ["script", "img", "object", "video"]) {
      const element = document.createElement(tag);
      element[tag === "object" ? "data" : "src"] = HERE + path;
      waits.push(new Promise((resolve) => {
        element.onload = element.onloadeddata = () => resolve(window.seen.push([tag, path]));
        element.onerror = resolve;
      }));
      document.documentElement.append(element);
    }
    waits.push(fetch(HERE + path, { credentials: "include" }).then(() => window.seen.push(["fetch", path]), () => 0));
    waits.push(fetch(HERE + path, { credentials: "include", mode: "no-cors" })
      .then(() => window.seen.push(["no-cors", path]), () => 0));
  }
  Promise.all(waits).then(() => window.isDone = true);
</script>"""


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Yield a browser context with its own cookies."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


def log_in(context: BrowserContext, gateway: Gateway) -> None:
    """Log in with the key that has every scope."""
    page = context.new_page()
    page.goto(f"{gateway.url}/login")
    page.get_by_label("API key").fill(KEYS["all"][0])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out all")).to_be_visible()


def filled(html: str, gateway: Gateway, paths: list[str]) -> str:
    """Return the page with the URL and paths to attack."""
    return html.replace("HERE", json.dumps(gateway.url)).replace("PATHS", json.dumps(paths))


def test_a_framed_page_shows_nothing_and_cannot_be_clicked(
    gateway: Gateway, queue: VoiceQueue, context: BrowserContext
) -> None:
    """Although the login cookie is sent: another port is the same site."""
    job = queue.enqueue(voice())
    log_in(context, gateway)
    paths = ["/docs", "/", f"/job/{job.id}", "/controls", "/v1/status", "/healthz", "/static/icon.svg"]
    frames = "".join(f'<iframe name="{path}" src="{gateway.url}{path}"></iframe>' for path in paths)
    tags = f'<embed src="{gateway.url}/docs"><object data="{gateway.url}/docs"></object>'
    with site(f"<!doctype html><title>prizes</title>{frames}{tags}") as evil:
        page = context.new_page()
        page.goto(evil, wait_until="load")

        def framed_pages() -> list[Frame]:
            page.evaluate("true")  # receives what the browser has reported
            return [frame for frame in page.frames if frame is not page.main_frame]

        eventually(lambda: all(frame.url for frame in framed_pages()))  # '' before the browser has reported it
        framed = framed_pages()
        assert {*paths} <= {frame.name for frame in framed}
        assert {frame.url for frame in framed} <= {"chrome-error://chromewebdata/", "about:blank"}


def test_a_page_of_another_port_triggers_nothing(local: Gateway, queue: VoiceQueue, context: BrowserContext) -> None:
    """Not by fetch, beacon or form, with any content type: no job is enqueued, nothing is paused or resumed."""
    job = queue.enqueue(voice())
    queue.pause(reason="an operator")
    paths = ["/v1/batches/x/jobs", "/v1/jobs", "/v1/pause?stage=music", "/v1/resume"]
    paths += [f"/v1/jobs/{job.id}/cancel", "/do/resume", f"/job/{job.id}/cancel"]
    page = context.new_page()
    statuses: list[tuple[str, int]] = []
    page.on("response", lambda answer: statuses.append((answer.url.removeprefix(local.url), answer.status)))
    with site(filled(PRESSES, local, paths)) as evil:
        page.goto(evil)
        page.wait_for_function("window.isDone")
        eventually(lambda: {path for path, _ in statuses} >= {*paths})

    assert {status for path, status in statuses if path in paths} == {403}
    assert [(queued.id, queued.state) for queued in queue.jobs()] == [(job.id, State.QUEUED)]
    assert [hold.detail for hold in queue.status().gate.holds] == ["an operator"]


def test_a_page_of_another_port_reads_nothing(gateway: Gateway, queue: VoiceQueue, context: BrowserContext) -> None:
    """It cannot even detect from the loading of a script or picture which jobs exist."""
    job = queue.enqueue(voice())
    log_in(context, gateway)
    with site(filled(READS, gateway, ["/", f"/job/{job.id}", "/v1/status", "/static/icon.svg", "/live"])) as evil:
        page = context.new_page()
        page.goto(evil)
        page.wait_for_function("window.isDone")

        assert page.evaluate("window.seen") == []


def test_a_job_page_sends_the_login_cookie_to_no_other_port(
    gateway: Gateway, store: JobStore, context: BrowserContext
) -> None:
    """Cookies ignore ports: neither covers and songs, nor their redirects, nor links reach the page's host on another
    port; content of other hosts is shown."""
    requested: list[tuple[str, str]] = []
    log_in(context, gateway)
    with site(log=requested) as evil, site(redirect=f"{evil}/redirected", log=requested) as other:
        elsewhere, port = other.replace("127.0.0.1", "localhost"), evil.rpartition(":")[2]
        spelled = ["127.0.0.1", "127.0.0.1.", "127.1", "2130706433", "0x7f.1", "x@127.0.0.1", "%3127.0.0.1"]
        urls = [f"http://{host}:{port}/{number}" for number, host in enumerate(spelled)]
        links = [*zip(urls, urls, strict=True), (f"{elsewhere}/song", f"{elsewhere}/cover")]
        clips = [Clip(f"c-{n}", "succeeded", None, *both, 1.0, video_url=both[0]) for n, both in enumerate(links)]
        job = job_with_song(store, tuple(clips), audio_url=f"{evil}/recording")
        page = context.new_page()
        page.goto(f"{gateway.url}/job/{job.id}")
        page.evaluate("for (const song of document.querySelectorAll('audio')) song.play().catch(() => 0)")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        page.wait_for_function("[...document.querySelectorAll('audio')].every(song => song.error)")

        assert {path: cookie for path, cookie in requested if path != "/favicon.ico"} == {"/cover": "", "/song": ""}
        link_targets = page.eval_on_selector_all("a", "links => links.map(link => [link.hostname, link.port])")
        own_port = gateway.url.rpartition(":")[2]
        assert [
            target for target in link_targets if target[0] != "localhost" and target != ["127.0.0.1", own_port]
        ] == []
        expect(page.get_by_text(f"{evil}/recording")).to_be_visible()
        expect(page.get_by_text(urls[0]).first).to_be_visible()


def test_a_page_that_opens_the_gateway_gets_no_window_handle(gateway: Gateway, context: BrowserContext) -> None:
    """A link opens it; the opening page cannot access the window."""
    log_in(context, gateway)
    with site(f"<!doctype html><button onclick=\"opened = window.open('{gateway.url}/docs')\">prizes</button>") as evil:
        page = context.new_page()
        page.goto(evil)
        page.get_by_role("button").click()

        page.wait_for_function("opened.closed")  # from that page's view


def test_the_api_documentation_works_under_its_policy(
    gateway: Gateway, queue: VoiceQueue, context: BrowserContext
) -> None:
    """Swagger UI runs from this server's files alone, without inline scripts; its console has no messages."""
    page = context.new_page()
    console: list[str] = []
    requested_urls: set[str] = set()
    page.on("console", lambda line: console.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: console.append(str(error)))
    page.on("request", lambda request: requested_urls.add(request.url))
    page.goto(f"{gateway.url}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").fill(KEYS["all"][0])
    page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-container").get_by_role("button", name="Close").click()

    block = page.locator(".opblock", has=page.locator("[data-path='/v1/pause']"))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response .response-col_status")).to_contain_text("200")

    assert not queue.status().gate.is_open
    assert console == []
    assert {url for url in requested_urls if not url.startswith((gateway.url, "data:"))} == set()
