"""Data in several files go through the real Snakefile, in one job or in parts, which make the same files."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest
import yaml
from format_files import WRITERS
from snakemake_runs import output_of_snakemake

from cusa.config.models import StudentSettings
from cusa.config.section import validate
from cusa.config.student_inputs import tokens_folder

ROOT = Path(__file__).parents[2]


def snakemake(directory: Path, *arguments: str) -> str:
    return output_of_snakemake("--cores", "2", "--directory", directory, *arguments, cwd=ROOT)


@pytest.mark.parametrize(("name", "parts"), [("parquet_struct", 1), ("webdataset_shards", 1), ("webdataset_shards", 2)])
def test_shards_have_the_bytes_of_the_original_pictures(shapes, tiny_configuration, tmp_path, name, parts):
    """Also where several jobs read the files, and several write the shards of train."""
    rows = {split: json.loads((shapes / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    for members in rows.values():
        for row in members:
            row["image_path"] = str(shapes / row["image_path"])
    data = tmp_path / "data-0-of-2"  # a user's name that looks like one of our parts
    data.mkdir()
    dataset = {"name": "packed", "parts": parts, **WRITERS[name](data, rows)}
    shards = {"shorter_side": None, "samples_per_shard": 20, "parts": parts}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**tiny_configuration, "dataset": dataset, "shards": shards}))
    config = ("--configfile", str(tmp_path / "mine.yaml"))
    said = snakemake(tmp_path, "shards", *config)
    jobs = {"read_part": parts, "write_shards_part": parts, "join_shards": 1} if parts > 1 else {}
    for rule in ("read_part", "write_shards_part", "join_shards"):
        assert len(re.findall(f"rule {rule}:", said)) == jobs.get(rule, 0)
    assert not [*(tmp_path / "results/packed").rglob("*.parts")]
    for split, members in rows.items():
        found = {}
        for path in sorted((tmp_path / f"results/packed/shards/{split}").glob("*.tar")):
            with tarfile.open(path) as tar:
                contents = {member.name: tar.extractfile(member).read() for member in tar}
            for key in {name.split(".")[0] for name in contents}:
                metadata = json.loads(contents[f"{key}.json"])
                found[metadata["image_id"]] = (contents[f"{key}.jpg"], metadata["captions"])
        expected = {}
        for row in members:
            content = Path(row["image_path"]).read_bytes()
            expected.setdefault(row["image_id"], (content, []))[1].append(row["caption"])
        assert found == expected
    other = ("--config", f"dataset={{parts: {parts + 1}}}", f"shards={{parts: {parts + 1}}}")
    for more in ((), other):
        assert "Nothing to be done" in snakemake(tmp_path, "shards", "--dry-run", *config, *more)


def test_tables_and_tokens_in_parts_are_those_of_one_job(shapes, tiny_configuration, tmp_path):
    """The student has a trained text tower, so its captions are tokenised once."""
    rows = {split: json.loads((shapes / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    pieces = {"train-0": rows["train"][::2], "train-1": rows["train"][1::2], "val": rows["val"], "test": rows["test"]}
    for name, members in pieces.items():
        lines = [json.dumps({"image": str(shapes / row["image_path"]), "caption": row["caption"]}) for row in members]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    places = {"train": "train-*.jsonl", "val": "val.jsonl", "test": "test.jsonl"}
    annotations = {split: str(tmp_path / place) for split, place in places.items()}
    student = tokens_folder(validate(StudentSettings, tiny_configuration["student"]))
    tokens = f"results/tables/tokens/{student}/train/meta.json"

    def made(parts: int, *more: str) -> tuple[str, dict[str, bytes]]:
        folder = tmp_path / str(parts)
        folder.mkdir(exist_ok=True)
        dataset = {"name": "tables", "format": "table", "annotations": annotations, "parts": parts}
        shards = {**tiny_configuration["shards"], "parts": parts}
        (folder / "mine.yaml").write_text(yaml.safe_dump({**tiny_configuration, "dataset": dataset, "shards": shards}))
        said = snakemake(folder, tokens, "--configfile", str(folder / "mine.yaml"), *more)
        files = [
            path for name in ("annotations", "tokens") for path in (folder / f"results/tables/{name}").rglob("*.*")
        ]
        return said, {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}

    _, whole = made(1)
    said, in_parts = made(2)
    assert {len(re.findall(f"rule {rule}:", said)) for rule in ("read_part", "tokenise_captions_part")} == {2}
    assert len(re.findall("rule join_tokens:", said)) == 1
    assert sum("ids.npy" in name for name in whole) == 1
    assert in_parts == whole
    other = ("--config", "dataset={parts: 3}", "shards={parts: 3}", "--dry-run")
    assert "Nothing to be done" in made(2, *other)[0]
