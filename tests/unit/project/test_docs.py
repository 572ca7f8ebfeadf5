"""The documentation: its drawing, lists and links match the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from mkdocs.exceptions import PluginError

from benchmarks import sizing
from config import reference, site
from config.settings import setting_names
from voicequeue.domain.states import CANCELLING_TRANSITIONS, SHARED_VOICE_TRANSITIONS, TRANSITIONS, State
from voicequeue.ingest.audio_settings import AUDIO_SETTINGS, rules_from
from voicequeue.ingest.preflight import RecordingRules
from voicequeue.ingest.row import JOB_COLUMNS, SONG_COLUMNS
from voicequeue.version import BUILD_VARIABLE
from workers.doctor import known_settings

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
STATES = ElementTree.parse(DOCS / "images" / "states.svg")


# ── the drawing of the states ─────────────────────────────────────────────────────────────────────


def test_the_drawing_shows_every_transition_and_no_other() -> None:
    """It shows the transitions of a single job, the start, and waiting for another job's voice."""
    drawn = [(at.get("data-from"), at.get("data-to")) for at in STATES.iter() if at.get("data-from")]
    moves_of_one = (*TRANSITIONS.items(), *CANCELLING_TRANSITIONS.items())
    legal = {(str(state), str(to)) for state, moves in moves_of_one for to in moves}
    aside = {(State.QUEUED, State.WAITING), (State.WAITING, State.QUEUED)}
    assert all(to in SHARED_VOICE_TRANSITIONS[state] for state, to in aside)

    assert len(drawn) == len(set(drawn))
    assert set(drawn) == legal | {(str(state), str(to)) for state, to in aside} | {("start", "queued")}


