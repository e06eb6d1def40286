"""Parquet files and tars with the pictures in them go through the real Snakefile; the pictures keep their bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from format_files import WRITERS

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"


def snakemake(directory: Path, *arguments: str) -> str:
    command = [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--cores", "2", "--directory", directory, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


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
