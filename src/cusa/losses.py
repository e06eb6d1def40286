"""The CUSA loss: contrastive + cross-modal (CSA) + uni-modal (USA) soft-label alignment.

Huang et al., AAAI 2024 (arXiv 2403.05261), as its released code computes it. With B pairs a batch:

    S   = cross_image @ cross_text.T            U_v, U_t = uni_image @ uni_image.T, uni_text @ uni_text.T
    P   = [id_i == id_j], rows divided by sum    T_v, T_t = the teachers' cosine similarities

    contrastive = rate * (c(S) + c(S.T)) / 2,              c(X) = reduce(-log_softmax(X / tau) * P)
    CSA         = rate * (kd(S, T_v) + kd(S.T, T_t)) / 2,  kd(X, T) = KL(softmax(T / tau_T) || softmax(X / tau))
    USA         = rate * (kd(U_v, T_v) + kd(U_t, T_t)) / 2

All embeddings are L2-normalised first. Everything is computed in the precision of the inputs, at least float32.

Several processes with b pairs each can have the losses of all B = b * processes pairs (`all_of`): each computes its b
rows of every matrix, [b, B], and the mean of the processes' losses is the loss of the whole batch. So is the mean of
their gradients, which is what DistributedDataParallel takes; memory a process grows with b * B, not B * B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cusa.config.losses import (
    Contrastive,
    CrossSoftLabel,
    LossConfiguration,
    TemperaturePair,
    TemperatureRange,
    UniSoftLabel,
)
from cusa.errors import ConfigurationError

AllOf = Callable[[Tensor], Tensor]
TEACHER_COLUMNS = 2048  # of a teacher's features that are gathered at once; Unicom's tokens have up to 37,632


@dataclass
class Losses:
    """The three terms with their rates applied, scalars; a term whose family is off is 0."""

    contrastive: Tensor
    cross: Tensor
    uni: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.contrastive + self.cross + self.uni

    def detached(self) -> Losses:
        """The same values without their graph."""
        return Losses(self.contrastive.detach(), self.cross.detach(), self.uni.detach())


class CUSALoss(nn.Module):
    """Owns the temperatures; see the module's docstring for the formulas."""

    def __init__(self, configuration: LossConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        self.temperatures = nn.ParameterDict()
        self.bounds: dict[str, tuple[float, float]] = {}
        if (contrastive := configuration.contrastive) is not None:
            self._add("contrastive", contrastive.temperature, contrastive.temperature.learned)
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

    @torch.no_grad()
    def clamp_temperatures(self) -> None:
        """Put every temperature back into its bounds; done before each forward pass, as published."""
        for name, (low, high) in self.bounds.items():
            self.temperatures[name].clamp_(low, high)

    def temperature(self, name: str, modality: str | None = None) -> Tensor:
        """The scalar that `name` ("contrastive", "cross", "cross_teacher", "uni", "uni_teacher") stands for.

        Shared and tied temperatures are resolved here, and nowhere else.
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
        """Every temperature by name, for the history."""
        return {name: float(value.detach()) for name, value in self.temperatures.items()}

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
        all_of: AllOf | None = None,
    ) -> Losses:
        """Compute the losses of a batch.

        Head outputs are [B, D], not normalised, None where their family is off; teacher features are [B, d], not
        normalised, None where no soft label is on; `image_ids` is int64 [B], equal for captions of one image.
        `all_of` turns the b rows of this process into those of all processes, as `Group.all_of` does; with it the
        losses are this process's share (see the module's docstring), without it those of its own batch.
        """
        self.clamp_temperatures()
        zero = torch.zeros((), device=image_ids.device)
        losses = Losses(zero, zero, zero)
        teacher_similarities = None
        if self.configuration.needs_teachers:
            with torch.no_grad():  # the teachers are frozen; only their temperatures may learn
                teacher_similarities = (
                    _teacher_similarity("teacher_image", teacher_image, all_of),
                    _teacher_similarity("teacher_text", teacher_text, all_of),
                )
        if self.configuration.contrastive is not None or self.configuration.cross_softlabel is not None:
            image, text = _normalise("cross_image", cross_image), _normalise("cross_text", cross_text)
            if all_of is None:
                image_to_text = image @ text.T
                text_to_image = image_to_text.T
            else:
                image_to_text, text_to_image = image @ all_of(text).T, text @ all_of(image).T
            if (contrastive := self.configuration.contrastive) is not None:
                all_ids = image_ids if all_of is None else all_of(image_ids)
                same_image = image_ids[:, None] == all_ids[None, :]
                losses.contrastive = self._contrastive(contrastive, image_to_text, text_to_image, same_image)
            if (cross := self.configuration.cross_softlabel) is not None and teacher_similarities is not None:
                losses.cross = self._cross(cross, image_to_text, text_to_image, *teacher_similarities)
        if (uni := self.configuration.uni_softlabel) is not None and teacher_similarities is not None:
            images = _self_similarity("uni_image", uni_image, all_of)
            texts = _self_similarity("uni_text", uni_text, all_of)
            losses.uni = self._uni(uni, images, texts, *teacher_similarities)
        return losses

    def _contrastive(
        self, settings: Contrastive, image_to_text: Tensor, text_to_image: Tensor, same_image: Tensor
    ) -> Tensor:
        positives = same_image.to(image_to_text.dtype)
        positives = positives / positives.sum(dim=1, keepdim=True)
        temperature = self.temperature("contrastive")
        of_images = cross_entropy(image_to_text / temperature, positives, settings.reduction)
        of_texts = cross_entropy(text_to_image / temperature, positives, settings.reduction)
        return settings.rate * (of_images + of_texts) / 2

    def _cross(
        self, settings: CrossSoftLabel, image_to_text: Tensor, text_to_image: Tensor, images: Tensor, texts: Tensor
    ) -> Tensor:
        if settings.mode == "add":
            images = texts = (images + texts) / 2
        elif settings.mode == "dot":
            images = texts = geometric_mean(images, texts)
        of_images = self._align(settings, image_to_text, images, "cross", "image")
        of_texts = self._align(settings, text_to_image, texts, "cross", "text")
        return settings.rate * (of_images + of_texts) / 2

    def _uni(
        self,
        settings: UniSoftLabel,
        images: Tensor,
        texts: Tensor,
        teacher_images: Tensor,
        teacher_texts: Tensor,
    ) -> Tensor:
        image = self._align(settings, images, teacher_images, "uni", "image")
        text = self._align(settings, texts, teacher_texts, "uni", "text")
        return settings.rate * (image + text) / 2

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
            return F.kl_div(F.log_softmax(logits, dim=1), soft_labels, reduction="batchmean")
        return cross_entropy(logits, soft_labels, settings.reduction)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross-entropy with soft targets [b, B]: `sum` over a row and mean over rows, or `mean` over all entries."""
    entries = -F.log_softmax(logits, dim=1) * targets
    return entries.mean() if reduction == "mean" else entries.sum(dim=1).mean()


