"""The whole configuration as strict pydantic models: the one place that says which keys exist and what they mean.

`load` turns the mapping that Snakemake merged from YAML files into a `Configuration`, or raises
`ConfigurationError` with one sentence a problem, each naming its key. config/README.md is held to these
models by a test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from cusa.errors import ConfigurationError

SkippableProblem = Literal["missing_image", "unreadable_image", "empty_caption", "malformed_row"]


def _yaml_exponent(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 (no dot) as a string; people mean the number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_yaml_exponent), Field(allow_inf_nan=False)]
Positive = Annotated[float, BeforeValidator(_yaml_exponent), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(_yaml_exponent), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]


class Section(BaseModel):
    """A mapping in the YAML: unknown keys and wrong types are refused, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


# ---------------------------------------------------------------------------------------------- data


class DatasetSection(Section):
    """Keys that every input format has."""

    provides: ClassVar[frozenset[str]] = frozenset()
    name: Name = Field(description="Names the folder under results/.")
    check_images: Literal["decode", "header"] = Field(
        default="decode",
        description="`decode` decodes every image once before anything else, which finds truncated files; "
        "`header` reads only the first bytes.",
    )
    skip: list[SkippableProblem] = Field(
        default=[],
        description="Kinds of bad input to leave out, and count in the summary, instead of stopping.",
    )

    @property
    def files(self) -> dict[str, str]:
        """Every annotation file that the section names, by its key."""
        return {}

    @property
    def folders(self) -> dict[str, str]:
        """Every folder of images that the section names, by its key."""
        return {}


class OpenMojiDataset(DatasetSection):
    """The embedded default: OpenMoji pictures with the names and keywords of Unicode CLDR."""

    provides: ClassVar[frozenset[str]] = frozenset({"extended_positives", "variants", "sentence_pairs"})
    format: Literal["openmoji"] = "openmoji"
    picture_size: Count = Field(default=224, description="Side in pixels of the rasterised pictures.")
    val_images: Count = Field(default=150, description="Emoji held out for validation, at least.")
    test_images: Count = Field(default=300, description="Emoji held out for testing, at least.")
    split_seed: int = Field(default=0, description="Seed of the split by base emoji.")
    groups: list[str] | None = Field(
        default=None,
        description="Unicode groups to use, for instance [food_drink, animals_nature]; null takes all ten.",
    )


Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ImageFolderDataset(DatasetSection):
    """Keys of the formats whose files name images by path."""

    image_root: str | None = Field(
        default=None,
        description="Folder that relative image paths start from; null means the folder of the file that names them.",
    )
    expected_images: dict[Split, Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="How many images each split has to have; another count stops. null checks nothing."
    )

    @property
    def folders(self) -> dict[str, str]:
        """The folder of images, where it is named."""
        return {} if self.image_root is None else {"image_root": self.image_root}


class SplitFilesDataset(ImageFolderDataset):
    """Keys of the formats with one file a split."""

    annotations: dict[Split, str] = Field(description="One file a split: train, val and test.")

    @model_validator(mode="after")
    def _all_three_splits(self) -> Self:
        named = SPLITS if isinstance(self.annotations, str) else self.annotations
        if missing := [split for split in SPLITS if split not in named]:
            raise ValueError(f"annotations lacks {', '.join(missing)}; name one file for each split")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The annotation files."""
        return {f"annotations.{split}": path for split, path in self.annotations.items()}


class PublishedDataset(SplitFilesDataset):
    """JSON lists of {"image_path", "caption", "image_id"}, as the published code reads them."""

    format: Literal["published"] = "published"
    annotations: dict[Split, str] | str = Field(  # type: ignore[assignment]
        description="One file a split, or a folder with train.json or new_train.json, and so on."
    )

    @property
    def files(self) -> dict[str, str]:
        """The annotation files; in a folder, new_{split}.json where {split}.json is not there."""
        if not isinstance(self.annotations, str):
            return {f"annotations.{split}": path for split, path in self.annotations.items()}
        folder, found = Path(self.annotations).expanduser(), {}
        for split in SPLITS:
            plain, new = folder / f"{split}.json", folder / f"new_{split}.json"
            found[f"annotations.{split}"] = str(new if new.is_file() and not plain.is_file() else plain)
        return found


class AlbefDataset(SplitFilesDataset):
    """ALBEF's own files: JSON lists of {"image", "caption"}, the caption a text or a list of texts."""

    format: Literal["albef"] = "albef"


