"""Exports to sentence-transformers: every kind of student, loaded by the library alone, gives the run's embeddings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs_to_export import RUNS, tower, untrained_run

import cusa
from cusa.annotations.tables import IMAGES, read_table
from cusa.config.models import ImageTower, TextTower
from cusa.errors import ConfigurationError, DataError
from cusa.export.exporting import ExportOptions, export
from cusa.export.sentence_transformers_check import as_stored
from cusa.student.backbones import FrozenDimensions
from cusa.teachers.registry import load_image_encoder, load_text_encoder

CAPTIONS = ["A LARGE red circle.", "  small-blue\tsquare!! ", "a green cross and a triangle", "circle " * 80]


@pytest.fixture(scope="module")
def paths(shapes_data) -> list[str]:
    rows = read_table(shapes_data / "annotations", IMAGES).to_pylist()
    return [row["image_path"] for row in rows if row["split"] == "test"]


@pytest.fixture(scope="module")
def pictures(paths) -> list[Image.Image]:
    """Pictures that the library crops where cusa does: half of an even number of pixels is left out on each side."""
    found = []
    for path in paths:
        with Image.open(path) as picture:
            found.append(picture.convert("RGB").resize((42, 32)))
    return found


@pytest.fixture(scope="module")
def write_run(shapes_data, tiny_configuration) -> Callable[..., Path]:
    def write(name: str, student: dict, **captions: object) -> Path:
        frozen = FrozenDimensions()
        if towers := student.get("towers"):
            image, text = ImageTower(**towers["image"]), TextTower(**towers["text"])
            frozen = FrozenDimensions(
                0 if image.trainable else load_image_encoder(image).dimension,
                0 if text.trainable else load_text_encoder(text).dimension,
            )
        return untrained_run(shapes_data, tiny_configuration, student, f"st_{name}", frozen, **captions)

    return write


@pytest.fixture(scope="module")
def tiny_timm(tmp_path_factory) -> Path:
    import timm
    import torch
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("tiny-timm")
    torch.manual_seed(4)
    network = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    save_for_hf(network, folder, model_config={"num_classes": 3}, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def students(tiny_clip, tiny_siglip, tiny_vision, tiny_sentences, tiny_timm) -> dict[str, dict]:
    def towers(image: Path, text: Path, trainable: bool, **keys: object) -> dict:
        both = {"image": tower(image, trainable, **keys), "text": tower(text, trainable), "dimension": 8}
        return {"towers": both, "max_tokens": 12}

    return {
        "clip": {"name": str(tiny_clip)},
        "siglip": {"name": str(tiny_siglip)},
        "trained towers": towers(tiny_vision, tiny_sentences, trainable=True),
        "frozen towers": towers(tiny_vision, tiny_sentences, trainable=False),
        "vision side of clip": towers(tiny_clip, tiny_sentences, trainable=False),
        "vision side of siglip": towers(tiny_siglip, tiny_sentences, trainable=True),
        "timm": towers(tiny_timm, tiny_sentences, trainable=True, image_size=80),
    }


def exported(run: Path, folder: Path, **options: object) -> Path:
    export(run, "sentence-transformers", folder, ExportOptions(**options))
    return folder


def check_equal(run: Path, folder: Path, pictures: list[Image.Image], head: str = "cross") -> None:
    """The library alone gives the run's embeddings, for queries and documents too."""
    from sentence_transformers import SentenceTransformer

    ours, theirs = cusa.load(run, device="cpu", precision="fp32"), SentenceTransformer(str(folder), device="cpu")
    images, texts = ours.encode_image(pictures, head=head), ours.encode_text(CAPTIONS, head=head)
    stored = [as_stored(ours, picture) for picture in pictures]
    assert np.allclose(theirs.encode(stored), images, atol=1e-5)
    assert np.allclose(theirs.encode_document(stored), images, atol=1e-5)
    assert np.allclose(theirs.encode(CAPTIONS), texts, atol=1e-5)
    assert np.allclose(theirs.encode_query(CAPTIONS), texts, atol=1e-5)
    assert np.allclose(theirs.similarity(texts, images), ours.similarity(texts, images), atol=1e-5)
    assert theirs.get_embedding_dimension() == ours.dimension == images.shape[1]
    assert np.ptp(images, axis=0).max() > 1e-3
    assert np.ptp(texts, axis=0).max() > 1e-3


