"""The findings of `cusa check` about the device: the GPUs that PyTorch sees, and whether a batch fits into one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cusa.commands.finding import Finding
from cusa.config.experiments import RunConfiguration
from cusa.plan import Plan

if TYPE_CHECKING:
    from cusa.layout import Modality


def gpu_findings(plan: Plan) -> Iterator[Finding]:
    """The GPUs, or the CPU if none is asked for, and GPUs that are there unasked for."""
    import torch

    from cusa.common.compute import visible_gpus

    wanted, visible = plan.gpus_of_largest_job, visible_gpus()
    if wanted == 0:
        unused = f", but PyTorch sees {visible} GPUs; set train.gpus to use them" if visible else ""
        yield Finding("device", f"CPU, {os.cpu_count()} cores; train.gpus is 0{unused}", doubtful=bool(visible))
        return
    if visible < wanted:
        text = f"train.gpus asks for {wanted}, PyTorch sees {visible}; lower train.gpus, or run nvidia-smi to see why"
        yield Finding("GPUs", text, sound=False)
        return
    yield Finding("GPUs", f"{visible} x {torch.cuda.get_device_name(0)}")
    for name in plan.experiments:
        configuration = plan.run_configuration(name)
        if configuration.student.name is not None and configuration.train.batch_size != "auto":
            yield _batch_memory(name, configuration)


def _batch_memory(experiment: str, configuration: RunConfiguration) -> Finding:
    """Whether one training step with a full batch of generated pairs fits into the memory of the first GPU."""
    import torch

    from cusa.student.backbones import FrozenDimensions
    from cusa.training.batch_size import trial_step

    subject = f"memory of a batch, {experiment}"
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    try:
        # Teachers' features take little memory, and their length is not known before they are made.
        features: dict[Modality, int] = dict.fromkeys(configuration.losses.teachers, 8)
        trial_step(configuration, FrozenDimensions(), features, torch.device("cuda", 0))
    except torch.cuda.OutOfMemoryError:
        text = f"train.batch_size {configuration.train.batch_size} does not fit {total:.1f} GiB; lower it"
        return Finding(subject, text, sound=False)
    finally:
        torch.cuda.empty_cache()
    return Finding(subject, f"{torch.cuda.max_memory_allocated(0) / 2**30:.1f} of {total:.1f} GiB")
