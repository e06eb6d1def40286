"""`cusa init` says what data are that it does not read, and how they become data that it reads."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.commands.starting_configuration import look_at
from cusa.errors import ConfigurationError


def told(path: Path) -> str:
    with pytest.raises(ConfigurationError) as error:
        look_at(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "https://huggingface.co/datasets/me/pets/tree/main",
            "--repo-type dataset me/pets --local-dir pets` downloads",
        ),
        ("me/pets", "--repo-type dataset me/pets --local-dir pets` downloads it, and `cusa init pets` looks at it"),
        ("https://example.org/captions.csv", "It is an address; download the data first."),
        ("s3://bucket/captions.csv", "It is an address; download the data first."),
    ],
)
def test_names_on_a_hub_and_addresses_are_told_to_be_downloaded(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    assert says in told(Path(name))


def test_a_file_that_is_missing_in_a_folder_that_exists_is_no_name_on_a_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    assert "hub" not in told(Path("data/captions")) + told(Path("captions.csv"))


@pytest.mark.parametrize("inside", [["dataset_dict.json"], ["dataset_info.json", "state.json"]])
def test_a_folder_of_save_to_disk_is_told_with_what_writes_parquet(tmp_path, inside):
    for name in inside:
        (tmp_path / name).write_text('{"splits": ["train"]}')
    assert "in Arrow, as save_to_disk of Hugging Face's datasets writes it; write each split as Parquet" in told(
        tmp_path
    )


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (".txt", "captions in text files of the same names are read from tars: tar --sort=name -cf pairs.tar -C "),
        (".json", "captions in JSON files of the same names are read from tars: tar --sort=name -cf pairs.tar -C "),
        (".caption", "from .caption to .txt; a tar of them and the pictures is then read."),
        ("", "has pictures, but no captions; write a table with a column of names and one of captions."),
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_pictures_without_a_table_are_told_how_they_are_read(tmp_path, ending, says, below):
    pictures = tmp_path / "pics"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.jpg").touch()
        if ending:
            (pictures / f"{number}{ending}").write_text("{}")
    message = told(tmp_path if below else pictures)
    assert says in message
    assert str(pictures) in message


def test_a_token_file_is_known_by_its_first_line(tmp_path):
    captions = tmp_path / "Flickr8k.lemma.txt"
    captions.write_text("".join(f"{number}.jpg#0\ta dog\n" for number in range(6)))
    assert "is a token file of Flickr30K or Flickr8K, which does not say the split" in told(captions)
    for split, numbers in {"train": "0123", "dev": "4", "test": "5"}.items():
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{number}.jpg\n" for number in numbers))
    assert look_at(captions).section["format"] == "flickr30k"


def test_parts_that_names_count_and_that_are_not_there_are_told(tmp_path, shapes):
    pictures = [path.read_bytes() for path in sorted((shapes / "pics").iterdir())[:12]]
    table = pa.table({"image": pictures, "caption": [f"shape {number}" for number in range(len(pictures))]})
    pq.write_table(table, tmp_path / "train-00001-of-00003.parquet")
    (warning,) = [each for each in look_at(tmp_path).warnings if "parts" in each]
    assert warning.startswith("1 of the 3 parts ")
    assert warning.endswith("train-00000-of-00003.parquet is not among them")
