"""Detects the columns of a table (images, captions, splits) by the values of some hundred rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cusa.annotations.delimited import IMAGE_NAME
from cusa.annotations.sources.image_paths import find_prefix, image_path, is_file
from cusa.annotations.sources.rows import captions_in, identity, is_empty, language_of, unpacked_cell
from cusa.common.image_files import TEXT, kind_of
from cusa.common.text import unstorable
from cusa.common.workflow_files import page_of_keys
from cusa.config.data_files import JSON_ENDINGS, PARQUET_ENDINGS, TAR_ENDINGS
from cusa.config.dataset_section import split_named
from cusa.config.dataset_tables import Column
from cusa.errors import ConfigurationError

URL = re.compile(r"^(https?|ftp|s3|gs)://|^data:", re.IGNORECASE)
# The first bytes of a JPEG, PNG, GIF or WebP in base64, alone or in an address.
BASE64 = re.compile(r"^(data:[^,]*base64,)?(/9j/|iVBORw0KGgo|R0lGOD|UklGR)")
DATA = re.compile(r"^data:", re.IGNORECASE)
ODD_IMAGES = {
    BASE64: "the text (base64) of pictures; write the pictures into files, or as bytes into a Parquet file",
    DATA: "pictures as text (data:); write the pictures into files, or as bytes into a Parquet file",
    URL: "addresses; download the images first, for instance with img2dataset",
}
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".PNG")
# How a cell becomes the name of a file: as it is, with an ending, or as COCO writes its ids.
PATTERNS = ("{}", *(f"{{}}{ending}" for ending in ENDINGS), "{:0>12}.jpg")
NO_SEPARATORS = (*JSON_ENDINGS, *PARQUET_ENDINGS, *TAR_ENDINGS)  # files whose columns no separator divides
IMAGE_COLUMNS = re.compile(r"image|img|photo|picture", re.IGNORECASE)
FILE_COLUMNS = re.compile(r"file|path", re.IGNORECASE)
SPLIT_COLUMNS = re.compile(r"split|set|subset|partition|fold|usage|phase", re.IGNORECASE)
LABEL_COLUMNS = re.compile(r"label|class|category|class_?name", re.IGNORECASE)
LANGUAGE_COLUMNS = re.compile(r"lang(uage)?([ _]?(code|id|tag))?|locale", re.IGNORECASE)
LOOKED_FOR = 20  # files
MOST = 0.8
SOME = 0.5
LONGEST_SHOWN = 60  # characters of a column's name, which may be a cell of a table without a heading


@dataclass
class FoundColumns:
    """The columns of a table, the folder of its images, and the reasons and warnings that users see."""

    image: Column
    captions: list[Column]
    split: Column | None = None
    label: Column | None = None
    language: Column | None = None
    image_root: Path | None = None
    image_prefix: str | None = None
    image_name: str | None = None
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_columns(
    path: Path,
    rows: Sequence[Mapping[Any, Any]],
    folders: Sequence[Path],
    image: Column | None = None,
    needs_captions: bool = True,
) -> FoundColumns:
    """Look at the values of each column. `folders` are where images may be; or `image` is the column of pictures.

    Raises ConfigurationError if no column holds images, and with `needs_captions` if none holds captions.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = {name: [text for row in rows for text in _texts(row.get(name))] for name in names}
    if image is None:
        found = _image(path, rows, texts, folders)
    else:
        found = FoundColumns(image, [], reasons=[f"columns.image is `{image}`: it holds the bytes of pictures"])
    found.warnings += [
        f"`{name}` is left out, because every value has {what}; remove it from the file"
        for name in names
        if not texts[name] and (what := _unstorable(row.get(name) for row in rows))
    ]
    others = {name: values for name, values in texts.items() if name != found.image and values}
    _split(found, others)
    _language(found, others)
    others = {name: values for name, values in others.items() if name not in (found.split, found.language)}
    label = next((name for name in others if LABEL_COLUMNS.fullmatch(str(name))), None)
    candidates = {name: values for name, values in others.items() if name != label}
    _captions(path, found, candidates or others, rows, texts, needs_captions)
    if label is not None and label not in found.captions:
        found.label = label
        found.reasons.append(f"columns.label is `{label}`: its name says so")
    return found


