"""Evaluate a model that `cusa export --to sentence-transformers` wrote by mteb: on its tasks, or on your own table.

A table (CSV) has the columns image and caption, and may have label. It makes three tasks: retrieval in both directions,
and zero-shot classification of the labels. Paths start at the folder of the table.

    python examples/mteb_tasks.py exported/sentence-transformers --tasks Flickr30kT2IRetrieval CIFAR10ZeroShot
    python examples/mteb_tasks.py exported/sentence-transformers --table photos.csv
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, Features, Image, Value
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification
from mteb.models import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

TEMPLATE = "a photo of a {}."


def load_model(folder: Path) -> SentenceTransformerEncoderWrapper:
    """The exported model as mteb takes it; of a folder, mteb has to be told that it takes pictures too."""
    model = SentenceTransformerEncoderWrapper(SentenceTransformer(str(folder)))
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update={"modalities": ["image", "text"]})
    return model


def metadata(name: str, kind: str, category: str, score: str) -> TaskMetadata:
    """What mteb needs to know of a task on data of your own."""
    return TaskMetadata(
        name=name,
        description="Pictures and captions of a table.",
        dataset={"path": "local/table", "revision": "1"},
        type=kind,
        category=category,
        modalities=["image", "text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
    )


def pictures(paths: list[str], **columns: list[Any]) -> Dataset:
    """Pictures by their paths, with other columns."""
    table = Dataset.from_dict({**columns, "image": paths})
    return table.cast_column("image", Image())


def retrieval(rows: list[dict[str, str]], folder: Path, to_text: bool) -> AbsTaskRetrieval:
    """Captions that find pictures, or pictures that find captions; each may have several right answers."""
    names, texts = (sorted({row[column] for row in rows}) for column in ("image", "caption"))
    images = pictures([str(folder / name) for name in names], id=[f"image {n}" for n in range(len(names))])
    captions = Dataset.from_dict(
        {"id": [f"text {n}" for n in range(len(texts))], "text": texts},
        features=Features({"id": Value("string"), "text": Value("string")}),
    )
    relevant: dict[str, dict[str, int]] = {}
    for row in rows:
        pair = (f"image {names.index(row['image'])}", f"text {texts.index(row['caption'])}")
        query, answer = pair if to_text else pair[::-1]
        relevant.setdefault(query, {})[answer] = 1
    queries, corpus = (images, captions) if to_text else (captions, images)

    class OwnRetrieval(AbsTaskRetrieval):
        def load_data(self, *arguments: object, **keywords: object) -> None:
            split = {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    way = ("OwnI2TRetrieval", "i2t") if to_text else ("OwnT2IRetrieval", "t2i")
    OwnRetrieval.metadata = metadata(way[0], "Any2AnyRetrieval", way[1], "recall_at_1")
    return OwnRetrieval()


def zero_shot(rows: list[dict[str, str]], folder: Path) -> AbsTaskZeroShotClassification:
    """Which label's name, in a template, is nearest to a picture; each picture counts once."""
    label_of = {row["image"]: row["label"] for row in rows}
    labels = sorted(set(label_of.values()))
    paths = [str(folder / name) for name in label_of]
    table = pictures(paths, label=[labels.index(label) for label in label_of.values()])

    class OwnZeroShot(AbsTaskZeroShotClassification):
        def load_data(self, *arguments: object, **keywords: object) -> None:
            self.dataset, self.data_loaded = {"test": table}, True

        def get_candidate_labels(self) -> list[str]:
            return [TEMPLATE.format(label) for label in labels]

    OwnZeroShot.metadata = metadata("OwnZeroShot", "ZeroShotClassification", "i2t", "accuracy")
    return OwnZeroShot()


def own_tasks(path: Path, image_column: str = "image") -> list[Any]:
    """The tasks of a table, whose paths are in `image_column`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [{**row, "image": row.get(image_column, "")} for row in csv.DictReader(file)]
    for column in (image_column, "caption"):
        if not rows or not rows[0].get(column):
            raise SystemExit(
                f"{path} has no rows with the column {column}; expected image (or --image-column) and caption"
            )
    tasks: list[Any] = [retrieval(rows, path.parent, to_text) for to_text in (False, True)]
    return [*tasks, zero_shot(rows, path.parent)] if "label" in rows[0] else tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="OUT of cusa export --to sentence-transformers")
    parser.add_argument("--tasks", nargs="*", default=[], help="names of mteb's tasks, whose data it downloads")
    parser.add_argument("--table", type=Path, help="CSV with the columns image and caption, and perhaps label")
    parser.add_argument("--image-column", default="image", help="another name of the column of paths")
    arguments = parser.parse_args()
    tasks: list[Any] = list(mteb.get_tasks(tasks=arguments.tasks)) if arguments.tasks else []
    tasks += own_tasks(arguments.table, arguments.image_column) if arguments.table else []
    if not tasks:
        parser.error("name --tasks or a --table")
    found = mteb.evaluate(load_model(arguments.folder), tasks, cache=None, overwrite_strategy="always")
    for result in found.task_results:
        scores = {split: each[0] for split, each in result.scores.items()}
        print(json.dumps({"task": result.task_name, "scores": scores}))


if __name__ == "__main__":
    main()
