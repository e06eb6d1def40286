"""`cusa verify` on real results: a sound folder has no finding to fix, and each damage is named with what to delete."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cusa import cli
from cusa.commands.artefacts import verify
from cusa.common.files import read_json
from cusa.errors import DataError
from cusa.shards.verifying import require_intact

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results that an earlier release made, which are the working directory's."""
    shutil.copytree(ROOT / "tests/data/run_b749c88/results", tmp_path / "results")
    shutil.rmtree(tmp_path / "results/shapes/runs/published")  # whose weights are not kept there
    monkeypatch.chdir(tmp_path)
    return Path("results/shapes")


def verified(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cusa", "verify", *arguments])
    try:
        cli.main()
    except SystemExit as ended:
        assert "checks failed" in str(ended.code)
        return 1
    return 0


def zeroed(path: Path, start: int, count: int) -> None:
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)


def test_sound_results_have_nothing_to_fix(results, monkeypatch, capsys):
    assert verified(monkeypatch) == verified(monkeypatch, "results/shapes") == 0
    output = capsys.readouterr().out
    for part in (
        "annotations",
        "shards/test",
        "runs/cusa/seed23",
        "runs/cusa/seed23/embeddings/test",
        "runs/cusa/seed23/benchmarks/itr.json",
    ):
        assert f"ok    results/shapes/{part}: " in output
    assert "FIX" not in output


def test_each_damage_is_named_with_what_to_delete(results, monkeypatch, capsys):
    tar = next(results.glob("shards/test/*.tar"))
    features = next(results.glob("teachers/*/*/train"))
    run = results / "runs/cusa/seed23"
    zeroed(tar, 900, 100)
    zeroed(features / "features.npy", 200, 16)
    zeroed(run / "best.safetensors", (run / "best.safetensors").stat().st_size - 200, 100)
    (results / "runs/frozen/seed23/run.json").write_text("{")
    (run / "embeddings/test/text_uni.npy").write_bytes(b"short")
    (run / "benchmarks/itr.queries.npz").write_bytes(b"short")
    (results / "summary.parquet").write_bytes(b"short")
    assert verified(monkeypatch) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FIX")]
    deleted = (
        results / "shards/test",
        features,
        run / "best.safetensors",
        results / "runs/frozen/seed23/run.json",
        run / "embeddings/test",
        run / "benchmarks/itr.queries.npz",
        results / "summary.parquet",
    )
    assert len(lines) == len(deleted)
    for path in deleted:
        assert sum(f"delete {path}, and the same command" in line for line in lines) == 1, path


def test_what_is_gone_is_named_also_where_nothing_beside_it_describes_it(results):
    lost = [
        "annotations/captions.parquet",
        "shards/test/shards.json",
        "runs/cusa/seed23/run.json",
        next(results.glob("teachers/*/*/*/meta.json")).relative_to(results),
    ]
    for name in lost:
        (results / name).unlink()
    told = "\n".join(finding.text for finding in verify(results) if not finding.sound)
    for name in lost:
        assert f"{results / name} is missing" in told


def test_an_array_of_embeddings_that_is_gone_is_named(results):
    (results / "runs/cusa/seed23/embeddings/test/image_cross.npy").unlink()
    told = "\n".join(finding.text for finding in verify(results) if not finding.sound)
    assert "embeddings/test/image_cross.npy is missing; delete results/shapes/runs/cusa/seed23/embeddings/test" in told


def test_what_is_of_another_kind_stops_no_other_check(results):
    (results / "shards/test/shards.json").write_text("{}")
    scores = results / "runs/cusa/seed23/benchmarks/itr.json"
    scores.unlink()
    scores.mkdir()
    findings = list(verify(results))
    told = "\n".join(finding.text for finding in findings if not finding.sound)
    assert "but shards.json says None" in told
    assert f"{scores} cannot be read (Is a directory); delete {scores}" in told
    assert any(finding.subject.endswith("summary.parquet") for finding in findings)


@pytest.mark.parametrize("name", ["shards/test/shards.json", "teachers/image/*/*/meta.json"])
def test_a_description_that_is_no_mapping_is_a_sentence(results, name):
    path = next(results.glob(name))
    path.write_text("[]")
    told = [finding.text for finding in verify(results) if not finding.sound]
    assert any(str(path) in text or str(path.parent) in text for text in told)


@pytest.mark.parametrize(
    "what", ["picture", "header of a picture", "captions", "header of captions"],
)  # fmt: skip
def test_a_hundred_bytes_zeroed_in_a_tar_of_unchanged_size_name_the_shard_and_the_key(results, what):
    import pyarrow.parquet as pq

    folder = results / "shards/test"
    row = pq.read_table(folder / "index.parquet").to_pylist()[2]
    after = row["offset"] + -(-row["size"] // 512) * 512
    places = {"picture": row["offset"] + 150, "header of a picture": row["offset"] - 512, "captions": after + 512,
              "header of captions": after}  # fmt: skip
    require_intact(folder)
    tar = folder / f"shard-{row['shard']:06d}.tar"
    zeroed(tar, places[what], 100)
    with pytest.raises(DataError) as error:
        require_intact(folder)
    assert str(error.value) == (
        f"{tar} has other bytes than were written (its sha256 differs): the sample {row['key']} is damaged; delete "
        f"{folder}, and the same command makes it again."
    )


def test_a_tar_that_is_gone_or_of_another_size_is_named(results):
    tar = next(results.glob("shards/test/*.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"shard-000000.tar has [\d,]+ bytes, but [\d,]+ were written; delete"):
        require_intact(tar.parent)
    tar.unlink()
    with pytest.raises(DataError, match=r"shard-000000.tar is missing; delete results/shapes/shards/test, and"):
        require_intact(tar.parent)


def test_a_run_that_was_trained_on_other_data_is_doubtful(results):
    path = results / "runs/cusa/seed23/run.json"
    content = read_json(path)
    name = next(name for name in content["data"] if name.startswith("annotations"))
    content["data"][name] = "0" * 64
    path.write_text(json.dumps(content))
    found = [finding for finding in verify(results) if finding.doubtful]
    assert [finding.text for finding in found] == [
        f"it was trained on other data than are there now: {name} changed since"
    ]


def test_embeddings_with_values_that_are_not_finite_are_found(results):
    path = results / "runs/cusa/seed23/embeddings/test/text_uni.npy"
    array = np.load(path)
    array[0, 0] = np.nan
    np.save(path, array)
    (found,) = (finding for finding in verify(results) if finding.sound is False)
    assert "text_uni.npy is not a matrix of finite numbers" in found.text


def test_a_folder_without_results_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cusa", "verify", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no results. Expected results, or results/{dataset}"):
        cli.main()
