"""The losses against a float64 oracle written from the formulas, values and gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cusa.benchmarks.published_results import method_of
from cusa.config.losses import LOSS_TERMS, LossConfiguration
from cusa.config.section import validate
from cusa.errors import ConfigurationError
from cusa.export.model_card import loss_lines
from cusa.losses import CUSALoss

B, D, IDS = 6, 5, np.array([0, 0, 1, 2, 2, 2])
NAMES = ("cross_image", "cross_text", "uni_image", "uni_text", "teacher_image", "teacher_text")


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reduce_entries(entries: np.ndarray, reduction: str) -> float:
    return entries.mean() if reduction == "mean" else entries.sum(axis=1).mean()


def align(logits, labels, tau, tau_teacher, settings) -> float:
    target, found = softmax(labels / tau_teacher), softmax(logits / tau)
    if settings["loss"] == "kl":
        return sum((target[i] * (np.log(target[i]) - np.log(found[i]))).sum() for i in range(len(logits))) / len(logits)
    return reduce_entries(-np.log(found) * target, settings["reduction"])


def mixture(images: np.ndarray, texts: np.ndarray, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    share = settings.get("other_teacher", 0.0)  # left out where it is 0
    return (1 - share) * images + share * texts, (1 - share) * texts + share * images


def oracle(arrays: dict, taus: dict, configuration: LossConfiguration, ids=IDS) -> dict[str, float]:
    """The page of formulas, in loops and float64. `taus` maps a family to its (image, text) temperatures."""
    settings = configuration.model_dump()
    out = {"contrastive": 0.0, "cross": 0.0, "uni": 0.0}
    s = unit(arrays["cross_image"]) @ unit(arrays["cross_text"]).T
    t_v = unit(arrays["teacher_image"]) @ unit(arrays["teacher_image"]).T
    t_t = unit(arrays["teacher_text"]) @ unit(arrays["teacher_text"]).T
    if c := settings["contrastive"]:
        p = np.array([[float(i == j) for j in ids] for i in ids])
        p /= p.sum(axis=1, keepdims=True)
        p = (1 - c.get("label_smoothing", 0)) * p + c.get("label_smoothing", 0) / len(ids)
        terms = [reduce_entries(-np.log(softmax(x / taus["contrastive"][0])) * p, c["reduction"]) for x in (s, s.T)]
        out["contrastive"] = c["rate"] * sum(terms) / 2
    if c := settings["cross_softlabel"]:
        images, texts = mixture(t_v, t_t, c)
        if c["mode"] == "add":
            images = texts = (t_v + t_t) / 2
        if c["mode"] == "dot":
            images = texts = np.sqrt(np.maximum(t_v, 0) * np.maximum(t_t, 0))
        (a, b), (ta, tb) = taus["cross"], taus["cross_teacher"]
        out["cross"] = c["rate"] * (align(s, images, a, ta, c) + align(s.T, texts, b, tb, c)) / 2
    if c := settings["uni_softlabel"]:
        u_v = unit(arrays["uni_image"]) @ unit(arrays["uni_image"]).T
        u_t = unit(arrays["uni_text"]) @ unit(arrays["uni_text"]).T
        (a, b), (ta, tb) = taus["uni"], taus["uni_teacher"]
        images, texts = mixture(t_v, t_t, c)
        out["uni"] = c["rate"] * (align(u_v, images, a, ta, c) + align(u_t, texts, b, tb, c)) / 2
    return out


def pair(image, text, **more):
    return {
        "image": {"start": image, "min": 0.02, "max": 1.5},
        "text": {"start": text, "min": 0.02, "max": 1.5},
        **more,
    }


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((B, D + (2 if "teacher" in name else 0))) for name in NAMES}


def run(configuration: LossConfiguration, arrays: dict, ids=IDS):
    loss = CUSALoss(configuration).double()
    tensors = {name: torch.tensor(array, requires_grad="teacher" not in name) for name, array in arrays.items()}
    return loss, tensors, loss(**tensors, image_ids=torch.tensor(ids))


def families(**changes):
    cross = {"rate": 0.3, "temperature": pair(0.4, 0.5), "teacher_temperature": pair(0.9, 0.3, learned=True)}
    uni = {"rate": 0.7, "temperature": pair(0.6, 0.2), "teacher_temperature": pair(0.8, 0.7, learned=True)}
    contrastive = {"rate": 1.2, "temperature": {"start": 0.07}}
    return {
        "contrastive": contrastive | changes.get("contrastive", {}),
        "cross_softlabel": cross | changes.get("cross_softlabel", {}),
        "uni_softlabel": uni | changes.get("uni_softlabel", {}),
    }


def taus_of_contrastive(loss: CUSALoss) -> dict[str, tuple[float]]:
    return {"contrastive": (float(loss.temperature("contrastive").detach()),)}


def taus_of(loss: CUSALoss) -> dict[str, tuple[float, float]]:
    both = {}
    for name in ("contrastive", "cross", "cross_teacher", "uni", "uni_teacher"):
        both[name] = tuple(float(loss.temperature(name, modality).detach()) for modality in ("image", "text"))
    return both


@pytest.mark.parametrize(
    ("mode", "soft_loss", "reduction", "tied"),
    list(itertools.product(("each", "add", "dot"), ("kl", "contrastive"), ("mean", "sum"), (True, False))),
)
def test_value_equals_the_formulas(mode, soft_loss, reduction, tied):
    soft = {"loss": soft_loss, "reduction": reduction}
    configuration = validate(
        LossConfiguration,
        families(
            contrastive={"reduction": reduction},
            cross_softlabel={**soft, "mode": mode, "temperature": pair(0.4, 0.5, tied=tied)},
            uni_softlabel=soft,
        ),
    )
    arrays = batch()
    loss, _, found = run(configuration, arrays)
    expected = oracle(arrays, taus_of(loss), configuration)
    for name, value in expected.items():
        assert getattr(found, name).item() == pytest.approx(value, rel=1e-12), name
    assert found.total.item() == pytest.approx(sum(expected.values()), rel=1e-12)


@pytest.mark.parametrize("name", LossConfiguration.model_fields)
def test_every_loss_alone_is_trained_named_and_described(name):
    """The places that docs/extending.md lists for a new loss."""
    alone = validate(LossConfiguration, {name: {}})
    assert alone.heads
    assert len(loss_lines(alone)) == 1
    assert method_of(alone) == ("contrastive" if name == "contrastive" else None)
    _, tensors, losses = run(alone, batch())
    nonzero = [term for term in LOSS_TERMS if getattr(losses, term) != 0]
    assert len(nonzero) == 1
    assert len(LOSS_TERMS) == len(LossConfiguration.model_fields)
    total, *terms = losses.terms()
    assert total == losses.total == sum(terms) == getattr(losses, nonzero[0])
    total.backward()
    assert any(tensor.grad is not None and tensor.grad.any() for tensor in tensors.values())
    detached = losses.detached()
    assert [term.requires_grad for term in detached.terms()] == [False] * (1 + len(LOSS_TERMS))
    assert [float(term) for term in detached.terms()] == [float(total), *map(float, terms)]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_smoothed_labels_equal_the_formula_and_torch(reduction):
    keys = {"reduction": reduction, "label_smoothing": 0.2, "temperature": {"start": 0.07}}
    configuration = validate(LossConfiguration, {"contrastive": keys})
    arrays = batch(3)
    loss, tensors, found = run(configuration, arrays)
    expected = oracle(arrays, taus_of_contrastive(loss), configuration)["contrastive"]
    assert found.contrastive.item() == pytest.approx(expected, rel=1e-12)
    ids = np.arange(B)  # without further positives it is torch's
    _, tensors, found = run(configuration, arrays, ids)
    image, text = (torch.nn.functional.normalize(tensors[f"cross_{side}"]) for side in ("image", "text"))
    theirs = [
        torch.nn.functional.cross_entropy(each / 0.07, torch.arange(B), label_smoothing=0.2)
        for each in (image @ text.T, text @ image.T)
    ]
    expected = sum(theirs).item() / 2 / (B if reduction == "mean" else 1)
    assert found.contrastive.item() == pytest.approx(expected, rel=1e-7)


def test_labels_of_the_sigmoid_loss_are_not_smoothed():
    with pytest.raises(ConfigurationError, match="label_smoothing is 0.1, but kind is `sigmoid`"):
        validate(LossConfiguration, {"contrastive": {"kind": "sigmoid", "label_smoothing": 0.1}})


@pytest.mark.parametrize("soft_loss", ["kl", "contrastive"])
def test_soft_labels_at_a_mixture_of_both_teachers(soft_loss):
    """Each family has its own share of the other modality's teacher; with half of each, both directions are alike."""
    cross, uni = {"other_teacher": 0.3, "loss": soft_loss}, {"other_teacher": 0.8, "loss": soft_loss}
    configuration = validate(LossConfiguration, families(cross_softlabel=cross, uni_softlabel=uni))
    arrays = batch(7)
    loss, tensors, found = run(configuration, arrays)
    expected = oracle(arrays, taus_of(loss), configuration)
    plain = oracle(arrays, taus_of(loss), validate(LossConfiguration, families()))
    for name in ("cross", "uni"):
        assert getattr(found, name).item() == pytest.approx(expected[name], rel=1e-12), name
        assert abs(expected[name] - plain[name]) > 1e-4, name
    found.total.backward()
    rng, step = np.random.default_rng(8), 1e-6
    for name in NAMES[:4]:
        direction = rng.standard_normal(arrays[name].shape)
        moved = [arrays | {name: arrays[name] + sign * step * direction} for sign in (1, -1)]
        above, below = (sum(oracle(each, taus_of(loss), configuration).values()) for each in moved)
        found_slope = (tensors[name].grad.numpy() * direction).sum()
        assert found_slope == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-9), name


