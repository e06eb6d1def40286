"""The page of `cusa serve` in a browser, on a server with small models, as its users meet it.

Needs Debian's chromium; `make test-browser` installs it.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

import cusa
from cusa.gallery.items import items_table
from cusa.gallery.store import write_gallery
from cusa.index.build import build_index

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: the page is NOT tested; make test-browser"),
]
TOKEN = "a-token-of-the-tests"
PATIENCE = 30_000  # milliseconds; a browser that shares two cores is slow
HARMFUL = '<img src="x" onerror="document.title=1"><b>bold</b>'
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 400, "height": 860}


@dataclass(frozen=True)
class Data:
    """The pictures that are searched: their names, files, captions and columns, in row order."""

    paths: list[Path]
    captions: list[list[str]]
    split: list[str]
    shape: list[str]

    @property
    def items(self) -> list[str]:
        return [path.name for path in self.paths]


@dataclass(frozen=True)
class Server:
    """A running server and what it serves."""

    url: str
    data: Data

    def api(self, path: str, **fields: object) -> dict:
        """What the API says, in a program's words."""
        answer = httpx.get(self.url + path, params=fields, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
        answer.raise_for_status()
        return answer.json()


@dataclass
class Visit:
    """A page of a browser, what went wrong on it, and ways to look at it."""

    page: Page
    server: Server
    problems: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> Visit:
        self.page.goto(self.server.url + query)
        return self

    def search(self, text: str) -> None:
        self.page.get_by_role("searchbox").fill(text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(re.compile(r"[?&]q="))
        expect(self.status).to_contain_text("ms")

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status").first

    def tiles(self, side: str = "left") -> Locator:
        return self.page.locator(f'[data-side="{side}"] .tile')

    def names(self, side: str = "left") -> list[str]:
        self.tiles(side).first.wait_for()
        return self.tiles(side).locator(".caption").all_inner_texts()

    @property
    def detail(self) -> Locator:
        return self.page.locator("#detail")

    @property
    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def _data(shapes: Path, folder: Path) -> Data:
    """The 48 shapes, and pictures that a page may stumble over: wide, high, transparent, a caption of HTML."""
    data = Data([], [], [], [])

    def add(path: Path, captions: list[str], split: str, shape: str) -> None:
        for values, value in zip((data.paths, data.captions, data.split, data.shape), (path, captions, split, shape)):  # noqa: B905
            values.append(value)

    for split in ("train", "val", "test"):
        captions: dict[str, list[str]] = {}
        for row in json.loads((shapes / f"{split}.json").read_text()):
            captions.setdefault(row["image_path"], []).append(row["caption"])
        for name, texts in captions.items():
            add(shapes / name, texts, split, Path(name).stem.split("_")[1])
    for name, size in (("wide.png", (640, 90)), ("high.png", (60, 240))):
        Image.new("RGB", size, "#a2a").save(folder / name)
        add(folder / name, [f"a purple bar, {name[:4]}"], "test", "bar")
    ring = Image.new("RGBA", (90, 90), (0, 0, 0, 0))
    ImageDraw.Draw(ring).ellipse((10, 10, 80, 80), outline="black", width=6)
    ring.save(folder / "ring.png")
    add(folder / "ring.png", [HARMFUL], "test", "circle")
    return data


@pytest.fixture(scope="module")
def server(scored_runs, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`cusa serve` with a token, over the pictures under two models, and over their captions under one."""
    folder = tmp_path_factory.mktemp("served")
    data = _data(shapes, folder)
    outs = []
    for experiment, (run,) in scored_runs[1].items():
        model = cusa.load(run)
        columns = {"split": data.split, "shape": data.shape}
        items = items_table(data.items, [str(path) for path in data.paths], captions=data.captions, columns=columns)
        if experiment == "contrastive":
            items = items.drop_columns("shape")
        outs.append(folder / experiment)
        write_gallery(outs[-1], model.encode_image(data.paths), items, run, model.weights_sha256, modality="image")
    texts = sorted({text for texts in data.captions for text in texts} - {HARMFUL})
    outs.append(folder / "captions")
    write_gallery(outs[-1], model.encode_text(texts), items_table(texts), run, model.weights_sha256, modality="text")
    for out in outs:
        build_index(out)
    words = [sys.executable, "-m", "cusa.cli", "serve", *map(str, outs), "--port", "0"]
    environment = os.environ | {"CUSA_TOKEN": TOKEN}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            assert address.startswith("http"), "the server did not start"
            yield Server(re.search(r"http://\S+", address)[0], data)
        finally:
            process.terminate()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """Visit the server with a browser of its own. What the page itself does wrong fails the test at its end."""
    visits: list[Visit] = []
    contexts: list[BrowserContext] = []

    def start(token: bool = True, **options: object) -> Visit:
        context = browser.new_context(**({"viewport": WIDE, "reduced_motion": "reduce"} | options))
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        one = Visit(context.new_page(), server)
        one.page.on("pageerror", lambda error: one.problems.append(str(error)))
        one.page.on("console", lambda message: message.type == "error" and one.problems.append(message.text))
        if token:
            context.request.post(f"{server.url}api/token", form={"token": TOKEN})
        visits.append(one)
        return one

    expect.set_options(timeout=PATIENCE)
    yield start
    for context in contexts:
        context.close()
    # A request that the server refuses is in the console too; the tests look at what the page makes of it.
    wrong = [text for one in visits for text in one.problems if not text.startswith("Failed to load resource")]
    assert not wrong


# ---- queries -------------------------------------------------------------------------------------------------------


def test_a_text_is_typed_and_pictures_are_found(visit, server):
    one = visit().open()
    expect(one.page.get_by_role("heading", name=f"Search {len(server.data.items)} pictures")).to_be_visible()
    one.search("a large red circle")
    found = server.api("api/search", q="a large red circle", top=48)
    assert one.names() == [result["captions"][0] for result in found["results"]]
    expect(one.status).to_have_text(re.compile(rf"Best 48 of {len(server.data.items)} pictures, [\d.]+ ms"))
    expect(one.tiles().first).to_contain_text(f"{found['results'][0]['score']:.3f}".replace("-", "−"))
    assert "q=a+large+red+circle" in one.page.url


def test_the_example_queries_are_captions_of_the_index(visit, server):
    one = visit().open()
    example = one.page.get_by_role("list", name="Example queries").get_by_role("link").first
    text = example.inner_text()
    assert text in [caption for texts in server.data.captions for caption in texts]
    example.click()
    expect(one.page.get_by_role("searchbox")).to_have_value(text)
    one.tiles().first.wait_for()


def test_rows_are_of_one_height_fill_the_width_and_never_move(visit):
    one = visit().open("?q=bar&top=96&beside=")
    one.tiles().first.wait_for()
    one.page.wait_for_load_state("networkidle")
    boxes = one.page.evaluate(
        "[...document.querySelectorAll('.tile img')].map((image) => image.getBoundingClientRect().toJSON())"
    )
    rows: dict[int, list[dict]] = {}
    for box in boxes:
        rows.setdefault(round(box["top"]), []).append(box)
    assert len(rows) > 3
    for row in rows.values():
        assert max(box["height"] for box in row) - min(box["height"] for box in row) < 0.1
    room = one.page.locator(".results").bounding_box()
    for row in list(rows.values())[:-1]:
        assert abs(row[-1]["right"] - (room["x"] + room["width"])) < 2
    moved = one.page.evaluate("""() => new Promise((done) => new PerformanceObserver((list) =>
        done(list.getEntries().map((entry) => entry.value))).observe({ type: "layout-shift", buffered: true })
        || setTimeout(() => done([]), 100))""")
    assert sum(moved) < 0.01


def test_the_rank_of_the_right_answer_is_shown_and_opens_it(visit, server):
    row = server.data.items.index("red_circle_large.jpg")
    one = visit().open("?beside=")
    one.search("A large red circle.")
    rank = server.api("api/indexes/contrastive/answers", q="A large red circle.")["answers"][0]["rank"]
    expect(one.page.locator("#answers")).to_contain_text(f"rank {rank}")
    one.page.locator("#answers button").first.click()
    expect(one.detail).to_contain_text("red_circle_large.jpg")
    expect(one.detail).to_contain_text("right answer")
    one.page.keyboard.press("Escape")
    right = one.page.locator(f'.tile.right[data-row="{row}"] button').first
    if rank <= 48:
        expect(right).to_have_accessible_name(re.compile("right answer"))


def test_each_model_says_that_it_does_not_know_a_text(visit):
    one = visit().open("?q=%F0%9F%98%80&index=cusa&beside=contrastive")
    for side in ("left", "right"):
        one.tiles(side).first.wait_for()
        note = one.page.locator(f'[data-side="{side}"]').get_by_role("status")
        expect(note).to_have_text(
            "The model has no word for “😀”, so these results mean nothing. Search with words that it knows. A model "
            "with a multilingual text side knows more."
        )
    one.open("?q=red&not=zebra&beside=")
    expect(one.page.locator(".panel .note")).to_contain_text("“zebra”, so this part of the search means nothing")
    one.open("?q=red+%F0%9F%98%80&beside=")
    one.tiles().first.wait_for()
    expect(one.page.locator(".panel .note")).to_have_count(0)


DROP = """([bytes, type, name]) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const event = (kind) => document.body.dispatchEvent(
    new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true }));
  event("dragenter");
  const told = !document.getElementById("drop").hidden;
  event("dragover");
  event("drop");
  return told && document.getElementById("drop").hidden;
}"""
PASTE = """([bytes, type, name]) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], name, { type }));
  dispatchEvent(new ClipboardEvent("paste", { clipboardData: given, bubbles: true, cancelable: true }));
  return true;
}"""


@pytest.mark.parametrize("way", ["drop", "paste", "choose", "camera"])
def test_a_picture_of_the_users_finds_itself(visit, server, way):
    one = visit().open()
    path = server.data.paths[5]
    one.page.get_by_role("list", name="Example queries").wait_for()
    if way in ("drop", "paste"):
        assert one.page.evaluate(DROP if way == "drop" else PASTE, [[*path.read_bytes()], "image/jpeg", path.name])
    else:
        one.page.locator("#file" if way == "choose" else "#camera").set_input_files(path)
    assert one.names()[0] == server.data.captions[5][0]
    expect(one.page.locator("#note")).to_contain_text("not part of the address")
    expect(one.page.get_by_role("button", name="Search without your picture")).to_be_visible()


def test_phones_offer_their_camera(visit):
    one = visit(viewport=PHONE, has_touch=True, is_mobile=True).open()
    expect(one.page.locator("#camera-label")).to_be_visible()
    assert one.page.locator("#camera").get_attribute("capture") == "environment"


def test_a_picture_and_a_text_are_mixed_by_a_slider(visit, server):
    one = visit().open()
    one.page.locator("#file").set_input_files(server.data.paths[5])
    one.tiles().first.wait_for()
    slider = one.page.get_by_role("slider", name="Weight of the picture")
    expect(slider).to_be_hidden()
    one.search("a large yellow cross")
    expect(slider).to_have_value("0.5")
    slider.press("End")
    one.page.wait_for_url(re.compile("weight=1"))
    expect(one.tiles().first.locator(".caption")).to_have_text(server.data.captions[5][0])
    slider.press("Home")
    one.page.wait_for_url(re.compile("weight=0(&|$)"))
    text = server.api("api/search", q="a large yellow cross", top=48)["results"]
    expect(one.tiles().first.locator(".caption")).to_have_text(text[0]["captions"][0])
    one.page.get_by_role("button", name="Search without your picture").click()
    expect(slider).to_be_hidden()


def test_the_address_says_what_it_cannot_hold(visit, server):
    one = visit().open()
    one.page.locator("#file").set_input_files(server.data.paths[5])
    one.tiles().first.wait_for()
    first = one.names()
    one.search("a cross")
    one.page.go_back()
    expect(one.page.get_by_role("searchbox")).to_have_value("")
    expect(one.tiles().locator(".caption")).to_have_text(first)  # back finds the picture again
    other = visit().open(one.page.url.removeprefix(server.url))
    expect(other.page.locator("#note")).to_contain_text("drop the picture here")


def test_more_like_this_and_the_shared_address(visit, server):
    one = visit().open("?q=a+small+green+square")
    name = one.names()[2]
    one.tiles().nth(2).get_by_role("button", name="More like this").click()
    one.page.wait_for_url(re.compile("like="))
    expect(one.page.get_by_role("button", name=f"Search without {name}")).to_be_visible()
    expect(one.page.get_by_role("searchbox")).to_have_value("")
    expect(one.tiles().first).to_be_visible()
    found, address = one.names(), one.page.url
    assert name not in found[:1]
    other = visit().open(address.removeprefix(server.url))
    assert other.names() == found
    expect(other.page.get_by_role("button", name=f"Search without {name}")).to_be_visible()
    one.page.go_back()
    expect(one.page.get_by_role("searchbox")).to_have_value("a small green square")
    one.page.go_forward()
    expect(one.page.get_by_role("button", name=f"Search without {name}")).to_be_visible()


def test_words_that_are_not_wanted(visit, server):
    one = visit().open("?q=circle")
    one.tiles().first.wait_for()
    one.page.get_by_label("Not").fill("red, large")
    one.page.keyboard.press("Enter")
    one.page.wait_for_url(re.compile("not=red&not=large"))
    wanted = server.api("api/search", **{"q": "circle", "not": ["red", "large"], "top": 48})["results"]
    expect(one.tiles().first.locator(".caption")).to_have_text(wanted[0]["captions"][0])
    assert one.names() == [result["captions"][0] for result in wanted]


def test_more_results_are_shown_on_demand(visit, server):
    one = visit().open("?q=circle")
    expect(one.tiles()).to_have_count(48)
    first = one.names()
    one.page.get_by_role("button", name="Show more").click()
    expect(one.tiles()).to_have_count(len(server.data.items))
    assert one.names()[:48] == first
    expect(one.page.get_by_role("button", name="Show more")).to_be_hidden()
    assert "top=96" in one.page.url


# ---- models, filters, details --------------------------------------------------------------------------------------


def test_two_models_side_by_side(visit, server):
    one = visit().open("?q=A+small+blue+cross.")
    one.tiles("right").first.wait_for()  # which they are, unless the address says no
    one.page.locator("#beside").select_option("no other")
    one.page.wait_for_url(re.compile("beside=(&|$)"))
    expect(one.tiles("right")).to_have_count(0)
    one.page.locator("#beside").select_option("cusa")
    one.page.wait_for_url(re.compile("beside=cusa"))
    ranks = [
        server.api(f"api/indexes/{name}/answers", q="A small blue cross.")["answers"][0]["rank"]
        for name in ("contrastive", "cusa")
    ]
    expect(one.page.locator("#answers")).to_have_text(f"right answer: rank {ranks[0]} | rank {ranks[1]}")
    for side, name in (("left", "contrastive"), ("right", "cusa")):
        wanted = server.api("api/search", q="A small blue cross.", top=48, index=name)["results"]
        assert one.names(side) == [result["captions"][0] for result in wanted]
    left, right = one.tiles().first.bounding_box(), one.tiles("right").first.bounding_box()
    assert right["x"] > left["x"] + 300
    assert right["y"] == left["y"]
    one.tiles("right").nth(1).get_by_role("button").first.click()
    expect(one.detail).to_contain_text("rank, contrastive")
    expect(one.detail).to_contain_text("rank, cusa")


def test_filters_are_columns_of_the_items(visit, server):
    one = visit().open("?index=cusa&beside=&q=red")
    one.tiles().first.wait_for()
    one.page.locator("summary", has_text="shape").click()
    of = server.data.shape.count("triangle")
    value = one.page.get_by_role("checkbox", name=re.compile(f"triangle {of}"))
    value.check()
    expect(one.tiles()).to_have_count(of)
    expect(one.status).to_contain_text(f"{of} pictures")
    assert "filter.shape=triangle" in one.page.url
    one.page.get_by_role("checkbox", name="bar").check()  # either value
    expect(one.tiles()).to_have_count(of + 2)
    one.page.keyboard.press("Escape")
    expect(one.page.get_by_role("checkbox", name="bar")).to_be_hidden()
    one.open("?index=cusa&beside=contrastive&q=red&filter.shape=triangle")
    expect(one.tiles()).to_have_count(of)
    expect(one.page.locator('[data-side="right"]')).to_contain_text("Not filtered by shape")
    one.open("?filter.split=val")  # filters alone list what passes them
    expect(one.tiles()).to_have_count(server.data.split.count("val"))
    one.open("?q=red&filter.split=nowhere&beside=")
    expect(one.page.locator(".none")).to_contain_text("Nothing was found")


def test_the_detail_has_everything_the_data_say(visit, server):
    row = server.data.items.index("ring.png")
    one = visit().open(f"?index=cusa&beside=&q=circle&top=96&open=left.{row}")
    expect(one.detail.get_by_role("heading")).to_have_text(HARMFUL)  # captions are text, whatever they hold
    for text in ("ring.png", "test", "circle", "90 × 90", "score", "rank"):
        expect(one.detail).to_contain_text(text)
    assert one.detail.get_by_role("img").get_attribute("alt") == HARMFUL
    one.detail.get_by_role("button", name="Close").click()
    expect(one.detail).to_be_hidden()
    assert "open=" not in one.page.url
    one.tiles().nth(1).get_by_role("button").first.click()
    one.page.wait_for_url(re.compile("open="))
    name = one.names()[2]
    one.detail.get_by_role("button", name="Next result").click()
    expect(one.detail.get_by_role("heading")).to_have_text(name)
    one.page.go_back()
    expect(one.detail).to_be_hidden()
    expect(one.page.get_by_role("searchbox")).to_have_value("circle")


def test_pictures_that_are_there_twice_are_marked(visit):
    """Which they are is the index's business, so the marks are put into the server's answer here."""
    one = visit()

    def mark(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        first, second, third = found["results"][:3]
        for result, kind in ((second, "same"), (third, "near")):
            result["same_as"] = {"row": first["row"], "item": first["item"], "kind": kind}
        route.fulfill(response=answer, json=found)

    one.page.route("**/api/search*", mark)
    one.open("?q=circle&beside=")
    one.tiles().first.wait_for()
    assert one.page.locator(".tile .same").all_inner_texts() == ["copy", "≈ copy"]
    for place, words in ((1, "the same as an earlier result"), (2, "nearly the same as an earlier result")):
        expect(one.tiles().nth(place).get_by_role("button").first).to_have_accessible_name(re.compile(f", {words}$"))
    one.tiles().nth(2).get_by_role("button").first.click()
    expect(one.detail).to_contain_text("It is nearly the same as an earlier result.")


def test_texts_are_found_by_a_picture(visit, server):
    one = visit().open("?index=captions")
    one.page.get_by_role("heading", name="texts").wait_for()
    one.page.locator("#file").set_input_files(server.data.paths[5])
    wanted = {text for texts in server.data.captions for text in texts}
    assert set(one.names()) < wanted
    assert one.page.locator(".tile img").count() == 0


# ---- keys, screens, readers ----------------------------------------------------------------------------------------


def test_everything_is_done_with_keys(visit, server):
    one = visit().open("?beside=")
    page, focused = one.page, one.page.locator("*:focus")
    page.get_by_role("list", name="Example queries").wait_for()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("small circle / m?")  # what is typed is not a key
    page.keyboard.press("Enter")
    names = one.names()
    expect(page.get_by_role("searchbox")).to_have_value("small circle / m?")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_accessible_name(re.compile(rf"^{re.escape(names[0])}, result 1, score"))
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_accessible_name(re.compile(", result 2,"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(focused).to_have_accessible_name(re.compile(", result 2,"))
    page.keyboard.press("Enter")
    expect(one.detail.get_by_role("heading")).to_have_text(names[1])
    page.keyboard.press("ArrowRight")
    expect(one.detail.get_by_role("heading")).to_have_text(names[2])
    page.keyboard.press("Escape")
    expect(one.detail).to_be_hidden()
    expect(focused).to_have_accessible_name(re.compile(", result 3,"))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("m")
    expect(page.get_by_role("button", name=f"Search without {names[1]}")).to_be_visible()
    expect(focused).to_have_accessible_name(re.compile(", result 1,"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


SCREENS = [
    pytest.param(size, scheme, id=f"{size['width']}-{scheme}") for size in (WIDE, PHONE) for scheme in ("light", "dark")
]
TWO = "?q=A+small+blue+cross.&index=cusa&beside=contrastive&filter.split=train"


@pytest.mark.parametrize(("size", "scheme"), SCREENS)
def test_every_view_is_accessible_and_fits_the_screen(visit, size, scheme):
    one = visit(viewport=size, color_scheme=scheme, has_touch=size is PHONE, is_mobile=size is PHONE)

    def check(what: str) -> None:
        found = Axe().run(one.page)
        assert found.violations_count == 0, f"{what}: {found.generate_report()}"
        assert one.overflow <= 0, what

    one.open()
    one.page.get_by_role("list", name="Example pictures").wait_for()
    check("before a search")
    one.open("?q=%F0%9F%98%80&index=cusa&beside=contrastive")
    one.tiles("right").first.wait_for()
    check("a text that no model knows")
    one.open(TWO)
    one.tiles("right").first.wait_for()
    check("two models")
    if size is PHONE:
        one.page.get_by_role("button", name="Options").click()
    one.page.locator("summary").first.click()
    check("a menu of filters")
    one.page.keyboard.press("Escape")
    one.tiles().nth(1).get_by_role("button").first.click()
    expect(one.detail).to_be_visible()
    check("a result")
    one.page.keyboard.press("Escape")
    one.page.get_by_role("button", name="Keys").click()
    check("the keys")
    one.open("?like=no-such.png")
    expect(one.page.get_by_role("alert")).to_contain_text("no item")
    check("an error")


def test_transparent_pictures_lie_on_light_paper_also_in_the_dark(visit, server):
    row = server.data.items.index("ring.png")
    one = visit(color_scheme="dark").open("?q=circle&top=96&beside=")
    picture = one.page.locator(f'.tile[data-row="{row}"] img')
    picture.scroll_into_view_if_needed()
    one.page.wait_for_function("(image) => image.complete && image.naturalWidth", arg=picture.element_handle())
    shot = Image.open(io.BytesIO(picture.screenshot())).convert("L")
    middle = shot.getpixel((shot.width // 2, shot.height // 2))
    assert middle > 200
    assert shot.getextrema()[0] < 40  # and the black ring can be seen on it
    body = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", body))) < 50


def test_it_says_that_it_waits_only_when_that_takes_long(visit):
    one = visit()
    one.page.clock.install()
    one.open("?beside=")
    one.page.get_by_role("list", name="Example queries").wait_for()
    one.page.clock.pause_at(datetime.now() + timedelta(hours=1))  # from here on, the test says how time goes by
    held: list[Route] = []
    one.page.route("**/api/search*", lambda route: held.append(route))
    one.page.get_by_role("searchbox").fill("circle")
    with one.page.expect_request("**/api/search*"):
        one.page.keyboard.press("Enter")
    one.page.clock.run_for(149)
    assert not one.page.locator("#progress").is_visible()
    one.page.clock.run_for(2)
    expect(one.page.locator("#progress")).to_be_visible()
    expect(one.page.locator("#main")).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    one.tiles().first.wait_for()
    expect(one.page.locator("#progress")).to_be_hidden()
    one.page.unroute("**/api/search*")
    one.page.evaluate("document.querySelectorAll('.tile').forEach((tile) => tile.classList.add('old'))")
    one.search("square")
    expect(one.page.locator(".tile.old")).to_have_count(0)  # answered while no time went by
    one.page.clock.run_for(1000)
    assert not one.page.locator("#progress").is_visible()


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_the_token_is_asked_for_once(visit, server):
    one = visit(token=False).open("?q=circle")
    dialog = one.page.get_by_role("dialog", name="This server asks for a token")
    expect(dialog).to_be_visible()
    assert Axe().run(one.page).violations_count == 0
    dialog.get_by_label("Token").fill("wrong")
    one.page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("That is not the token.")
    dialog.get_by_label("Token").fill(TOKEN)
    one.page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    assert len(one.names()) == 48
    one.page.reload()
    assert len(one.names()) == 48
    assert TOKEN not in one.page.url
    picture = one.page.locator(".tile img").first
    one.page.wait_for_function("(image) => image.complete && image.naturalWidth", arg=picture.element_handle())


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        pytest.param("large.png", b"\x89PNG\r\n\x1a\n" + bytes(21 << 20), "MiB|MB|bytes", id="too large"),
        pytest.param("notes.txt", b"Dear diary", "cannot be read as an image", id="no picture"),
    ],
)
def test_pictures_that_the_server_refuses(visit, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    one = visit().open()
    one.page.get_by_role("list", name="Example queries").wait_for()
    with one.page.expect_response("**/api/search") as refused:
        one.page.locator("#file").set_input_files(tmp_path / name)
    assert refused.value.status in (413, 415)
    alert = one.page.get_by_role("alert")
    expect(alert).to_have_text(refused.value.json()["error"])
    expect(alert).to_contain_text(re.compile(sentence))
    one.search("circle")  # without the picture
    expect(alert).to_be_hidden()
    assert "picture" not in one.page.url


def test_the_servers_sentence_about_a_wrong_query_is_shown(visit):
    one = visit().open()
    one.page.get_by_role("list", name="Example queries").wait_for()
    one.page.get_by_role("searchbox").fill("a circle " * 150)
    one.page.keyboard.press("Enter")
    expect(one.page.get_by_role("alert")).to_contain_text("a text has at most 1,000")


def test_a_busy_server_is_asked_again(visit):
    one = visit().open("?beside=")
    one.page.get_by_role("list", name="Example queries").wait_for()
    asked: list[str] = []

    def busy_once(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 1:
            return route.continue_()
        body = json.dumps({"error": "256 queries wait already; try again in a moment."})
        return route.fulfill(status=503, headers={"Retry-After": "1"}, body=body, content_type="application/json")

    one.page.route("**/api/search*", busy_once)
    one.page.get_by_role("searchbox").fill("circle")
    one.page.keyboard.press("Enter")
    expect(one.page.get_by_role("alert")).to_contain_text("256 queries wait already")
    expect(one.page.get_by_role("button", name="Try again")).to_be_visible()
    one.tiles().first.wait_for()
    assert len(asked) == 2
    expect(one.page.get_by_role("alert")).to_be_hidden()


def test_without_a_network_the_page_says_so_and_goes_on_when_it_is_back(visit):
    one = visit().open()
    one.page.get_by_role("list", name="Example queries").wait_for()
    one.page.context.set_offline(True)
    one.page.get_by_role("searchbox").fill("circle")
    one.page.keyboard.press("Enter")
    expect(one.page.get_by_role("alert")).to_contain_text("offline")
    one.page.context.set_offline(False)
    one.tiles().first.wait_for()
    expect(one.page.get_by_role("alert")).to_be_hidden()


def test_an_index_that_is_not_there_is_named(visit):
    one = visit().open("?q=circle&index=elsewhere")
    expect(one.page.locator("#note")).to_contain_text("There is no index elsewhere here, only contrastive, cusa")
    one.tiles().first.wait_for()
