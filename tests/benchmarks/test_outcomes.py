"""Statistics as files, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from cusa.benchmarks import outcomes, outcomes_file
from cusa.benchmarks.outcomes import Combination, Mean, Pearson, Spearman, Units, both_ways, recall_statistics
from cusa.errors import DataError


def test_statistics_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    image_of_text = np.array([0, 0, 1, 2, 2, 2])
    pairs = Units.of_each_query("pairs", 4)
    written = recall_statistics(rng.integers(1, 9, 3), rng.integers(1, 9, 6), image_of_text, prefix="folds/fold 1/")
    written |= both_ways({"cxc/i2t_r1": np.array([1, np.nan, 0]), "cxc/t2i_r1": rng.random(6)}, image_of_text, 3)
    written |= {"spearman": Spearman(pairs, rng.random(4), rng.random(4)), "mean": Combination({"spearman": 0.5})}
    written |= {"pearson": Pearson(pairs, written["spearman"].values, written["spearman"].gold)}
    outcomes_file.save(tmp_path / "a.npz", written)
    read = outcomes_file.load(tmp_path / "a.npz")
    assert list(read) == list(written)
    for name, each in written.items():
        assert type(read[name]) is type(each), name
        if isinstance(each, Combination):
            assert read[name] == each
            continue
        assert read[name].units.equals(each.units)
        np.testing.assert_array_equal(read[name].values, each.values)
        if name in ("spearman", "pearson"):
            np.testing.assert_array_equal(read[name].gold, each.gold)


def test_a_file_has_each_array_once_and_the_outcomes_by_the_names_of_the_metrics(tmp_path):
    values, units = np.array([1.0, 0.0, 0.5]), Units("images", 2, np.array([0, 0, 1]))
    outcomes_file.save(tmp_path / "a.npz", {"t2i_r1": Mean(units, values), "t2i_r5": Mean(units, values + 1)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"t2i_r1", "t2i_r1.unit", "t2i_r5", "statistics"}
        np.testing.assert_array_equal(arrays["t2i_r1"], values)


def test_a_file_of_an_earlier_release_has_no_statistics(tmp_path):
    np.savez_compressed(tmp_path / "old.npz", t2i_r1=np.array([0, 1], dtype=np.float32))
    np.savez_compressed(tmp_path / "empty.npz")
    assert outcomes_file.load(tmp_path / "old.npz") == outcomes_file.load(tmp_path / "empty.npz") == {}


def test_queries_and_units_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="belongs to none of the 2 units called images"):
        Units("images", 2, np.array([0, 2]))
    with pytest.raises(ValueError, match=r"\(3,\) values of queries, but \(2,\) queries have a unit"):
        Mean(Units.of_each_query("images", 2), np.zeros(3))


@pytest.mark.parametrize("answered", [0, 1, 5])
def test_medians_leave_out_queries_without_a_right_answer(answered):
    """Also where nearly all queries have none."""
    ranks = np.full(40, np.nan)
    ranks[:answered] = np.arange(1, answered + 1)
    median = outcomes.Median(Units.of_each_query("images", 40), ranks)
    counts = np.ones((1, 40), dtype=np.int32)
    value = median.resampled(counts @ median.sums(), outcomes.Draws(counts))
    assert np.array_equal(value, [np.median(ranks[:answered]) if answered else np.nan], equal_nan=True)


def test_a_damaged_file_of_outcomes_is_a_sentence(tmp_path):
    path = tmp_path / "a.npz"
    outcomes_file.save(path, {"t2i_r1": Mean(Units("image", 3, np.array([0, 1, 2])), np.array([1.0, 0, 1]))})
    sound, refused = path.read_bytes(), 0
    for place in range(0, len(sound), 3):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        try:
            outcomes_file.load(path)
        except DataError as error:
            refused += 1
            assert str(error).endswith("a.npz, and the same command makes it again.")
    assert refused > 20
