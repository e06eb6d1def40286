"""Negatives that teachers call nearer than the positive: against an oracle in loops and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cusa.config.losses import FalseNegatives, LossConfiguration
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.false_negatives import false_negatives, similarity_to_other_captions
from cusa.losses import CUSALoss, Losses

B, IDS = 7, np.array([0, 0, 1, 2, 3, 4, 4])
POSITIVE = np.array([0.2, 0.1, 1.0, 0.3, 0.05, -0.1, 0.25])
TAU = 0.07


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal((B, 5)) for name in ("cross_image", "cross_text")}
    arrays |= {name: rng.standard_normal((B, 4)) for name in ("teacher_image", "teacher_text")}
    arrays["teacher_image"][3] = arrays["teacher_image"][2] * 2 + 0.1  # nearly the same picture
    return arrays


def is_nearer(settings: FalseNegatives, arrays: dict, teacher: str, i: int, j: int) -> bool:
    own = unit(arrays[f"teacher_{teacher}"])
    positive = POSITIVE[i] if teacher == "text" else 1.0
    if settings.margin_strategy == "absolute":
        return own[i] @ own[j] > positive - settings.margin
    return own[i] @ own[j] > positive * (1 - settings.margin)


def is_left_out(settings: FalseNegatives, arrays: dict, i: int, j: int) -> bool:
    if IDS[i] == IDS[j]:
        return False
    image, text = (is_nearer(settings, arrays, teacher, i, j) for teacher in ("image", "text"))
    return {"image": image, "text": text, "either": image or text, "both": image and text}[settings.teacher]


def oracle(
    settings: FalseNegatives, arrays: dict, reduction: str = "mean", kind: str = "softmax", smoothing: float = 0.0
) -> float:
    """The contrastive loss, entry by entry, of the entries that stay; the mean is over all entries."""
    similarity = unit(arrays["cross_image"]) @ unit(arrays["cross_text"]).T
    stays = np.array([[not is_left_out(settings, arrays, i, j) for j in range(B)] for i in range(B)])
    if kind == "sigmoid":
        signs = np.where(IDS[:, None] == IDS[None, :], 1, -1)
        total = (np.log1p(np.exp(-signs * (similarity / TAU - 10.0))) * stays).sum()
        return total / B**2 if reduction == "mean" else total / B
    total = 0.0
    for matrix in (similarity, similarity.T):
        for i in range(B):
            among = np.exp(matrix[i] / TAU)[stays[i]].sum()
            positives = np.flatnonzero(IDS[i] == IDS)
            label = (1 - smoothing) * np.isin(np.arange(B), positives) / len(positives)
            label += smoothing * stays[i] / stays[i].sum()
            total -= sum(label[j] * (matrix[i, j] / TAU - np.log(among)) for j in range(B)) / 2
    return total / B**2 if reduction == "mean" else total / B


def share_left_out(settings: FalseNegatives, arrays: dict) -> float:
    """Of the pairs of different images, those that are left out."""
    negatives = [(i, j) for i in range(B) for j in range(B) if IDS[i] != IDS[j]]
    return sum(is_left_out(settings, arrays, i, j) for i, j in negatives) / len(negatives)


def loss_of(arrays: dict, contrastive: dict) -> tuple[CUSALoss, dict, Losses]:
    section = {"temperature": {"start": TAU}} | contrastive
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": section})).double()
    loss.temperatures["contrastive"].data.fill_(TAU)  # not the float32 next to it
    needed = {f"teacher_{teacher}" for teacher in loss.configuration.teachers}
    tensors = {
        name: torch.tensor(array, requires_grad=name.startswith("cross"))
        for name, array in arrays.items()
        if name.startswith("cross") or name in needed
    }
    given = dict.fromkeys(("teacher_image", "teacher_text", "uni_image", "uni_text")) | tensors
    return loss, tensors, loss(**given, image_ids=torch.tensor(IDS), positive_text=torch.tensor(POSITIVE))


@pytest.mark.parametrize("teacher", ["image", "text", "either", "both"])
@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.3, 0.9])
def test_what_is_left_out_is_what_the_definition_says(teacher, strategy, margin):
    settings = FalseNegatives(teacher=teacher, margin=margin, margin_strategy=strategy)
    arrays = batch(0)
    similarities = {name: torch.tensor(unit(arrays[f"teacher_{name}"])) for name in settings.teachers}
    similarities = {name: value @ value.T for name, value in similarities.items()}
    same_image = torch.tensor(IDS[:, None] == IDS[None, :])
    found = false_negatives(settings, similarities, torch.tensor(POSITIVE), same_image)
    expected = [[is_left_out(settings, arrays, i, j) for j in range(B)] for i in range(B)]
    assert found.tolist() == expected


def test_the_teachers_disagree_in_these_batches():
    """This shows that the tests here can fail: each teacher leaves out other entries, and none leaves out all."""
    arrays = batch(0)
    masks = set()
    for teacher in ("image", "text", "either", "both"):
        settings = FalseNegatives(teacher=teacher, margin=0.3)
        mask = tuple(is_left_out(settings, arrays, i, j) for i in range(B) for j in range(B))
        assert any(mask)
        assert sum(mask) < B * B - len(np.flatnonzero(IDS[:, None] == IDS))
        masks.add(mask)
    assert len(masks) == 4


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("teacher", ["image", "text", "either", "both"])
def test_value_and_gradients_equal_those_of_the_oracle(teacher, reduction, kind):
    settings, arrays = FalseNegatives(teacher=teacher, margin=0.3), batch(1)
    section = {"false_negatives": settings.model_dump(), "reduction": reduction, "kind": kind}
    _, tensors, found = loss_of(arrays, section)
    assert found.contrastive.item() == pytest.approx(oracle(settings, arrays, reduction, kind), rel=1e-12)
    assert found.left_out_share.item() == pytest.approx(share_left_out(settings, arrays))
    found.contrastive.backward()
    rng, step = np.random.default_rng(2), 1e-6
    for name in ("cross_image", "cross_text"):
        direction = rng.standard_normal(arrays[name].shape)
        sides = [
            oracle(settings, arrays | {name: arrays[name] + sign * step * direction}, reduction, kind)
            for sign in (1, -1)
        ]
        expected = (sides[0] - sides[1]) / (2 * step)
        assert (tensors[name].grad.numpy() * direction).sum() == pytest.approx(expected, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_smoothed_labels_are_spread_over_what_stays(reduction):
    settings, arrays = FalseNegatives(teacher="text", margin=0.2), batch(6)
    section = {"false_negatives": settings.model_dump(), "reduction": reduction, "label_smoothing": 0.2}
    _, tensors, found = loss_of(arrays, section)
    assert found.contrastive.item() == pytest.approx(oracle(settings, arrays, reduction, smoothing=0.2), rel=1e-12)
    found.contrastive.backward()
    assert tensors["cross_text"].grad.isfinite().all()


def test_a_pair_whose_negatives_are_all_left_out_has_no_loss():
    """Every other image is as near as can be: only the positives stay, and their probabilities add up to 1."""
    arrays = batch(3)
    _, tensors, found = loss_of(arrays, {"false_negatives": {"teacher": "text", "margin": 1.0}, "reduction": "sum"})
    arrays["teacher_text"][:] = arrays["teacher_text"][0]
    _, tensors, found = loss_of(arrays, {"false_negatives": {"teacher": "text"}, "reduction": "sum"})
    alone = np.flatnonzero(np.bincount(IDS)[IDS] == 1)[1:]  # pair 2 has no other caption: nothing is above 1
    found.contrastive.backward()
    assert found.contrastive.isfinite()
    assert tensors["cross_image"].grad.isfinite().all()
    gone = oracle(FalseNegatives(teacher="text"), arrays, "sum")
    assert found.contrastive.item() == pytest.approx(gone, rel=1e-9)
    assert len(alone) == 2


def test_float32_and_low_temperatures_stay_finite():
    arrays = {name: torch.tensor(array, dtype=torch.float32) for name, array in batch(4).items()}
    arrays = {name: array.requires_grad_(name.startswith("cross")) for name, array in arrays.items()}
    section = {"temperature": {"start": 0.01}, "false_negatives": {"teacher": "either", "margin": 0.5}}
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": section}))
    positive = torch.tensor(POSITIVE, dtype=torch.float32)
    loss(**arrays, uni_image=None, uni_text=None, image_ids=torch.tensor(IDS), positive_text=positive).total.backward()
    assert all(array.grad.isfinite().all() for name, array in arrays.items() if name.startswith("cross"))


def test_only_the_teachers_that_judge_are_needed():
    configuration = validate(LossConfiguration, {"contrastive": {"false_negatives": {"teacher": "image"}}})
    assert configuration.teachers == ("image",)
    assert not configuration.soft_labels
    assert validate(LossConfiguration, {"contrastive": {}}).teachers == ()
    features = {name: torch.tensor(array) for name, array in batch(5).items()}
    features |= {"teacher_image": None, "uni_image": None, "uni_text": None}
    with pytest.raises(ConfigurationError, match="need teacher_image, but it is None"):
        CUSALoss(configuration)(**features, image_ids=torch.tensor(IDS))


def test_without_the_key_the_configuration_is_written_as_before():
    """So no old run is trained again."""
    written = validate(LossConfiguration, {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}}).as_json()
    assert "false_negatives" not in written
    assert "other_teacher" not in written


class Rows:
    """Features of captions in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.dimension = array, array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows].astype(np.float32)


def test_the_positive_of_a_caption_is_the_mean_of_the_others_of_its_image(monkeypatch):
    monkeypatch.setattr("cusa.false_negatives.BLOCK_ROWS", 4)  # so that images lie in several blocks
    rng = np.random.default_rng(0)
    image_of_caption = np.array([2, 0, 2, 1, 0, 2, 4, 0, 2])  # image 3 has no caption, images 1 and 4 have one
    features = rng.standard_normal((9, 6)).astype(np.float32) + 0.5
    found = similarity_to_other_captions(Rows(features), image_of_caption)
    own = unit(features.astype(np.float64))
    for caption, image in enumerate(image_of_caption):
        others = [other for other in np.flatnonzero(image_of_caption == image) if other != caption]
        expected = np.mean([own[caption] @ own[other] for other in others]) if others else 1.0
        assert found[caption] == pytest.approx(expected, abs=1e-6), caption
