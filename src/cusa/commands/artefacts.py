"""The findings of `cusa verify`: each artefact of a results folder, compared with the digests that its job recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from cusa.annotations.tables import CAPTIONS, IMAGES, PROBLEMS, read_table, skipped_rows
from cusa.benchmarks import outcomes_file
from cusa.commands.finding import Finding
from cusa.commands.recorded_files import check_export, check_gallery, check_index, check_stored, outdated
from cusa.common.files import made_again, read_array, read_json, read_mapping, read_parquet, sha256_of_file
from cusa.config.losses import HeadName
from cusa.errors import ConfigurationError, DataError
from cusa.layout import META, DatasetFolder
from cusa.runs.record import HISTORY, RUN, STATE_FILE, STATE_FOLDER, WEIGHTS, RunRecord, trained_again
from cusa.shards.reading import INDEX, STATISTICS, ShardReader
from cusa.shards.verifying import damaged_shards
from cusa.teachers.store import FeatureStore

ROWS = 4096  # of features that are hashed at a time
SUMMARY = "summary.parquet"
Check = Callable[[Path], str]  # raises DataError, or returns a sentence about what was compared
OF_RUNS: Mapping[str, Check] = {"exports/*": check_export, "gallery/*": check_gallery, "search/*": check_index}


def data_set_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of data sets in some folders: {folder}, or {folder}/{dataset}. Raises DataError if there are none."""
    found = []
    for folder in folders:
        places = [folder, *sorted(folder.glob("*")), *sorted(folder.glob("benchmark-data/*"))]
        mine = [place for place in places if (place / "annotations").is_dir() or (place / "runs").is_dir()]
        if not mine:
            raise DataError(
                f"{folder} has no results. Expected results, or results/{{dataset}}, with annotations/ or runs/."
            )
        found += mine
    return list(dict.fromkeys(found))


def verify(folder: str | Path) -> Iterator[Finding]:
    """One finding for each artefact of a data set's folder, in the order in which they are made."""
    root = Path(folder)
    tables = root / "annotations"
    if tables.is_dir():
        yield _finding(tables, _tables)
    for path in _folders(root, "shards/*"):
        yield from _shards(path)
    for path in _folders(root, "teachers/*/*/*"):
        yield _finding(path, _features)
    for path in [*_folders(root, "tokens/*/*"), *_folders(root, "pixels/*/*")]:
        yield _finding(path, check_stored)
        if (why := outdated(path, DatasetFolder(root))) is not None:
            yield Finding(str(path), why, doubtful=True)
    for run in _folders(root, "runs/*/seed*"):
        if (run / STATE_FOLDER / STATE_FILE).is_file() and not (run / RUN).is_file():
            continue  # it is not finished
        yield _finding(run, _run)
        yield from _inputs(run, DatasetFolder(root))
        for path in _folders(run, "embeddings/*"):
            yield _finding(path, _embeddings)
        for path in sorted((run / "benchmarks").glob("*.json")):
            yield _finding(path, _scores)
        for pattern, check in OF_RUNS.items():
            for path in _folders(run, pattern):
                if not path.name.endswith((".unfinished", ".shares")):
                    yield _finding(path, check)
    if (root / SUMMARY).exists():
        yield _finding(root / SUMMARY, _summary)


def _folders(root: Path, pattern: str) -> list[Path]:
    """The folders of a pattern, also those whose own description is gone, but none that is under way."""
    found = (path for path in sorted(root.glob(pattern)) if path.is_dir())
    return [path for path in found if not path.name.startswith(".") and path.suffix != ".parts"]


def _finding(path: Path, check: Check) -> Finding:
    try:
        return Finding(str(path), check(path))
    except DataError as error:
        return Finding(str(path), str(error), sound=False)
    except ConfigurationError as error:  # a package that reads it is not installed
        return Finding(str(path), str(error), sound=None)
    except OSError as error:
        return Finding(str(path), f"{path} cannot be read ({error.strerror}); {made_again(path)}", sound=False)


def _tables(folder: Path) -> str:
    rows = {path.name: len(read_table(folder, path.name)) for path in sorted(folder.glob("*.parquet"))}
    if (folder / PROBLEMS).is_file():
        skipped_rows(folder)
    if not rows:
        raise DataError(f"{folder} has no tables; {made_again(folder)}")
    if IMAGES in rows and CAPTIONS not in rows:
        raise DataError(f"{folder / CAPTIONS} is missing; the same command makes it again.")
    if {IMAGES, CAPTIONS} <= rows.keys():
        used = read_table(folder, CAPTIONS, ["image"])["image"].to_numpy()
        if len(used) and not 0 <= used.min() <= used.max() < rows[IMAGES]:
            raise DataError(
                f"{folder / CAPTIONS} names images that {folder / IMAGES} does not have; "
                f"{made_again(folder / CAPTIONS)}"
            )
    return ", ".join(f"{name} with {count:,} rows" for name, count in rows.items())