def test_half_of_the_other_teacher_is_the_mode_add():
    tied = pair(0.4, 0.4, tied=True)
    values = []
    for changes in ({"other_teacher": 0.5}, {"mode": "add"}):
        section = {"temperature": tied, "teacher_temperature": tied} | changes
        values.append(run(validate(LossConfiguration, {"cross_softlabel": section}), batch(9))[2].cross.item())
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    with pytest.raises(ConfigurationError, match="mode `dot` has its own mixture"):
        validate(LossConfiguration, {"cross_softlabel": {"mode": "dot", "other_teacher": 0.2}})


@pytest.mark.parametrize("mode", ["each", "add", "dot"])
@pytest.mark.parametrize("soft_loss", ["kl", "contrastive"])
def test_gradients_equal_finite_differences_of_the_oracle(mode, soft_loss):
    configuration = validate(
        LossConfiguration,
        families(cross_softlabel={"mode": mode, "loss": soft_loss}, uni_softlabel={"loss": soft_loss}),
    )
    arrays = batch(1)
    loss, tensors, found = run(configuration, arrays)
    found.total.backward()
    rng, step = np.random.default_rng(2), 1e-6
    for name in NAMES[:4]:
        direction = rng.standard_normal(arrays[name].shape)
        sides = []
        for sign in (1, -1):
            moved = arrays | {name: arrays[name] + sign * step * direction}
            sides.append(sum(oracle(moved, taus_of(loss), configuration).values()))
        expected = (sides[0] - sides[1]) / (2 * step)
        assert (tensors[name].grad.numpy() * direction).sum() == pytest.approx(expected, rel=1e-6, abs=1e-9), name
    for name, parameter in loss.temperatures.items():
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
            sides.append(sum(oracle(arrays, taus_of(loss), configuration).values()))
            with torch.no_grad():
                parameter -= sign * step
        expected = (sides[0] - sides[1]) / (2 * step)
        assert parameter.grad.item() == pytest.approx(expected, rel=1e-5, abs=1e-9), name


