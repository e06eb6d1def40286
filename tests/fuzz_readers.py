"""What `make fuzz` reads: for each reader small valid files, and a function that reads them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import archives
import numpy as np
import published_files
from conftest import draw_shape, write_shapes
from format_files import WRITERS

ROOT = Path(__file__).parents[1]
RUN = ROOT / "tests/data/run_b749c88"
# lines: a record per line below `headings` lines. whole: cut off, it must not be read. other: nothing is known.
Kind = Literal["lines", "whole", "other"]


class WrongResultError(Exception):
    """A reader gave a result that is known to be wrong."""


@dataclass(frozen=True)
class Case:
    """One reader: the files that are changed, one at a time, and `read`, which returns the number of records.

    `read` returns None where there is nothing to count. A file that is not in `kinds` is of the kind `other`.
    """

    files: list[Path]
    read: Callable[[], int | None]
    kinds: dict[Path, Kind]
    headings: int = 0


def cases(folder: Path) -> Iterator[tuple[str, Case]]:
    """Every reader by its name, with its files in `folder`."""
    shapes = write_shapes(folder / "shapes")
    rows = {split: json.loads((shapes / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    for row in (row for members in rows.values() for row in members):
        row["image_path"] = str(shapes / row["image_path"])
    for name in WRITERS:
        yield f"format {name}", _format(folder / f"format-{name}", name, rows)
    for name in WRITERS:
        yield f"cusa init of {name}", _start(folder / f"init-{name}", name, rows)
    for kind in ("png", "jpg", "webp", "gif", "tiff", "bmp", "ppm"):
        yield f"image {kind}", _image(folder / f"image.{kind}")
    for archive in ("cub", "cars", "sop", "inshop", "inaturalist"):
        yield f"labelled images {archive}", _archive(folder / archive, archive)
    yield "labelled images csv", _labelled_csv(folder / "labelled")
    yield "sentence pairs tsv", _pairs(folder / "pairs")
    yield "sentence pairs senteval", _senteval(folder / "senteval")
    yield "configuration", _configuration(folder / "configuration")
    yield "published configuration", _published_configuration(folder / "published")
    yield "published features", _published_features(folder / "features")
    yield "published checkpoint", _published_checkpoint(folder / "checkpoint")
    yield from _results(folder / "results")


def _format(folder: Path, name: str, rows: dict) -> Case:
    from cusa.annotations.convert import convert
    from cusa.annotations.sources.registry import open_source
    from cusa.config.dataset import load_dataset
    from cusa.errors import CusaError

    folder.mkdir()
    section = {"name": "d", **WRITERS[name](folder, rows)}

    def read() -> int:
        dataset = load_dataset(section)
        try:
            convert(dataset, folder / "out", folder / "images")
        except CusaError:
            pass  # its problems are sentences; the records are counted below, all of them
        finally:
            if left := list(folder.glob(".*partial")):
                raise WrongResultError(f"{left} was left behind")
        return sum(1 for _ in open_source(dataset, folder / "again").records())

    files = [Path(path) for path in load_dataset(section).files.values()]
    lines = {"flickr30k_token", "flickr30k_csv", "table_tsv"}
    kinds: dict[Path, Kind] = {}
    for path in files:
        if path.suffix in (".parquet", ".tar", ".gz", ".json"):
            kinds[path] = "whole"
        elif name in lines and path.suffix in (".token", ".csv", ".tsv"):
            kinds[path] = "lines"
    return Case(files, read, kinds, headings=int(name in ("table_tsv", "flickr30k_csv")))


def _start(folder: Path, name: str, rows: dict) -> Case:
    """`cusa init` of a folder with nothing else in it, or of the file with all splits."""
    from cusa.commands.starting_configuration import look_at
    from cusa.config.dataset import load_dataset

    folder.mkdir()
    files = [Path(path) for path in load_dataset({"name": "d", **WRITERS[name](folder, rows)}).files.values()]

    def read() -> None:
        for line in look_at(files[0] if len(files) == 1 or name.startswith("flickr30k") else folder).lines():
            if not line.strip():
                raise WrongResultError("a line without a word")

    return Case(files, read, {})


def _image(path: Path) -> Case:
    """What the check passes, every later stage reads."""
    from cusa.common.images import check_image, open_rgb
    from cusa.config.shards import Shards
    from cusa.errors import DataError
    from cusa.shards.writing import bytes_per_image

    draw_shape("red", "cross", "large").save(path)

    def read() -> None:
        check = check_image(path, "decode", 10_000_000)
        check_image(path, "header", 10_000_000)
        if check.problem is not None:
            raise DataError(check.problem)
        if open_rgb(path).mode != "RGB" or not bytes_per_image([str(path)], Shards(), 10_000_000):
            raise WrongResultError("the check passes an image that is not stored")

    return Case([path], read, {})


def _archive(folder: Path, name: str) -> Case:
    from cusa.annotations.labelled_images import labelled_images

    root = getattr(archives, name)(folder)
    files = [path for path in sorted(root.rglob("*")) if path.suffix in (".txt", ".mat")]
    return Case(files, lambda: len(labelled_images(name, root)), {})


def _labelled_csv(folder: Path) -> Case:
    from cusa.annotations.labelled_images import labelled_images

    folder.mkdir()
    for number in range(4):
        archives.picture(folder / f"{number}.png", number)
    path = folder / "mine.csv"
    path.write_text("image,label\n" + "".join(f"{number}.png,{number % 2}\n" for number in range(4)))
    return Case([path], lambda: len(labelled_images("mine", path)), {path: "lines"}, headings=1)


def _pairs(folder: Path) -> Case:
    from cusa.annotations.sentence_pairs import own_pairs

    folder.mkdir()
    path = folder / "pairs.tsv"
    rows = "".join(f"A dog runs {n}.\tA cat, {n} years old, sits.\t{n / 2}\n" for n in range(9))
    path.write_text("first\tsecond\tscore\n" + rows)
    return Case([path], lambda: len(own_pairs(path, "mine")), {path: "lines"}, headings=1)


def _senteval(folder: Path) -> Case:
    from cusa.annotations.sentence_pairs import senteval_pairs

    root = archives.senteval(folder)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return Case(files, lambda: len(senteval_pairs(root)), {})


def _configuration(folder: Path) -> Case:
    from cusa.config import load
    from cusa.config.files import read_file

    folder.mkdir()
    path = Path(shutil.copy(ROOT / "config/config.yaml", folder))
    return Case([path], lambda: bool(load(read_file(path))), {})


def _published_configuration(folder: Path) -> Case:
    from cusa.upstream.configurations import read_config

    folder.mkdir()
    path = published_files.published_yaml(folder)
    return Case([path], lambda: bool(read_config(path)), {})


def _published_features(folder: Path) -> Case:
    from cusa.upstream.features import load_features

    folder.mkdir()
    features = {f"{number}.jpg": np.full((1, 8), number, "f4") for number in range(5)}
    np.save(folder / "header.npy", np.array(features), allow_pickle=True)
    whole = (folder / "header.npy").read_bytes()
    header, paths = whole[: whole.index(b"\n") + 1], []
    for protocol in (2, 4):
        paths.append(folder / f"protocol{protocol}.npy")
        paths[-1].write_bytes(header + pickle.dumps(np.array(features), protocol))

    def read() -> None:
        for path in paths:
            _, rows = load_features(path)
            if rows.ndim != 2:
                raise WrongResultError(f"features of the shape {rows.shape}")

    return Case(paths, read, {})


def _published_checkpoint(folder: Path) -> Case:
    from cusa.upstream.checkpoints import load_checkpoint

    folder.mkdir()
    clip = published_files.clip_with_heads_of_64(RUN / "models/clip", folder / "clip")
    path = published_files.checkpoint_of(clip, folder / "checkpoint_best.pth")
    return Case([path], lambda: bool(load_checkpoint(path)), {path: "whole"})


def _results(folder: Path) -> Iterator[tuple[str, Case]]:
    """What the workflow wrote, and a disk or a copy has damaged."""
    from cusa.runs.record import RunRecord
    from cusa.runs.weights import load_student
    from cusa.shards.reading import ShardReader
    from cusa.teachers.store import FeatureStore

    shutil.copytree(RUN, folder)
    data = folder / "results/shapes"
    run = data / "runs/cusa/seed23"

    def read_student() -> None:
        load_student(folder / "run")

    def read_shards() -> int:
        reader = ShardReader(data / "shards/test")
        for position in range(len(reader)):
            reader.encoded(position)
        return len(reader)

    def read_features() -> None:
        store = FeatureStore(data / "teachers/image/models--vit/test", 8)
        store[np.arange(8)]
        for _ in store.blocks(4):
            pass

    yield "run.json", Case([run / "run.json"], lambda: bool(RunRecord.read(run)), {run / "run.json": "whole"})
    # The student's folder is named relative to the folder of the user.
    (folder / "run").mkdir()
    record = json.loads((run / "run.json").read_text().replace("./models/clip", str(folder / "models/clip")))
    (folder / "run/run.json").write_text(json.dumps(record))
    weights = Path(shutil.copy(run / "best.safetensors", folder / "run"))
    yield "weights", Case([weights], read_student, {weights: "whole"})
    clip = folder / "models/clip"
    yield "student's folder", Case(sorted(clip.glob("*.json")), read_student, {})
    index, tar = data / "shards/test/index.parquet", data / "shards/test/shard-000000.tar"
    yield "shards", Case([index, tar], read_shards, {index: "whole"})
    features = data / "teachers/image/models--vit/test"
    paths = [features / "features.npy", features / "meta.json"]
    yield "features", Case(paths, read_features, {paths[0]: "whole"})
