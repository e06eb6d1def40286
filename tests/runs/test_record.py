"""run.json: one record writes and reads it; files that are no such record are refused with a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import write_record

from cusa.common.files import read_json, write_json
from cusa.errors import DataError
from cusa.runs.record import RUN, RunFolder, RunRecord


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path, {"contrastive": {}, "uni_softlabel": {}})
    record = RunRecord.read(tmp_path)
    content = read_json(tmp_path / RUN)
    assert content["schema"] == 1
    assert content["configuration"] == record.configuration.model_dump(mode="json")
    assert not {"imported_from", "finished"} & set(content)  # this run has neither
    record.write(tmp_path / "again")
    assert read_json(tmp_path / "again" / RUN) == content
    assert RunFolder(tmp_path).record == record


def test_keys_of_later_releases_are_ignored(tmp_path):
    write_record(tmp_path, {"contrastive": {}})
    write_json(tmp_path / RUN, read_json(tmp_path / RUN) | {"weather": "fine"})
    assert RunRecord.read(tmp_path).epochs == 1


@pytest.mark.parametrize(
    ("losses", "cross", "uni"),
    [
        ({"contrastive": {}, "uni_softlabel": {}}, "cross head", "uni head"),
        ({"cross_softlabel": {}}, "cross head", "features before the heads (no uni head was trained)"),
        ({"uni_softlabel": {}}, "features before the heads (no cross head was trained)", "uni head"),
    ],
)
def test_heads_that_were_not_trained_are_said(tmp_path, losses, cross, uni):
    write_record(tmp_path, losses)
    run = RunFolder(tmp_path)
    assert (run.head_used("cross"), run.head_used("uni")) == (cross, uni)


def test_files_that_are_no_record_are_sentences(tmp_path):
    with pytest.raises(DataError, match=r"run.json does not exist; run `snakemake models` first"):
        RunRecord.read(tmp_path)
    (tmp_path / RUN).write_text("{")
    with pytest.raises(DataError, match=r"run.json is not valid JSON"):
        RunRecord.read(tmp_path)
    write_record(tmp_path, {"contrastive": {}})
    content = read_json(tmp_path / RUN)
    del content["configuration"]["train"]
    (tmp_path / RUN).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"is not the record of a run: key `configuration.train`: field required"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x93NUMPY\1\0\x76\0{'descr': '<f4', (", "is not a complete npy file"),
        (np.zeros(3, np.float32), r"holds float32 of shape \(3,\); expected float32 \[3, D\]"),
        (np.zeros((3, 2), np.int64), "holds int64 of shape"),
        (np.zeros((2, 2), np.float32), "has 2 rows, but the data has 3"),
    ],
)
def test_damaged_embeddings_are_sentences_that_say_what_to_delete(tmp_path, content, says):
    path = tmp_path / "embeddings/test/image_cross.npy"
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(DataError, match=says) as error:
        RunFolder(tmp_path).embeddings("test", "image_cross", 3)
    assert f"delete {path.parent}, and the same command makes it again" in str(error.value)
