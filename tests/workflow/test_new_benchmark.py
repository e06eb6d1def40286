"""docs/new-benchmark.md, word for word, in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from conftest import write_record

from cusa.benchmarks.registry import names
from cusa.common.files import read_json

ROOT = Path(__file__).parents[2]


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs/new-benchmark.md").read_text(), flags=re.M | re.S)[0]


def snakemake(project: Path, *arguments: str) -> str:
    command = [Path(sys.executable).parent / "snakemake", "--cores", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, check=False)
    return done.stdout + done.stderr


def test_the_page(tmp_path, tiny_configuration, shapes_data):
    assert "caption_retrieval" not in names()
    for name in ("Snakefile", "workflow", "config", "src", "envs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    configuration = tiny_configuration | {"benchmarks": tiny_configuration["benchmarks"] | {"itr": None}}
    (tmp_path / "shapes.yaml").write_text(yaml.safe_dump(configuration))
    (tmp_path / "new-benchmark.yaml").write_text(block("yaml"))
    files = ["--configfile", "shapes.yaml", "new-benchmark.yaml"]
    # Before the file is there, the name is refused.
    assert "there is no src/cusa/benchmarks/caption_retrieval.py" in snakemake(tmp_path, *files, "--dry-run")
    (tmp_path / "src/cusa/benchmarks/caption_retrieval.py").write_text(block("python"))
    plan = snakemake(tmp_path, *files, "--dry-run", "scores")
    assert re.search(r"^evaluate_added +2$", plan, flags=re.M), plan
    wrong = {"benchmarks": {"more": {"caption_retrieval": {"recall_at": []}}}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    assert "Configuration key `recall_at`" in snakemake(tmp_path, *files, "wrong.yaml", "--dry-run")

    # The job itself, on embeddings that are there.
    run = tmp_path / "run"
    (run / "embeddings/test").mkdir(parents=True)
    generator = np.random.default_rng(0)
    image = generator.standard_normal((8, 4))
    np.save(run / "embeddings/test/text_uni.npy", np.repeat(image, 2, axis=0).astype(np.float32))
    write_record(run, {"uni_softlabel": {}}, dataset="shapes")
    script = [sys.executable, "workflow/scripts/evaluate.py", "caption_retrieval", "--data", str(shapes_data)]
    script += ["--run-folder", "run", "--settings", "{}", "--output", "found.json", "--queries", "found.npz"]
    subprocess.run(script, check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "src"), "PATH": ""})
    assert read_json(tmp_path / "found.json")["metrics"]["r1"] == 100
