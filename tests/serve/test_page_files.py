"""The files of the search page without a browser: what they name exists, and nothing comes from elsewhere."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

import cusa

PAGE = Path(cusa.__file__).parent / "serve/page"
HTML = (PAGE / "index.html").read_text()
CSS = (PAGE / "page.css").read_text()
SCRIPTS = {path.name: path.read_text() for path in sorted(PAGE.glob("*.js"))}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style"):
            self.inline += data.strip()


ELEMENTS = Elements(HTML)
IDS = {attributes["id"] for _, attributes in ELEMENTS.found if "id" in attributes}


def test_the_page_keeps_to_the_policy_that_the_server_sends():
    """No script, style or listener stands in the HTML, and scripts make none."""
    assert ELEMENTS.inline == ""
    for tag, attributes in ELEMENTS.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
    for name, text in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|cssText", text), name


def test_nothing_comes_from_elsewhere():
    namespaces = {"http://www.w3.org/2000/svg"}
    for name, text in {"index.html": HTML, "page.css": CSS, **SCRIPTS}.items():
        assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= namespaces, name
    assert "@import" not in CSS
    assert "url(" not in CSS


def test_what_the_page_links_to_exists():
    linked = [attributes.get("src") or attributes.get("href") for tag, attributes in ELEMENTS.found if tag != "use"]
    files = [name.removeprefix("page/") for name in linked if name and name.startswith("page/")]
    assert {"page.css", "page.js", "icon.svg"} <= set(files)
    for name in files:
        assert (PAGE / name).is_file(), name
    # Relative, so that the page can lie below a path of another server.
    assert not [name for name in linked if name and name.startswith("/")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_scripts_import_and_look_up_exists(name):
    text = SCRIPTS[name]
    for names, source in re.findall(r"^import (.+) from \"\./([\w.]+)\";", text, flags=re.M):
        exported = set(re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", SCRIPTS[source], flags=re.M))
        if names.startswith("* as "):
            used = set(re.findall(rf"(?<![.\w]){names.removeprefix('* as ')}\.(\w+)\(", text))
        else:
            used = {part.strip().split(" as ")[0] for part in names.strip("{} ").split(",")}
        assert used <= exported, f"{name} uses {used - exported} of {source}"
    assert set(re.findall(r"byId\(\"([\w-]+)\"\)", text)) - {"detail-title"} <= IDS
    symbols = set(re.findall(r"\bicon\(\"([\w-]+)\"\)", text))
    assert {f"icon-{symbol}" for symbol in symbols} <= IDS


def test_labels_and_symbols_of_the_page_exist():
    for _, attributes in ELEMENTS.found:
        for name in ("for", "aria-controls", "aria-labelledby"):
            if attributes.get(name) not in (None, "detail-title"):
                assert attributes[name] in IDS
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in IDS


def test_colours_are_defined_for_light_and_dark():
    light, dark = re.findall(r":root \{(.*?)\}", CSS, flags=re.S)
    names = set(re.findall(r"(--[\w-]+):", light))
    assert names == set(re.findall(r"(--[\w-]+):", dark))
    set_by_scripts = {"--width", "--height"}
    assert set(re.findall(r"var\((--[\w-]+)\)", CSS)) <= names | set_by_scripts


def test_the_installed_package_has_the_page():
    """The wheel has all that is in src/cusa, and leaves out nothing of it."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    wheel = tomllib.loads(text)["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["src/cusa"]
    assert "exclude" not in wheel