def geometric_mean(first: Tensor, second: Tensor) -> Tensor:
    """sqrt(relu(first) * relu(second)): the target of mode `dot`."""
    return torch.sqrt(first.relu() * second.relu())


def tied_range(pair: TemperaturePair) -> TemperatureRange:
    """One temperature for two: the means of the starts and of the bounds."""
    return TemperatureRange(
        start=(pair.image.start + pair.text.start) / 2,
        min=(pair.image.min + pair.text.min) / 2,
        max=(pair.image.max + pair.text.max) / 2,
    )


def _normalise(name: str, features: Tensor | None) -> Tensor:
    if features is None:
        raise ConfigurationError(f"the losses that are switched on need {name}, but it is None.")
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return F.normalize(features, dim=1)


def _self_similarity(name: str, features: Tensor | None, all_of: AllOf | None) -> Tensor:
    normalised = _normalise(name, features)
    return normalised @ (normalised if all_of is None else all_of(normalised)).T


def _teacher_similarity(name: str, features: Tensor | None, all_of: AllOf | None) -> Tensor:
    """Like `_self_similarity`, but of the others' features only some columns are held at a time."""
    if all_of is None:
        return _self_similarity(name, features, None)
    normalised = _normalise(name, features)
    columns = torch.split(normalised, TEACHER_COLUMNS, dim=1)
    similarity = columns[0] @ all_of(columns[0]).T
    for part in columns[1:]:
        similarity += part @ all_of(part).T
    return similarity
