"""A folder made at commit b749c88 is embedded, scored, continued and read as it was then: what users have stays theirs.

tests/data/run_b749c88 says what is in it. The scripts are called by their command lines, as rules and users call them.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors import safe_open
from snakemake_runs import output_of_snakemake

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests/data/run_b749c88"
DATA = Path("results/shapes")
RUNS = ("cusa", "towers", "frozen", "zero_shot", "teachers")
ACROSS_MODALITIES = ("cusa", "towers", "frozen", "zero_shot", "published")
SCORED = [(run, "itr") for run in ACROSS_MODALITIES] + [(run, "sts") for run in RUNS]
# Keys of `train` that rules give apart, because they do not change the result.
OPERATIONAL = ("workers", "save_every_minutes", "eval_batch_size", "log_every")
STOPPED_AT = (9, 3)  # epoch, counted from 0, and step
COMPUTED = ("lr", "loss", "temperature", "i2t", "t2i", "r_mean", "rsum")  # what a history has besides times and rates
# In exact arithmetic a key's bias changes no attention, so its gradient is rounding errors, which differ by CPU.
WITHOUT_EFFECT = ("k_proj.bias", "key.bias")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old folder, which is the working directory."""
    copy = Path(shutil.copytree(MADE, tmp_path / "run"))
    monkeypatch.chdir(copy)
    return copy


