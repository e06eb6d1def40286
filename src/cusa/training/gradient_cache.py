"""GradCache (Gao et al., 2021, arXiv 2101.06983): the gradients of a whole batch, with the memory of a chunk of it.

A batch has fewer images than pairs if pairs share an image, so its distinct images and its distinct texts are
divided, not its pairs. Three passes:

1. The towers' features of all chunks, without a graph.
2. All that comes after the towers (noise and dropout, projections, heads and losses) for the whole batch. Its gradients
   with respect to the towers' features, and to the parameters after the towers, are kept.
3. Each chunk again, with a graph, through which these gradients reach the towers' parameters.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cusa.layout import Modality
from cusa.student.backbones import TextInput, each_tensor

TowerInputs = Mapping[Modality, TextInput]


def chunks_of(inputs: TowerInputs, size: int, number: int | None = None) -> list[dict[Modality, slice]]:
    """The rows of each chunk of at most `size` images and `size` texts; a chunk may lack one of the two.

    There are `number` chunks, by default as few as possible.
    """
    rows = {side: _rows(value) for side, value in inputs.items()}
    if number is None:
        number = max(-(-count // size) for count in rows.values())
    bounds = {side: [count * place // number for place in range(number + 1)] for side, count in rows.items()}
    return [
        {side: slice(ends[place], ends[place + 1]) for side, ends in bounds.items() if ends[place] < ends[place + 1]}
        for place in range(number)
    ]


def fewest_rows(inputs: TowerInputs) -> int:
    """The number of images or of texts, whichever are fewer; as many chunks can have both."""
    return min(map(_rows, inputs.values()))


def rows_of(inputs: TowerInputs, chunk: Mapping[Modality, slice]) -> TowerInputs:
    """The inputs of a chunk."""
    return {side: each_tensor(inputs[side], operator.itemgetter(rows)) for side, rows in chunk.items()}


def joined(parts: list[dict[Modality, Tensor]]) -> dict[Modality, Tensor]:
    """The features of all chunks, [n, d] by side, as leaves that gradients can be computed for."""
    sides = dict.fromkeys(side for part in parts for side in part)
    return {side: torch.cat([part[side] for part in parts if side in part]).requires_grad_() for side in sides}


@dataclass(frozen=True)
class CachedGradients:
    """Gradients of a batch's loss: with respect to the towers' features, [n, d] by side, and to parameters by name."""

    towers: dict[Modality, Tensor]
    parameters: dict[str, Tensor]

    @classmethod
    def of(cls, total: Tensor, towers: Mapping[Modality, Tensor], task: nn.Module) -> CachedGradients:
        """The gradients of `total` with respect to `towers`, which are leaves, and to the parameters after them."""
        learned = {name: value for name, value in task.named_parameters() if value.requires_grad}
        leaves = [*towers.values(), *learned.values()]
        gradients = list(torch.autograd.grad(total, leaves, allow_unused=True))
        # A side that no loss reads has no gradient.
        of_towers = {side: part for side, part in zip(towers, gradients, strict=False) if part is not None}
        later = zip(learned, gradients[len(towers) :], strict=True)
        return cls(of_towers, {name: part for name, part in later if part is not None})

    def share(self, chunk: Mapping[Modality, slice], last: bool) -> CachedGradients:
        """The share of a chunk. The last one also has the gradients of the parameters, which no chunk owns."""
        towers = {side: self.towers[side][rows] for side, rows in chunk.items() if side in self.towers}
        return CachedGradients(towers, self.parameters if last else {})

    def product(self, towers: Mapping[Modality, Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        """A scalar whose gradients, through `towers` and with respect to `parameters`, are the cached ones."""
        terms = [(towers[side] * gradient).sum() for side, gradient in self.towers.items()]
        terms += [(parameters[name] * gradient).sum() for name, gradient in self.parameters.items()]
        return torch.stack([term.float() for term in terms]).sum()


def _rows(value: TextInput) -> int:
    return len(value if isinstance(value, Tensor) else next(iter(value.values())))
