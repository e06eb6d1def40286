"""The sections `shards` and `stream`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cusa.config.section import Count, Section


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
