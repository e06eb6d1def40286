"""Images with a class, for image retrieval: five known archives as they are unpacked, and the user's own data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cusa.annotations.cars_annotations import cars_annotations
from cusa.annotations.problems import printable
from cusa.annotations.sources.image_paths import image_path
from cusa.annotations.sources.rows import identity, malformed
from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_rows import table_rows
from cusa.common.files import expanded
from cusa.common.image_files import IMAGE_ENDINGS, file_problem, why_missing
from cusa.common.text import text_lines
from cusa.errors import DataError, first_lines

log = logging.getLogger(__name__)


class LabelledImage(NamedTuple):
    """An image and its class. `role` is None if every image searches all the others."""

    path: Path
    label: str
    role: Literal["query", "gallery"] | None = None


class Archive(NamedTuple):
    """A known data set: its source, the files that its folder needs, and the counts of its test set."""

    title: str
    source: str
    layout: str
    images: int
    classes: int


ARCHIVES: Mapping[str, Archive] = {
    "cub": Archive(
        "CUB-200-2011",
        "https://data.caltech.edu/records/65de6-vp158 (CUB_200_2011.tgz)",
        "images.txt, image_class_labels.txt, images/",
        5924,
        100,
    ),
    "cars": Archive(
        "Cars-196",
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (car_ims.tgz, cars_annos.mat)",
        "cars_annos.mat, car_ims/",
        8131,
        98,
    ),
    "sop": Archive(
        "Stanford Online Products",
        "https://cvgl.stanford.edu/projects/lifted_struct/ (Stanford_Online_Products.zip)",
        "Ebay_test.txt, *_final/",
        60502,
        11316,
    ),
    "inshop": Archive(
        "In-Shop Clothes Retrieval",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html (list_eval_partition.txt, img.zip)",
        "list_eval_partition.txt (or Eval/ with it), img/ (or Img/img/)",
        26830,
        3985,
    ),
    "inaturalist": Archive(
        "iNaturalist 2018",
        "https://github.com/visipedia/inat_comp (train_val2018.tar.gz); the split with the metric-learning release",
        "Inat_dataset_splits/Inaturalist_test_set1.txt, train_val2018/",
        136093,
        2452,
    ),
}


# In addition to names that begin with a dot or with @, such as Synology's @eaDir.
HIDDEN = ("__macosx", "__pycache__", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin")
FIRST_TEST_CLASS = {"cub": 101, "cars": 99}


def labelled_images(name: str, path: str | Path) -> list[LabelledImage]:
    """The test images of a known archive, or of the user's folder or CSV, in the order of the files.

    Raises DataError when the layout is another one, a line is damaged, or listed images are missing.
    """
    place = expanded(path).absolute()
    images = list(LOADERS.get(name, _own)(place))
    if not images:
        raise DataError(f"{place} lists no test image; expected {_expected(name)}.")
    if odd := [image for image in images if not _is_unicode(image)]:
        names = first_lines([ascii(str(image.path)) for image in odd])
        raise DataError(
            f"{len(odd):,} image files in {place} have names that are not UTF-8 text; rename them, for instance with "
            f"convmv:{names}"
        )
    if missing := [(image.path, problem) for image in images if (problem := file_problem(image.path)) is not None]:
        reasons = [
            f"{printable(str(path))}: {reason}{printable(why_missing(path)) if is_missing else ''}"
            for path, (reason, is_missing) in missing
        ]
        advice = "unpack all of the archive" if name in LOADERS else "correct or remove them"
        raise DataError(
            f"{place} lists {len(images):,} test images, but {len(missing):,} of them do not exist or cannot "
            f"be read; {advice}:{first_lines(reasons)}"
        )
    if name not in LOADERS:
        _refuse_repeated(place, images)
    return images


def _refuse_repeated(place: Path, images: Sequence[LabelledImage]) -> None:
    """Raise DataError if a file occurs twice, also through a link: a search for it would return itself."""
    first: dict[tuple[int, int], Path] = {}
    repeated = []
    for image in images:
        status = image.path.stat()
        if (other := first.setdefault((status.st_dev, status.st_ino), image.path)) is not image.path:
            repeated.append(f"{printable(str(image.path))} and {printable(str(other))}")
    if repeated:
        raise DataError(
            f"{place} has {len(repeated):,} images that are the file of another one, so that a search for them finds "
            f"themselves; name each file once:{first_lines(repeated)}"
        )


def require_two_classes(name: str, path: str | Path, images: Sequence[LabelledImage]) -> None:
    """Raise DataError when all images are of one class: every result would be right."""
    if len(labels := {image.label for image in images}) < 2:
        raise DataError(
            f"{path} has {len(images):,} images of one class, `{', '.join(labels)}`, so every result would be right; "
            f"expected {_expected(name)}, of two classes at least."
        )


def _expected(name: str) -> str:
    return ARCHIVES[name].layout if name in ARCHIVES else "a folder per class with images in it, or a CSV"


def _cub(folder: Path) -> Iterator[LabelledImage]:
    names = dict(_cells(folder, "images.txt", 2))
    for number, label in _cells(folder, "image_class_labels.txt", 2):
        if number not in names:
            raise DataError(f"{folder}/image_class_labels.txt has the image {number}, which images.txt does not list.")
        if not label.isdecimal():
            raise DataError(
                f"{folder}/image_class_labels.txt has the class `{label}`, expected a number from 1 to 200."
            )
        if int(label) >= FIRST_TEST_CLASS["cub"]:
            yield LabelledImage(folder / "images" / names[number], label)


def _cars(folder: Path) -> Iterator[LabelledImage]:
    for name, label in cars_annotations(_existing(folder, "cars_annos.mat")):
        if label >= FIRST_TEST_CLASS["cars"]:
            yield LabelledImage(folder / name, str(label))


def _sop(folder: Path) -> Iterator[LabelledImage]:
    for _, label, _, name in _cells(folder, "Ebay_test.txt", 4, heading=1):
        yield LabelledImage(folder / name, label)


def _inshop(folder: Path) -> Iterator[LabelledImage]:
    listed = "Eval/list_eval_partition.txt" if (folder / "Eval").is_dir() else "list_eval_partition.txt"
    root = folder / "Img" if (folder / "Img/img").is_dir() else folder
    for name, label, status in _cells(folder, listed, 3, heading=2):
        match status:
            case "query" | "gallery":
                yield LabelledImage(root / name, label, status)
            case "train":
                continue
            case _:
                raise DataError(f"{folder / listed} has the status `{status}`, expected train, query or gallery.")


def _inaturalist(folder: Path) -> Iterator[LabelledImage]:
    for (name,) in _cells(folder, "Inat_dataset_splits/Inaturalist_test_set1.txt", 1):
        yield LabelledImage(folder / name, Path(name).parent.name)


def _own_folder(place: Path) -> Iterator[LabelledImage]:
    """The images of folders named by class. Other files are counted in the log."""
    ignored: dict[str, list[Path]] = {}
    for folder in sorted(place.iterdir()):
        if is_hidden(folder.name):
            ignored.setdefault("hidden files and folders", []).append(folder)
            continue
        if not folder.is_dir():
            ignored.setdefault("files beside the folders of the classes", []).append(folder)
            continue
        count = 0
        for path in sorted(folder.rglob("*")):
            if any(is_hidden(part) for part in path.relative_to(folder).parts):
                ignored.setdefault("hidden files and folders", []).append(path)
            elif path.suffix.lower() in IMAGE_ENDINGS and not path.is_dir():
                count += 1
                yield LabelledImage(path, folder.name)
            elif not path.is_dir() or path.is_symlink():
                ignored.setdefault("files that are not images by their endings, and links to folders", []).append(path)
        if not count:
            ignored.setdefault("folders without an image", []).append(folder)
    for what, paths in ignored.items():
        log.info("%s: ignored %s %s, for instance %s", place, f"{len(paths):,}", what, printable(str(paths[0])))


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a system or a program, not to the data: `.git`, `@eaDir`, `Thumbs.db`."""
    return name.startswith((".", "@")) or name.lower() in HIDDEN


