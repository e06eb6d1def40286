"""ECCV Caption on Karpathy's COCO test, held against the package's own evaluation."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_record
from metric_values import value_on_the_data

from cusa.benchmarks import eccv_caption
from cusa.benchmarks.eccv_caption import coco_ids, coco_metrics
from cusa.config.section import validate
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.runs.record import RunFolder

eccv = pytest.importorskip("eccv_caption")


@pytest.fixture(scope="module")
def ground_truth():
    return eccv.Metrics()


@pytest.fixture(scope="module")
def ids(ground_truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image ids, caption ids, and each caption's image, in Karpathy's order."""
    captions = ground_truth.coco_ids.astype(np.int64)
    owners = np.array([ground_truth.coco_gts["t2i"][int(caption)][0] for caption in captions])
    images = owners[::5]
    place = {image: n for n, image in enumerate(images.tolist())}
    return images, captions, np.array([place[owner] for owner in owners.tolist()])


def embeddings(kind: str, image_of_caption: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    image = generator.standard_normal((5000, 24)).astype(np.float32)
    noise = generator.standard_normal((25000, 24)).astype(np.float32)
    match kind:
        case "random":
            return image, noise
        case "good":
            return image, image[image_of_caption] + noise
        case "reversed":  # the right answers come last
            return image, -image[image_of_caption] + 0.3 * noise
        case "one image wins":  # every caption points to nearly one place
            return image, image[:1] + 0.05 * noise
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["random", "good", "reversed", "one image wins"])
def test_equals_the_package(kind, ids, ground_truth, tmp_path):
    images, captions, image_of_caption = ids
    image, text = embeddings(kind, image_of_caption)
    # Plausible matches as the two extra files have them: many right answers for some of the queries.
    generator = np.random.default_rng(1)
    plausible_i2t = {int(i): generator.choice(captions, 60, replace=False).tolist() for i in images[:40]}
    plausible_t2i = {int(c): generator.choice(images, 30, replace=False).tolist() for c in captions[:70]}
    # Also answers that the data do not have: the package counts them as never found.
    unknown = [*(np.setdiff1d(captions[:5] + 1, captions)).tolist(), 10**8, 10**8, 10**8 + 1, 0]
    plausible_i2t[int(images[0])] += unknown
    plausible_i2t[int(images[1])] = unknown
    plausible_t2i[int(captions[0])] += [10**8, 0, int(np.setdiff1d(images + 1, images)[0])]
    (tmp_path / "pm_image_to_caption.json").write_text(json.dumps(plausible_i2t))
    (tmp_path / "pm_caption_to_image.json").write_text(json.dumps(plausible_t2i))
    with_plausible = eccv.Metrics(extra_file_dir=str(tmp_path))

    order = np.random.default_rng(3).permutation(5000), np.random.default_rng(4).permutation(25000)
    found, statistics = coco_metrics(
        image[order[0]], text[order[1]], images[order[0]], captions[order[1]], with_plausible
    )

    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (image, text)]
    scores = torch.from_numpy(unit[0] @ unit[1].T)
    # Deep enough that each of the five folds of COCO 1K has ten of its own in every list.
    i2t = dict(zip(images.tolist(), captions[scores.topk(400).indices.numpy()], strict=True))
    t2i = dict(zip(captions.tolist(), images[scores.T.topk(400).indices.numpy()], strict=True))
    lists = [{key: row.tolist() for key, row in ranking.items()} for ranking in (i2t, t2i)]
    wanted = ["coco_1k_recalls", "coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r", "eccv_rprecision"]
    with contextlib.redirect_stderr(io.StringIO()):
        expected = with_plausible.compute_all_metrics(*lists, target_metrics=[*wanted, "pmrp"])
    for name, both in expected.items():
        for way, value in both.items() if isinstance(both, dict) else [(name, both)]:
            known = {"i2t": "i2t_pmrp", "t2i": "t2i_pmrp"}.get(name) or our_name(name, way)
            assert found[known] == pytest.approx(100 * value, abs=1e-9), (name, way)
    assert np.isfinite(statistics["t2i_r1"].values).sum() == 1332
    assert np.isfinite(statistics["i2t_map_at_r"].values).sum() == 1261
    for name, value in found.items():
        assert value_on_the_data(statistics, name) == pytest.approx(value, abs=1e-9), name
    # A caption is drawn with its image, in each ground truth.
    place = np.empty(5000, dtype=np.int64)
    place[order[0]] = np.arange(5000)
    for name in ("t2i_rprecision", "cxc/t2i_r1", "coco_5k/t2i_r10", "t2i_pmrp"):
        np.testing.assert_array_equal(statistics[name].units.of_query, place[image_of_caption[order[1]]])


@pytest.mark.parametrize(("image_id", "missing"), [(575916, 144675), (421999, 467259)])
def test_a_caption_that_the_package_does_not_have_is_never_found(image_id, missing, ids, ground_truth):
    """Two image queries of the package name a caption outside its 25,000. The next id is a caption of another image."""
    images, captions, owners = ids
    assert missing in ground_truth.eccv_gts["i2t"][image_id]
    assert missing not in captions
    image, text = embeddings("good", owners)
    query = int(np.flatnonzero(images == image_id)[0])
    text[np.argsort(captions)[np.searchsorted(np.sort(captions), missing)]] = 3 * image[query]
    outcomes = eccv_caption.eccv_outcomes(image, text, images, captions, ground_truth)
    assert outcomes["i2t_r1"][query] == 0


