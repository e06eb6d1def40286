"""Writes a folder with image.onnx and text.onnx, which onnxruntime runs without torch."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from cusa.annotations.captions import sampled_positions
from cusa.annotations.tables import CAPTIONS, read_table
from cusa.export.graphs import OPSET, write_image_graph, write_text_graph
from cusa.export.int8 import quantised, require_measurable
from cusa.export.tokeniser_files import tokens_of, write_tokeniser
from cusa.layout import DatasetFolder
from cusa.model.exported import Exported
from cusa.model.onnx_folder import IMAGE_FILE, TEXT_FILE, TOKENISER_FILE, OnnxExported, TextPreparation
from cusa.model.run_model import Model
from cusa.teachers.encoders import pad_tokens

TWO_TEXTS = ("a red circle", "birthday")


def write_onnx(model: Model, about: Exported, folder: Path, int8: bool, data: Path | None) -> list[str]:
    """Write image.onnx, text.onnx, tokenizer.json and cusa.json to an empty folder. Returns lines that tell about it.

    With `int8` the weights are 8-bit if that does not hurt, and its loss is measured on the val split of the data
    set's folder `data`, None for that of the run. Raises ConfigurationError if the model has no such form.
    """
    dataset = DatasetFolder.of_run(model.folder) if data is None else DatasetFolder(data)
    if data is not None:
        require_measurable(dataset)
    preparation = write_tokeniser(model, folder / TOKENISER_FILE, _captions(dataset))
    write_image_graph(model, about.heads, folder / IMAGE_FILE)
    _write_text(model, about, preparation, folder / TEXT_FILE)
    versions = about.versions | {package: version(package) for package in ("onnx", "onnxruntime", "onnxscript")}
    content = about.model_dump(exclude={"schema_version"}) | {"versions": versions}
    exported = OnnxExported(**content, opset=OPSET, image=model.transform, text=preparation)
    exported.write(folder)
    if not int8:
        return []
    measured = quantised(folder, dataset)
    exported.model_copy(update={"int8": measured}).write(folder)
    return [measured.note]


def _write_text(model: Model, about: Exported, preparation: TextPreparation, path: Path) -> None:
    tokens = pad_tokens(tokens_of(model, TWO_TEXTS), preparation.pad_token)
    write_text_graph(model, about.heads, tokens, preparation.fixed_length, path)


def _captions(dataset: DatasetFolder) -> list[str]:
    """Cleaned captions of the data, to compare the tokenisers on; none if the data are not there."""
    if not dataset.table("captions").is_file():
        return []
    cleaned = read_table(dataset.annotations, CAPTIONS, ["cleaned"])["cleaned"]
    return [str(text) for text in cleaned.take(sampled_positions(len(cleaned))).to_pylist()]
