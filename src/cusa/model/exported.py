"""The file cusa.json of an exported folder, and what the models of such folders have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cusa.common.files import read_json, write_json
from cusa.common.pydantic_errors import first_problem
from cusa.config.captions import PUBLISHED, CaptionCleaning
from cusa.config.losses import HeadName
from cusa.config.shards import Shards
from cusa.errors import DataError
from cusa.model.interface import cosines
from cusa.runs.record import made_of_run_again

EXPORT = "cusa.json"
SCHEMA = 1
ExportFormat = Literal["sentence-transformers", "onnx", "safetensors"]


def exported_again(folder: str | Path) -> str:
    """The advice for a damaged exported folder."""
    return made_of_run_again(folder, f"delete {folder}, and export the run again with `cusa export`.")


class Exported(BaseModel):
    """The content of cusa.json that every exported folder has. Unknown keys, as of later releases, are ignored."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: int = Field(default=SCHEMA, alias="schema")
    format: ExportFormat
    weights_sha256: str = Field(description="SHA-256 of best.safetensors of the run that was exported.")
    dimension: int = Field(description="The length of the embeddings.")
    heads: tuple[HeadName, ...] = Field(description="The heads that the folder holds.")
    captions: CaptionCleaning = Field(default=PUBLISHED, description="How texts are cleaned.")
    shards: Shards = Field(
        description="How pictures are shrunk and encoded before the preprocessing, as the training images were."
    )
    dataset: str
    experiment: str
    seed: int
    versions: dict[str, str]
    files_sha256: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the other files of the folder, besides README.md."
    )

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the cusa.json of a folder. Raises DataError if it does not exist or is not valid."""
        path = Path(folder) / EXPORT
        if not path.is_file():
            raise DataError(f"{path} does not exist; it is part of every exported folder; {exported_again(folder)}")
        try:
            return cls.model_validate(read_json(path, exported_again(folder)))
        except ValidationError as error:
            key, message = first_problem(error)
            raise DataError(
                f"{path} does not describe an exported model: key `{key}`: {message.lower()}. It was written by "
                f"another program or release; {exported_again(folder)}"
            ) from None

    def write(self, folder: str | Path) -> None:
        """Write the cusa.json of a folder atomically."""
        write_json(Path(folder) / EXPORT, self.model_dump(mode="json", by_alias=True))


About = TypeVar("About", bound=Exported)


class ExportedModel(Generic[About]):
    """What the models of exported folders have in common: what cusa.json says, and the comparison of embeddings."""

    def __init__(self, about: About, folder: Path) -> None:
        self.about, self.folder = about, folder.absolute()

    @property
    def dimension(self) -> int:
        """The length D of the embeddings."""
        return self.about.dimension

    @property
    def heads(self) -> tuple[HeadName, ...]:
        """The heads that the folder holds."""
        return self.about.heads

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of best.safetensors of the run that was exported."""
        return self.about.weights_sha256

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The cosine of each row of `first` [n, D] with each row of `second` [m, D], float32 [n, m]."""
        return cosines(first, second)
