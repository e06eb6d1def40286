"""Exports to ONNX: the same embeddings by onnxruntime, for every kind of student, and no torch to load them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from runs_to_export import RUNS

import cusa
from cusa.annotations.tables import CAPTIONS, IMAGES, read_table
from cusa.common.files import read_json
from cusa.config.models import StudentSettings
from cusa.errors import ConfigurationError, DataError
from cusa.export.exporting import ExportOptions, export
from cusa.export.graphs import OPSET, ImageGraph, TextGraph
from cusa.export.int8 import quantise
from cusa.model.onnx_folder import OnnxModel, Session, padded
from cusa.model.run_model import Model
from cusa.runs.record import RunRecord

HEADS = ("cross", "uni")
FILES = ("README.md", "cusa.json", "image.onnx", "text.onnx", "tokenizer.json")


KINDS = [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("imported", "zero_shot"))) for kind in RUNS]


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory) -> tuple[Path, Path]:
    """A run of one kind, and the folder of its export."""
    run = RUNS[request.param](request.getfixturevalue)
    output = tmp_path_factory.mktemp(request.param) / "onnx"
    export(run, "onnx", output, ExportOptions())
    return run, output


@pytest.fixture(scope="module")
def data(shapes_data) -> tuple[list[str], list[str]]:
    """Paths of the pictures of val, and their captions."""
    images, captions = (read_table(shapes_data / "annotations", name).to_pylist() for name in (IMAGES, CAPTIONS))
    paths = [row["image_path"] for row in images if row["split"] == "val"]
    return paths, [row["caption"] for row in captions if row["split"] == "val"]


def test_the_graphs_equal_torch(exported):
    """On the same pixels and tokens, in batches of other sizes than the one that was exported."""
    run, folder = exported
    model, found = cusa.load(run, device="cpu"), cusa.load(folder)
    assert isinstance(model, Model)
    assert isinstance(found, OnnxModel)
    for batch in (1, 3):
        side = model.transform.crop
        pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
        tokens = padded(found.tokenise(["a small red circle", "blue", "a"][:batch]), found.about.text.pad_token)
        with torch.inference_mode():
            images = ImageGraph(model, HEADS)(pixels)
            texts = TextGraph(model, HEADS)(*(torch.from_numpy(array) for array in tokens.values()))
        for place, head in enumerate(HEADS):
            assert np.abs(found.image.run(head, {"pixels": pixels.numpy()}) - images[place].numpy()).max() < 1e-4
            assert np.abs(found.text.run(head, tokens) - texts[place].numpy()).max() < 1e-4


@pytest.mark.parametrize("head", HEADS)
def test_embeddings_equal_those_of_the_run(exported, data, head):
    run, folder = exported
    (paths, texts), model, found = data, cusa.load(run, device="cpu"), cusa.load(folder)
    assert np.abs(found.encode_text(texts, head=head) - model.encode_text(texts, head=head)).max() < 1e-4
    images, expected = found.encode_image(paths, head=head), model.encode_image(paths, head=head)
    assert (images * expected).sum(axis=1).min() > 0.999  # pictures are decoded and shrunk by another library
    assert images.shape == (len(paths), model.dimension)
    assert images.dtype == np.float32
    assert found.weights_sha256 == model.weights_sha256 == RunRecord.read(run).weights_sha256
    assert found.folder == folder
    assert np.allclose(found.similarity(images, images).diagonal(), 1, atol=1e-5)


@pytest.mark.parametrize("head", ["cross", "uni"])
def test_pictures_that_threads_prepare_give_the_same(exported, data, head):
    """As `cusa embed` calls the model."""
    run, output = exported
    for folder in (run, output):
        model = cusa.load(folder, device="cpu")
        prepared = [model.prepared(path) for path in data[0]]
        assert np.allclose(model.encode_prepared(prepared, head), model.encode_image(data[0], head), atol=1e-6)


def test_batch_and_text_length_are_free_and_the_opset_is_stated(exported):
    _, folder = exported
    about, graph = read_json(folder / "cusa.json"), onnx.load(folder / "image.onnx")
    assert about["opset"] == OPSET == next(each.version for each in graph.opset_import if each.domain == "")
    assert [each.name for each in graph.graph.input] == ["pixels"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert [each.name for each in graph.graph.output] == list(HEADS)
    assert {path.name for path in folder.iterdir()} == set(FILES)


CODE = """
import sys
import cusa
model = cusa.load(sys.argv[1])
print(model.encode_text(["a red circle"]).shape, model.encode_image(sys.argv[2]).shape)
print([name for name in ("torch", "transformers", "torchvision", "sentence_transformers") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory) -> Path:
    """An export of a CLIP with 8-bit weights."""
    output = tmp_path_factory.mktemp("int8") / "onnx"
    export(RUNS["clip"](request.getfixturevalue), "onnx", output, ExportOptions(int8=True))
    return output


def test_a_folder_is_used_without_torch_and_transformers(folder, data):
    arguments = [sys.executable, "-c", CODE, str(folder), data[0][0]]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(1, 16) (1, 16)", "[]"]


def test_8_bit_weights_come_with_their_measured_loss(folder, data, shapes_data):
    about = read_json(folder / "cusa.json")["int8"]
    measured = about["measured"]
    assert "text.onnx" in about["files"]
    assert (measured["split"], measured["images"], measured["captions"]) == ("val", 8, 16)
    assert measured["data"] == str(shapes_data)
    for name in ("i2t_r1", "t2i_r1"):
        assert measured["loss"][name] == pytest.approx(measured["fp32"][name] - measured["int8"][name])
        assert 0 <= measured["int8"][name] <= 100
    kinds = {node.op_type for node in onnx.load(folder / "text.onnx").graph.node}
    assert "MatMulNBits" in kinds
    exact = cusa.load(shapes_data / "runs/a_clip/seed23", device="cpu").encode_text(data[1])
    assert (cusa.load(folder).encode_text(data[1]) * exact).sum(axis=1).min() > 0.995


def test_an_int8_embedding_does_not_depend_on_its_batch(folder, data):
    model = cusa.load(folder)
    alone = np.concatenate([model.encode_text(text) for text in data[1][:6]])
    assert np.allclose(model.encode_text(data[1][:6]), alone, atol=1e-5)


def test_a_loss_that_cannot_be_measured_is_said(tmp_path, request):
    run = RUNS["clip"](request.getfixturevalue)
    elsewhere = tmp_path / "results/moved/runs/clip/seed23"
    elsewhere.mkdir(parents=True)
    for file in run.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    told = export(elsewhere, "onnx", tmp_path / "out", ExportOptions(int8=True))
    about = read_json(tmp_path / "out/cusa.json")["int8"]
    assert about["measured"] is None
    assert about["files"] == ["text.onnx"]
    assert "could not be measured" in about["note"] == told[0]
    with pytest.raises(DataError, match="images.parquet does not exist"):
        export(elsewhere, "onnx", tmp_path / "named", ExportOptions(int8=True, data=tmp_path / "results/moved"))
    assert not (tmp_path / "named").exists()


def test_large_tables_of_embeddings_have_a_scale_for_each_row(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32) * np.logspace(-3, 3, 1000)[:, None]
    table = onnx.numpy_helper.from_array(rows.astype(np.float32), "table")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["table", "input_ids"], ["cross"])],
        "rows",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("cross", onnx.TensorProto.FLOAT, ["n", 8])],
        [table],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)]), tmp_path / "a.onnx")
    quantise(tmp_path / "a.onnx", tmp_path / "b.onnx")
    found = Session(tmp_path / "b.onnx", "cpu").run("cross", {"input_ids": np.arange(1000)})
    largest = np.abs(rows).max(axis=1, keepdims=True)
    assert (np.abs(found - rows) <= largest / 127).all()
    assert (tmp_path / "b.onnx").stat().st_size < 0.6 * (tmp_path / "a.onnx").stat().st_size


