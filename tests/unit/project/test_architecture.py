"""The architecture: allowed imports, exports, the wheel, Lua scripts, and committed files."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import voicequeue
from voicequeue.storage import scripts
from voicequeue.storage.scripts import assembly
from voicequeue.version import VERSION

ROOT = Path(__file__).parents[3]

#: Our packages that each package may import besides itself.
ALLOWED = {
    "voicequeue": set[str](),
    "simulator": set[str](),
    "config": {"voicequeue"},
    "tasks": {"voicequeue"},
    "workers": {"voicequeue", "tasks", "config"},
    "benchmarks": {"voicequeue", "tasks", "workers", "config"},
}

MODULES = [path.relative_to(ROOT) for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]
#: A lazy function of a script, with what it needs.
LAZY_FUNCTION = re.compile(r"^function (\w+)\(\.\.\.\)\n.*?^return \1\(\.\.\.\) end$", re.MULTILINE | re.DOTALL)
STORAGE = ROOT / "voicequeue" / "storage"
LUA = sorted((STORAGE / "scripts").glob("*.lua"))
SHARED = sorted((STORAGE / "scripts" / "lib").glob("*.lua"))

#: Subpackages that each subpackage of voicequeue may import.
SHARED_BY_ALL = {"errors", "texts", "version"}
ROOMS = {
    "texts": set[str](),
    "version": set[str](),
    "errors": {"texts"},
    "domain": SHARED_BY_ALL,
    "net": SHARED_BY_ALL,
    "auth": SHARED_BY_ALL | {"domain"},
    "ingest": SHARED_BY_ALL | {"domain", "net"},
    "storage": SHARED_BY_ALL | {"domain"},
    "client": SHARED_BY_ALL | {"domain", "storage", "ingest", "net", "auth"},
    "diagnostics": SHARED_BY_ALL | {"domain", "storage", "auth"},
    "testing": SHARED_BY_ALL | {"domain", "storage", "client", "net", "auth"},
    "cli": SHARED_BY_ALL | {"domain", "storage", "client", "ingest", "net", "auth", "diagnostics"},
}

#: Modules that do I/O or read a clock.
DOES_IO = {"asyncio", "http", "os", "pathlib", "redis", "requests", "socket", "subprocess", "threading", "time"}

LOCKS = sorted(ROOT.glob("requirements*.lock"))
NODE_LOCK = ROOT / "tests" / "node" / "package-lock.json"


@cache
def imports_of(module: Path) -> tuple[str, ...]:
    """Return the dotted names that a module imports anywhere in its code."""
    names: list[str] = []
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def imported(module: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imports_of(module)}


def rooms_imported(module: Path) -> set[str]:
    """Return the subpackages of voicequeue that a module imports, and the names that the package exports."""
    return {name.split(".")[1] for name in imports_of(module) if name.startswith("voicequeue.")}


def test_files_have_at_most_four_hundred_lines() -> None:
    """A longer one has several subjects."""
    files = [path for folder in (*ALLOWED, "tests") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files}

    assert {name: length for name, length in lengths.items() if length > 400} == {}


# ── imports ───────────────────────────────────────────────────────────────────────────────────────


# One test for all modules: as many tests would take most of their time to collect.


def test_a_module_imports_only_allowed_packages() -> None:
    """workers → tasks → voicequeue; config imports only voicequeue, and workers import config; the simulator is
    independent."""
    ours = {*ALLOWED, "tests"}

    assert {
        str(module): forbidden
        for module in MODULES
        if (forbidden := imported(module) & ours - {module.parts[0]} - ALLOWED[module.parts[0]])
    } == {}


def test_a_subpackage_imports_only_the_subpackages_below_it() -> None:
    """domain ← storage ← client ← cli, with ingest, net, auth and diagnostics beside them."""
    rooms = {
        module: module.parts[1].removesuffix(".py")
        for module in MODULES
        if module.parts[0] == "voicequeue" and module.parts[1] != "__init__.py"
    }

    assert {
        str(module): forbidden
        for module, room in rooms.items()
        if (forbidden := rooms_imported(module) - {room} - ROOMS[room])
    } == {}


def test_the_domain_does_no_io() -> None:
    """It computes; its inputs, the time included, are arguments."""
    domain = [module for module in MODULES if module.parts[:2] == ("voicequeue", "domain")]

    assert {str(module): io for module in domain if (io := DOES_IO & imported(module))} == {}


def test_only_the_storage_uses_redis() -> None:
    """Others use redis-py's errors at most; diagnostics also query the server."""
    importing = {
        module.parts[1] for module in MODULES if module.parts[0] == "voicequeue" and "redis" in imported(module)
    }

    assert importing <= {"storage", "diagnostics", "cli"}


