"""Run folders of baselines: students that are scored without training."""

from __future__ import annotations

from pathlib import Path

import torch

from cusa.common.files import sha256_of_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.runs.record import HISTORY, WEIGHTS, RunRecord, write_history
from cusa.runs.weights import STUDENT_PREFIX, save_weights
from cusa.student.student import build_student


def write_baseline(folder: str | Path, configuration: RunConfiguration) -> None:
    """Write a run folder with a student's weights as they are before training.

    `embed` and every benchmark work on it as on a trained run. The configuration of a baseline has no loss, so the
    student has no heads and the features of its backbone are scored.
    """
    folder = Path(folder)
    student = build_student(configuration.student, configuration.losses)
    tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in student.state_dict().items()}
    # The baseline `teachers` has no weights here (they are frozen towers), and a file without tensors cannot be read.
    save_weights(folder / WEIGHTS, tensors | {"trained": torch.tensor(False)}, {})
    write_history(folder / HISTORY, [{"kind": "baseline", "epoch": 0, "step": 0}])
    RunRecord(
        configuration=configuration,
        selected_epoch=-1,
        selected_because="not trained",
        temperatures={},
        epochs=0,
        processes=0,
        device="not trained",
        seconds=0.0,
        weights_sha256=sha256_of_file(folder / WEIGHTS),
        versions=versions(),
    ).write(folder)