def _is_unicode(image: LabelledImage) -> bool:
    """Whether an image's path and class can be stored as text; bytes that are not UTF-8 are half surrogates here."""
    try:
        f"{image.path}{image.label}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _own(place: Path) -> Iterator[LabelledImage]:
    if place.is_dir():
        yield from _own_folder(place)
        return
    for location, row in table_rows(place):
        if isinstance(row, dict) and (missing := [column for column in LABELLED if column not in row]):
            raise DataError(
                f"{place} has the columns {', '.join(map(str, row))}, but not {', '.join(missing)}; a CSV of labelled "
                "images needs image and label."
            )
        if isinstance(row, MalformedRow):
            raise DataError(f"{location} {row.reason}.")
        if reason := malformed(row, LABELLED):
            raise DataError(f"{location} {reason}.")
        yield LabelledImage(Path(image_path(None, place, row["image"])), identity(row["label"]))


LABELLED: Mapping[str, tuple[type, ...]] = {"image": (str,), "label": (str, int, float)}
LOADERS: Mapping[str, Callable[[Path], Iterator[LabelledImage]]] = {
    "cub": _cub,
    "cars": _cars,
    "sop": _sop,
    "inshop": _inshop,
    "inaturalist": _inaturalist,
}


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise DataError(f"{path} does not exist; unpack all of the archive into {folder}.")
    return path


def _cells(folder: Path, name: str, count: int, heading: int = 0) -> Iterator[list[str]]:
    """The cells of each line of a text file, separated by blanks, without the first `heading` lines."""
    path = _existing(folder, name)
    for number, line in enumerate(text_lines(path), start=1):
        if number > heading and line.strip():
            cells = line.split() if count > 1 else [line.strip()]
            if len(cells) != count:
                raise DataError(f"{path}, line {number}: {len(cells)} columns, expected {count}: {line[:80]!r}")
            yield cells