class KarpathyDataset(ImageFolderDataset):
    """Karpathy's dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json: all splits in one file."""

    format: Literal["karpathy"] = "karpathy"
    file: str = Field(description="The JSON file.")
    restval: Literal["train", "val", "test", "skip"] = Field(
        default="train", description="Where COCO's split `restval` goes; the published split trains on it."
    )

    @property
    def files(self) -> dict[str, str]:
        """The annotation file."""
        return {"file": self.file}


class CocoDataset(SplitFilesDataset):
    """COCO's own captions_*.json, one a split."""

    format: Literal["coco"] = "coco"
    image_roots: dict[Split, str] | None = Field(
        default=None, description="A folder of images for each split, for instance train2017/; goes before image_root."
    )

    @property
    def folders(self) -> dict[str, str]:
        """The folders of images."""
        return super().folders | {f"image_roots.{split}": path for split, path in (self.image_roots or {}).items()}


class Flickr30kDataset(ImageFolderDataset):
    """Flickr30K's results_20130124.token, or results.csv of the later release; which image is where is yours to say."""

    format: Literal["flickr30k"] = "flickr30k"
    file: str = Field(description="The token file or the CSV file.")
    splits: dict[Split, str] = Field(description="For each split a text file with one image name a line.")

    @model_validator(mode="after")
    def _all_three_splits(self) -> Self:
        if missing := [split for split in SPLITS if split not in self.splits]:
            raise ValueError(f"splits lacks {', '.join(missing)}; name one list of images for each split")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The captions and the lists of images."""
        return {"file": self.file} | {f"splits.{split}": path for split, path in self.splits.items()}


class Columns(Section):
    """Which column of a table holds what."""

    image: str = Field(default="image", description="Path of the image.")
    caption: str = Field(default="caption", description="A caption, or a list of captions.")
    image_id: str | None = Field(default=None, description="Identity of the image; null takes its path.")
    label: str | None = Field(default=None, description="Class of the image; null where there is none.")
    split: str | None = Field(default=None, description="`train`, `val` or `test`, where one `file` holds all of them.")


class TableDataset(ImageFolderDataset):
    """CSV, TSV, JSONL or Parquet; one file a split, or one file with a column that says the split."""

    format: Literal["table"] = "table"
    annotations: dict[Split, str] | None = Field(default=None, description="One file a split: train, val and test.")
    file: str | None = Field(default=None, description="One file, with `columns.split` or `held_out`.")
    columns: Columns = Columns()
    held_out: dict[Literal["val", "test"], Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        default=None, description="Shares of the images that are drawn for val and test, where nothing says the split."
    )
    split_seed: int = Field(default=0, description="Seed of that draw.")

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if (self.annotations is None) == (self.file is None):
            raise ValueError("give either `annotations` (one file a split) or `file` (one file with columns.split)")
        if self.annotations is not None and len(self.annotations) < len(SPLITS):
            raise ValueError("annotations has to name train, val and test")
        ways = int(self.columns.split is not None) + int(self.held_out is not None)
        if ways != int(self.file is not None):
            raise ValueError("`file` needs either columns.split or `held_out`, and one file a split needs neither")
        if self.held_out is not None and (len(self.held_out) < 2 or sum(self.held_out.values()) >= 1):
            raise ValueError("held_out has to give shares for val and test that leave some for train")
        if unknown := [path for path in self.files.values() if not path.lower().endswith(TABLE_ENDINGS)]:
            raise ValueError(f"{unknown[0]} does not end in one of {', '.join(TABLE_ENDINGS)}")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The tables."""
        if self.annotations is None:
            return {"file": self.file or ""}
        return {f"annotations.{split}": path for split, path in self.annotations.items()}


TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")

Dataset = Annotated[
    OpenMojiDataset | PublishedDataset | AlbefDataset | KarpathyDataset | CocoDataset | Flickr30kDataset | TableDataset,
    Field(discriminator="format"),
]
FORMATS = ("openmoji", "published", "albef", "karpathy", "coco", "flickr30k", "table")


class Shards(Section):
    """How images are stored for training."""

    shorter_side: Count | None = Field(
        default=224,
        description="Images are resized once so that the shorter side has this many pixels (never enlarged); "
        "null keeps the original bytes.",
    )
    image_format: Literal["jpg", "png", "webp"] = Field(default="jpg", description="Encoding of resized images.")
    quality: Annotated[int, Field(ge=1, le=100)] = Field(default=95, description="JPEG or WebP quality.")
    samples_per_shard: Count = Field(default=1000, description="Images a tar file.")


# ---------------------------------------------------------------------------------------------- models


def folder_name(model_name: str) -> str:
    """A model's name as a folder's: `/` as `--`; a path's last part with a digest, so that two never collide."""
    if model_name.startswith((".", "/", "~")):
        path = Path(model_name).expanduser().absolute()
        return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return model_name.replace("/", "--").replace("@", "-")


