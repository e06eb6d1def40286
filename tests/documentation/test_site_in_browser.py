"""The documentation as a site, as `make docs` writes it: in a browser, for readers with and without a screen reader.

Needs Debian's chromium; `make test-browser` installs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from cusa import cli
from cusa.config.configuration import Configuration
from cusa.config.dataset import SECTIONS

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: the site is NOT tested; make test-browser"),
]
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 400, "height": 860}
# A scheme changes colours and nothing else, so that what is not a colour is looked at once for each width.
COLOURS = ["color-contrast", "link-in-text-block"]
OF_COLOURS = {"resultTypes": ["violations"], "runOnly": COLOURS}
NOT_OF_COLOURS = {"resultTypes": ["violations"], "rules": {name: {"enabled": False} for name in COLOURS}}
# A narrow screen has other colours only in the header and the menu, which all pages share.
COLOURS_ON_A_PHONE = {"index.html", "start.html", "404.html"}
# Elements with the same tags and classes around them have the same colours; axe takes many seconds for the contrast of
# a thousand of them, such as the rows of a table and the words of code.
FEW_ALIKE = """
const alike = new Map();
for (const element of document.querySelectorAll('body *')) {
  let path = '';
  for (let outer = element; outer && outer !== document.body; outer = outer.parentElement)
    path += `${outer.tagName} ${outer.getAttribute('class')} `;
  alike.set(path, (alike.get(path) || 0) + 1);
  if (alike.get(path) > 3 && document.body.contains(element)) element.remove();
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout + done.stderr == ""
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=WIDE, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


def check(page: Page, name: str, size: dict[str, int], scheme: str, options: dict[str, object]) -> None:
    """Axe finds nothing on the page, and it is not wider than the screen."""
    page.set_viewport_size(size)
    page.evaluate("(scheme) => document.body.setAttribute('data-md-color-scheme', scheme)", scheme)
    found = Axe().run(page, options=options)
    assert found.violations_count == 0, f"{name}, {size['width']}, {scheme}: {found.generate_report()}"
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"{name} is {wider} pixels wider than a screen of {size['width']}"


def test_every_page_is_accessible_wide_and_narrow_light_and_dark(site, address, page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        page.goto(f"{address}/{name}")
        page.wait_for_function("() => !document.querySelector('.md-typeset table:not([class])') || "
                               "document.querySelector('.md-typeset__scrollwrap[tabindex]')")  # fmt: skip
        check(page, name, WIDE, "default", NOT_OF_COLOURS)
        check(page, name, PHONE, "default", NOT_OF_COLOURS)
        page.evaluate(FEW_ALIKE)
        for scheme in ("default", "slate"):
            check(page, name, WIDE, scheme, OF_COLOURS)
            if name in COLOURS_ON_A_PHONE:
                check(page, name, PHONE, scheme, OF_COLOURS)
    assert not [url for url in asked if not url.startswith((address, "data:"))], "nothing comes from other servers"


def test_the_colours_are_those_of_the_system(browser, address):
    for scheme, name in (("light", "default"), ("dark", "slate")):
        with browser.new_context(color_scheme=scheme) as context:
            page = context.new_page()
            page.goto(f"{address}/index.html")
            expect(page.locator("body")).to_have_attribute("data-md-color-scheme", name)


def test_the_search_finds_a_key_also_from_a_disk(site, address, page):
    for url in (f"{address}/index.html", (site / "index.html").as_uri()):
        page.goto(url)
        page.get_by_role("textbox", name="Search").fill("captions_per_image")
        expect(page.locator(".md-search-result__link").first).to_be_visible(timeout=30_000)  # the index is large
        assert "captions_per_image" in page.locator(".md-search-result__item").first.inner_text()


def test_a_table_scrolls_by_keyboard_on_a_phone(address, page):
    page.set_viewport_size(PHONE)
    page.goto(f"{address}/reference/configuration.html")
    table = page.get_by_role("group", name="Table, can be scrolled sideways").first
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(element) => element.scrollLeft > 0", arg=table.element_handle())


def keys(model: type, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from keys(inner, f"{prefix}{name}.")


def test_the_reference_has_every_key_of_the_configuration(site):
    text = (site / "reference/configuration.html").read_text()
    shown = set(re.findall(r"<td><code>([^<]+)</code></td>", text))
    expected = set(keys(Configuration, "")) - {"dataset"}
    for section in SECTIONS.values():
        expected |= set(keys(section, "dataset."))
    assert {key for key in expected if "." in key} <= shown
    assert "experiments.NAME.contrastive.temperature.start" in shown
    assert "teachers.more.image[].share" in shown
    assert {key for key in expected if "." not in key} <= set(re.findall(r'<h2 id="(\w+)">', text))


def test_the_reference_has_every_command_and_option(site):
    text = (site / "reference/command-line.html").read_text()
    (group,) = (action for action in cli.parser()._actions if isinstance(action.choices, dict))
    for name, command in group.choices.items():
        assert f"<code>cusa {name}</code>" in text
        for action in command._actions:
            for option in action.option_strings:
                assert option in text or option in ("-h", "--help"), f"cusa {name} {option}"


def test_the_reference_has_the_python_api(site):
    text = (site / "reference/python.html").read_text()
    for name in ("cusa.load", "cusa.losses.CUSALoss", "cusa.metrics.image_text_recall", "cusa.upstream.load_features"):
        assert f'id="{name}"' in text, name
    assert "float32 [n, D], normalised" in text
