"""The sections `teachers`, `student` and `extraction`."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cusa.common.files import expanded
from cusa.common.registry import is_file, python_files
from cusa.config.adaptation import Adaptation
from cusa.config.section import Count, Section, Share, added_key


def is_path(model_name: str) -> bool:
    """Whether a model's name is a path: of a folder, if it starts with `.`, `/` or `~`, or of a Python file."""
    return model_name.startswith((".", "/", "~")) or is_file(model_name)


def folder_name(model_name: str) -> str:
    """The folder of a model's features: its name with `--` for `/`.

    For a path it is the last part and a digest of the whole path, so that the folders of two models never collide.
    """
    if is_path(model_name):
        path = expanded(model_name).absolute()
        name = path.stem if is_file(model_name) else path.name
        return f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return model_name.replace("/", "--").replace("@", "-")


HeadStart = Literal["random", "identity"]
UNICOM = "unicom"
OPEN_CLIP = "open_clip/"  # the beginning of the names of open_clip's architectures
WEIGHTS_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".npz")


def is_weights_file(pretrained: str) -> bool:
    """Whether `student.pretrained` is the path of a file, not the tag of weights that open_clip knows."""
    return "/" in pretrained or pretrained.startswith("~") or pretrained.endswith(WEIGHTS_ENDINGS)


UnicomModel = Literal["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"]


class UnicomSettings(Section):
    """The Unicom network of the image model named `unicom`."""

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
        """Its name in meta.json."""
        return f"{UNICOM}/{self.model}/{self.features}"


