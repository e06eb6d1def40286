"""The section `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cusa.config.augmentation import Augmentation
from cusa.config.losses import TeacherName
from cusa.config.section import Count, NotNegative, Positive, Section, Share, Whole, added_key
from cusa.config.trackers import require_known_trackers
from cusa.errors import ConfigurationError

# Keys of `train` that change the speed, the memory or the logging of a training, but not its result. Changing them does
# not train a run again. Exception: with `stream`, `workers` changes the order of the pairs.
OPERATIONAL = ("workers", "save_every_minutes", "eval_batch_size", "log_every", "trackers", "checkpoint_towers")


class HardNegatives(Section):
    """Batches with pairs that a teacher considers similar, as hard negatives of each other."""

    teacher: TeacherName = Field(
        default="text", description="The teacher whose cached features say which pairs are near."
    )
    group: Annotated[Count, Field(ge=2)] = Field(
        default=8,
        description="Pairs of a group of neighbours; a batch is made of several groups. With `captions_per_image` "
        "above 1 it counts images with their captions.",
    )


class Train(Section):
    """The training recipe, common to all experiments."""

    epochs: Count = Field(description="Passes over all pairs of image and caption.")
    batch_size: Count | Literal["auto"] = Field(
        default=128,
        description="Image-caption pairs per process and batch. `auto` takes as many as fit the GPU when the training "
        "starts, and run.json says how many. The result depends on it: write a number for a result that others repeat.",
    )
    lr: Positive = Field(default=1e-5, description="Peak learning rate of AdamW.")
    min_lr: NotNegative = Field(default=1e-6, description="Learning rate at the end of the cosine decay.")
    tower_lr: Positive | None = Field(
        default=None, description="Peak learning rate of the pre-trained towers; null uses `lr` for them as well."
    )
    weight_decay: NotNegative = Field(default=1e-4, description="Weight decay of AdamW.")
    feature_dropout: Share = added_key(
        0.0,
        "Share of the towers' features that a training step sets to zero, before the projection of a pair of towers; "
        "for a dual encoder, of the features that its heads read.",
    )
    head_dropout: Share = added_key(
        0.0, "Share of a head's features that a training step sets to zero, between LayerNorm and the linear layer."
    )
    augmentation: Augmentation | None = added_key(
        None, "Pictures and captions that are changed at random for training; null changes none."
    )
    ema_decay: Share = added_key(
        0.0,
        "Share that a step keeps of the average of the weights over the steps (exponential moving average). The "
        "average is validated and saved as the run's weights; 0 averages nothing.",
    )
    layer_decay: Annotated[Positive, Field(le=1)] = added_key(
        1.0,
        "Each layer of a pre-trained tower has this share of the learning rate of the layer above it; 1 gives all the "
        "same.",
    )
    feature_noise: NotNegative = added_key(
        0.0,
        "Standard deviation of the normal noise that a training step adds to the towers' features before "
        "`feature_dropout`, as a share of the standard deviation that each feature has in the batch.",
    )
    schedule: Literal["epoch", "step"] = Field(
        default="epoch", description="Cosine decay by epoch (published) or by optimiser step."
    )
    warmup_steps: Whole = Field(default=0, description="Steps of linear warm-up; needs schedule: step.")
    gradient_clip: Positive | None = Field(default=None, description="Largest gradient norm; null does not clip.")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        default="fp32",
        description="bf16 and fp16 run the towers in autocast, fp16 with a scaled loss; losses and weights stay in "
        "fp32. tf32 multiplies matrices of float32 in TF32 on a GPU; elsewhere it is fp32.",
    )
    select_on: Literal["val", "test_leak_as_published"] = Field(
        default="val",
        description="Split whose r_mean selects the epoch. `test_leak_as_published` selects on the test set, as the "
        "published code does; this leaks test data, and every result says so.",
    )
    early_stop: Count | None = Field(
        default=None, description="Stop after this many epochs without a better r_mean; null trains all epochs."
    )
    log_every: Count = Field(default=20, description="Steps between rows of history.parquet.")
    trackers: Annotated[list[str], AfterValidator(require_known_trackers)] = added_key(
        [],
        "Where the curves go besides the event files of TensorBoard, which every training writes: `wandb`, `mlflow`, "
        "`trackio`, the name that an installed package registers, or a Python file.",
    )
    save_every_minutes: Positive = Field(
        default=15.0, description="The state is saved after each epoch and at least this often."
    )
    workers: Whole = Field(
        default=0,
        description="Data-loading processes per training process. The order of the pairs does not depend on it, except "
        "with `stream`.",
    )
    gpus: Whole = Field(
        default=0,
        description="GPUs of a training job on each machine, one process per GPU (nccl); 0 trains on the CPU (gloo).",
    )
    cpu_processes: Count = Field(default=1, description="Training processes on each machine if gpus is 0.")
    nodes: Count = Field(default=1, description="Machines of a training job; above 1 they are started by Slurm's srun.")
    gather: Literal["local", "global"] = Field(
        default="local",
        description="`local`: each process computes the loss of its own batch, as published. `global`: the pairs of "
        "all processes form one batch with one loss.",
    )
    accumulate: Count = Field(
        default=1, description="Batches per optimiser step, each with its own loss; their gradients are averaged."
    )
    chunk_size: Count | None = Field(
        default=None,
        description="Images and captions that go through the towers at a time (GradCache). The loss is still computed "
        "over the complete batch; memory is that of a chunk, and the towers have one more forward pass. null takes the "
        "batch at once.",
    )
    eval_batch_size: Count = Field(default=128, description="Images or captions per forward pass in embedding.")
    hard_negatives: HardNegatives | None = added_key(
        None,
        "Batches are made of groups of neighbours, by the cached features of a teacher; null draws pairs at random.",
    )
    captions_per_image: Count | Literal["all"] = added_key(
        1,
        "Captions of an image that are put into one batch, for which the image is encoded once; `all` takes each image "
        "with all of its captions. An epoch still has every pair once, and `batch_size` still counts pairs.",
    )
    compile: bool = added_key(
        False,
        "The towers are compiled by torch.compile before the first step, for batches of any size. Results differ by "
        "rounding. A tower that cannot be compiled is run as it is, which the log says.",
    )
    checkpoint_towers: bool = added_key(
        False,
        "The backward pass computes each layer of the towers again (gradient checkpointing): memory for activations "
        "is that of one layer, the gradients are the same, and the towers have one more forward pass.",
    )
    shard_student: bool = added_key(
        False,
        "Divide the student's weights, their gradients and their moments among the processes (FSDP), for a student "
        "that does not fit one GPU.",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> Train:
        if self.warmup_steps and self.schedule == "epoch":
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} but schedule is `epoch`, where the rate changes only between "
                "epochs; set schedule: step"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is greater than lr {self.lr}")
        self._require_shares()
        if self.batch_size == "auto":
            if not self.gpus:
                raise ValueError(
                    "batch_size is `auto`, but gpus is 0: only the memory of a GPU says what fits; write a number"
                )
            return self
        if self.hard_negatives is not None and self.hard_negatives.group > self.batch_size:
            raise ValueError(
                f"hard_negatives.group is {self.hard_negatives.group}, but a batch has {self.batch_size} pairs "
                "(batch_size), so no batch would have a whole group; lower the group"
            )
        neighbours = 1 if self.hard_negatives is None else self.hard_negatives.group
        if (captions := self.largest_caption_group or 1) * neighbours > self.batch_size:
            groups = "" if neighbours == 1 else f" in groups of {neighbours} neighbours (hard_negatives.group)"
            raise ValueError(
                f"captions_per_image is {captions}{groups}, but a batch has {self.batch_size} pairs (batch_size), so "
                "no batch would have a whole group; lower captions_per_image, or write `all`"
            )
        return self

    def _require_shares(self) -> None:
        if not self.shard_student:
            return
        if self.processes == 1:
            raise ValueError(
                "shard_student is true, but there is one process (gpus, cpu_processes, nodes), which would have all; "
                "set gpus to 2 or more, or shard_student: false"
            )
        if self.precision == "fp16":
            raise ValueError(
                "shard_student is true, and precision is fp16, whose loss is scaled by what every process has whole; "
                "set precision: bf16, or shard_student: false"
            )
        if self.compile:
            raise ValueError(
                "shard_student and compile are both true, but compiled towers do not gather weights from other "
                "processes; leave one of them out"
            )
        if self.batch_size == "auto":
            raise ValueError(
                "shard_student is true, and batch_size is `auto`, which is found by one process that has all of the "
                "student; write a number"
            )

    @property
    def pairs_per_batch(self) -> int:
        """`batch_size` as a number. Raises ConfigurationError if it is `auto`, which a training replaces first."""
        if self.batch_size == "auto":
            raise ConfigurationError("`train.batch_size` is `auto`, which only a training replaces; write a number.")
        return self.batch_size

    @property
    def pairs_compared(self) -> int | None:
        """The pairs that a loss compares with each other; None if a training finds out how many."""
        if self.batch_size == "auto":
            return None
        return self.batch_size * (self.processes if self.gather == "global" else 1)

    @property
    def largest_caption_group(self) -> int | None:
        """`captions_per_image` as a number; None for all captions of an image."""
        return None if self.captions_per_image == "all" else self.captions_per_image

    @property
    def selection_split(self) -> Literal["val", "test"]:
        """The split whose r_mean selects the epoch."""
        return "val" if self.select_on == "val" else "test"

    @property
    def processes(self) -> int:
        """The number of training processes on all machines together."""
        return self.nodes * self.processes_per_node

    @property
    def processes_per_node(self) -> int:
        """The number of training processes that torchrun starts on each machine."""
        return self.gpus or self.cpu_processes
