"""Published features in their own file format, and hostile or damaged files, which are refused."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from published_files import Hostile

from cusa.annotations.tables import IMAGES, read_table, split_rows
from cusa.common.files import read_json
from cusa.config.models import ImageModel
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.teachers.store import FeatureStore
from cusa.upstream.features import export_features, import_features, load_features


def write_published_features(path: Path, content: object, protocol: int = 4) -> Path:
    """Write a dict as np.save does, in any pickle protocol."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(content, dtype=object), file, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_features_are_read_in_every_protocol(tmp_path, protocol, dtype):
    rng = np.random.default_rng(0)
    content = {f"image{number}.jpg": rng.standard_normal((1, 2000)).astype(dtype) for number in range(5)}
    ids, features = load_features(write_published_features(tmp_path / "f.npy", content, protocol))
    assert ids == list(content)
    assert features.dtype == dtype
    assert np.array_equal(features, np.concatenate(list(content.values())))


def test_features_that_numpy_saved(tmp_path):
    content = {"b": np.arange(3.0)[None], "a": np.ones((1, 3))}
    np.save(tmp_path / "f.npy", content, allow_pickle=True)
    ids, features = load_features(tmp_path / "f.npy")
    assert ids == ["b", "a"]
    assert features.tolist() == [[0, 1, 2], [1, 1, 1]]


