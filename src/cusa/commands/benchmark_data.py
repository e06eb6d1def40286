"""`cusa datasets`: the source and the expected layout of each benchmark's data, and what exists of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from cusa.annotations.class_prompts import class_names, read_class_names
from cusa.annotations.judged_pairs import judged_pairs
from cusa.annotations.labelled_images import ARCHIVES, labelled_images, require_two_classes
from cusa.annotations.sentence_pairs import KNOWN_PAIRS, own_pairs, senteval_pairs
from cusa.commands.finding import Finding
from cusa.common.files import expanded
from cusa.config.benchmarks import Benchmarks, BenchmarkSection, ImageRetrieval, LinearProbe, SentenceSimilarity
from cusa.config.captions import CaptionCleaning
from cusa.config.classification import Classification, ZeroShotClassification
from cusa.errors import CusaError

SENTEVAL_SOURCE = "https://github.com/facebookresearch/SentEval (data/downstream/get_transfer_data.bash)"
SENTEVAL_LAYOUT = (
    "STS/STS12-en-test/ ... STS/STS16-en-test/, STS/STSBenchmark/sts-test.csv, SICK/SICK_test_annotated.txt"
)


@dataclass(frozen=True)
class _Collection:
    """One collection of a benchmark's data: its key in the configuration, its source, layout and known size.

    `place` is the folder or file that the configuration names; None if it names none.
    """

    key: str
    name: str
    title: str
    place: str | None
    source: str = "your own"
    layout: str = ""
    known: str | None = None

    def finding(self) -> Finding:
        """Count the collection. The finding is not sound if it is incomplete or its size is not the known one."""
        sound, text = self._counted()
        details = {"from": self.source, "layout": self.layout} | ({} if self.place is None else {"place": self.place})
        return Finding(f"{self.title} ({self.key})", text, sound, details)

    def _counted(self) -> tuple[bool | None, str]:
        if self.place is None:
            return None, f"not named in the configuration; expected {self.known}"
        if not expanded(self.place).exists():
            return None, "does not exist, so that it is left out"
        count = _count_pairs if self.key.startswith("benchmarks.sts") else _count_images
        try:
            counted = count(self.name, self.place)
        except CusaError as error:
            return False, str(error)
        if self.known is None or counted == self.known:
            return True, counted
        return False, f"{counted}; expected {self.known}"


def benchmark_data_findings(benchmarks: Benchmarks) -> Iterator[Finding]:
    """Findings about all known collections of the benchmarks, and about the user's own that the configuration names."""
    return (collection.finding() for collection in _collections(benchmarks))


def pairs_of(places: Mapping[str, str]) -> Iterator[Finding]:
    """A finding about the sentence pairs at each place, by name; it is not sound if they cannot be scored."""
    for name, place in places.items():
        try:
            yield Finding(f"sentence pairs {name}", _count_pairs(name, place))
        except CusaError as error:
            yield Finding(f"sentence pairs {name}", str(error), sound=False)


def images_of(places: Mapping[str, str], labels: dict[str, Counter[str]]) -> Iterator[Finding]:
    """A finding about the labelled images at each place, by name; it is not sound if they cannot be searched.

    The number of images of each label goes into `labels`; there is none if they cannot be read.
    """
    for name, place in places.items():
        labels[name] = Counter()
        try:
            images = labelled_images(name, place)
            require_two_classes(name, place, images)
        except (CusaError, FileNotFoundError) as error:
            yield Finding(f"labelled images {name}", str(error), sound=False)
            continue
        labels[name] = Counter(image.label for image in images)
        yield Finding(f"labelled images {name}", f"{len(images):,} images, {len(labels[name]):,} classes")


def class_names_of(settings: ZeroShotClassification, labels: Mapping[str, Counter[str]]) -> Iterator[Finding]:
    """A finding about the names of the classes of each data set that has some; it is not sound if they do not fit.

    `labels` has the images of each label, by the labelled images that could be read. Those of the data set's own images
    are not known yet.
    """
    for data, given in settings.class_names.items():
        try:
            count = len(read_class_names(expanded(given)) if isinstance(given, str) else given)
            if known := labels.get(data):
                class_names(data, sorted(known), settings)
            yield Finding(f"class names of {data}", f"names for {count:,} labels")
        except CusaError as error:
            yield Finding(f"class names of {data}", str(error), sound=False)


def judgements_of(table: str, annotations: Path, cleaning: CaptionCleaning) -> Finding:
    """A finding about the user's own judgements; it is not sound if they do not fit images.parquet in `annotations`."""
    try:
        pairs = judged_pairs(annotations, table, cleaning)
    except CusaError as error:
        return Finding("extended positives", str(error), sound=False)
    right = pc.sum(pairs["right"]).as_py()
    captions = pc.count_distinct(pairs["cleaned"]).as_py()
    return Finding("extended positives", f"{len(pairs):,} judgements of {captions:,} captions, {right:,} of them right")


def _collections(benchmarks: Benchmarks) -> Iterator[_Collection]:
    images = benchmarks.image_retrieval or ImageRetrieval()
    for name, archive in ARCHIVES.items():
        known = f"{archive.images:,} images, {archive.classes:,} classes"
        key, place = f"benchmarks.image_retrieval.{name}", images.places.get(name)
        yield _Collection(key, name, archive.title, place, archive.source, archive.layout, known)
    seen: set[str] = set()  # several benchmarks may name the same images
    for benchmark, section in benchmarks.sections.items():
        for key, places in _own_images(section):
            for name, place in places.items():
                if place not in seen:
                    seen.add(place)
                    layout = "one folder per class, or a CSV of image and label"
                    yield _Collection(f"benchmarks.{benchmark}.{key}.{name}", name, name, place, layout=layout)
    sentences = benchmarks.sts or SentenceSimilarity()
    known = ", ".join(f"{task} {count:,}" for task, count in KNOWN_PAIRS.items())
    title, key = "STS12-16, STS-B, SICK-R", "benchmarks.sts.senteval"
    yield _Collection(key, "senteval", title, sentences.senteval, SENTEVAL_SOURCE, SENTEVAL_LAYOUT, known)
    for name, place in sentences.sentence_pairs.items():
        key = f"benchmarks.sts.sentence_pairs.{name}"
        yield _Collection(key, name, name, place, layout="a TSV of first, second and score")


def _own_images(section: BenchmarkSection | None) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The keys of a section that name the user's own labelled images, and what they name."""
    if isinstance(section, ImageRetrieval | Classification):
        yield "labelled_images", section.labelled_images
    if isinstance(section, LinearProbe):
        yield "train_images", section.train_images


def _count_images(name: str, place: str) -> str:
    images = labelled_images(name, place)
    return f"{len(images):,} images, {len({image.label for image in images}):,} classes"


def _count_pairs(name: str, place: str) -> str:
    if name != "senteval":
        pairs = own_pairs(place, name)
        constant = "" if len({pair.score for pair in pairs}) > 1 else ", all of one score, so no correlation is defined"
        return f"{len(pairs):,} pairs{constant}"
    count = Counter(pair.task for pair in senteval_pairs(place))
    return ", ".join(f"{task} {pairs:,}" for task, pairs in count.items())
