"""`cusa init`: a starting configuration for the user's own data, derived from the data."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cusa.annotations.sources.registry import open_source
from cusa.annotations.sources.rows import is_json_lines, json_rows
from cusa.annotations.sources.source import Record
from cusa.annotations.table_columns import find_split
from cusa.annotations.table_rows import Reading, table_kind
from cusa.commands.image_folders import add_image_root, image_folders
from cusa.commands.packed_files import MOST_ENTRIES, is_too_large, packed_start
from cusa.commands.split_files import (
    FilesOfSplits,
    add_missing_splits,
    are_alike,
    files_in,
    require_train,
    split_in_name,
    split_of_folder,
    splits_beside,
)
from cusa.commands.starting_section import Given, Start
from cusa.commands.starting_tables import sampled_rows, table_start
from cusa.common.files import expanded
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.common.json_stream import open_json
from cusa.common.text import is_text_encoding, text_lines, unstorable
from cusa.common.workflow_files import head_of_file, page_of_keys
from cusa.config.data_files import TABLE_ENDINGS
from cusa.config.dataset import SPLITS, DatasetSection, Split, load_dataset, split_named
from cusa.config.files import read_files, yaml_text
from cusa.errors import ConfigurationError

LONGEST_NAME = 100  # characters of a data set's name, which is that of a folder
PUBLISHED_KEYS = {"image_path", "caption", "image_id"}
PAPERS = ("published", "albef", "karpathy", "coco")  # formats without columns, whose images may be in another folder
COCO_KEYS = ("images", "info", "licenses", "annotations", "type")
BOXES = frozenset({"bbox", "segmentation", "keypoints"})  # what COCO's files without captions have
IN_LISTS: Mapping[Split, str] = {"train": "train", "val": "val|dev", "test": "test"}
LIST_OF_IMAGES = r"(?i:(.*[_.-])?({})(_?images)?\.txt)"
CAPTIONS = """
# Captions stay as they are. This line cleans them as the paper does: lower case, no punctuation, at most 64 words.
# captions: {clean: published}
"""


def starting_configuration(
    path: str | Path, images: str | Path | None = None, name: str | None = None, encoding: str | None = None
) -> str:
    """The YAML text of an overlay for the data in `path`. See `look_at`."""
    return look_at(path, images, name, encoding).text


def look_at(
    path: str | Path, images: str | Path | None = None, name: str | None = None, encoding: str | None = None
) -> Start:
    """A starting configuration for the data in `path`: a table, a JSON file, files with pictures, or a folder of
    them. Names such as validation-00000-of-00001.parquet or test.csv say the split of a file.

    `images` is the folder that image paths start from; without it, the folder of `path` and the folders in it are
    tried. `name` is the name of the data set, and `encoding` that of text files which are not UTF-8. Raises
    ConfigurationError when the format of the data is not recognised, and DataError when the file is damaged.
    """
    path = expanded(path)
    if str(path).startswith("~"):
        path = path.absolute()  # a file with such a name; in a configuration, `~name` means a home folder
    if not path.exists():
        raise ConfigurationError(
            f"{path} does not exist; name a table, JSON, Parquet files or tars, or a folder with one of these."
        )
    if encoding is not None and not is_text_encoding(encoding):
        raise ConfigurationError(f"--encoding {encoding} is none that Python knows; write for instance cp1252.")
    if unstorable(f"{path} {images}"):
        raise ConfigurationError(
            f"{str(path)!a} or a folder above it has a name that is not UTF-8, which no configuration can hold; "
            "rename it."
        )
    given = Given(images, encoding)
    if (packed := packed_start(path)) is not None:
        start = packed
    else:
        start = _folder(path, given) if path.is_dir() else _one_file(path, given)
    start.reasons.insert(0, f"format is {start.section['format']}, by what is in {path}")
    start.section |= given.section
    if start.section["format"] in PAPERS and given.images is None:
        add_image_root(start.section, start.reasons, start.warnings)
    plain = re.sub(r"[^A-Za-z0-9_.\-]+", "-", path.name.removesuffix(".gz").partition(".")[0])
    dataset = {"name": name or plain.strip("-.")[:LONGEST_NAME] or "mine", **start.section}
    start.section = dataset
    overlay: dict[str, Any] = {"dataset": dataset}
    if (batch := _smaller_batch(load_dataset(dataset), start.reasons)) is not None:
        overlay["train"] = {"batch_size": batch}
    overlay["benchmarks"] = {"eccv_caption": None, "image_retrieval": None, "sts": None}
    command = shlex.join(["cusa", "init", str(path)])
    text = head_of_file(f"Written by `{command}`; every key is explained in {page_of_keys()}.")
    start.text = text + yaml_text(overlay) + CAPTIONS
    return start


def _smaller_batch(dataset: DatasetSection, reasons: list[str]) -> int | None:
    """The power of two of pairs that a training step can take if train has fewer pairs than a step takes; or None."""
    usual = read_files([]).get("train", {}).get("batch_size")
    if not isinstance(usual, int):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(dataset, Path(scratch) / "images")
        source.sample_images(0)
        pairs = 0
        for row in source.records():
            pairs += isinstance(row, Record) and row.split == "train"
            if pairs == usual:
                break
    if not 2 <= pairs < usual:
        return None
    batch = 1 << (pairs.bit_length() - 1)
    reasons.append(f"train.batch_size is {batch}: train has {pairs} pairs, and a step takes {usual} by default")
    return batch


def _one_file(path: Path, given: Given) -> Start:
    """The starting configuration of one file, by its kind."""
    if re.search(r"\.token(\.txt)?$", path.name, re.IGNORECASE):
        return _token(path)
    if table_kind(path, given.encoding) == "json" and (start := _json_object(path, given.encoding)) is not None:
        return start
    splits: FilesOfSplits = {}
    if split_in_name(path.name) is not None:
        ending = Path(path.name.lower().removesuffix(".gz")).suffix
        splits = splits_beside(path, files_in(path.parent, (ending,)), path.parent)
    if "train" in splits and len(splits) > 1 and not _says_splits(path, given.encoding):
        return _split_files(splits, given)
    start = table_start({None: [path]}, given)
    if splits and "train" not in splits and "held_out" in start.section:
        start.warnings.append(f"{path} is of {' and '.join(splits)} by its name, but no file of train is beside it")
    return start


def _says_splits(path: Path, encoding: str | None) -> bool:
    """Whether a column of a table names several splits, which then goes before the names of files."""
    rows = sampled_rows([path], Reading(encoding))
    column, _ = find_split(rows)
    return len({split_named(str(row.get(column))) for row in rows if column is not None} - {None}) > 1


def _token(path: Path) -> Start:
    """The captions of Flickr30K or Flickr8K, with the lists of images beside them, such as Flickr_8k.devImages.txt."""
    lists = {split: _matching_file(path.parent, LIST_OF_IMAGES.format(names)) for split, names in IN_LISTS.items()}
    if not all(lists.values()):
        raise ConfigurationError(
            f"{path} is a token file of Flickr30K or Flickr8K, which does not say the split of an image, and "
            f"{path.parent} has no list of images of {' and '.join(split for split in lists if not lists[split])}; put "
            "train.txt, val.txt and test.txt beside it, with the name of an image per line, or use format: flickr30k."
        )
    section: dict[str, Any] = {"format": "flickr30k", "file": str(path)}
    section["splits"] = {split: str(file) for split, file in lists.items()}
    first = re.split(r"#\d", next(text_lines(path), ""))[0]
    folder = next((folder for folder in image_folders([path]) if (folder / first).is_file()), path.parent)
    if folder != path.parent:
        section["image_root"] = str(folder)
    return Start(section)


def _json_object(path: Path, encoding: str | None) -> Start | None:
    """Karpathy's file, or None for rows. Raises ConfigurationError for one of COCO's files, which has one split."""
    with open_json(path, encoding) as stream:
        first = next(stream.entries(), None) if stream.kind == "object" else None
    if first not in ("images", "info", "licenses", "annotations", "dataset", "type"):
        return None
    if (image := _first_member(path, "images", encoding)) is None:
        return None
    if isinstance(image, Mapping) and "sentences" in image:
        return Start({"format": "karpathy", "file": str(path)})
    raise ConfigurationError(
        f"{path} looks like one of COCO's files, which have one split each; name their folder, with train, val and "
        "test in the names of the files."
    )


def _first_member(path: Path, name: str, encoding: str | None) -> Any:
    """The first member of a list with this name in a JSON object; None if there is no such list, or nothing in it."""
    with open_json(path, encoding) as stream:
        for key in stream.entries():
            if key == name and stream.kind == "list":
                return next(stream.members(), None)
            stream.skip()
    return None


def _folder(path: Path, given: Given) -> Start:
    """The files of a folder by the splits in their names, its only table, or tables that differ in numbers alone."""
    below = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    files = files_in(path, TABLE_ENDINGS)
    for folder in below:
        members = files_in(folder, TABLE_ENDINGS)
        # Where each picture has a file of its own, those are not tables.
        alone = len(members) == 1 and split_of_folder(folder.name) is not None
        files += [file for file in members if alone or split_in_name(file.name) is not None]
    splits = splits_beside(path, files, path)
    require_train(path, splits)
    if len(splits) > 1:
        return _split_files(splits, given)
    if len(files) == 1:
        return _one_file(files[0], given)
    if files and _are_parts(files, given.encoding):
        return table_start({None: files}, given)
    names = ", ".join(sorted(child.name for child in path.iterdir())[:8])
    raise ConfigurationError(
        f"{path} has neither one table nor tables with splits in their names (it holds {names or 'nothing'}); expected "
        f"for instance train.json, val.json and test.json, or train-*.parquet and validation-*.parquet.{_hint(path)}"
    )


def _are_parts(files: Sequence[Path], encoding: str | None) -> bool:
    """Whether files are the parts of one table, by their names. A JSON object, such as one of COCO's, is no part."""
    if not are_alike(files):
        return False
    if table_kind(files[0], encoding) != "json" or is_json_lines(files[0], encoding):
        return True
    with open_json(files[0], encoding) as stream:
        return stream.kind == "list"


