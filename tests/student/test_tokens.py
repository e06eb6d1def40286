"""Tokens that are made once: they are those of the student's tokeniser, and are only read where they belong."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cusa.annotations.tables import CAPTIONS as CAPTION_TABLE
from cusa.annotations.tables import SplitTables, read_table, write_table
from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.config.student_inputs import pixels_folder, tokens_folder
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.student import tokens as stored_tokens
from cusa.student.inputs import TokenInputs, open_texts
from cusa.student.registry import load_backbone
from cusa.student.tokens import Tokens, join_tokens, open_tokens, tokeniser_of_student, write_tokens
from cusa.teachers.encoders import pad_tokens
from cusa.teachers.tokenisers import load_tokeniser, token_ids

CAPTIONS = ["a small red circle", "", "large blue " * 40, "zebra", "a and a"]


@pytest.fixture
def data(shapes_data, tmp_path) -> DatasetFolder:
    """A copy of the shapes, to which tokens may be written."""
    return DatasetFolder(Path(shutil.copytree(shapes_data, tmp_path / "shapes")))


@pytest.fixture
def student(tiny_configuration) -> StudentSettings:
    return validate(StudentSettings, tiny_configuration["student"])


def written(data: DatasetFolder, student: StudentSettings) -> Path:
    folder = data.tokens(tokens_folder(student), "train")
    write_tokens(data, "train", tokeniser_of_student(student), folder)
    return folder


def of_train(data: DatasetFolder) -> SplitTables:
    return SplitTables.open(data, "train", captions=["cleaned"])


def towers(tiny_vision, tiny_sentences, **text) -> StudentSettings:
    text = {"name": str(tiny_sentences), **text}
    return validate(StudentSettings, {"towers": {"image": {"name": str(tiny_vision)}, "text": text}})


def test_a_padded_batch_is_that_of_lists_of_ids():
    lists = [[2, 7, 3], [2, 3], [2, 7, 7, 7, 9, 3], []]
    inputs = TokenInputs(Tokens.of(lists, pad_token=5))
    assert inputs.lengths.tolist() == [3, 2, 6, 0]
    for positions in ([0, 1, 2, 3], [2, 0], [1], [3, 3, 0]):
        expected, found = pad_tokens([lists[place] for place in positions], 5), inputs[np.array(positions)]
        for name in ("input_ids", "attention_mask"):
            assert torch.equal(found[name], expected[name])
            assert found[name].dtype == torch.int64


def test_stored_tokens_are_those_of_the_student(data, student, monkeypatch):
    monkeypatch.setattr(stored_tokens, "AT_ONCE", 7)  # several blocks
    folder, backbone = written(data, student), load_backbone(student)
    texts = open_texts(backbone, student, data, of_train(data))
    expected = TokenInputs(Tokens.of(*backbone.tokenise(of_train(data).captions["cleaned"].to_pylist())))
    everything = np.arange(len(expected))
    assert len(texts) == len(expected) == 64
    assert torch.equal(texts[everything]["input_ids"], expected[everything]["input_ids"])
    assert torch.equal(texts[everything]["attention_mask"], expected[everything]["attention_mask"])
    assert np.load(folder / "ids.npy").dtype == np.uint16


def test_ids_that_need_more_than_two_bytes_are_kept(data, student):
    def tokenise(captions):
        return [[2, 70_000 + number, 3] for number, _ in enumerate(captions)], 1

    folder = data.tokens(tokens_folder(student), "train")
    write_tokens(data, "train", tokenise, folder)
    found = open_tokens(data, tokens_folder(student), of_train(data), lambda _: tokenise(range(64)))
    assert found.pad_token == 1
    assert found.ids[1::3].tolist() == list(range(70_000, 70_064))


def written_in_parts(data: DatasetFolder, folder: Path, parts: int, tokenise) -> list[Path]:
    folders = [folder / f"{part}-of-{parts}" for part in range(parts)]
    for part, path in enumerate(folders):
        write_tokens(data, "train", tokenise, path, part, parts)
    return folders


@pytest.mark.parametrize("parts", [1, 3, 100])  # of a hundred, 36 have no caption
@pytest.mark.parametrize("large", [False, True])  # ids that need four bytes, in the last caption
def test_parts_become_the_tokens_that_one_job_writes(data, student, tmp_path, parts, large):
    last, of_student = of_train(data).captions["cleaned"].to_pylist()[-1], tokeniser_of_student(student)

    def tokenise(captions):
        ids, pad_token = of_student(captions)
        return [
            [70_000, *row] if large and caption == last else row for caption, row in zip(captions, ids, strict=True)
        ], pad_token

    write_tokens(data, "train", tokenise, tmp_path / "whole")
    join_tokens(data, written_in_parts(data, tmp_path, parts, tokenise), tmp_path / "joined")
    whole, joined = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "joined")
    )
    assert joined == whole
    assert np.load(tmp_path / "joined/ids.npy").dtype == (np.int32 if large else np.uint16)


def test_parts_of_other_captions_are_not_joined(data, student, tmp_path):
    parts = written_in_parts(data, tmp_path, 2, tokeniser_of_student(student))
    table = read_table(data.annotations, CAPTION_TABLE)
    write_table(data.annotations / CAPTION_TABLE, table.set_column(0, "caption", table["cleaned"]))
    with pytest.raises(DataError, match=r"0-of-2 was made of other captions than those of today; delete .*0-of-2"):
        join_tokens(data, parts, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_a_damaged_part_is_not_joined(data, student, tmp_path):
    parts = written_in_parts(data, tmp_path, 2, tokeniser_of_student(student))
    np.save(parts[1] / "ids.npy", np.zeros(3, np.uint16))
    with pytest.raises(DataError, match=r"1-of-2 holds uint16 of shape \(3,\) .* delete .*1-of-2"):
        join_tokens(data, parts, tmp_path / "joined")


def test_a_pair_of_towers_has_the_tokens_of_its_text_tower(data, tiny_vision, tiny_sentences):
    student = towers(tiny_vision, tiny_sentences)
    written(data, student)
    tokens = open_tokens(data, tokens_folder(student), of_train(data), tokeniser_of_student(student))
    assert len(tokens.ends) == 64
    assert tokens.ids[:1].tolist() == [2]


def test_tokens_of_other_captions_or_another_tokeniser_are_not_read(data, student, caplog):
    assert open_tokens(data, tokens_folder(student), of_train(data), tokeniser_of_student(student)) is None
    assert not caplog.records
    written(data, student)

    def other(captions):
        ids, pad_token = tokeniser_of_student(student)(captions)
        return [[row[0], *row[:0:-1]] for row in ids], pad_token

    with caplog.at_level(logging.WARNING):
        assert open_tokens(data, tokens_folder(student), of_train(data), other) is None
    assert "is not used, but the captions are tokenised now" in caplog.text
    table = read_table(data.annotations, CAPTION_TABLE)
    write_table(data.annotations / CAPTION_TABLE, table.set_column(0, "caption", table["cleaned"]))
    assert open_tokens(data, tokens_folder(student), of_train(data), tokeniser_of_student(student)) is None


def test_damaged_tokens_are_refused_with_what_to_do(data, student):
    folder = written(data, student)
    np.save(folder / "ends.npy", np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"and int64 of shape \(3,\), expected .* delete .*tokens/"):
        open_tokens(data, tokens_folder(student), of_train(data), tokeniser_of_student(student))
    (folder / "ids.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="delete .*tokens/.*, and the same command makes it again"):
        open_tokens(data, tokens_folder(student), of_train(data), tokeniser_of_student(student))


def test_many_texts_have_the_ids_that_transformers_gives(tiny_clip, tiny_sentences):
    for folder, limit in ((tiny_clip, 77), (tiny_sentences, 9)):
        tokeniser = load_tokeniser(str(folder))
        texts = [f"{caption} {number}" for number in range(100) for caption in CAPTIONS]
        expected = tokeniser(texts, truncation=True, max_length=limit)["input_ids"]
        assert token_ids(tokeniser, texts, limit) == expected
        assert token_ids(tokeniser, texts, 5) == tokeniser(texts, truncation=True, max_length=5)["input_ids"]
        assert token_ids(tokeniser, texts, limit) == expected  # another limit was in force between


def test_a_tokeniser_that_does_more_than_its_library_is_asked_itself(tiny_clip):
    tokeniser = load_tokeniser(str(tiny_clip))

    class Upper(type(tokeniser)):
        def __call__(self, text, **options):
            return super().__call__([each.lower() for each in text], **options)

    tokeniser.__class__ = Upper
    texts = ["RED", "BLUE circle"] * 200
    assert token_ids(tokeniser, texts, 8) == tokeniser(texts, truncation=True, max_length=8)["input_ids"]
    assert token_ids(tokeniser, texts, 8)[0] != token_ids(tokeniser, ["zebra"], 8)[0]


def test_what_determines_tokens_and_pixels_determines_their_folders(tiny_clip, tiny_vision, tiny_sentences):
    plain = StudentSettings(name=str(tiny_clip))
    same = plain.model_copy(update={"adapt": {"image": {}}})
    assert (tokens_folder(plain), pixels_folder(plain)) == (tokens_folder(same), pixels_folder(same))
    shorter = StudentSettings(name=str(tiny_clip), max_tokens=12)
    assert tokens_folder(shorter) != tokens_folder(plain)
    assert pixels_folder(shorter) == pixels_folder(plain)
    assert pixels_folder(StudentSettings(name=str(tiny_vision))) != pixels_folder(plain)
    pair = towers(tiny_vision, tiny_sentences)
    assert tokens_folder(pair) != tokens_folder(towers(tiny_vision, tiny_sentences, prompt="query: "))
    assert tokens_folder(towers(tiny_vision, tiny_sentences, trainable=False)) is None
    assert pixels_folder(pair) == pixels_folder(towers(tiny_vision, tiny_sentences, trainable=False))