UNICOM = "unicom"
UnicomModel = Literal["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"]


class Unicom(Section):
    """Which Unicom network, for the image model named `unicom`."""

    model: UnicomModel = Field(default="ViT-B/32", description="One of the four released sizes.")
    weights: str | None = Field(
        default=None,
        description="State dict on disk, whose sizes are read off its tensors; null fetches the released file once and "
        "checks its sha256.",
    )
    features: Literal["tokens", "embedding"] = Field(
        default="tokens",
        description="`tokens`: the final-norm patch tokens, flattened, as published (37,632 numbers for ViT-B/32); "
        "`embedding`: what the network's head makes of them.",
    )

    @property
    def identity(self) -> str:
        """What meta.json calls it."""
        return f"{UNICOM}/{self.model}/{self.features}"


class ImageModel(Section):
    """A frozen image model: the image teacher or a frozen image tower."""

    name: str = Field(
        min_length=1,
        description="`efficientnet-lite0` (packaged), `unicom`, a folder, a Hugging Face name, or `timm/NAME`.",
    )
    unicom: Unicom | None = Field(default=None, description="Which Unicom, where `name` is `unicom`.")
    image_size: Count | None = Field(
        default=None, description="Input side in pixels; null takes what the model was trained with."
    )
    batch_size: Count = Field(default=64, description="Images a forward pass during extraction.")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Type of the stored features.")
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32",
        description="Arithmetic of the extraction; Unicom's attention and norms stay fp32.",
    )

    @model_validator(mode="after")
    def _unicom_by_name(self) -> ImageModel:
        if self.unicom is not None and self.name != UNICOM:
            raise ValueError(
                f"`unicom` is given but `name` is {self.name}; set name: unicom, or unicom: null for another model"
            )
        if self.name == UNICOM and self.image_size is not None:
            raise ValueError("image_size is given, but Unicom's input size is fixed by its weights; set it to null")
        return self

    @property
    def unicom_settings(self) -> Unicom:
        """The Unicom network meant by `name: unicom`."""
        return self.unicom or Unicom()

    @property
    def identity(self) -> str:
        """What meta.json calls the model whose features these are."""
        return self.unicom_settings.identity if self.name == UNICOM else self.name

    @property
    def folder(self) -> str:
        """Folder of its features; another input size has another folder."""
        return folder_name(self.identity) + (f"-{self.image_size}px" if self.image_size else "")


class TextModel(Section):
    """A frozen sentence model: the text teacher or a frozen text tower."""

    name: str = Field(
        min_length=1,
        description="`all-MiniLM-L6-v2` (packaged), or any sentence-transformers name or folder.",
    )
    batch_size: Count = Field(default=128, description="Captions a forward pass during extraction.")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Type of the stored features.")

    @property
    def identity(self) -> str:
        """What meta.json calls the model whose features these are."""
        return self.name

    @property
    def folder(self) -> str:
        """Folder of its features."""
        return folder_name(self.name)


class Teachers(Section):
    """The two uni-modal teachers."""

    image: ImageModel
    text: TextModel

    @property
    def as_student(self) -> Student:
        """The teachers as a pair of frozen towers without projections, to be scored within each modality."""
        image = ImageTower(**self.image.model_dump(), trainable=False)
        text = TextTower(**self.text.model_dump(), trainable=False)
        return Student(towers=Towers(image=image, text=text, dimension=None))


class ImageTower(ImageModel):
    """The image side of a pair of towers."""

    trainable: bool = Field(
        default=True, description="false runs the tower once and caches its features, like a teacher's."
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float32", description="Type of the cached features of a frozen tower."
    )


class TextTower(TextModel):
    """The text side of a pair of towers."""

    trainable: bool = Field(
        default=True, description="false runs the tower once and caches its features, like a teacher's."
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float32", description="Type of the cached features of a frozen tower."
    )


class Towers(Section):
    """A vision model, a sentence model, and a linear projection from each into one space."""

    image: ImageTower
    text: TextTower
    dimension: Count | None = Field(
        default=256,
        description="Dimensions of the space both towers are projected to; null projects none (and trains nothing).",
    )


