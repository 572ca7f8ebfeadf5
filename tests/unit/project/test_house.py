"""The house: who may import whom, what is exported, what is packed, and what is committed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import voicequeue
from voicequeue.storage import scripts

ROOT = Path(__file__).parents[3]

#: What each package may import of ours, besides itself.
ALLOWED = {
    "voicequeue": set[str](),
    "simulator": set[str](),
    "config": {"voicequeue"},
    "tasks": {"voicequeue"},
    "workers": {"voicequeue", "tasks", "config"},
    "benchmarks": {"voicequeue", "tasks", "workers", "config"},
}

MODULES = [path.relative_to(ROOT) for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]
STORAGE = ROOT / "voicequeue" / "storage"
LUA = sorted((STORAGE / "scripts").glob("*.lua"))
SHARED = sorted((STORAGE / "scripts" / "lib").glob("*.lua"))

#: What each room of voicequeue may import of the others.
SHARED_BY_ALL = {"errors", "texts"}
ROOMS = {
    "texts": set[str](),
    "errors": {"texts"},
    "domain": SHARED_BY_ALL,
    "net": SHARED_BY_ALL,
    "auth": SHARED_BY_ALL,
    "ingest": SHARED_BY_ALL | {"domain", "net"},
    "storage": SHARED_BY_ALL | {"domain"},
    "client": SHARED_BY_ALL | {"domain", "storage"},
    "diagnostics": SHARED_BY_ALL | {"domain", "storage", "auth"},
    "cli": SHARED_BY_ALL | {"domain", "storage", "client", "ingest", "net", "auth", "diagnostics"},
}

#: What reaches outside of a process, or looks at a clock.
DOES_IO = {"asyncio", "http", "os", "pathlib", "redis", "requests", "socket", "subprocess", "threading", "time"}

LOCKS = sorted(ROOT.glob("requirements*.lock"))
NODE_LOCK = ROOT / "tests" / "node" / "package-lock.json"


def imported(module: Path) -> Iterator[str]:
    """The top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            yield (node.module or "").partition(".")[0]


def rooms_imported(module: Path) -> Iterator[str]:
    """The rooms of voicequeue from which a module imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "voicequeue":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voicequeue."):
            yield (node.module or "").split(".")[1]


# ── imports ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_what_its_package_may(module: Path) -> None:
    """workers → tasks → voicequeue; config knows the last alone, and workers read it; the simulator is alone."""
    package = module.parts[0]

    ours = {name for name in imported(module) if name in {*ALLOWED, "tests"}}

    assert ours <= {package} | ALLOWED[package]


@pytest.mark.parametrize("module", [module for module in MODULES if module.parts[0] == "voicequeue"][1:], ids=str)
def test_a_room_imports_only_the_rooms_below_it(module: Path) -> None:
    """domain ← storage ← client ← cli, beside them ingest, net, auth and diagnostics."""
    room = module.parts[1].removesuffix(".py")

    assert set(rooms_imported(module)) <= {room} | ROOMS[room]


@pytest.mark.parametrize(
    "module", [module for module in MODULES if module.parts[:2] == ("voicequeue", "domain")], ids=str
)
def test_the_domain_does_no_io(module: Path) -> None:
    """It computes: what it needs of the world, also the time, are arguments."""
    assert DOES_IO & set(imported(module)) == set()


def test_only_the_storage_talks_to_redis() -> None:
    """Others know redis-py's errors at most; diagnostics also ask the server about itself."""
    importing = {
        module.parts[1] for module in MODULES if module.parts[0] == "voicequeue" and "redis" in imported(module)
    }

    assert importing <= {"storage", "diagnostics", "cli"}


def test_only_workers_read_the_settings() -> None:
    """`voicequeue`, `tasks` and the simulator get what they need as arguments."""
    assert {module.parts[0] for module in MODULES if "config" in imported(module)} <= {
        "config",
        "workers",
        "benchmarks",
    }


def test_the_installed_package_imports_only_what_it_declares() -> None:
    """A producer's environment holds these dependencies and nothing else of ours: never Celery."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[<>=~ ]", dependency)[0] for dependency in project["dependencies"]}
    modules = [module for module in MODULES if module.parts[0] == "voicequeue"]

    foreign = {name for module in modules for name in imported(module)} - sys.stdlib_module_names - {"voicequeue"}

    assert {{"dotenv": "python-dotenv"}.get(name, name) for name in foreign} == declared


def test_using_the_package_loads_neither_celery_nor_the_rest_of_the_house() -> None:
    """Nor do its dependencies bring them in: the command starts fast, and installs small."""
    program = "import sys, voicequeue.cli; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout

    unwanted = {"celery", "kombu", "requests", "tasks", "workers", "config", "simulator"}
    assert unwanted & set(loaded.split()) == set()


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import voicequeue", {"celery", "requests", "aiohttp", "fsspec", "structlog", "rich", "typer", "fastapi"}),
        ("import voicequeue.cli", {"celery", "requests", "aiohttp", "fsspec", "structlog", "fastapi"}),
        ("import workers.app", {"aiohttp", "uvloop", "fastapi", "uvicorn"}),
        ("import workers.gateway.app", {"aiohttp", "uvloop"}),
    ],
    ids=["the package", "the command", "what Flower and callbacks load", "the gateway"],
)
def test_a_process_loads_nothing_large_that_it_does_not_use(program: str, unwanted: set[str]) -> None:
    """It starts faster for it: aiohttp alone is a quarter of a second, in each process that never sends an order."""
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout

    assert unwanted & set(loaded.split()) == set()


# ── the package ───────────────────────────────────────────────────────────────────────────────────


def test_all_names_exactly_what_is_exported() -> None:
    """Every public name of the package is in `__all__`, in order, and every one there exists."""
    public = {
        name
        for name, value in vars(voicequeue).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(voicequeue.__all__) == public
    assert list(voicequeue.__all__) == sorted(voicequeue.__all__)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as found:
        yield found


def test_the_wheel_holds_the_package_alone(wheel: zipfile.ZipFile) -> None:
    """`tasks`, `config` and `workers` are names that would collide in somebody's site-packages."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"voicequeue"}


