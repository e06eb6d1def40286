"""The text tower of the demo's model, one caption on one core: int8 in onnxruntime, compared with float32 in torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from measure import ROOT, Claim, best_of_turns

from cusa.common.files import sha256_of_file
from cusa.common.versions import versions
from cusa.config.configuration import load
from cusa.config.files import read_files
from cusa.export.exporting import ExportOptions, export
from cusa.export.graphs import TextGraph
from cusa.model.onnx_folder import TEXT_FILE, OnnxModel, Session, padded
from cusa.model.run_model import load_run
from cusa.runs.record import WEIGHTS, RunRecord
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.student.backbones import FrozenDimensions
from cusa.student.student import build_student

DEMO = ROOT / "results/openmoji/runs/cusa/seed23"
CAPTION = "a birthday cake with candles"
BAR = 2.0


def untrained(folder: Path) -> Path:
    """A run with the towers of the demo and random projections and heads, which take the same time."""
    configuration = load(read_files([])).run("cusa", 23)
    student = build_student(configuration.student, configuration.losses, FrozenDimensions(1280, 384))
    tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in student.state_dict().items()}
    save_weights(folder / WEIGHTS, tensors, {})
    RunRecord(
        configuration=configuration,
        selected_epoch=-1,
        selected_because="not trained",
        epochs=0,
        processes=1,
        device="cpu",
        seconds=0.0,
        weights_sha256=sha256_of_file(folder / WEIGHTS),
        versions=versions(),
    ).write(folder)
    return folder


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        trained = (DEMO / WEIGHTS).is_file()
        run = DEMO if trained else untrained(Path(name) / "results/openmoji/runs/cusa/seed23")
        for line in export(run, "onnx", Path(name) / "exported", ExportOptions(int8=True)):
            print(line)
        exported, model = OnnxModel(Path(name) / "exported", "cpu"), load_run(run, "cpu", "fp32")
        tokens = padded(exported.tokenise([CAPTION]), exported.about.text.pad_token)
        tensors = [torch.from_numpy(array) for array in tokens.values()]
        graph, session = TextGraph(model, ("cross",)), Session(Path(name) / "exported" / TEXT_FILE, "cpu", threads=1)

        def in_torch() -> None:
            with torch.inference_mode():
                graph(*tensors)

        seconds = best_of_turns(200, torch=in_torch, onnx=lambda: session.run("cross", tokens))
    ratio = seconds["torch"] / seconds["onnx"]
    measured = (
        f"{ratio:.1f}x ({1000 * seconds['onnx']:.2f} against {1000 * seconds['torch']:.2f} ms, "
        f"{tokens['input_ids'].shape[1]} tokens, {'the trained demo' if trained else 'random projections and heads'})"
    )
    Claim(
        "int8 text tower in onnxruntime over float32 in torch, one core", measured, f"{BAR:g}x", ratio >= BAR
    ).report()


if __name__ == "__main__":
    main()