class Student(Section):
    """What is trained: a Hugging Face dual encoder by name or folder, or a pair of towers."""

    name: str | None = Field(
        default=None, description="Hugging Face name or folder of a dual encoder (CLIP, SigLIP, ...)."
    )
    towers: Towers | None = Field(default=None, description="A pair of towers instead of a dual encoder.")
    max_tokens: Count = Field(default=77, description="Captions are truncated to this many tokens.")

    @model_validator(mode="after")
    def _one_kind(self) -> Student:
        if (self.name is None) == (self.towers is None):
            found = "neither" if self.name is None else "both"
            raise ValueError(
                f"found {found} of `name` (a dual encoder) and `towers` (a pair of towers), expected exactly one; "
                "an overlay that switches from one to the other sets the other to null"
            )
        return self


# ---------------------------------------------------------------------------------------------- losses


class TemperatureRange(Section):
    """One temperature: where it starts and where it is clamped before every forward pass."""

    start: Positive
    min: Positive
    max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureRange:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self


class Temperature(TemperatureRange):
    """The temperature of the contrastive loss."""

    start: Positive = 0.05
    min: Positive = 0.01
    max: Positive = 0.10
    learned: bool = Field(default=True, description="false blocks it: it is clamped but gets no gradient.")


class TemperaturePair(Section):
    """An image and a text temperature."""

    image: TemperatureRange
    text: TemperatureRange
    tied: bool = Field(default=False, description="One parameter for both: means of the starts and bounds.")
    learned: bool = Field(default=True, description="false blocks both: clamped but without gradient.")


def _pair(start: float, low: float, high: float, *, tied: bool, learned: bool) -> TemperaturePair:
    one = TemperatureRange(start=start, min=low, max=high)
    return TemperaturePair(image=one, text=one, tied=tied, learned=learned)


Reduction = Annotated[
    Literal["mean", "sum"],
    Field(description="`mean` averages over all B*B entries (published), `sum` sums rows and averages them."),
]
SoftLoss = Annotated[
    Literal["kl", "contrastive"],
    Field(description="`kl`, or `contrastive`: cross-entropy with soft targets, reduced as `reduction`."),
]


class Contrastive(Section):
    """Image-text contrastive loss; captions of one image share their positives."""

    rate: NotNegative = 1.0
    reduction: Reduction = "mean"
    temperature: Temperature = Temperature()


class CrossSoftLabel(Section):
    """CSA: the teachers' similarities as soft labels across modalities."""

    rate: NotNegative = Field(default=0.10, description="The paper's alpha.")
    loss: SoftLoss = "kl"
    reduction: Reduction = "mean"
    mode: Literal["each", "add", "dot"] = Field(
        default="each",
        description="`each`: image teacher for image-to-text, text teacher for text-to-image; `add`: their mean; "
        "`dot`: their geometric mean. `add` and `dot` always tie the temperatures.",
    )
    temperature: TemperaturePair = _pair(0.45, 0.10, 0.99, tied=True, learned=True)
    teacher_temperature: TemperaturePair = _pair(1.00, 0.10, 1.00, tied=True, learned=False)


class UniSoftLabel(Section):
    """USA: the teachers' similarities as soft labels within each modality."""

    rate: NotNegative = Field(default=0.50, description="The paper's beta.")
    loss: SoftLoss = "kl"
    reduction: Reduction = "mean"
    temperature: TemperaturePair | Literal["cross"] = Field(
        default=_pair(0.45, 0.10, 1.00, tied=False, learned=True), description="`cross` shares CSA's."
    )
    teacher_temperature: TemperaturePair | Literal["cross"] = Field(
        default=_pair(1.00, 0.10, 1.00, tied=True, learned=False), description="`cross` shares CSA's."
    )


class LossConfiguration(Section):
    """Which losses are on (null is off) and their settings; the defaults are the published ones."""

    contrastive: Contrastive | None = None
    cross_softlabel: CrossSoftLabel | None = None
    uni_softlabel: UniSoftLabel | None = None

    @model_validator(mode="after")
    def _possible(self) -> LossConfiguration:
        if self.uni_softlabel is not None and self.cross_softlabel is None:
            for key in ("temperature", "teacher_temperature"):
                if getattr(self.uni_softlabel, key) == "cross":
                    raise ValueError(
                        f"uni_softlabel.{key} is `cross`, but cross_softlabel is off, so there is nothing to share; "
                        "give uni_softlabel its own temperatures"
                    )
        return self

    @property
    def needs_teachers(self) -> bool:
        """Whether any soft label, and so any teacher feature, is used."""
        return self.cross_softlabel is not None or self.uni_softlabel is not None


# ---------------------------------------------------------------------------------------------- training


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
    def processes(self) -> int:
        """How many training processes there are on all machines."""
        return self.nodes * self.processes_per_node

    @property
    def processes_per_node(self) -> int:
        """How many training processes torchrun starts on each machine."""
        return self.gpus or self.cpu_processes


