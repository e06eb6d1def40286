"""The sections `shards` and `stream`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cusa.common.files import expand_home
from cusa.config.dataset_section import MAX_PIXELS
from cusa.config.section import Count, Parts, Section, added_key


class Shards(Section):
    """How images are stored for training."""

    shorter_side: Count | None = Field(
        default=224,
        description="Images are shrunk once so that the shorter side has this many pixels, and never enlarged; "
        "null keeps the original bytes of each file.",
    )
    image_format: Literal["jpg", "png", "webp"] = Field(default="jpg", description="Encoding of resized images.")
    quality: Annotated[int, Field(ge=1, le=100)] = Field(default=95, description="JPEG or WebP quality.")
    samples_per_shard: Count = Field(default=1000, description="Images per tar file.")
    pixels: Literal["memory-map"] | None = added_key(
        None,
        "`memory-map` decodes the images once more, into arrays of pixels from which trainings and embeddings of "
        "students with a trained image tower read, as fast as memory is copied; null decodes the shards each time. The "
        "pixels are the same, so nothing that exists is made again.",
    )
    verify: Literal["never", "extraction", "trainings"] = added_key(
        "extraction",
        "When the tar files are compared with the sha256 that was written for each: before features are extracted from "
        "them (`extraction`), also before trainings (`trainings`), or `never`. Nothing is made again because of it.",
    )
    parts: Parts = Field(
        default=1,
        exclude=True,
        description="Jobs that write the shards of the train split, each some of them, so that several machines write "
        "them side by side. As many tokenise the captions of train. Shards and tokens are the same.",
    )
    watch_images: bool = added_key(
        True,
        "Whether the workflow looks, at its start, for images whose size or time is not what it was when they were "
        "stored. Shards with such images, and what depends on them, are made again. It reads no image, but asks the "
        "file system about each.",
    )


class ShardWriting(Shards):
    """The settings of the rule that writes shards: the section `shards`, and a key of the section `dataset`."""

    max_pixels: Count = added_key(MAX_PIXELS, "dataset.max_pixels.")


class Stream(Section):
    """Shards of the train split that are read from another place, one after the other."""

    url: str = Field(
        description="Where a shard is; {shard} stands for its six-digit number. An http or https URL, a path, or "
        "`pipe:` and a command that writes the shard to standard output."
    )
    shuffle_buffer: Count = Field(
        default=10_000, description="Pairs that each reader keeps in its buffer; the next pair is drawn among them."
    )

    @field_validator("url")
    @classmethod
    def _has_a_place_for_the_shard(cls, url: str) -> str:
        if url.count("{shard}") != 1:
            raise ValueError("does not have {shard} once; write {shard} in place of the shard's six-digit number")
        return url

    def of_shard(self, number: int) -> str:
        """The URL of one shard."""
        return expand_home(self.url).replace("{shard}", f"{number:06d}")


def require_local(shards: Shards, stream: Stream | None) -> None:
    """Raise ValueError if pixels are to be stored of images that are elsewhere."""
    if shards.pixels is not None and stream is not None:
        raise ValueError(
            "shards.pixels keeps decoded images on this disk, but `stream` is for images that do not fit there; set "
            "one of the two to null"
        )
