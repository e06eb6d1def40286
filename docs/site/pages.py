"""What the site has besides docs/: pages of the repository, the reference, and links that lead from one to the other.

A hook of MkDocs (https://www.mkdocs.org/user-guide/configuration/#hooks). On GitHub the same pages are read as they
are, so links are those of the repository, and are changed here to those of the site.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import reference

ROOT = Path(__file__).parents[2]
# Pages of the repository that are not in docs/, and their places in the site.
PAGES = {
    "README.md": "index.md",
    "config/README.md": "configuration.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
WRITTEN = {
    "reference/configuration.md": reference.configuration,
    "reference/command-line.md": reference.command_line,
}
PLACE = "<!-- written from the code -->"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
FENCED = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository that are not in docs/."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is written from the code, and change links of the repository to those of the site."""
    place = page.file.src_uri
    if place in WRITTEN:
        if PLACE not in markdown:
            raise PluginError(f"docs/{place} has no line {PLACE!r}, in whose place the reference belongs.")
        markdown = markdown.replace(PLACE, WRITTEN[place]())
    source = next((name for name, there in PAGES.items() if there == place), f"docs/{place}")
    kept = list(FENCED.finditer(markdown))
    pieces, end = [], 0
    for code in kept:
        pieces += [_linked(markdown[end : code.start()], source, place), code[0]]
        end = code.end()
    return "".join([*pieces, _linked(markdown[end:], source, place)])


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """An empty corner of a table is not a heading."""
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Mend a page as `_accessible` does."""
    return _accessible(output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Mend 404.html in the same way."""
    return _accessible(output_content) if template_name.endswith(".html") else output_content


def _accessible(output: str) -> str:
    """Mend what Material leaves without a name, or names twice: its search, and lists within its navigation."""
    named = output.replace('role="dialog">', 'role="dialog" aria-label="Search">')
    nested = r'<nav class="md-nav"( data-md-level="\d+")? aria-label(?:ledby)?="[^"]*"(?: aria-expanded="\w+")?>'
    return re.sub(nested, r'<nav class="md-nav" role="none"\1>', named)


def _linked(text: str, source: str, place: str) -> str:
    """`text` of the repository's file `source` with links that fit the page at `place` of the site."""

    def change(link: re.Match[str]) -> str:
        picture, words, target, section = link[1], link[2], link[3], link[4] or ""
        if not target:
            return link[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / there).exists():
            raise PluginError(f"{source} has a link to {target}, which does not exist.")
        if there not in PAGES and not there.startswith("docs/"):
            return words  # a file of the repository that is not a page: its name is enough
        page = PAGES.get(there, there.removeprefix("docs/"))
        return f"{picture}[{words}]({posixpath.relpath(page, posixpath.dirname(place) or '.')}{section})"

    return LINK.sub(change, text)