def _unstorable(values: Iterable[Any]) -> str | None:
    """The reason why one of the texts cannot be a caption, such as a NUL character; None if all can."""
    return next((what for value in values if isinstance(value, str) and (what := unstorable(value))), None)


def find_split(rows: Sequence[Mapping[Any, Any]]) -> tuple[Column | None, str]:
    """The column whose values name splits, and the reason for this choice."""
    found = FoundColumns("", [])
    names = dict.fromkeys(name for row in rows for name in row)
    texts = {name: [text for row in rows for text in _texts(row.get(name))] for name in names}
    _split(found, {name: values for name, values in texts.items() if values})
    return found.split, "".join(found.reasons).removeprefix("columns.split is ")


def _texts(value: Any) -> list[str]:
    """The texts of a cell: one, or those of a list; numbers are texts of ids, NaN is none."""
    if is_empty(value):
        return []
    if isinstance(value, str):
        value = unpacked_cell(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [identity(value)]
    captions, reason = captions_in({"": value}, "")
    return [] if reason else [caption for caption in captions if caption.strip()]


def _share(values: Sequence[str], holds: Iterable[object]) -> float:
    return sum(map(bool, holds)) / len(values) if values else 0.0


@dataclass(frozen=True)
class _Place:
    """A column, the folder and the pattern with which its values are files, and the share of those that are."""

    column: Column
    folder: Path
    pattern: str
    share: float

    @property
    def order(self) -> tuple[bool, int, float]:
        """The largest is the best: names of files go before numbers that become some, then the column's name counts.

        A number that only counts the rows may name another file by chance.
        """
        return self.pattern == "{}", says_image(self.column), self.share


def says_image(column: Column) -> int:
    """How clearly the name of a column says that it holds images, from 0 to 2."""
    return 2 if IMAGE_COLUMNS.search(str(column)) else int(FILE_COLUMNS.search(str(column)) is not None)


def _place(path: Path, column: Column, values: Sequence[str], folders: Sequence[Path]) -> _Place | None:
    """Where the first values of a column are files; None if most are none anywhere."""
    found = []
    for folder in folders:
        for pattern in PATTERNS:
            names = [image_path(str(folder), path, pattern.format(value)) for value in values[:LOOKED_FOR]]
            if (share := _share(names, map(is_file, names))) > SOME:
                found.append(_Place(column, folder, pattern, share))
                break
    return max(found, key=lambda place: (place.share, place.pattern == "{}"), default=None)


def _image(
    path: Path, rows: Sequence[Mapping[Any, Any]], texts: Mapping[Column, list[str]], folders: Sequence[Path]
) -> FoundColumns:
    no_addresses = {name: values for name, values in texts.items() if _share(values, map(URL.search, values)) <= SOME}
    places = [
        place for name, values in no_addresses.items() if (place := _place(path, name, values, folders)) is not None
    ]
    if places:
        best = max(places, key=lambda place: place.order)
        elsewhere = [] if best.pattern == "{}" else _unfound(texts, best.column)
        if elsewhere and find_prefix(texts[elsewhere[0]][:LOOKED_FOR], folders, path) is not None:
            return _image_by_name(path, rows, texts, folders)
        name, pattern = best.column, None if best.pattern == "{}" else best.pattern
        completed = (
            "" if pattern is None else f" {'with' if pattern.startswith('{}') else 'as'} {pattern.removeprefix('{}')}"
        )
        found = FoundColumns(name, [], image_root=best.folder, image_name=pattern)
        found.reasons.append(
            f"columns.image is `{name}`: {best.share:.0%} of the values{completed} are files in {best.folder}"
        )
        # Others that name the same files are no other choice.
        also = [each for each in places if each.pattern == "{}" and texts[each.column] != texts[name]]
        if rest := ", ".join(f"`{each.column}`" for each in also if each is not best):
            found.warnings.append(f"{rest} also holds names of images and is left out; see columns.image")
        if elsewhere:
            found.warnings.append(
                f"`{elsewhere[0]}` holds names of images, but none of the first ones was found, so the numbers in "
                f"`{name}` are taken; see columns.image"
            )
        return found
    return _image_by_name(path, rows, texts, folders)


def _unfound(texts: Mapping[Column, list[str]], numbers: Column) -> list[Column]:
    """The columns other than `numbers` whose values end like image files; the one that is called so first."""
    names = [name for name, values in texts.items() if _share(values, map(_names_image, values)) >= MOST]
    return sorted((name for name in names if name != numbers), key=says_image, reverse=True)


def _image_by_name(
    path: Path, rows: Sequence[Mapping[Any, Any]], texts: Mapping[Column, list[str]], folders: Sequence[Path]
) -> FoundColumns:
    """The column whose values end like image files, which are there without the start of their paths, or not at all."""
    named = {name: _share(values, map(_names_image, values)) for name, values in texts.items()}
    best = max(named, key=lambda name: (named[name] >= MOST, says_image(name), named[name]), default=None)
    if best is None or named[best] < MOST:
        raise ConfigurationError(_lacking(path, rows, texts, f"names of images{_odd_images(texts)}"))
    found = FoundColumns(best, [])
    found.reasons.append(f"columns.image is `{best}`: {named[best]:.0%} of the values end like image files")
    if (elsewhere := find_prefix(texts[best][:LOOKED_FOR], folders, path)) is not None:
        found.image_prefix, found.image_root = elsewhere
        found.reasons.append(f"image_prefix is {found.image_prefix}: without it, the images are in {found.image_root}")
        return found
    found.warnings.append("none of the first images was found beside the table; give their folder with --images")
    return found


def _odd_images(texts: Mapping[Column, list[str]], signs: Sequence[re.Pattern[str]] = (BASE64, DATA, URL)) -> str:
    """A remark about a column that holds images in a way that cannot be read, which one of `signs` shows."""
    for sign in signs:
        if found := [name for name, values in texts.items() if _share(values, map(sign.search, values)) > SOME]:
            return f" (`{str(found[0])[:LONGEST_SHOWN]}` holds {ODD_IMAGES[sign]})"
    return ""


def odd_images_in(rows: Sequence[Mapping[Any, Any]]) -> str:
    """A remark about a column of rows that holds images in a way that cannot be read; empty if none does."""
    names = dict.fromkeys(name for row in rows for name in row)
    return _odd_images({name: [text for row in rows for text in _texts(row.get(name))] for name in names})


def _lacking(path: Path, rows: Sequence[Mapping[Any, Any]], texts: Mapping[Column, list[str]], what: str) -> str:
    """The sentence about a table without `what`: its columns, those that hold no texts, and what to do."""
    names = [str(name) if len(str(name)) <= LONGEST_SHOWN else f"{str(name)[:LONGEST_SHOWN]}..." for name in texts]
    shown = f"the columns {', '.join(names)}" if texts else "no columns"
    others = [f"`{name}` holds {kind}" for name, values in texts.items() if not values and (kind := _kind(rows, name))]
    advice = f"name the columns yourself in dataset.columns, see {page_of_keys()}"
    if others:
        advice = f"{', '.join(others)}, but captions and names of images have to be texts; write columns of texts"
    if len(texts) == 1 and not path.name.lower().endswith(NO_SEPARATORS):
        advice += (
            "; if a CSV has a rare separator, name it in dataset.separator, and if lines stand above its heading, "
            "remove them"
        )
    return f"{path} has {shown}, none of which holds {what}; {advice}."


def _kind(rows: Iterable[Mapping[Any, Any]], column: Column) -> str | None:
    """What a column without texts holds, by its first value: objects, lists or bytes; None for anything else."""
    value = next((row[column] for row in rows if row.get(column) is not None), None)
    if isinstance(value, Mapping):
        if isinstance(address := value.get("src"), str) and URL.search(address):
            return "addresses of pictures (`src`), which are not downloaded"
        return f"objects with the keys {', '.join(map(str, list(value)[:4]))}" if value else "objects"
    if isinstance(value, bytes):
        return f"bytes that are no picture{' but text' if kind_of(value) == TEXT else ''}"
    return "lists" if isinstance(value, list) else None


def _names_image(value: str) -> bool:
    return IMAGE_NAME.search(value.strip()) is not None and URL.search(value) is None


def _split(found: FoundColumns, texts: Mapping[Column, list[str]]) -> None:
    known = {name: _share(values, map(split_named, values)) for name, values in texts.items()}
    best = max(known, key=lambda name: (known[name], bool(SPLIT_COLUMNS.fullmatch(str(name)))), default=None)
    if best is not None and (known[best] == 1 or (known[best] > 0 and SPLIT_COLUMNS.fullmatch(str(best)))):
        found.split = best
        found.reasons.append(f"columns.split is `{best}`: {known[best]:.0%} of the values name splits")
    elif other := next((name for name in texts if str(name).lower() == "split"), None):
        found.split = other
        found.reasons.append(f"columns.split is `{other}`: its name says so")


def _language(found: FoundColumns, texts: Mapping[Column, list[str]]) -> None:
    """The column of languages: it is called so, and has several names of languages; each gets scores of its own."""
    for name in (name for name in texts if LANGUAGE_COLUMNS.fullmatch(str(name))):
        named = [language_of(value) for value in texts[name]]
        languages = list(dict.fromkeys(language for language, _ in named if language is not None))
        if len(languages) > 1 and not any(reason for _, reason in named):
            found.language = name
            found.reasons.append(
                f"columns.language is `{name}`: its name says so, and it has {', '.join(languages[:8])}"
            )
            return


def _captions(
    path: Path,
    found: FoundColumns,
    candidates: Mapping[Column, list[str]],
    rows: Sequence[Mapping[Any, Any]],
    texts: Mapping[Column, list[str]],
    needed: bool,
) -> None:
    scores = {name: _share(values, map(_is_sentence, values)) for name, values in candidates.items()}
    words = {name: sum(len(value.split()) for value in values) / len(values) for name, values in candidates.items()}
    likely = [name for name in candidates if scores[name] >= SOME]
    unsure = [name for name, values in candidates.items() if _share(values, map(_is_word, values)) >= SOME]
    if not (likely or (unsure and needed)):
        if not needed:
            return
        left_out = "; ".join(warning for warning in found.warnings if "is left out" in warning)
        left_out = f" ({left_out})" if left_out else _odd_images(candidates, (BASE64,))
        raise ConfigurationError(_lacking(path, rows, texts, f"captions{left_out}"))
    best = max(likely or unsure, key=lambda name: words[name])
    # A column that is empty in the first rows may have captions later.
    empty = [name for name in texts if name not in candidates and all(is_empty(row.get(name)) for row in rows)]
    alike = [name for name in texts if name in (*(likely or unsure), *empty) and _stem(name) == _stem(best)]
    found.captions = alike if isinstance(best, str) else [best]
    shown = ", ".join(f"`{name}`" for name in found.captions)
    found.reasons.append(f"columns.caption is {shown}: {words[best]:.1f} words a value, no addresses or paths")
    if not likely:
        found.warnings.append(f"the captions in {shown} are single words; correct columns.caption if they are none")
    if rest := [f"`{name}`" for name in likely if name not in found.captions]:
        found.warnings.append(f"{', '.join(rest)} also holds sentences and is left out; see columns.caption")


def _stem(name: Column) -> str:
    return re.sub(r"[_ .-]?\d+$", "", str(name)) if isinstance(name, str) else str(name)


def _is_sentence(value: str) -> bool:
    return (" " in value.strip() or not value.isascii()) and _is_word(value)


def _is_word(value: str) -> bool:
    return not (
        URL.search(value) or BASE64.search(value) or _names_image(value) or re.fullmatch(r"[\d\s.,:\-]+", value)
    )
