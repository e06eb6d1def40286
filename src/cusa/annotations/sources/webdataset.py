"""WebDataset tars as img2dataset writes them: KEY.jpg with its caption in KEY.txt or KEY.json.

Tars, also compressed ones, are read from the first to the last byte. Only pictures and texts are unpacked, and no name
in a tar becomes a path.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cusa.annotations.sources.packed import PackedSource
from cusa.annotations.sources.rows import captions_in, language_of, malformed
from cusa.annotations.sources.rows import identity as identity_of
from cusa.annotations.sources.source import LeftOut, MalformedRow, Record
from cusa.annotations.sources.tar_members import Member, tar_members
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.common.json_stream import unrepeated
from cusa.common.text import marked_encoding, unstorable
from cusa.config.dataset import Split, WebDatasetDataset

SETTINGS = WebDatasetDataset
# Beside a picture with another ending, files with these are mostly masks or depth, and are passed over.
RARE_ENDINGS = (".jpe", ".jfif", ".mpo", ".apng", ".dib", ".jp2", ".ppm", ".pgm", ".pbm")
SHOWN_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
TEXT, METADATA = ".txt", ".json"
ENDINGS = (*IMAGE_ENDINGS, TEXT, METADATA)
CAPTION = "caption"
SUCCESS = "success"
APART = (
    "has files apart from the picture and caption of this key, which were read before; the files of a key have to "
    "follow one another, as in a tar that is sorted by name (tar --sort=name)"
)
UTF8 = "utf-8-sig"  # with or without a byte order mark


@dataclass
class Sample:
    """The files of one key. `picture` is bytes, or the path and the digest of a picture that has been written."""

    key: str
    picture: bytes | tuple[str, str] | None = None
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    problem: str | None = None
    apart: bool = False
    is_rare: bool = False  # the picture has one of RARE_ENDINGS


class WebDatasetSource(PackedSource):
    """Reads tars. An image's id is its tar and its key: equal keys in two tars are two images."""

    dataset: WebDatasetDataset

    def file_records(self, path: Path, split: Split | None) -> Iterator[Record | MalformedRow | LeftOut]:
        """Every caption of a tar, in the order in which its samples are complete."""
        for sample in self._samples(path):
            yield from self._sample_records(sample, path, split)

    def _samples(self, path: Path) -> Iterator[Sample]:
        """The samples of a tar.

        The files of a key should follow each other; then memory holds one sample. Other samples, for instance if all
        pictures come first, are completed at the end: memory then holds their texts, not their pictures.
        """
        current: Sample | None = None
        waiting: dict[str, Sample] = {}
        read: set[str] = set()
        for member in tar_members(path, ENDINGS):
            if current is not None and member.key != current.key:
                if self._is_complete(current):
                    read.add(current.key)
                    yield current
                else:
                    self._set_aside(current, waiting)
                current = None
            if current is None:
                current = waiting.pop(member.key, None) or Sample(member.key)
            _add(current, member, self.dataset.encoding or UTF8)
        if current is not None:
            waiting[current.key] = current
        if not read:
            waiting = _grouped_by_first_dot(waiting)
        for sample in waiting.values():
            if sample.picture is None and sample.key in read:
                sample.problem = APART
            yield sample

    def _is_complete(self, sample: Sample) -> bool:
        needs_json = any(key is not None for key in self.dataset.keys.model_dump().values())
        has_texts = sample.metadata is not None or (sample.text is not None and not needs_json)
        return sample.problem is not None or (sample.picture is not None and has_texts and not sample.apart)

    def _set_aside(self, sample: Sample, waiting: dict[str, Sample]) -> None:
        if isinstance(sample.picture, bytes):
            sample.picture = self.pictures.add(sample.picture)
        sample.apart = True
        waiting[sample.key] = sample

    def _sample_records(
        self, sample: Sample, path: Path, split: Split | None
    ) -> Iterator[Record | MalformedRow | LeftOut]:
        place, keys = f"{path}, key {sample.key}", self.dataset.keys
        metadata = sample.metadata or {}
        if (status := metadata.get("status", SUCCESS)) != SUCCESS:
            yield LeftOut(place, f"has the status `{status}`")
            return
        captions, reason = self._captions(sample)
        language, no_language = language_of(None if keys.language is None else metadata.get(keys.language))
        if reason := sample.problem or _lacking_picture(sample) or reason or no_language:
            yield MalformedRow(place, reason)
            return
        needed = [key for key in (keys.image_id, keys.split) if key is not None]
        if reason := malformed(metadata, dict.fromkeys(needed, (str, int, float))):
            yield MalformedRow(place, f"{reason}, in its JSON")
            return
        picture = sample.picture
        location, digest = self.pictures.add(picture) if isinstance(picture, bytes) else picture or ("", "")
        # The digest decides a draw, so that equal pictures are in the same split.
        if (mine := self.splits.of_row(split, digest, metadata.get(keys.split or ""), place)) is None:
            return
        identity = (
            f"{self.names[str(path)]}/{sample.key}" if keys.image_id is None else identity_of(metadata[keys.image_id])
        )
        label = None if keys.label is None or metadata.get(keys.label) is None else identity_of(metadata[keys.label])
        for caption in captions:
            yield Record(mine, identity, location, caption, label, place=place, language=language)

    def _captions(self, sample: Sample) -> tuple[list[str], str | None]:
        """The captions of a sample, and None; or no caption, and the reason why there is none."""
        key = self.dataset.keys.caption
        if key is None and sample.text is not None:
            what = unstorable(sample.text)
            return [sample.text], f"has {what} in its text" if what else None
        if sample.metadata is None:
            return [], "has no caption: neither a .txt nor a .json" if key is None else "has no .json"
        captions, reason = captions_in(sample.metadata, key or CAPTION)
        return captions, f"{reason}, in its JSON" if reason else None

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of each tar in the ids: its path from the folder that all tars are in, without the ending."""
        files = list(self.dataset.files.values())
        common = os.path.commonpath([Path(file).absolute().parent for file in files])
        whole = [Path(file).absolute().relative_to(common).as_posix() for file in files]
        short = [re.sub(r"\.(tar|tar\.gz|tgz)$", "", name, flags=re.IGNORECASE) for name in whole]
        return dict(zip(files, short if len(set(short)) == len(short) else whole, strict=True))


def open_source(dataset: WebDatasetDataset, image_folder: Path) -> WebDatasetSource:
    """The source of tars; it writes their pictures into `image_folder`."""
    return WebDatasetSource(dataset, image_folder)


def _add(sample: Sample, member: Member, encoding: str) -> None:
    """Add a file to its sample; a problem of the file becomes the sample's problem."""
    if isinstance(member.content, str):
        sample.problem = sample.problem or f"has {member.name}, which {member.content}"
    elif member.ending in IMAGE_ENDINGS:
        is_rare = member.ending in RARE_ENDINGS
        if sample.picture is None or (sample.is_rare and not is_rare):
            sample.picture, sample.is_rare = member.content, is_rare
        elif is_rare == sample.is_rare:
            sample.problem = f"has two pictures; the second is {member.name}"
    elif (sample.text if member.ending == TEXT else sample.metadata) is not None:
        sample.problem = f"has two files {member.name}"
    elif member.ending == TEXT:
        encoding = marked_encoding(member.content) or encoding
        try:
            sample.text = member.content.decode(encoding)
        except UnicodeDecodeError as error:
            name = encoding.removesuffix("-sig").upper()
            advice = "name its encoding in dataset.encoding"
            sample.problem = f"has {member.name}, which is not {name} ({error.reason} at byte {error.start}); {advice}"
    else:
        try:
            metadata = json.loads(member.content, object_pairs_hook=unrepeated)
        except (ValueError, RecursionError):
            metadata = None
        if isinstance(metadata, dict):
            sample.metadata = metadata
        else:
            sample.problem = f"has {member.name}, which is not a JSON object, or has a key twice with two values"


