"""Pictures of the search page, for these pages and for looking at: every view, wide and narrow, light and dark.

cusa serve results/openmoji/runs/{contrastive,cusa}/seed23/search/all --port 8000
python docs/make_screenshots.py http://127.0.0.1:8000/ screenshots --docs docs/search.png

Needs playwright and a chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SIZES = {"wide": (1280, 860), "phone": (400, 860)}
SHOWN_IN_DOCS = ("two", "wide", "light")


def main() -> None:
    """Take the screenshots that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of a running `cusa serve`, with two indexes of the same pictures")
    parser.add_argument("folder", type=Path, help="folder for the screenshots, {view}-{size}-{scheme}.png")
    parser.add_argument("--text", default="music", help="the text query")
    parser.add_argument(
        "--picture", type=Path, default=Path("results/openmoji/images/1F981.png"), help="to search with"
    )
    parser.add_argument("--docs", type=Path, help="write two models, wide and light, as a small PNG here")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for size in SIZES:
            for scheme in ("light", "dark"):
                for view, page in views(browser, arguments, size, scheme):
                    page.wait_for_load_state("networkidle")
                    taken = page.screenshot()
                    (arguments.folder / f"{view}-{size}-{scheme}.png").write_bytes(taken)
                    if arguments.docs and (view, size, scheme) == SHOWN_IN_DOCS:
                        write_small(taken, arguments.docs)


def views(browser: Browser, arguments: argparse.Namespace, size: str, scheme: str) -> Iterator[tuple[str, Page]]:
    """The names of all views, each with the page as it shows it."""
    width, height = SIZES[size]
    phone = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2} if size == "phone" else {}
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **phone
    )
    page = context.new_page()
    page.goto(arguments.url)
    page.get_by_role("list", name="Example pictures").wait_for()
    yield "start", page
    left, right = page.locator("#index option").all_inner_texts()[:2]
    page.goto(f"{arguments.url}?{urlencode({'q': arguments.text, 'index': right, 'beside': ''})}")
    page.locator(".tile").first.wait_for()
    yield "text", page
    page.locator(".tile .open").nth(1).click()
    page.locator("#detail").get_by_role("heading").wait_for()
    yield "detail", page
    page.goto(f"{arguments.url}?{urlencode({'q': arguments.text, 'index': left, 'beside': right})}")
    page.locator('[data-side="right"] .tile').first.wait_for()
    yield "two", page
    page.goto(f"{arguments.url}?{urlencode({'index': right, 'beside': ''})}")
    page.get_by_role("list", name="Example pictures").wait_for()
    page.locator("#file").set_input_files(arguments.picture)
    page.locator(".tile").first.wait_for()
    yield "picture", page
    context.close()


def write_small(png: bytes, path: Path) -> None:
    """Write a screenshot in 256 colours, which its flat areas hardly show and which is a third of the size."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
