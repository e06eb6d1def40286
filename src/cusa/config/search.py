"""The sections `search` and `exports`: the trained models in use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from cusa.config.losses import HeadName
from cusa.config.section import Name, Parts, Section

ExportFormat = Literal["onnx", "sentence-transformers", "safetensors"]
TEST = "test"
ALL = "all"


def _share(value: object) -> object:
    """An integer 1 is a share too."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _distinct(names: list[str]) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} is there twice; list each name once")
    return names


Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_distinct)]


class IndexSettings(Section):
    """How the index of a gallery is built."""

    kind: Literal["auto", "flat", "hnsw", "ivf_sq", "ivf_pq"] = Field(
        default="auto",
        description="`flat` compares with every item and is exact; `hnsw`, `ivf_sq` and `ivf_pq` are approximate, for "
        "millions of items; `auto` chooses by the number of items and the measured recall.",
    )
    target_recall: Annotated[float, BeforeValidator(_share), Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        default=0.95, description="Share of the exact 10 nearest items that an approximate index has to find."
    )


class Search(Section):
    """The gallery that is made searchable, and the models."""

    gallery: str = Field(
        default=TEST,
        min_length=1,
        description="`test`, or `all` splits of the data set; or a folder of images, a table, or tars.",
    )
    experiments: Names | None = Field(
        default=None,
        description="Experiments, checkpoints or baselines whose models search, with the first seed; null takes those "
        "of `report.gallery` that exist, or else the first two.",
    )
    head: HeadName = Field(default="cross", description="`cross`: texts find images. `uni`: images find images.")
    index: IndexSettings = IndexSettings()
    parts: Parts = Field(
        default=1, description="Jobs that embed a gallery of one's own, so that several GPUs share it."
    )
    queries: Literal["auto", "onnx", "run"] = Field(
        default="auto",
        description="What embeds queries: `onnx` is an export, which starts without PyTorch; `run` is the run folder. "
        "`auto` takes `run` for models of Python files and installed packages, and else `onnx`.",
    )

    @property
    def is_own_gallery(self) -> bool:
        """Whether `gallery` is a place with images, not splits of the data set."""
        return self.gallery not in (TEST, ALL)


class Exports(Section):
    """Formats in which trained models are written for other programs."""

    formats: Annotated[list[ExportFormat], Field(min_length=1)] = Field(
        default=["onnx"], description="`onnx`, `sentence-transformers`, `safetensors`."
    )
    experiments: Names | None = Field(
        default=None, description="Experiments, checkpoints or baselines to export; null takes those of `search`."
    )
    int8: bool = Field(default=False, description="Quantise the linear layers of ONNX models to 8 bits.")
    head: HeadName | None = Field(
        default=None,
        description="The only head to export; null exports both, or `cross` if only one is possible.",
    )

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: list[ExportFormat]) -> list[ExportFormat]:
        _distinct(list(formats))
        return formats