@pytest.mark.parametrize("hide", [lambda bad: bad, lambda bad: {"a": bad}, lambda bad: {"a": np.array([bad])}])
def test_a_hostile_file_of_features_runs_nothing(tmp_path, monkeypatch, hide):
    monkeypatch.chdir(tmp_path)
    write_published_features(tmp_path / "f.npy", hide(Hostile()))
    with pytest.raises(DataError, match=r"it asks for posix.system, .*nothing in it was executed"):
        load_features("f.npy")
    assert not Path("was-here").exists()
    np.load("f.npy", allow_pickle=True)  # the file would have done harm
    assert Path("was-here").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": np.ones((2, 3))}, r"shape \(2, 3\); expected floats of shape \(1, d\)"),
        ({"a": np.ones((1, 3), dtype=int)}, "expected floats"),
        ({"a": 7}, "not an image id with a row"),
        ({7.5: np.ones((1, 3))}, "not an image id with a row"),
        ({True: np.ones((1, 3))}, "not an image id with a row"),
        ({(1, 2): np.ones((1, 3))}, "not an image id with a row"),
        ({"a": np.float32(1)}, "a scalar of float32; expected an integer or a text as image id"),
        ({"a": np.ones((1, 0))}, "expected floats"),
        ({"a": np.array(1.0)}, "expected floats"),
        ({"a": np.array([None, 1.0], dtype=object)}, "an array of objects"),
        ({"a": [1.0, 2.0]}, "not an image id with a row"),
        ({"a": np.ones(3), "b": np.ones(3), "c": np.ones(4)}, r"2 rows of 3 float64 \(a, b\); 1 rows of 4 .*c"),
        ({"a": np.ones((1, 3)), "b": np.ones((1, 3), np.float32)}, "expected rows of one length and type"),
        ({1: np.ones((1, 3)), "1": np.ones((1, 3))}, "has 1 ids twice, as a number and as text, for instance 1"),
        ({"a": np.ones((1, 3)), "b": np.array([[0, np.nan, 1]])}, "features of 1 of 2 images are NaN or infinite: b"),
        ({"a": np.array([[np.inf]], np.float16)}, "features of 1 of 1 images are NaN or infinite: a"),
        ({}, "holds no features"),
    ],
)
def test_features_of_another_shape_are_refused(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        load_features(write_published_features(tmp_path / "f.npy", content))


@pytest.mark.parametrize("protocol", [2, 4])
def test_ids_may_be_numbers_and_rows_may_be_flat(tmp_path, protocol):
    content = {1: np.ones(3), np.int64(2): np.zeros((1, 3)), np.str_("3"): np.full((3,), 2.0)}
    ids, features = load_features(write_published_features(tmp_path / "f.npy", content, protocol))
    assert ids == ["1", "2", "3"]
    assert features.tolist() == [[1] * 3, [0] * 3, [2] * 3]


def test_files_that_are_no_features(tmp_path):
    np.save(tmp_path / "plain.npy", np.ones(3))
    (tmp_path / "text.npy").write_text("hello")
    whole = write_published_features(tmp_path / "whole.npy", {"a": np.ones((1, 5000))}).read_bytes()
    for name, content in (("cut", whole[:-500]), ("short", whole[:300]), ("empty", b"")):
        (tmp_path / f"{name}.npy").write_bytes(content)
    for name, says in (
        ("plain", "expected one pickled dict"),
        ("text", "is not a published file of features"),
        ("cut", "is not a complete file of features: it was cut off; copy it again"),
        ("short", "is not a complete file of features: it was cut off; copy it again"),
        ("empty", "is not a complete file of features: it was cut off; copy it again"),
        ("none", "does not exist"),
    ):
        with pytest.raises(DataError, match=says):
            load_features(tmp_path / f"{name}.npy")


UNICOM = ImageModel(name="unicom")


def test_features_go_in_and_out(shapes_data, tmp_path):
    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    images = read_table(folder.annotations, IMAGES)
    ids = [images["image_id"][int(row)].as_py() for row in split_rows(images, "train")]
    rng = np.random.default_rng(0)
    content = {image_id: rng.standard_normal((1, 50)).astype(np.float16) for image_id in sorted(ids)}
    content["somebody-else.jpg"] = np.zeros((1, 50), np.float16)
    import_features(write_published_features(tmp_path / "f.npy", content), folder, "train", UNICOM)
    output = folder.features("image", UNICOM.folder, "train")
    store = FeatureStore(output, len(ids), UNICOM.identity)
    expected = np.concatenate([content[image_id] for image_id in ids])
    assert np.array_equal(store.arrays[0], expected)
    assert read_json(output / "meta.json")["imported_from"]["file"] == "f.npy"
    assert [path.name for path in output.parent.iterdir()] == ["train"]

    export_features(folder, "train", UNICOM, tmp_path / "out.npy")
    found, features = load_features(tmp_path / "out.npy")
    assert found == ids
    assert np.array_equal(features, expected.astype(np.float32))


def test_only_the_rows_that_are_used_have_to_be_finite(shapes_data, tmp_path):
    """Float64 is stored as the configuration says; rows of other splits are left out, whatever they are."""
    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    images = read_table(folder.annotations, IMAGES)
    ids = [images["image_id"][int(row)].as_py() for row in split_rows(images, "val")]
    content = {image_id: np.full((1, 4), (number + 1) / 3) for number, image_id in enumerate(ids)}
    content["of another split"] = np.full((1, 4), np.nan)
    model = ImageModel(name="unicom", dtype="float32")
    import_features(write_published_features(tmp_path / "f.npy", content), folder, "val", model)
    store = FeatureStore(folder.features("image", model.folder, "val"), len(ids), model.identity, "digest of a file")
    assert store.arrays[0].dtype == np.float32
    assert np.array_equal(store.arrays[0][:, 0], (np.arange(1, len(ids) + 1) / 3).astype(np.float32))
    content[ids[2]][0, 1] = np.nan
    with pytest.raises(DataError, match=rf"features of 1 of {len(ids)} images are NaN or infinite: {ids[2]}"):
        import_features(write_published_features(tmp_path / "f.npy", content), folder, "val", model)


def test_features_that_lack_images_are_refused_with_examples(shapes_data, tmp_path):
    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    path = write_published_features(tmp_path / "f.npy", {"x": np.ones((1, 4))})
    with pytest.raises(DataError, match=r"no features for 8 of the 8 images of val, for instance .*\.jpg"):
        import_features(path, folder, "val", UNICOM)
    assert not folder.features("image", UNICOM.folder, "val").exists()


def test_importing_holds_one_row_at_a_time(tmp_path):
    """200 rows of 1 MB: their bytes must not stay in the unpickler's memo."""
    path = write_published_features(
        tmp_path / "f.npy", {f"{number}": np.zeros((1, 262_144), np.float32) for number in range(200)}
    )
    code = (
        "from pathlib import Path\n"
        "import cusa.upstream.unpickling as u\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        f"assert len(u.read_feature_dict({str(path)!r}, lambda row: None)) == 200\n"
        "assert peak() - before < 40_000, peak() - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ids: {f"pics/{name}": np.ones((1, 4)) for name in ids}, r"the ids in the file are pics/\S+, pics/"),
        (lambda ids: dict.fromkeys(ids, np.zeros((1, 4))), r"features of (\d+) of \1 images are all 0: \S+\.jpg, "),
        (lambda ids: dict.fromkeys(ids, np.full((1, 4), 1e-9)), "all nearer to 0 than 6.1e-05, .*use dtype: float32"),
    ],
    ids=["other ids", "zeros", "tiny"],
)
def test_features_that_would_say_nothing_are_refused(shapes_data, tmp_path, change, says):
    folder = DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "data")))
    images = read_table(folder.annotations, IMAGES)
    ids = [images["image_id"][int(row)].as_py() for row in split_rows(images, "train")]
    with pytest.raises(DataError, match=says):
        import_features(write_published_features(tmp_path / "f.npy", change(ids)), folder, "train", UNICOM)
