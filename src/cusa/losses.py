"""The CUSA loss: contrastive + cross-modal (CSA) + uni-modal (USA) soft-label alignment.

Huang et al., AAAI 2024 (arXiv 2403.05261), as its released code computes it. With B pairs a batch:

    S   = cross_image @ cross_text.T            U_v, U_t = uni_image @ uni_image.T, uni_text @ uni_text.T
    P   = [id_i == id_j], rows divided by sum    T_v, T_t = the teachers' cosine similarities

    contrastive = rate * (c(S) + c(S.T)) / 2,              c(X) = reduce(-log_softmax(X / tau) * P)
    CSA         = rate * (kd(S, T_v) + kd(S.T, T_t)) / 2,  kd(X, T) = KL(softmax(T / tau_T) || softmax(X / tau))
    USA         = rate * (kd(U_v, T_v) + kd(U_t, T_t)) / 2

    with contrastive.kind sigmoid (SigLIP: Zhai et al., ICCV 2023, arXiv 2303.15343), for the signs y_ij = 1 if
    id_i == id_j, else -1:    contrastive = rate * reduce(-log sigmoid(y_ij * (S_ij / tau + bias)))

With `other_teacher` m, T_v becomes (1 - m) T_v + m T_t, and T_t the other way round. With `false_negatives`, the
contrastive loss leaves entries out (see false_negatives.py); what is averaged over stays the same.

All embeddings are L2-normalised first. Everything is computed in the precision of the inputs, at least float32.

Several processes with b pairs each can compute the loss of all B = b * processes pairs (`gather_rows`). Each process
computes its b rows of every matrix, [b, B]. The mean of the processes' losses is the loss of the whole batch, and the
mean of their gradients, which DistributedDataParallel computes, is its gradient. The memory of a process grows with
b * B, not with B * B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cusa.config.losses import (
    LOSS_TERMS,
    Contrastive,
    CrossSoftLabel,
    LossConfiguration,
    SigmoidBias,
    TemperaturePair,
    TemperatureRange,
    UniSoftLabel,
)
from cusa.false_negatives import false_negatives, leave_out
from cusa.teacher_similarities import GatherRows, normalised, teacher_similarity


@dataclass
class Losses:
    """The terms, scalars, named as in LOSS_TERMS and multiplied by their rates; a term whose loss is off is 0.

    `left_out_share` is the share of the negatives that the contrastive loss leaves out, a scalar from 0 to 1; None
    if none is judged.
    """

    contrastive: Tensor
    cross: Tensor
    uni: Tensor
    left_out_share: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The sum of the terms, which training minimises."""
        return reduce(torch.add, self._named_terms().values())

    def _named_terms(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in LOSS_TERMS}

    def terms(self) -> tuple[Tensor, ...]:
        """The total, then each term, in the order of LOSS_TERMS."""
        return self.total, *self._named_terms().values()

    def numbers(self) -> tuple[Tensor, ...]:
        """What history.parquet has of a batch: the terms, and the share of negatives left out if they are judged."""
        return self.terms() if self.left_out_share is None else (*self.terms(), self.left_out_share)

    def detached(self) -> Losses:
        """The same values without the graph of their computation."""
        return replace(self, **{name: term.detach() for name, term in self._named_terms().items()})


