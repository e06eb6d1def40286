"""The interactive curves: what the page's script gets, and that a browser draws it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pages import rendered

from cusa.report.curves import MOST, POINTS, curves, label_of, library, thinned
from cusa.report.figures import read_histories


def embedded(page: str) -> list[dict]:
    found = re.search(r'<script id="curves-data" type="application/json">(.*?)</script>', page, flags=re.S)
    return json.loads(found[1])


def test_the_page_has_every_number_of_short_histories(scored_runs, tmp_path):
    _, runs = scored_runs
    by_epoch, by_step = embedded(rendered(scored_runs, tmp_path))
    for chart, kind, name in ((by_epoch, "epoch", "t2i_r5"), (by_step, "step", "loss")):
        for run in chart["runs"]:
            rows = pq.read_table(runs[run["label"]][0] / "history.parquet").to_pylist()
            values = [row[name] for row in rows if row["kind"] == kind]
            assert run["y"][name] == pytest.approx(values, rel=1e-4)
    assert by_epoch["runs"][0]["x"] == [1.0, 2.0]
    assert [chart["quantities"][0][0] for chart in (by_epoch, by_step)] == ["r_mean", "loss"]


def test_losses_that_are_off_have_no_curve(scored_runs):
    _, runs = scored_runs
    _, by_step = curves(read_histories(runs))
    found = {run["label"]: set(run["y"]) for run in by_step["runs"]}
    assert "loss_uni" in found["cusa"]
    assert "loss_uni" not in found["contrastive"]


def test_seeds_share_a_colour_and_have_names(scored_runs, tmp_path):
    _, runs = scored_runs
    second = Path(shutil.copytree(runs["cusa"][0], tmp_path / "cusa/seed24"))
    histories = read_histories({**runs, "cusa": [runs["cusa"][0], second]})
    by_epoch, _ = curves(histories)
    colours = {run["label"]: run["colour"] for run in by_epoch["runs"]}
    assert set(colours) == {"contrastive", "cusa, seed 23", "cusa, seed 24"}
    assert colours["cusa, seed 23"] == colours["cusa, seed 24"] != colours["contrastive"]


def test_long_histories_are_thinned_to_their_ends():
    rows = [{"kind": "step", "epoch": 0, "step": step, "loss": 1.0 / step} for step in range(1, 10_001)]
    (chart,) = curves({"one": {"seed1": rows}})
    (run,) = chart["runs"]
    assert len(run["x"]) == MOST
    assert (run["x"][0], run["x"][-1]) == (0.0001, 1.0)
    many = {f"run {number}": {"seed1": rows} for number in range(40)}
    (chart,) = curves(many)
    assert sum(len(run["x"]) for run in chart["runs"]) <= POINTS
    assert thinned(range(10), 4) == [0, 3, 6, 9]


def test_nothing_is_drawn_without_histories():
    assert curves({}) == []


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("t2i_r10", "text-to-image R@10, %"),
        ("i2t_median_rank", "image-to-text median rank"),
        ("temperature_uni_image", "temperature: uni image"),
        ("loss_cross", "loss: CSA"),
        ("something_new", "something new"),
    ],
    ids=lambda value: str(value),
)
def test_quantities_have_words(name, label):
    assert label_of(name) == label


def test_the_library_is_whole_and_says_its_licence():
    parts = library()
    assert "uPlot" in parts["script"][:100]
    assert "MIT License" in parts["licence"]
    assert "</script" not in parts["script"] + parts["drawing"]


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium here; make test-browser")
def test_a_browser_draws_switches_and_hides_curves(scored_runs, tmp_path):
    from playwright.sync_api import sync_playwright

    rendered(scored_runs, tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        problems: list[str] = []
        page.add_init_script(
            "window.texts = []; const fill = CanvasRenderingContext2D.prototype.fillText;"
            "CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {"
            " texts.push(text); return fill.call(this, text, ...place); }"
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto((tmp_path / "report/index.html").as_uri())
        assert page.locator("#curves canvas").count() == 2
        assert not page.locator("#figures").get_attribute("open")
        first = page.locator(".chart").first
        # The last values are shown until the pointer chooses others.
        legend = first.locator(".u-legend .u-value")
        assert all(legend.all_inner_texts())
        before = first.locator("canvas").evaluate("canvas => canvas.toDataURL()")
        first.locator("select").select_option("t2i_r1")
        assert first.locator(".plot").get_attribute("aria-label").startswith("text-to-image R@1, %")
        after = first.locator("canvas").evaluate("canvas => canvas.toDataURL()")
        assert before != after
        page.evaluate("texts.length = 0")
        page.locator(".chart").nth(1).locator("select").select_option("lr")
        rates = {float(text) for text in page.evaluate("texts") if text.startswith("0.00") or "e-" in text}
        assert len(rates) > 3  # on the axis, a learning rate is no 0 and no 0.001
        first.locator(".u-legend .u-series").nth(1).locator(".u-label").click()
        assert after != first.locator("canvas").evaluate("canvas => canvas.toDataURL()")
        first.get_by_label("logarithmic").check()
        page.set_viewport_size({"width": 400, "height": 800})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
    assert problems == []
