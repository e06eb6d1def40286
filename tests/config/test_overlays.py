"""The overlays, merged onto the default as Snakemake does, have the published settings, key by key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from published_files import published
from snakemake.utils import update_config

from cusa.config.configuration import Configuration, load
from cusa.upstream.configurations import loss_config

ROOT = Path(__file__).parents[2]
COUNTS = {"coco": (113_287, 5_000, 5_000), "flickr30k": (29_000, 1_000, 1_000)}
EPOCHS = {"coco": 30, "flickr30k": 40}


def merged(*names: str) -> Configuration:
    mapping: dict = {}
    for name in ("config", *names):
        update_config(mapping, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    return load(mapping)


@pytest.mark.parametrize("dataset", ["coco", "flickr30k"])
@pytest.mark.parametrize(
    ("prefix", "student", "batch_size", "eval_batch_size"),
    [("", "ViT-B/32", 128, 128), ("large-", "ViT-L/14@336px", 16, 32)],
)
@pytest.mark.parametrize(("experiment", "cross", "uni"), [("contrastive", False, False), ("cusa", True, True)])
def test_the_eight_published_configurations(
    dataset, prefix, student, batch_size, eval_batch_size, experiment, cross, uni
):
    run = merged(dataset).run(f"{prefix}{experiment}", 23)
    assert run.losses == loss_config(published(cross=cross, uni=uni))
    assert run.student.model_dump() == {"name": student, "towers": None, "max_tokens": 77}
    train = run.train
    assert (train.epochs, train.batch_size, train.gpus) == (EPOCHS[dataset], batch_size, 4)
    assert train.eval_batch_size == eval_batch_size
    assert (train.lr, train.min_lr, train.weight_decay) == (1e-5, 1e-6, 1e-4)
    assert (train.schedule, train.warmup_steps, train.gradient_clip) == ("epoch", 0, None)
    assert (train.precision, train.gather, train.select_on) == ("fp32", "local", "val")
    if run.teachers is not None:
        assert run.teachers.image.identity == "unicom/ViT-B/32/tokens"
        assert run.teachers.text.name == "sentence-transformers/all-mpnet-base-v2"


@pytest.mark.parametrize("dataset", ["coco", "flickr30k"])
@pytest.mark.parametrize("prefix", ["", "large-"])
@pytest.mark.parametrize(("experiment", "cross", "uni"), [("csa", True, False), ("usa", False, True)])
def test_the_two_ablations(dataset, prefix, experiment, cross, uni):
    losses = merged(dataset).run(f"{prefix}{experiment}", 23).losses
    expected = loss_config(published(cross=cross, uni=uni))
    if uni:  # with USA alone, fixed temperatures with the same start are the same whether tied or not
        tied = {"teacher_temperature": expected.uni_softlabel.teacher_temperature.model_copy(update={"tied": True})}
        expected = expected.model_copy(update={"uni_softlabel": expected.uni_softlabel.model_copy(update=tied)})
    assert losses == expected


@pytest.mark.parametrize("dataset", ["coco", "flickr30k"])
def test_data_and_seed(dataset):
    configuration = merged(dataset)
    assert tuple(configuration.dataset.expected_images.values()) == COUNTS[dataset]
    assert configuration.dataset.restval == "train"
    assert configuration.seeds == [23]
    assert configuration.shards.shorter_side == 336
    assert len(configuration.active_experiments) == 8
