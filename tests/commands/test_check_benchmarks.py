"""`cusa check` reads the user's own tables of the benchmarks: judgements, and names of classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cusa.commands.check import check


def found(mapping: dict) -> dict[str, tuple[str, bool]]:
    return {finding.subject: (finding.text, finding.sound) for finding in check(mapping)}


@pytest.fixture
def test_image(tiny_configuration) -> str:
    """The name of the file of a test image."""
    records = json.loads(Path(tiny_configuration["dataset"]["annotations"]["test"]).read_text())
    return Path(records[0]["image_path"]).name


def judged(configuration: dict, table: Path, text: str) -> tuple[str, bool]:
    table.write_text(text)
    benchmarks = configuration["benchmarks"] | {"eccv_caption": {"positives": str(table)}}
    return found(configuration | {"benchmarks": benchmarks})["extended positives"]


def test_judgements_are_counted(tiny_configuration, tmp_path, test_image):
    text = f"image,caption,right\n{test_image},a round thing,1\n{test_image},a square thing,0\n"
    assert judged(tiny_configuration, tmp_path / "mine.csv", text) == (
        "2 judgements of 2 captions, 1 of them right",
        True,
    )


def test_judgements_that_cannot_be_used_are_a_finding_with_counts_and_examples(
    tiny_configuration, tmp_path, test_image
):
    rows = [f"{test_image},a ring,1", f"{test_image},a ring,no", f"{test_image},a ring,maybe"]
    text, sound = judged(
        tiny_configuration,
        tmp_path / "mine.csv",
        "\n".join(["image,caption,right", *rows, *(f"lost-{n}.png,a ring,1" for n in range(6))]),
    )
    assert not sound
    assert "mine.csv has 8 judgements that cannot be used:" in text
    assert "line 3 says that the pair is wrong, but" in text
    assert "line 4 has 'maybe' for `right`; expected 1 or 0, true or false, yes or no." in text
    assert "names the image lost-0.png, which the data set does not have" in text
    assert "... and 3 more" in text
    assert "lost-5" not in text


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("label,name\nwren,a wren\n", None),
        ("label,name\nwern,a wren\n", "has a name for the label wern, which no image of birds has"),
        ("label\nwren\n", "has no `name`"),
    ],
    ids=["sound", "misspelt", "no names"],
)
def test_names_of_classes_fit_the_labels_of_the_images(tiny_configuration, tmp_path, names, told):
    for label in ("wren", "robin"):
        (tmp_path / "birds" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "birds" / label / "a.png")
    (tmp_path / "names.csv").write_text(names)
    section: dict = {"labelled_images": {"birds": str(tmp_path / "birds")}}
    section["class_names"] = {"birds": str(tmp_path / "names.csv")}
    benchmarks = tiny_configuration["benchmarks"] | {"zero_shot_classification": section}
    text, sound = found(tiny_configuration | {"benchmarks": benchmarks})["class names of birds"]
    assert sound is (told is None)
    assert (told or "names for 1 labels") in text
