"""The documentation agrees with the code: drawings, lists, links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from mkdocs.exceptions import PluginError

from config import reference, site
from config.flower import FlowerSettings
from config.settings import Settings
from voicequeue.cli.audio_rules import audio_rules
from voicequeue.domain.job import MOVES, WHEN_CANCELLING, WITH_THE_VOICE, State
from voicequeue.ingest.preflight import Rules
from voicequeue.ingest.row_reader import JOB_COLUMNS, SONG_COLUMNS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
STATES = ElementTree.parse(DOCS / "images" / "states.svg")


# ── the drawing of the states ─────────────────────────────────────────────────────────────────────


def test_the_drawing_shows_exactly_the_legal_transitions() -> None:
    """Transitions of a single job, the creation of a job, and waiting for another job's voice."""
    drawn = [
        (element.get("data-from"), element.get("data-to")) for element in STATES.iter() if element.get("data-from")
    ]
    transitions = (*MOVES.items(), *WHEN_CANCELLING.items())
    legal = {(str(state), str(to)) for state, moves in transitions for to in moves}
    with_another_job = {(State.QUEUED, State.WAITING), (State.WAITING, State.QUEUED)}
    assert all(to in WITH_THE_VOICE[state] for state, to in with_another_job)

    assert len(drawn) == len(set(drawn))
    assert set(drawn) == legal | {(str(state), str(to)) for state, to in with_another_job} | {("start", "queued")}