class ImageModel(Section):
    """A frozen image model: the image teacher or a frozen image tower."""

    name: str = Field(
        min_length=1,
        description="`efficientnet-lite0` (packaged), `unicom`, a folder, a Hugging Face name, `timm/NAME`, the name "
        "that an installed package registers, or a Python file.",
    )
    unicom: UnicomSettings | None = Field(default=None, description="The Unicom network, if `name` is `unicom`.")
    image_size: Count | None = Field(
        default=None, description="Input side in pixels; null takes the size that the model was trained with."
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
    def unicom_settings(self) -> UnicomSettings:
        """The Unicom network meant by `name: unicom`."""
        return self.unicom or UnicomSettings()

    @property
    def identity(self) -> str:
        """What meta.json calls the model whose features these are."""
        return self.unicom_settings.identity if self.name == UNICOM else self.name

    @property
    def python_files(self) -> list[str]:
        """The path of the model's own Python file, if `name` is one."""
        return python_files(self.name)

    @property
    def folder(self) -> str:
        """Folder of its features; another input size has another folder."""
        return folder_name(self.identity) + (f"-{self.image_size}px" if self.image_size else "")


class TextModel(Section):
    """A frozen sentence model: the text teacher or a frozen text tower."""

    name: str = Field(
        min_length=1,
        description="`all-MiniLM-L6-v2` (packaged), any sentence-transformers name or folder, the name that an "
        "installed package registers, or a Python file.",
    )
    batch_size: Count = Field(default=128, description="Captions a forward pass during extraction.")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Type of the stored features.")
    prompt: str | None = added_key(
        None,
        "What is put before every caption: a text, or the name of a prompt that the model ships. null takes the "
        'model\'s default prompt, where it ships one; "" takes none.',
    )

    matryoshka_dimension: Count | None = added_key(
        None,
        "How many numbers of an embedding are kept, from the first on, for models that were trained for it (Matryoshka "
        "representations); null keeps all.",
    )
    precision: Literal["fp32", "fp16", "bf16"] = added_key("fp32", "Arithmetic of the extraction.")

    @property
    def identity(self) -> str:
        """What meta.json calls the model whose features these are."""
        prompt = "" if self.prompt is None else f" with the prompt {self.prompt!r}"
        kept = "" if self.matryoshka_dimension is None else f", the first {self.matryoshka_dimension} numbers"
        return f"{self.name}{prompt}{kept}"

    @property
    def python_files(self) -> list[str]:
        """The path of the model's own Python file, if `name` is one."""
        return python_files(self.name)

    @property
    def folder(self) -> str:
        """Folder of its features; another prompt, and another length of the embeddings, has another folder."""
        digest = "" if self.prompt is None else hashlib.sha256(self.prompt.encode()).hexdigest()[:8]
        prompt = "" if self.prompt is None else f"-prompt-{digest}"
        return f"{folder_name(self.name)}{prompt}" + (
            "" if self.matryoshka_dimension is None else f"-{self.matryoshka_dimension}d"
        )


SHARE = Annotated[Share, Field(gt=0, description="Its share of the mixture's similarities.")]
MODALITIES: tuple[Literal["image"], Literal["text"]] = ("image", "text")


class AddedImageTeacher(ImageModel):
    """An image teacher beside the first one."""

    share: SHARE


class AddedTextTeacher(TextModel):
    """A text teacher beside the first one."""

    share: SHARE


class AddedTeachers(Section):
    """Teachers beside the first ones. The similarity of two images or captions is a weighted mean of the teachers'."""

    image: list[AddedImageTeacher] = Field(default=[], description="Image teachers beside `teachers.image`.")
    text: list[AddedTextTeacher] = Field(default=[], description="Text teachers beside `teachers.text`.")


class Teachers(Section):
    """The uni-modal teachers: one for images and one for texts, or mixtures of several."""

    image: ImageModel
    text: TextModel
    more: AddedTeachers = added_key(
        AddedTeachers(), "More teachers, each with its share of the similarities; the first ones have the rest."
    )

    @model_validator(mode="after")
    def _mixable(self) -> Teachers:
        for modality in MODALITIES:
            added = getattr(self.more, modality)
            if (total := sum(each.share for each in added)) >= 1:
                raise ValueError(
                    f"the shares in more.{modality} add up to {total:g}, which leaves nothing to {modality} "
                    f"({getattr(self, modality).name}); they have to stay below 1"
                )
            folders = [model.folder for model, _ in self.mixture(modality)]
            if twice := sorted({folder for folder in folders if folders.count(folder) > 1}):
                raise ValueError(f"more.{modality}: {twice[0]} is among the {modality} teachers twice; name it once")
        return self

    def mixture(self, modality: Literal["image", "text"]) -> list[tuple[ImageModel | TextModel, float]]:
        """The teachers of a modality, the first one first, and their shares, which add up to 1."""
        first: ImageModel | TextModel = getattr(self, modality)
        added: list[AddedImageTeacher | AddedTextTeacher] = list(getattr(self.more, modality))
        rest = 1.0 - sum(teacher.share for teacher in added)
        return [(first, rest), *((teacher, teacher.share) for teacher in added)]

    @property
    def as_student(self) -> StudentSettings:
        """The teachers as a pair of frozen towers without projections, to be scored within each modality."""
        image = ImageTower(**self.image.model_dump(), trainable=False)
        text = TextTower(**self.text.model_dump(), trainable=False)
        return StudentSettings(towers=Towers(image=image, text=text, dimension=None))


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


class StudentSettings(Section):
    """The model that is trained: a dual encoder by name, folder or Python file, or a pair of towers."""

    name: str | None = Field(
        default=None,
        description="Hugging Face name or folder of a dual encoder (CLIP, SigLIP, ...), `open_clip/ARCHITECTURE`, the "
        "name that an installed package registers, or a Python file.",
    )
    pretrained: str | None = added_key(
        None,
        "The weights of `open_clip/ARCHITECTURE`: a tag that open_clip knows, or the path of a file. null takes those "
        "of the architecture, if there is one set of them.",
        min_length=1,
    )
    towers: Towers | None = Field(default=None, description="A pair of towers instead of a dual encoder.")
    max_tokens: Count = Field(default=77, description="Captions are truncated to this many tokens.")
    stretch_positions: bool = added_key(
        False,
        "true stretches the positions of a CLIP's text side to max_tokens, where it has fewer (Long-CLIP): the first "
        "20 stay, the others are interpolated.",
    )
    head_start: HeadStart = added_key(
        "random", "How heads start: `random`, as published, or `identity`: then training starts at the loaded model."
    )
    adapt: Adaptation | None = added_key(
        None, "What is trained of the pre-trained weights, by `image` and `text`; null trains all of them."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> StudentSettings:
        if (self.name is None) == (self.towers is None):
            found = "neither" if self.name is None else "both"
            raise ValueError(
                f"found {found} of `name` (a dual encoder) and `towers` (a pair of towers), expected exactly one; "
                "an overlay that switches from one to the other sets the other to null, and the student of an "
                "experiment is complete: it takes no key from the common one"
            )
        return self

    @model_validator(mode="after")
    def _adapts_what_is_trained(self) -> StudentSettings:
        for side in (self.adapt and self.adapt.sides) or {}:
            if self.towers is not None and not getattr(self.towers, side).trainable:
                raise ValueError(
                    f"adapt.{side} is given, but towers.{side}.trainable is false, so that its cached features are "
                    f"read; set towers.{side}.trainable: true, or leave adapt.{side} out"
                )
        return self

    @model_validator(mode="after")
    def _weights_of_open_clip(self) -> StudentSettings:
        if self.pretrained is not None and not (self.name or "").startswith(OPEN_CLIP):
            raise ValueError(
                f"pretrained is {self.pretrained!r}, but name is {self.name!r}; only the names that begin with "
                f"`{OPEN_CLIP}` are of architectures, whose weights are named apart"
            )
        return self

    @model_validator(mode="after")
    def _stretches_a_dual_encoder(self) -> StudentSettings:
        if self.stretch_positions and self.name is None:
            raise ValueError(
                "stretch_positions is true, but the student is a pair of towers, whose text side reads as many tokens "
                "as its model does; leave it out"
            )
        return self

    @property
    def whole(self) -> StudentSettings:
        """The same student without `adapt`, as it is before training and after its adapters are merged."""
        return self.model_copy(update={"adapt": None})

    @property
    def python_files(self) -> list[str]:
        """The paths of the student's own Python files: of the dual encoder, or of its towers."""
        towers = [] if self.towers is None else [self.towers.image.name, self.towers.text.name]
        return python_files(self.name, *towers)

    @property
    def has_frozen_towers(self) -> bool:
        """Whether both towers are frozen, so that a step reads their cached features, and computes little."""
        return self.towers is not None and not (self.towers.image.trainable or self.towers.text.trainable)

    @property
    def trained_sides(self) -> set[str]:
        """The sides on which a training can change what was there before; empty if both are frozen."""
        frozen = set() if self.adapt is None else self.adapt.frozen_sides
        if self.towers is not None:
            frozen |= {side for side in MODALITIES if not getattr(self.towers, side).trainable}
        return set(MODALITIES) - frozen
