"""Prompts of sentence models, against SentenceTransformer.encode of models that are made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cusa.common.files import read_json
from cusa.config.models import TextModel, TextTower
from cusa.embeddings import embed
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder
from cusa.teachers.extraction import encode_texts, extract_text_features
from cusa.teachers.registry import load_text_encoder

CPU = torch.device("cpu")
TEXTS = ["red circle", "a small blue square and a large cross", "orange", ""]
SHIPPED = {"query": "a large: ", "passage": "small green "}


def with_prompts(sentences: Path, folder: Path, default: str | None = None, include: bool = True) -> Path:
    """A copy of a sentence model that ships prompts, as sentence-transformers saves them."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(sentences), prompts=SHIPPED, default_prompt_name=default, device="cpu")
    model.set_pooling_include_prompt(include)
    model.save(str(folder))
    return folder


def encoded(name: Path | str, texts: list[str] = TEXTS, **prompt: str) -> np.ndarray:
    return encode_texts(load_text_encoder(TextModel(name=str(name), **prompt)), texts, 2, CPU)


def reference(name: Path, **prompt: str) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(name), device="cpu").encode(TEXTS, **prompt)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("default", [None, "query"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"prompt": "passage"}, {"prompt_name": "passage"}),
        ({"prompt": "query"}, {"prompt_name": "query"}),
        ({"prompt": "document"}, {"prompt_name": "document"}),
        ({"prompt": "yellow and "}, {"prompt": "yellow and "}),
        ({"prompt": ""}, {"prompt": ""}),
    ],
)
def test_a_prompt_is_applied_as_encode_applies_it(tiny_sentences, tmp_path, include, default, ours, theirs):
    folder = with_prompts(tiny_sentences, tmp_path / "model", default, include)
    assert np.abs(encoded(folder, **ours) - reference(folder, **theirs)).max() < 1e-5


def test_prompts_change_the_features_and_pooling_without_them_does_too(tiny_sentences, tmp_path):
    one = with_prompts(tiny_sentences, tmp_path / "one", "query")
    other = with_prompts(tiny_sentences, tmp_path / "other", "query", include=False)
    plain = encoded(tiny_sentences)
    for found in (encoded(one), encoded(other), encoded(one, prompt="passage")):
        assert np.abs(found - plain).max() > 1e-3
    assert np.abs(encoded(one) - encoded(other)).max() > 1e-3
    assert np.abs(encoded(one, prompt="") - plain).max() < 1e-6


def test_the_packaged_model_has_no_prompt_unless_one_is_given():
    texts = ["a dog", "a puppy"]
    assert load_text_encoder(TextModel(name="all-MiniLM-L6-v2")).prompt == ""
    found, written_out = encoded("all-MiniLM-L6-v2", texts, prompt="query: "), [f"query: {text}" for text in texts]
    assert np.abs(found - encoded("all-MiniLM-L6-v2", written_out)).max() < 1e-5


@pytest.mark.parametrize("name", ["clustering", "query"])
def test_a_name_that_the_model_does_not_ship_is_a_sentence(tiny_sentences, tmp_path, name):
    folder = tiny_sentences if name == "query" else with_prompts(tiny_sentences, tmp_path / "model")
    ships = "none" if name == "query" else "query, passage"
    with pytest.raises(ConfigurationError, match=rf"prompt '{name}'.*it ships: {ships}.*for instance '{name}: '"):
        load_text_encoder(TextModel(name=str(folder), prompt=name))


def test_an_encoder_without_prompts_refuses_one(tmp_path):
    (tmp_path / "words.py").write_text(
        "from cusa.teachers.encoders import TextEncoder\n\n\nclass Words(TextEncoder):\n    dimension = 2\n\n\n"
        "def text_encoder(model):\n    return Words()\n"
    )
    name = str(tmp_path / "words.py")
    assert load_text_encoder(TextModel(name=name)).prompt is None
    with pytest.raises(ConfigurationError, match="its encoder Words takes none; leave out `prompt`"):
        load_text_encoder(TextModel(name=name, prompt="query: "))


def test_another_prompt_has_another_folder_and_no_prompt_the_folder_of_earlier_releases():
    plain, tower = TextModel(name="some/model"), TextTower(name="some/model", prompt="query: ")
    assert (plain.folder, plain.identity) == ("some--model", "some/model")
    assert "prompt" not in json.loads(plain.as_json())
    assert tower.folder == TextModel(name="some/model", prompt="query: ").folder
    assert tower.folder.startswith("some--model-prompt-")
    assert tower.identity == "some/model with the prompt 'query: '"
    assert len({TextModel(name="some/model", prompt=prompt).folder for prompt in ("", "a: ", "b: ")}) == 3
    assert json.loads(tower.as_json())["prompt"] == "query: "


def test_features_say_which_prompt_made_them(shapes_data, tiny_sentences, tmp_path):
    folder, name = DatasetFolder(shapes_data), str(with_prompts(tiny_sentences, tmp_path / "model", "query"))
    written = {}
    for case, prompt in {"default": {}, "passage": {"prompt": "passage"}, "none": {"prompt": ""}}.items():
        extract_text_features(folder.annotations, "val", TextModel(name=name, **prompt), tmp_path / case)
        written[case] = read_json(tmp_path / case / "meta.json")
    assert {case: meta.get("prompt") for case, meta in written.items()} == {
        "default": "a large: ",
        "passage": "small green ",
        "none": None,
    }
    assert written["passage"]["model"] == f"{name} with the prompt 'passage'"


@pytest.mark.parametrize("trainable", [True, False])
def test_a_text_tower_has_a_prompt_too_also_for_texts_without_cached_features(
    trainable, shapes_data, tiny_configuration, tiny_sentences, tmp_path
):
    """Trained for nothing: the tower alone embeds the sentences of a benchmark."""
    from cusa.annotations.tables import SENTENCE_PAIRS, write_table
    from cusa.config.configuration import load
    from cusa.runs.baseline import write_baseline

    sentences = DatasetFolder(tmp_path / "sentences")
    import pyarrow as pa

    table = {"first": ["a red circle"], "second": ["a blue cross"], "score": [1.0]}
    sentences.annotations.mkdir(parents=True)
    write_table(sentences.annotations / SENTENCE_PAIRS, pa.table(table))
    image = {**tiny_configuration["teachers"]["image"], "trainable": trainable}
    text = {"name": str(with_prompts(tiny_sentences, tmp_path / "model")), "trainable": trainable, "prompt": "passage"}
    student = {"towers": {"image": image, "text": text, "dimension": None}}
    experiments = dict.fromkeys(tiny_configuration["experiments"]) | {"towers": {"baseline": "teachers"}}
    teachers = {"image": tiny_configuration["teachers"]["image"], "text": {"name": text["name"], "prompt": "passage"}}
    run = load({**tiny_configuration, "experiments": experiments, "teachers": teachers}).run("towers", 23)
    run = type(run).model_validate({**run.model_dump(), "student": student})
    write_baseline(tmp_path / "run", run)
    embed(tmp_path / "run", sentences, "sentence_pairs", tmp_path / "embedded")
    found = np.load(tmp_path / "embedded/text_uni.npy")
    expected = encoded(text["name"], ["a blue cross", "a red circle"], prompt="passage")
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - encoded(tiny_sentences, ["a blue cross", "a red circle"])).max() > 1e-3