def test_weights_that_are_too_large_for_one_file_lie_beside_it(request, tmp_path, monkeypatch, data):
    """protobuf ends at 2 GiB; here it ends at nothing."""
    monkeypatch.setattr("cusa.export.graphs.LARGEST_FILE", 0)
    run = RUNS["clip"](request.getfixturevalue)
    export(run, "onnx", tmp_path / "out", ExportOptions(int8=True, head="cross"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = read_json(tmp_path / "out/cusa.json")["int8"]["files"]
    assert "text.onnx.data" not in names
    assert ("image.onnx.data" in names) == ("image.onnx" not in files)
    expected = cusa.load(run, device="cpu").encode_text(data[1])
    assert (cusa.load(tmp_path / "out").encode_text(data[1]) * expected).sum(axis=1).min() > 0.995


def test_one_head_can_be_exported_and_the_other_is_then_refused(request, tmp_path):
    export(RUNS["clip"](request.getfixturevalue), "onnx", tmp_path / "out", ExportOptions(head="uni"))
    model = cusa.load(tmp_path / "out")
    assert model.encode_text("a red circle", head="uni").shape == (1, 16)
    with pytest.raises(ConfigurationError, match="holds the head uni only; export the run again with --head cross"):
        model.encode_text("a red circle")


def test_an_open_clip_student_exports(request, tmp_path, monkeypatch):
    """RN50 is too large for the other tests, so a small network of open_clip stands in for it."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    from cusa.model.run_model import FrozenTowers
    from cusa.student.open_clip_models import OpenClip
    from cusa.student.student import Student

    sizes = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
    torch.manual_seed(0)
    network = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=sizes, quick_gelu=True).eval()
    network.visual.preprocess_cfg = open_clip.transform.PreprocessCfg(size=64).__dict__
    template = cusa.load(RUNS["clip"](request.getfixturevalue), device="cpu")
    assert isinstance(template, Model)
    losses = template.configuration.losses
    student = Student(OpenClip(network, SimpleTokenizer(context_length=16), 12), losses).eval()
    changed = template.configuration.model_copy(update={"student": StudentSettings(name="RN50")})
    model = Model(
        student, FrozenTowers(), changed, template.shards, template.folder, "0" * 64, torch.device("cpu"), "fp32"
    )
    monkeypatch.setattr("cusa.export.exporting.load_run", lambda *_: model)
    export(template.folder, "onnx", tmp_path / "out", ExportOptions())
    texts = ["A café's 3 toys", "a dog runs " * 20, "x", "a red circle"]
    assert np.abs(cusa.load(tmp_path / "out").encode_text(texts) - model.encode_text(texts)).max() < 1e-4
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    both = [each.encode_image(picture) for each in (model, cusa.load(tmp_path / "out"))]
    assert (both[0] * both[1]).sum() > 0.999


def test_nothing_is_overwritten_and_odd_options_are_a_sentence(request, tmp_path):
    run = RUNS["clip"](request.getfixturevalue)
    with pytest.raises(ConfigurationError, match="exists already; name another folder, nothing is overwritten"):
        export(run, "onnx", tmp_path, ExportOptions())
    with pytest.raises(ConfigurationError, match="--int8 and --data are for --to onnx"):
        export(run, "safetensors", tmp_path / "out", ExportOptions(int8=True))
    with pytest.raises(ConfigurationError, match="give --int8 too"):
        export(run, "onnx", tmp_path / "out", ExportOptions(data=tmp_path))
    (tmp_path / "cusa.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="is an export itself; name the run folder that it was exported from"):
        export(tmp_path, "onnx", tmp_path / "out", ExportOptions())


def test_without_onnx_it_is_said_what_to_install(request, tmp_path, monkeypatch):
    for module in ("cusa.export.onnx_files", "cusa.export.int8"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"needs the package onnx; run pip install 'cusa\[onnx\]'"):
        export(RUNS["clip"](request.getfixturevalue), "onnx", tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("text.onnx", "text.onnx cannot be loaded"),
        ("tokenizer.json", "tokenizer.json cannot be read"),
        ("cusa.json", "cusa.json is not valid JSON"),
    ],
)
def test_damaged_files_are_named(folder, tmp_path, file, reason):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() if path.name != file else b"{ no")
    with pytest.raises(DataError, match=reason):
        cusa.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match="does not exist|holds no model"):
        cusa.load(tmp_path)


def test_a_cusa_json_of_something_else_is_a_sentence(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = read_json(folder / "cusa.json")
    (tmp_path / "cusa.json").write_text(json.dumps({**content, "image": {"resize": "large"}}))
    with pytest.raises(DataError, match=r"does not describe an exported model: key `image"):
        cusa.load(tmp_path)


def test_device_and_precision_that_a_folder_cannot_have_are_a_sentence(folder):
    with pytest.raises(ConfigurationError, match="precision is bf16, but the arithmetic of .* is fixed"):
        cusa.load(folder, precision="bf16")
    with pytest.raises(ConfigurationError, match="device is tpu; expected cpu or cuda"):
        cusa.load(folder, device="tpu")
    with pytest.raises(ConfigurationError, match="this onnxruntime has no CUDA"):
        cusa.load(folder, device="cuda")
    assert cusa.load(folder, device="cpu").dimension == 16


def test_items_that_cannot_be_read_are_named(folder, data):
    model = cusa.load(folder)
    with pytest.raises(DataError, match="1 of 2 pictures cannot be read: item 1: missing.jpg"):
        model.encode_image([data[0][0], "missing.jpg"])
    with pytest.raises(DataError, match="1 of 1 texts have no word"):
        model.encode_text("  ")
    assert model.encode_image([]).shape == model.encode_text([]).shape == (0, 16)
