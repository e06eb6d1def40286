"""Model cards of exported folders, and their upload to the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard
from runs_to_export import RUNS

from cusa.benchmarks import outcomes_file
from cusa.common.files import read_json
from cusa.errors import ConfigurationError, DataError
from cusa.export import hub
from cusa.export.exporting import ExportOptions, export
from cusa.export.model_card import loss_lines, model_card, scores
from cusa.model.exported import Exported
from cusa.report.statistics import metric_intervals
from cusa.runs.record import RunRecord

FORMATS = ("sentence-transformers", "onnx", "safetensors")


@pytest.fixture(scope="module")
def scored(scored_runs) -> Path:
    _, runs = scored_runs
    return runs["cusa"][0]


def about(run: Path, to: str) -> Exported:
    record = RunRecord.read(run)
    return Exported(
        format=to,
        weights_sha256=record.weights_sha256,
        dimension=16,
        heads=("cross",),
        shards={"shorter_side": 32},
        dataset=record.configuration.dataset,
        experiment=record.configuration.experiment,
        seed=23,
        versions={"cusa": "0.1.0", "torch": "2"},
    )


def card(run: Path, to: str = "onnx") -> str:
    return model_card(run, RunRecord.read(run), about(run, to), ["8 pictures: equal."])


@pytest.mark.parametrize("to", FORMATS)
def test_a_card_tells_origin_scores_and_how_to_load(scored, to):
    text = card(scored, to)
    for heading in ("How to load it", "What it is made of", "Scores", "Measured when it was", "Limits", "Licence and"):
        assert f"\n## {heading}" in text
    assert ("SentenceTransformer(" in text) == (to == "sentence-transformers")
    assert ("cusa.load(" in text) == (to != "sentence-transformers")
    assert "- 8 pictures: equal." in text
    assert "cross-modal soft-label alignment (CSA)" in text
    assert "to be filled in" in text
    assert RunRecord.read(scored).weights_sha256 in text
    itr = read_json(scored / "benchmarks/itr.json")["metrics"]
    assert f"| Image-text retrieval |  | t2i R@1 | {itr['t2i_r1']:.1f} |" in text
    assert "{{" not in text


@pytest.mark.parametrize("to", FORMATS)
def test_the_front_matter_is_what_the_hub_reads(scored, to):
    parsed = ModelCard(card(scored, to)).data
    assert parsed.license == "unknown"
    assert parsed.library_name == {"sentence-transformers": to, "onnx": to}.get(to, "cusa")
    assert {result.metric_type for result in parsed.eval_results} >= {"t2i_r1", "rsum"}
    first = yaml.safe_load(card(scored, to).split("---")[1])
    assert first["model-index"][0]["name"] == "cusa on shapes"
    benchmarks = first["model-index"][0]["results"]
    titles = [row["title"] for row in scores(scored)]
    assert [one["task"]["name"] for one in benchmarks] == list(dict.fromkeys(titles))
    assert sum(len(one["metrics"]) for one in benchmarks) == len(titles)
    assert "# fill in" in card(scored, to).split("---")[1]


def test_only_names_of_the_hub_are_base_models(scored, tmp_path):
    """A local folder is not a name there; the packaged MiniLM has the hub's weights."""
    content = read_json(scored / "run.json")
    towers = {"image": {"name": "efficientnet-lite0", "trainable": False}, "text": {"name": "all-MiniLM-L6-v2"}}
    content["configuration"]["student"] = {"name": None, "towers": towers | {"dimension": 8}, "max_tokens": 77}
    run = Path(shutil.copytree(scored, tmp_path / "run"))
    (run / "run.json").write_text(json.dumps(content))
    assert ModelCard(card(run)).data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert "| efficientnet-lite0 | image tower, frozen |" in card(run)
    assert ModelCard(card(scored)).data.base_model is None


def test_a_local_path_is_shown_by_its_last_part(scored, tiny_clip):
    assert str(tiny_clip.parent) not in card(scored)
    assert f"| {tiny_clip.name} |" in card(scored)


