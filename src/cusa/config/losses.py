"""The losses of an experiment; the defaults are the published settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from cusa.config.section import NotNegative, Number, Positive, Section, Share, added_key

# The terms of the loss, which history.parquet has as loss_{name}, and what reports call them.
LOSS_TERMS: Mapping[str, str] = {"contrastive": "contrastive", "cross": "CSA", "uni": "USA"}
HeadName = Literal["cross", "uni"]  # the two families of heads, which the losses train
TeacherName = Literal["image", "text"]
START = "What the temperature is before training."
LOWER = "Lower bound, applied before each forward pass."
UPPER = "Upper bound, applied before each forward pass."


def _complete_elsewhere(schema: dict[str, Any]) -> None:
    """No key of a temperature is required, because its loss completes it."""
    schema.pop("required", None)


class TemperatureRange(Section):
    """One temperature: its start value, and the bounds to which it is clamped before every forward pass."""

    model_config = ConfigDict(json_schema_extra=_complete_elsewhere)

    start: Positive = Field(description=START)
    min: Positive = Field(description=LOWER)
    max: Positive = Field(description=UPPER)

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureRange:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self


class Temperature(TemperatureRange):
    """The temperature of the contrastive loss."""

    start: Positive = Field(default=0.05, description=START)
    min: Positive = Field(default=0.01, description=LOWER)
    max: Positive = Field(default=0.10, description=UPPER)
    learned: bool = Field(default=True, description="false keeps it fixed: it is clamped but gets no gradient.")


class TemperaturePair(Section):
    """An image and a text temperature."""

    model_config = ConfigDict(json_schema_extra=_complete_elsewhere)

    image: TemperatureRange
    text: TemperatureRange
    tied: bool = Field(
        default=False,
        description="true uses one parameter for image and text, with the means of the two starts and of the bounds.",
    )
    learned: bool = Field(default=True, description="false keeps both fixed: they are clamped but get no gradient.")


def _pair(start: float, low: float, high: float, *, tied: bool, learned: bool) -> TemperaturePair:
    one = TemperatureRange(start=start, min=low, max=high)
    return TemperaturePair(image=one, text=one, tied=tied, learned=learned)


CROSS = _pair(0.45, 0.10, 0.99, tied=True, learned=True)
UNI = _pair(0.45, 0.10, 1.00, tied=False, learned=True)
TEACHER = _pair(1.00, 0.10, 1.00, tied=True, learned=False)


def _completed(given: Any, default: TemperaturePair) -> Any:
    """A pair of temperatures as it is written, completed by the loss's own values."""
    if not isinstance(given, Mapping):
        return given
    whole = default.model_dump()
    ranges = {
        side: whole[side] | dict(given[side]) for side in ("image", "text") if isinstance(given.get(side), Mapping)
    }
    return whole | dict(given) | ranges


def _starting_with(default: TemperaturePair) -> Any:
    return BeforeValidator(lambda given: _completed(given, default))


Reduction = Annotated[
    Literal["mean", "sum"],
    Field(
        description="`mean` averages over all B*B entries (published), `sum` sums each row and averages over the rows."
    ),
]


SoftLoss = Annotated[
    Literal["kl", "contrastive"],
    Field(description="`kl`, or `contrastive`: cross-entropy with soft targets, reduced as `reduction` says."),
]


class SigmoidBias(Section):
    """The number that is added to every similarity, divided by the temperature, before the sigmoid."""

    start: Number = Field(default=-10.0, description="What it is before training.")
    learned: bool = Field(default=True, description="false keeps it fixed.")


class FalseNegatives(Section):
    """False negatives are left out of the contrastive loss: a teacher considers them more similar than the positive."""

    teacher: Literal["image", "text", "either", "both"] = Field(
        default="text",
        description="Who judges: the image teacher compares the images of two pairs, the text teacher their captions. "
        "`either`: one of them is enough; `both`: they have to agree.",
    )
    margin: Annotated[Number, Field(ge=-1, le=1)] = Field(
        default=0.0,
        description="How much further than the positive a negative may be and still be left out; below 0, how much "
        "nearer it has to be.",
    )
    margin_strategy: Literal["absolute", "relative"] = Field(
        default="absolute",
        description="`absolute`: the margin is a difference of cosine similarities; `relative`: a share of the "
        "positive's similarity.",
    )

    @property
    def teachers(self) -> tuple[TeacherName, ...]:
        """The teachers that judge."""
        if self.teacher == "image" or self.teacher == "text":
            return (self.teacher,)
        return ("image", "text")