@pytest.mark.parametrize(
    "kind",
    [
        "clip",
        "siglip",
        "trained towers",
        "frozen towers",
        "vision side of clip",
        "vision side of siglip",
        "timm",
    ],
)
def test_every_kind_of_student_gives_its_own_embeddings(students, write_run, pictures, tmp_path, kind):
    run = write_run(kind.replace(" ", "_"), students[kind])
    check_equal(run, exported(run, tmp_path / "exported"), pictures)


@pytest.mark.parametrize("kind", ["clip", "frozen towers"])
def test_the_other_head(students, write_run, pictures, tmp_path, kind):
    run = write_run(f"uni_{kind.replace(' ', '_')}", students[kind])
    check_equal(run, exported(run, tmp_path / "exported", head="uni"), pictures, head="uni")


@pytest.mark.parametrize("kind", ["imported", "zero_shot"])
def test_imported_checkpoints_and_baselines(pictures, tmp_path, request, kind):
    run = RUNS[kind](request.getfixturevalue)
    check_equal(run, exported(run, tmp_path / "exported"), pictures)


def test_captions_that_were_not_cleaned_and_a_prompt(write_run, pictures, tiny_vision, tiny_sentences, tmp_path):
    text = tower(tiny_sentences, trainable=False, prompt="a small: ")
    towers = {"image": tower(tiny_vision, trainable=False), "text": text, "dimension": 8}
    run = write_run("prompted", {"towers": towers}, clean="none", max_words=3)
    check_equal(run, exported(run, tmp_path / "exported"), pictures)


def test_embeddings_of_the_text_tower_that_are_cut(write_run, pictures, tiny_vision, tiny_sentences, tmp_path):
    text = tower(tiny_sentences, matryoshka_dimension=7)
    student = {"towers": {"image": tower(tiny_vision), "text": text, "dimension": 8}, "max_tokens": 12}
    run = write_run("cut_towers", student)
    check_equal(run, exported(run, tmp_path / "exported"), pictures)
    export(run, "safetensors", tmp_path / "moved", ExportOptions())
    models = [cusa.load(folder, device="cpu") for folder in (run, tmp_path / "moved")]
    found = [model.encode_text(CAPTIONS) for model in models]
    assert np.allclose(*found, atol=1e-6)


@pytest.fixture(scope="module")
def clip_run(students, write_run) -> Path:
    return write_run("for_use", students["clip"])


@pytest.fixture(scope="module")
def clip_folder(clip_run, tmp_path_factory) -> Path:
    return exported(clip_run, tmp_path_factory.mktemp("exported") / "clip")