class Experiment(LossConfiguration):
    """One row of the table of experiments."""

    baseline: Literal["zero_shot", "teachers"] | None = Field(
        default=None,
        description="Scored without training: `zero_shot` is the student as it is loaded, without heads; `teachers` "
        "are the two teachers themselves, on the benchmarks within one modality. null trains.",
    )

    student: Student | None = Field(default=None, description="A student of its own; null takes the common one.")
    train: dict[str, Any] | None = Field(
        default=None, description="Keys of `train` that differ for this experiment; null takes the common recipe."
    )

    @model_validator(mode="after")
    def _trained_or_baseline(self) -> Self:
        has_loss = any(getattr(self, name) is not None for name in LossConfiguration.model_fields)
        if self.baseline is None and not has_loss:
            raise ValueError(
                "every loss is off; give at least one of contrastive, cross_softlabel, uni_softlabel ({} is enough), "
                "or a baseline"
            )
        if self.baseline is not None and (has_loss or self.train is not None):
            raise ValueError(f"baseline {self.baseline} is not trained; leave out its losses and `train`")
        if self.baseline == "teachers" and self.student is not None:
            raise ValueError("baseline teachers has the teachers for a student; leave out `student`")
        return self

    @property
    def losses(self) -> LossConfiguration:
        """The losses alone, without the student and the recipe."""
        return LossConfiguration(**{name: getattr(self, name) for name in LossConfiguration.model_fields})


# ---------------------------------------------------------------------------------------------- evaluation


class BenchmarkSection(Section):
    """Keys of one benchmark."""

    @property
    def places(self) -> dict[str, str]:
        """Where the benchmark's own data are, by the names that metrics and folders have: those that are named."""
        return {}

    @property
    def brings_data(self) -> bool:
        """Whether the benchmark can do without data of the data set itself."""
        return bool(self.places)

    def left_out(self) -> dict[str, str]:
        """Data that are named but are not there, each with a sentence; the rest is evaluated."""
        missing = {name: path for name, path in self.places.items() if not Path(path).expanduser().exists()}
        return {name: f"{path} does not exist (looked from {Path.cwd()})." for name, path in missing.items()}

    def available(self) -> dict[str, str]:
        """Data that are named and there."""
        return {name: path for name, path in self.places.items() if Path(path).expanduser().exists()}


class ImageTextRetrieval(BenchmarkSection):
    """Image-to-text and text-to-image recall on the held-out pairs."""

    folds: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Also the mean over this many consecutive folds of the test images: 5 makes COCO 1K of COCO 5K.",
    )
    published: Literal["coco_5k", "flickr30k_1k"] | None = Field(
        default=None, description="Which published figures this test split is to be shown beside."
    )


class ExtendedPositives(BenchmarkSection):
    """Retrieval with every right answer counted: of data that list them, or ECCV Caption's for Karpathy's COCO test."""

    ground_truth: Literal["dataset", "coco"] = Field(
        default="dataset",
        description="`dataset`: what the data set lists; `coco`: the package eccv_caption's, for Karpathy's COCO test.",
    )
    pmrp_files: str | None = Field(
        default=None,
        description="Folder with pm_image_to_caption.json and pm_caption_to_image.json, for PMRP on COCO.",
    )

    @property
    def places(self) -> dict[str, str]:
        """The files of PMRP."""
        return {} if self.pmrp_files is None else {"pmrp": self.pmrp_files}

    @property
    def brings_data(self) -> bool:
        """The package's ground truth does; PMRP's files alone do not."""
        return self.ground_truth == "coco"


