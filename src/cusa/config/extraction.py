"""The section `extraction`: how the teachers' features are computed."""

from __future__ import annotations

from pydantic import Field

from cusa.config.section import Parts, Section


class Extraction(Section):
    """How image features are computed; it does not change their values."""

    parts: Parts = Field(
        default=1,
        description="Jobs that the train split is divided into, so that several GPUs share it and a crash costs one "
        "part. Parts are whole shards where there are enough of them.",
    )
    join: bool = Field(
        default=True,
        description="Copy the parts into one file and remove them; false keeps them and only lists them.",
    )
