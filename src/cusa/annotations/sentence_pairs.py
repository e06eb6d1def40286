"""Sentence pairs with gold scores: SentEval's folders (Conneau and Kiela, LREC 2018), and the user's TSV files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cusa.annotations.delimited import delimited_rows, sniffed
from cusa.common.files import expanded
from cusa.common.text import text_lines, unstorable
from cusa.errors import DataError, first_lines

YEARS = {
    "sts12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "sts13": ("FNWN", "headlines", "OnWN"),
    "sts14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "sts15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "sts16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}


TASKS = (*YEARS, "stsb", "sickr")


# The number of pairs with a gold score in SentEval's download, by task.
KNOWN_PAIRS = {
    "sts12": 3108,
    "sts13": 1500,
    "sts14": 3750,
    "sts15": 3000,
    "sts16": 1186,
    "stsb": 1379,
    "sickr": 4927,
}


class ScoredPair(NamedTuple):
    """Two sentences without clean-up, their gold score, their task and their subset."""

    first: str
    second: str
    score: float
    task: str
    subset: str


def senteval_pairs(folder: str | Path) -> list[ScoredPair]:
    """All pairs of the seven tasks that have a gold score, in the order of TASKS and of the files.

    `folder` is SentEval's data/downstream, with STS/ and SICK/ in it. Raises DataError with a list of the missing
    files, and if a file is damaged.
    """
    folder = expanded(folder)
    needed = [path for year in YEARS for pair in _year_files(folder, year).values() for path in pair]
    needed += [_stsb(folder), _sickr(folder)]
    if missing := [str(path) for path in needed if not path.is_file()]:
        raise DataError(
            f"{folder} lacks {len(missing)} of the {len(needed)} files of SentEval's STS tasks, which its script "
            f"get_transfer_data.bash writes:{first_lines(missing)}"
        )
    pairs = [pair for year in YEARS for pair in _year(folder, year)]
    for task, path, columns in (("stsb", _stsb(folder), (5, 6, 4)), ("sickr", _sickr(folder), (1, 2, 3))):
        pairs += _columns(path, task, columns, header=task == "sickr")
    return pairs


def own_pairs(path: str | Path, name: str) -> list[ScoredPair]:
    """The pairs of a TSV file with the columns first, second and score. Raises DataError for anything else."""
    path = expanded(path)
    pairs = []
    wanted = ("first", "second", "score")
    dialect = sniffed(path, wanted, quotes=False)
    # Quotation marks are text in a TSV, as in all TSV files here; cells of a CSV may need them.
    rows = delimited_rows(path, dialect if dialect.separator == "\t" else replace(dialect, quotes=None))
    names = [cell.strip() for cell in next((row.cells for row in rows), [])]
    if missing := [column for column in wanted if column not in names]:
        raise DataError(
            f"{path} has the columns {', '.join(names) or 'none'}, but not {', '.join(missing)}; its first line has to "
            "name first, second and score, with tabs between."
        )
    if repeated := [column for column in wanted if names.count(column) > 1]:
        raise DataError(f"{path} has several columns `{repeated[0]}`; keep one of them.")
    for row in rows:
        if row.reason is not None:
            raise DataError(f"{path}, line {row.line} {row.reason}.")
        if any(map(str.strip, row.cells[len(names) :])):
            raise DataError(f"{path}, line {row.line} has more cells than the heading ({len(row.cells)}).")
        cells = dict(zip(names, row.cells, strict=False))
        first, second, score = (cells.get(column) for column in wanted)
        if not first or not second or score is None:
            raise DataError(f"{path}, line {row.line}: expected two sentences and a score.")
        if what := unstorable(first + second):
            raise DataError(f"{path}, line {row.line} has {what} in a sentence.")
        if score.strip():
            pairs.append(ScoredPair(first, second, _number(path, row.line, score), name, ""))
    if len(pairs) < 2:
        raise DataError(f"{path} has {len(pairs)} pairs with a score; a correlation needs at least two.")
    return pairs


def _year_files(folder: Path, year: str) -> dict[str, tuple[Path, Path]]:
    place = folder / "STS" / f"{year.upper()}-en-test"
    return {name: (place / f"STS.input.{name}.txt", place / f"STS.gs.{name}.txt") for name in YEARS[year]}


def _stsb(folder: Path) -> Path:
    return folder / "STS" / "STSBenchmark" / "sts-test.csv"


def _sickr(folder: Path) -> Path:
    return folder / "SICK" / "SICK_test_annotated.txt"


def _year(folder: Path, year: str) -> Iterator[ScoredPair]:
    for name, (sentences, gold) in _year_files(folder, year).items():
        lines, scores = _lines(sentences), _lines(gold)
        if len(lines) != len(scores):
            raise DataError(
                f"{sentences} has {len(lines)} pairs, but {gold.name} has {len(scores)} scores; one was cut off."
            )
        for number, (line, score) in enumerate(zip(lines, scores, strict=True), start=1):
            first, tab, second = line.partition("\t")
            if not tab:
                raise DataError(f"{sentences}, line {number}: expected two sentences with a tab between.")
            if score.strip():
                # Some releases have the sources in further columns.
                yield ScoredPair(first, second.split("\t")[0], _number(gold, number, score), year, name)


def _columns(path: Path, task: str, columns: tuple[int, int, int], header: bool) -> Iterator[ScoredPair]:
    for number, line in enumerate(_lines(path), start=1):
        if number == 1 and header:
            continue
        cells = line.split("\t")
        if len(cells) <= max(columns):
            raise DataError(f"{path}, line {number}: {len(cells)} columns, expected at least {max(columns) + 1}.")
        first, second, score = (cells[column] for column in columns)
        if score.strip():
            yield ScoredPair(first, second, _number(path, number, score), task, "")


def _lines(path: Path) -> list[str]:
    """The lines between line feeds: str.splitlines would also split at other characters, which sentences contain."""
    return list(text_lines(path, newline="\n"))


def _number(path: Path, line: int, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(
            f"{path}, line {line}: the score is {text!r}, expected a number that is finite. A pair whose score is "
            "empty is left out."
        )
    return score