class ImageRetrieval(BenchmarkSection):
    """Image-to-image retrieval of the same class, over every data set that is named."""

    cub: str | None = Field(default=None, description="CUB_200_2011/, as the archive unpacks.")
    cars: str | None = Field(default=None, description="Folder with cars_annos.mat and car_ims/ of Cars-196.")
    sop: str | None = Field(default=None, description="Stanford_Online_Products/, as the archive unpacks.")
    inshop: str | None = Field(default=None, description="Folder of In-Shop with list_eval_partition.txt and img/.")
    inaturalist: str | None = Field(
        default=None, description="Folder with train_val2018/ and Inat_dataset_splits/Inaturalist_test_set1.txt."
    )
    labelled_images: dict[Name, str] = Field(
        default={}, description="Your own: name to a folder with a folder a class, or to a CSV of image and label."
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if both := sorted(set(self.labelled_images) & set(IMAGE_ARCHIVES)):
            raise ValueError(f"labelled_images: {both} are names of known data sets; take other names")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every data set that is named."""
        known = {name: getattr(self, name) for name in IMAGE_ARCHIVES}
        return {name: path for name, path in known.items() if path is not None} | self.labelled_images


class SentenceSimilarity(BenchmarkSection):
    """Correlation of text-text similarity with gold scores, over everything that is named."""

    senteval: str | None = Field(
        default=None, description="Folder with SentEval's STS/, SICK/ (its data/downstream): STS12-16, STS-B, SICK-R."
    )
    sentence_pairs: dict[Name, str] = Field(
        default={}, description="Your own: name to a TSV file with the columns first, second and score."
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if "senteval" in self.sentence_pairs:
            raise ValueError("sentence_pairs: senteval is the name of the seven known tasks; take another name")
        return self

    @property
    def places(self) -> dict[str, str]:
        """Every collection that is named."""
        return ({} if self.senteval is None else {"senteval": self.senteval}) | self.sentence_pairs


IMAGE_ARCHIVES = ("cub", "cars", "sop", "inshop", "inaturalist")


class Benchmarks(Section):
    """Which benchmarks run; null is off."""

    itr: ImageTextRetrieval | None = None
    eccv_caption: ExtendedPositives | None = None
    image_retrieval: ImageRetrieval | None = None
    sts: SentenceSimilarity | None = None
    more: dict[Name, dict[str, Any] | None] = Field(
        default={}, description="Benchmarks that you have added, by the name of their module, with their settings."
    )

    @property
    def sections(self) -> dict[str, BenchmarkSection | None]:
        """The known benchmarks' sections, by name."""
        return {name: getattr(self, name) for name in ("itr", "eccv_caption", "image_retrieval", "sts")}

    @model_validator(mode="after")
    def _distinct_data(self) -> Self:
        sections = [section for section in self.sections.values() if section is not None]
        names = [name for section in sections for name in section.places]
        taken = {*SPLITS, "variants", "extended_positives", "sentence_pairs"} & set(names)
        if both := sorted(taken | {name for name in names if names.count(name) > 1}):
            raise ValueError(f"{both} name two things among splits, labelled_images and sentence_pairs; rename them")
        return self


WITHOUT_DATASET = {
    "eccv_caption": "set ground_truth: coco for Karpathy's COCO test",
    "image_retrieval": "name labelled images (config/README.md)",
    "sts": "name sentence pairs (config/README.md)",
}
# What a benchmark takes from the data set itself, where nothing else is named for it.
NEEDED_OF_DATASET = {"eccv_caption": "extended_positives", "image_retrieval": "variants", "sts": "sentence_pairs"}


class Gallery(Section):
    """The side-by-side pictures of the report."""

    experiments: list[str] = Field(
        default=["contrastive", "cusa"], min_length=1, description="Models shown side by side."
    )
    text_queries: Annotated[int, Field(ge=0)] = 12
    image_queries: Annotated[int, Field(ge=0)] = 6
    top: Count = Field(default=5, description="Pictures shown for each query.")


class Report(Section):
    """The HTML page."""

    gallery: Gallery = Gallery()
    reference: Name | None = Field(
        default="contrastive", description="Experiment that the others are compared with; null compares with none."
    )


class Checkpoint(Section):
    """A checkpoint that the authors of the paper published, scored beside the experiments."""

    file: str = Field(description="checkpoint_best.pth.")
    student: str = Field(description="Name or folder of the CLIP that it was fine-tuned from, for its tokeniser.")


class Extraction(Section):
    """How image features are computed; it changes nothing about what they are."""

    parts: Count = Field(
        default=1,
        description="Jobs that the train split is divided into, so that several GPUs share it and a crash costs one "
        "part. Parts are whole shards where there are enough of them.",
    )
    join: bool = Field(
        default=True,
        description="Copy the parts into one file and remove them; false keeps them and only lists them.",
    )


class Stream(Section):
    """Shards of the train split that are read from elsewhere, one after the other."""

    url: str = Field(
        description="Where shard {shard} (six digits) is: http, https, or `pipe:` and a command that writes it."
    )
    shuffle_buffer: Count = Field(default=10_000, description="Pairs among which the next one is drawn.")

    @field_validator("url")
    @classmethod
    def _has_a_place_for_the_shard(cls, url: str) -> str:
        if url.count("{shard}") != 1:
            raise ValueError("does not have {shard} once, which stands for the shard's six digits")
        return url

    def of_shard(self, number: int) -> str:
        """The URL of one shard."""
        return self.url.replace("{shard}", f"{number:06d}")


class Configuration(Section):
    """Everything that config/config.yaml may say."""

    dataset: Dataset
    shards: Shards = Shards()
    teachers: Teachers
    extraction: Extraction = Extraction()
    stream: Stream | None = Field(
        default=None, description="null reads the train split's shards by row, from this machine's disk."
    )
    student: Student
    train: Train
    experiments: dict[Name, Experiment | None] = Field(
        min_length=1, description="Name to losses; an overlay drops an experiment by setting it to null."
    )
    checkpoints: dict[Name, Checkpoint | None] = Field(
        default={}, description="Name to published checkpoint; they are scored, not trained."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[23], min_length=1, description="Every experiment is trained once a seed."
    )
    benchmarks: Benchmarks = Benchmarks()
    report: Report = Report()

    @model_validator(mode="after")
    def _possible(self) -> Configuration:
        if not (self.active_experiments or self.baselines or self.active_checkpoints):
            raise ValueError("experiments: all are null and there is no checkpoint; leave at least one")
        if self.dataset.name == "benchmark-data":
            raise ValueError("dataset.name: `benchmark-data` is the folder of the benchmarks' own data; take another")
        if both := sorted(set(self.experiments) & set(self.active_checkpoints)):
            raise ValueError(f"checkpoints: {both} are names of experiments too; rename them")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} repeats a seed; each is trained once")
        impossible = [
            f"benchmarks.{benchmark} needs {data.replace('_', ' ')}, which the format `{self.dataset.format}` does not "
            f"provide; {WITHOUT_DATASET[benchmark]}, or set benchmarks.{benchmark}: null"
            for benchmark, data in NEEDED_OF_DATASET.items()
            if (section := getattr(self.benchmarks, benchmark)) is not None
            and not section.brings_data
            and data not in self.dataset.provides
        ]
        for name, baseline in self.baselines.items():
            if baseline.baseline == "zero_shot" and self.student_of(name).towers is not None:
                impossible.append(
                    f"experiments.{name}: a pair of towers has random projections before training, so there is no "
                    "zero_shot; give it a student with a `name`"
                )
        for name in self.active_experiments:
            if (towers := self.student_of(name).towers) is not None and towers.dimension is None:
                impossible.append(
                    f"experiments.{name}: towers.dimension is null, so nothing can be trained; give a number"
                )
            try:
                self.recipe(name)
            except ConfigurationError as error:
                sentences = str(error).replace("Configuration key `", f"experiments.{name}.train: key `")
                impossible += [sentence.rstrip(".") for sentence in sentences.splitlines()]
        if impossible:
            raise ValueError("; ".join(impossible))
        return self

    @property
    def active_checkpoints(self) -> dict[str, Checkpoint]:
        """The checkpoints that are not null."""
        return {name: checkpoint for name, checkpoint in self.checkpoints.items() if checkpoint is not None}

    def student_of(self, run: str) -> Student:
        """The student of an experiment or of a checkpoint."""
        if run in self.active_checkpoints:
            return Student(name=self.active_checkpoints[run].student)
        experiment = dict(self._named_experiments())[run]
        if experiment.baseline == "teachers":
            return self.teachers.as_student
        return experiment.student or self.student

    def recipe(self, experiment: str) -> Train:
        """The training recipe of an experiment: the common one with its own keys laid on top."""
        own = dict(self._named_experiments())[experiment].train
        if own is None:
            return self.train
        if own.get("nodes", self.train.nodes) != self.train.nodes:
            raise ConfigurationError(
                f"Configuration key `experiments.{experiment}.train.nodes` is {own['nodes']}, but train.nodes is "
                f"{self.train.nodes}; the machines of a training job are the same for all experiments."
            )
        return validate(Train, self.train.model_dump() | own)

    @property
    def active_experiments(self) -> dict[str, Experiment]:
        """The experiments that are trained: those that are not null, nor baselines."""
        return {name: experiment for name, experiment in self._named_experiments() if experiment.baseline is None}

    @property
    def baselines(self) -> dict[str, Experiment]:
        """The experiments that are scored without training."""
        return {name: experiment for name, experiment in self._named_experiments() if experiment.baseline is not None}

    def _named_experiments(self) -> Iterator[tuple[str, Experiment]]:
        return ((name, experiment) for name, experiment in self.experiments.items() if experiment is not None)

    def run(self, experiment: str, seed: int) -> RunConfiguration:
        """What one training run depends on, and nothing else."""
        chosen = dict(self._named_experiments())[experiment]
        return RunConfiguration(
            dataset=self.dataset.name,
            experiment=experiment,
            seed=seed,
            student=self.student_of(experiment),
            losses=chosen.losses,
            teachers=self.teachers if chosen.needs_teachers else None,
            train=self.recipe(experiment),
            stream=self.stream,
        )