@pytest.mark.parametrize("tau", [0.002, 0.01, 0.019, 0.05])
def test_low_teacher_temperatures_have_the_gradients_of_the_formula(tau):
    """In float32, soft labels below 1e-45 are 0. Their terms and gradients vanish; autograd alone makes them NaN."""
    bounds = {"start": tau, "min": 0.001, "max": 1.0}
    teacher = {"image": bounds, "text": bounds, "tied": True, "learned": True}
    configuration = validate(
        LossConfiguration,
        {"contrastive": None, "cross_softlabel": {"teacher_temperature": teacher}, "uni_softlabel": None},
    )
    arrays = batch(3)
    arrays["teacher_image"][1] = -arrays["teacher_image"][0]  # as unlike as can be
    loss = CUSALoss(configuration)
    tensors = {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}
    tensors = {name: tensor.requires_grad_("cross" in name) for name, tensor in tensors.items()}
    found = loss(**tensors, image_ids=torch.from_numpy(IDS))
    found.total.backward()

    def in_logarithms(teacher_tau: float) -> float:
        """The same loss in float64, where logarithms keep what exponentials lose."""
        total = 0.0
        s = unit(arrays["cross_image"]) @ unit(arrays["cross_text"]).T
        for logits, name in ((s, "teacher_image"), (s.T, "teacher_text")):
            labels = unit(arrays[name]) @ unit(arrays[name]).T / teacher_tau
            log_target = labels - np.logaddexp.reduce(labels, axis=1, keepdims=True)
            logits = logits / loss.temperatures["cross"].item()
            log_found = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            total += (np.exp(log_target) * (log_target - log_found)).sum() / len(logits)
        return configuration.cross_softlabel.rate * total / 2

    start = loss.temperatures["cross_teacher"].item()
    assert found.total.item() == pytest.approx(in_logarithms(start), rel=1e-5)
    expected = (in_logarithms(start * 1.0001) - in_logarithms(start * 0.9999)) / (0.0002 * start)
    assert loss.temperatures["cross_teacher"].grad.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert all(tensor.grad.isfinite().all() for name, tensor in tensors.items() if "cross" in name)


