"""Batches of neighbours: exact, seeded, each pair once, and nearer than chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_runs import configured, interrupted, weights_sha256

from cusa.config.configuration import load
from cusa.errors import ConfigurationError
from cusa.layout import DatasetFolder, RunInputs
from cusa.student.student import build_student
from cusa.training.distributed import Group
from cusa.training.hard_negatives import NeighbourOrder, Nodes, deal, neighbour_groups, reduced
from cusa.training.loading import TrainingData
from cusa.training.loop import train
from cusa.training.sampling import PairSampler


class Rows:
    """Features in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.dimension = array.astype(np.float32), array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows].copy()


def clustered(rows: int, dimension: int = 30, clusters: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((clusters, dimension))[rng.integers(clusters, size=rows)] + 0.3 * rng.standard_normal(
        (rows, dimension)
    )


def similarity_in_groups(features: np.ndarray, order: np.ndarray, group: int) -> float:
    own = features / np.linalg.norm(features, axis=1, keepdims=True)
    groups = own[order[: len(order) // group * group]].reshape(-1, group, own.shape[1])
    products = groups @ groups.transpose(0, 2, 1)
    return float((products.sum(axis=(1, 2)) - group).mean() / (group * (group - 1)))


@pytest.mark.parametrize("group", [2, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 64, 101])
def test_every_row_once(rows, group):
    codes = reduced(Rows(clustered(rows)))
    order = neighbour_groups(codes, group, np.random.default_rng(rows))
    assert sorted(order) == list(range(rows))


@pytest.mark.parametrize("group", [2, 4, 8])
def test_rows_of_a_group_are_near(group):
    """Twelve clusters: two random rows are of one cluster once in twelve, two of a group mostly."""
    features = clustered(600)
    order = neighbour_groups(reduced(Rows(features)), group, np.random.default_rng(1))
    at_random = similarity_in_groups(features, np.random.default_rng(1).permutation(600), group)
    assert at_random < 0.2
    assert similarity_in_groups(features, order, group) > 0.7


def halves_by_hand(codes: np.ndarray, order: np.ndarray, directions: np.ndarray, nodes: Nodes) -> list[list[int]]:
    """What halving means, node by node, in float64 and with Python's sort, which keeps the order of equals."""
    halves = []
    for node in range(len(nodes.first)):
        end = nodes.start[node] + nodes.sizes[node]
        members = list(order[nodes.start[node] : end])
        if nodes.last[node] - nodes.first[node] == 1:
            halves.append(members)
            continue
        members.sort(key=lambda row: float(codes[row].astype(np.float64) @ directions[node].astype(np.float64)))
        left = ((nodes.first[node] + nodes.last[node] + 1) // 2 - nodes.first[node]) * nodes.group
        halves += [members[:left], members[left:]]
    return halves


@pytest.mark.parametrize("blocks", [1 << 30, 4000], ids=["at-once", "in-blocks"])
def test_a_tree_halves_each_node_along_its_direction(blocks, monkeypatch):
    """Down to the leaves, against the definition; the directions are whole numbers, so that nothing is rounded."""
    monkeypatch.setattr("cusa.training.hard_negatives.BLOCK_BYTES", blocks)
    codes, generator, group = reduced(Rows(clustered(203))), np.random.default_rng(3), 6
    order = generator.permutation(203)
    nodes = Nodes(np.array([0]), np.array([-(-203 // group)]), group, 203)
    while (nodes.last - nodes.first).max() > 1:
        directions = nodes.directions(codes, order, generator)
        assert np.array_equal(directions, np.rint(directions))
        assert np.abs(directions).max() <= 254
        expected = halves_by_hand(codes, order, directions, nodes)
        order = order[nodes.sorted_along(directions, codes, order)]
        nodes = nodes.halves()
        found = [list(order[a : a + size]) for a, size in zip(nodes.start, nodes.sizes, strict=True)]
        assert found == expected
    assert set(nodes.last - nodes.first) == {1}
    assert list(nodes.sizes) == [6] * 33 + [5]


def test_products_are_exact_in_float32():
    """The largest sum of products fits the 24 bits of float32, so that no machine sums up to another order."""
    from cusa.training.hard_negatives import DIMENSIONS, LARGEST

    assert DIMENSIONS * LARGEST * 2 * LARGEST < 2**24


@pytest.mark.parametrize("dimension", [5, 128, 700], ids=["few", "as-many", "many"])
def test_reduced_features_keep_the_neighbours(dimension, monkeypatch):
    monkeypatch.setattr("cusa.training.hard_negatives.BLOCK_BYTES", 8 * dimension * 50)  # blocks of 50 rows
    features = clustered(300, dimension)
    features[7] = 0  # a row without direction stays without
    codes = reduced(Rows(features))
    assert codes.dtype == np.int8
    assert codes.shape == (300, min(dimension, 128))
    features = np.delete(features, 7, axis=0)
    codes = np.delete(codes, 7, axis=0).astype(np.float64)
    own = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = np.square(own[:, None] - own[None]).sum(axis=2)
    of_codes = np.square(codes[:, None] - codes[None]).sum(axis=2)
    assert np.corrcoef(distances.ravel(), of_codes.ravel())[0, 1] > 0.85


def test_captions_of_an_image_are_dealt_to_different_rounds():
    image_of_caption = np.repeat(np.arange(40), 5)
    rounds = deal(image_of_caption, np.random.default_rng(0))
    assert [len(members) for members in rounds] == [40] * 5
    for members in rounds:
        assert len(np.unique(image_of_caption[members])) == 40
    assert sorted(np.concatenate(rounds)) == list(range(200))


def test_images_with_many_captions_are_spread_evenly():
    image_of_caption = np.array([0] * 50 + [1, 2, 3, 4, 5, 6, 7, 8, 8])  # 59 captions of 9 images: 7 rounds
    rounds = deal(image_of_caption, np.random.default_rng(1))
    of_the_first = [int((image_of_caption[members] == 0).sum()) for members in rounds]
    assert len(rounds) == 7
    assert max(of_the_first) - min(of_the_first) <= 1
    both = [members for members in rounds if np.isin(members, [57, 58]).sum() == 2]
    assert not both  # the two captions of image 8


def order_of(pairs: int = 90, group: int = 4, seed: int = 23, by_image: bool = False) -> NeighbourOrder:
    image_of_caption = np.arange(pairs) // 3
    rows = image_of_caption if by_image else np.arange(pairs)
    codes = reduced(Rows(clustered(int(rows.max()) + 1)))
    return NeighbourOrder(codes, rows, image_of_caption, group, seed)


@pytest.mark.parametrize("by_image", [False, True], ids=["captions", "images"])
def test_an_epoch_has_every_pair_once_and_groups_of_different_images(by_image):
    order = order_of(by_image=by_image)(0)
    assert sorted(order) == list(range(90))
    for group in order[:84].reshape(-1, 4):  # three rounds of 30 pairs have 7 whole groups each
        assert len(np.unique(group // 3)) == 4


def test_the_order_is_a_function_of_seed_and_epoch():
    first = order_of()(2)
    again = order_of()
    again(0), again(5)
    assert np.array_equal(again(2), first)
    assert not np.array_equal(order_of()(3), first)
    assert not np.array_equal(order_of(seed=24)(2), first)


def test_the_order_is_pinned():
    """A change here changes every run with hard negatives: it needs a line in CHANGELOG.md."""
    codes = (np.arange(24, dtype=np.int8)[:, None] * np.array([1, -2], dtype=np.int8)) % 11
    order = NeighbourOrder(codes.astype(np.int8), np.arange(24), np.arange(24) // 2, 3, 23)(0)
    assert order[:9].tolist() == [1, 12, 14, 21, 9, 4, 3, 22, 11]


def test_processes_and_steps_share_the_order():
    order = order_of()
    alone = PairSampler(90, 8, 23, order=order)
    parts = [PairSampler(90, 4, 23, rank, 2, order=order) for rank in range(2)]
    for step in range(alone.steps_per_epoch):
        assert np.array_equal(np.concatenate([part.batch(1, step) for part in parts]), alone.batch(1, step))
    assert np.array_equal(alone.epoch(1)[3:], alone.epoch(1, first_step=3))
    assert np.array_equal(np.concatenate(alone.epoch(1)), order(1)[:88])


def hard(tiny_configuration, experiment="contrastive", teacher="text", **settings):
    return configured(tiny_configuration, experiment, hard_negatives={"teacher": teacher, "group": 4}, **settings)


@pytest.mark.parametrize("teacher", ["image", "text"])
def test_only_the_teacher_that_chooses_is_read(tiny_configuration, shapes_data, teacher):
    """A contrastive run needs no teacher otherwise; its features are not loaded into batches."""
    run = hard(tiny_configuration, teacher=teacher)
    assert [features.modality for features in RunInputs.of_training(run).features] == [teacher]
    data = TrainingData(build_student(run.student, run.losses), run, DatasetFolder(shapes_data), Group())
    order = data.sampler.order(0)
    assert sorted(order) == list(range(64))
    assert data.pairs.teacher_text is None
    assert data.pairs.teacher_image is None
    plain = configured(tiny_configuration, "contrastive")
    assert plain.teachers is None
    assert "hard_negatives" not in plain.as_json()


def test_an_interrupted_run_goes_on_with_the_same_batches(tiny_configuration, shapes_data, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    run = hard(tiny_configuration, "cusa")
    train(run, DatasetFolder(shapes_data), tmp_path / "whole")
    interrupted(run, shapes_data, tmp_path / "resumed", monkeypatch)
    train(run, DatasetFolder(shapes_data), tmp_path / "resumed")
    assert weights_sha256(tmp_path / "resumed") == weights_sha256(tmp_path / "whole")
    train(configured(tiny_configuration, "cusa"), DatasetFolder(shapes_data), tmp_path / "random")
    assert weights_sha256(tmp_path / "random") != weights_sha256(tmp_path / "whole")


def test_a_group_larger_than_a_batch_is_refused(tiny_configuration):
    with pytest.raises(ConfigurationError, match=r"hard_negatives.group is 16, but a batch has 8 pairs"):
        configured(tiny_configuration, hard_negatives={"group": 16})


def test_pairs_of_a_stream_cannot_be_chosen(tiny_configuration):
    train_section = {**tiny_configuration["train"], "hard_negatives": {"group": 4}}
    stream = {"url": "http://example.org/shard-{shard}.tar"}
    with pytest.raises(ConfigurationError, match=r"train.hard_negatives.*`stream` reads them in the order"):
        load({**tiny_configuration, "train": train_section, "stream": stream})