def _shards(folder: Path) -> Iterator[Finding]:
    """A finding for the shards of a split, or one for each tar file that is damaged."""
    try:
        images = len(ShardReader(folder))
        damaged = [Finding(str(folder), sentence, sound=False) for sentence in damaged_shards(folder)]
        written = read_mapping(folder / STATISTICS, made_again(folder)).get("samples")
        if written != images:
            text = f"{folder / INDEX} has {images:,} images, but {STATISTICS} says {written}; {made_again(folder)}"
            damaged.append(Finding(str(folder), text, sound=False))
    except DataError as error:
        damaged = [Finding(str(folder), str(error), sound=False)]
    yield from damaged or [Finding(str(folder), f"{images:,} images, the sha256 of each tar file is that written")]


def _features(folder: Path) -> str:
    meta = read_mapping(folder / META, made_again(folder))
    store = FeatureStore(folder, meta.get("rows", 0))
    expected = meta.get("features_sha256")
    if expected is None:
        return f"{len(store):,} rows; no sha256 is recorded, so only their form was looked at"
    digests = []
    for array in store.arrays:
        digest = hashlib.sha256()
        for start in range(0, len(array), ROWS):
            digest.update(np.ascontiguousarray(array[start : start + ROWS]).data)
        digests.append(digest.hexdigest())
    # The digest of features in several parts is that of the digests of the parts.
    found = digests[0] if "part_folders" not in meta else hashlib.sha256("".join(digests).encode()).hexdigest()
    if found != expected:
        raise DataError(
            f"{folder} has other values than were written: their sha256 is {found[:12]}..., and {META} says "
            f"{expected[:12]}...; {made_again(folder)}"
        )
    return f"{len(store):,} rows, the sha256 is that written"


def _run(run: Path) -> str:
    if not (run / RUN).is_file():
        raise DataError(f"{run / RUN} is missing; the same command trains the run again.")
    record = RunRecord.read(run)
    for name in (WEIGHTS, HISTORY):
        if not (run / name).is_file():
            raise DataError(f"{run / name} is missing; the same command trains the run again.")
    read_parquet(run / HISTORY, trained_again(run / HISTORY))
    if (found := sha256_of_file(run / WEIGHTS)) != record.weights_sha256:
        raise DataError(
            f"{run / WEIGHTS} has other bytes than were written: its sha256 is {found[:12]}..., and {RUN} says "
            f"{record.weights_sha256[:12]}...; {trained_again(run / WEIGHTS)}"
        )
    return "the sha256 of the weights is that written"


def _inputs(run: Path, folder: DatasetFolder) -> Iterator[Finding]:
    """A finding for each input of the training that has changed since."""
    try:
        data = RunRecord.read(run).data or {}
    except DataError:
        return  # `_run` has reported it
    changed = [name for name, expected in data.items() if _digest(folder.root, name) not in (None, expected)]
    if changed:
        text = f"it was trained on other data than are there now: {', '.join(changed)} changed since"
        yield Finding(str(run), text, doubtful=True)


def _digest(root: Path, name: str) -> str | None:
    """The digest that a run records of one of its inputs; None if it is not there, or is not a file."""
    kind = name.split("/")[0]
    path = {"annotations": root / name, "shards": root / name / STATISTICS, "teachers": root / name / META}.get(kind)
    if path is None or not path.is_file():
        return None
    if kind != "teachers":
        return sha256_of_file(path)
    try:
        digest: str | None = read_mapping(path).get("features_sha256")
    except DataError:
        return None  # `_features` has reported it
    return digest


def _embeddings(folder: Path) -> str:
    arrays = {path.stem: read_array(path, made_again(folder)) for path in sorted(folder.glob("*.npy"))}
    if not arrays:
        raise DataError(f"{folder} has no arrays; {made_again(folder)}")
    for name, array in arrays.items():
        if array.ndim != 2 or not np.isfinite(array).all():
            raise DataError(f"{folder / name}.npy is not a matrix of finite numbers; {made_again(folder)}")
    sides = dict.fromkeys(name.partition("_")[0] for name in arrays)
    if missing := [f"{side}_{head}" for side in sides for head in get_args(HeadName) if f"{side}_{head}" not in arrays]:
        raise DataError(f"{folder / missing[0]}.npy is missing; {made_again(folder)}")
    for side in sides:
        rows = {len(array) for name, array in arrays.items() if name.startswith(side)}
        if len(rows) > 1:
            raise DataError(f"{folder} has arrays of {side}s with different numbers of rows; {made_again(folder)}")
    return f"{', '.join(arrays)}: complete, and all values are finite"


def _scores(path: Path) -> str:
    content = read_json(path, made_again(path))
    if not isinstance(content, dict) or not {"benchmark", "metrics", "protocol"} <= content.keys():
        raise DataError(f"{path} is not the result of a benchmark; {made_again(path)}")
    outcomes = path.with_name(f"{path.stem}.queries.npz")
    outcomes_file.load(outcomes)
    return f"{len(content['metrics'])} metrics, and the outcomes of the queries"


def _summary(path: Path) -> str:
    return f"{len(read_parquet(path, made_again(path))):,} rows"
