"""The exponential moving average of the weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cusa.errors import ResumeError
from cusa.training.sharding import divided_like, is_sharded, own_share


class WeightAverage:
    """The average of a module's learned state: its parameters with gradients, and its floating-point buffers.

    After the step n, counted from 1, average = d * average + (1 - d) * weights, where d is the smaller of `decay` and
    (1 + n) / (10 + n): the weights of the first steps, which are far from what is learned later, are soon forgotten.
    This is the average of TensorFlow's ExponentialMovingAverage with `num_updates`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """The average starts as the weights of `module`, on the same device; `decay` is from 0 to below 1."""
        self.decay = decay
        saved = module.state_dict().keys()  # some buffers are not in the state dict
        every: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
        learned = {name: tensor for name, tensor in every.items() if tensor.requires_grad}
        learned |= {name: tensor for name, tensor in module.named_buffers() if tensor.is_floating_point()}
        # Weights that are shared have several names; they are averaged once.
        first = {id(tensor): name for name, tensor in reversed(learned.items()) if name in saved}
        self.names = {name: first[id(tensor)] for name, tensor in learned.items() if name in saved}
        self.weights = {name: learned[name] for name in sorted(first.values())}
        self.average = {name: tensor.detach().clone() for name, tensor in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after an optimiser step, counted from 1 over all epochs. Does not wait for the device."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        shares = [[own_share(tensor).detach() for tensor in each.values()] for each in (self.average, self.weights)]
        average(*shares, step)

    def state(self) -> dict[str, Tensor]:
        """The average by all names of the weights in the module's state dict, not copied."""
        return {name: self.average[first] for name, first in self.names.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the module the average for the weights until the block ends."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Exchange the memory of weights and average; only those that are divided among processes are copied."""
        for name, weights in self.weights.items():
            if is_sharded(weights):  # FSDP gathers from the memory that it has allocated
                own, average = own_share(weights).detach(), own_share(self.average[name])
                before = own.clone()
                own.copy_(average)
                average.copy_(before)
            else:
                weights.data, self.average[name] = self.average[name], weights.data

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Continue with the average of a saved state. Raises ResumeError if it is of other weights."""
        if average.keys() != self.names.keys():
            raise ResumeError("the average of the weights in the saved state has other weights than the model.")
        for name, tensor in self.average.items():
            tensor.copy_(divided_like(average[name], tensor))