def test_labels_that_are_not_zero_keep_their_bits(monkeypatch):
    """Old runs go on as they were: the choice between labels and 0 changes neither values nor gradients."""
    bounds = {"start": 0.3, "min": 0.1, "max": 1.0}
    teacher = {"image": bounds, "text": bounds, "learned": True}
    configuration = validate(LossConfiguration, families(cross_softlabel={"teacher_temperature": teacher}))
    outcomes = []
    for where in (torch.where, lambda _, labels, zero: labels):
        monkeypatch.setattr(torch, "where", where)
        loss, tensors, found = run(configuration, batch(2))
        found.total.backward()
        gradients = [value.grad for value in (*loss.parameters(), *tensors.values()) if value.grad is not None]
        outcomes.append([found.total.detach(), *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


def test_two_forward_passes_before_one_backward_pass():
    """Both graphs hold the temperatures, which the second pass clamps again."""
    configuration = validate(LossConfiguration, families())
    loss, _, first = run(configuration, batch(1))
    second = loss(**{name: torch.tensor(array) for name, array in batch(2).items()}, image_ids=torch.from_numpy(IDS))
    (first.total + second.total).backward()
    together = {name: value.grad.clone() for name, value in loss.temperatures.items()}
    loss.zero_grad()
    for number in (1, 2):
        loss(
            **{name: torch.tensor(array) for name, array in batch(number).items()}, image_ids=torch.from_numpy(IDS)
        ).total.backward()
    for name, value in loss.temperatures.items():
        torch.testing.assert_close(value.grad, together[name], msg=name)


def test_temperatures_are_reported_as_they_are_used():
    """A step moves a parameter out of its bounds; the next forward pass clamps it before anything reads it."""
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": {}}))
    with torch.no_grad():
        loss.temperatures["contrastive"].fill_(0.101)
    assert loss.temperature_values() == {"contrastive": 0.1}
    assert loss.temperatures["contrastive"].item() == pytest.approx(0.101)
    with torch.no_grad():
        loss.temperatures["contrastive"].fill_(-1.0)
    assert loss.temperature_values() == {"contrastive": 0.01}


def test_published_defaults():
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}}))
    learned = {name: parameter.requires_grad for name, parameter in loss.temperatures.items()}
    assert learned == {
        "contrastive": True,
        "cross": True,
        "cross_teacher": False,
        "uni_image": True,
        "uni_text": True,
        "uni_teacher": False,
    }
    values = loss.temperature_values()
    assert values["contrastive"] == pytest.approx(0.05)
    assert values["cross"] == pytest.approx(0.45)
    assert loss.bounds["contrastive"] == (0.01, 0.10)
    assert loss.bounds["cross"] == pytest.approx((0.10, 0.99))


def sigmoid_oracle(arrays: dict, tau: float, bias: float, reduction: str, ids=IDS) -> float:
    """SigLIP's loss, pair by pair. A pair belongs together where the images are the same, whoever's caption it is."""
    similarity = unit(arrays["cross_image"]) @ unit(arrays["cross_text"]).T
    rows = []
    for i in range(len(ids)):
        signs = [1.0 if ids[i] == ids[j] else -1.0 for j in range(len(ids))]
        rows.append([np.log1p(np.exp(-y * (similarity[i, j] / tau + bias))) for j, y in enumerate(signs)])
    return float(np.mean(rows) if reduction == "mean" else np.sum(rows) / len(ids))


