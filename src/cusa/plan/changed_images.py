"""The images of a data set that changed since they were read: the results to make again, and the messages.

The shards of each split have a record of the image files that they were written from; see cusa.shards.image_files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cusa.annotations.problems import EXAMPLES, printable
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.plan.plan import Plan
from cusa.shards.image_files import ImageChanges, changed_images


@dataclass
class ChangedImages:
    """Reasons, as sentences, to write shards again (by folder) and to convert the data set again; empty without one."""

    shards: dict[str, str] = field(default_factory=dict)
    conversion: str = ""

    def sentences(self) -> list[str]:
        """The messages before anything runs."""
        conversion = [f"{self.conversion}; the data set is read again."] if self.conversion else []
        return conversion + [f"{reason}; they are stored again." for reason in self.shards.values()]


def find_changed_images(plan: Plan, is_converted_anyway: bool = False) -> ChangedImages:
    """Compare all images that shards were written from with the record of them.

    Raises DataError for an image that the data set names but is gone, unless `dataset.skip` has missing_image.
    `is_converted_anyway` says that the data set will be read again, so it may name other images. The benchmarks' own
    data are not read again.
    """
    found = ChangedImages()
    if not plan.configuration.shards.watch_images:
        return found
    dataset = plan.configuration.dataset
    made_in = plan.folder.images.absolute() if dataset.makes_images else None
    reasons: dict[str, list[str]] = {"made": [], "gone": [], "other": []}
    for folder, split in _stored(plan):
        changes = changed_images(folder.shards(split), made_in)
        if changes is None:
            continue
        own = folder is plan.folder
        made, other = _by_origin(changes.other, made_in)
        lost, gone = _by_origin(changes.gone, made_in)
        reasons["made"] += [*made, *lost]
        if own:
            reasons["other"] += other
            reasons["gone"] += gone
        if gone and not (own and (is_converted_anyway or "missing_image" in dataset.skip)):
            raise DataError(_gone(gone, changes, folder, own, split))
        if other:
            found.shards[str(folder.shards(split))] = (
                f"{_count(other, changes)} of {split} have another size or time than when they were stored: "
                f"{_examples(other)}"
            )
    if not is_converted_anyway:
        found.conversion = _reason_to_convert(reasons, bool(dataset.skip or dataset.leave_out_of_train))
    return found


def _stored(plan: Plan) -> Iterator[tuple[DatasetFolder, str]]:
    """Each split that is stored as shards: those of the data set, and the benchmarks' own data."""
    yield from ((plan.folder, split) for split in plan.splits)
    yield from ((plan.folder.benchmark_data(data), "test") for data in plan.labelled_images)


def _by_origin(paths: Sequence[str], made_in: Path | None) -> tuple[list[str], list[str]]:
    """The images that the data set's format made itself, and the user's."""
    if made_in is None:
        return [], list(paths)
    prefix = f"{made_in.as_posix()}/"
    return [path for path in paths if path.startswith(prefix)], [path for path in paths if not path.startswith(prefix)]


def _reason_to_convert(reasons: dict[str, list[str]], leaves_out: bool) -> str:
    """Why the data set is read again; empty if no change can affect its tables."""
    if made := reasons["made"]:
        return f"{len(made):,} images that were made from the data set are damaged or gone: {_examples(made)}"
    changed = [*reasons["gone"], *reasons["other"]]
    if changed and leaves_out:
        return (
            f"{len(changed):,} images changed, and the configuration leaves out images for what is in them: "
            f"{_examples(changed)}"
        )
    return ""


def _gone(gone: Sequence[str], changes: ImageChanges, folder: DatasetFolder, own: bool, split: str) -> str:
    advice = (
        "take them out of the files that name them, or add missing_image to dataset.skip"
        if own
        else f"delete {folder.annotations}, so that the data are read again"
    )
    return (
        f"{_count(gone, changes)} that {folder.shards(split)} was made of are gone: {_examples(gone)}. Put them back, "
        f"or {advice}; shards.watch_images: false goes on with the shards as they are."
    )


def _count(paths: Sequence[str], changes: ImageChanges) -> str:
    return f"{len(paths):,} of the {changes.images:,} images"


def _examples(paths: Sequence[str]) -> str:
    more = f", and {len(paths) - EXAMPLES:,} more" if len(paths) > EXAMPLES else ""
    return f"{', '.join(map(printable, paths[:EXAMPLES]))}{more}"
