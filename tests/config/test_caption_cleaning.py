"""How captions are cleaned: the section `captions`, the defaults of the formats, and what jobs are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cusa.config import RunConfiguration, load, validate
from cusa.config.captions import PUBLISHED, CaptionCleaning, conversion_json, read_conversion

ROOT = Path(__file__).parents[2]
FILES = {"train": "a.json", "val": "b.json", "test": "c.json"}
OWN = {"name": "mine", "format": "published", "annotations": FILES}
BENCHMARKS = {"itr": {}, "eccv_caption": None, "image_retrieval": None, "sts": None}
NONE = CaptionCleaning(clean="none", max_words=None)


def configuration(own: bool = True, **captions: object):
    mapping = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    changes = {"dataset": OWN, "benchmarks": BENCHMARKS} if own else {}
    return load({**mapping, **changes, **({"captions": captions} if captions else {})})


@pytest.mark.parametrize(
    ("own", "captions", "expected"),
    [
        (False, {}, ("published", 64)),
        (False, {"clean": None}, ("published", 64)),
        (False, {"clean": "none"}, ("none", None)),
        (True, {}, ("none", None)),
        (True, {"clean": "published"}, ("published", 64)),
        (True, {"clean": "published", "max_words": None}, ("published", None)),
        (True, {"max_words": 32}, ("none", 32)),
        (True, {"clean": "published", "max_words": 32}, ("published", 32)),
    ],
)
def test_the_demo_is_cleaned_as_published_and_other_data_keep_their_captions(own, captions, expected):
    cleaning = configuration(own, **captions).cleaning
    assert (cleaning.clean, cleaning.max_words) == expected


@pytest.mark.parametrize("overlay", ["coco", "flickr30k"])
def test_the_overlays_of_the_paper_clean_as_published(overlay):
    mapping = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    mapping |= yaml.safe_load((ROOT / f"config/{overlay}.yaml").read_text())
    assert load(mapping).cleaning == PUBLISHED


def test_what_jobs_are_told_of_published_cleaning_is_the_text_of_earlier_releases():
    """Otherwise Snakemake would make again what earlier releases have made."""
    found = configuration(clean="published")
    assert conversion_json(found.dataset, found.cleaning) == found.dataset.as_json()
    assert "captions" not in json.loads(found.run("cusa", 23).as_json())


@pytest.mark.parametrize("captions", [{}, {"clean": "published"}, {"max_words": 9}])
def test_jobs_read_the_cleaning_that_they_are_told(captions):
    found = configuration(**captions)
    assert read_conversion(json.loads(conversion_json(found.dataset, found.cleaning))) == (
        found.dataset,
        found.cleaning,
    )
    run = found.run("cusa", 23)
    assert validate(RunConfiguration, json.loads(run.as_json())) == run
    assert run.captions == found.cleaning


def test_a_run_without_the_key_was_trained_on_captions_cleaned_as_published():
    mapping = json.loads(configuration().run("cusa", 23).as_json())
    assert mapping.pop("captions") == {"clean": "none", "max_words": None}
    assert validate(RunConfiguration, mapping).captions == PUBLISHED
