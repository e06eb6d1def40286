"""A trained model in use: `cusa.load` embeds pictures and texts as the workflow does."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cusa
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.config.configuration import load
from cusa.embeddings import embed
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.model import Model
from cusa.training.loop import train


@pytest.fixture(scope="module")
def run(tiny_configuration, shapes_data) -> Path:
    folder = DatasetFolder(shapes_data).run("for_use", 23)
    train(load(tiny_configuration).run("cusa", 23), DatasetFolder(shapes_data), folder)
    return folder


@pytest.fixture(scope="module")
def model(run) -> Model:
    return cusa.load(run, device="cpu")


@pytest.fixture(scope="module")
def paths(shapes_data) -> list[str]:
    images = read_table(shapes_data / "annotations", IMAGES)
    return [
        path
        for path, split in zip(images["image_path"].to_pylist(), images["split"].to_pylist(), strict=True)
        if split == "test"
    ]


def unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array, axis=1, keepdims=True)


@pytest.mark.parametrize("head", ["cross", "uni"])
def test_embeddings_equal_those_of_the_workflow(model, run, paths, shapes_data, tmp_path, head):
    embed(run, DatasetFolder(shapes_data), "test", tmp_path / "test")
    captions = read_table(shapes_data / "annotations", CAPTIONS).to_pylist()
    texts = [row["caption"] for row in captions if row["split"] == "test"]
    images, text = model.encode_image(paths, head=head), model.encode_text(texts, head=head)
    assert np.allclose(images, unit(np.load(tmp_path / f"test/image_{head}.npy")), atol=1e-6)
    assert np.allclose(text, unit(np.load(tmp_path / f"test/text_{head}.npy")), atol=1e-6)
    assert images.dtype == text.dtype == np.float32
    assert np.allclose(model.similarity(text, images), text @ images.T, atol=1e-6)


def test_frozen_towers_run_here_too(tiny_configuration, tiny_vision, tiny_sentences, shapes_data, paths, tmp_path):
    """Their features are cached in the workflow; a new picture has none."""
    from cusa.config.models import ImageTower, TextTower
    from cusa.teachers.extraction import extract_image_features, extract_text_features

    folder = DatasetFolder(shapes_data)
    image, text = ({"name": str(name), "trainable": False} for name in (tiny_vision, tiny_sentences))
    for split in ("train", "val", "test"):
        tower = ImageTower(**image)
        extract_image_features(folder.shards(split), tower, folder.features("image", tower.folder, split))
        tower = TextTower(**text)
        extract_text_features(folder.annotations, split, tower, folder.features("text", tower.folder, split))
    student = {"towers": {"image": image, "text": text, "dimension": 8}}
    run = folder.run("frozen_for_use", 23)
    train(load({**tiny_configuration, "student": student}).run("cusa", 23), folder, run)
    embed(run, folder, "test", tmp_path / "test")
    model = cusa.load(run, device="cpu")
    assert model.dimension == 8
    assert np.allclose(model.encode_image(paths), unit(np.load(tmp_path / "test/image_cross.npy")), atol=1e-5)
    texts = [row["caption"] for row in read_table(folder.annotations, CAPTIONS).to_pylist() if row["split"] == "test"]
    assert np.allclose(model.encode_text(texts), unit(np.load(tmp_path / "test/text_cross.npy")), atol=1e-5)


def test_a_picture_is_the_same_in_whatever_form_it_comes(model, paths):
    path = Path(paths[0])
    with Image.open(path) as picture:
        picture.load()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    forms = [
        str(path),
        path,
        path.absolute().as_uri(),
        path.read_bytes(),
        picture,
        np.asarray(picture),
        buffer.getvalue(),
    ]
    embeddings = model.encode_image(forms)
    assert embeddings.shape == (len(forms), model.dimension)
    assert np.allclose(embeddings, embeddings[0], atol=1e-6)
    assert np.allclose(model.encode_image(path), embeddings[:1], atol=1e-6)
    grey = np.asarray(picture.convert("L"))
    assert np.allclose(model.encode_image([grey]), model.encode_image([np.stack([grey] * 3, axis=2)]), atol=1e-6)


def test_a_single_text_and_none(model):
    assert np.allclose(model.encode_text("a red circle"), model.encode_text(["a red circle"]))
    assert model.encode_text([]).shape == model.encode_image([]).shape == (0, model.dimension)


def closed_picture() -> Image.Image:
    """A picture whose pixels are gone, as after a `with` block."""
    picture = Image.new("RGB", (4, 4))
    picture.close()
    return picture


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("missing.jpg", "item 1: missing.jpg: the file does not exist"),
        (b"no picture at all", "item 1: the picture cannot be read as an image .it is text"),
        (np.zeros((0, 4, 3), np.uint8), "item 1: a picture of 4 x 0 pixels"),
        ("https://example.org/a.jpg", "item 1: https://example.org/a.jpg is not a local file"),
        (np.zeros((4, 4)), "item 1: an array of shape .* float64; expected uint8"),
        (7, "item 1: a int; expected a path"),
        (closed_picture(), "item 1: cannot be read as an image .Operation on closed image"),
    ],
)
def test_items_that_cannot_be_read_are_named(model, paths, item, reason):
    with pytest.raises(DataError, match=f"1 of 3 pictures cannot be read: {reason}"):
        model.encode_image([paths[0], item, paths[1]])


@pytest.mark.parametrize(("text", "reason"), [("  ", "have no word"), (None, "are not text")])
def test_texts_without_words_are_named(model, text, reason):
    with pytest.raises(DataError, match=f"1 of 2 .*{reason}.*1: {text!r}"):
        model.encode_text(["a circle", text])


@pytest.mark.parametrize("items", [None, 3, {"a": 1}, bytearray(b"x")], ids=ascii)
def test_what_is_no_list_of_items_is_named_with_what_is_expected(model, items):
    with pytest.raises(DataError, match=r"is a \w+; expected a picture or a list of pictures, each a path, bytes"):
        model.encode_image(items)
    with pytest.raises(DataError, match=r"is a \w+; expected a text or a list of texts"):
        model.encode_text(items)


def test_embeddings_of_other_lengths_and_another_precision_are_a_sentence(model, run):
    with pytest.raises(DataError, match=r"embeddings of the shapes \[2, 3\] and \[4\] cannot be compared"):
        model.similarity(np.zeros((2, 3)), np.zeros(4))
    with pytest.raises(ConfigurationError, match="folder is None; expected the path of a run or of an exported folder"):
        cusa.load(None)
    with pytest.raises(ConfigurationError, match="precision is 'fp8'; expected one of fp32, tf32"):
        cusa.load(run, precision="fp8")


def test_what_does_not_exist_is_a_sentence(model, tmp_path):
    with pytest.raises(DataError, match="run `snakemake models` first"):
        cusa.load(tmp_path / "runs/cusa/seed1")
    with pytest.raises(ConfigurationError, match="head is 'text'; expected 'cross' or 'uni'"):
        model.encode_text(["a circle"], head="text")


def test_importing_the_package_imports_no_torch():
    code = "import cusa, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_snippet_of_the_page_runs(run, paths, monkeypatch, tmp_path):
    """With a run and pictures of the tests in the places of the demo's."""
    page = (Path(__file__).parents[1] / "docs/use-the-model.md").read_text()
    snippet = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[0]
    data = tmp_path / "results/openmoji"
    shutil.copytree(run.parents[2], data)
    shutil.copytree(data / "runs/for_use/seed23", data / "runs/cusa/seed23", dirs_exist_ok=True)
    (data / "images").mkdir(exist_ok=True)
    for name, path in zip(re.findall(r"images/(\w+\.png)", snippet), paths, strict=False):
        shutil.copy(path, data / "images" / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, np.ndarray] = {}
    exec(snippet, names)  # noqa: S102 (it is ours)
    assert names["images"].shape == (2, 16)
    assert names["texts"].shape == (1, 16)
