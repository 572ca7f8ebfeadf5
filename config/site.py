"""What the documentation site (mkdocs.yml) needs besides pages: the changelog as one, and links that leave `docs/`.

On the code host such links lead to files. On the site there are no such files, so their names are told instead.
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
    """The changelog stands beside the other pages."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=changes))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page with the names of files where it links to what is outside of `docs/`. Raises PluginError if one is not
    there."""
    return named(markdown, page.file.src_uri)


def named(markdown: str, source: str) -> str:
    """The same for the text of the page `source`, a path below `docs/`."""

    def name(found: re.Match[str]) -> str:
        path = normpath(join("docs", dirname(source), found["target"]))
        if path.startswith("docs/"):
            return found[0]
        if not (ROOT / path).exists():
            raise PluginError(f"{source} links to {found['target']}, which is not there")
        text = found["text"].strip("`")
        return f"`{path}`" if path.endswith(text) else f"{found['text']} (`{path}`)"

    return _LINK.sub(name, markdown)
