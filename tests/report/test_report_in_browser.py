"""The report in a browser: for readers with a screen reader, a keyboard or a phone.

Needs Debian's chromium; `make test-browser` installs it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import rendered
from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: the report is NOT tested"),
]
SCREENS = [pytest.param(width, scheme, id=f"{width}-{scheme}") for width in (1280, 400) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def address(scored_runs, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    rendered(scored_runs, folder)
    return Path(folder / "report/index.html").as_uri()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator:
    contexts = []

    def open_page(width: int, scheme: str) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_report_is_accessible_and_fits_the_screen(visit, width, scheme):
    page = visit(width, scheme)
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_headings_of_tables_are_one_line_on_a_phone(visit):
    """A heading of two lines that is out of sight would leave an empty line above those that are seen."""
    page = visit(400, "light")
    heights = page.evaluate(
        "[...document.querySelectorAll('.scroll thead')].map((head) => "
        "head.offsetHeight / parseFloat(getComputedStyle(head).lineHeight))"
    )
    assert len(heights) > 3
    assert max(heights) < 2


def test_a_table_scrolls_by_keyboard_with_its_first_column_in_sight(visit):
    page = visit(400, "light")
    table = page.get_by_role("group", name="Image-text retrieval").first
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(element) => element.scrollLeft > 0", arg=table.element_handle())
    assert page.get_by_role("rowheader", name="cusa", exact=True).first.bounding_box()["x"] >= 0


def test_plots_say_their_values(visit):
    page = visit(1280, "light")
    figures = page.locator("figure svg[role=img]")
    assert figures.count() == 3
    for number in range(3):
        assert re.search(r"\w+ from [\d.e+-]+ to [\d.e+-]+", figures.nth(number).get_attribute("aria-label"))
    for plot in page.locator(".chart .plot").all():
        assert re.search(r", over the epochs: .*cusa.* from [\d.]+ to [\d.]+", plot.get_attribute("aria-label"))
