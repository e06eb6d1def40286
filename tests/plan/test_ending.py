"""What is said when the workflow ends: the best experiment, the report and the next command; or what failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cusa.plan.ending import lines_of_failure, lines_of_success
from cusa.plan.failed_jobs import FailedJobs


def write_index(run: Path, of_weights: str) -> Path:
    """The index of a run whose present weights are called new."""
    index = run / "search/a gallery"
    index.mkdir(parents=True)
    (run / "best.safetensors").touch()
    (run / "run.json").write_text(json.dumps({"weights_sha256": "new"}))
    (index / "meta.json").write_text(json.dumps({"index": {"model_sha256": of_weights}}))
    return index


@pytest.fixture
def ended(tmp_path):
    """A plan and a search plan of a folder with a summary, a report and one of two indexes."""
    rows = [
        {"data": "", "metric": "r_mean", "experiment": "contrastive", "mean": 40.0},
        {"data": "", "metric": "r_mean", "experiment": "cusa", "mean": 44.44},
        {"data": "", "metric": "r_mean", "experiment": "failed", "mean": None},
        {"data": "", "metric": "r_mean", "experiment": "of another configuration", "mean": 90.0},
        {"data": "", "metric": "rsum", "experiment": "csa", "mean": 300.0},
        {"data": "languages", "metric": "r_mean", "experiment": "contrastive", "mean": 80.0},
        {"data": "folds", "metric": "r_mean", "experiment": "cusa", "mean": 70.0},
    ]
    rows = [{"benchmark": "itr", **row} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "summary.parquet")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/index.html").touch()
    index = write_index(tmp_path / "runs/cusa/seed1", of_weights="new")
    folders = [str(index), str(tmp_path / "runs/csa/seed1/search/missing")]
    names = ["contrastive", "csa", "cusa", "failed"]
    files = {name: [str(tmp_path / f"runs/{name}/seed1/best.safetensors")] for name in names}
    plan = SimpleNamespace(
        folder=SimpleNamespace(root=tmp_path), runs=names, run_files=lambda file: [*files["csa"], *files["cusa"]]
    )
    sweep = SimpleNamespace(study=SimpleNamespace(folder=tmp_path / "sweep"))
    made = {str(tmp_path / name) for name in ("summary.parquet", "report/index.html")}
    return plan, SimpleNamespace(index_folders=lambda: folders), sweep, made


def test_success_names_the_best_experiment_the_report_and_the_search(ended, tmp_path):
    best, report, search = lines_of_success(*ended)
    sentence = "cusa, with a mean recall of 44.4 % between images and texts of test, the highest of 2"
    assert best == f"best:       {sentence}; a small lead may be chance"
    assert report == f"the report: {(tmp_path / 'report/index.html').as_uri()}"
    assert search == f"search:     cusa serve '{tmp_path}/runs/cusa/seed1/search/a gallery'"


def test_what_is_not_there_is_not_named(ended, tmp_path):
    for name in ("summary.parquet", "report/index.html", "runs/cusa/seed1/search/a gallery/meta.json"):
        (tmp_path / name).unlink()
    assert list(lines_of_success(*ended)) == []


def test_what_the_targets_do_not_make_is_not_named(ended, tmp_path):
    """A sweep, or features alone, beside results of an earlier workflow."""
    *plans, _ = ended
    (line,) = lines_of_success(*plans, {"results/features.npy"})
    assert line.startswith("search: ")


def test_runs_that_are_equal_are_all_named(ended, tmp_path):
    table = pq.read_table(tmp_path / "summary.parquet").to_pylist()
    for row in table:
        if row["metric"] == "r_mean" and row["experiment"] == "contrastive" and not row["data"]:
            row["mean"] = 44.41
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "summary.parquet")
    best, *_ = lines_of_success(*ended)
    assert best == (
        "best:       contrastive and cusa are equal, with a mean recall of 44.4 % between images and texts of test, "
        "the highest of 2"
    )


def test_trained_runs_are_named_with_what_comes_next(ended, tmp_path):
    """The target `models`: there is no report yet, or it is of an earlier training."""
    *plans, made = ended
    weights = str(tmp_path / "runs/cusa/seed1/best.safetensors")
    runs, following, _ = lines_of_success(*plans, {weights, "of a run that is not there"})
    assert runs == f"the runs:   {tmp_path}/runs has 1; cusa runs {tmp_path} lists them"
    assert following == "next:       the target `report` measures and compares them"
    assert len(list(lines_of_success(*plans, {weights, *made}))) == 3


@pytest.mark.parametrize("written", ["of an earlier training", None], ids=str)
def test_an_index_of_other_weights_is_not_recommended(ended, tmp_path, written):
    plan, search, sweep, _ = ended
    old = write_index(tmp_path / "runs/csa/seed1", "old")
    if written is None:
        (tmp_path / "runs/csa/seed1/run.json").unlink()
    folders = [*search.index_folders(), str(old)]
    served, again = lines_of_success(plan, SimpleNamespace(index_folders=lambda: folders), sweep, set())
    assert served == f"search:     cusa serve '{folders[0]}'"
    assert again == f"search:     {old}: of other weights than its run has now; the target `search` builds it again"


def test_a_sweep_names_its_trials(ended, tmp_path):
    *plans, _ = ended
    trials, _ = lines_of_success(*plans, {str(tmp_path / "sweep/trials.parquet")})
    best = "`cusa sweep best` with the files of --configfile writes the best of them"
    assert trials == f"the trials: {tmp_path}/sweep/trials.md; {best}"


def test_failure_names_the_sentences_of_this_run_and_its_logs(tmp_path):
    texts = {
        "old": "Error: of the run before\n",
        "data": "12:00:00 reads\nError: three images are missing.\n[torchrun] exited\n",
        "bug": "Traceback (most recent call last):\n  File x\nKeyError: 'a'\n",
        "fine": "12:00:00 done\n",
        "more": "Error: three images are missing.\n",
    }
    for time, (name, text) in enumerate(texts.items()):
        (tmp_path / f"{name}.log").write_text(text)
        os.utime(tmp_path / f"{name}.log", (time, time))
    assert list(lines_of_failure([tmp_path], 1, "cusa run", FailedJobs())) == [
        "Error: three images are missing.",
        f"    the log: {tmp_path}/data.log, and the same in 1 more",
        "Error: KeyError: 'a'",
        f"    the log: {tmp_path}/bug.log",
        "What is done is kept. To continue from there:",
        "    cusa run",
    ]


@pytest.mark.parametrize(
    ("command", "continues"),
    [
        ("cusa run --forcerun train embed --cores 2 report", "cusa run --cores 2 report"),
        ("snakemake -R train -n --configfile 'my file.yaml'", "snakemake -n --configfile 'my file.yaml'"),
        ("snakemake -c1 --forceall report", "snakemake -c1 report"),
        ("cusa run --forcerun=train -f report", "cusa run report"),
    ],
)
def test_to_continue_makes_nothing_again_that_was_forced(tmp_path, command, continues):
    assert list(lines_of_failure([tmp_path], 0, command, FailedJobs()))[-1] == f"    {continues}"


def test_logs_of_several_folders_are_read(tmp_path):
    for name in ("openmoji", "benchmark-data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.log").write_text(f"Error: {name} is cut off.\n")
    folders = [tmp_path / name for name in ("openmoji", "benchmark-data", "none")]
    lines = list(lines_of_failure(folders, 0, "cusa run", FailedJobs()))
    assert {"Error: openmoji is cut off.", "Error: benchmark-data is cut off."} <= set(lines)


def test_a_message_of_several_lines_is_whole(tmp_path):
    problems = ["Error: the data set has problems:", "  missing image: 1 image", "    pics/1.jpg"]
    (tmp_path / "job.log").write_text("\n".join(["10:00:00 reads", *problems, "10:00:01 ends", ""]))
    assert next(lines_of_failure([tmp_path], 0, "cusa run", FailedJobs())) == "\n".join(problems)
    many = [f"  line {number}" for number in range(30)]
    (tmp_path / "job.log").write_text("\n".join([problems[0], *many]))
    shown = next(lines_of_failure([tmp_path], 0, "cusa run", FailedJobs())).split("\n")
    assert shown == [problems[0], *many[:20], "    ... and 10 more lines"]


def test_a_job_that_was_stopped_says_what_it_has_saved(tmp_path):
    saved = "stopped by Ctrl-C after epoch 3, step 2 of 8; the state is in a/state; the same command continues."
    (tmp_path / "train/cusa").mkdir(parents=True)
    (tmp_path / "train/cusa/seed1.log").write_text(f"12:00:00 on cpu\n12:00:09 {saved}\n")
    (tmp_path / "train/cusa/seed2.log").write_text(f"12:00:09 {saved}\n12:00:10 and more\n")
    (tmp_path / "train/convert.log").write_text("stopped by Ctrl-C\n")
    assert list(lines_of_failure([tmp_path], 0, "cusa run", FailedJobs())) == [
        "cusa/seed1: " + saved,
        "train/convert: stopped by Ctrl-C",
        "What is done is kept. To continue from there:",
        "    cusa run",
    ]


def test_a_job_that_was_killed_is_told_though_its_log_has_no_message(tmp_path):
    log, never = tmp_path / "train/cusa/seed1.log", tmp_path / "embed_more/cusa/seed1/test.log"
    log.parent.mkdir(parents=True)
    log.write_text("12:00:00 on cpu\n12:00:09 epoch 2 of 30\n")
    (tmp_path / "fine.log").write_text("12:00:00 done\n")
    jobs = FailedJobs()
    jobs.read(f"RuleException:\nCommand 'exec python > {log} 2>&1' died with <Signals.SIGKILL: 9>.")
    for failed in (log, never):
        jobs.failed([str(failed)], None)
    killed, where, unknown, nowhere, *_ = lines_of_failure([tmp_path], 0, "cusa run", jobs)
    assert killed.startswith("Error: cusa/seed1 was ended by SIGKILL, as the system does when memory runs out: ")
    assert killed.endswith(" The last line of its log: 12:00:09 epoch 2 of 30")
    assert where == f"    the log: {log}"
    assert unknown.startswith("Error: cusa/seed1/test ended without a message, as a process does that is killed, ")
    assert nowhere == f"    the log: {never}"


def test_what_a_job_wrote_goes_before_how_it_ended(tmp_path):
    log = tmp_path / "train/cusa/seed1.log"
    log.parent.mkdir(parents=True)
    log.write_text("12:00:00 on cpu\nError: a loss is not finite.\n")
    jobs = FailedJobs()
    jobs.failed([str(log)], None)
    assert next(lines_of_failure([tmp_path], 0, "cusa run", jobs)) == "Error: a loss is not finite."