def test_what_was_measured_is_told(clip_run, tmp_path):
    """The pictures of the shapes are stored 43 pixels wide, of which 32 are kept: half of 11 is rounded two ways."""
    told = export(clip_run, "sentence-transformers", tmp_path / "exported", ExportOptions())
    assert any("8 more are cropped or resized one pixel apart" in line for line in told)
    assert any("16 of 16 captions of the data set, not cleaned: embeddings equal" in line for line in told)
    assert any(line.startswith("8 pictures without being shrunk to a shorter side of 32") for line in told)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_that_embeds_otherwise_is_refused(clip_run, clip_folder, tmp_path, tower):
    """The towers of the folder are changed here as a wrong conversion would do it."""
    from safetensors.torch import load_file, save_file

    from cusa.export.sentence_transformers_check import measure

    broken = Path(shutil.copytree(clip_folder, tmp_path / "broken"))
    weights = broken / f"{tower}_2_Dense/model.safetensors"
    save_file({name: tensor.flip(0) for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(ConfigurationError, match=f"the exported {tower} tower gives other embeddings.*--to onnx"):
        measure(cusa.load(clip_run, device="cpu", precision="fp32"), broken, "cross")


def test_a_run_whose_data_set_is_gone_exports_too(clip_run, tmp_path, shapes_data):
    data = tmp_path / "moved"
    shutil.copytree(shapes_data / "shards/train", data / "shards/train")
    run = Path(shutil.copytree(clip_run, data / "runs/cusa/seed23"))
    told = export(run, "sentence-transformers", tmp_path / "exported", ExportOptions())
    assert any("8 pictures as the shards store them: embeddings equal the run's" in line for line in told)


def test_the_recipe_of_the_card_makes_every_picture_equal(clip_run, clip_folder, paths, tmp_path, monkeypatch):
    """Also those that the library crops one pixel apart."""
    from sentence_transformers import SentenceTransformer

    card = (clip_folder / "README.md").read_text()
    recipe = next(block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "as_trained" in block)
    monkeypatch.chdir(tmp_path)
    shutil.copy(paths[0], "photo.jpg")
    names = {"model": SentenceTransformer(str(clip_folder), device="cpu")}
    exec(recipe, names)  # noqa: S102 (it is ours)
    pictures = [names["as_trained"](Image.open(path)) for path in paths]
    ours = cusa.load(clip_run, device="cpu", precision="fp32").encode_image(paths)
    assert np.allclose(names["model"].encode(pictures), ours, atol=1e-5)
    assert np.allclose(names["images"], ours[:1], atol=1e-5)
    assert not np.allclose(names["model"].encode([Image.open(path) for path in paths]), ours, atol=1e-3)


ALONE = """
import json, sys
sys.modules["cusa"] = None  # an import of it fails
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", trust_remote_code=False)
pictures = [Image.open(path) for path in sys.argv[2:]]
json.dump([model.encode(pictures).tolist(), model.encode(["A red circle!"]).tolist()], sys.stdout)
"""


def test_the_folder_loads_in_a_process_that_cannot_import_cusa(clip_run, clip_folder, pictures, tmp_path):
    model = cusa.load(clip_run, device="cpu", precision="fp32")
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for picture, file in zip(pictures, files, strict=False):
        as_stored(model, picture).save(file)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", ALONE, str(clip_folder), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean, cwd=tmp_path)
    images, texts = json.loads(done.stdout)
    assert np.allclose(images, model.encode_image(pictures[:3]), atol=1e-5)
    assert np.allclose(texts, model.encode_text(["A red circle!"]), atol=1e-5)


def test_the_folder_is_a_model_of_cusa_too(clip_run, clip_folder, paths):
    run, model = cusa.load(clip_run, device="cpu", precision="fp32"), cusa.load(clip_folder, device="cpu")
    assert (model.dimension, model.weights_sha256, model.folder) == (16, run.weights_sha256, clip_folder)
    # Pictures are prepared as the run does it, so these are equal whatever their size is.
    assert np.allclose(model.encode_image(paths), run.encode_image(paths), atol=1e-5)
    assert np.allclose(model.encode_text(CAPTIONS), run.encode_text(CAPTIONS), atol=1e-5)
    assert np.allclose(model.encode_text("a cross"), run.encode_text("a cross"), atol=1e-5)
    assert model.encode_text([]).shape == model.encode_image([]).shape == (0, 16)
    assert model.similarity(model.encode_text(["red"]), model.encode_image(paths)).shape == (1, len(paths))
    with pytest.raises(ConfigurationError, match=r"holds the head cross only; export the run again with --head uni"):
        model.encode_text(["red"], head="uni")
    with pytest.raises(DataError, match=r"1 of 2 pictures cannot be read: item 1: missing.jpg: the file does not ex"):
        model.encode_image([paths[0], "missing.jpg"])
    with pytest.raises(DataError, match=r"1 of 1 texts have no word"):
        model.encode_text(["..."])


def test_a_text_that_is_the_path_of_a_picture_stays_a_text(clip_run, clip_folder, paths):
    run, model = cusa.load(clip_run, device="cpu", precision="fp32"), cusa.load(clip_folder, device="cpu")
    assert np.allclose(model.encode_text([paths[0]]), run.encode_text([paths[0]]), atol=1e-5)


def test_a_damaged_folder_is_a_sentence(clip_folder, tmp_path):
    broken = Path(shutil.copytree(clip_folder, tmp_path / "broken"))
    (broken / "modules.json").write_text("{}")
    with pytest.raises(
        DataError,
        match="broken cannot be loaded by sentence-transformers .*; delete .*broken, and export the run again",
    ):
        cusa.load(broken, device="cpu")


def test_an_encoder_of_another_kind_is_refused_with_the_way_out(tmp_path):
    """As Unicom is, whose features are all tokens in one row, for which the library has no pooling."""
    from cusa.export.image_modules import image_modules
    from cusa.teachers.encoders import ImageEncoder

    class Unknown(ImageEncoder):
        name = "mine"

        def features(self, pixels):
            return pixels.mean(dim=(2, 3))

    with pytest.raises(ConfigurationError, match=r"the image tower mine \(Unknown\) .* export with --to onnx"):
        image_modules(Unknown(), tmp_path)


def test_a_tokeniser_without_a_normaliser_is_refused_with_the_way_out():
    from transformers import CanineTokenizer

    from cusa.config.captions import PUBLISHED
    from cusa.export.text_modules import cleaning_tokeniser

    with pytest.raises(ConfigurationError, match=r"CanineTokenizer is written in Python .* with --to safetensors"):
        cleaning_tokeniser(CanineTokenizer(), PUBLISHED, limit=32, pad=0)


def test_an_odd_image_size_of_efficientnet_is_refused():
    from cusa.export.efficientnet_conversion import transformers_efficientnet

    with pytest.raises(ConfigurationError, match=r"at image_size 129 has no equal in transformers.*--to onnx"):
        transformers_efficientnet(None, 129)


def retrieval_task(paths: list[str], captions: list[str], image_to_text: bool):
    """A task of mteb on local pictures, each with the caption at its place."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    images = Dataset.from_dict(
        {"id": [f"i{n}" for n in range(len(paths))], "image": paths},
        features=Features({"id": Value("string"), "image": ImageFeature()}),
    )
    texts = Dataset.from_dict({"id": [f"t{n}" for n in range(len(captions))], "text": captions})
    queries, corpus = (images, texts) if image_to_text else (texts, images)
    first, second = ("i", "t") if image_to_text else ("t", "i")

    class Shapes(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Shapes{'I2T' if image_to_text else 'T2I'}Retrieval",
            description="Pictures of shapes and their captions.",
            dataset={"path": "local/shapes", "revision": "1"},
            type="Any2AnyRetrieval",
            category="i2t" if image_to_text else "t2i",
            modalities=["text", "image"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="recall_at_1",
            prompt={"query": "Find an image that matches the given caption."},
        )

        def load_data(self, *arguments: object, **keywords: object) -> None:
            relevant = {f"{first}{number}": {f"{second}{number}": 1} for number in range(len(paths))}
            split = {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return Shapes()


# mteb calls its own methods, and those of sentence-transformers, in ways that both have given up.
@pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension` method has been renamed:FutureWarning")
@pytest.mark.parametrize("image_to_text", [False, True], ids=["text-to-image", "image-to-text"])
def test_it_works_in_mteb_as_it_is(clip_run, clip_folder, pictures, paths, tmp_path, image_to_text):
    import mteb
    from mteb.models import ModelMeta, SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    run = cusa.load(clip_run, device="cpu", precision="fp32")
    files = []
    for number, picture in enumerate(pictures):
        as_stored(run, picture).save(tmp_path / f"{number}.png")
        files.append(str(tmp_path / f"{number}.png"))
    captions = [Path(path).stem.replace("_", " ") for path in paths]
    model = SentenceTransformerEncoderWrapper(SentenceTransformer(str(clip_folder), device="cpu"))
    # mteb reads the modalities of a model at the hub from this file; of a folder it has to be told.
    modalities = json.loads((clip_folder / "sentence_bert_config.json").read_text())["modality_config"]
    meta = ModelMeta.from_sentence_transformer_model(model.model)
    model.mteb_model_meta = meta.model_copy(update={"modalities": sorted(modalities)})
    task = retrieval_task(files, captions, image_to_text)
    result = mteb.evaluate(model, [task], cache=None, overwrite_strategy="always")
    (scores,) = result.task_results[0].scores["test"]
    similarity = run.similarity(run.encode_text(captions), run.encode_image(pictures))
    similarity = similarity.T if image_to_text else similarity
    found = similarity.argmax(axis=1) == np.arange(len(paths))
    assert scores["recall_at_1"] == pytest.approx(float(np.mean(found)))
    order = np.argsort(-similarity, axis=1)
    rank = np.argmax(order == np.arange(len(paths))[:, None], axis=1)
    assert scores["mrr_at_10"] == pytest.approx(float(np.mean(1 / (rank + 1))), abs=1e-5)


@pytest.mark.slow
def test_a_resnet_clip_of_open_clip_exports(write_run, pictures, tmp_path, monkeypatch):
    import open_clip

    create = open_clip.create_model
    monkeypatch.setattr(open_clip, "create_model", lambda name, **_: create(name, pretrained=None))
    run = write_run("resnet", {"name": "RN50"})
    folder = exported(run, tmp_path / "exported")
    check_equal(run, folder, pictures[:2])


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [True, False], ids=["trained", "frozen"])
def test_the_towers_of_the_demo_export_without_their_packages(write_run, pictures, tmp_path, trainable):
    """EfficientNet-Lite0 becomes a network of transformers, so the folder needs neither timm nor the package."""
    image, text = tower("efficientnet-lite0", trainable, image_size=64), tower("all-MiniLM-L6-v2", trainable)
    run = write_run(f"demo_{trainable}", {"towers": {"image": image, "text": text, "dimension": 32}})
    folder = exported(run, tmp_path / "exported")
    assert json.loads((folder / "image_0_Transformer/config.json").read_text())["model_type"] == "efficientnet"
    check_equal(run, folder, pictures[:2])
