"""Intervals of differences against a naive bootstrap, and how often they cover a difference that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from cusa.benchmarks.outcomes import Combination, Draws, Mean, Median, Pearson, Spearman, Units, recall_statistics
from cusa.report import statistics
from cusa.report.statistics import difference_intervals, draws

RESAMPLES = 100


def naive_value(statistic, drawn: np.ndarray) -> float:
    """A statistic on one resample: each query is repeated as often as its unit was drawn."""
    rows = np.repeat(np.arange(len(statistic.values)), drawn[statistic.units.of_query].astype(int))
    values = statistic.values[rows]
    if isinstance(statistic, Mean):
        return 100 * np.mean([value for value in values if not np.isnan(value)])
    if isinstance(statistic, Median):
        return float(np.median([value for value in values if not np.isnan(value)]))
    correlation = spearmanr if isinstance(statistic, Spearman) else pearsonr
    return 100 * correlation(values, statistic.gold[rows]).statistic


def naive_intervals(runs, name: str, parts: dict[str, float]) -> tuple[float, float]:
    """The interval of cusa - contrastive, one resample and one seed after the other; a metric is a sum of `parts`."""
    differences = np.zeros(RESAMPLES)
    for part, weight in parts.items():
        units = runs["cusa"][0][part].units
        drawn = np.concatenate(list(draws(units.name, units.count, RESAMPLES)))
        for resample in range(RESAMPLES):
            first, second = (
                np.mean([naive_value(seed[part], drawn[resample]) for seed in runs[experiment]])
                for experiment in ("contrastive", "cusa")
            )
            differences[resample] += weight * (second - first)
    return tuple(np.quantile(differences, [0.025, 0.975]))


def uneven_captions(rng, images: int) -> np.ndarray:
    return rng.permutation(np.repeat(np.arange(images), rng.integers(1, 6, images)))


def mean_of_captions(rng):
    units = Units("images", 30, uneven_captions(np.random.default_rng(1), 30))
    values = rng.random(len(units.of_query)) * (rng.random(len(units.of_query)) < 0.5)
    values[[3, 7]] = np.nan  # captions without a right answer
    return Mean(units, values)


def median_of_captions(rng):
    units = Units("images", 30, uneven_captions(np.random.default_rng(1), 30))
    return Median(units, rng.integers(1, 40, len(units.of_query)).astype(np.float64))


def median_of_unequal_images(rng):
    """One image has most of the captions, with the best ranks, so the medians of resamples lie far apart."""
    units = Units("images", 400, np.r_[np.arange(400), np.zeros(300, dtype=int)])
    values = np.r_[rng.integers(20, 900, 400), rng.integers(1, 20, 300)].astype(np.float64)
    values[1:4] = np.nan
    return Median(units, values)


GOLD = np.random.default_rng(2).integers(0, 11, 50) / 2  # with ties, as gold scores have


def spearman(rng):
    return Spearman(Units.of_each_query("pairs", 50), np.round(GOLD + 3 * rng.standard_normal(50), 1), GOLD)


def pearson(rng):
    return Pearson(Units.of_each_query("pairs", 50), GOLD + 3 * rng.standard_normal(50), GOLD)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "make",
    [mean_of_captions, median_of_captions, median_of_unequal_images, spearman, pearson],
    ids=lambda f: f.__name__,
)
def test_the_interval_of_each_statistic_equals_the_naive_bootstrap(make, seeds):
    runs = {
        experiment: [{"m": make(np.random.default_rng([number, seed]))} for seed in range(seeds)]
        for number, experiment in enumerate(("contrastive", "cusa"))
    }
    found = difference_intervals(runs, "contrastive", RESAMPLES)
    assert set(found) == {("cusa", "m")}
    assert found["cusa", "m"] == pytest.approx(naive_intervals(runs, "m", {"m": 1.0}), abs=1e-9)


def test_the_medians_of_unequal_images_leave_the_window():
    """So that the test above tests the medians before the window, inside it and after it."""
    median = median_of_unequal_images(np.random.default_rng(0))
    drawn = next(draws("images", 400, RESAMPLES))
    ranks = np.sort(median.values[~np.isnan(median.values)])
    first, last = ranks[median._window][[0, -1]]
    medians = median.resampled(drawn @ median.sums(), Draws(drawn))
    assert (medians < first).any() and (medians > last).any() and ((medians >= first) & (medians <= last)).any()


def test_sums_means_and_folds_equal_the_naive_bootstrap():
    """rsum and r_mean of one set of images, and the mean over two folds that are drawn independently."""
    runs = {}
    for number, experiment in enumerate(("contrastive", "cusa")):
        rng, statistics_of_run = np.random.default_rng(number), {}
        for fold in ("a", "b"):
            image_of_text = uneven_captions(np.random.default_rng(5), 20)
            ranks = rng.integers(1, 30, 20), rng.integers(1, 30, len(image_of_text))
            statistics_of_run |= recall_statistics(*ranks, image_of_text, name=f"fold {fold}", prefix=f"{fold}/")
        for metric in ("rsum", "t2i_r5", "t2i_median_rank"):
            statistics_of_run[metric] = Combination.mean([f"a/{metric}", f"b/{metric}"])
        runs[experiment] = [statistics_of_run]
    found = difference_intervals(runs, "contrastive", RESAMPLES)
    six = [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
    parts = {
        "a/rsum": {f"a/{name}": 1.0 for name in six},
        "a/r_mean": {f"a/{name}": 1 / 6 for name in six},
        "rsum": {f"{fold}/{name}": 0.5 for fold in "ab" for name in six},
        "t2i_r5": {f"{fold}/t2i_r5": 0.5 for fold in "ab"},
        "t2i_median_rank": {f"{fold}/t2i_median_rank": 0.5 for fold in "ab"},
    }
    for name, weights in parts.items():
        assert found["cusa", name] == pytest.approx(naive_intervals(runs, name, weights), abs=1e-9), name


def test_draws_do_not_depend_on_the_size_of_blocks(monkeypatch):
    at_once = np.concatenate(list(draws("images", 7, 100)))
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 1)
    monkeypatch.setattr(statistics, "SMALLEST_BLOCK", 3)
    blocks = list(draws("images", 7, 100))
    assert [len(block) for block in blocks] == [3] * 33 + [1]
    assert np.array_equal(np.concatenate(blocks), at_once)
    assert (at_once.sum(axis=1) == 7).all()
    assert not np.array_equal(np.concatenate(list(draws("other images", 7, 100))), at_once)


def means(first: np.ndarray, second: np.ndarray, units: Units, resamples: int = 2000) -> tuple[float, float]:
    runs = {"contrastive": [{"m": Mean(units, first)}], "cusa": [{"m": Mean(units, second)}]}
    return difference_intervals(runs, "contrastive", resamples)["cusa", "m"]


def test_the_interval_is_the_bootstrap_s():
    """Against queries that another generator draws; and a difference that every query shares has no spread."""
    rng = np.random.default_rng(0)
    first = (rng.random(400) < 0.4).astype(float)
    second = np.where(rng.random(400) < 0.2, 1 - first, first)
    units = Units.of_each_query("queries", 400)
    found = means(first, second, units)
    resampled = [100 * (second - first)[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert found == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.4)
    assert means(first, first + 0.5, units) == pytest.approx((50, 50))


def test_only_runs_on_the_same_units_are_compared():
    rng = np.random.default_rng(0)
    values, units = rng.random(20), Units("images", 10, np.repeat(np.arange(10), 2))
    reference = {"m": Mean(units, values), "only here": Mean(units, values), "sum": Combination({"only here": 1.0})}
    others = {
        "the same": {"m": Mean(Units("images", 10, np.repeat(np.arange(10), 2)), values), "sum": reference["sum"]},
        "other images": {"m": Mean(Units("images", 10, np.tile(np.arange(10), 2)), values)},
        "more images": {"m": Mean(Units("images", 11, units.of_query), values)},
        "another set": {"m": Mean(Units("fold", 10, units.of_query), values)},
        "another kind": {"m": Median(units, values)},
        "an old file": {},
    }
    runs = {"contrastive": [reference]} | {name: [each] for name, each in others.items()}
    assert set(difference_intervals(runs, "contrastive")) == {("the same", "m")}
    assert difference_intervals(runs, "nonesuch") == {}
    one_seed_is_old = {"contrastive": [reference], "cusa": [others["the same"], {}]}
    assert difference_intervals(one_seed_is_old, "contrastive") == {}


def test_resamples_that_do_not_define_a_metric_are_left_out():
    """Three pairs: one resample in nine draws one pair three times, which has no correlation."""
    gold = np.array([1.0, 2.0, 3.0])
    units = Units.of_each_query("pairs", 3)
    nothing_right = Mean(units, np.full(3, np.nan))
    for kind in (Spearman, Pearson):
        runs = {
            "contrastive": [{"m": kind(units, -gold, gold), "none": nothing_right}],
            "cusa": [{"m": kind(units, gold, gold), "none": nothing_right}],
        }
        assert difference_intervals(runs, "contrastive") == {("cusa", "m"): pytest.approx((200, 200))}


def captions_of_images(rng, images: int, share: float) -> np.ndarray:
    """Outcomes of five captions an image, 1 with the probability `share`, that correlate at 0.9 within an image."""
    of_image = np.repeat(rng.random(images) < share, 5)
    follows = rng.random(5 * images) < np.sqrt(0.9)
    return np.where(follows, of_image, rng.random(5 * images) < share).astype(np.float64)


def covered(units: Units, difference: float, trials: int, images: int = 100) -> float:
    """The share of simulated pairs of runs whose 95 % interval covers the known difference, in percent."""
    count = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        first = captions_of_images(rng, images, 0.4)
        second = captions_of_images(rng, images, 0.4 + difference / 100)
        low, high = means(first, second, units, resamples=400)
        count += low <= difference <= high
    return count / trials


def test_intervals_drawn_by_images_cover_the_truth_and_intervals_drawn_by_captions_do_not():
    """Between two runs that differ by 10, and between two that do not: 5 % of these differences are significant."""
    by_images = Units("images", 100, np.repeat(np.arange(100), 5))
    by_captions = Units.of_each_query("captions", 500)
    trials = 300
    error = 3 * np.sqrt(0.95 * 0.05 / trials)  # three standard errors of a share of 0.95
    for difference in (0, 10):
        assert covered(by_images, difference, trials) == pytest.approx(0.95, abs=error)
        assert covered(by_captions, difference, 60) < 0.85