def _hint(folder: Path) -> str:
    """A remark about a folder without readable files."""
    if is_too_large(folder):
        return (
            f" It holds more than {MOST_ENTRIES:,} files and folders, and was looked at no deeper than in its folders; "
            "name the folder that holds your data."
        )
    pictures = [child for child in folder.iterdir() if child.name.lower().endswith(IMAGE_ENDINGS)]
    if any(picture.with_suffix(".txt").is_file() for picture in pictures):
        return (
            " Pictures with their captions in text files of the same names are read from tars: "
            f"tar --sort=name -cf pairs.tar -C {shlex.quote(str(folder))} . makes one."
        )
    if pictures:
        return (
            " A training needs captions: name the table that has them. A search without captions takes a pre-trained "
            "model: `cusa import-model --help`."
        )
    return ""


def _split_files(splits: FilesOfSplits, given: Given) -> Start:
    """Tables, or one of the JSON files that papers have, for each split."""
    if any(len(members) > 1 and _are_parts(members, given.encoding) for members in splits.values()):
        return table_start(dict(splits.items()), given)
    files = {split: _only(split, members) for split, members in splits.items()}
    annotations = {split: str(file) for split, file in files.items()}
    first = files["train"]
    whole = len(files) == len(SPLITS)
    if table_kind(first, given.encoding) == "json":
        with open_json(first, given.encoding) as stream:
            key = next(stream.entries(), None) if stream.kind == "object" else None
        if key in COCO_KEYS and not whole:
            missing = ", ".join(split for split in SPLITS if split not in files)
            raise ConfigurationError(
                f"{first} is one of COCO's files, and there is no such file for {missing}; split one of them, or use "
                "Karpathy's dataset_coco.json, which has all three splits."
            )
        row: Any = None if key is not None else next((row for _, row in json_rows(first, given.encoding)), None)
        has = set(row) if isinstance(row, Mapping) else set()
        kinds = {
            "coco": key in COCO_KEYS,
            "albef": {"image", "caption"} <= has,
            "published": has >= PUBLISHED_KEYS and not _has_lists(files.values(), given.encoding),
        }
        if kinds["coco"]:
            for file in files.values():
                _require_captions(file, given.encoding)
        if whole and (kind := next((kind for kind, is_it in kinds.items() if is_it), None)) is not None:
            start = Start({"format": kind, "annotations": annotations})
            add_missing_splits(start.section, splits, start.reasons, start.warnings)
            return start
    return table_start({split: [file] for split, file in files.items()}, given)