def test_scores_have_intervals_around_them(scored):
    rows = {row["name"]: row for row in scores(scored)}
    low, high = rows["t2i_r1"]["interval"]
    assert 0 <= low <= rows["t2i_r1"]["value"] <= high <= 100
    assert low < high
    statistics = outcomes_file.load(scored / "benchmarks/itr.queries.npz")
    assert metric_intervals(statistics)["t2i_r1"] == (low, high)


def test_scores_without_outcomes_stand_without_intervals(scored, tmp_path):
    run = Path(shutil.copytree(scored, tmp_path / "run"))
    (run / "benchmarks/itr.queries.npz").write_bytes(b"damaged")
    assert {row["interval"] for row in scores(run)} == {None}
    (run / "benchmarks/itr.queries.npz").unlink()
    assert {row["interval"] for row in scores(run)} == {None}
    assert "| - |" in card(run)


def test_a_baseline_and_a_run_without_scores(request):
    run = RUNS["zero_shot"](request.getfixturevalue)
    text = card(run)
    assert "A baseline that was not trained" in text
    assert "the target `scores` of the workflow makes them" in text
    assert "Losses:" not in text
    assert loss_lines(RunRecord.read(run).configuration.losses) == []


class Hub:
    """Records the calls that would go to the hub."""

    calls: list[tuple[str, dict]]

    def __init__(self, fails: Exception | None = None) -> None:
        self.calls, self.fails = [], fails

    def create_repo(self, repo_id: str, **keywords: object) -> SimpleNamespace:
        self.calls.append(("create_repo", {"repo_id": repo_id, **keywords}))
        if self.fails is not None:
            raise self.fails
        return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{repo_id.split('/')[-1]}")

    def upload_folder(self, **keywords: object) -> None:
        files = sorted(path.name for path in Path(str(keywords["folder_path"])).iterdir())
        self.calls.append(("upload_folder", {**keywords, "files": files}))


@pytest.fixture
def at_the_hub(monkeypatch) -> Hub:
    found = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    monkeypatch.setenv("HF_TOKEN", "hf_a_test")
    return found


def test_an_export_is_uploaded_to_a_private_repository(at_the_hub, request, tmp_path):
    run, output = RUNS["clip"](request.getfixturevalue), tmp_path / "exported"
    told = export(run, "sentence-transformers", output, ExportOptions(push_to_hub="shapes-cusa"))
    assert [name for name, _ in at_the_hub.calls] == ["create_repo", "upload_folder"]
    created, uploaded = (keywords for _, keywords in at_the_hub.calls)
    assert created == {"repo_id": "shapes-cusa", "repo_type": "model", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "me/shapes-cusa"
    assert {"README.md", "modules.json", "cusa.json"} <= set(uploaded["files"])
    assert "uploaded to https://huggingface.co/me/shapes-cusa" in told[-1]


def test_a_missing_token_is_a_sentence_before_the_work(monkeypatch, scored, tmp_path):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigurationError, match="needs a token .*run `hf auth login`, or set HF_TOKEN"):
        export(scored, "onnx", tmp_path / "exported", ExportOptions(push_to_hub="me/shapes"))
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("name", ["a/b/c", "a name", "--x"], ids=["three-parts", "blank", "dashes"])
def test_a_name_that_cannot_be_is_a_sentence(scored, tmp_path, name):
    with pytest.raises(ConfigurationError, match="is not a valid name of a repository .*give NAME or OWNER/NAME"):
        export(scored, "onnx", tmp_path / "exported", ExportOptions(push_to_hub=name))


def test_no_network_is_a_sentence_that_says_how_to_go_on(at_the_hub, tmp_path):
    at_the_hub.fails = ConnectionError("Name or service not known")
    with pytest.raises(
        DataError, match=rf"cannot be reached \(ConnectionError: .*upload it with `hf upload me/x {tmp_path}`"
    ):
        hub.push(tmp_path, "me/x")


def test_a_refusal_is_a_sentence(at_the_hub, tmp_path):
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    response = httpx.Response(403, request=httpx.Request("POST", "https://huggingface.co/api/repos/create"))
    at_the_hub.fails = HfHubHTTPError("403 Forbidden: you may not", response=response)
    with pytest.raises(DataError, match=r"the Hugging Face hub refuses me/x \(403 Forbidden.*may write there"):
        hub.push(tmp_path, "me/x")