class Contrastive(Section):
    """Image-text contrastive loss; pairs of a batch that have the same image are positives of each other."""

    rate: NotNegative = Field(default=1.0, description="Weight of the loss.")
    reduction: Reduction = "mean"
    temperature: Temperature = Temperature()
    kind: Literal["softmax", "sigmoid"] = added_key(
        "softmax",
        "`softmax`: each image is told from the other texts of the batch, and each text from the other images "
        "(CLIP, published); `sigmoid`: each pair of an image and a text is judged for itself (SigLIP).",
    )
    bias: SigmoidBias | None = added_key(None, "The bias of `sigmoid`; null takes SigLIP's, which starts at -10.")
    label_smoothing: Share = added_key(
        0.0, "Share of each row's label that is spread evenly over all entries of the row, the positives among them."
    )
    false_negatives: FalseNegatives | None = added_key(
        None, "Negatives that are left out, because a teacher calls them nearer than the positive; null keeps all."
    )

    @model_validator(mode="after")
    def _check_combination(self) -> Contrastive:
        if self.bias is not None and self.kind != "sigmoid":
            raise ValueError(f"bias is set, but kind is `{self.kind}`, which has none; set kind: sigmoid")
        if self.label_smoothing and self.kind == "sigmoid":
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}, but kind is `sigmoid`, whose labels are not a "
                "distribution; leave it out, or set kind: softmax"
            )
        return self


OTHER_TEACHER = (
    "Share of the other modality's teacher in the similarities that the soft labels are made of: 0.3 takes 0.7 of the "
    "image teacher's and 0.3 of the text teacher's where the image teacher's would be taken, and the other way round."
)


class CrossSoftLabel(Section):
    """CSA (cross-modal soft-label alignment): the teachers' similarities as soft labels across modalities."""

    rate: NotNegative = Field(default=0.10, description="The paper's alpha.")
    loss: SoftLoss = "kl"
    reduction: Reduction = "mean"
    mode: Literal["each", "add", "dot"] = Field(
        default="each",
        description="`each`: image teacher for image-to-text, text teacher for text-to-image; `add`: their mean; "
        "`dot`: their geometric mean. `add` and `dot` always tie the temperatures.",
    )
    temperature: Annotated[TemperaturePair, _starting_with(CROSS)] = CROSS
    teacher_temperature: Annotated[TemperaturePair, _starting_with(TEACHER)] = TEACHER
    other_teacher: Share = added_key(0.0, OTHER_TEACHER)


class UniSoftLabel(Section):
    """USA (uni-modal soft-label alignment): the teachers' similarities as soft labels within each modality."""

    rate: NotNegative = Field(default=0.50, description="The paper's beta.")
    loss: SoftLoss = "kl"
    reduction: Reduction = "mean"
    temperature: Annotated[TemperaturePair | Literal["cross"], _starting_with(UNI)] = Field(
        default=UNI, description="`cross` shares the temperatures of CSA."
    )
    teacher_temperature: Annotated[TemperaturePair | Literal["cross"], _starting_with(TEACHER)] = Field(
        default=TEACHER, description="`cross` shares the temperatures of CSA."
    )
    other_teacher: Share = added_key(0.0, OTHER_TEACHER)


class LossConfiguration(Section):
    """The settings of each loss; null switches a loss off. The defaults are the published settings."""

    contrastive: Contrastive | None = None
    cross_softlabel: CrossSoftLabel | None = None
    uni_softlabel: UniSoftLabel | None = None

    @model_validator(mode="after")
    def _check_combination(self) -> LossConfiguration:
        cross = self.cross_softlabel
        if cross is not None and cross.other_teacher and cross.mode != "each":
            raise ValueError(
                f"cross_softlabel.other_teacher is {cross.other_teacher}, but mode `{cross.mode}` has its own mixture "
                "of the teachers; set mode: each, or leave out other_teacher"
            )
        if self.uni_softlabel is not None and cross is None:
            for key in ("temperature", "teacher_temperature"):
                if getattr(self.uni_softlabel, key) == "cross":
                    raise ValueError(
                        f"uni_softlabel.{key} is `cross`, but cross_softlabel is off, so there is nothing to share; "
                        "give uni_softlabel its own temperatures"
                    )
        return self

    @property
    def heads(self) -> tuple[HeadName, ...]:
        """The families of heads that the losses read and train."""
        families: dict[HeadName, bool] = {
            "cross": self.contrastive is not None or self.cross_softlabel is not None,
            "uni": self.uni_softlabel is not None,
        }
        return tuple(name for name, is_read in families.items() if is_read)

    @property
    def soft_labels(self) -> bool:
        """Whether a loss uses soft labels."""
        return self.cross_softlabel is not None or self.uni_softlabel is not None

    @property
    def teachers(self) -> tuple[TeacherName, ...]:
        """The teachers whose features the losses need: those of soft labels, and those that judge negatives."""
        if self.soft_labels:
            return ("image", "text")
        judges = self.contrastive.false_negatives if self.contrastive is not None else None
        return () if judges is None else judges.teachers

    @property
    def needs_teachers(self) -> bool:
        """Whether the losses need features of a teacher."""
        return bool(self.teachers)
