"""The section `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cusa.config.section import Count, NotNegative, Positive, Section

# Keys of `train` that change how fast, how often or how much is said, and not what is learned.
OPERATIONAL = ("workers", "save_every_minutes", "eval_batch_size", "log_every")


class Train(Section):
    """The training recipe, common to all experiments."""

    epochs: Count
    batch_size: Count = Field(default=128, description="Image-caption pairs a process and step.")
    lr: Positive = 1e-5
    min_lr: NotNegative = 1e-6
    tower_lr: Positive | None = Field(
        default=None, description="Peak rate of pre-trained towers; null gives them `lr` as well."
    )
    weight_decay: NotNegative = 1e-4
    schedule: Literal["epoch", "step"] = Field(
        default="epoch", description="Cosine decay by epoch (published) or by optimiser step."
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(default=0, description="Linear warm-up; needs schedule: step.")
    gradient_clip: Positive | None = Field(default=None, description="Largest gradient norm; null is off.")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16 runs the towers in autocast; losses and weights stay fp32."
    )
    select_on: Literal["val", "test_leak_as_published"] = Field(
        default="val",
        description="Split whose r_mean selects the epoch. The published code selects on the test set, "
        "which leaks; the second value does that, and every result says so.",
    )
    early_stop: Count | None = Field(
        default=None, description="Stop after this many epochs without a better r_mean; null is off."
    )
    log_every: Count = Field(default=20, description="Steps between rows of history.parquet.")
    save_every_minutes: Positive = Field(
        default=15.0, description="State is saved after each epoch and at least this often."
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Loader processes a training process; the order of data does not depend on it."
    )
    gpus: Annotated[int, Field(ge=0)] = Field(
        default=0, description="GPUs a training job on each machine (nccl); 0 trains on the CPU (gloo)."
    )
    cpu_processes: Count = Field(default=1, description="Training processes on each machine when gpus is 0.")
    nodes: Count = Field(default=1, description="Machines a training job, started by Slurm's srun when above 1.")
    gather: Literal["local", "global"] = Field(
        default="local",
        description="`local`: each process computes the loss of its own batch, as published. `global`: the loss is "
        "that of all processes' pairs as one batch.",
    )
    accumulate: Count = Field(
        default=1, description="Batches a step, each with a loss of its own; their gradients are averaged."
    )
    chunk_size: Count | None = Field(
        default=None,
        description="Pairs that go through the towers at a time (GradCache): the loss is still that of the whole "
        "batch, memory that of a chunk, time a third more. null takes a batch at once.",
    )
    eval_batch_size: Count = Field(default=128, description="Images or captions a forward pass when embedding.")

    @model_validator(mode="after")
    def _possible(self) -> Train:
        if self.warmup_steps and self.schedule == "epoch":
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} but schedule is `epoch`, whose rate changes only between "
                "epochs; set schedule: step"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is greater than lr {self.lr}")
        return self

    @property
    def selection_split(self) -> Literal["val", "test"]:
        """The split whose r_mean selects the epoch."""
        return "val" if self.select_on == "val" else "test"

    @property
    def processes(self) -> int:
        """How many training processes there are on all machines."""
        return self.nodes * self.processes_per_node

    @property
    def processes_per_node(self) -> int:
        """How many training processes torchrun starts on each machine."""
        return self.gpus or self.cpu_processes
