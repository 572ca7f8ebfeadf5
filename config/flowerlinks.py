"""Links between Flower's tasks and the pages of their jobs: a script in each of Flower's pages.

Flower has no setting for that, so its base template gets the script when it is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path

from tornado.template import Loader, Template

_SCRIPT = Path(__file__).with_name("flower_links.js")

#: The template of all of Flower's pages, and the place in it for the script.
BASE, END = "base.html", "</body>"


class LinkingLoader(Loader):
    """Loads Flower's templates with the script. `page_url` is that of the job page; empty: no links to it."""

    def __init__(self, root: str, page_url: str) -> None:
        super().__init__(root)
        # Not within braces, which Tornado's templates would evaluate; `<` could end the script.
        address = json.dumps(page_url.rstrip("/")).replace("<", "\\u003c").replace("{", "\\u007b")
        script = _SCRIPT.read_text(encoding="utf-8")
        self._script = f"<script>\nconst JOB_PAGE = {address};\n{script}</script>\n"

    def _create_template(self, name: str) -> Template:
        if name != BASE:
            return super()._create_template(name)
        text = Path(self.root, name).read_text(encoding="utf-8")
        return Template(text.replace(END, f"{self._script}{END}"), name=name, loader=self)
