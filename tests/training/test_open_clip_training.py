"""A student of open_clip trains with SigLIP's loss as any other: whole or by adapters, resumed, loaded and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from open_clip_files import add_architectures, put_tokeniser_beside, write_weights
from safetensors.torch import load_file
from training_runs import interrupted

import cusa
from cusa.common.files import sha256_of_file
from cusa.config.configuration import load
from cusa.config.experiments import RunConfiguration
from cusa.export.exporting import ExportOptions, export
from cusa.layout import DatasetFolder
from cusa.training.loop import train

LORA = {"image": {"lora": {"rank": 2}}, "text": {"lora": {"rank": 2}}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_siglip) -> Path:
    folder = tmp_path_factory.mktemp("architectures")
    add_architectures(folder)
    (folder / "weights").mkdir()
    file = write_weights("tiny-SigLIP2", folder / "weights/weights.safetensors")
    put_tokeniser_beside(file, tiny_siglip)
    return file


def configured(tiny_configuration, weights: Path, adapt: dict | None) -> RunConfiguration:
    student = {"name": "open_clip/tiny-SigLIP2", "pretrained": str(weights), "towers": None}
    contrastive = {"kind": "sigmoid", "reduction": "sum", "temperature": {"start": 0.1}}
    mapping = {**tiny_configuration, "student": student | ({} if adapt is None else {"adapt": adapt})}
    mapping["experiments"] = {"cusa": {"contrastive": contrastive, "uni_softlabel": {}}}
    return load(mapping).run("cusa", 23)


@pytest.mark.parametrize("adapt", [None, LORA], ids=["whole", "adapters"])
def test_it_trains_is_resumed_loaded_and_exported(
    tiny_configuration, shapes_data, weights, tmp_path, monkeypatch, adapt
):
    torch.set_num_threads(1)
    run, data = configured(tiny_configuration, weights, adapt), DatasetFolder(shapes_data)
    train(run, data, tmp_path / "whole")
    interrupted(run, shapes_data, tmp_path / "resumed", monkeypatch)
    train(run, data, tmp_path / "resumed")
    files = [tmp_path / name / "best.safetensors" for name in ("whole", "resumed")]
    assert sha256_of_file(files[0]) == sha256_of_file(files[1])
    biases = pq.read_table(tmp_path / "whole/history.parquet")["bias_contrastive"].drop_null().to_pylist()
    assert biases[0] != biases[-1]
    names = [name for name in load_file(files[0]) if "backbone" in name]
    assert all("lora" in name for name in names) == (adapt is not None)
    place = DatasetFolder(shapes_data).run(f"of_open_clip_{adapt is not None}", 23)
    place.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "whole").rename(place)
    model = cusa.load(place, device="cpu")
    export(place, "safetensors", tmp_path / "out", ExportOptions())
    picture = np.random.default_rng(0).integers(0, 256, (170, 190, 3), dtype=np.uint8)
    exported = cusa.load(tmp_path / "out", device="cpu")
    assert np.abs(exported.encode_image(picture) - model.encode_image(picture)).max() < 1e-5
    assert np.abs(exported.encode_text("a red circle") - model.encode_text("a red circle")).max() < 1e-5