def _has_lists(files: Iterable[Path], encoding: str | None) -> bool:
    """Whether the first row of a file has a list of captions, which the format `table` reads."""
    rows = (next((row for _, row in json_rows(file, encoding)), None) for file in files)
    return any(isinstance(row, Mapping) and isinstance(row.get("caption"), list) for row in rows)


def _require_captions(path: Path, encoding: str | None) -> None:
    """Raise ConfigurationError if the first annotation of one of COCO's files is no caption."""
    annotation = _first_member(path, "annotations", encoding)
    if isinstance(annotation, Mapping) and isinstance(annotation.get("caption"), str):
        return
    if not isinstance(annotation, Mapping):
        found = "no annotations"
    elif "caption" in annotation:
        found = f"a {type(annotation['caption']).__name__} as `caption` of its first annotation"
    elif BOXES.isdisjoint(annotation):
        found = f"no `caption` in its first annotation (its keys: {', '.join(annotation)})"
    else:
        found = f"annotations of boxes, without captions (their keys: {', '.join(annotation)})"
    raise ConfigurationError(
        f"{path} is like one of COCO's files, but has {found}; expected an annotation with one text as its `caption` "
        "for each caption, as COCO's captions_*.json have them."
    )


def _only(split: Split, files: Sequence[Path]) -> Path:
    """The only file of a split, or the only one of captions, as in COCO's folder of annotations."""
    captions = [file for file in files if "caption" in file.name.lower()]
    if len(files) > 1 and len(captions) != 1:
        raise ConfigurationError(
            f"{len(files):,} files are of {split} by their names: {', '.join(map(str, files[:4]))}. Name one of those "
            f"that belong together, or name the files of each split in dataset.annotations, see {page_of_keys()}."
        )
    return (captions if len(files) > 1 else files)[0]


def _matching_file(folder: Path, pattern: str) -> Path | None:
    return next((child for child in sorted(folder.iterdir()) if re.fullmatch(pattern, child.name)), None)
