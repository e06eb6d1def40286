"""Interpolation between the weights before and after a training (WiSE-FT, Wortsman et al., CVPR 2022).

A model between the two often keeps more of the knowledge from before the training, and loses little of what was
learned. Benchmarks score the new run folder like any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cusa.common.compute import choose_device
from cusa.common.files import sha256_of_file
from cusa.common.versions import versions
from cusa.config.experiments import RunConfiguration
from cusa.config.interpolation import Interpolation
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import image_text_recall
from cusa.runs.record import HISTORY, WEIGHTS, RunRecord, write_history
from cusa.runs.weights import STUDENT_PREFIX, frozen_dimensions_of, load_student, save_weights
from cusa.student.encoding import Encoder
from cusa.student.inputs import open_split
from cusa.student.student import Student, build_student

log = logging.getLogger(__name__)


def interpolate(
    configuration: RunConfiguration, folder: DatasetFolder, source: str | Path, run: str | Path, threads: int = 1
) -> None:
    """Write the run folder `run` with the best weights between those before and after the training of `source`.

    For each alpha of `configuration.interpolate`, the pre-trained weights become (1 - alpha) * before + alpha * after;
    heads and projections, which were random before, stay as trained. The best is the one with the highest r_mean on the
    split that selected the epoch. Raises DataError if the run trained no pre-trained weight, or has another student.
    """
    torch.set_num_threads(threads)
    started, source, run = time.monotonic(), Path(source), Path(run)
    # Adapters are merged: `after` is a complete model, as `before` is, and so are the weights that are written.
    configuration = configuration.model_copy(update={"student": configuration.student.whole})
    settings = configuration.interpolate
    assert settings is not None
    student, trained = load_student(source)
    if (trained.student, trained.losses) != (configuration.student, configuration.losses):
        raise DataError(f"{source} has another student or other losses than {configuration.experiment} has.")
    after = pretrained_tensors(student)
    before = _before_training(configuration, student)
    if not any(not torch.equal(after[name], before[name]) for name in after):
        raise DataError(
            f"{source} has trained no pre-trained weight, so there is nothing between before and after; interpolate an "
            "experiment whose student has a trainable tower, or leave this one out."
        )
    rows = _scores(configuration, folder, student, before, after)
    best = chosen_row(rows, settings)
    _load(student, mixed(before, after, best["alpha"]))
    tensors = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in student.state_dict().items()}
    save_weights(run / WEIGHTS, tensors, {})
    write_history(run / HISTORY, rows)
    _write_record(configuration, source, run, best, time.monotonic() - started)


def mixed(before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) * before + alpha * after, tensor by tensor; exactly one of them if alpha is 0 or 1."""
    if alpha in (0.0, 1.0):
        return dict(after if alpha else before)
    return {
        name: torch.lerp(before[name].double(), after[name].double(), alpha).to(after[name].dtype) for name in after
    }


def chosen_row(rows: list[dict[str, Any]], settings: Interpolation) -> dict[str, Any]:
    """The row of the smallest alpha whose r_mean is the highest, or within the tolerance of it."""
    enough = max(row["r_mean"] for row in rows) - settings.tolerance
    return next(row for row in rows if row["r_mean"] >= enough)


def pretrained_tensors(student: Student) -> dict[str, Tensor]:
    """Copies on the CPU of the pre-trained parameters of a student, and of its running statistics, by name."""
    pretrained = set(student.backbone.pretrained_parameters())
    names = {name for name, parameter in student.named_parameters(remove_duplicate=False) if parameter in pretrained}
    buffers = {name for name, buffer in student.named_buffers(remove_duplicate=False) if buffer.is_floating_point()}
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in student.state_dict().items()
        if name in names or (name in buffers and name.startswith("backbone."))
    }


def _before_training(configuration: RunConfiguration, student: Student) -> dict[str, Tensor]:
    """The same tensors as they are loaded. Raises DataError if they are others."""
    frozen = frozen_dimensions_of(student.state_dict())
    before = pretrained_tensors(build_student(configuration.student, configuration.losses, frozen))
    after = pretrained_tensors(student)
    if {name: tensor.shape for name, tensor in before.items()} != {name: each.shape for name, each in after.items()}:
        raise DataError(
            f"the student of {configuration.experiment} has other weights before its training than after it, so that "
            "there is nothing between them."
        )
    return before


def _scores(
    configuration: RunConfiguration,
    folder: DatasetFolder,
    student: Student,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
) -> list[dict[str, Any]]:
    """Recall on the split that selects, for each alpha: the rows of history.parquet."""
    recipe, settings = configuration.train, configuration.interpolate
    assert settings is not None
    device = choose_device(recipe.gpus > 0)
    inputs = open_split(student.backbone, configuration.student, folder, recipe.selection_split)
    encoder = Encoder(student.to(device), device, recipe.eval_batch_size, recipe.precision)
    rows: list[dict[str, Any]] = []
    for alpha in settings.alphas:
        _load(student, mixed(before, after, alpha))
        found = encoder.encode(inputs, ("cross",))
        if not all(np.isfinite(array).all() for array in found.values()):
            raise DataError(f"with alpha {alpha:g}, embeddings are not finite; leave it out of interpolate.alphas.")
        metrics = image_text_recall(found["image_cross"], found["text_cross"], inputs.image_of_caption)
        log.info("alpha %g: r_mean %.3f on %s", alpha, metrics["r_mean"], recipe.selection_split)
        rows.append({"kind": "interpolation", "epoch": 0, "step": 0, "alpha": alpha, **metrics})
    return rows


def _load(student: Student, tensors: Mapping[str, Tensor]) -> None:
    """Set some of a student's tensors; the others stay."""
    student.load_state_dict({**student.state_dict(), **tensors})


def _write_record(
    configuration: RunConfiguration, source: Path, run: Path, best: Mapping[str, Any], seconds: float
) -> None:
    """Write run.json: that of the training, with the alpha and what it was chosen by."""
    trained, split = RunRecord.read(source), configuration.train.selection_split
    settings = configuration.interpolate
    assert settings is not None
    leak = "" if split == "val" else " (the published selection, which leaks the test set)"
    within = f", within {settings.tolerance:g} of the best" if settings.tolerance else ""
    reason = f"alpha {best['alpha']:g}: highest r_mean on {split}{leak}: {best['r_mean']:.3f}{within}"
    weights = f"runs/{source.parent.name}/{source.name}/{WEIGHTS}"
    trained.model_copy(
        update={
            "configuration": configuration.model_copy(update={"captions": trained.configuration.captions}),
            "selected_because": reason,
            "selection_metrics": {name: value for name, value in best.items() if name not in ("kind", "epoch", "step")},
            "data": {**(trained.data or {}), weights: trained.weights_sha256},
            "device": torch.cuda.get_device_name() if configuration.train.gpus > 0 else "cpu",
            "processes": 1,
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "weights_sha256": sha256_of_file(run / WEIGHTS),
            "versions": versions(),
        }
    ).write(run)