def sigmoid(**keys) -> LossConfiguration:
    section = {"kind": "sigmoid", "rate": 1.3, "temperature": {"start": 0.08}, "bias": {"start": -4.5}}
    return validate(LossConfiguration, {"contrastive": section | keys})


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_sigmoid_loss_equals_the_formula_and_so_do_its_gradients(reduction):
    arrays, configuration = batch(4), sigmoid(reduction=reduction)
    loss, tensors, found = run(configuration, arrays)

    def expected(moved: dict, tau: float = 0.08, bias: float = -4.5) -> float:
        return 1.3 * sigmoid_oracle(moved, tau, bias, reduction)

    assert found.contrastive.item() == pytest.approx(expected(arrays), rel=1e-7)  # the scalars were float32 once
    found.total.backward()
    rng, step = np.random.default_rng(5), 1e-6
    for name in NAMES[:2]:
        direction = rng.standard_normal(arrays[name].shape)
        sides = [expected(arrays | {name: arrays[name] + sign * step * direction}) for sign in (1, -1)]
        slope = (sides[0] - sides[1]) / (2 * step)
        assert (tensors[name].grad.numpy() * direction).sum() == pytest.approx(slope, rel=1e-6), name
    slope = (expected(arrays, bias=-4.5 + step) - expected(arrays, bias=-4.5 - step)) / (2 * step)
    assert loss.bias.grad.item() == pytest.approx(slope, rel=1e-6)
    slope = (expected(arrays, tau=0.08 + step) - expected(arrays, tau=0.08 - step)) / (2 * step)
    assert loss.temperatures["contrastive"].grad.item() == pytest.approx(slope, rel=1e-5)


def test_the_sigmoid_loss_of_single_positives_equals_open_clip():
    from open_clip.loss import SigLipLoss

    configuration, arrays = sigmoid(reduction="sum", rate=1.0), batch(6)
    _, tensors, found = run(configuration, arrays, ids=np.arange(B))
    image, text = (torch.nn.functional.normalize(tensors[name], dim=1) for name in NAMES[:2])
    expected = SigLipLoss()(image, text, torch.tensor(1 / 0.08), torch.tensor(-4.5))
    assert found.contrastive.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_bias_of_the_sigmoid_loss_starts_as_siglip_does_and_can_be_fixed():
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": {"kind": "sigmoid"}}))
    assert loss.bias_values() == {"bias_contrastive": -10.0}
    assert loss.bias.requires_grad
    assert loss.bias.ndim == 1  # so that weight decay leaves it alone
    fixed = CUSALoss(sigmoid(bias={"start": 0.5, "learned": False}))
    assert not fixed.bias.requires_grad
    assert fixed.bias_values() == {"bias_contrastive": 0.5}
    assert CUSALoss(validate(LossConfiguration, {"contrastive": {}})).bias_values() == {}


def test_far_similarities_stay_finite_in_the_sigmoid_loss():
    loss = CUSALoss(sigmoid(temperature={"start": 0.01}, bias={"start": -1e4}))
    features = {name: torch.randn(4, 3, requires_grad=True) if "cross" in name else None for name in NAMES}
    found = loss(**features, image_ids=torch.arange(4))
    found.total.backward()
    assert found.total.isfinite()
    assert features["cross_image"].grad.isfinite().all()


def test_a_bias_without_a_sigmoid_is_refused():
    with pytest.raises(ConfigurationError, match="bias is set, but kind is `softmax`, which has none"):
        validate(LossConfiguration, {"contrastive": {"bias": {}}})


def test_the_kind_that_is_published_is_left_out_of_the_json_of_earlier_releases():
    assert validate(LossConfiguration, {"contrastive": {}}).as_json().count("kind") == 0
    assert validate(LossConfiguration, {"contrastive": {"kind": "sigmoid"}}).as_json().count('"kind": "sigmoid"') == 1


def test_mean_reduction_is_a_batch_size_smaller_than_sum():
    arrays = batch()
    values = []
    for reduction in ("mean", "sum"):
        configuration = validate(LossConfiguration, {"contrastive": {"reduction": reduction}})
        values.append(run(configuration, arrays)[2].contrastive.item())
    assert values[0] * B == pytest.approx(values[1], rel=1e-12)