def plausible_files(folder: Path, i2t: object, t2i: object) -> str:
    folder.mkdir()
    for name, content in (("image_to_caption", i2t), ("caption_to_image", t2i)):
        (folder / f"pm_{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def test_pmrp_files_of_other_data_are_told_before_training(ids, tmp_path):
    images, captions, owners = ids
    folder = DatasetFolder(annotations(tmp_path / "data", names(images), owners, captions))
    known = {int(images[0]): [int(captions[0])]}, {int(captions[0]): [int(images[0])]}
    cases = {
        "has 2 image queries that are not in the test split, for instance the image 7, of 3": (
            {7: [1], 10**9: [1]} | known[0], known[1],
        ),
        "has 1 caption queries that are not in the test split": (known[0], {10**9: [1]}),
        "pm_caption_to_image.json cannot be read .*expected JSON with a list of COCO's ids by each id": ("{", "{}"),
        "cannot be read": ([1, 2], {}),
    }  # fmt: skip
    for number, (sentence, files) in enumerate(cases.items()):
        place = plausible_files(tmp_path / str(number), *files)
        with pytest.raises(DataError, match=sentence):
            eccv_caption.check(folder, validate(eccv_caption.SETTINGS, {"ground_truth": "coco", "pmrp_files": place}))
    place = plausible_files(tmp_path / "right", *known)
    assert eccv_caption.check(folder, validate(eccv_caption.SETTINGS, {"ground_truth": "coco", "pmrp_files": place}))


def our_name(name: str, way: str) -> str:
    """`coco_1k_r5` -> `coco_1k/i2t_r5`, `eccv_map_at_r` -> `i2t_map_at_r`."""
    if name.startswith("eccv_"):
        return f"{way}_{name.removeprefix('eccv_')}"
    data, _, metric = name.rpartition("_")
    return f"{data}/{way}_{metric}"


def annotations(folder: Path, image_names: list[str], owners: np.ndarray, caption_ids: np.ndarray | None) -> Path:
    (folder / "annotations").mkdir(parents=True)
    images = {"image_id": image_names, "image_path": image_names, "split": ["test"] * len(image_names)}
    pq.write_table(pa.table(images), folder / "annotations/images.parquet")
    identity = pa.nulls(len(owners), pa.int64()) if caption_ids is None else pa.array(caption_ids)
    captions = pa.table({"image": owners, "split": ["test"] * len(owners), "caption_id": identity})
    pq.write_table(captions, folder / "annotations/captions.parquet")
    return folder


def names(images: np.ndarray) -> list[str]:
    return [f"COCO_val2014_{image:012d}.jpg" for image in images]


def test_ids_come_from_the_data(ids, ground_truth, tmp_path):
    """In any order of images, and with the sixth captions that Karpathy's file has and the package does not know."""
    images, captions, _ = ids
    order = np.random.default_rng(0).permutation(5000)
    caption_order = np.concatenate([np.append(np.arange(5 * i, 5 * i + 5), -1) for i in order])
    place = np.empty(5000, dtype=np.int64)
    place[order] = np.arange(5000)
    owner = np.repeat(np.arange(5000), 6)
    given = np.where(caption_order < 0, 10**8 + np.arange(len(caption_order)), captions[caption_order])
    for caption_ids in (given, None):
        folder = annotations(tmp_path / str(caption_ids is None), names(images[order]), owner, caption_ids)
        found = coco_ids(DatasetFolder(folder), ground_truth.coco_ids, ground_truth.coco_gts["t2i"])
        assert np.array_equal(found[0], images[order])
        assert np.array_equal(found[1], np.flatnonzero(caption_order >= 0))
        assert np.array_equal(found[2], captions[caption_order[caption_order >= 0]])
        assert found[3].startswith("the data has no caption ids" if caption_ids is None else "caption ids from")


def test_another_test_split_is_refused(ids, ground_truth, tmp_path):
    images, captions, owners = ids
    cases = {
        "has 5,000 test images, of which 4,999 are among the 5,000 of Karpathy's COCO test, for instance not cat.jpg": (
            [*names(images[:-1]), "cat.jpg"], owners, captions,
        ),
        "has 1,000 test images, of which 1,000 are among": (names(images[:1000]), owners[:5000], captions[:5000]),
        "has 24,999 test captions, of which 24,999 are among the 25,000": (names(images), owners[:-1], captions[:-1]),
    }  # fmt: skip
    for number, (sentence, (image_names, owner, caption_ids)) in enumerate(cases.items()):
        folder = DatasetFolder(annotations(tmp_path / str(number), image_names, owner, caption_ids))
        with pytest.raises(DataError, match=sentence):
            coco_ids(folder, ground_truth.coco_ids, ground_truth.coco_gts["t2i"])


def test_the_protocol_names_the_package():
    assert "eccv_caption {version}" in eccv_caption.COCO


def test_a_run_from_its_files_and_pmrp_that_is_not_there(ids, tmp_path):
    """Missing PMRP files are left out like any other data; a folder without them is a sentence."""
    images, captions, owners = ids
    folder = DatasetFolder(annotations(tmp_path / "data", names(images), owners, captions))
    run = tmp_path / "run"
    (run / "embeddings/test").mkdir(parents=True)
    image, text = embeddings("good", owners)
    np.save(run / "embeddings/test/image_cross.npy", image)
    np.save(run / "embeddings/test/text_cross.npy", text)
    write_record(run, {"contrastive": {}})
    section = validate(eccv_caption.SETTINGS, {"ground_truth": "coco", "pmrp_files": str(tmp_path / "no")})
    assert "does not exist" in section.left_out()["pmrp"]
    result = eccv_caption.evaluate(folder, RunFolder(run), section)
    assert "i2t_pmrp" not in result.metrics
    assert (result.n_queries, result.n_gallery) == (25000, 5000)
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match="pmrp_files names .*no, which lacks .*pm_image_to_caption.json and"):
        eccv_caption.evaluate(folder, RunFolder(run), section)
