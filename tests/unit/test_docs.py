"""The documentation: what it draws, lists and links is what there is."""

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
from voicequeue.cli.ingest.audio_rules import audio_rules
from voicequeue.domain.job import MOVES, WHEN_CANCELLING, WITH_THE_VOICE, State
from voicequeue.ingest.preflight import Rules
from voicequeue.ingest.row_reader import JOB_COLUMNS, SONG_COLUMNS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
STATES = ElementTree.parse(DOCS / "images" / "states.svg")


# ── the drawing of the states ─────────────────────────────────────────────────────────────────────


def test_the_drawing_shows_every_move_and_no_other() -> None:
    """Those that are decided on one job alone; how a job begins; and that it waits for another one's voice."""
    drawn = [(at.get("data-from"), at.get("data-to")) for at in STATES.iter() if at.get("data-from")]
    moves_of_one = (*MOVES.items(), *WHEN_CANCELLING.items())
    legal = {(str(state), str(to)) for state, moves in moves_of_one for to in moves}
    aside = {(State.QUEUED, State.WAITING), (State.WAITING, State.QUEUED)}
    assert all(to in WITH_THE_VOICE[state] for state, to in aside)

    assert len(drawn) == len(set(drawn))
    assert set(drawn) == legal | {(str(state), str(to)) for state, to in aside} | {("start", "queued")}


def test_the_drawing_shows_every_state() -> None:
    """A box for each, with its name, and one for the beginning."""
    boxes = {at.get("data-state") for at in STATES.iter() if at.get("data-state")}
    names = {at.text for at in STATES.iter() if at.get("class") == "name"}

    assert boxes == {"start", *State}
    assert names == {*State}


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_reference_names_every_column_of_a_file_once() -> None:
    """And none that is not taken."""
    told = (DOCS / "reference.md").read_text(encoding="utf-8").partition("| column | meaning |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in told.splitlines() if line.startswith("| `")]

    assert sorted(re.findall(r"`([^`]+)`", " ".join(cells))) == sorted([*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"])


# ── the settings ──────────────────────────────────────────────────────────────────────────────────


def test_the_page_of_the_settings_is_what_they_give() -> None:
    """Else somebody changed a setting without `make docs`, or the table by hand."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_every_setting_stands_once_in_a_section_and_says_what_it_means() -> None:
    """The sections begin with settings that are there."""
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
def test_what_is_allowed_is_told_in_words(name: str, default: str, allowed: str) -> None:
    """As the setting itself judges it."""
    [row] = [row for row in reference.rows() if row.name == name]

    assert (row.default, row.allowed) == (default, allowed)


def test_the_defaults_that_are_written_by_hand_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of recordings, which the command line reads: given explicitly they change nothing."""
    for row in reference.ELSEWHERE:
        if row.name.startswith("VOICEQUEUE_AUDIO_"):
            monkeypatch.setenv(row.name, row.default)
    monkeypatch.delenv("VOICEQUEUE_AUDIO_ALLOW", raising=False)
    usual = Rules()
    found = audio_rules()

    assert (found.times, found.max_bytes, found.again_s) == (usual.times, usual.max_bytes, usual.again_s)
    assert (found.at_once, found.per_host) == (usual.at_once, usual.per_host)


def test_every_variable_that_the_pages_name_is_read_by_somebody() -> None:
    """A setting that was renamed is renamed everywhere."""
    known = {row.name for row in reference.rows()}
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\b(?:VOICEQUEUE|FLOWER)_[A-Z_]*[A-Z]\b(?!_)", page.read_text(encoding="utf-8"))
    }

    assert len(named) > len(known)
    assert sorted((page, name) for page, name in named if name not in known) == []


# ── the site ──────────────────────────────────────────────────────────────────────────────────────


def test_links_that_leave_the_folder_become_names_of_files() -> None:
    """A file's own name is code; any other text is followed by the file's."""
    guard = "[the\nguard](../workers/redis_transport.py)"
    text = f"[Procfile](../Procfile), {guard}, [HTTP](../http.md), ![x](../images/x.png)"

    assert site.named(f"[Procfile](../Procfile), {guard}", "why.md") == (
        "`Procfile`, the\nguard (`workers/redis_transport.py`)"
    )
    assert site.named(text, "examples/README.md").endswith("[HTTP](../http.md), ![x](../images/x.png)")


def test_a_link_to_a_file_that_is_not_there_ends_it() -> None:
    """It would be broken on the code host, where mkdocs does not look."""
    with pytest.raises(PluginError, match=r"why.md links to ../Profile, which is not there"):
        site.named("the [processes](../Profile)", "why.md")


def built(configuration: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """The site made into a folder. `--quiet` would hide warnings from `strict` as well."""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(configuration), "--site-dir", str(into)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("link", ["nowhere.md", "concepts.md#nowhere", "#nowhere", "/concepts.md", "../nowhere.md"])
def test_a_broken_link_ends_it(tmp_path: Path, link: str) -> None:
    """A page, a heading or a file that is not there, or a path that is not relative."""
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    with (docs / "why.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[there]({link})\n")
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    configuration |= {"docs_dir": str(docs), "hooks": [str(ROOT / "config" / "site.py")]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    done = built(tmp_path / "mkdocs.yml", tmp_path / "site")

    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "why.md" in line and link in line] != []


def test_the_site_is_made_without_a_broken_link_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    """No script, style or font of its pages comes from elsewhere."""
    done = built(ROOT / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr

    pages = {page.relative_to(tmp_path).as_posix(): page.read_text("utf-8") for page in tmp_path.rglob("*.html")}
    loaded = (
        r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+//"
    )
    assert {"index.html", "runbook.html", "configuration.html", "changelog.html", "examples/index.html"} <= set(pages)
    assert [name for name, text in pages.items() if re.search(loaded, text)] == []
    assert "mermaid" not in "".join(pages.values())


def test_every_page_is_in_the_navigation() -> None:
    """Once, and under a title."""
    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = [page for entry in told for found in entry.values() for page in (_pages(found) if found else [])]

    assert sorted(named) == sorted(
        ["changelog.md", *(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))]
    )


def _pages(found: str | list[dict[str, str]]) -> list[str]:
    return [found] if isinstance(found, str) else [page for entry in found for page in entry.values()]


# ── the runbook ───────────────────────────────────────────────────────────────────────────────────


def test_every_alert_has_its_section_and_every_section_an_alert() -> None:
    """What they say is looked at in test_alerts.py."""
    groups = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]

    assert re.findall(r"^### (Voicequeue\w+)$", (DOCS / "runbook.md").read_text(encoding="utf-8"), re.M) == alerts
