"""The texts that stand for classes in zero-shot classification: names of classes, put into templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from cusa.annotations.captions import clean_caption
from cusa.annotations.sources.rows import identity, malformed
from cusa.annotations.sources.source import MalformedRow
from cusa.annotations.table_rows import table_rows
from cusa.annotations.tables import CLASS_PROMPTS, cleaning_of, write_table
from cusa.common.files import expanded
from cusa.config.classification import CLASS_NAME, Names, ZeroShotClassification
from cusa.errors import DataError
from cusa.layout import DatasetFolder

NUMBER_BEFORE_NAME = re.compile(r"^\d+[._\- ]+(?=\D)")
COLUMNS: Mapping[str, tuple[type, ...]] = {"label": (str, int, float), "name": (str,)}


def write_class_prompts(
    folder: DatasetFolder, labels: Mapping[str, Sequence[str]], settings: ZeroShotClassification
) -> None:
    """Write class_prompts.parquet (data, label, prompt, cleaned) into a data set's annotations.

    `labels` has the distinct labels of the images, by the data that they are of. Prompts are cleaned as the captions of
    the data set are. Raises DataError if a class has no prompt, or two classes have the same ones.
    """
    cleaning = cleaning_of(folder.annotations)
    columns: dict[str, list[str]] = {name: [] for name in ("data", "label", "prompt", "cleaned")}
    for data, members in labels.items():
        names = class_names(data, members, settings)
        prompts_of: dict[tuple[str, ...], str] = {}
        for label in members:
            prompts = [template.replace(CLASS_NAME, name) for name in names[label] for template in settings.templates]
            cleaned = [clean_caption(prompt, cleaning) for prompt in prompts]
            if "" in cleaned:
                raise DataError(
                    f"benchmarks.zero_shot_classification: the prompt {prompts[cleaned.index('')]!r} of the class "
                    f"{label} of {data} has no word; give the class another name in class_names.{data}."
                )
            if (other := prompts_of.setdefault(tuple(sorted(set(cleaned))), label)) != label:
                raise DataError(
                    f"benchmarks.zero_shot_classification: the classes {other} and {label} of {data} have the same "
                    f"prompt, {cleaned[0]!r}, so that no image can be told to be of one of them; give one of them "
                    f"another name in class_names.{data}."
                )
            rows = ([data] * len(prompts), [label] * len(prompts), prompts, cleaned)
            for column, values in zip(columns.values(), rows, strict=True):
                column += values
    table = pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()})
    write_table(folder.annotations / CLASS_PROMPTS, table)


def class_names(data: str, labels: Sequence[str], settings: ZeroShotClassification) -> dict[str, list[str]]:
    """The names of each class of `data`, by its label: those that the settings give, or the label as words.

    Raises DataError if a name is given for a label that no image has: it may be misspelt.
    """
    given = settings.class_names.get(data, {})
    named = read_class_names(expanded(given)) if isinstance(given, str) else dict(_as_lists(given))
    if stray := [label for label in named if label not in labels]:
        source = given if isinstance(given, str) else f"benchmarks.zero_shot_classification.class_names.{data}"
        shown = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
        raise DataError(
            f"{source} has a name for the label {stray[0]}, which no image of {data} has (the labels are {shown}); "
            "correct it, or leave it out."
        )
    return {label: named.get(label) or [label_as_words(label)] for label in labels}


def label_as_words(label: str) -> str:
    """`001.Black_footed_Albatross` -> `Black footed Albatross`."""
    words = re.sub(r"[_\s]+", " ", NUMBER_BEFORE_NAME.sub("", label)).strip()
    return words or label


def _as_lists(names: Mapping[str, Names]) -> Iterator[tuple[str, list[str]]]:
    for label, given in names.items():
        yield label, [given] if isinstance(given, str) else given


def read_class_names(path: Path) -> dict[str, list[str]]:
    """The names of a table with the columns label and name. Several rows of a label are several names.

    Raises DataError if a row cannot be read.
    """
    names: dict[str, list[str]] = {}
    for place, row in table_rows(path):
        if isinstance(row, MalformedRow):
            raise DataError(f"{place} {row.reason}.")
        if reason := malformed(row, COLUMNS):
            raise DataError(f"{place} {reason}. A table of class names has the columns label and name.")
        names.setdefault(identity(row["label"]), []).append(row["name"])
    return names