class CUSALoss(nn.Module):
    """The loss and its temperatures, some of which are learned; the module's docstring has the formulas."""

    def __init__(self, configuration: LossConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        self.temperatures = nn.ParameterDict()
        self.bias: nn.Parameter | None = None
        self.bounds: dict[str, tuple[float, float]] = {}
        self.half_teachers = False  # whether teachers are compared in float16, see teacher_similarities.py
        if (contrastive := configuration.contrastive) is not None:
            self._add("contrastive", contrastive.temperature, contrastive.temperature.learned)
            if contrastive.kind == "sigmoid":
                bias = contrastive.bias or SigmoidBias()
                # It has one dimension, so that weight decay does not draw it to 0.
                self.bias = nn.Parameter(torch.tensor([bias.start]), requires_grad=bias.learned)
        if (cross := configuration.cross_softlabel) is not None:
            tied = cross.mode != "each"
            self._add_pair("cross", cross.temperature, tied)
            self._add_pair("cross_teacher", cross.teacher_temperature, tied)
        if (uni := configuration.uni_softlabel) is not None:
            if uni.temperature != "cross":
                self._add_pair("uni", uni.temperature)
            if uni.teacher_temperature != "cross":
                self._add_pair("uni_teacher", uni.teacher_temperature)

    def _add(self, name: str, settings: TemperatureRange, learned: bool) -> None:
        self.temperatures[name] = nn.Parameter(torch.tensor(settings.start), requires_grad=learned)
        self.bounds[name] = (settings.min, settings.max)

    def _add_pair(self, name: str, pair: TemperaturePair, always_tied: bool = False) -> None:
        if pair.tied or always_tied:
            self._add(name, tied_range(pair), pair.learned)
        else:
            self._add(f"{name}_image", pair.image, pair.learned)
            self._add(f"{name}_text", pair.text, pair.learned)

    def clamp_temperatures(self) -> None:
        """Clamp every temperature to its bounds; each forward pass begins with this, as in the published code.

        An earlier forward pass may still need its backward pass. Its values are within the bounds, so clamping them
        again changes nothing. `data` hides the clamping from autograd, which would report a change.
        """
        for name, (low, high) in self.bounds.items():
            self.temperatures[name].data.clamp_(low, high)

    def temperature(self, name: str, modality: str | None = None) -> Tensor:
        """One temperature, a scalar: `name` is contrastive, cross, cross_teacher, uni or uni_teacher.

        `modality` is image or text, and is ignored if both share a temperature. Only this method resolves shared and
        tied temperatures.
        """
        uni = self.configuration.uni_softlabel
        if uni is not None and name == "uni" and uni.temperature == "cross":
            name = "cross"
        if uni is not None and name == "uni_teacher" and uni.teacher_temperature == "cross":
            name = "cross_teacher"
        key = name if name in self.temperatures else f"{name}_{modality}"
        value: Tensor = self.temperatures[key]
        return value

    def temperature_values(self) -> dict[str, float]:
        """The value of every temperature by its name in `temperatures`, within its bounds.

        An optimiser step may have moved a parameter out of them; the next forward pass uses the value returned here.
        """
        return {name: self._within_bounds(name, float(value.detach())) for name, value in self.temperatures.items()}

    def _within_bounds(self, name: str, value: float) -> float:
        low, high = self.bounds[name]
        return min(max(value, low), high)

    def bias_values(self) -> dict[str, float]:
        """The value of the bias of the sigmoid by its name in the history; empty without one."""
        return {} if self.bias is None else {"bias_contrastive": float(self.bias.detach())}

    def named_values(self, numbers: Sequence[float]) -> dict[str, float]:
        """The values of `scalars`, in their order, by their names in the history; temperatures within their bounds."""
        values = dict(zip(self.scalars(), numbers, strict=True))
        biases = {} if self.bias is None else {"bias_contrastive": values.pop("bias")}
        return {f"temperature_{name}": self._within_bounds(name, value) for name, value in values.items()} | biases

    def scalars(self) -> dict[str, nn.Parameter]:
        """The parameters of the loss, learned or not, by their names: the temperatures and `bias`."""
        return dict(self.temperatures) | ({} if self.bias is None else {"bias": self.bias})

    def forward(
        self,
        *,
        cross_image: Tensor | None,
        cross_text: Tensor | None,
        uni_image: Tensor | None,
        uni_text: Tensor | None,
        teacher_image: Tensor | None,
        teacher_text: Tensor | None,
        image_ids: Tensor,
        gather_rows: GatherRows | None = None,
        positive_text: Tensor | None = None,
        teacher_image_rows: Tensor | None = None,
    ) -> Losses:
        """Compute the losses of a batch.

        Head outputs are float [B, D], not normalised; None if their family is off. Teacher features are float [B, d],
        not normalised; None if no loss needs that teacher. `image_ids` is int64 [B], equal for captions of one image.
        `gather_rows` turns this process's rows [b, ...] into those of all processes [B, ...], as `Group.gather_rows`
        does. With it the losses are this process's share (see the module's docstring), without it those of its own
        batch. `positive_text` is float [B], see false_negatives.py. Raises ConfigurationError if an input is None that
        a loss needs.
        """
        self.clamp_temperatures()
        zero = torch.zeros((), device=image_ids.device)
        losses = Losses(zero, zero, zero)
        features = {"image": (teacher_image, teacher_image_rows), "text": (teacher_text, None)}
        with torch.no_grad():  # the teachers are frozen; only their temperatures may be learned
            teachers = {
                modality: teacher_similarity(
                    f"teacher_{modality}", *features[modality], gather_rows, self.half_teachers
                )
                for modality in self.configuration.teachers
            }
        if "cross" in self.configuration.heads:
            image, text = normalised("cross_image", cross_image), normalised("cross_text", cross_text)
            if gather_rows is None:
                image_to_text = image @ text.T
                text_to_image = image_to_text.T
            else:
                image_to_text, text_to_image = image @ gather_rows(text).T, text @ gather_rows(image).T
            if (contrastive := self.configuration.contrastive) is not None:
                all_ids = image_ids if gather_rows is None else gather_rows(image_ids)
                same_image = image_ids[:, None] == all_ids[None, :]
                left_out = None
                if (settings := contrastive.false_negatives) is not None:
                    left_out = false_negatives(settings, teachers, positive_text, same_image)
                    losses.left_out_share = left_out.sum() / (~same_image).sum().clamp(min=1)
                losses.contrastive = self._contrastive(contrastive, image_to_text, text_to_image, same_image, left_out)
            if (cross := self.configuration.cross_softlabel) is not None:
                targets = mixed(teachers["image"], teachers["text"], cross.other_teacher)
                losses.cross = self._cross(cross, image_to_text, text_to_image, *targets)
        if (uni := self.configuration.uni_softlabel) is not None:
            targets = mixed(teachers["image"], teachers["text"], uni.other_teacher)
            images = _self_similarity("uni_image", uni_image, gather_rows)
            texts = _self_similarity("uni_text", uni_text, gather_rows)
            losses.uni = self._uni(uni, images, texts, *targets)
        return losses

    def _contrastive(
        self,
        settings: Contrastive,
        image_to_text: Tensor,
        text_to_image: Tensor,
        same_image: Tensor,
        left_out: Tensor | None,
    ) -> Tensor:
        temperature = self.temperature("contrastive")
        if self.bias is not None:  # the rows of the images contain every pair, so those of the texts add nothing
            logits = leave_out(image_to_text / temperature + self.bias, left_out)
            return settings.rate * sigmoid_loss(logits, same_image, settings.reduction)
        positives = same_image.to(image_to_text.dtype)
        positives = positives / positives.sum(dim=1, keepdim=True)
        if smoothing := settings.label_smoothing:
            positives = (1 - smoothing) * positives + smoothing * evenly(positives, left_out)
        image_loss = cross_entropy(leave_out(image_to_text / temperature, left_out), positives, settings.reduction)
        text_loss = cross_entropy(leave_out(text_to_image / temperature, left_out), positives, settings.reduction)
        return settings.rate * (image_loss + text_loss) / 2

    def _cross(
        self, settings: CrossSoftLabel, image_to_text: Tensor, text_to_image: Tensor, images: Tensor, texts: Tensor
    ) -> Tensor:
        if settings.mode == "add":
            images = texts = (images + texts) / 2
        elif settings.mode == "dot":
            images = texts = geometric_mean(images, texts)
        image_loss = self._align(settings, image_to_text, images, "cross", "image")
        text_loss = self._align(settings, text_to_image, texts, "cross", "text")
        return settings.rate * (image_loss + text_loss) / 2

    def _uni(
        self,
        settings: UniSoftLabel,
        images: Tensor,
        texts: Tensor,
        teacher_images: Tensor,
        teacher_texts: Tensor,
    ) -> Tensor:
        image_loss = self._align(settings, images, teacher_images, "uni", "image")
        text_loss = self._align(settings, texts, teacher_texts, "uni", "text")
        return settings.rate * (image_loss + text_loss) / 2

    def _align(
        self,
        settings: CrossSoftLabel | UniSoftLabel,
        logits: Tensor,
        teacher: Tensor,
        name: str,
        modality: str,
    ) -> Tensor:
        soft_labels = F.softmax(teacher / self.temperature(f"{name}_teacher", modality), dim=1)
        logits = logits / self.temperature(name, modality)
        if settings.loss == "kl":
            if soft_labels.requires_grad:
                # A low teacher temperature makes some labels 0. Their terms p log p and their gradients are 0, but
                # autograd computes 0 times infinity. This changes no other value or gradient.
                soft_labels = torch.where(soft_labels > 0, soft_labels, 0.0)
            return F.kl_div(F.log_softmax(logits, dim=1), soft_labels, reduction="batchmean")
        return cross_entropy(logits, soft_labels, settings.reduction)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross-entropy of logits and soft targets, both [b, B]: a scalar.

    `reduction` is `sum` (sum over a row, then mean over rows) or `mean` (mean over all entries).
    """
    entries = -F.log_softmax(logits, dim=1) * targets
    return entries.mean() if reduction == "mean" else entries.sum(dim=1).mean()


def evenly(positives: Tensor, left_out: Tensor | None) -> Tensor | float:
    """The uniform label, equal for all entries of a row: float [b, B] or one number; 0 for entries left out."""
    if left_out is None:
        return 1 / positives.shape[1]
    stays = (~left_out).to(positives.dtype)
    return stays / stays.sum(dim=1, keepdim=True)


def sigmoid_loss(logits: Tensor, positives: Tensor, reduction: str) -> Tensor:
    """Binary cross-entropy of logits, float [b, B], and of the pairs that belong together, bool [b, B]: a scalar.

    `reduction` is as in `cross_entropy`.
    """
    entries = -F.logsigmoid(torch.where(positives, logits, -logits))
    return entries.mean() if reduction == "mean" else entries.sum(dim=1).mean()


def mixed(images: Tensor, texts: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The similarities of both teachers, [b, B] each, with a share of the other teacher's in each."""
    if share == 0:
        return images, texts
    return torch.lerp(images, texts, share), torch.lerp(texts, images, share)


def geometric_mean(first: Tensor, second: Tensor) -> Tensor:
    """sqrt(relu(first) * relu(second)), element by element: the target of mode `dot`."""
    return torch.sqrt(first.relu() * second.relu())


def tied_range(pair: TemperaturePair) -> TemperatureRange:
    """One temperature for images and texts: the mean of their starts, and the means of their bounds."""
    return TemperatureRange(
        start=(pair.image.start + pair.text.start) / 2,
        min=(pair.image.min + pair.text.min) / 2,
        max=(pair.image.max + pair.text.max) / 2,
    )


def _self_similarity(name: str, features: Tensor | None, gather_rows: GatherRows | None) -> Tensor:
    units = normalised(name, features)
    return units @ (units if gather_rows is None else gather_rows(units)).T