def test_only_workers_read_the_settings() -> None:
    """`voicequeue`, `tasks` and the simulator receive settings as arguments."""
    assert {module.parts[0] for module in MODULES if "config" in imported(module)} <= {
        "config",
        "workers",
        "benchmarks",
    }


def test_the_installed_package_imports_only_its_declared_dependencies() -> None:
    """A producer's environment has only these dependencies, in particular no Celery. openpyxl is an extra."""
    modules = [module for module in MODULES if module.parts[0] == "voicequeue" and module.parts[1] != "testing"]

    assert foreign_packages(modules) == declared_packages("dependencies", "excel")


def test_testing_imports_only_the_dependencies_of_its_extra() -> None:
    """And pytest, which loads its plugin. The simulator needs the others of the extra."""
    modules = [module for module in MODULES if module.parts[:2] == ("voicequeue", "testing")]

    assert foreign_packages(modules) <= declared_packages("dev") | {"pytest"}


def foreign_packages(modules: list[Path]) -> set[str]:
    """Return the names of the packages of others that modules import."""
    foreign = {name for module in modules for name in imported(module)} - sys.stdlib_module_names - {"voicequeue"}
    names = {"dotenv": "python-dotenv", "charset_normalizer": "charset-normalizer"}
    return {names.get(name, name) for name in foreign}


def declared_packages(*groups: str) -> set[str]:
    """Return the names of the packages that the project requires, in general and in these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [
        project["dependencies"] if group == "dependencies" else project["optional-dependencies"][group]
        for group in groups
    ]
    return {re.split(r"[\[<>=~ ]", dependency)[0] for dependencies in lists for dependency in dependencies}


# ── the package ───────────────────────────────────────────────────────────────────────────────────


def test_dunder_all_lists_exactly_the_exported_names() -> None:
    """Every public name of the package, sorted: those that type checkers see, and those that are imported on use."""
    tree = ast.parse(Path(voicequeue.__file__).read_text(encoding="utf-8"))
    seen_by_checkers = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    imported_on_use = {name: f"voicequeue.{module}" for module, names in voicequeue._EXPORTS.items() for name in names}

    assert imported_on_use == seen_by_checkers
    assert list(voicequeue.__all__) == sorted(imported_on_use)
    assert set(voicequeue.__all__) <= set(dir(voicequeue))
    assert [name for name in voicequeue.__all__ if getattr(voicequeue, name, None) is None] == []
    assert not hasattr(voicequeue, "NoSuchName")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Yield the wheel, built from this checkout without network access."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_contains_only_the_package(wheel: zipfile.ZipFile) -> None:
    """`tasks`, `config` and `workers` could collide with other packages in site-packages."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"voicequeue"}


def test_the_wheel_contains_the_whole_package(wheel: zipfile.ZipFile) -> None:
    """Every module, the py.typed marker, every Lua script, and the simulator."""
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "voicequeue").rglob("*")
        if path.suffix in {".py", ".lua"} or path.name == "py.typed"
    }

    bundled = {
        f"voicequeue/bundled/{path.relative_to(ROOT)}"
        for path in (ROOT / "simulator").rglob("*")
        if path.suffix in {".py", ".md"}
    }
    assert {name for name in wheel.namelist() if name.startswith("voicequeue/")} == ours | bundled
    assert "voicequeue/py.typed" in ours


def test_the_wheel_works_without_installation(wheel: zipfile.ZipFile) -> None:
    """Its scripts load from inside it, it has a version, and its command has an entry point."""
    program = (
        "import voicequeue; from voicequeue.storage import scripts;"
        "from importlib.metadata import entry_points; from voicequeue.version import VERSION;"
        "print(voicequeue.__file__, len(scripts.load('enqueue').source) > 1000, VERSION,"
        "[e.value for e in entry_points(group='console_scripts', name='voicequeue')][0])"
    )

    output = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {wheel.filename!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(str(wheel.filename)).parent,
    ).stdout.split()

    assert output[0].startswith(str(wheel.filename))
    assert output[1:] == ["True", VERSION, "voicequeue.cli:main"]


# ── Lua ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_script_documents_its_purpose_arguments_and_result() -> None:
    """Its header starts with its name and documents KEYS, ARGV and RETURNS, before any code."""
    for script in LUA:
        header: list[str] = []
        for line in script.read_text(encoding="utf-8").splitlines():
            if not line.startswith("--"):
                break
            header.append(line)

        assert header[0].startswith(f"-- {script.stem}: "), script.name
        sections = [line.split()[1] for line in header if line.split()[1] in {"KEYS", "ARGV", "RETURNS"}]
        assert sections == ["KEYS", "ARGV", "RETURNS"], script.name


