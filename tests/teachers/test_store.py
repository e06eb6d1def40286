"""The feature store refuses what does not fit, and never loads what is not asked for."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from cusa.common.files import read_json, write_json
from cusa.errors import DataError
from cusa.teachers.store import FeatureStore, join_features, write_features

META = {"model": "m", "weights_sha256": "abc"}


def parts(rows=10, d=4, size=3):
    everything = np.arange(rows * d, dtype=np.float32).reshape(rows, d)
    return everything, (everything[start : start + size] for start in range(0, rows, size))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_come_back_as_float32(tmp_path, dtype):
    everything, stream = parts()
    write_features(tmp_path / "f", 10, 4, dtype, stream, META)
    store = FeatureStore(tmp_path / "f", rows=10, model="m", sha256="abc")
    assert store.arrays[0].dtype == dtype
    assert isinstance(store.arrays[0], np.memmap)
    found = store[np.array([7, 0, 7])]
    assert found.dtype == np.float32
    assert np.array_equal(found, everything[[7, 0, 7]])
    digest = hashlib.sha256(everything.astype(dtype).tobytes()).hexdigest()
    written = {"rows": 10, "d": 4, "dtype": dtype, "features_sha256": digest}
    assert read_json(tmp_path / "f/meta.json") == META | written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rows": 11}, "has 10 rows, but the split has 11"),
        ({"rows": 10, "model": "other"}, "was extracted by m, but other is configured"),
        ({"rows": 10, "sha256": "def"}, "was extracted with other weights of m"),
    ],
)
def test_features_of_something_else_are_refused(tmp_path, arguments, says):
    write_features(tmp_path / "f", 10, 4, "float16", parts()[1], META)
    with pytest.raises(DataError, match=says):
        FeatureStore(tmp_path / "f", **arguments)


@pytest.mark.parametrize("about", [{"weights_sha256": "unknown"}, {"weights_sha256_of": "tensors"}])
def test_features_without_the_digest_of_a_file_are_not_compared_with_one(tmp_path, about):
    """Published features do not say their weights; earlier releases took the digest of tensors for sharded files."""
    write_features(tmp_path / "f", 10, 4, "float16", parts()[1], META | about)
    assert len(FeatureStore(tmp_path / "f", rows=10, model="m", sha256="def")) == 10


@pytest.mark.parametrize(
    ("rows", "says"), [(9, "10 feature rows came out.*expected 9"), (12, "10 feature rows came out.*expected 12")]
)
def test_a_model_that_gives_another_number_of_rows(tmp_path, rows, says):
    with pytest.raises(DataError, match=says):
        write_features(tmp_path / "f", rows, 4, "float16", parts()[1], META)
    assert not (tmp_path / "f").exists()


def test_features_that_overflow_are_refused(tmp_path):
    huge = np.full((2, 4), 1.0, dtype=np.float32)
    huge[1, 2] = 1e6
    with pytest.raises(DataError, match=r"1 of rows 0 to 1 \(row 1\) are not finite in float16, .*use dtype: float32"):
        write_features(tmp_path / "f", 2, 4, "float16", iter([huge]), META)


@pytest.mark.parametrize("tiny", [1e-9, 1e-6])
def test_rows_that_float16_would_lose_are_refused_and_zeros_and_single_tiny_numbers_are_not(tmp_path, tiny):
    rows = np.array([[1, tiny], [0, 0], [tiny, -tiny]], dtype=np.float32)
    with pytest.raises(DataError, match=r"1 of rows 0 to 2 \(row 2\) are all nearer to 0 than .*use dtype: float32"):
        write_features(tmp_path / "f", 3, 2, "float16", iter([rows]), META)
    write_features(tmp_path / "g", 2, 2, "float16", iter([rows[:2]]), META)
    write_features(tmp_path / "h", 3, 2, "float32", iter([rows]), META)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_a_model_gives_as_nan_are_refused_with_their_rows(tmp_path, bad):
    everything, _ = parts()
    everything[[4, 5], 2] = bad
    with pytest.raises(DataError, match=r"2 of rows 3 to 5 \(row 4, 5\) are NaN or infinite; use precision: fp32"):
        write_features(tmp_path / "f", 10, 4, "float32", (everything[at : at + 3] for at in range(0, 10, 3)), META)
    assert not (tmp_path / "f").exists()


def test_features_that_cusa_did_not_write_are_looked_at_when_they_are_opened(tmp_path):
    everything, _ = parts()
    everything[7, 0] = np.nan
    (tmp_path / "mine").mkdir()
    write_json(tmp_path / "mine/meta.json", META)
    np.save(tmp_path / "mine/features.npy", everything)
    with pytest.raises(DataError, match=r"mine: the features of 1 of rows 0 to 9 \(row 7\) are NaN or infinite"):
        FeatureStore(tmp_path / "mine", rows=10)
    np.save(tmp_path / "mine/features.npy", np.nan_to_num(everything))
    assert len(FeatureStore(tmp_path / "mine", rows=10)) == 10


def test_a_cut_file_is_noticed(tmp_path):
    write_features(tmp_path / "f", 10, 4, "float16", parts()[1], META)
    path = tmp_path / "f/features.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="is not a complete npy file"):
        FeatureStore(tmp_path / "f", rows=10)


def test_pickles_are_refused(tmp_path):
    """An object array in the place of features would run code when unpickled."""

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f/features.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    write_json(tmp_path / "f/meta.json", META)
    with pytest.raises(DataError, match="features.npy is not a complete npy file"):
        FeatureStore(tmp_path / "f", rows=1)
    assert not (tmp_path / "pwned").exists()


def test_asking_before_extracting(tmp_path):
    with pytest.raises(DataError, match="run `snakemake features` first"):
        FeatureStore(tmp_path, rows=1)


def test_parts_join_to_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("cusa.teachers.store.JOIN_BYTES", 2 * 4 * 4)  # two rows a block
    everything, _ = parts()
    whole = {**META, "transform": "t"}
    write_features(tmp_path / "whole", 10, 4, "float16", [everything], whole)
    folders = []
    for number, (start, end) in enumerate([(0, 3), (3, 4), (4, 10)]):
        folders.append(tmp_path / f"parts/{number}")
        write_features(folders[-1], end - start, 4, "float16", [everything[start:end]], whole)
    join_features(folders, tmp_path / "joined")
    assert (tmp_path / "joined/features.npy").read_bytes() == (tmp_path / "whole/features.npy").read_bytes()
    meta = read_json(tmp_path / "joined/meta.json")
    assert meta == read_json(tmp_path / "whole/meta.json") | {"parts": 3}


def test_parts_that_stay_apart_are_read_as_one(tmp_path):
    everything, _ = parts()
    folders = []
    for number, (start, end) in enumerate([(0, 3), (3, 4), (4, 10)]):
        folders.append(tmp_path / f"train.parts/{number}")
        write_features(folders[-1], end - start, 4, "float16", [everything[start:end]], {**META, "transform": "t"})
    join_features(folders, tmp_path / "train", copy=False)
    assert not (tmp_path / "train/features.npy").exists()
    store = FeatureStore(Path(shutil.move(tmp_path, tmp_path.parent / f"{tmp_path.name}-moved")) / "train", rows=10)
    rows = np.array([9, 0, 3, 3, 2, 4])
    assert np.array_equal(store[rows], everything.astype(np.float16)[rows].astype(np.float32))
    assert np.array_equal(np.concatenate(list(store.blocks(2))), everything.astype(np.float16))
    (store.folder / "../train.parts/1/features.npy").unlink()
    with pytest.raises(
        DataError, match=r"1/features.npy does not exist; delete \S+train.parts/1, and the same command"
    ):
        FeatureStore(store.folder, rows=10)


def test_parts_of_different_weights_are_not_joined(tmp_path):
    everything, _ = parts()
    for number, sha256 in enumerate(["abc", "def"]):
        meta = {**META, "transform": "t", "weights_sha256": sha256}
        write_features(tmp_path / f"parts/{number}", 10, 4, "float16", [everything], meta)
    with pytest.raises(DataError, match="were made with different weights_sha256: abc, def; delete"):
        join_features([tmp_path / "parts/0", tmp_path / "parts/1"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