def test_the_wheel_holds_everything_of_the_package(wheel: zipfile.ZipFile) -> None:
    """Every module, the mark that it is typed, and every Lua script."""
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "voicequeue").rglob("*")
        if path.suffix in {".py", ".lua"} or path.name == "py.typed"
    }

    assert {name for name in wheel.namelist() if name.startswith("voicequeue/")} == ours
    assert "voicequeue/py.typed" in ours


def test_the_wheel_works_as_it_is(wheel: zipfile.ZipFile) -> None:
    """Its scripts are found inside it, its version is told, and its command has an entry point."""
    program = (
        "import voicequeue; from voicequeue.storage import scripts;"
        "from importlib.metadata import entry_points, version;"
        "print(voicequeue.__file__, len(scripts.load('enqueue').source) > 1000, version('voicequeue'),"
        "[e.value for e in entry_points(group='console_scripts', name='voicequeue')][0])"
    )

    told = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {wheel.filename!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(str(wheel.filename)).parent,
    ).stdout.split()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert told[0].startswith(str(wheel.filename))
    assert told[1:] == ["True", project["version"], "voicequeue.cli:main"]


# ── Lua ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("script", LUA, ids=lambda path: path.name)
def test_a_script_says_what_it_does_and_takes_and_returns(script: Path) -> None:
    """Its header begins with its name and tells KEYS, ARGV and RETURNS, before any code."""
    header: list[str] = []
    for line in script.read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            break
        header.append(line)

    assert header[0].startswith(f"-- {script.stem}: ")
    told = [line.split()[1] for line in header if line.split()[1] in {"KEYS", "ARGV", "RETURNS"}]
    assert told == ["KEYS", "ARGV", "RETURNS"]


@pytest.mark.parametrize("script", LUA, ids=lambda path: path.name)
def test_a_script_does_one_thing(script: Path) -> None:
    """At most forty lines of code, and no key is written but through the shared key map."""
    code = [
        line
        for line in script.read_text(encoding="utf-8").splitlines()
        if line.strip() and "--" not in line.lstrip()[:2]
    ]

    assert len(code) <= 40
    assert not [line for line in code if "KEYS[" in line]


def test_every_script_is_run_by_the_storage() -> None:
    """None is unused, and none is missing."""
    text = "".join(path.read_text(encoding="utf-8") for path in STORAGE.rglob("*.py"))

    assert set(re.findall(r'\b(?:run|call)\([^"()]*"(\w+)"', text)) == {script.stem for script in LUA}
    for script in LUA:
        assert f"\n{script.read_text(encoding='utf-8')}\n" in scripts.load(script.stem).source


@pytest.mark.parametrize("part", SHARED, ids=lambda path: path.name)
def test_what_scripts_share_is_led_by_what_it_is_for(part: Path) -> None:
    """Each part of `lib/` begins with a comment, and only the key map names KEYS."""
    text = part.read_text(encoding="utf-8")

    assert text.startswith("-- ")
    assert ("KEYS[" in text) is (part.name == "keys.lua")
    assert text in scripts.load("admit").source


# ── what is committed ─────────────────────────────────────────────────────────────────────────────


def committed() -> list[Path]:
    """Every text file that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8_000]]


#: Written in pieces, lest this file be found by its own test.
REGISTRIES = re.compile("|".join(["py" + "pi", "pythonhosted", "npm" + "js", "index" + "-url", "find" + "-links /"]))
OF_THIS_MACHINE = re.compile(r"(?<![\w.~}-])/(?:home|Users|root|work)/")


def test_no_committed_file_names_a_package_registry() -> None:
    """Where packages come from is the business of whoever installs them."""
    assert _lines_with(REGISTRIES) == []


def test_no_committed_file_names_a_path_of_this_machine() -> None:
    """A checkout works wherever it lies."""
    assert _lines_with(OF_THIS_MACHINE) == []


def _lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in committed()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pinned_package_has_its_hashes_and_no_host(lock: Path) -> None:
    """Whatever a mirror sends is checked, and which mirror it is stays open."""
    text = lock.read_text(encoding="utf-8")
    entries = re.findall(r"^(?=\S)(?!#)(?:.*\\\n)*.*", text, flags=re.MULTILINE)

    assert entries
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.-]+==[^\s;]+( ; [^\\]+)? \\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_every_package_for_node_has_its_hash_and_no_host() -> None:
    """npm, too, checks what a mirror sends, and is told none."""
    packages = json.loads(NODE_LOCK.read_text(encoding="utf-8"))["packages"]
    ours, *theirs = packages.values()

    assert (ROOT / "tests" / "node" / "package.json").is_file()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in ours["dependencies"].values())
    assert theirs
    assert not [each for each in theirs if "resolved" in each or not each["integrity"].startswith("sha512-")]