def test_a_script_does_one_thing() -> None:
    """At most forty lines of code, and keys only through the shared key map."""
    for script in LUA:
        code = [
            line
            for line in script.read_text(encoding="utf-8").splitlines()
            if line.strip() and "--" not in line.lstrip()[:2]
        ]

        assert len(code) <= 40, script.name
        assert not [line for line in code if "KEYS[" in line], script.name


def test_every_script_is_run_by_the_storage() -> None:
    """Every script is used, and every used script exists."""
    text = "".join(path.read_text(encoding="utf-8") for path in STORAGE.rglob("*.py"))

    assert set(re.findall(r'\b(?:run\w*|prepare_script)\([^"()]*"(\w+)"', text)) == {script.stem for script in LUA}
    for script in LUA:
        assert f"\n{script.read_text(encoding='utf-8')}\n" in scripts.load(script.stem).source


def test_a_shared_script_consists_of_definitions_that_are_used() -> None:
    """Each part of `lib/` starts with a comment, is read completely, and only the key map uses KEYS."""
    for part in SHARED:
        text = part.read_text(encoding="utf-8")
        rest = assembly.DEFINITION.sub("", text).splitlines()
        sources = [scripts.load(script.stem).source for script in LUA]
        definitions = assembly.definitions_of(text)

        assert text.startswith("-- "), part.name
        assert ("KEYS[" in text) is (part.name == "keys.lua"), part.name
        assert not [line for line in rest if line and not line.startswith("--")], part.name
        for definition in definitions:
            inside_another = definition.text.replace("local function", "function", 1)
            assert any(definition.text in source or inside_another in source for source in sources), definition.names


def test_a_script_has_every_shared_name_that_it_uses() -> None:
    """A script has the definitions that it needs, and fewer local variables than the 200 that Lua allows."""
    for script in LUA:
        source = scripts.load(script.stem).source
        defined = set(re.findall(r"^function (\w+)", source, re.MULTILINE)).union(assembly.names_of(source))
        code = "\n".join(line.partition("--")[0] for line in source.splitlines())
        shared = {name for part in SHARED for name in assembly.names_of(part.read_text(encoding="utf-8"))}

        assert shared.intersection(re.findall(r"(?<![.:\w])(\w+)\(", code)) <= defined, script.name
        assert len(assembly.names_of(LAZY_FUNCTION.sub("", source))) <= 150, script.name


def test_a_lazy_function_is_only_called() -> None:
    """Its name denotes another function from its first call on, so it is not passed on as a value."""
    code = "\n".join(line.partition("--")[0] for part in SHARED + LUA for line in part.read_text("utf-8").splitlines())

    for name in assembly.LAZY:
        assert code.count(f"local function {name}(") == 1, name
        assert not re.findall(rf"\b{name}\b[^(]", code), name


# ── committed files ───────────────────────────────────────────────────────────────────────────────


def committed() -> list[Path]:
    """Return every text file in git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8_000]]


#: Written in pieces, so that this file does not match.
REGISTRIES = re.compile("|".join(["py" + "pi", "pythonhosted", "npm" + "js", "index" + "-url", "find" + "-links /"]))
OF_THIS_MACHINE = re.compile(r"(?<![\w.~}-])/(?:home|Users|root|work)/")


def test_no_committed_file_names_a_package_registry() -> None:
    """Each installation chooses its own package index."""
    assert _lines_with(REGISTRIES) == []


def test_no_committed_file_names_a_path_of_this_machine() -> None:
    """A checkout works in any folder."""
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
    """Packages are verified by hash, and any mirror can be used."""
    text = lock.read_text(encoding="utf-8")
    entries = re.findall(r"^(?=\S)(?!#)(?:.*\\\n)*.*", text, flags=re.MULTILINE)

    assert entries
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.-]+==[^\s;]+( ; [^\\]+)? \\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_every_package_for_node_has_its_hash_and_no_host() -> None:
    """npm verifies packages by hash too, and any mirror can be used."""
    packages = json.loads(NODE_LOCK.read_text(encoding="utf-8"))["packages"]
    ours, *theirs = packages.values()

    assert (ROOT / "tests" / "node" / "package.json").is_file()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in ours["dependencies"].values())
    assert theirs
    assert not [
        package for package in theirs if "resolved" in package or not package["integrity"].startswith("sha512-")
    ]