class RunConfiguration(Section):
    """The configuration of one training run, as run.json records it."""

    dataset: str
    experiment: str
    seed: int
    student: Student
    losses: LossConfiguration
    teachers: Teachers | None
    train: Train
    stream: Stream | None = None


# ---------------------------------------------------------------------------------------------- loading


SectionType = TypeVar("SectionType", bound=Section)


class _DatasetHolder(Section):
    dataset: Dataset


def load_dataset(mapping: Mapping[str, Any]) -> DatasetSection:
    """Validate the section `dataset` alone."""
    return validate(_DatasetHolder, {"dataset": mapping}).dataset


def load(mapping: Mapping[str, Any]) -> Configuration:
    """Validate the merged YAML mapping. Raises ConfigurationError, one line a problem, each naming its key.

    A null in `dataset` takes back what another file said: overlays are merged, and formats differ in their keys.
    """
    if isinstance(dataset := mapping.get("dataset"), Mapping):
        mapping = {**mapping, "dataset": {key: value for key, value in dataset.items() if value is not None}}
    return validate(Configuration, mapping)


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay` on `base`, mappings merged key by key, everything else replaced: what --configfile does."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def command_line_values(value: Any) -> Any:
    """Values of `--config KEY=VALUE`, which Snakemake hands over as text, as a YAML file would have given them."""
    if isinstance(value, Mapping):
        return {key: command_line_values(member) for key, member in value.items()}
    if isinstance(value, list):
        return [command_line_values(member) for member in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


def validate(model: type[SectionType], mapping: Mapping[str, Any]) -> SectionType:
    """Validate `mapping` against any section."""
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        sentences = [_sentence(details) for details in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(dict.fromkeys(sentences))) from None


def _sentence(details: Any) -> str:
    key = ".".join(str(part) for part in details["loc"] if part not in _UNION_TAGS)
    found = details["input"]
    match details["type"]:
        case "extra_forbidden":
            return f"Configuration key `{key}` is unknown; see config/README.md for the keys that exist."
        case "missing":
            return f"Configuration key `{key}` is missing and has no default; see config/README.md."
        case "value_error":
            place = f"key `{key}`: " if key else ""
            return f"Configuration {place}{details['ctx']['error']}."
        case "union_tag_invalid":
            expected = details["ctx"]["expected_tags"]
            return f"Configuration key `{key}.format` is {found.get('format')!r}; expected one of {expected}."
        case "union_tag_not_found":
            return f"Configuration key `{key}.format` is missing; expected one of {', '.join(map(repr, FORMATS))}."
        case _:
            message = details["msg"][0].lower() + details["msg"][1:]
            return f"Configuration key `{key}` is {found!r} ({type(found).__name__}): {message}."


_UNION_TAGS = {*FORMATS, "TemperaturePair", "literal['cross']", "[key]"}


def check_files(configuration: Configuration) -> None:
    """Raise ConfigurationError with a line for each file or folder that the configuration names but is not there.

    A model name counts as a folder when it starts with `.`, `/` or `~`; hub names cannot be checked here.
    """
    named: list[tuple[str, str]] = []
    dataset = configuration.dataset
    named += [(f"dataset.{key}", path) for key, path in [*dataset.files.items(), *dataset.folders.items()]]
    for name, checkpoint in configuration.active_checkpoints.items():
        named.append((f"checkpoints.{name}.file", checkpoint.file))
        named.append((f"checkpoints.{name}.student", checkpoint.student))
    unicom = configuration.teachers.image.unicom
    if unicom is not None and unicom.weights is not None:
        named.append(("teachers.image.unicom.weights", unicom.weights))
    named += [
        ("teachers.image.name", configuration.teachers.image.name),
        ("teachers.text.name", configuration.teachers.text.name),
    ]
    students = [("student", configuration.student)] + [
        (f"experiments.{name}.student", experiment.student)
        for name, experiment in configuration.active_experiments.items()
        if experiment.student is not None
    ]
    for key, student in students:
        if student.name is not None:
            named.append((f"{key}.name", student.name))
        if student.towers is not None:
            named.append((f"{key}.towers.image.name", student.towers.image.name))
            named.append((f"{key}.towers.text.name", student.towers.text.name))
    missing = [
        f"Configuration key `{key}` names {path}, which does not exist (looked from {Path.cwd()})."
        for key, path in named
        if (key.startswith("dataset.") or key.endswith((".weights", ".file")) or path.startswith((".", "/", "~")))
        and not Path(path).expanduser().exists()
    ]
    if missing:
        raise ConfigurationError("\n".join(missing))
