"""Where each benchmark's data come from, the layout that is expected, and what of them is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cusa.annotations.labelled_images import ARCHIVES, labelled_images
from cusa.annotations.sentence_pairs import KNOWN_PAIRS, own_pairs, senteval_pairs
from cusa.config.benchmarks import Benchmarks, ImageRetrieval, SentenceSimilarity
from cusa.errors import CusaError

SENTEVAL_SOURCE = "https://github.com/facebookresearch/SentEval (data/downstream/get_transfer_data.bash)"
SENTEVAL_LAYOUT = (
    "STS/STS12-en-test/ ... STS/STS16-en-test/, STS/STSBenchmark/sts-test.csv, SICK/SICK_test_annotated.txt"
)


@dataclass(frozen=True)
class DataFound:
    """One collection: `key` is the configuration's, `found` a sentence; `sound` is None where none is named."""

    key: str
    title: str
    source: str
    layout: str
    place: str | None
    found: str
    sound: bool | None


def look(benchmarks: Benchmarks) -> Iterator[DataFound]:
    """Every collection that a benchmark knows, and every one of one's own that the configuration names."""
    images = benchmarks.image_retrieval or ImageRetrieval()
    for name, archive in ARCHIVES.items():
        known = f"{archive.images:,} images, {archive.classes:,} classes"
        key = f"benchmarks.image_retrieval.{name}"
        yield _look(key, archive.title, archive.source, archive.layout, images.places.get(name), name, known)
    for name, place in images.labelled_images.items():
        key = f"benchmarks.image_retrieval.labelled_images.{name}"
        yield _look(key, name, "your own", "a folder a class, or a CSV of image and label", place, name, None)
    sentences = benchmarks.sts or SentenceSimilarity()
    known = ", ".join(f"{task} {count:,}" for task, count in KNOWN_PAIRS.items())
    title, key = "STS12-16, STS-B, SICK-R", "benchmarks.sts.senteval"
    yield _look(key, title, SENTEVAL_SOURCE, SENTEVAL_LAYOUT, sentences.senteval, "senteval", known)
    for name, place in sentences.sentence_pairs.items():
        key = f"benchmarks.sts.sentence_pairs.{name}"
        yield _look(key, name, "your own", "a TSV of first, second and score", place, name, None)


def _look(key: str, title: str, source: str, layout: str, place: str | None, name: str, known: str | None) -> DataFound:
    if place is None:
        return DataFound(key, title, source, layout, None, f"not named; {known} are known", None)
    try:
        found = _pairs(name, place) if key.startswith("benchmarks.sts") else _images(name, place)
    except FileNotFoundError:
        return DataFound(key, title, source, layout, place, "does not exist", False)
    except CusaError as error:
        return DataFound(key, title, source, layout, place, str(error), False)
    sentence = found if known is None or found == known else f"{found}; known: {known}"
    return DataFound(key, title, source, layout, place, sentence, known is None or found == known)


def _images(name: str, place: str) -> str:
    found = labelled_images(name, place)
    return f"{len(found):,} images, {len({image.label for image in found}):,} classes"


def _pairs(name: str, place: str) -> str:
    if name != "senteval":
        return f"{len(own_pairs(place, name)):,} pairs"
    count = Counter(pair.task for pair in senteval_pairs(place))
    return ", ".join(f"{task} {pairs:,}" for task, pairs in count.items())
