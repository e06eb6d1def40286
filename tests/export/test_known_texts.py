"""`knows` of every kind of model folder: a text of unknown tokens alone is told, every other text is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs_to_export import RUNS, tower, untrained_run

import cusa
from cusa.errors import DataError
from cusa.export.exporting import ExportOptions, export
from cusa.student.backbones import FrozenDimensions

FORMATS = ("run", "onnx", "safetensors", "sentence-transformers")
TEXTS = ["😀", "smile", "smile 😀", "ቀይ ፖም", "😀 🤯 😀"]
KNOWN = [False, True, True, False, False]


def prompted_run(get) -> Path:
    """A frozen text tower with a prompt, whose words the tokeniser knows."""
    text = tower(get("tiny_sentences"), trainable=False, prompt="a large ")
    towers = {"image": tower(get("tiny_vision"), trainable=False), "text": text, "dimension": 8}
    frozen = FrozenDimensions(24, 20)
    return untrained_run(get("shapes_data"), get("tiny_configuration"), {"towers": towers}, "prompted_words", frozen)


KINDS = RUNS | {"prompted": prompted_run}


def folder_of(kind: str, form: str, get, output: Path) -> Path:
    """A run, or its export."""
    run = KINDS[kind](get)
    if form != "run":
        export(run, form, output, ExportOptions())
    return run if form == "run" else output


@pytest.mark.parametrize("form", FORMATS)
def test_the_packaged_sentence_model_tells_emoji_and_scripts_that_it_does_not_know(request, tmp_path, form):
    folder = folder_of("demo", form, request.getfixturevalue, tmp_path / "out")
    model = cusa.load(folder, device="cpu")
    assert model.knows(TEXTS) == KNOWN
    assert model.knows("😀") == [False]
    assert model.knows([]) == []
    with pytest.raises(DataError, match="1 of 1 texts have no word"):
        model.knows("  ")
    if form == "onnx":
        code = (
            f"import sys, cusa; print(cusa.load({str(folder)!r}).knows(['😀', 'smile']),"
            " {'torch', 'transformers'} & set(sys.modules) or 'neither')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[False, True] neither\n"


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((kind, form) for kind in ("clip", "siglip", "prompted") for form in ("run", "sentence-transformers")),
        ("prompted", "onnx"),
        ("towers", "run"),
    ],
)
def test_every_tokeniser_is_asked_without_its_prompt_and_special_tokens(request, tmp_path, kind, form):
    model = cusa.load(folder_of(kind, form, request.getfixturevalue, tmp_path / "out"), device="cpu")
    long = " ".join(["zebra"] * 60)  # more than the model reads
    assert model.knows(["zebra", "red", "zebra red", "a", long]) == [False, True, True, True, False]
    before = model.encode_text(["red circle", long])
    assert model.knows(["red"]) == [True]
    assert (model.encode_text(["red circle", long]) == before).all()


def test_a_model_without_a_vocabulary_knows_every_text(search_model, monkeypatch):
    monkeypatch.setattr(search_model, "_vocabulary", None)
    assert search_model.knows(["😀", "red"]) == [True, True]