def test_the_drawing_shows_every_state() -> None:
    """Each state has a box with its name; the start has one too."""
    boxes = {at.get("data-state") for at in STATES.iter() if at.get("data-state")}
    names = {at.text for at in STATES.iter() if at.get("class") == "name"}

    assert boxes == {"start", *State}
    assert names == {*State}


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_reference_names_every_column_of_a_file_once() -> None:
    """It names no other column."""
    table = (
        (DOCS / "reference" / "files.md")
        .read_text(encoding="utf-8")
        .partition("| column | meaning |")[2]
        .partition("\n\n")[0]
    )
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]

    assert sorted(re.findall(r"`([^`]+)`", " ".join(cells))) == sorted([*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"])


def test_the_arithmetic_of_scaling_is_that_of_the_benchmarks() -> None:
    """`python -m benchmarks.sizing` prints the same figures for the same load."""
    rows = [sizing.needs(jobs, sizing.Load()) for jobs in (10_000, 1_000_000)]
    expected = [f"| {name} | {rows[0][name]} | {rows[1][name]} |" for name in rows[0]]
    table = (
        (DOCS / "explanation" / "scaling.md")
        .read_text(encoding="utf-8")
        .partition("| jobs a day |")[2]
        .partition("\n\n")[0]
    )

    assert table.splitlines()[2:] == expected


# ── the settings ──────────────────────────────────────────────────────────────────────────────────


def test_the_page_of_the_settings_is_up_to_date() -> None:
    """After changing a setting, run `make docs`; do not edit the tables."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make docs`"


def test_every_setting_is_documented_once_with_its_limits_and_meaning() -> None:
    """Each class of settings, the audio settings and the local ones are on the page."""
    rows = reference.rows()
    names = [row.name for row in rows]

    assert len(names) == len(set(names))
    assert set(names) >= setting_names() | {setting.name for setting in AUDIO_SETTINGS}
    assert [row.name for row in rows if not (row.allowed and row.description)] == []
    assert [row for row in rows if "|" in "".join(row)] == []


@pytest.mark.parametrize(
    ("name", "default", "allowed"),
    [
        ("REDIS_URL", "`redis://localhost:6379/0`", "text; as a file: `REDIS_URL_FILE`"),
        ("VOICEQUEUE_PUBLIC_URL", "", "`http://` or `https://` URL"),
        ("VOICEQUEUE_SUBMIT_RATE", "", "number ≥ 0.01"),
        ("VOICEQUEUE_MAX_IN_FLIGHT", "100", "whole number ≥ 1"),
        ("VOICEQUEUE_TASK_CHUNK_SIZE", "100", "whole number from 1 to 500"),
        ("VOICEQUEUE_POLL_MAX_INTERVAL_S", "25", "number > 0, ≤ 60"),
        ("VOICEQUEUE_UNSURE_POLICY", "`review`", "`review` or `resubmit`"),
        ("VOICEQUEUE_REUSE_VOICES", "`false`", "`true` or `false`"),
        ("VOICEQUEUE_ARCHIVE_RETRY_WINDOW_S", "259200", "number > 0"),
        ("VOICEQUEUE_ARCHIVE_MIN_BYTES_PER_S", "4096", "number ≥ 0"),
        ("FLOWER_DB", "", "path"),
    ],
)
def test_the_limits_of_a_setting_are_given_in_words(name: str, default: str, allowed: str) -> None:
    """They are derived from its validation."""
    [row] = [row for row in reference.rows() if row.name == name]

    assert (row.default, row.allowed) == (default, allowed)


def test_the_documented_audio_defaults_are_the_rules_of_preflight() -> None:
    """Set explicitly, they change nothing."""
    names = {setting.name for setting in AUDIO_SETTINGS}
    documented = {row.name: row.default for row in reference.rows() if row.name in names}
    defaults = RecordingRules()

    rules = rules_from(documented)

    assert (rules.timeouts, rules.max_bytes, rules.retry_delay_s) == (
        defaults.timeouts,
        defaults.max_bytes,
        defaults.retry_delay_s,
    )
    assert (rules.max_concurrent, rules.max_per_host) == (defaults.max_concurrent, defaults.max_per_host)


def test_every_variable_that_the_pages_name_is_a_setting() -> None:
    """A renamed setting is renamed everywhere."""
    existing = known_settings() | {BUILD_VARIABLE}
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\b(?:VOICEQUEUE|FLOWER)_[A-Z_]*[A-Z]\b(?!_)", page.read_text(encoding="utf-8"))
    }

    assert len(named) > len(existing)
    assert sorted((page, name) for page, name in named if name not in existing) == []


# ── the site ──────────────────────────────────────────────────────────────────────────────────────


def test_links_that_leave_the_folder_become_file_names() -> None:
    """A text that is the file's name becomes code; any other text is followed by the name."""
    guard = "[the\nguard](../workers/messaging/redis_transport.py)"
    text = f"[Procfile](../Procfile), {guard}, [HTTP](../http.md), ![x](../images/x.png)"

    assert site.named(f"[Procfile](../Procfile), {guard}", "why.md") == (
        "`Procfile`, the\nguard (`workers/messaging/redis_transport.py`)"
    )
    assert site.named(text, "examples/README.md").endswith("[HTTP](../http.md), ![x](../images/x.png)")


def test_a_link_to_a_heading_of_a_file_names_the_file() -> None:
    """The site has no such heading."""
    assert site.named("[its](../simulator/README.md#control-port)", "why.md") == "its (`simulator/README.md`)"


def test_a_link_to_a_missing_file_fails_the_build() -> None:
    """It would be broken on the code host, which mkdocs does not check."""
    with pytest.raises(PluginError, match=r"why.md links to ../Profile, which does not exist"):
        site.named("the [processes](../Profile)", "why.md")


def built(configuration: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site into a folder. `--quiet` would hide warnings from `strict` as well."""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(configuration), "--site-dir", str(into)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


#: Links to missing pages, headings and files, and an absolute path.
BROKEN = ["nowhere.md", "concepts.md#nowhere", "#nowhere", "/concepts.md", "../nowhere.md"]


@pytest.mark.endurance
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """Each is reported as a warning, and a warning fails the build; a site of two pages has the same rules."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "concepts.md").write_text("# Concepts\n", encoding="utf-8")
    links = "\n".join(f"[there]({link})" for link in BROKEN)
    (docs / "why.md").write_text(f"# Why\n\n{links}\n", encoding="utf-8")
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    configuration |= {"docs_dir": str(docs), "hooks": [], "plugins": [], "extra_css": []}
    configuration["nav"] = [{"Concepts": "concepts.md"}, {"Why": "why.md"}]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    done = built(tmp_path / "mkdocs.yml", tmp_path / "site")

    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if "why.md" in line and line.startswith("WARNING")]
    assert [link for link in BROKEN if not any(f"'{link}'" in line for line in warnings)] == []
    assert f"Aborted with {len(BROKEN)} warnings" in done.stdout + done.stderr


def test_every_page_is_in_the_navigation() -> None:
    """Each page is listed once, under a title."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = [page for entry in navigation for item in entry.values() for page in (_pages(item) if item else [])]

    assert sorted(named) == sorted(
        ["changelog.md", *(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))]
    )


def _pages(item: str | list[dict[str, Any]]) -> list[str]:
    return [item] if isinstance(item, str) else [page for part in item for of in part.values() for page in _pages(of)]


# ── the runbook ───────────────────────────────────────────────────────────────────────────────────


def test_every_alert_has_its_section_and_every_section_an_alert() -> None:
    """test_alerts.py checks their content."""
    groups = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]

    assert (
        re.findall(r"^### (Voicequeue\w+)$", (DOCS / "guides" / "runbook.md").read_text(encoding="utf-8"), re.M)
        == alerts
    )


# ── the guide for contributors ────────────────────────────────────────────────────────────────────

#: Folders that the guide leaves out in front of a file's name.
IMPLIED = (
    "",
    "voicequeue",
    "voicequeue/storage",
    "voicequeue/storage/scripts",
    "workers/gateway",
    "tests",
    "tests/unit/project",
)


def test_every_file_that_the_guide_names_exists() -> None:
    """A module that moves is renamed there too."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]+(?:\.(?:py|lua|md|svg|yml|html)|/))`", guide))

    assert len(named) > 50
    assert [name for name in sorted(named) if not any((ROOT / folder / name).exists() for folder in IMPLIED)] == []
