"""`cusa verify` on galleries, indexes, exports and stored tokens and pixels; and what their readers say of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cusa.annotations.convert import convert
from cusa.commands.artefacts import verify
from cusa.commands.finding import Finding
from cusa.config.dataset import PublishedDataset
from cusa.config.shards import Shards
from cusa.errors import DataError
from cusa.export.exporting import record_files
from cusa.gallery.items import items_table
from cusa.gallery.store import Gallery, write_gallery
from cusa.index.build import build_index
from cusa.index.folder import SearchIndex
from cusa.layout import DatasetFolder
from cusa.model.exported import Exported
from cusa.model.onnx_folder import OnnxModel, Session
from cusa.shards.reading import ShardReader
from cusa.shards.writing import write_split
from cusa.student.pixels import Crops, WholePictures, write_crops, write_whole_pictures
from cusa.student.tokens import write_tokens
from cusa.teachers.transform import ImageTransform

RUN = "runs/cusa/seed23"
TRANSFORM = ImageTransform(resize=16, crop=16, mean=(0.5,) * 3, std=(0.5,) * 3)
Damage = Callable[[Path], None]


def save_gallery(folder: Path) -> Path:
    """60 normalised embeddings of texts."""
    vectors = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = items_table([f"text {number}" for number in range(60)], None)
    write_gallery(folder, vectors, items, folder / "model", "a" * 64, modality="text")
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory, shapes) -> Path:
    """The folder of a data set: tables, shards, tokens, pixels, and a run with a gallery, an index and an export."""
    data = DatasetFolder(tmp_path_factory.mktemp("searched") / "results/shapes")
    files = {split: str(shapes / f"{split}.json") for split in ("train", "val", "test")}
    convert(PublishedDataset(name="s", format="published", annotations=files), data.annotations, data.images)
    write_split(data.annotations, "test", data.shards("test"), Shards(shorter_side=32))
    write_tokens(data, "test", lambda texts: ([[1, len(text)] for text in texts], 0), data.tokens("clip", "test"))
    write_crops(data.shards("test"), TRANSFORM, data.pixels("clip", "test"))
    write_whole_pictures(data.shards("test"), data.pixels("whole-pictures", "test"))
    run = data.root / RUN
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    save_gallery(run / "gallery/test")
    build_index(run / "gallery/test", run / "search/test")
    export = run / "exports/onnx"
    export.mkdir(parents=True)
    about = {"format": "onnx", "weights_sha256": "a", "dimension": 8, "heads": ("cross",), "shards": Shards()}
    Exported(**about, dataset="s", experiment="cusa", seed=23, versions={}).write(export)
    for name in ("image.onnx", "text.onnx", "README.md"):
        (export / name).write_bytes(name.encode() * 100)
    record_files(export)
    return data.root


@pytest.fixture
def results(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "results/shapes", symlinks=True))


def found_in(results: Path, name: str) -> list[Finding]:
    return [finding for finding in verify(results) if finding.subject == str(results / name)]


def zeroed(path: Path) -> None:
    """A file of the same size that has lost some of its last bytes."""
    content = path.read_bytes()
    path.write_bytes(content[:-40] + bytes(20) + content[-20:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


PARTS = {
    "gallery": f"{RUN}/gallery/test",
    "index": f"{RUN}/search/test",
    "export": f"{RUN}/exports/onnx",
    "tokens": "tokens/clip/test",
    "crops": "pixels/clip/test",
    "pictures": "pixels/whole-pictures/test",
}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_sound_is_compared_with_the_sha256_that_was_recorded(results, part):
    (finding,) = found_in(results, PARTS[part])
    assert finding.sound
    assert not finding.doubtful
    assert "is that written" in finding.text


@pytest.mark.parametrize("damage", [zeroed, cut, Path.unlink], ids=["zeroed", "cut", "lost"])
@pytest.mark.parametrize(
    ("part", "file", "deleted"),
    [
        ("gallery", "embeddings.npy", "embeddings.npy"),
        ("gallery", "items.parquet", "items.parquet"),
        ("index", "index-versions/*/index.faiss", ""),
        ("index", "index-versions/*/duplicates.parquet", ""),
        ("export", "image.onnx", ""),
        ("tokens", "ids.npy", ""),
        ("tokens", "ends.npy", ""),
        ("crops", "pixels.npy", ""),
        ("pictures", "sizes.npy", ""),
    ],
)
def test_each_damage_is_one_sentence_with_what_to_delete(results, part, file, deleted, damage: Damage):
    (path,) = (results / PARTS[part]).glob(file)
    damage(path)
    (finding,) = found_in(results, PARTS[part])
    assert finding.sound is False
    assert path.name in finding.text
    assert finding.text.endswith(f"delete {results / PARTS[part] / deleted}, and the same command makes it again.")


@pytest.mark.parametrize(("part", "name"), [*((part, "meta.json") for part in PARTS if part != "export")])
def test_a_damaged_description_is_one_sentence_too(results, part, name):
    (results / PARTS[part] / name).write_text('{"rows": ')
    (finding,) = found_in(results, PARTS[part])
    assert f"{name} is not valid JSON" in finding.text
    assert f"delete {results / PARTS[part]}" in finding.text
    assert "and the same command makes it again" in finding.text


def test_results_of_earlier_releases_have_no_sha256_and_their_form_is_looked_at(results):
    for part in ("gallery", "tokens", "crops", "export"):
        for name in ("meta.json", "cusa.json"):
            path = results / PARTS[part] / name
            if path.is_file():
                content = json.loads(path.read_text())
                del content["files_sha256"]
                path.write_text(json.dumps(content))
        (finding,) = found_in(results, PARTS[part])
        assert finding.sound
        assert "no sha256 is recorded, so only their form was looked at" in finding.text
    path = results / PARTS["gallery"] / "embeddings.npy"
    np.save(path, np.zeros((60, 8), np.float32))
    (finding,) = found_in(results, PARTS["gallery"])
    assert "not finite or not normalised (the first is row 0); the model has diverged, or the file is damaged: " in (
        finding.text
    )
    assert finding.text.endswith(f"delete {path}, and the same command makes it again.")


def test_a_model_card_is_the_users_to_change(results):
    (results / PARTS["export"] / "README.md").write_text("My model.")
    (finding,) = found_in(results, PARTS["export"])
    assert finding.sound


def test_pixels_of_other_shards_are_doubtful(results):
    path = results / "shards/test/shards.json"
    path.write_text(path.read_text().replace('"quality": 95', '"quality": 90'))
    findings = found_in(results, PARTS["crops"])
    assert [finding.doubtful for finding in findings] == [False, True]
    assert f"it was made of other data than {path} describes now, so it is not used; delete" in findings[1].text


def test_readers_name_what_the_workflow_makes_again(results):
    run = results / RUN
    again = "and the same command makes it again"
    cut(run / "gallery/test/embeddings.npy")
    with pytest.raises(DataError, match=rf"delete {run}/gallery/test/embeddings.npy, {again}"):
        Gallery.open(run / "gallery/test")
    (index,) = run.glob("search/test/index-versions/*/index.faiss")
    save_gallery(run / "gallery/test")
    cut(index)
    with pytest.raises(
        DataError, match=rf"index.faiss is not a complete faiss file .*delete {run}/search/test, {again}"
    ):
        SearchIndex.open(run / "search/test")
    with pytest.raises(DataError, match=rf"image.onnx cannot be loaded .*delete {run}/exports/onnx, {again}"):
        Session(run / "exports/onnx/image.onnx", "cpu")
    (run / "exports/onnx/cusa.json").write_text("{")
    with pytest.raises(DataError, match=rf"cusa.json is not valid JSON .*delete {run}/exports/onnx, {again}"):
        OnnxModel(run / "exports/onnx", "cpu")
    pixels, reader = results / PARTS["crops"], ShardReader(results / "shards/test")
    cut(pixels / "pixels.npy")
    with pytest.raises(DataError, match=rf"pixels.npy is not a complete npy file .*delete {pixels}, {again}"):
        Crops.open(pixels, reader, TRANSFORM)
    pictures = results / PARTS["pictures"]
    (pictures / "meta.json").write_text("{")
    with pytest.raises(DataError, match=rf"meta.json is not valid JSON .*delete {pictures}, {again}"):
        WholePictures.open(pictures, reader)


def test_readers_name_the_command_for_what_a_command_made(tmp_path):
    out = save_gallery(tmp_path / "out")
    build_index(out)
    (index,) = out.glob("index-versions/*/index.faiss")
    cut(index)
    with pytest.raises(DataError, match=rf"run `cusa index {out}` again\."):
        SearchIndex.open(out)
    cut(out / "items.parquet")
    with pytest.raises(DataError, match=rf"delete {out}, and run the same `cusa embed` command again\."):
        len(Gallery.open(out).items)
    with pytest.raises(DataError, match=rf"delete {tmp_path}, and export the run again with `cusa export`\."):
        Exported.read(tmp_path)