def _grouped_by_first_dot(samples: dict[str, Sample]) -> dict[str, Sample]:
    """Samples whose files are called KEY.input.jpg and KEY.output.txt, by the KEY before the first dot of the name.

    That is WebDataset's own rule. Keys end at the last dot, because names may have dots, so this is only for a tar none
    of whose samples is complete, and whose pictures, like its texts, all have one name behind the KEY. Else the samples
    stay as they are.
    """
    names: dict[str, set[str]] = {"picture": set(), "text": set(), "metadata": set()}
    grouped: dict[str, Sample] = {}
    for sample in samples.values():
        folder, slash, name = sample.key.rpartition("/")
        first, _, rest = name.partition(".")
        whole = grouped.setdefault(f"{folder}{slash}{first}", Sample(f"{folder}{slash}{first}", apart=True))
        for kind, found in names.items():
            if (content := getattr(sample, kind)) is None:
                continue
            if getattr(whole, kind) is not None:
                return samples
            setattr(whole, kind, content)
            found.add(rest)
        whole.problem = whole.problem or sample.problem
        whole.is_rare |= sample.is_rare
    return samples if any(len(found) > 1 for found in names.values()) else grouped


def _lacking_picture(sample: Sample) -> str | None:
    return None if sample.picture is not None else f"has no picture ({', '.join(SHOWN_ENDINGS)}, ...)"
