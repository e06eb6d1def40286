"""A gallery of splits of the data set has the embeddings of the workflow and the pictures of the shards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cusa.embeddings import embed
from cusa.errors import DataError
from cusa.gallery.splits import gallery_of_splits
from cusa.layout import DatasetFolder
from cusa.runs.record import RunRecord


@pytest.fixture
def run(scored_runs, tmp_path) -> Path:
    """A copy of a run with its data set."""
    folder, _ = scored_runs
    return Path(shutil.copytree(folder.root, tmp_path / "results/shapes")) / "runs/cusa/seed23"


@pytest.mark.parametrize("head", ["cross", "uni"])
def test_rows_are_the_images_of_the_split_with_their_normalised_embeddings(run, head):
    gallery = gallery_of_splits(run, ["test"], run / "gallery/test", head)
    stored = np.load(run / f"embeddings/test/image_{head}.npy")
    expected = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    np.testing.assert_allclose(gallery.embeddings(), expected, atol=1e-6)
    assert gallery.meta.model_sha256 == RunRecord.read(run).weights_sha256
    assert (gallery.meta.head, gallery.meta.modality, gallery.meta.source["splits"]) == (head, "image", ["test"])

    folder = DatasetFolder.of_run(run)
    images = [row for row in pq.read_table(folder.table("images")).to_pylist() if row["split"] == "test"]
    assert gallery.items["image_id"].to_pylist() == [image["image_id"] for image in images]
    assert gallery.items["item"].to_pylist() == [Path(image["image_path"]).name for image in images]
    assert set(gallery.items["split"].to_pylist()) == {"test"}


def test_captions_are_those_of_the_image_in_their_order(run):
    gallery = gallery_of_splits(run, ["test"], run / "gallery/test")
    folder = DatasetFolder.of_run(run)
    ids = pq.read_table(folder.table("images"))["image_id"].to_pylist()
    captions: dict[str, list[str]] = {}
    for row in pq.read_table(folder.table("captions")).to_pylist():
        captions.setdefault(ids[row["image"]], []).append(row["caption"])
    for item in gallery.items.to_pylist():
        assert item["captions"] == captions[item["image_id"]]
        assert len(item["captions"]) == 2


def test_pictures_are_those_of_the_shards_wherever_the_results_are(run, tmp_path):
    """Paths are relative to the gallery: results that are moved show their pictures."""
    gallery_of_splits(run, ["test"], run / "gallery/test")
    (tmp_path / "results").rename(tmp_path / "moved")
    from cusa.gallery.store import Gallery
    from cusa.shards.reading import ShardReader

    moved = tmp_path / "moved/shapes"
    gallery, shards = Gallery.open(moved / "runs/cusa/seed23/gallery/test"), ShardReader(moved / "shards/test")
    for row in range(gallery.rows):
        assert gallery.picture_bytes(row) == shards.encoded(row)


def test_without_shards_on_this_disk_the_original_files_are_shown(run):
    """As for a train split that is streamed."""
    folder = DatasetFolder.of_run(run)
    for shard in folder.shards("test").glob("*.tar"):
        shard.unlink()
    gallery = gallery_of_splits(run, ["test"], run / "gallery/test")
    item = gallery.items.to_pylist()[0]
    assert (item["offset"], item["size"]) == (None, None)
    assert Path(item["path"]).is_absolute()
    assert Image.open(item["path"]).size == (64, 48)


def test_several_splits_follow_each_other(run):
    folder = DatasetFolder.of_run(run)
    embed(run, folder, "val", run / "embeddings/val")
    gallery = gallery_of_splits(run, ["val", "test"], run / "gallery/all")
    assert gallery.items["split"].to_pylist() == ["val"] * 8 + ["test"] * 8
    assert len(set(gallery.items["item"].to_pylist())) == 16
    one = gallery_of_splits(run, ["test"], run / "gallery/test")
    np.testing.assert_array_equal(gallery.embeddings(8), one.embeddings())
    assert gallery.picture_bytes(8) == one.picture_bytes(0)


def test_images_of_one_name_are_told_apart_by_their_ids(run):
    folder = DatasetFolder.of_run(run)
    images = pq.read_table(folder.table("images"))
    same = images.set_column(1, "image_path", [["/pictures/x.jpg"] * len(images)])
    pq.write_table(same, folder.table("images"))
    gallery = gallery_of_splits(run, ["test"], run / "gallery/test")
    assert gallery.items["item"].to_pylist() == gallery.items["image_id"].to_pylist()


def test_embeddings_that_are_missing_are_a_sentence(run):
    with pytest.raises(DataError, match=r"embeddings/val/image_cross.npy does not exist; run `snakemake scores`"):
        gallery_of_splits(run, ["val"], run / "gallery/val")
    assert not (run / "gallery/val/meta.json").exists()


def test_shards_of_other_images_are_a_sentence(run):
    index = DatasetFolder.of_run(run).shards("test") / "index.parquet"
    pq.write_table(pq.read_table(index).slice(1), index)
    with pytest.raises(DataError, match="has other images than the split test"):
        gallery_of_splits(run, ["test"], run / "gallery/test")


def test_no_torch_is_imported(run):
    code = (
        "import sys; from cusa.gallery.splits import gallery_of_splits; "
        f"gallery_of_splits({str(run)!r}, ['test'], {str(run / 'gallery/test')!r}); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