def test_temperatures_outside_their_bounds_are_clamped_on_the_first_step():
    configuration = validate(LossConfiguration, {"contrastive": {"temperature": {"start": 3.0, "learned": False}}})
    loss, _, found = run(configuration, batch())
    assert loss.temperature_values()["contrastive"] == pytest.approx(0.10)
    expected = oracle(batch(), {"contrastive": (0.10, 0.10)}, configuration)["contrastive"]
    assert found.contrastive.item() == pytest.approx(expected)


def test_a_learned_temperature_stays_in_its_bounds():
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": {}}))
    optimiser = torch.optim.SGD(loss.parameters(), lr=1e4)
    for _ in range(3):
        found = loss(
            **{name: torch.randn(4, 3) if "cross" in name else None for name in NAMES}, image_ids=torch.arange(4)
        )
        optimiser.zero_grad()
        found.total.backward()
        optimiser.step()
    loss.clamp_temperatures()
    low, high = np.float32([0.01, 0.10])
    assert low <= loss.temperature_values()["contrastive"] <= high


def test_tied_temperatures_start_at_the_mean_and_have_mean_bounds():
    tied = {
        "image": {"start": 0.2, "min": 0.1, "max": 0.8},
        "text": {"start": 0.6, "min": 0.3, "max": 1.0},
        "tied": True,
    }
    loss = CUSALoss(validate(LossConfiguration, {"cross_softlabel": {"temperature": tied}}))
    assert loss.temperature("cross", "image") is loss.temperature("cross", "text")
    assert loss.temperature_values()["cross"] == pytest.approx(0.4)
    assert loss.bounds["cross"] == pytest.approx((0.2, 0.9))


@pytest.mark.parametrize("mode", ["add", "dot"])
def test_add_and_dot_always_tie(mode):
    untied = pair(0.3, 0.5, tied=False)
    section = {"mode": mode, "temperature": untied, "teacher_temperature": untied}
    loss = CUSALoss(validate(LossConfiguration, {"cross_softlabel": section}))
    assert set(loss.temperature_values()) == {"cross", "cross_teacher"}


def test_usa_can_share_the_temperatures_of_csa():
    shared = {"temperature": "cross", "teacher_temperature": "cross"}
    loss = CUSALoss(validate(LossConfiguration, {"cross_softlabel": {}, "uni_softlabel": shared}))
    assert loss.temperature("uni", "image") is loss.temperature("cross", "image")
    assert loss.temperature("uni_teacher", "text") is loss.temperature("cross_teacher", "text")


def test_soft_labels_without_teachers_are_refused():
    loss = CUSALoss(validate(LossConfiguration, {"uni_softlabel": {}}))
    with pytest.raises(ConfigurationError, match="need teacher_image, but it is None"):
        loss(**dict.fromkeys(NAMES), image_ids=torch.arange(4))


def test_a_family_that_is_off_needs_no_head():
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": {}}))
    features = {name: torch.randn(4, 3) if "cross" in name else None for name in NAMES}
    found = loss(**features, image_ids=torch.arange(4))
    assert (found.cross.item(), found.uni.item()) == (0.0, 0.0)


def test_bfloat16_heads_are_computed_in_float32():
    loss = CUSALoss(validate(LossConfiguration, {"contrastive": {}}))
    features = {name: torch.randn(4, 3).bfloat16() if "cross" in name else None for name in NAMES}
    assert loss(**features, image_ids=torch.arange(4)).total.dtype == torch.float32


def test_memory_of_a_process_grows_with_its_own_pairs():
    """With the rows of 16 processes gathered, no tensor is larger than b x B, or than the B gathered rows."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            if isinstance(result, torch.Tensor):
                self.elements = max(self.elements, result.numel())
            return result

    own, others, dimension = 8, 16, 4
    features = {name: torch.randn(own, dimension, requires_grad="teacher" not in name) for name in NAMES}
    loss = CUSALoss(validate(LossConfiguration, families()))
    with Largest() as largest:
        losses = loss(**features, image_ids=torch.arange(own), gather_rows=lambda rows: torch.cat([rows] * others))
        losses.total.backward()
    assert largest.elements == own * own * others