def script(name: str, *arguments: object) -> None:
    """Run a script with its command line, in this process: torch is imported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "workflow/scripts" / name), run_name="__main__")


def run_folder(experiment: str, seed: int = 23) -> Path:
    return DATA / f"runs/{experiment}/seed{seed}"


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def tensors(path: Path) -> dict:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)


@pytest.mark.parametrize("experiment", RUNS)
def test_a_run_of_the_old_layout_is_embedded_as_before(folder, experiment):
    run = run_folder(experiment)
    for name in sorted(path.name for path in (run / "embeddings").iterdir()):
        data, what = (DATA, "test") if name == "test" else (DATA.parent / "benchmark-data" / name, "sentence_pairs")
        common = ("--data", data, "--run-folder", run, "--benchmark-data", what, "--threads", 1)
        script("embed.py", *common, "--output", f"embedded/{name}")
        old, new = arrays(run / "embeddings" / name), arrays(Path("embedded") / name)
        assert old.keys() == new.keys()
        for key in old:
            assert (new[key].shape, new[key].dtype) == (old[key].shape, old[key].dtype)
            np.testing.assert_allclose(new[key], old[key], rtol=1e-5, atol=1e-5, err_msg=f"{name}/{key}")


@pytest.mark.parametrize(("experiment", "benchmark"), SCORED)
def test_a_run_of_the_old_layout_is_scored_as_before(folder, experiment, benchmark):
    run = run_folder(experiment)
    settings = yaml.safe_load(Path("config/config.yaml").read_text())["benchmarks"][benchmark]
    written = ("--output", "scored.json", "--queries", "scored.npz", "--settings", json.dumps(settings))
    script("evaluate.py", benchmark, "--data", DATA, "--run-folder", run, *written)
    old, new = read(run / f"benchmarks/{benchmark}.json"), read(Path("scored.json"))
    assert new["metrics"] == pytest.approx(old.pop("metrics"), rel=1e-9)
    assert old.pop("versions").keys() <= new["versions"].keys()
    assert old == {key: new[key] for key in old}
    with np.load(run / f"benchmarks/{benchmark}.queries.npz") as before, np.load("scored.npz") as now:
        assert set(before.files) <= set(now.files)
        for name in before.files:
            np.testing.assert_allclose(now[name], before[name], err_msg=name)


def test_old_scores_are_summarised_as_before(folder):
    """The reference is new, so that the outcomes of queries are read too."""
    scores = [run_folder(run) / f"benchmarks/{benchmark}.json" for run, benchmark in SCORED if run != "published"]
    written = ("--parquet", "new.parquet", "--markdown", "new.md", "--latex", "new.tex", "--reference", "cusa")
    script("summarise.py", "--annotations", DATA / "annotations", *written, "--left-out", "{}", *scores)
    old, new = (
        {tuple(row[key] for key in ("experiment", "benchmark", "data", "metric")): row for row in table.to_pylist()}
        for table in (pq.read_table(DATA / "summary.parquet"), pq.read_table("new.parquet"))
    )
    assert old.keys() == new.keys()
    for key, row in old.items():
        kept = [column for column in row if column != "reference" and not column.startswith("difference")]
        assert {column: new[key][column] for column in kept} == {column: row[column] for column in kept}
        reference = old.get(("cusa", *key[1:]))
        if key[0] != "cusa" and reference is not None:
            assert new[key]["difference"] == pytest.approx(row["mean"] - reference["mean"])


@pytest.mark.parametrize(("experiment", "seed"), [("cusa", 24), ("towers", 42)])
def test_an_interrupted_run_of_the_old_layout_is_continued_to_the_same_end(folder, experiment, seed):
    """The towers have dropout, so the random state is continued too."""
    old, run, whole = Path(f"expected/{experiment}/seed{seed}"), run_folder(experiment, seed), Path("whole")
    configuration = read(old / "run.json")["configuration"]
    operation = {key: configuration["train"].pop(key) for key in OPERATIONAL}
    for place in (run, whole):
        given = ("--configuration", json.dumps(configuration), "--operation", json.dumps(operation))
        script("train.py", "--data", DATA, "--run-folder", place, *given, "--threads", 1)

    before, after = (pq.read_table(place / "history.parquet").to_pylist() for place in (old, run))
    after = [{key: row[key] for key in before[0]} for row in after]
    kept = [row for row in before if (row["epoch"], row["step"]) <= STOPPED_AT]
    # Seconds and rates too: these rows come from the state, and were not computed again.
    assert after[: len(kept)] == kept
    for now, then in zip(after, before, strict=True):
        values = {key: then[key] for key in then if key.startswith(COMPUTED) and then[key] is not None}
        assert {key: now[key] for key in values} == pytest.approx(values, rel=1e-4, abs=1e-6), then

    about, then = read(run / "run.json"), read(old / "run.json")
    assert then.keys() <= about.keys()
    for key in ("schema", "configuration", "data", "selected_epoch", "epochs", "training_pairs", "processes", "device"):
        assert about[key] == then[key], key
    assert about["selection_metrics"] == pytest.approx(then["selection_metrics"])
    assert then["versions"].keys() <= about["versions"].keys()

    weights, expected = tensors(run / "best.safetensors"), tensors(old / "best.safetensors")
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (weights[name].shape, weights[name].dtype) == (tensor.shape, tensor.dtype), name
        if not name.endswith(WITHOUT_EFFECT):
            np.testing.assert_allclose(weights[name], tensor, rtol=1e-4, atol=1e-4, err_msg=name)
    # On a CPU that computes as the one where the folder was made, the whole run ends in the old weights, bit for bit,
    # and then the continued one does. Other CPUs have another start of the whole run than is in the old state.
    end = {place: (place / "best.safetensors").read_bytes() for place in (old, run, whole)}
    if end[whole] == end[old]:
        assert end[run] == end[whole]


def test_snakemake_trains_and_extracts_nothing_again_of_an_old_folder(folder):
    """Neither paths nor parameters of the jobs have changed, nor what the configuration means.

    One thing is made that the old release did not make: features of the sentence pairs, by text towers that are frozen.
    What is embedded and scored from them is made again. See the changelog.
    """
    records = Path(".snakemake/metadata")
    records.mkdir(parents=True)
    for job in read(Path("snakemake-metadata.json")):
        for output in job["outputs"]:
            (records / b64encode(output.encode()).decode()).write_text(json.dumps(job["record"]))
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))  # a checkout has times of its own
    # Captions of one's own data were always cleaned as published; to keep results, the configuration has to say so now.
    captions = "captions={clean: published}"
    output = output_of_snakemake("--cores", "1", "--dry-run", "scores", "--config", captions, cwd=Path.cwd())
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE))
    frozen = {"extract_benchmark_texts": "1", "embed_benchmark_data": "2", "evaluate_sts": "2"}
    assert counts == frozen | {"summarise": "1", "scores": "1", "total": "7"}, output


@pytest.mark.parametrize("experiment", [*RUNS, "published"])
def test_the_library_reads_the_configuration_of_an_old_run(folder, experiment):
    """Every key is still there, and no other has come that would make it another configuration."""
    from cusa.config import RunConfiguration, validate

    mapping = read(run_folder(experiment) / "run.json")["configuration"]
    assert validate(RunConfiguration, mapping).model_dump(mode="json") == mapping


@pytest.mark.parametrize("experiment", ["cusa", "towers", "frozen"])
def test_the_losses_take_the_temperatures_of_an_old_run(folder, experiment):
    import torch

    from cusa.config import LossConfiguration, validate
    from cusa.losses import CUSALoss

    run = run_folder(experiment)
    loss = CUSALoss(validate(LossConfiguration, read(run / "run.json")["configuration"]["losses"]))
    weights = {name: torch.from_numpy(array) for name, array in tensors(run / "best.safetensors").items()}
    loss.load_state_dict({name[5:]: tensor for name, tensor in weights.items() if name.startswith("loss.")})


@pytest.mark.parametrize("experiment", ACROSS_MODALITIES)
def test_the_metrics_of_old_embeddings_are_as_before(folder, experiment):
    from cusa.metrics import image_text_recall

    run = run_folder(experiment)
    embeddings, old = arrays(run / "embeddings/test"), read(run / "benchmarks/itr.json")["metrics"]
    found = image_text_recall(embeddings["image_cross"], embeddings["text_cross"], np.repeat(np.arange(8), 2))
    assert found == pytest.approx({name: old[name] for name in found})