def test_the_drawing_shows_every_state() -> None:
    """One box per state, with its name, and one for the start."""
    boxes = {element.get("data-state") for element in STATES.iter() if element.get("data-state")}
    names = {element.text for element in STATES.iter() if element.get("class") == "name"}

    assert boxes == {"start", *State}
    assert names == {*State}


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_reference_names_every_column_of_a_file_once() -> None:
    """And no column that is not accepted."""
    table = (
        (DOCS / "reference.md").read_text(encoding="utf-8").partition("| column | meaning |")[2].partition("\n\n")[0]
    )
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]

    assert sorted(re.findall(r"`([^`]+)`", " ".join(cells))) == sorted([*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"])


# ── the settings ──────────────────────────────────────────────────────────────────────────────────


def test_the_settings_page_is_generated_from_the_settings() -> None:
    """It is outdated after a change of a setting without `make docs`, or edited by hand."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_every_setting_is_listed_once_with_its_meaning() -> None:
    """Every section starts with an existing setting."""
    rows = list(reference.rows())
    names = [row.name for row in rows]

    assert (
        len(names)
        == len(set(names))
        == len(Settings.model_fields) + len(FlowerSettings.model_fields) + len(reference.ELSEWHERE)
    )
    assert [name for name in reference.SECTIONS if name not in names] == []
    assert names[0] in reference.SECTIONS
    assert [row.name for row in rows if not (row.allowed and row.meaning)] == []
    assert [row for row in rows if "|" in "".join(row)] == []


@pytest.mark.parametrize(
    ("name", "default", "allowed"),
    [
        ("REDIS_URL", "`redis://localhost:6379/0`", "text"),
        ("VOICEQUEUE_PUBLIC_URL", "", "`http://` or `https://` URL"),
        ("VOICEQUEUE_SUBMIT_RATE", "", "number ≥ 0.01"),
        ("VOICEQUEUE_MAX_IN_FLIGHT", "100", "whole number ≥ 1"),
        ("VOICEQUEUE_CHUNK", "100", "whole number from 1 to 500"),
        ("VOICEQUEUE_POLL_MAX_S", "25", "number > 0, ≤ 60"),
        ("VOICEQUEUE_UNSURE", "`review`", "`review` or `resubmit`"),
        ("VOICEQUEUE_REUSE", "`false`", "`true` or `false`"),
        ("VOICEQUEUE_ARCHIVE_FOR_S", "259200", "number > 0"),
        ("VOICEQUEUE_ARCHIVE_SLOWEST", "4096", "number ≥ 0"),
        ("FLOWER_DB", "", "path"),
    ],
)
def test_the_allowed_values_are_described_in_words(name: str, default: str, allowed: str) -> None:
    """As the setting validates them."""
    [row] = [row for row in reference.rows() if row.name == name]

    assert (row.default, row.allowed) == (default, allowed)


def test_the_handwritten_defaults_are_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of recordings, which the command line reads: set explicitly to their defaults they change
    nothing."""
    for row in reference.ELSEWHERE:
        if row.name.startswith("VOICEQUEUE_AUDIO_"):
            monkeypatch.setenv(row.name, row.default)
    monkeypatch.delenv("VOICEQUEUE_AUDIO_ALLOW", raising=False)
    defaults = Rules()
    rules = audio_rules()

    assert (rules.times, rules.max_bytes, rules.again_s) == (
        defaults.times,
        defaults.max_bytes,
        defaults.again_s,
    )
    assert (rules.at_once, rules.per_host) == (defaults.at_once, defaults.per_host)


def test_every_variable_on_the_pages_is_a_setting() -> None:
    """A renamed setting is renamed on every page."""
    settings = {row.name for row in reference.rows()}
    mentioned = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\b(?:VOICEQUEUE|FLOWER)_[A-Z_]*[A-Z]\b(?!_)", page.read_text(encoding="utf-8"))
    }

    assert len(mentioned) > len(settings)
    assert sorted((page, name) for page, name in mentioned if name not in settings) == []


# ── the site ──────────────────────────────────────────────────────────────────────────────────────


def test_links_that_leave_the_folder_become_names_of_files() -> None:
    """A link whose text is the file's name becomes code; any other text is followed by the file's name."""
    guard = "[the\nguard](../workers/redis_transport.py)"
    text = f"[Procfile](../Procfile), {guard}, [HTTP](../http.md), ![x](../images/x.png)"

    assert site.named(f"[Procfile](../Procfile), {guard}", "why.md") == (
        "`Procfile`, the\nguard (`workers/redis_transport.py`)"
    )
    assert site.named(text, "examples/README.md").endswith("[HTTP](../http.md), ![x](../images/x.png)")


def test_a_link_to_a_missing_file_fails_the_build() -> None:
    """It would be broken on the code host, which mkdocs does not check."""
    with pytest.raises(PluginError, match=r"why.md links to ../Profile, which is not there"):
        site.named("the [processes](../Profile)", "why.md")


def build_site(configuration: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site into a folder. (`--quiet` would hide warnings from `strict` as well.)"""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(configuration), "--site-dir", str(into)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("link", ["missing.md", "concepts.md#missing", "#missing", "/concepts.md", "../missing.md"])
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str) -> None:
    """A missing page, heading or file, or a path that is not relative."""
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    with (docs / "why.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[there]({link})\n")
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    configuration |= {"docs_dir": str(docs), "hooks": [str(ROOT / "config" / "site.py")]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    build = build_site(tmp_path / "mkdocs.yml", tmp_path / "site")

    assert build.returncode == 1
    assert [line for line in build.stderr.splitlines() if "why.md" in line and link in line] != []


def test_the_site_builds_without_broken_links_and_works_offline(tmp_path: Path) -> None:
    """Its pages load no script, style or font from other hosts."""
    build = build_site(ROOT / "mkdocs.yml", tmp_path)
    assert build.returncode == 0, build.stderr

    pages = {page.relative_to(tmp_path).as_posix(): page.read_text("utf-8") for page in tmp_path.rglob("*.html")}
    loaded = (
        r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+//"
    )
    assert {"index.html", "runbook.html", "configuration.html", "changelog.html", "examples/index.html"} <= set(pages)
    assert [name for name, text in pages.items() if re.search(loaded, text)] == []
    assert "mermaid" not in "".join(pages.values())


def test_every_page_is_in_the_navigation() -> None:
    """Exactly once, and with a title."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [page for entry in navigation for pages in entry.values() for page in (_pages(pages) if pages else [])]

    assert sorted(listed) == sorted(
        ["changelog.md", *(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))]
    )


def _pages(pages: str | list[dict[str, str]]) -> list[str]:
    return [pages] if isinstance(pages, str) else [page for entry in pages for page in entry.values()]


# ── the runbook ───────────────────────────────────────────────────────────────────────────────────


def test_every_alert_has_its_section_and_every_section_an_alert() -> None:
    """test_alerts.py checks their content."""
    groups = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]

    assert re.findall(r"^### (Voicequeue\w+)$", (DOCS / "runbook.md").read_text(encoding="utf-8"), re.M) == alerts
