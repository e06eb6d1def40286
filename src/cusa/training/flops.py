"""The floating-point operations of a training batch, for FLOP/s and for the model FLOPs utilisation (MFU).

MFU is the share of the hardware's highest speed that the model's own operations reach (Chowdhery et al., 2022,
arXiv 2204.02311, appendix B). Its own operations are those of one forward and one backward pass: what GradCache or
gradient checkpointing computes a second time does not count, and neither do images that are encoded more than once.

torch's FlopCounterMode counts matrix products, convolutions and attention, in one pass over an image and three over a
caption. The operations of a caption grow with its length T as c + a T + b T^2, which is exact for transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cusa.config.losses import LossConfiguration
from cusa.layout import Modality
from cusa.student.backbones import FrozenDimensions, TextInput
from cusa.student.sides import evaluating
from cusa.student.student import Student
from cusa.training.batches import TrainingBatch
from cusa.training.synthetic import synthetic_pairs

WORDS = (4, 8, 16)  # of the captions that are counted


@dataclass(frozen=True)
class BatchFlops:
    """The cost of a batch's parts, forward and backward, in floating-point operations of one process.

    `image` is the cost of one image with its heads. A caption of T tokens costs `caption` + `token` * T +
    `token_squared` * T^2. Every two pairs of the batch that are compared cost `comparison`.
    """

    image: float
    caption: float
    token: float
    token_squared: float
    comparison: float

    def of(self, batch: TrainingBatch, compared_with: int | None = None) -> float:
        """The cost of a batch whose pairs are compared with `compared_with` pairs, by default those of the batch."""
        captions, tokens = shape_of_texts(batch.texts)
        pairs = len(batch.image_ids)
        return (
            len(batch.images) * self.image
            + captions * (self.caption + tokens * self.token + tokens**2 * self.token_squared)
            + pairs * (compared_with or pairs) * self.comparison
        )


def shape_of_texts(texts: TextInput) -> tuple[int, int]:
    """The number of captions, and the tokens that each is padded to; 0 tokens for a frozen tower's features."""
    if isinstance(texts, Tensor):
        return len(texts), 0
    captions, tokens = texts["input_ids"].shape
    return captions, tokens


def count_flops(
    student: Student, losses: LossConfiguration, frozen: FrozenDimensions, teachers: Mapping[Modality, int]
) -> BatchFlops:
    """Count the cost of a batch, on the device of the weights; `frozen` and `teachers` as in `synthetic_pairs`.

    Changes no weight, no gradient, no running statistic and no random state. Takes about as long as a step with four
    pairs. Call it before the student is divided among processes.
    """
    device = next(student.parameters()).device
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]

    def batch_of(words: int) -> TrainingBatch:
        made = synthetic_pairs(student.backbone, losses, frozen, teachers, images=1, words=words)
        return made[np.arange(1)].to(device)

    batches = [batch_of(words) for words in WORDS]

    def image() -> list[Tensor]:
        features = student.image_features(batches[0].images)
        return [student.head(features, family, "image") for family in losses.heads]

    def text(texts: TextInput) -> list[Tensor]:
        features = student.text_features(texts)
        return [student.head(features, family, "text") for family in losses.heads]

    with evaluating(student):
        costs = [_counted(partial(text, each.texts), trained) for each in batches]
        constant, linear, squared = _by_length([shape_of_texts(each.texts)[1] for each in batches], costs)
        return BatchFlops(
            image=_counted(image, trained),
            caption=constant,
            token=linear,
            token_squared=squared,
            comparison=_comparison(losses, student.backbone.dimension, teachers),
        )


def _counted(outputs: Callable[[], Iterable[Tensor]], inputs: Sequence[Tensor]) -> float:
    """The operations of computing some outputs, and their gradients with respect to `inputs`."""
    from torch.utils.flop_counter import FlopCounterMode

    # The plain formula of attention is made of matrix products, which are counted on every device.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        sums = [output.float().sum() for output in outputs() if output.requires_grad]
        if sums and inputs:
            torch.autograd.grad(torch.stack(sums).sum(), inputs, allow_unused=True)
    return float(counter.get_total_flops())


def _by_length(lengths: list[int], costs: list[float]) -> tuple[float, float, float]:
    """c, a and b of c + a T + b T^2, from the costs of captions of up to three different lengths."""
    by_length = dict(zip(lengths, costs, strict=True))
    # Frozen towers, and models that pad all captions to one length, have one length: then all is in c.
    powers = np.vander(np.array(list(by_length), dtype=np.float64), increasing=True)
    found = np.linalg.solve(powers, np.array(list(by_length.values()))).tolist()
    constant, linear, squared = found + [0.0] * (3 - len(found))
    return constant, linear, squared


def _comparison(losses: LossConfiguration, dimension: int, teachers: Mapping[Modality, int]) -> float:
    """The operations of the losses for every two pairs of a batch.

    Two vectors of length d are compared in 2 d operations, and the gradients with respect to both take 4 d. Image and
    text are compared in the common space, images with images and texts with texts too if a loss needs that, and the
    teachers' features without gradients.
    """
    products = sum({"cross": 1, "uni": 2}[family] for family in losses.heads)
    return float(6 * dimension * products + 2 * sum(teachers.values()))
