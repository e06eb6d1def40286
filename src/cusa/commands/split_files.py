"""The splits that files have by their names, as on a hub: train-00000-of-00004.parquet, data/validation.csv, test/."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from cusa.annotations.sources.splits import drawn_split
from cusa.common.workflow_files import page_of_keys
from cusa.config.data_files import PATTERN_SIGNS, matching_files
from cusa.config.dataset import SPLITS, Split, split_named
from cusa.config.dataset_section import AMBIGUOUS_SPLIT_NAMES
from cusa.errors import ConfigurationError

_WORD = re.compile(r"[^\W\d_]+")
SHORTEST_WORD = 3  # letters; `tr` and `te` in the name of a file are languages
LISTED_FILES = 8
SHARES = (0.1, 0.2, 0.3)  # of few images, drawn for val and for test; the first one that gives each split enough
SEEDS = 10
FIRST_DRAW = (SHARES[0], 0)  # the default of the configuration
HELD_OUT: Mapping[Literal["val", "test"], float] = {"val": 0.1, "test": 0.1}
FEWEST = 2  # images of a split: a search among fewer measures nothing

FilesOfSplits = dict[Split, list[Path]]


def split_in_name(name: str) -> Split | None:
    """The split that one of the words in the name of a file or folder means; None for no word, and for two splits."""
    found = {split for word in _words(name) if (split := split_named(word)) is not None}
    return found.pop() if len(found) == 1 else None


def split_of_folder(name: str) -> Split | None:
    """The split that a folder's complete name means; numbers, and `partial-` of Hugging Face's copies, are ignored."""
    plain = re.sub(r"[\d_\- .]+$", "", name).removeprefix("partial-")
    return split_named(plain) if len(plain) >= SHORTEST_WORD else None


def _words(name: str) -> list[str]:
    return [word for word in _WORD.findall(name) if len(word) >= SHORTEST_WORD]


def splits_beside(path: Path, files: Sequence[Path], root: Path) -> FilesOfSplits:
    """The `files` below `root` of each split, by their own names or else their folders'. Other files are left out.

    If `path` is one of the files, those whose names differ from its name in split and numbers alone go before others.
    Raises ConfigurationError if names such as `eval` beside `val` may mean test.
    """
    splits = {file: _split_of(file, root) for file in files}
    if path in splits:
        alike = {file: split for file, split in splits.items() if _template(file) == _template(path)}
        splits = alike if len({*alike.values()} - {None}) > 1 else splits
    found: FilesOfSplits = {split: [file for file in splits if splits[file] == split] for split in SPLITS}
    found = {split: members for split, members in found.items() if members}
    ambiguous = [file for file in found.get("val", []) if _is_ambiguous(file, root)]
    if ambiguous and len(ambiguous) < len(found["val"]):
        other = next(file for file in found["val"] if file not in ambiguous)
        raise ConfigurationError(
            f"{ambiguous[0]} stands beside {other}, so it may be of val or of test; name the files of each split "
            f"yourself in dataset.annotations, see {page_of_keys()}."
        )
    return found


def _split_of(file: Path, root: Path) -> Split | None:
    *folders, name = file.relative_to(root).parts
    of_folders = [split for part in folders if (split := split_of_folder(part)) is not None]
    return split_in_name(name) or (of_folders[-1] if of_folders else None)


def _is_ambiguous(file: Path, root: Path) -> bool:
    *folders, name = file.relative_to(root).parts
    part = name if split_in_name(name) else [part for part in folders if split_of_folder(part)][-1]
    return any(word.casefold() in AMBIGUOUS_SPLIT_NAMES for word in _words(part))


def _template(file: Path) -> str:
    words = _WORD.sub(lambda match: "" if split_named(match[0]) else match[0], file.name)
    return re.sub(r"\d+", "", words)


def are_alike(files: Sequence[Path]) -> bool:
    """Whether the names of files differ in numbers and splits alone, as those of the parts of one table do."""
    return len({_template(file) for file in files}) == 1


def require_train(path: Path, found: Mapping[Split, object]) -> None:
    """Raise ConfigurationError for a folder that has files of splits, but none of train."""
    if found and "train" not in found:
        raise ConfigurationError(
            f"the files in {path} are of {' and '.join(found)} by their names, and none is of train. Name the folder "
            "with all splits; or, to draw new splits from these files, give them as dataset.file with "
            "dataset.held_out: {val: 0.1, test: 0.1}."
        )


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files with these endings, perhaps followed by .gz, that lie in a folder itself; no hidden ones.

    A folder that may not be read has none.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        return []
    found = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in found if path.name.lower().removesuffix(".gz").endswith(endings) and path.is_file()]


def add_missing_splits(
    section: dict[str, Any],
    splits: FilesOfSplits,
    reasons: list[str],
    warnings: list[str],
    ids: Collection[str] = (),
) -> None:
    """Add why there are `annotations`, and `held_out` with a warning if val or test has no file.

    `ids` are all images of train, if they are few: shares and a seed are chosen that give each split enough.
    """
    counts = ", ".join(f"{split} ({len(members):,})" for split, members in splits.items())
    reasons.append(f"annotations: the names of the files say their split: {counts}")
    if missing := [split for split in HELD_OUT if split not in splits]:
        section["held_out"] = {split: HELD_OUT[split] for split in missing}
        warnings.append(
            f"no file is of {' or '.join(missing)} by its name; held_out draws about a tenth of the images of train "
            "for it, by a hash of their names, and leaves the other splits as they are. If there is such a file, name "
            "it in dataset.annotations instead"
        )
        if (draw := _enough(ids, missing)) not in (None, FIRST_DRAW):
            share, seed = draw
            section |= {"held_out": dict.fromkeys(missing, share), "split_seed": seed}
            reasons.append(_drawn(f"about {share:.0%} of the images of train are drawn", seed, len(ids)))


def add_splits_of_column(
    section: dict[str, Any],
    names: Mapping[str, int],
    reasons: list[str],
    warnings: list[str],
    ids: Collection[str] = (),
) -> None:
    """Warn of names in a split column that mean no split, and add `held_out` if no row is of val or test.

    `names` has the rows of each name, and `ids` all images of train, if they are few. Nothing is drawn while it is open
    what a name means.
    """
    if nothing := names.get("", 0):
        advice = "add one, or say in dataset.split_names what they mean, for instance {'': train} or {'': skip}"
        warnings.append(f"{nothing:,} rows of the split column are empty; {advice}")
        names = {name: count for name, count in names.items() if name}
    if unknown := [f"`{name}` ({count:,} rows)" for name, count in names.items() if split_named(name) is None]:
        warnings.append(
            f"the split column has {', '.join(unknown[:8])}, which name no split; say in dataset.split_names what they "
            "mean, for instance {NAME: test} or {NAME: skip}"
        )
    vals = [name for name in names if split_named(name) == "val"]
    unclear = [name for name in vals if name.casefold() in AMBIGUOUS_SPLIT_NAMES and len(vals) > 1]
    warnings += [
        f"`{name}` ({names[name]:,} rows) stands beside `{next(other for other in vals if other != name)}` in the "
        f"split column, so it may mean test; say in dataset.split_names what it means, for instance {{{name}: test}}"
        for name in unclear
    ]
    found = {*map(split_named, names), "test" if unclear else None}
    missing = [split for split in HELD_OUT if split not in found]
    if "train" not in found:
        warnings.append(f"no row of the split column is of {' or '.join(['train', *missing])}")
    elif missing and unknown:
        shares = ", ".join(f"{split}: {HELD_OUT[split]}" for split in missing)
        what = f"dataset.held_out: {{{shares}}} draws it from the images of train"
        warnings.append(f"no row of the split column is of {' or '.join(missing)}; {what}")
    elif missing:
        section["held_out"] = {split: HELD_OUT[split] for split in missing}
        what = "held_out draws about a tenth of the images of train for it, by a hash of their names"
        warnings.append(f"no row of the split column is of {' or '.join(missing)}; {what}")
        if ids:
            draw_more(section, ids, reasons, warnings)


def draw_splits(section: dict[str, Any], nothing: str, reasons: list[str]) -> None:
    """Add shares of all images for val and test, because `nothing` says the split."""
    section["held_out"] = dict(HELD_OUT)
    reasons.append(
        f"held_out: {nothing} says the split, so about a tenth of the images is drawn for val and about a tenth for "
        "test, by a hash of their names; `cusa check` counts them"
    )


def draw_few(section: dict[str, Any], ids: Collection[str], reasons: list[str], warnings: list[str]) -> None:
    """As `draw_splits` for a table with these images, which are few: shares and a seed that give each split enough."""
    draw_splits(section, "no column", reasons)
    draw_more(section, ids, reasons, warnings, "no column says the split, so ")


def draw_more(
    section: dict[str, Any], ids: Collection[str], reasons: list[str], warnings: list[str], because: str = ""
) -> None:
    """Change the shares of `held_out` and the seed if they give one of its splits too few of these images.

    The new reason starts with `because`.
    """
    splits: list[Literal["val", "test"]] = list(section["held_out"])
    draw = _enough(ids, splits)
    if draw is None:
        warnings.append(f"{len(ids)} images are too few to draw {FEWEST} for each of train, {' and '.join(splits)}")
    elif draw != FIRST_DRAW:
        share, seed = draw
        section |= {"held_out": dict.fromkeys(splits, share), "split_seed": seed}
        reasons[:] = [reason for reason in reasons if not reason.startswith("held_out")]
        how = f"{because}about {share:.0%} of the images are drawn for {' and as many for '.join(splits)}"
        reasons.append(_drawn(how, seed, len(ids)))


def _enough(ids: Collection[str], splits: Sequence[Literal["val", "test"]]) -> tuple[float, int] | None:
    """The first share and seed that draw enough of the images for each of `splits`, and leave enough in train.

    None if there are none.
    """
    for share, seed in product(SHARES, range(SEEDS)):
        drawn = Counter(drawn_split(each, dict.fromkeys(splits, share), seed) for each in ids)
        most = FEWEST + 2 * share * len(ids)
        if drawn["train"] >= FEWEST and all(FEWEST <= drawn[split] <= most for split in splits):
            return share, seed
    return None


def _drawn(how: str, seed: int, count: int) -> str:
    return f"held_out: {how}; with split_seed {seed} each has at least {FEWEST} of these {count} images"


def place_of(files: Sequence[Path], endings: tuple[str, ...]) -> str:
    """The shortest value that names exactly these files: the file, their folder, or a pattern such as train-*.parquet.

    Raises ConfigurationError if nothing short does.
    """
    if len(files) == 1 and split_in_name(files[0].name) is not None:
        return str(files[0])
    wanted = sorted(map(str, files))
    folder = Path(os.path.commonpath([file.parent for file in files]))
    for place in (str(folder), *_patterns(folder, wanted)):
        if sorted(matching_files(place, endings)) == wanted:
            return place
    if len(files) == 1:
        return str(files[0])
    raise ConfigurationError(
        f"no pattern names exactly the {len(files):,} files {', '.join(wanted[:3])}, ...; put the files of each split "
        "into a folder of its own, or name one of the folders."
    )


def _patterns(folder: Path, wanted: Sequence[str]) -> list[str]:
    names = [os.path.relpath(path, folder) for path in wanted]
    start, end = _common_start(names), _common_start([name[::-1] for name in names])[::-1]
    start, ending = start.rstrip("0123456789"), re.search(r"(\.[A-Za-z]+)+$", end)
    ends = [ending[0] if ending else end, end[-max(1, min(map(len, names)) - len(start)) :]]
    if any(sign in str(folder) for sign in PATTERN_SIGNS + "{}"):
        return []
    patterns = [str(folder / f"{start}*{each}") for each in ends]
    if len(names) <= LISTED_FILES and not any(sign in name for name in names for sign in "{},"):
        patterns.append(str(folder / f"{{{','.join(names)}}}"))
    return patterns


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    pairs = zip(first, last, strict=False)
    return first[: next((place for place, (one, other) in enumerate(pairs) if one != other), len(first))]
