"""Hooks of the documentation site (mkdocs.yml): the changelog as a page, and links that leave `docs/`.

On the code host such links lead to files. The site does not contain these files, so their names are shown instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<target>\.\.?/[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the changelog to the pages."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changelog = re.sub(r"\]\((?!https?:|docs/|#)", "](../", text).replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=changelog))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replace links that leave `docs/` with file names. Raises PluginError if a file does not exist."""
    return named(markdown, page.file.src_uri)


def named(markdown: str, source: str) -> str:
    """Replace such links in the text of the page `source`, a path below `docs/`. Raises PluginError."""

    def replace(link: re.Match[str]) -> str:
        path = normpath(join("docs", dirname(source), link["target"].partition("#")[0]))
        if path.startswith("docs/"):
            return link[0]
        if not (ROOT / path).exists():
            raise PluginError(f"{source} links to {link['target']}, which does not exist")
        text = link["text"].strip("`")
        return f"`{path}`" if path.endswith(text) else f"{link['text']} (`{path}`)"

    return _LINK.sub(replace, markdown)
