"""The language of code and documentation: plain technical English, without archaic idiom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.project import language

ROOT = Path(__file__).parents[3]
SUFFIXES = {".py", ".lua", ".md", ".yml", ".html", ".js", ".yaml", ".service"}

#: Everything that people read, besides the history of changes.
PLACES = (
    "voicequeue",
    "tasks",
    "workers",
    "config",
    "deploy",
    "simulator",
    "benchmarks",
    "tests",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
)

#: The lists of banned words.
EXEMPT = {Path(language.__file__), Path(__file__)}


def _files(place: str) -> list[Path]:
    """Return the checked files of a folder, or the file itself."""
    path = ROOT / place
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    ours = (file for file in files if "node_modules" not in file.parts)
    return [file for file in ours if file.suffix in SUFFIXES and file not in EXEMPT]


def _report(findings: list[language.Finding]) -> str:
    return "\n".join(str(finding).removeprefix(f"{ROOT}/") for finding in findings)


@pytest.mark.parametrize("place", PLACES)
def test_code_and_documentation_are_written_in_plain_language(place: str) -> None:
    """Docstrings open with a verb or a noun, no text uses a banned word, and variables are nouns of their content."""
    findings = [finding for file in _files(place) for finding in language.findings_of(file)]

    assert findings == [], _report(findings)


def test_the_public_parts_of_the_library_are_documented() -> None:
    """Each public module, class and function of voicequeue/ has a docstring."""
    findings = [
        finding for file in _files("voicequeue") if file.suffix == ".py" for finding in language.undocumented(file)
    ]

    assert findings == [], _report(findings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('"""Whether it works."""', "a docstring that opens with 'whether'"),
        ('def f():\n    """The jobs."""', "a docstring that opens with 'the'"),
        ('def f():\n    """Jobs of a batch."""', "a docstring that opens with 'jobs'"),
        ("# nobody reads it", "the word 'nobody'"),
        ('raise ValueError("it goes on")', "the word 'goes on'"),
        ("told = 1", "the name 'told'"),
        ("def f(each): ...", "the name 'each'"),
        ('def f():\n    """An answer."""', "a docstring that opens with 'an'"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, text: str, problem: str) -> None:
    """In docstrings, comments, texts and names."""
    file = tmp_path / "module.py"
    file.write_text(text, encoding="utf-8")

    assert [finding.problem for finding in language.findings_of(file)] == [problem]


@pytest.mark.parametrize(
    "text",
    [
        '"""A page of jobs."""',
        'def f():\n    """Process a batch."""',
        'class A:\n    @property\n    def x(self):\n        """The jobs."""',
        'def test_f():\n    """The jobs are returned."""',
        "job_ids = [job.id for job in jobs]",
        "# at all times",
    ],
)
def test_plain_language_is_accepted(tmp_path: Path, text: str) -> None:
    """Noun phrases for modules, classes and properties, imperatives for functions, any sentence for tests."""
    file = tmp_path / "module.py"
    file.write_text(text, encoding="utf-8")

    assert language.findings_of(file) == []


def test_only_the_comments_of_a_script_are_checked(tmp_path: Path) -> None:
    """Names in Lua are checked by the tools for Redis keys and fields."""
    file = tmp_path / "script.lua"
    file.write_text("local told = 1\n-- and nobody reads it\n", encoding="utf-8")

    assert [(finding.line, finding.problem) for finding in language.findings_of(file)] == [(2, "the word 'nobody'")]
