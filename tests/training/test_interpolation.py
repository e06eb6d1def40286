"""WiSE-FT: a run folder with weights between those before and after a training."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from cusa.config import load
from cusa.config.interpolation import Interpolation
from cusa.config.section import validate
from cusa.embeddings import embed
from cusa.errors import ConfigurationError, DataError
from cusa.layout import DatasetFolder
from cusa.runs.record import RunRecord
from cusa.runs.weights import load_student
from cusa.student.student import build_student
from cusa.training.interpolation import chosen_row, interpolate, mixed, pretrained_tensors
from cusa.training.loop import train

ALPHAS = [0.0, 0.25, 1.0]


def configured(mapping, **changes):
    between = {"interpolate": {"experiment": "cusa", "alphas": ALPHAS}}
    experiments = {"cusa": {"contrastive": {}, "uni_softlabel": {}}, "between": between}
    return load({**mapping, "experiments": experiments, **changes})


@pytest.fixture(scope="module")
def made(shapes_data, tiny_configuration, tmp_path_factory):
    """A trained run, and the run between it and the CLIP that it started from."""
    folder, configuration = DatasetFolder(shapes_data), configured(tiny_configuration)
    runs = {name: tmp_path_factory.mktemp("runs") / name / "seed23" for name in ("cusa", "between")}
    train(configuration.run("cusa", 23), folder, runs["cusa"])
    interpolate(configuration.run("between", 23), folder, runs["cusa"], runs["between"])
    return runs


def test_the_weights_are_between_those_before_and_after(made, tiny_configuration):
    record = RunRecord.read(made["between"])
    student, configuration = load_student(made["between"])
    after, before = load_student(made["cusa"])[0], build_student(configuration.student, configuration.losses)
    alpha = record.selection_metrics["alpha"]
    assert alpha in ALPHAS
    start, end, found = (pretrained_tensors(each) for each in (before, after, student))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (1 - alpha) * start[name] + alpha * end[name])
    # Heads had no meaning before the training: they stay as trained.
    heads = {name: tensor for name, tensor in after.state_dict().items() if name.startswith("heads.")}
    assert heads
    assert all(torch.equal(student.state_dict()[name], tensor) for name, tensor in heads.items())


def test_the_record_and_the_history_say_what_was_chosen(made):
    record, trained = RunRecord.read(made["between"]), RunRecord.read(made["cusa"])
    rows = pq.read_table(made["between"] / "history.parquet").to_pylist()
    assert [row["alpha"] for row in rows] == ALPHAS
    best = max(row["r_mean"] for row in rows)
    alpha = record.selection_metrics["alpha"]
    assert record.selected_because == f"alpha {alpha:g}: highest r_mean on val: {best:.3f}"
    assert record.selected_epoch == trained.selected_epoch
    assert record.data["runs/cusa/seed23/best.safetensors"] == trained.weights_sha256
    # With alpha 1, the scores are those by which the training selected its epoch.
    assert rows[-1]["rsum"] == pytest.approx(trained.selection_metrics["rsum"])


def test_the_run_is_embedded_like_any_other(made, shapes_data, tmp_path):
    embed(made["between"], DatasetFolder(shapes_data), "test", tmp_path / "test")
    assert {path.name for path in (tmp_path / "test").iterdir()} == {
        f"{side}_{head}.npy" for side in ("image", "text") for head in ("cross", "uni")
    }


def test_adapters_are_merged(shapes_data, tiny_configuration, tmp_path):
    """The run folder has a whole model, between the one that the adapters were added to and the merged one."""
    student = {
        **tiny_configuration["student"],
        "adapt": {"image": {"lora": {"rank": 2}}, "text": {"lora": {"rank": 2}}},
    }
    configuration, folder = configured(tiny_configuration, student=student), DatasetFolder(shapes_data)
    train(configuration.run("cusa", 23), folder, tmp_path / "cusa/seed23")
    interpolate(configuration.run("between", 23), folder, tmp_path / "cusa/seed23", tmp_path / "between")
    found, written = load_student(tmp_path / "between")
    assert written.student.adapt is None
    alpha = RunRecord.read(tmp_path / "between").selection_metrics["alpha"]
    after, before = load_student(tmp_path / "cusa/seed23")[0], build_student(written.student, written.losses)
    start, end, between = (pretrained_tensors(each) for each in (before, after, found))
    assert any(not torch.equal(start[name], end[name]) for name in start)
    for name, tensor in between.items():
        torch.testing.assert_close(tensor, (1 - alpha) * start[name] + alpha * end[name])


def test_alpha_0_and_1_are_exact():
    before, after = {"w": torch.tensor([0.1, 3.0])}, {"w": torch.tensor([0.7, -1.0])}
    assert torch.equal(mixed(before, after, 0.0)["w"], before["w"])
    assert torch.equal(mixed(before, after, 1.0)["w"], after["w"])
    torch.testing.assert_close(mixed(before, after, 0.25)["w"], torch.tensor([0.25, 2.0]))


def test_the_smallest_alpha_within_the_tolerance():
    scores = {0.0: 30.0, 0.4: 41.2, 0.7: 42.0, 1.0: 42.0}
    rows = [{"alpha": alpha, "r_mean": r_mean} for alpha, r_mean in scores.items()]
    assert chosen_row(rows, Interpolation(experiment="x"))["alpha"] == 0.7
    assert chosen_row(rows, Interpolation(experiment="x", tolerance=1.0))["alpha"] == 0.4


def test_a_run_that_changed_nothing(made, shapes_data, tiny_configuration, tmp_path):
    """A run folder with the weights of the CLIP itself, as with a rate of 0."""
    from cusa.runs.record import WEIGHTS
    from cusa.runs.weights import save_weights

    source = tmp_path / "cusa/seed23"
    configuration = RunRecord.read(made["cusa"]).configuration
    student = build_student(configuration.student, configuration.losses)
    save_weights(source / WEIGHTS, {f"student.{name}": each for name, each in student.state_dict().items()}, {})
    RunRecord.read(made["cusa"]).write(source)
    between = configured(tiny_configuration).run("between", 23)
    with pytest.raises(DataError, match="has trained no pre-trained weight"):
        interpolate(between, DatasetFolder(shapes_data), source, tmp_path / "between")


def test_a_run_of_another_student(made, shapes_data, tiny_configuration, tmp_path):
    other = configured(tiny_configuration).run("between", 23)
    losses = other.losses.model_copy(update={"uni_softlabel": None})
    other = other.model_copy(update={"losses": losses})
    with pytest.raises(DataError, match="has another student or other losses than between has"):
        interpolate(other, DatasetFolder(shapes_data), made["cusa"], tmp_path / "x")


def test_the_saved_tensors_are_those_of_the_student(made):
    assert set(load_file(made["between"] / "best.safetensors")) == {
        name for name in load_file(made["cusa"] / "best.safetensors") if name.startswith("student.")
    }


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ({"interpolate": {"experiment": "no"}}, "interpolate.experiment` is no, which is none of the experiments"),
        ({"interpolate": {"experiment": "cusa"}, "contrastive": {}}, "interpolate takes all from the other experiment"),
        ({"interpolate": {"experiment": "cusa", "alphas": [1.0, 0.5]}}, "alphas: .1.0, 0.5. do not rise"),
        ({"interpolate": {"experiment": "cusa", "alphas": [1.5]}}, "less than or equal to 1"),
    ],
    ids=["unknown", "with a loss", "falling", "above 1"],
)
def test_configurations_that_are_refused(tiny_configuration, between, message):
    experiments = {"cusa": {"contrastive": {}}, "between": between}
    with pytest.raises(ConfigurationError, match=message):
        load({**tiny_configuration, "experiments": experiments})


def test_frozen_towers_have_nothing_to_interpolate(tiny_configuration):
    sides = {side: {**tiny_configuration["teachers"][side], "trainable": False} for side in ("image", "text")}
    student = {"name": None, "towers": {**sides, "dimension": 8}}
    with pytest.raises(ConfigurationError, match="both sides of cusa are frozen, so its training changes no weight"):
        configured(tiny_configuration, student=student)
    adapt = {side: {"frozen": ["*"]} for side in ("image", "text")}
    with pytest.raises(ConfigurationError, match="both sides of cusa are frozen, so its training changes no weight"):
        configured(tiny_configuration, student={**tiny_configuration["student"], "adapt": adapt})


def test_alphas_may_have_an_exponent():
    assert validate(Interpolation, {"experiment": "cusa", "alphas": ["1e-1", 1]}).alphas == [0.1, 1.0]


def test_an_experiment_without_the_key_is_written_as_before(tiny_configuration):
    """So that the runs of earlier releases are not trained again."""
    configuration = configured(tiny_configuration)
    assert "interpolate" not in configuration.run("cusa", 23).as_json()
    assert validate(Interpolation, {"experiment": "cusa"}).alphas[-1] == 1.0
